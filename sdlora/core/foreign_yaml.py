"""Parsing of YAML that people hand in: bounded in size and depth, with one kind of error.

PyYAML accepts more than a person means. Of a duplicate key the last value wins, aliases expand a small file without
limit, deep nesting ends in a RecursionError, and 010 is 8. Here each of these is one error with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from sdlora.core.printable import escape_controls
from sdlora.core.quoting import excerpt

MAX_BYTES = 2**20
"""Size of a document; far above any file that a person writes by hand."""
MAX_DEPTH = 32
"""Levels of lists and sections; settings have three."""
MAX_VALUES = 50_000
"""Values of a document with all aliases expanded."""
_MAX_NUMBER_CHARS = 64
_MAX_MESSAGE_CHARS = 400

_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
_MERGE = "tag:yaml.org,2002:merge"
_SURPRISING_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9_.]+(:[0-9_.]+)+)")
"""Octal and sexagesimal numbers of YAML 1.1: 010 would be 8, and 1:30 would be 90."""


def parse_yaml(text: str) -> Any:
    """Parse one YAML document of null, truth values, numbers, strings, lists and sections.

    Anchors, aliases and merge keys (`<<`) work. Dates stay strings, because no setting is a date.

    Raises:
        ValueError: the text is no YAML, has a key twice, another type, or is beyond the bounds of this module.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES} bytes")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader with fewer types
    except yaml.MarkedYAMLError as error:
        raise ValueError(_in_one_line(error)) from error
    except yaml.YAMLError as error:
        raise ValueError(_in_one_line_of(error, text)) from error


def require_shallow(value: Any) -> None:
    """Check the levels of nesting of lists and sections.

    Raises:
        ValueError: there are more than `MAX_DEPTH`.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _values(outer)]
        if not level:
            return
    raise ValueError(f"more than {MAX_DEPTH} levels of nesting")


def _values(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


class _Loader(yaml.SafeLoader):
    """SafeLoader with bounds. Bounds are checked while the tree is composed, before aliases are expanded."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._count = 0
        self._counts: dict[int, int] = {}  # values in a composed node, by its id; open nodes are missing

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave it out
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._counts:
                raise yaml.composer.ComposerError(None, None, "an alias within its own anchor has no end", mark)
            self._count += self._counts[id(node)]
            self._require_few(mark)
            return node
        before = self._count
        self._count += 1
        self._depth += 1
        self._require_few(mark)
        if self._depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} levels of nesting", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._counts[id(node)] = self._count - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here, because merge keys are not expanded yet: a section may override a merged key.
        node = super().compose_mapping_node(anchor)
        first_keys: dict[tuple[str, str], yaml.ScalarNode] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                first = first_keys.setdefault((key.tag, key.value), key)
                if first is not key:
                    line = first.start_mark.line + 1
                    problem = f"{excerpt(key.value)} is given twice, first on line {line}; keep one of the two"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        text = str(self.construct_scalar(node))
        if len(text) > _MAX_NUMBER_CHARS:
            problem = f"a number of {len(text)} characters; expected at most {_MAX_NUMBER_CHARS}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        if _SURPRISING_NUMBER.fullmatch(text):
            problem = f"{text} is a number to another base in YAML; write it in decimal digits, or in quotes as text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        is_int = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError) as error:  # an explicit tag on another text, such as `!!int x`
            problem = f"{excerpt(node.value)} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def _require_few(self, mark: yaml.Mark) -> None:
        if self._count > MAX_VALUES:
            problem = f"more than {MAX_VALUES} values, with aliases expanded"
            raise yaml.composer.ComposerError(None, None, problem, mark)


_Loader.yaml_constructors = {
    **{tag: build for tag, build in yaml.SafeLoader.yaml_constructors.items() if tag in _TAGS or tag is None},
    "tag:yaml.org,2002:int": _Loader.construct_number,
    "tag:yaml.org,2002:float": _Loader.construct_number,
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _TAGS or tag == _MERGE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _in_one_line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return _shown(where + ", ".join(part for part in (error.context, error.problem) if part))


def _in_one_line_of(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: the character {excerpt(chr(int(error.character)))} is not allowed"
    return _shown(str(error))


def _shown(text: str) -> str:
    return escape_controls(text[:_MAX_MESSAGE_CHARS], keep="")
