"""Layers of a base model by the names that files of other programs give them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from sdlora.core.errors import BaseMismatchError
from sdlora.core.quoting import quoted
from sdlora.core.tensor_header import Shape
from sdlora.lora.updates import DecomposedUpdate, LowRankUpdate
from sdlora.models.adapter_check import layer_shapes
from sdlora.models.adapter_file import OUTER_NAME
from sdlora.models.families.base import Family
from sdlora.models.families.dit_names import LayerSlice


@dataclass(frozen=True)
class Place:
    """Layer of the base, with its rows in a layer of the file."""

    part: str
    layer: str
    shape: Shape
    rows: LayerSlice | None = None


def places_of(family: Family, *, joined: bool) -> dict[str, list[Place]]:
    """Map every name that a program gives to a layer, without dots, to the base's layers."""
    places: dict[str, list[Place]] = {}

    def add(name: str, place: Place) -> None:
        members = places.setdefault(plain_name(name), [])
        if place not in members:
            members.append(place)

    denoiser = family.layout.denoiser
    for layer, shape in layer_shapes(family.folder, denoiser).items():
        whole = Place(denoiser, layer, shape)
        for name in (layer, f"{denoiser}.{layer}", f"lora_unet.{layer}"):
            add(name, whole)
        try:
            rows = family.kohya_slice(layer) if joined else LayerSlice(family.kohya_name(layer))
        except (KeyError, ValueError):  # a layer that the original code base has not
            continue
        add(rows.name, whole if rows.rows is None else Place(denoiser, layer, shape, rows))
    for text in family.text_parts:
        for layer, shape in layer_shapes(family.folder, text.folder).items():
            place = Place(text.folder, layer, shape)
            for name in (f"{text.folder}.{layer}", f"{text.folder}.{OUTER_NAME}{layer}"):
                add(name, place)
            add(family.kohya_text_name(text.folder, layer), place)
    return places


def plain_name(name: str) -> str:
    """Return the name without dots, which programs write in different places."""
    return name.replace(".processor.", ".").replace(".", "_")


def part_of(update: LowRankUpdate, place: Place, file: Path, family_title: str, family: Family) -> LowRankUpdate:
    """Cut the rows of the base's layer out of an update of the file's layer, and compare the shapes."""
    rows = place.rows.rows if place.rows and place.rows.rows is not None else place.shape[0]
    found, expected = (len(update.up), prod(update.down.shape[1:])), (rows, prod(place.shape[1:]))
    if found != expected:
        problem = f"its {quoted(place.layer)} is {expected[0]} x {expected[1]}, the file's is {found[0]} x {found[1]}"
        raise misfit(file, problem, family_title, family)
    if place.rows and place.rows.rows is not None:
        first = place.rows.first_row
        update = LowRankUpdate(update.down, update.up[first : first + place.shape[0]], update.alpha)
    kernel = place.shape[2:]
    down = update.down.reshape(update.rank, place.shape[1], *kernel)
    up = update.up.reshape(place.shape[0], update.rank, *[1] * len(kernel))
    if isinstance(update, DecomposedUpdate):
        return DecomposedUpdate(down, up, update.alpha, update.magnitude)
    return LowRankUpdate(down, up, update.alpha)


def misfit(file: Path, problem: str, family_title: str, family: Family) -> BaseMismatchError:
    """Return the error of a file whose layers are not the base's.

    Args:
        problem: the difference in words.
        family_title: family that the file seems to be made for.
    """
    return BaseMismatchError(
        f"{file} does not fit the base model, which is {family.layout.title}: {problem}. The file looks like one for "
        f"{family_title}. Choose the base model that it was made for."
    )
