"""Contest: models draw the same prompts from the same seeds, and are scored on the same real images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import EvaluationError
from sdlora.core.files import json_digest, replace_file
from sdlora.core.progress import SILENT, OnProgress
from sdlora.core.refs import AdapterRef, BaseModelRef
from sdlora.core.tensor_cache import TensorCache
from sdlora.data.pixels import load_images_uint8
from sdlora.data.snapshot import Snapshot, SnapshotRow
from sdlora.evaluation.config import EvaluationConfig
from sdlora.evaluation.fidelity import psnr_per_image, reconstruct, ssim_per_image
from sdlora.evaluation.generations import Generations, load_or_draw
from sdlora.evaluation.prompts import Prompt, choose_prompts
from sdlora.evaluation.scoring import Measured, RealFeatures, Scoreboard
from sdlora.models import parts
from sdlora.models.features import ImageFeatures
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.records.comparison import Comparison
from sdlora.records.costs import Costs
from sdlora.records.duel import Duel
from sdlora.store.image_store import ImageStore

EVALUATION_VERSION = 2  # raise it when the same images give other numbers
_IMAGES_PER_BATCH = 32

Result = TypeVar("Result", Duel, Comparison)


@dataclass(frozen=True)
class Contestant:
    """Base model with or without an adapter, and the measured costs of the training."""

    model: BaseModelRef
    adapter: AdapterRef | None = None
    costs: Costs = field(default_factory=Costs)

    @property
    def digest(self) -> str:
        return f"{self.model.digest}/{self.adapter.digest if self.adapter else ''}"


@dataclass(frozen=True)
class Contest:
    """Common ground of a duel or a comparison: the base, images and settings that all contestants are scored on.

    Attributes:
        base: the model that training began with. Real images are scaled to its native size.
        snapshot: its held-out rows give the prompts; copies are searched among its training rows.
        store: holds the images' bytes; its `home` holds the caches.
        config: settings of samplers and statistics.
        on_progress: called with "draw with NAME", "features of ..." and "score".
    """

    base: BaseModelRef
    snapshot: Snapshot
    store: ImageStore
    config: EvaluationConfig
    on_progress: OnProgress = SILENT.on_progress

    @cached_property
    def side_px(self) -> int:
        """Side of real and drawn images."""
        return parts.native_resolution(self.base)

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """N prompts, one per chosen held-out image.

        Raises:
            EvaluationError: too few held-out images.
        """
        return choose_prompts(self.snapshot.held_out, self.config)

    @cached_property
    def held_out_uint8(self) -> Tensor:
        """Held-out images in the order of the prompts, (N, 3, S, S) in [0, 255]."""
        return load_images_uint8(self.store, [prompt.row for prompt in self.prompts], self.side_px)

    def require_training_images(self) -> None:
        """Refuse a snapshot without training images, before the first picture is drawn.

        Raises:
            EvaluationError: no training images.
        """
        if not self.snapshot.train:
            raise EvaluationError("The snapshot has no training images, so copies of them cannot be looked for.")

    @property
    def reconstructed_uint8(self) -> Tensor:
        """Held-out images after the base's autoencoder, (N, 3, S, S). No adapter changes the autoencoder."""
        images = [prompt.row.sha256 for prompt in self.prompts]
        key = json_digest({"base": self.base.digest, "images": images, "side": self.side_px})

        def compute() -> dict[str, Tensor]:
            return {"images_uint8": reconstruct(StableDiffusion.from_ref(self.base), self.held_out_uint8)}

        cache = TensorCache(self.store.home / "cache" / "reconstructions")
        return cache.load_or_compute(key, ["images_uint8"], compute)["images_uint8"]

    @cached_property
    def real_features(self) -> RealFeatures:
        """Features of the held-out images in the order of the prompts, and of the training images.

        Raises:
            EvaluationError: no training images.
        """
        self.require_training_images()
        held_out = [prompt.row for prompt in self.prompts]
        return RealFeatures(
            held_out=self._features(held_out, "features of held-out images"),
            held_out_captions=[row.captions for row in held_out],
            train=self._features(self.snapshot.train, "features of training images"),
            train_captions=[row.captions for row in self.snapshot.train],
        )

    def inputs_digest(self, inputs: Mapping[str, Any]) -> str:
        """Compute the digest of everything that decides the result: the contest, and `inputs` as JSON values."""
        shared = {
            "base": self.base.digest,
            "snapshot": self.snapshot.digest,
            "config": self.config.model_dump(mode="json"),
        }
        return json_digest({**shared, **inputs})

    def draw(
        self,
        contestants: Mapping[str, Contestant],
        prompts: Sequence[Prompt],
        originals_uint8: Tensor,
        originals_digest: str | None = None,
    ) -> dict[str, Generations]:
        """Draw an image per prompt with every contestant, and let each denoise half-noised originals.

        Args:
            contestants: models by name.
            prompts: M prompts.
            originals_uint8: (M, 3, S, S) images to noise and denoise, in [0, 255].
            originals_digest: digest of the originals for the cache key, where the prompts do not identify them.

        Returns:
            The generations by the contestants' names.
        """

        def draw_with(name: str, contestant: Contestant) -> Generations:
            return load_or_draw(
                lambda: StableDiffusion.from_ref(contestant.model, contestant.adapter),
                f"{contestant.digest}/{originals_digest}" if originals_digest else contestant.digest,
                prompts,
                originals_uint8,
                self.config,
                self.store.home,
                lambda done: self.on_progress(f"draw with {name}", done, len(prompts)),
            )

        return {name: draw_with(name, contestant) for name, contestant in contestants.items()}

    def score(
        self, drawn: Mapping[str, Generations], shared_per_image: Mapping[str, Tensor] | None = None
    ) -> Scoreboard:
        """Score the drawn and the denoised images of the held-out prompts, on common resamples.

        Args:
            drawn: generations by the contestants' names.
            shared_per_image: metric -> (N,), the same values for all contestants.

        Raises:
            EvaluationError: no training images.
        """
        scoreboard = Scoreboard([prompt.text for prompt in self.prompts], self.real_features, self.config)
        for done, (name, generations) in enumerate(drawn.items(), start=1):
            per_image = fidelity_per_image("denoising", generations.denoised_uint8, self.held_out_uint8)
            per_image |= dict(shared_per_image or {})
            scoreboard.score(name, Measured(generations.features, generations.batch_seconds, per_image))
            self.on_progress("score", done, len(drawn))
        return scoreboard

    def _features(self, rows: Sequence[SnapshotRow], stage: str) -> Tensor:
        """Look up or compute the features of real images, (len(rows), D); the key holds the images' digests."""
        key = json_digest({"images": [row.sha256 for row in rows], "side": self.side_px, "version": EVALUATION_VERSION})

        def extract() -> dict[str, Tensor]:
            network, batches = ImageFeatures(), []
            for start in range(0, len(rows), _IMAGES_PER_BATCH):
                batch = rows[start : start + _IMAGES_PER_BATCH]
                batches.append(network(load_images_uint8(self.store, batch, self.side_px)))
                self.on_progress(stage, start + len(batch), len(rows))
            return {"features": torch.cat(batches)}

        cache = TensorCache(self.store.home / "cache" / "features")
        return cache.load_or_compute(key, ["features"], extract)["features"]


def fidelity_per_image(name: str, images_uint8: Tensor, originals_uint8: Tensor) -> dict[str, Tensor]:
    """Compute `<name>_psnr` in dB and `<name>_ssim`, (N,) each, of images and originals, (N, 3, S, S) in [0, 255]."""
    return {
        f"{name}_psnr": psnr_per_image(images_uint8, originals_uint8),
        f"{name}_ssim": ssim_per_image(images_uint8, originals_uint8),
    }


def load_finished(load: Callable[[Path], Result], folder: Path, inputs_digest: str) -> Result | None:
    """Load the result in `folder`; None if it is missing, of another version or of other inputs."""
    try:
        result = load(folder)
    except EvaluationError:
        return None
    return result if result.inputs_digest == inputs_digest else None


def write_result(path: Path, result: FrozenConfig) -> None:
    """Write a result as JSON. Call it after all files of the result are written: a folder with a result is complete.

    Raises:
        StorageError: the disk is full or not writable.
    """
    text = json.dumps(result.model_dump(mode="json"), indent=1)
    replace_file(path, f"{text}\n".encode())
