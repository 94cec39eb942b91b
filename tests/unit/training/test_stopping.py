"""To be asked to stop means to save soon: counted in passes through a network, so that it holds on any machine."""

from __future__ import annotations

import signal

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel

from sdlora.core.checkpoints import latest_checkpoint
from sdlora.store.image_store import ImageStore
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.job import TrainingJob
from sdlora.training.loop import Run
from tests.unit.training.setting import LONG, LORA_WITH_DROPOUT, fill_store, on_one_thread
from tests.unit.training.written import contents, curve

# Steps of two passes, measurements of several batches, pictures of three sampler steps.
CONFIG = LONG.model_copy(
    update={
        "steps": 4,
        "micro_batch_size": 2,
        "validation_every_steps": 2,
        "checkpoint_every_steps": None,
        "sample_every_steps": 2,
        "sample_inference_steps": 3,
    }
)
PHASES = {"_step": "step", "_validate": "validation", "_draw_samples": "pictures"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def uninterrupted(base, filled, tmp_path_factory):
    store, snapshot = filled
    folder = tmp_path_factory.mktemp("whole") / "run"
    with on_one_thread():
        fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, CONFIG, folder), store)
    return folder


@pytest.fixture
def passes(monkeypatch):
    """Every pass through the denoiser, as (phase, steps done), and `at`: the one after which a signal arrives."""

    class Passes(list):
        at = None
        phase = ""

    seen = Passes()

    def labelled(method, phase):
        def within(run, *arguments):
            seen.phase, seen.done = phase, run.done
            return method(run, *arguments)

        return within

    for name, phase in PHASES.items():
        monkeypatch.setattr(Run, name, labelled(getattr(Run, name), phase))
    forward = UNet2DConditionModel.forward

    def counted(*arguments, **options):
        seen.append((seen.phase, getattr(seen, "done", 0)))
        if seen[-1] == seen.at:
            signal.raise_signal(signal.SIGTERM)
        return forward(*arguments, **options)

    monkeypatch.setattr(UNet2DConditionModel, "forward", counted)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield seen
    signal.signal(signal.SIGTERM, previous)


@pytest.mark.parametrize("at", [("step", 1), ("validation", 0), ("validation", 2), ("pictures", 2), ("pictures", 4)])
def test_a_run_asked_to_stop_saves_before_the_next_pass_and_loses_nothing(
    at, passes, uninterrupted, base, store, snapshot, run_folder
):
    passes.at = at
    with pytest.raises(KeyboardInterrupt):
        fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, CONFIG, run_folder), store)
    assert passes.count(at) == 1  # each of these takes several
    assert passes[-1] == at
    assert latest_checkpoint(run_folder / "checkpoints").step == at[1]
    passes.at = None
    fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, CONFIG, run_folder), store)
    assert passes.count(at) > 2
    for folder in ("adapter", "runner-up", "samples"):
        assert contents(run_folder / folder) == contents(uninterrupted / folder), folder
    assert curve(run_folder) == curve(uninterrupted)


def test_a_run_asked_to_stop_while_it_encodes_stops_at_once_and_keeps_what_is_encoded(base, tmp_path, monkeypatch):
    seen = []
    encode = AutoencoderKL.encode

    def counted(*arguments, **options):
        seen.append(arguments)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)
        return encode(*arguments, **options)

    monkeypatch.setattr("sdlora.core.tensor_cache._KEYS_PER_FILE", 3)
    monkeypatch.setattr(AutoencoderKL, "encode", counted)
    with ImageStore.open(tmp_path / "home") as store:
        snapshot = fill_store(store, tmp_path / "images")
        with pytest.raises(KeyboardInterrupt):
            fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, CONFIG, tmp_path / "run"), store)
        assert len(seen) == 2
        fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, CONFIG, tmp_path / "run"), store)
        interrupted = len(seen)
        seen.append(None)  # no signal at the second one
    with ImageStore.open(tmp_path / "other") as store:
        snapshot = fill_store(store, tmp_path / "images")
        fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, CONFIG, tmp_path / "other-run"), store)
    assert len(seen) - interrupted - 1 == interrupted - 1  # one call was cut short, and none made twice
