from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdlora.core.checkpoints import latest_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint


def save(folder: Path, step: int, value: float) -> Path:
    return save_checkpoint(folder, step, {"weight": torch.full((4,), value)}, {"loss": value})


def test_the_newest_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save(tmp_path, 10, 1.0)
    save(tmp_path, 20, 2.0)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.values) == (20, {"loss": 2.0})
    assert torch.equal(found.tensors["weight"], torch.full((4,), 2.0))


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "manifest.json"])
def test_one_damaged_byte_makes_the_checkpoint_invisible(
    tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 10, 1.0)
    newest = save(tmp_path, 20, 2.0) / file
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 10
    assert "step-00000020" in caplog.text and "Using the checkpoint before it" in caplog.text


def test_a_half_written_folder_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 10, 1.0)
    (tmp_path / "step-00000020").mkdir()
    (tmp_path / ".partial-123").mkdir()
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 10


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, float(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_an_empty_or_absent_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None


def test_optimiser_state_survives_the_round_trip(tmp_path: Path) -> None:
    def steps(weight: torch.Tensor, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            (weight**2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    steps(weight, optimizer, 3)
    save_checkpoint(tmp_path, 3, {"weight": weight} | optimizer_tensors(optimizer), {})
    steps(weight, optimizer, 2)

    found = latest_checkpoint(tmp_path)
    assert found is not None
    again = found.tensors["weight"].clone().requires_grad_(True)
    resumed = torch.optim.AdamW([again], lr=0.1)
    load_optimizer_tensors(resumed, found.tensors)
    steps(again, resumed, 2)
    assert torch.equal(again, weight)
