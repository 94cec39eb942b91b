from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from sdlora.core.errors import StorageError
from sdlora.training.inputs.tensor_cache import TensorCache
from tests.unit.training.disk import disk_space


def test_entries_come_back_as_they_were_added(tmp_path):
    cache = TensorCache(tmp_path / "cache")
    rows = torch.randn(4, 3)
    cache.add({"a": rows[0], "b": rows[1]})
    cache.add({"c": rows[2]})
    found = cache.load(["a", "c", "unknown"])
    assert found.keys() == {"a", "c"}
    assert torch.equal(found["a"], rows[0])
    assert torch.equal(found["c"], rows[2])


@pytest.mark.parametrize("damage", ["flip", "truncate", "garbage"])
def test_a_damaged_file_costs_its_own_entries_only(damage, tmp_path):
    cache = TensorCache(tmp_path)
    cache.add({"kept": torch.ones(3)})
    whole = set(tmp_path.iterdir())
    cache.add({"lost": torch.full((3,), 2.0)})
    (path,) = set(tmp_path.iterdir()) - whole
    content = path.read_bytes()
    path.write_bytes(
        {"flip": content[:-1] + bytes([content[-1] ^ 1]), "truncate": content[:-5], "garbage": b"no"}[damage]
    )
    assert cache.load(["kept", "lost"]).keys() == {"kept"}
    assert not path.exists()
    cache.add({"lost": torch.full((3,), 2.0)})
    assert cache.load(["kept", "lost"]).keys() == {"kept", "lost"}


def test_a_file_put_there_by_someone_else_is_not_believed(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / f"{'0' * 64}.safetensors")
    assert TensorCache(tmp_path).load(["a"]) == {}


def test_a_full_disk_is_named_and_earlier_entries_stay(tmp_path):
    cache = TensorCache(tmp_path)
    cache.add({"a": torch.ones(3)})
    with disk_space(10_000), pytest.raises(StorageError, match=str(tmp_path)):
        cache.add({"b": torch.ones(10_000)})
    assert cache.load(["a", "b"]).keys() == {"a"}
    assert len(list(tmp_path.iterdir())) == 1
