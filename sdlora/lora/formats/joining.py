"""An adapter under the names of kohya's files, where several layers of diffusers may be rows of a larger one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sdlora.lora.updates import LayerUpdate, LowRankUpdate
from sdlora.models.families.base import Family
from sdlora.models.families.dit_names import Place


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
    plain = all(type(update) is LowRankUpdate for update in updates.values())
    members: dict[str, list[tuple[str, Place]]] = {}
    for key in updates:
        place = _place(key, family, plain)
        members.setdefault(place.name, []).append((key, place))
    renamed: dict[str, LayerUpdate] = {}
    renamed_weights: dict[str, Tensor] = {}
    for name, places in members.items():
        key, place = places[0]
        if place.rows is None:
            renamed[name], renamed_weights[name] = updates[key], weights[key]
            continue
        joined = join([(updates[key], place) for key, place in places], place.rows)  # type: ignore[misc]  # plain
        renamed[name] = joined
        renamed_weights[name] = torch.zeros(()).expand(place.rows, joined.down.shape[1])
    return renamed, renamed_weights


def join(parts: list[tuple[LowRankUpdate, Place]], rows: int) -> LowRankUpdate:
    """One update of `rows` rows that adds to each part's rows what the part adds to its layer, and nothing elsewhere.

    The factors A lie below each other and the factors B on a diagonal of blocks, so the rank is the sum of the
    parts' ranks; alpha grows with it, which keeps alpha / rank.
    """
    rank = sum(update.rank for update, _ in parts)
    first = parts[0][0]
    up = first.up.new_zeros(rows, rank)
    column = 0
    for update, place in parts:
        # All layers of an adapter have one scale; parts of different scales would need their factors scaled, too.
        assert update.alpha * first.rank == first.alpha * update.rank
        up[place.first_row : place.first_row + len(update.up), column : column + update.rank] = update.up
        column += update.rank
    return LowRankUpdate(torch.cat([update.down for update, _ in parts]), up, first.alpha * rank / first.rank)


def _place(key: str, family: Family, plain: bool) -> Place:
    part, layer = key.split(".", 1)
    if part != family.layout.denoiser:
        return Place(family.kohya_text_name(part, layer))
    return family.kohya_place(layer) if plain else Place(family.kohya_name(layer))
