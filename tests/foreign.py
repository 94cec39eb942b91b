"""Files as strangers and damaged disks make them: mutations of valid ones, for hypothesis."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

# Numbers at the borders of types and of good sense, and text that a terminal or a parser might obey.
WHOLE_NUMBERS = st.sampled_from(
    [0, -1, 1, 2, 3, 7, 77, 255, 1000, 65_536, 10**6, 10**9, 2**31, 2**63, 2**64, 10**30, 10**400]
)
NUMBERS = WHOLE_NUMBERS | st.sampled_from([0.5, -0.0, 1e-300, 1e38, 1e300, float("inf"), float("-inf"), float("nan")])
TEXTS = st.sampled_from(["", "a", "\x1b[2J", "\u202e", "../x", "/etc/passwd", "x" * 5000, "NaN", "1e999", "ö\ud800"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
BROKEN_JSON = st.sampled_from(
    [
        "[" * 3000,
        "[" * 3000 + "]" * 3000,
        '{"a":' * 3000,
        "9" * 5000,
        "nul",
        '{"a"',
        "\x00",
        "NaN",
        "1e999",
        "[1,]",
        "\ufeff{}",
    ]
)


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with up to three changes at random places: another value, a missing or a new entry."""
    copy = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        copy = _change(draw, copy)
    return copy


def _change(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        match draw(st.integers(0, 9)):
            case 0:
                del value[key]
            case 1:
                value[draw(TEXTS)] = value[key]
            case 2:
                value[key], other = value[draw(st.sampled_from(sorted(value)))], value[key]
                value[draw(st.sampled_from(sorted(value)))] = other
            case _:
                value[key] = _change(draw, value[key])
        return value
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        value[place] = _change(draw, value[place])
        return value
    return draw(VALUES)


@st.composite
def json_text(draw: st.DrawFn, value: Any) -> bytes:
    """JSON text of a mutated value, sometimes broken as text."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(BROKEN_JSON).encode("utf-8", "surrogatepass")
    text = json.dumps(draw(mutated(value))).encode()
    return draw(damaged(text)) if kind == 1 else text


@st.composite
def damaged(draw: st.DrawFn, content: bytes, first: int = 0) -> bytes:
    """Bytes with some replaced, removed or added, from the position `first` on."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(min(first, len(changed)), len(changed)))
        match draw(st.integers(0, 3)):
            case 0:
                changed[place : place + draw(st.integers(0, 16))] = b""
            case 1:
                changed[place:place] = draw(st.binary(max_size=8))
            case 2:
                changed[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case _:
                del changed[place:]
    return bytes(changed)


@st.composite
def tensor_file(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file with a mutated header; the length before the header is right, or any."""
    size = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + size], content[8 + size :]
    match draw(st.integers(0, 9)):
        case 0:
            return draw(damaged(content))
        case 1:
            new_header = draw(damaged(header))
        case _:
            new_header = draw(json_text(json.loads(header)))
    length = draw(st.sampled_from([len(new_header)] * 9 + [0, 1, size, 2**20, 2**40, 2**64 - 1]))
    return length.to_bytes(8, "little") + new_header + data


_DTYPES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "U8": 1, "BOOL": 1, "C64": 8}
_SIDES = st.sampled_from([0, 1, 2, 3, 4, 8, 16, 64])
_MAX_BYTES = 2**18
_NAMES = (
    "lora_down.weight lora_up.weight lora_mid.weight alpha dora_scale hada_w1_a hada_w1_b hada_w2_a hada_w2_b hada_t1 "
    "hada_t2 lokr_w1 lokr_w1_a lokr_w1_b lokr_w2 lokr_w2_a lokr_w2_b lokr_t2 lora_A.weight lora_B.weight "
    "lora_magnitude_vector diff diff_b"
).split()


@st.composite
def consistent_file(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file that the library reads: other names, shapes, precisions, numbers and metadata."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    if draw(st.booleans()):
        changed = draw(mutated(metadata))
        metadata = {key: _as_text(value) for key, value in changed.items()} if isinstance(changed, dict) else {}
    tensors = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(sorted(tensors)))
        dtype, shape = tensors[name]
        match draw(st.integers(0, 5)):
            case 0:
                del tensors[name]
            case 1:
                tensors[name] = (draw(st.sampled_from(sorted(_DTYPES))), shape)
            case 2:
                tensors[name] = (dtype, draw(st.lists(_SIDES, max_size=5)))
            case 3:
                tensors[name] = (dtype, [draw(_SIDES) if draw(st.booleans()) else side for side in shape])
            case 4:
                tensors[f"{name.split('.lora')[0].removesuffix('.alpha')}.{draw(st.sampled_from(_NAMES))}"] = (
                    dtype,
                    shape,
                )
            case _:
                tensors[draw(TEXTS).encode("utf-8", "replace").decode() + draw(st.sampled_from(_NAMES))] = (
                    dtype,
                    shape,
                )
        if not tensors:
            break
    return _written(tensors, metadata, draw(st.sampled_from([b"\x00", b"\x3c", b"\xff", b"\x7f"])))


def _as_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


def _written(tensors: dict[str, Any], metadata: dict[str, str], number: bytes) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        count = _DTYPES[dtype]
        for side in shape:
            count *= side
        if count > _MAX_BYTES:
            shape, count = [], _DTYPES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + count]}
        offset += count
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + number * offset
