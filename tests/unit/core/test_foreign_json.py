"""JSON of strangers is a value or a ValueError, whatever it holds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlora.core.foreign_json import MAX_DEPTH, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_ordinary_json_is_what_it_was(value):
    assert parse_json(json.dumps(value), 10**6) == value
    assert parse_json(json.dumps(value).encode(), 10**6) == value


@given(st.text() | st.binary())
def test_other_text_is_a_value_error(text):
    try:
        parse_json(text, 10**6)
    except ValueError:
        return
    json.loads(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 3000 + "]" * 3000, "deep"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "deep"),
        ("9" * 5000, "digits"),
        ("[" + "0," * 500 + "0]", "1,003 bytes of JSON, at most 1,000"),
        (b'"\xff"', "decode"),
    ],
)
def test_what_would_exhaust_memory_or_stack_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text, 1000 if "bytes" in reason else 10**5)


def test_as_many_levels_as_allowed_are_read():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, 10**5) is not None
