from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save_file

from sdlora.core.errors import StorageError
from sdlora.core.tensor_cache import TensorCache
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


@pytest.mark.parametrize("full", [False, True])
def test_a_computed_group_is_stored_and_loaded_and_survives_a_full_disk(full, tmp_path):
    cache, computed = TensorCache(tmp_path), []

    def compute():
        computed.append(True)
        return {"left": torch.ones(5000), "right": torch.zeros(2).expand(3, 2)}

    with disk_space(10_000) if full else nullcontext():
        first, second = (cache.load_or_compute("key", ["left", "right"], compute) for _ in range(2))
    assert len(computed) == (2 if full else 1)
    assert first.keys() == second.keys() == {"left", "right"}
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_full_disk_is_named_and_earlier_entries_stay(tmp_path):
    cache = TensorCache(tmp_path)
    cache.add({"a": torch.ones(3)})
    with disk_space(10_000), pytest.raises(StorageError, match=str(tmp_path)):
        cache.add({"b": torch.ones(10_000)})
    assert cache.load(["a", "b"]).keys() == {"a"}
    assert len(list(tmp_path.iterdir())) == 1
