"""An adapter under the names of kohya's files, where several layers of diffusers may be rows of a larger one."""

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
    """Updates and weights by their names in kohya's files, joined where those are one layer.

    Args:
        updates: by part and layer, `unet.mid_block...to_q`.
        weights: the base's, by the same names.
        family: knows the names.

    Returns:
        The updates and the weights. A joined weight is only a shape: a low-rank update does not ask what it is
        added to.
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
    """One update of `rows` rows that adds to each part's rows what the part adds to its layer, and nothing elsewhere.

    The factors A lie below each other and the factors B on a diagonal of blocks, so the rank is the sum of the
    parts' ranks; alpha grows with it, which keeps alpha / rank.
    """
    rank = sum(update.rank for update, _ in members)
    first_update = members[0][0]
    up = first_update.up.new_zeros(rows, rank)
    column = 0
    for update, layer_slice in members:
        # All layers of an adapter have one scale; parts of different scales would need their factors scaled, too.
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
