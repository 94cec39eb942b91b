from __future__ import annotations

import pytest
import torch

from sdlora.core.errors import WeightsError
from sdlora.lora.formats.reading import change_of
from sdlora.lora.layers import collect_updates, require_equal
from sdlora.lora.updates import DecomposedUpdate, HadamardUpdate, KroneckerUpdate, LowRankUpdate


def test_the_update_of_a_linear_layer_matches_the_hand_worked_one():
    # Worked by hand; see tests/golden/README.md.
    update = LowRankUpdate(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]), alpha=2.0)
    assert update.delta().tolist() == [[6.0, 12.0], [8.0, 16.0]]


def test_the_update_of_a_convolution_is_the_composition_of_its_two_convolutions():
    down, up = torch.randn(2, 3, 3, 3), torch.randn(5, 2, 1, 1)
    pixels = torch.randn(1, 3, 6, 6)
    composed = torch.conv2d(torch.conv2d(pixels, down), up) * (1.0 / 2)
    merged = torch.conv2d(pixels, LowRankUpdate(down, up, alpha=1.0).delta())
    torch.testing.assert_close(merged, composed, atol=1e-5, rtol=1e-4)


def test_a_decomposed_update_matches_the_hand_worked_one():
    # Worked by hand; see tests/golden/README.md.
    update = DecomposedUpdate(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0], [0.0]]), 1.0, torch.tensor([10.0, 2.0]))
    weight = torch.tensor([[1.0, 4.0], [0.0, 1.0]])
    assert (weight + update.change(weight)).tolist() == [[6.0, 8.0], [0.0, 2.0]]


def test_a_hadamard_update_matches_the_hand_worked_one():
    column, row = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]])
    update = HadamardUpdate(column, row, column, torch.tensor([[1.0, 1.0]]), alpha=0.5)
    assert update.change(torch.zeros(2, 2)).tolist() == [[1.5, 2.0], [6.0, 8.0]]


def test_a_kronecker_update_matches_the_hand_worked_one():
    small, large = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    whole = KroneckerUpdate(small, large, alpha=2.0, requested_rank=1)
    assert whole.change(torch.zeros(2, 2)).tolist() == [[6.0, 12.0], [8.0, 16.0]]
    factored = KroneckerUpdate(small, (large, torch.tensor([[1.0]])), alpha=2.0, requested_rank=1)
    assert torch.equal(factored.change(torch.zeros(2, 2)), whole.change(torch.zeros(2, 2)))


def test_a_difference_in_any_layer_or_in_alpha_is_found():
    update = LowRankUpdate(torch.ones(1, 2), torch.ones(2, 1), alpha=1.0)
    weights = {"a": torch.zeros(2, 2)}

    def check(**written):
        changes = {
            name: change_of({**one.tensors(), "alpha": torch.tensor(one.alpha)}) for name, one in written.items()
        }
        require_equal(changes, {"a": update}, weights, "file")

    check(a=update)
    for other in (
        {},
        {"a": update, "b": update},
        {"a": LowRankUpdate(update.down, update.up, alpha=2.0)},
        {"a": LowRankUpdate(update.down, update.up * 1.001, alpha=1.0)},
    ):
        with pytest.raises(WeightsError, match="file"):
            check(**other)


def test_a_model_without_adapter_has_nothing_to_save():
    with pytest.raises(WeightsError, match="attach_lora"):
        collect_updates(torch.nn.Linear(2, 2))
