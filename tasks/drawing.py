"""Drawing with a registered adapter: plain functions, because the terminal calls them without Prefect."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sdlora.core.errors import ConfigError
from sdlora.core.files import replace_file
from sdlora.core.progress import OnProgress
from sdlora.core.refs import AdapterRef, BaseModelRef
from sdlora.models.config import BaseModelConfig
from sdlora.store.image_store import ImageStore
from tasks.home import absolute_in_home
from tasks.tracking import AdapterVersion, Registry, has_records

_NO_ADAPTERS = "There are no adapters in {home} yet. Train one (sdlora demo), or draw with --base."


@dataclass(frozen=True)
class Model:
    """Base model with or without an adapter."""

    label: str
    base: BaseModelRef
    adapter: AdapterRef | None


@dataclass(frozen=True)
class Drawing:
    """Prompt, seeds and sampler settings of a drawing."""

    prompt: str
    seed: int = 0
    count: int = 1
    steps: int = 20
    guidance_scale: float = 4.0
    negative_prompt: str = ""


@dataclass(frozen=True)
class DrawnImage:
    """Image that was drawn: its id in the image database, its seed, and its PNG file."""

    sha256: str
    seed: int
    path: Path


def find_model(which: str, name: str | None, home: Path) -> Model:
    """Find the base model and adapter that a person names.

    Args:
        which: "base", "champion", another alias, or a version's number.
        name: the style; may be left out if there is only one.
    Raises:
        ConfigError: no such version or alias, or several styles and no name.
        WeightsError: the base model or the adapter is damaged or wrong.
    """
    from sdlora.lora.check import check_weights
    from sdlora.models.files.sources import load_base_model

    if which != "base" and not has_records(home):  # a misspelt folder is not created
        raise ConfigError(_NO_ADAPTERS.format(home=home))
    registry = Registry(home)
    name = name or _only_name(registry)
    if which == "base":
        newest = registry.versions(name)[:1] if name else []
        base = load_base_model(_base_config(newest[0], home) if newest else BaseModelConfig(), home)
        return Model(f"base {base.name} {base.digest[:12]}", base, None)
    if name is None:
        raise ConfigError(_NO_ADAPTERS.format(home=home))
    version = registry.get(name, int(which) if which.isdecimal() else which)
    if version is None:
        requested = f"version {which}" if which.isdecimal() else which
        existing = ", ".join(str(v.number) for v in reversed(registry.versions(name)))
        if not existing:
            others = ", ".join(registry.names()) or "none"
            raise ConfigError(
                f"{name!r} has no versions yet. Make one: sdlora run {name}. Styles with versions (--style): {others}."
            )
        raise ConfigError(f"{name!r} has no {requested}. Its versions: {existing} (see sdlora versions).")
    base = load_base_model(_base_config(version, home), home)
    adapter = registry.fetch(version, home)
    check_weights(adapter, base)
    return Model(f"{name} version {version.number}", base, adapter)


def draw(
    model: Model, drawing: Drawing, out: Path, home: Path, on_progress: OnProgress | None = None
) -> list[DrawnImage]:
    """Draw `count` images with seeds counting up, write them as PNG, and record them in the image database."""
    from sdlora.models.stable_diffusion import StableDiffusion

    seeds = list(range(drawing.seed, drawing.seed + drawing.count))
    images = StableDiffusion.from_ref(model.base, model.adapter).generate(
        [drawing.prompt] * drawing.count,
        seeds,
        steps=drawing.steps,
        guidance_scale=drawing.guidance_scale,
        negative_prompt=drawing.negative_prompt,
        on_progress=on_progress,
    )  # (N, 3, H, W) uint8
    out.mkdir(parents=True, exist_ok=True)
    drawn = []
    with ImageStore.open(home) as store:
        for seed, image in zip(seeds, images, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
            sha256 = store.add_generation(
                buffer.getvalue(),
                model_version=model.label,
                prompt=drawing.prompt,
                negative_prompt=drawing.negative_prompt,
                seed=seed,
                steps=drawing.steps,
                guidance_scale=drawing.guidance_scale,
            )
            path = out / f"{_slug(drawing.prompt)}-{_slug(model.label)}-{seed}.png"
            if path.is_file() and path.read_bytes() != buffer.getvalue():  # drawn with other steps or guidance
                path = path.with_stem(f"{path.stem}-{sha256[:8]}")
            replace_file(path, buffer.getvalue())
            drawn.append(DrawnImage(sha256, seed, path))
    return drawn


def _only_name(registry: Registry) -> str | None:
    names = registry.names()
    if len(names) > 1:
        raise ConfigError(f"There are several styles: {', '.join(names)}. Choose one with --style.")
    return names[0] if names else None


def _base_config(version: AdapterVersion, home: Path) -> BaseModelConfig:
    config = BaseModelConfig.model_validate_json(version.tags["base_model"])
    return config.model_copy(update={"source": absolute_in_home(config.source, home)})


def _slug(text: str) -> str:
    words = "".join(character if character.isalnum() else " " for character in text.lower()).split()
    return "-".join(words)[:60] or "image"
