"""Validation by drawn images: KID on the same captions and noise, comparable between the steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from sdlora.core.refs import BaseModelRef, Precision
from sdlora.data.pixels import load_images_uint8
from sdlora.data.snapshot import Snapshot, SnapshotRow
from sdlora.models import parts
from sdlora.models.features import ImageFeatures
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.statistics.bootstrap import Resampled, resample_counts
from sdlora.store.image_store import ImageStore
from sdlora.training.config import ResolvedTraining

# Fewer steps than the duel's: enough for the trend over a run.
_STEPS, _GUIDANCE_SCALE, _IMAGES_PER_BATCH = 12, 3.5, 16
_RESAMPLES = 400


class DrawnValidation:
    """KID between held-out images and the images that the trained adapter draws of their captions.

    The digest of an image seeds its noise. Training draws no random numbers from here, so the adapter is the same
    with and without this validation. Source: Binkowski et al. 2018, arXiv:1801.01401.
    """

    def __init__(
        self, base: BaseModelRef, rows: list[SnapshotRow], store: ImageStore, seed: int, precision: Precision
    ) -> None:
        self.base = base
        self.precision = precision
        self.prompts = [row.captions[0] if row.captions else "" for row in rows]
        self.seeds = [(int(row.sha256[:8], 16) + seed) % 2**32 for row in rows]
        self.features = ImageFeatures()
        self.real = self.features(load_images_uint8(store, rows, parts.native_resolution(base)))  # (N, D)
        self.counts = resample_counts(len(rows), _RESAMPLES, seed)

    def measure(
        self,
        denoiser: nn.Module,
        text_encoders: Mapping[str, nn.Module] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Resampled:
        """Measure the KID, and the KID of resamples that are the same at every call.

        Args:
            denoiser: draws the images.
            text_encoders: by folder; the base's by default.
            check: called before each step of the sampler; may raise.
        """
        from sdlora.statistics.distances import kid, polynomial_kernels, resampled_kid

        was_training = denoiser.training
        denoiser.eval()
        try:
            with torch.random.fork_rng():
                model = StableDiffusion.from_parts(self.base, denoiser, self.precision, text_encoders)
                images = model.generate(
                    self.prompts,
                    self.seeds,
                    steps=_STEPS,
                    guidance_scale=_GUIDANCE_SCALE,
                    batch_size=_IMAGES_PER_BATCH,
                    on_progress=lambda _stage, _done, _total: check(),
                )  # (N, 3, H, W)
        finally:
            denoiser.train(was_training)
        features = self.features(images)
        return Resampled(kid(self.real, features), resampled_kid(polynomial_kernels(self.real, features), self.counts))


def drawn_validation_of(
    base: BaseModelRef, snapshot: Snapshot, store: ImageStore, config: ResolvedTraining
) -> DrawnValidation | None:
    """Create the validation for `training.validation_images`; None without the setting."""
    if config.validation_images is None:
        return None
    # Sorted by digest, so that the choice does not depend on the order in which images arrived.
    rows = sorted(snapshot.held_out, key=lambda row: row.sha256)[: config.validation_images]
    return DrawnValidation(base, rows, store, config.seed, config.precision)
