"""Other people's text stays text on the pages and in the logs."""

from __future__ import annotations

import pytest

from tasks.pages.markdown import fitting, markdown_code, markdown_text, table
from tasks.run_log import log_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[click](http://evil)", r"[click\](http\://evil)"),
        ("![x](y)", r"![x\](y)"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("a|b `c` *d* _e_", r"a\|b \`c\` \*d\* \_e\_"),
        ("two\nlines\u202eturned", "two lines turned"),
        ("# heading", r"\# heading"),
        ("www.evil.example", r"www\.evil.example"),
        ("KID 0.5 [0.1, 0.9]", "KID 0.5 [0.1, 0.9]"),
    ],
)
def test_no_markup_in_prose_acts(text, shown):
    assert markdown_text(text) == shown


def test_a_code_span_cannot_be_left():
    assert markdown_code("a`b``c") == "``` a`b``c ```"


def test_a_cell_cannot_end_its_row():
    assert table(["name"], [["a | b\n| c"]]).splitlines()[2] == r"| a \| b \| c |"


def test_what_does_not_fit_is_left_out_by_whole_lines():
    assert fitting("start", ["12345", "67890"], length=11) == "start\n12345"


def test_a_name_cannot_write_a_line_of_the_log_or_move_the_cursor():
    assert log_text("a\nINFO all is well\x1b[2J\u202e.png") == r"a\nINFO all is well\x1b[2J\u202e.png"
    assert log_text("x" * 500) == "x" * 197 + "..."
