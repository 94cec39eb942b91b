"""Samples drawn during training: the same prompts and seeds at every sampling point, as files and overviews."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import nn

from sdlora.core.errors import StorageError
from sdlora.core.files import replace_file
from sdlora.core.refs import BaseModelRef, Precision
from sdlora.data.snapshot import Snapshot
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.training.config import ResolvedTraining

FOLDER = "samples"
CONTACT_SHEET, ANIMATION = "contact-sheet.png", "animation.webp"
_LABEL_PX = 14
_SAMPLED_CAPTIONS = 4
_FRAME_MILLISECONDS = 600
_STEP_FILE = re.compile(r"step-(\d{8})\.png")


class Samples:
    """Sampler of a few prompts, one seed each; keeps one row of pictures per sampling point.

    Training draws no random numbers from here, so the adapter is the same with and without samples.
    """

    def __init__(
        self, base: BaseModelRef, prompts: Sequence[str], folder: Path, *, seed: int, steps: int, precision: Precision
    ) -> None:
        self.base = base
        self.prompts = prompts
        self.folder = folder / FOLDER
        self.seed = seed
        self.steps = steps
        self.precision = precision

    def draw(
        self,
        step: int,
        denoiser: nn.Module,
        text_encoders: Mapping[str, nn.Module] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> list[Path]:
        """Write `step-<step>.png` and update both overviews; return the three paths.

        Args:
            step: steps done, for the file's name.
            denoiser: draws the pictures.
            text_encoders: by folder; the base's by default.
            check: called after each step of the sampler; may raise.

        Raises:
            StorageError: the disk is full or not writable.
        """
        was_training = denoiser.training
        denoiser.eval()
        try:
            with torch.random.fork_rng():
                model = StableDiffusion.from_parts(self.base, denoiser, self.precision, text_encoders)
                seeds = list(range(self.seed, self.seed + len(self.prompts)))
                images = model.generate(  # (N, 3, H, W)
                    self.prompts, seeds, steps=self.steps, on_progress=lambda _stage, _done, _total: check()
                )
        finally:
            denoiser.train(was_training)
        height, width = images.shape[-2:]
        row = Image.new("RGB", (width * len(images), height))
        for index, image in enumerate(images):
            row.paste(Image.fromarray(image.permute(1, 2, 0).numpy()), (index * width, 0))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"Cannot write to {self.folder}: {error}. Free some space and run again.") from error
        path = self.folder / f"step-{step:08d}.png"
        _write(path, row)
        return [path, *self._overviews()]

    def _overviews(self) -> list[Path]:
        """Write the contact sheet, with prompts as rows and steps as columns, and an animation over the steps."""
        matches = sorted((int(match[1]), path) for path in self.folder.iterdir() if (match := _matches(path)))
        rows = [(step, Image.open(path).convert("RGB")) for step, path in matches]
        count = len(self.prompts)
        width, height = rows[0][1].width // count, rows[0][1].height
        sheet = Image.new("RGB", (width * len(rows), _LABEL_PX + height * count), "white")
        frames = []
        for column, (step, row) in enumerate(rows):
            _label(sheet, column * width, step)
            for index in range(count):
                picture = row.crop((index * width, 0, (index + 1) * width, height))
                sheet.paste(picture, (column * width, _LABEL_PX + index * height))
            frame = Image.new("RGB", (row.width, _LABEL_PX + height), "white")
            _label(frame, 0, step)
            frame.paste(row, (0, _LABEL_PX))
            frames.append(frame)
        paths = [self.folder / CONTACT_SHEET, self.folder / ANIMATION]
        _write(paths[0], sheet)
        _write(paths[1], frames[0], save_all=True, append_images=frames[1:], duration=_FRAME_MILLISECONDS, loop=0)
        return paths


def samples_of(base: BaseModelRef, snapshot: Snapshot, config: ResolvedTraining, folder: Path) -> Samples | None:
    """Create the sampler for `training.sample_every_steps`; None without the setting."""
    if config.sample_every_steps is None:
        return None
    captions = [row.captions[0] for row in (snapshot.held_out or snapshot.train) if row.captions]
    prompts = config.sample_prompts or tuple(captions[:_SAMPLED_CAPTIONS]) or ("",)
    return Samples(
        base, prompts, folder, seed=config.seed, steps=config.sample_inference_steps, precision=config.precision
    )


def _matches(path: Path) -> re.Match[str] | None:
    return _STEP_FILE.fullmatch(path.name)


def _label(image: Image.Image, x: int, step: int) -> None:
    ImageDraw.Draw(image).text((x + 2, 1), f"{step}", fill="black")


def _write(path: Path, image: Image.Image, **options: object) -> None:
    buffer = io.BytesIO()
    image.save(buffer, path.suffix[1:].upper(), **options)
    replace_file(path, buffer.getvalue())
