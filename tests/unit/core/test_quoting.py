"""Foreign names cannot change a terminal, a log or a page, and cannot fill one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlora.core.quoting import escaped, excerpt, quoted


@given(st.text() | st.integers() | st.lists(st.text()), st.integers(0, 40))
@pytest.mark.parametrize("function", [quoted, escaped])
def test_the_result_is_printable_and_short(function, value, length):
    result = function(value, length)
    assert result.isprintable()
    assert len(result) <= 10 * (length + 3) + 2  # the longest escape has ten characters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unet.to_q", "'unet.to_q'"),
        ("größe 画像", "'größe 画像'"),
        ("\x1b[2J", r"'\x1b[2J'"),
        ("a\nb\u202ec", r"'a\nb\u202ec'"),
        ("\udcff", r"'\udcff'"),  # a byte of a file name that is no text
    ],
)
def test_a_name_stays_readable_and_its_control_characters_are_escapes(text, expected):
    assert quoted(text) == expected
    assert escaped(text) == expected[1:-1]


def test_a_long_name_keeps_its_start_and_its_end():
    text = "first." + 10**6 * "x" + ".last"
    assert quoted(text, 30) == "'first.xxxxxxxxxxxxxx...xxxxx.last'"
    assert quoted(10**5000) == "'a int'"  # Python refuses to write so many digits


def test_quotation_marks_of_another_librarys_message_stay():
    assert escaped("no file 'a' or \"b\"") == "no file 'a' or \"b\""


def test_an_excerpt_of_any_value_is_short_and_printable():
    nested = []
    for _ in range(5000):
        nested = [nested]
    for value in ("x" * 10**6, 10**5000, -(10**5000), nested, {"a": "\x1b[31m"}, [{"k": ["v" * 999] * 99}] * 99):
        assert len(excerpt(value)) < 330
        assert excerpt(value).isprintable()
    assert excerpt(10**5000) == "a number of about 5001 digits"
    assert excerpt("short") == "'short'"
    assert excerpt({"a": [1, None]}) == "{'a': [1, None]}"
