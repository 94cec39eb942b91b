from __future__ import annotations

import pytest
import torch

from sdlora.core.errors import WeightsError
from sdlora.training.judging.choosing import Chooser, ValidationResult
from tests.settings import filled_training

IMAGES = torch.linspace(0.5, 1.5, 20)


def errors(shift, wobble=0.0):
    """Twenty images of unequal difficulty, all shifted alike but for an alternating wobble."""
    return IMAGES + shift + wobble * torch.tensor([1.0, -1.0]).repeat(10)


def weights(value):
    return {"layer": torch.full((3,), value)}


def chooser_of(folder, losses, **changes):
    chooser = Chooser(folder, filled_training(steps=100, **changes))
    for number, shift in enumerate(losses):
        chooser.consider(ValidationResult(10 * number, errors(shift)), weights(float(number)))
    return chooser


def test_the_best_and_the_runner_up_are_kept_with_their_weights(tmp_path):
    chooser = chooser_of(tmp_path, [0.9, 0.5, 0.2, 0.4, 0.3])
    choice = chooser.choice(40)
    assert (choice.step, choice.runner_up_step, choice.trained_steps) == (20, 40, 40)
    assert chooser.weights_of(chooser.best)["layer"].tolist() == [2.0] * 3
    assert chooser.weights_of(chooser.runner_up)["layer"].tolist() == [4.0] * 3
    # Every image is better by the same amount, so the interval has no width although the images differ a lot.
    assert choice.against_start.value == pytest.approx(-0.7, abs=1e-5)
    assert choice.against_last.low == pytest.approx(-0.1, abs=1e-5)
    assert choice.against_last.high == pytest.approx(-0.1, abs=1e-5)
    assert "step 20 of 40" in choice.in_words()


def test_a_validation_that_is_not_a_number_is_worse_than_any_other(tmp_path):
    nan = float("nan")
    assert chooser_of(tmp_path / "a", [0.9, nan, 0.5, nan]).choice(30).step == 20
    assert chooser_of(tmp_path / "b", [0.9, 0.5, nan, 0.6]).runner_up.step == 30


def test_the_bare_base_is_compared_with_but_never_chosen(tmp_path):
    chooser = chooser_of(tmp_path, [0.1, 0.5, 0.6])
    assert chooser.choice(20).step == 10
    assert chooser.choice(20).against_start.low > 0


def test_keep_last_keeps_the_last(tmp_path):
    choice = chooser_of(tmp_path, [0.9, 0.2, 0.5], keep="last").choice(20)
    assert (choice.rule, choice.step, choice.runner_up_step) == ("last", 20, None)


def test_training_stops_only_after_measurements_that_are_surely_worse(tmp_path):
    worse = chooser_of(tmp_path, [0.9, 0.2, 0.3, 0.4], early_stop_patience=2)
    assert worse.should_stop
    assert not chooser_of(tmp_path, [0.9, 0.2, 0.3, 0.4]).should_stop  # nobody asked for it
    unsure = chooser_of(tmp_path, [0.9, 0.2], early_stop_patience=2)
    for step in (20, 30, 40):
        unsure.consider(ValidationResult(step, errors(0.21, wobble=0.5)), weights(0.0))
    assert not unsure.should_stop  # the mean is worse, but half of the images are better
    interrupted = chooser_of(tmp_path, [0.9, 0.2, 0.3, 0.1, 0.3], early_stop_patience=2)
    assert not interrupted.should_stop


def test_a_restored_chooser_goes_on_as_the_first_would_have(tmp_path):
    first = chooser_of(tmp_path, [0.9, 0.2, 0.3, 0.4], early_stop_patience=3)
    second = Chooser(tmp_path, first.config)
    second.restore(first.state())
    assert second.state() == first.state()
    assert not second.should_stop
    for chooser in (first, second):
        chooser.consider(ValidationResult(40, errors(0.5)), weights(5.0))
        assert chooser.should_stop
    assert first.choice(40) == second.choice(40)


def test_files_that_a_checkpoint_still_names_are_not_deleted(tmp_path):
    chooser = chooser_of(tmp_path, [0.9, 0.5, 0.4])
    chooser.checkpoint_written()
    saved = chooser.state()
    for step, shift in ((30, 0.3), (40, 0.2)):
        chooser.consider(ValidationResult(step, errors(shift)), weights(1.0))
    again = Chooser(tmp_path, chooser.config)  # killed here: the checkpoint's files are all there
    again.restore(saved)
    assert again.weights_of(again.best)["layer"].tolist() == [2.0] * 3
    chooser.checkpoint_written()
    chooser.checkpoint_written()
    assert sorted(path.name for path in chooser.folder.iterdir()) == [
        "step-00000030.safetensors",
        "step-00000040.safetensors",
    ]


def test_a_kept_adapter_that_was_damaged_is_refused(tmp_path):
    chooser = chooser_of(tmp_path, [0.9, 0.5])
    path = next(chooser.folder.iterdir())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=path.name):
        chooser.weights_of(chooser.best)


def test_one_held_out_image_gives_no_interval_and_stops_nothing(tmp_path):
    chooser = Chooser(tmp_path, filled_training(steps=100, early_stop_patience=1))
    for step, value in ((0, 3.0), (10, 1.0), (20, 2.0)):
        chooser.consider(ValidationResult(step, torch.tensor([value])), weights(1.0))
    assert not chooser.should_stop
    choice = chooser.choice(20)
    assert (choice.step, choice.against_last) == (10, None)
