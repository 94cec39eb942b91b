"""The scoreboard gives every metric an interval that can hold."""

from __future__ import annotations

import pytest
import torch

from sdlora.evaluation.config import EvaluationConfig
from sdlora.evaluation.scoring import Measured, RealFeatures, Scoreboard

IMAGES = 40


@pytest.fixture
def board() -> Scoreboard:
    generator = torch.Generator().manual_seed(0)
    held_out, train = (torch.randn(IMAGES, 16, generator=generator) for _ in range(2))
    captions = [[f"image {number}"] for number in range(IMAGES)]
    real = RealFeatures(held_out, captions, train, captions)
    board = Scoreboard([f"image {number}" for number in range(IMAGES)], real, EvaluationConfig())
    seconds = torch.tensor([0.1, 0.2, 0.3])
    board.score("original", Measured(torch.randn(IMAGES, 16, generator=generator), seconds, {}))
    half = torch.cat([train[: IMAGES // 2], torch.randn(IMAGES // 2, 16, generator=generator)])
    board.score("copier", Measured(half, seconds, {}))
    return board


def test_no_copies_among_few_samples_is_no_proof_of_none(board: Scoreboard) -> None:
    copied = board.scores["original"]["copied_share"]
    assert (copied.value, copied.low) == (0.0, 0.0)
    assert copied.high == pytest.approx(0.0876, abs=1e-4)  # Wilson, 0 of 40
    excess = board.scores["original"]["excess_copies"]
    assert excess.low < 0 == excess.value < excess.high


def test_copies_are_counted_and_compared_in_pairs(board: Scoreboard) -> None:
    assert board.scores["copier"]["copied_share"].value == 0.5
    difference = board.difference("copier", "original")
    assert difference["copied_share"].value == 0.5
    assert 0.3 < difference["copied_share"].low < 0.5 < difference["copied_share"].high < 0.7
    assert difference["excess_copies"] == difference["copied_share"]
    assert difference["subject_top10"].low < difference["subject_top10"].high
