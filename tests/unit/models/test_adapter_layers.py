"""Shapes of updates, worked by hand from the rules of LyCORIS."""

from __future__ import annotations

import pytest

from sdlora.models.adapter_layers import UpdateShape, update_shape

LORA = {"lora_down.weight": (4, 8), "lora_up.weight": (16, 4)}
LOHA = {"hada_w1_a": (16, 4), "hada_w1_b": (4, 8), "hada_w2_a": (16, 4), "hada_w2_b": (4, 8)}
LOKR = {"lokr_w1": (2, 4), "lokr_w2_a": (8, 4), "lokr_w2_b": (4, 2)}


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (LORA, UpdateShape("lora", 4, 16, 8)),
        ({"lora_down.weight": (4, 8, 3, 3), "lora_up.weight": (16, 4, 1, 1)}, UpdateShape("lora", 4, 16, 72)),
        (
            {"lora_down.weight": (4, 8, 1, 1), "lora_mid.weight": (4, 4, 3, 3), "lora_up.weight": (16, 4, 1, 1)},
            UpdateShape("lora", 4, 16, 72),
        ),
        (LORA | {"alpha": (), "dora_scale": (16, 1)}, UpdateShape("dora", 4, 16, 8)),
        (LORA | {"alpha": (1,), "dora_scale": (1, 8)}, UpdateShape("dora", 4, 16, 8)),  # lengths of columns
        (LOHA, UpdateShape("loha", 4, 16, 8)),
        (
            {f"hada_w{n}_a": (4, 16) for n in "12"}
            | {f"hada_w{n}_b": (4, 8) for n in "12"}
            | {f"hada_t{n}": (4, 4, 3, 3) for n in "12"},
            UpdateShape("loha", 4, 16, 72),
        ),
        (LOKR, UpdateShape("lokr", 4, 16, 8)),
        ({"lokr_w1": (2, 4), "lokr_w2": (8, 2)}, UpdateShape("lokr", 0, 16, 8)),
        ({"lokr_w1": (2, 4), "lokr_w2": (8, 2, 3, 3)}, UpdateShape("lokr", 0, 16, 72)),
    ],
)
def test_shape_and_rank_follow_from_the_factors(shapes, expected):
    assert update_shape(shapes) == expected


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({}, "no factors"),
        ({"alpha": ()}, "no factors"),
        (LORA | LOHA, "hada and lora together"),
        (LORA | {"lora_up.weight": (16, 5)}, "lora_up.weight has rank 5 and lora_down.weight has rank 4"),
        ({"lora_down.weight": (4, 8)}, "lora_up.weight is missing"),
        (LORA | {"lora_up.weight": (16,)}, r"shape \[16\]"),
        (LORA | {"lora_down.weight": (4, 0)}, r"shape \[4, 0\]"),
        (LORA | {"alpha": (2,)}, "no single number"),
        (LORA | {"dora_scale": (7,)}, "7 lengths for 16 rows"),
        (LOHA | {"hada_w2_b": (4, 9)}, "16 x 8 and 16 x 9"),
        (LOHA | {"hada_w2_a": (16, 3)}, "hada_w2_a has rank 3"),
        ({"lokr_w1": (2, 4)}, "lokr_w2_a is missing"),
    ],
)
def test_tensors_that_form_no_update_are_named(shapes, reason):
    with pytest.raises(ValueError, match=reason):
        update_shape(shapes)


def test_sdlora_itself_writes_lengths_of_rows():
    with pytest.raises(ValueError, match="8 lengths for 16 rows"):
        update_shape(LORA | {"dora_scale": (8,)}, lengths_of_rows=True)
