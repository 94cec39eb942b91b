"""Random settings, as text and as parameters, and what has to hold for each: a configuration or our own error.

`tests/unit/test_config_fuzz.py` tries some hundreds in seconds, `benchmarks/fuzz_settings.py` many in minutes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from sdlora.config import ConfigFile, PipelineConfig, load_file, parse_flags
from sdlora.core.errors import ConfigError
from sdlora.pretraining.config import PretrainPlan
from tasks.form import PLAN, STYLE, Form

MAX_MESSAGE_CHARS = 25_000
CONFIGS = Path(__file__).parents[1] / "deployments" / "configs"
MODELS: dict[type[BaseModel], Form[Any]] = {PipelineConfig: STYLE, PretrainPlan: PLAN}
outcomes: Counter[str] = Counter()


def check_text(text: str, folder: Path) -> None:
    """A file of this text, read as a style and as a plan."""
    path = folder / "fuzzed.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for model in MODELS:
        with _only_our_errors(model):
            _check_accepted(load_file(path, model))


def check_flag(text: str, folder: Path) -> None:
    """`--set TEXT` on an empty style."""
    path = folder / "empty.yaml"
    path.write_text("")
    with _only_our_errors(PipelineConfig):
        _check_accepted(load_file(path, PipelineConfig, parse_flags([text])))


def check_parameters(model: type[ConfigFile], advanced: dict[str, Any], flat: dict[str, Any]) -> None:
    """Parameters as a form, REST or a call in Python gives them."""
    with _only_our_errors(model):
        _check_accepted(MODELS[model].config(advanced, **flat))


class _only_our_errors:  # noqa: N801  # reads as a sentence after `with`
    def __init__(self, model: type[BaseModel]) -> None:
        self.name = model.__name__

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is None:
            outcomes[f"{self.name} accepted"] += 1
            return False
        if not isinstance(error, ConfigError):
            return False
        outcomes[f"{self.name} refused"] += 1
        message = str(error)
        assert len(message) < MAX_MESSAGE_CHARS
        assert message.replace("\n", "").isprintable(), ascii(message)
        message.encode()
        return True


def _check_accepted(config: BaseModel) -> None:
    """An accepted configuration can be written as JSON, and its parameters give it again."""
    written = config.model_dump_json()
    assert type(config).model_validate_json(written) == config
    json.dumps(config.model_dump(mode="json"), allow_nan=False).encode()
    assert "\\u0000" not in written
    form = MODELS[type(config)]
    parameters = form.parameters(config)  # type: ignore[arg-type]
    json.dumps(parameters, allow_nan=False)
    again = form.config(parameters.pop("advanced", {}), **parameters)
    assert again == config


@cache
def _names() -> tuple[str, ...]:
    def walk(model: type[BaseModel]) -> Iterator[str]:
        for name, field in model.model_fields.items():
            yield name
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from walk(field.annotation)

    return tuple(sorted({name for model in MODELS for name in walk(model)}))


@cache
def _samples() -> tuple[str, ...]:
    return tuple(path.read_text() for path in sorted(CONFIGS.rglob("*.yaml")))


PIECES = (
    *("&a ", "*a", "<<: *a", "<<: [*a, *a]", "!!int ", "!!float ", "!!binary ", "!!set ", "!!python/name:os ", "!x "),
    *("[", "]", "{", "}", ": ", "- ", "? ", "| ", "> ", "# ", "---\n", "...\n", "%YAML 1.1\n", "\t", "\n", "\n  "),
    *(
        '"\\0"',
        '"\\ud800"',
        '"\\x1b[31m"',
        "'",
        '"',
        "\ufeff",
        "\u2028",
        "\x85",
        "\x00",
        "\x1b",
        "\ud800",
        "\U0001f600",
    ),
    *(".inf", "-.inf", ".nan", "nan", "1e999", "99999999999999999999", "-0", "010", "1:30", "0x_", "1_000", "1e-4"),
    *("~", "null", "yes", "''", "=", "2026-13-45", "~nobody-here/x", "x" * 300, "../" * 90, "[" * 3000, "9" * 5000),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**20, -(10**20), 2**63, 2**53])
    | st.just(5000).map(lambda digits: 10**digits)  # hypothesis could not print it as a constant
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from(["\0", "x" * 300, "x" * 9000, "~nobody-here/x", "\ud800", "inf", "nan", "1e999", "9" * 5000, "a"])
)


def names() -> st.SearchStrategy[str]:
    """A known name in most cases."""
    return st.sampled_from(_names()) | st.sampled_from(_names()) | st.text(max_size=8)


def texts() -> st.SearchStrategy[str]:
    """Text of a file: real ones with pieces replaced, and rows of keys and pieces."""
    line = st.builds(
        lambda indent, name, value: f"{indent}{name}: {value}\n", st.sampled_from(["", "  "]), names(), pieces()
    )
    mutated = st.builds(
        _mutated, st.sampled_from(_samples()), st.lists(st.tuples(st.floats(0, 1), pieces()), max_size=4)
    )
    return mutated | st.lists(line | pieces(), max_size=12).map("".join)


def _mutated(text: str, edits: list[tuple[float, str]]) -> str:
    for place, piece in edits:
        start = int(place * len(text))
        text = text[:start] + piece + text[start + len(piece) % 7 :]
    return text


def pieces() -> st.SearchStrategy[str]:
    scalars = st.integers().map(str) | st.floats().map(str) | st.text(max_size=12)
    return st.lists(st.sampled_from(PIECES) | names() | scalars, min_size=1, max_size=4).map("".join)


def flags() -> st.SearchStrategy[str]:
    name = st.lists(names(), min_size=1, max_size=3).map(".".join)
    return st.builds(lambda left, right: f"{left}={right}", name, pieces()) | pieces()


def deep(levels: int) -> list[Any]:
    """Nested lists; JSON from a REST call may have any depth."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def values() -> st.SearchStrategy[Any]:
    inner = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(names(), SCALARS, max_size=3)
    return inner | st.sampled_from([40, 3000]).map(deep)


def parameters() -> st.SearchStrategy[tuple[type[BaseModel], dict[str, Any], dict[str, Any]]]:
    def of_model(model: type[BaseModel]) -> st.SearchStrategy[Any]:
        form = MODELS[model]
        sections = st.sampled_from(form.sections) | names()
        section = st.dictionaries(names(), values(), max_size=4) | values()
        flat = st.dictionaries(st.sampled_from(sorted(form.flat)), values(), max_size=4)
        return st.tuples(st.just(model), st.dictionaries(sections, section, max_size=3), flat)

    return st.sampled_from(list(MODELS)).flatmap(of_model)
