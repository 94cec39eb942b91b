"""Renaming of updates for kohya's files, in which several layers of diffusers may be rows of a larger layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sdlora.lora.updates import LayerUpdate, LowRankUpdate
from sdlora.models.families.base import Family
from sdlora.models.families.dit_names import LayerSlice


def kohya_updates(
    updates: Mapping[str, LayerUpdate], weights: Mapping[str, Tensor], family: Family
) -> tuple[dict[str, LayerUpdate], dict[str, Tensor]]:
    """Rename updates and weights for kohya's files, and join layers that are one layer there.

    Args:
        updates: updates by part and layer, `unet.mid_block...to_q`.
        weights: weights of the base by the same names.
        family: family of the base model, which has the names.

    Returns:
        The updates and the weights. A joined weight has only a shape, because a low-rank update is independent of the
        weight.
    """
    all_low_rank = all(type(update) is LowRankUpdate for update in updates.values())
    members: dict[str, list[tuple[str, LayerSlice]]] = {}
    for key in updates:
        layer_slice = _kohya_slice(key, family, all_low_rank)
        members.setdefault(layer_slice.name, []).append((key, layer_slice))
    renamed: dict[str, LayerUpdate] = {}
    renamed_weights: dict[str, Tensor] = {}
    for name, slices in members.items():
        key, layer_slice = slices[0]
        if layer_slice.rows is None:
            renamed[name], renamed_weights[name] = updates[key], weights[key]
            continue
        joined = join([(updates[key], layer_slice) for key, layer_slice in slices], layer_slice.rows)  # type: ignore[misc]  # all are low-rank
        renamed[name] = joined
        renamed_weights[name] = torch.zeros(()).expand(layer_slice.rows, joined.down.shape[1])
    return renamed, renamed_weights


def join(members: list[tuple[LowRankUpdate, LayerSlice]], rows: int) -> LowRankUpdate:
    """Join updates to one update of `rows` rows; rows of no member are unchanged.

    The factors A are stacked and the factors B are blocks on a diagonal, so the rank is the sum of the members' ranks.
    alpha grows with the rank, which keeps alpha / rank.
    """
    rank = sum(update.rank for update, _ in members)
    first_update = members[0][0]
    up = first_update.up.new_zeros(rows, rank)
    column = 0
    for update, layer_slice in members:
        # All layers of an adapter have the same scale; members of different scales would need scaled factors.
        assert update.alpha * first_update.rank == first_update.alpha * update.rank
        up[layer_slice.first_row : layer_slice.first_row + len(update.up), column : column + update.rank] = update.up
        column += update.rank
    return LowRankUpdate(
        torch.cat([update.down for update, _ in members]), up, first_update.alpha * rank / first_update.rank
    )


def _kohya_slice(key: str, family: Family, all_low_rank: bool) -> LayerSlice:
    part, layer = key.split(".", 1)
    if part != family.layout.denoiser:
        return LayerSlice(family.kohya_text_name(part, layer))
    return family.kohya_slice(layer) if all_low_rank else LayerSlice(family.kohya_name(layer))
