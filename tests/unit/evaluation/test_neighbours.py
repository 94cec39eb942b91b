from __future__ import annotations

import pytest
import torch

from sdlora.evaluation.neighbours import nearest, subject_found


def test_nearest_finds_the_image_in_the_same_direction() -> None:
    gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    similarity, index = nearest(torch.tensor([[0.1, 5.0], [3.0, 3.0]]), gallery)
    assert index.tolist() == [1, 2]
    assert similarity.tolist() == pytest.approx([5 / 25.01**0.5, 1.0])


def test_the_subject_is_found_across_a_difference_of_style() -> None:
    real = torch.eye(6)
    captions = [(f"an icon of {name}",) for name in "abcdef"]
    in_another_style = real + 7  # far from every real image, yet in the same arrangement
    prompts = [caption for (caption,) in captions]
    assert subject_found(in_another_style, prompts, real, captions, neighbour_count=1).tolist() == [1.0] * 6
    swapped = in_another_style[[1, 0, 2, 3, 4, 5]]
    assert subject_found(swapped, prompts, real, captions, neighbour_count=1).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


def test_any_real_image_with_the_same_caption_counts() -> None:
    real = torch.eye(4)
    captions = [("cat",), ("dog",), ("cat", "a red cat"), ("bird",)]
    found = subject_found(torch.eye(4)[[2, 2]], ["cat", "dog"], real, captions, neighbour_count=1)
    assert found.tolist() == [1.0, 0.0]
