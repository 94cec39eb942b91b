"""Base models of the state folder that an adapter file fits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deployments.styles.files import load_styles
from sdlora.core.errors import SdloraError
from sdlora.models.config import BaseModelConfig


def fitting_bases(file: Path, home: Path) -> str:
    """Describe in a sentence which base models of the styles and of `bases/` have the layers of an adapter file.

    Bases of a model hub are left out, because a look at their files would download them.
    """
    from sdlora.lora.foreign import fits
    from sdlora.models.files.sources import load_base_model

    found: dict[str, list[str]] = {}
    for label, config in _candidates(home):
        try:
            base = load_base_model(config, home)
            if fits(file, base):
                found.setdefault(config.source, []).append(label)
        except SdloraError:  # a base that is missing or damaged fits nothing
            continue
    if not found:
        return "It fits no base model of this state folder."
    bases = "; ".join(", ".join([source, *filter(None, labels)]) for source, labels in found.items())
    return f"It fits: {bases}."


def _candidates(home: Path) -> Iterator[tuple[str, BaseModelConfig]]:
    """Yield the bases on this machine, each with the style that has it; an empty label without one."""
    yield "", BaseModelConfig()
    for style in load_styles(home):
        if style.config and Path(style.config.base_model.source).exists():
            yield f"the base of the style {style.name}", style.config.base_model
    for folder in sorted((home / "bases").glob("*/model/")):
        yield "", BaseModelConfig(source=str(folder))
