from __future__ import annotations

import sys
import unicodedata

import pytest

from sdlora.core.printable import escape_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red car, très bien 猫", "a red car, très bien 猫"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x9b2J", r"\x9b2J"),
        ("file\u202egnp.exe", r"file\u202egnp.exe"),
        ("one\rtwo\x07\x08", r"one\rtwo\x07\x08"),
        ("half \ud800 pair", r"half \ud800 pair"),
        ("tag \U000e0041", r"tag \U000e0041"),
        ("line\nline", "line\nline"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("nbsp\u00a0ideographic\u3000space", "nbsp\u00a0ideographic\u3000space"),
    ],
)
def test_what_a_terminal_obeys_is_escaped_and_what_it_shows_stays(text, shown):
    assert escape_controls(text) == shown


def test_line_breaks_can_be_escaped_too():
    assert escape_controls("a\nb", keep="") == r"a\nb"


def test_no_control_direction_mark_or_surrogate_of_unicode_passes():
    text = "".join(map(chr, range(sys.maxunicode + 1)))
    escaped = escape_controls(text, keep="")
    left = {unicodedata.category(char) for char in escaped.replace("\u200c", "").replace("\u200d", "")}
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert escape_controls(escaped, keep="") == escaped
