from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sdlora.core.errors import TrainingError
from sdlora.lora.attach import attach_lora
from sdlora.models import parts
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.inputs.encoded import Encoding, encode_rows
from sdlora.training.job import TrainingJob
from sdlora.training.learning import preflight
from sdlora.training.learning.loss import DenoisingLoss
from tests.unit.training.setting import CONFIG, LORA, Callbacks

CPU = torch.device("cpu")


@pytest.fixture
def trained(base, store, snapshot):
    denoiser = attach_lora(parts.load_denoiser(base), LORA).train()
    return (
        denoiser,
        DenoisingLoss.of_base(base, 5.0, "fp32", CPU),
        encode_rows(base, snapshot.train, store, Encoding((64,)), device=CPU),
    )


def with_memory(monkeypatch, byte_count):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=byte_count))


def test_the_memory_of_one_image_is_what_autograd_keeps(trained):
    denoiser, loss, encoded = trained
    one = preflight._kept_bytes(denoiser, loss, preflight._largest_image([encoded]))
    four = preflight._kept_bytes(denoiser, loss, preflight._repeated(preflight._largest_image([encoded]), 4))
    assert 3.5 * one < four <= 4.1 * one
    denoiser.enable_gradient_checkpointing()
    assert preflight._kept_bytes(denoiser, loss, preflight._largest_image([encoded])) < 0.7 * one


def test_shapes_alone_tell_what_autograd_keeps_in_fp32(trained):
    denoiser, loss, encoded = trained
    batch = preflight._repeated(preflight._largest_image([encoded]), 3)
    real = preflight._kept_bytes(denoiser, loss, batch)
    with FlopCounterMode(display=False) as counted:
        assert 0.99 * real < preflight._kept_bytes_by_shape(denoiser, loss, batch) < 1.05 * real
    assert all(tensor.device.type == "cpu" for tensor in denoiser.parameters())
    assert counted.get_total_flops() > 0  # the whole network went by
    denoiser.register_buffer("quantised", torch.zeros(3, dtype=torch.uint8))
    assert preflight._kept_bytes_by_shape(denoiser, loss, batch) == float("inf")


def test_all_images_that_fit_by_their_shapes_go_at_once_unmeasured(trained, monkeypatch):
    denoiser, loss, encoded = trained
    with_memory(monkeypatch, 2**40)
    monkeypatch.setattr(preflight, "_kept_bytes", None)
    assert preflight.max_micro_batch_size(denoiser, loss, [encoded], 16, CPU) == 16


def test_all_images_go_at_once_if_they_fit_and_evenly_if_not(trained, monkeypatch, caplog):
    denoiser, loss, encoded = trained
    need = 1.5 * preflight._kept_bytes(denoiser, loss, preflight._largest_image([encoded])) / 0.8
    with_memory(monkeypatch, int(need * 100))
    assert preflight.max_micro_batch_size(denoiser, loss, [encoded], 16, CPU) == 16
    assert not caplog.text  # one pass
    with_memory(monkeypatch, int(need * 7.5))
    assert preflight.max_micro_batch_size(denoiser, loss, [encoded], 16, CPU) == 6
    assert "6 at a time, 3 passes per step" in caplog.text
    with_memory(monkeypatch, int(need * 0.5))
    with pytest.raises(TrainingError, match=r"training\.batch_size: not even one image.*gradient_checkpointing"):
        preflight.max_micro_batch_size(denoiser, loss, [encoded], 16, CPU)


def test_a_device_is_tried_with_real_steps_until_one_fits(trained, monkeypatch):
    denoiser, loss, encoded = trained
    tried = []

    def weighted(self, denoiser, batch):
        tried.append(len(batch.timesteps))
        if len(batch.timesteps) > 4:
            raise torch.OutOfMemoryError
        return self.per_image(denoiser, batch).mean()

    monkeypatch.setattr(DenoisingLoss, "weighted", weighted)
    example = preflight._largest_image([encoded])
    assert preflight._by_trying(denoiser, loss, example, 16, CPU) == 4
    assert tried == [16, 8, 4]
    assert all(parameter.grad is None for parameter in denoiser.parameters())


def test_a_continued_run_keeps_the_division_it_was_begun_with(base, store, snapshot, run_folder, monkeypatch):
    def stop(step, values):
        if step == 3 and "loss" in values:
            raise KeyboardInterrupt

    config = CONFIG.model_copy(update={"batch_size": 6, "precision": "fp32"})
    monkeypatch.setattr(preflight, "_by_measuring", lambda *_: 4)
    whole = fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder / "whole"), store)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder / "stopped"), store, Callbacks(on_metrics=stop))
    monkeypatch.setattr(preflight, "_by_measuring", lambda *_: 6)  # more memory is free now
    assert fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder / "stopped"), store).digest == whole.digest
    other = fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder / "other"), store)
    assert other.digest != whole.digest  # the same gradients but for the order of their sums
