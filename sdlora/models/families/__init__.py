"""Model families, one module each, recognised from a base model's files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sdlora.models.families.layouts import FamilyName, Layout, find_layout

if TYPE_CHECKING:
    from sdlora.models.families.base import Family

__all__ = ["FamilyName", "Layout", "family_of", "find_layout"]

# Imported on first use: most commands need only a base model's digest.
_FAMILY_CLASSES: dict[FamilyName, tuple[str, str]] = {
    "sd1": ("sdlora.models.families.stable_diffusion", "StableDiffusion1"),
    "sd2": ("sdlora.models.families.stable_diffusion", "StableDiffusion2"),
    "sdxl": ("sdlora.models.families.stable_diffusion_xl", "StableDiffusionXL"),
    "sd3": ("sdlora.models.families.stable_diffusion_3", "StableDiffusion3"),
    "flux": ("sdlora.models.families.flux", "Flux"),
}


def family_of(folder: Path) -> Family:
    """Open a diffusers folder as its model family.

    Raises:
        WeightsError: a settings file is missing or damaged, or the family is not supported.
    """
    layout = find_layout(folder)
    module, name = _FAMILY_CLASSES[layout.name]
    family: Family = getattr(import_module(module), name)(folder, layout)
    return family
