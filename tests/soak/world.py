"""World outside of sdlora: style files, source folders, and a record of every file that was put there."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from PIL import Image

from tests.soak.plan import STYLES
from tests.tiny import draw_images, tiny_base_model

FIRST_IMAGES = 24
ARRIVING_IMAGES = 5
"""New images that start a run by themselves; rounds whose run is asked for bring fewer."""
QUIET_SECONDS = 6.0
MODES = dict(zip(STYLES, ("automatic", "ask", "manual"), strict=True))
RETENTION = {"lost_candidates": 3, "runner_ups": 1, "pages": 5, "cache_megabytes": 20}

Kind = Literal["good", "copy", "bad caption", "broken", "truncated", "bomb", "empty", "small"]
REJECTED: tuple[Kind, ...] = ("broken", "truncated", "bomb", "small")
"""Kinds that cleaning has to reject."""
BAD: tuple[Kind, ...] = (*REJECTED, "empty", "copy", "bad caption")


@dataclass(frozen=True)
class File:
    """Image file of a source; `path` is relative to the source."""

    path: str
    sha256: str
    kind: Kind
    round: int


@dataclass
class World:
    """Folder with the base model, the sources and the state folder."""

    folder: Path
    files: dict[str, list[File]] = field(default_factory=lambda: {name: [] for name in STYLES})

    @property
    def home(self) -> Path:
        """State folder, on a disk of its own where the machine has one."""
        return self.folder / "disk" / "home"

    def source(self, style: str) -> Path:
        return self.folder / "images" / style

    def style_file(self, style: str) -> Path:
        return self.home / "styles" / f"{style}.yaml"

    def make(self) -> None:
        """Write base model, styles, rules of retention and the first images."""
        base = tiny_base_model(self.folder / "base")
        for number, style in enumerate(STYLES):
            self.add_good(style, FIRST_IMAGES, seed=number, round_number=0)
            self.style_file(style).parent.mkdir(parents=True, exist_ok=True)
            self.style_file(style).write_text(yaml.safe_dump(settings(style, self.source(style), base)))
        (self.home / "retention.yaml").write_text(yaml.safe_dump(RETENTION))
        self.save()

    def start_by_arrival(self, style: str) -> None:
        """From now on, new images start runs of the style."""
        file = self.style_file(style)
        content = yaml.safe_load(file.read_text())
        if "trigger" in content:
            return
        content["trigger"] = {"min_new_images": ARRIVING_IMAGES, "quiet_minutes": QUIET_SECONDS / 60}
        aside = file.with_suffix(".new")
        aside.write_text(yaml.safe_dump(content))
        aside.rename(file)

    def add_good(self, style: str, count: int, seed: int, round_number: int) -> list[File]:
        """Draw new images into a folder of their own, and move the folder into the source when it is whole."""
        folder = self._new_folder(style, round_number, "good")
        aside = draw_images(self.folder / "drawn" / folder.name, count, seed=seed + self._attempt(style, round_number))
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(folder)
        return self._record(style, sorted(folder.glob("*.png")), "good", round_number)

    def add_bad(self, style: str, draw: random.Random, round_number: int) -> list[File]:
        """Put files of three bad kinds into the source."""
        folder = self._new_folder(style, round_number, "bad")
        folder.mkdir()
        added = []
        for kind in draw.sample(BAD, 3):
            path = folder / f"{kind.replace(' ', '-')}.png"
            if kind == "bad caption":
                path.with_suffix(".txt").write_bytes(b"\xff\xfe\xfd a cat \x80")
            path.write_bytes(self._content(style, kind, draw))
            added += self._record(style, [path], kind, round_number)
        return added

    def _attempt(self, style: str, round_number: int) -> int:
        """Return how often the round has brought files: one that is repeated on the same folder brings others."""
        folders = {Path(file.path).parent for file in self.files[style] if file.round == round_number}
        return len(folders)

    def _new_folder(self, style: str, round_number: int, kind: str) -> Path:
        attempt = self._attempt(style, round_number)
        return self.source(style) / f"{round_number:03d}-{kind}{f'-{attempt + 1}' if attempt else ''}"

    def _content(self, style: str, kind: Kind, draw: random.Random) -> bytes:
        noise = draw.randbytes(64 * 64 * 3)
        if kind == "copy":
            return (self.source(style) / self.files[style][0].path).read_bytes()
        if kind == "broken":
            return b"this is no image " + noise[:100]
        if kind == "empty":
            return b""
        if kind == "bomb":
            return _bomb(noise[:16])
        if kind == "small":
            return _png(noise[: 8 * 8 * 3], 8)
        if kind == "truncated":
            whole = _png(noise, 64)
            return whole[: len(whole) // 2]
        return _png(_blocks(draw), 64)

    def _record(self, style: str, paths: list[Path], kind: Kind, round_number: int) -> list[File]:
        files = [
            File(
                str(path.relative_to(self.source(style))),
                hashlib.sha256(path.read_bytes()).hexdigest(),
                kind,
                round_number,
            )
            for path in paths
        ]
        self.files[style] += files
        return files

    def save(self) -> None:
        files = {style: [asdict(file) for file in files] for style, files in self.files.items()}
        (self.folder / "world.json").write_text(json.dumps(files))

    @staticmethod
    def load(folder: Path) -> World:
        files = json.loads((folder / "world.json").read_text())
        return World(folder, {style: [File(**file) for file in listed] for style, listed in files.items()})


def settings(style: str, source: Path, base: Path) -> dict[str, Any]:
    """Return the quickest settings that still do everything."""
    return {
        "name": style,
        "data": {"sources": [str(source)], "held_out_fraction": 0.4},
        "base_model": {"source": str(base)},
        "lora": {"rank": 2, "targets": "attention"},
        "training": {
            "preset": "small",
            "steps": 6,
            "batch_size": 4,
            "log_every_steps": 2,
            "validation_every_steps": 3,
            "precision": "fp32",
            "checkpoint_every_steps": 2,
        },
        "evaluation": {
            "max_prompts": 8,
            "min_prompts": 2,
            "steps": 2,
            "denoising_steps": 2,
            "resamples": 100,
            "fid_resamples": 100,
            "shown_prompts": 3,
        },
        # Times of a busy machine decide nothing.
        "gate": {"mode": MODES[style], "max_time_factor": None},
    }


def _png(pixels: bytes, side: int) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(file, "PNG")
    return file.getvalue()


def _blocks(draw: random.Random) -> bytes:
    """Draw the pixels of a picture of 8 x 8 coloured squares, 64 px wide."""
    colours = [draw.randbytes(3) for _ in range(64)]
    return b"".join(colours[row // 8 * 8 + column // 8] for row in range(64) for column in range(64))


def _bomb(noise: bytes) -> bytes:
    """Make a small PNG file whose header promises 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tEXt", b"n\0" + noise.hex().encode()), (b"IDAT", zlib.compress(bytes(10**6)))]
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [*parts, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
