from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from sdlora.core import tensor_header
from sdlora.core.errors import WeightsError
from sdlora.core.tensor_header import MAX_HEADER_BYTES, read_header


def test_names_shapes_precisions_and_metadata_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2, 3), "y": torch.tensor(1.0, dtype=torch.bfloat16)}, path, {"key": "wert ü"})
    header = read_header(path)
    assert header.shapes == {"x": (2, 3), "y": ()}
    assert header.dtypes == {"x": "F32", "y": "BF16"}
    assert header.metadata == {"key": "wert ü"}


def written(header: bytes, size: int | None = None) -> bytes:
    return (len(header) if size is None else size).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (written(b"{}", 2**63), "would be 9,223,372,036,854,775,808 bytes long"),
        (written(b"[" * 3000), "damaged"),
        (written(b'{"x": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4]}}'), "damaged"),
        (written(b'{"\\u001b[2J": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'), "damaged"),
    ],
    ids=["empty", "length", "nested", "shape", "truncated"],
)
def test_a_header_that_is_wrong_is_one_of_our_errors_without_control_characters(content, reason, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason) as caught:
        read_header(path)
    assert str(caught.value).isprintable()


def test_a_header_larger_than_any_known_one_is_not_parsed(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(written(json.dumps({"__metadata__": {"tags": "x" * MAX_HEADER_BYTES}}).encode()))
    with pytest.raises(WeightsError, match=r"bytes long \(at most 16,777,216 are read\)"):
        read_header(path)


def test_more_tensors_than_any_known_file_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_header, "MAX_TENSORS", 2)
    path = tmp_path / "a.safetensors"
    save_file({name: torch.zeros(1) for name in "abc"}, path)
    with pytest.raises(WeightsError, match="3 tensors, at most 2"):
        read_header(path)
