"""Making of a style: the look at the images and the base, and the text of the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import yaml

from deployments.environment import DEMO_CONFIG
from deployments.styles.few_images import Fitted
from deployments.styles.files import ANY_STYLE, DEMO_STYLE, FOLDER, style_file
from sdlora.config import PipelineConfig, load_config, parse_settings
from sdlora.core.errors import ConfigError
from sdlora.core.files import make_private_folder

LOOKED_AT = 50
"""Images of a folder that are opened, evenly spread; only their headers are read."""

_HEADER = """\
# The style {name}. sdlora run {name}
# Every other setting may stay empty; this lists all with their values: sdlora run {name} --show-config
name: {name}           # also the name of the file, of the dataset, and of the files that are made

data:
  sources:            # join the dataset {name} at each run; known images cost nothing
{sources}
{data}
base_model:
  source: {base}
{revision}
training:
  preset: standard    # small, standard, thorough
{training}
# lora:
#   rank: 8           # size of the adapter
#   method: lora      # lora, rslora, dora, loha, lokr, pissa

# schedule:           # runs by the clock while `sdlora up` runs; without it, runs start by hand
#   cron: 0 3 * * *   # minute, hour, day, month, weekday
#   timezone: {timezone}
#   window: 20:00-07:00  # no such run starts outside these hours

# trigger:            # runs that new images start while `sdlora up` runs
#   min_new_images: 1
#   quiet_minutes: 10 # without a further image

{gate}
# Further sections: evaluation (how the duel is fought).
"""
_TRAINING = """\
# steps: 1000         # wins over the preset
# learning_rate: 1.0e-4
"""
_GATE = """\
# gate:
#   mode: ask         # a person decides where the gate cannot tell; manual: always a person
"""


@dataclass(frozen=True)
class Look:
    """First look at a source.

    Attributes:
        images: files that look like images; None for a source that only the first run can count.
        byte_size: size of these files.
        opened: number of files whose header was read.
        unreadable: names of those that no header was found in.
        smallest_px: smallest short side among the others; None without any.
    """

    source: str
    images: int | None = None
    byte_size: int = 0
    opened: int = 0
    unreadable: tuple[str, ...] = ()
    smallest_px: int | None = None


def look_at(source: str) -> Look:
    """Count the images of a folder and read the headers of some; nothing is decoded.

    Raises:
        ConfigError: the path does not exist, or the folder has no image.
    """
    if not source:
        raise ConfigError("--images: an empty text, expected a folder, an archive or an address. Nothing was written.")
    if ":" in source.split("/", 1)[0] or set("{*?[") & set(Path(source).name):  # an address, a pattern of shards
        return Look(source)
    path = Path(source)
    if not path.exists():
        raise ConfigError(f"--images {source}: there is no such file or folder. Nothing was written.")
    if not path.is_dir() or (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        return Look(source)  # an archive, a list of URLs, a saved dataset
    files = _images_in(path)
    if not files:
        raise ConfigError(f"--images {source}: no image files in this folder. Nothing was written.")
    byte_size = sum(file.stat().st_size for file in files)
    opened = files[:: max(1, len(files) // LOOKED_AT)][:LOOKED_AT]
    sides = {file: _short_side(file) for file in opened}
    readable = [side for side in sides.values() if side is not None]
    unreadable = tuple(file.name for file, side in sides.items() if side is None)
    return Look(source, len(files), byte_size, len(opened), unreadable, min(readable, default=None))


def write_style(
    home: Path, name: str, sources: Sequence[str], base: str, revision: str | None, fitted: Sequence[Fitted] = ()
) -> PipelineConfig:
    """Write the file of a new style and return its settings.

    Args:
        sources: folders and files by absolute path, addresses as they are.
        base: the setting `base_model.source`; a path is absolute.
        fitted: settings that fit the number of images.

    Raises:
        ConfigError: a value is not accepted, or there is a style of this name.
    """
    settings: dict[str, Any] = {"name": name, "data": {"sources": list(sources)}, "base_model": {"source": base}}
    settings["base_model"]["revision"] = revision
    parse_settings(settings, PipelineConfig, origin="sdlora new")  # before a file is written
    file = style_file(home, name)
    if name == DEMO_STYLE:
        raise ConfigError(f"{name} is the demo's style ({DEMO_CONFIG}). Choose another name.")
    if name == ANY_STYLE:
        raise ConfigError(f"{name} is the name of the deployment for any style. Choose another name.")
    make_private_folder(home / FOLDER)
    lines = _lines(fitted)
    text = _HEADER.format(
        name=name,
        data=lines.get("data", ""),
        training=lines.get("training", _TRAINING),
        gate=f"gate:\n{lines['gate']}" if "gate" in lines else _GATE,
        sources="\n".join(f"    - {_scalar(source)}" for source in sources),
        base=_scalar(base),
        revision=f"  revision: {revision}\n" if revision else "",
        timezone=_timezone_of_this_machine(),
    )
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ConfigError(f"There is a style {name}: {file}. Edit this file, or choose another name.") from None
    return load_config(file)


def _lines(fitted: Sequence[Fitted]) -> dict[str, str]:
    """Return the lines of the file by section, each with its reason as a comment."""
    lines: dict[str, str] = {}
    for one in fitted:
        section, key = one.setting.split(".")
        line = f"  {key}: {one.value}"
        lines[section] = f"{lines.get(section, '')}{line:<21} # {one.why}\n"
    return lines


def _timezone_of_this_machine() -> str:
    """Return the name of this machine's time zone; UTC if it has none by name."""
    place = os.environ.get("TZ", "").removeprefix(":") or str(Path("/etc/localtime").resolve())
    name = place.rpartition("zoneinfo/")[2]
    return name if name in available_timezones() else "UTC"


def _scalar(text: str) -> str:
    """Return a text as one YAML scalar on one line."""
    dumped: str = yaml.safe_dump(text, width=float("inf"), allow_unicode=True, default_style='"')
    return dumped.strip()


def _images_in(folder: Path) -> list[Path]:
    from sdlora.data.sources.base import IMAGE_SUFFIXES

    found = [
        Path(parent) / name
        for parent, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
    ]
    return sorted(found)


def _short_side(file: Path) -> int | None:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
