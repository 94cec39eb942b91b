"""What people hand in as YAML is read as they mean it, or is one error."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sdlora.core.foreign_yaml import MAX_DEPTH, MAX_VALUES, parse_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"line 3, column 1: 'a' is given twice, first on line 1"),
        ("s:\n  x: {a: 1,\n    a: 2}\n", r"line 3, column 5: 'a' is given twice, first on line 2"),
        ("a: 1\n'a': 2\n", r"line 2.*'a' is given twice, first on line 1"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x\n", r"line 4.*'<<' is given twice, first on line 3"),
        ("a: " + "[" * 3000 + "]" * 3000, rf"line 1, column \d+: more than {MAX_DEPTH} levels"),
        ("{a: " * 3000 + "1" + "}" * 3000, rf"more than {MAX_DEPTH} levels"),
        ("a: " + "9" * 5000, r"line 1, column 4: a number of 5000 characters"),
        ("a: 0x" + "9" * 5000, r"a number of 5002 characters"),
        ("a: " + "9" * 5000 + ".5", r"a number of 5002 characters"),
        ("a: 010\n", r"line 1, column 4: 010 is a number to another base"),
        ("a: 1:30\n", r"1:30 is a number to another base"),
        ("a: !!int x\n", r"'x' is no int"),
        ("a: !!int ''\n", r"'' is no int"),
        ("a: !!float [1]\n", r"expected a scalar node"),
        ("a: !!bool maybe\n", r"'maybe' is no bool"),
        ("a: !!python/object/apply:os.system [ls]\n", r"could not determine a constructor"),
        ("a: !!binary aGVsbG8=\n", r"could not determine a constructor"),
        ("a: &a [*a]\n", r"line 1, column 8: an alias within its own anchor"),
        ("? [1]\n: 2\n", r"unhashable key"),
        ("a: 1\n---\nb: 2\n", r"line 2, column 1: expected a single document"),
        ("a: \x07\n", r"line 1: the character '\\x07' is not allowed"),
        ("b: 1\na: \0\n", r"line 2: the character '\\x00' is not allowed"),
        ("a: [1\n", r"line 2, column 1: while parsing a flow sequence"),
        ("a: *b\n", r"found undefined alias 'b'"),
        ("# " + "x" * 2**20, r"longer than 1048576 bytes"),
    ],
)
def test_yaml_that_means_something_else_than_it_seems_is_one_error_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_aliases_that_expand_without_end_are_refused_at_once() -> None:
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))
    merges = "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 20))
    began = time.process_time()  # of this process: others may work, too
    for text in ("a0: &a0 [lol]\n" + levels, "m0: &m0 {x: 1}\n" + merges):
        with pytest.raises(ValueError, match=f"more than {MAX_VALUES} values, with aliases expanded"):
            parse_yaml(text)
    assert time.process_time() - began < 60  # to expand them all would take for ever


def test_what_a_person_writes_is_read_as_pyyaml_reads_it() -> None:
    text = (
        "base: &base {rank: 4, alpha: 8.0}\nfirst:\n  <<: *base\n  alpha: 2\nsecond: *base\n"
        "words: [yes, 'no', ~, 1_000, 0x10, 1e-3, -.inf, 1.5e+3]\nempty:\nmany: |\n  two\n  lines\n"
    )
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml(text)["first"] == {"rank": 4, "alpha": 2}
    assert parse_yaml("") is None
    assert parse_yaml("day: 2026-11-29\n") == {"day": "2026-11-29"}
    assert parse_yaml("sum: =\n") == {"sum": "="}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_what_yaml_writes_is_read_back(value: object) -> None:
    assert parse_yaml(yaml.safe_dump(value)) == value
