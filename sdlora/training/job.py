"""Training job: model, data, settings and folder of one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdlora.core.refs import BaseModelRef
from sdlora.data.snapshot import Snapshot
from sdlora.lora.config import ResolvedLora
from sdlora.training.config import ResolvedTraining
from sdlora.training.identity import run_digest


@dataclass(frozen=True)
class TrainingJob:
    """Inputs and folder of one run.

    Attributes:
        base: the base model; its digest is checked.
        snapshot: the images to train and to validate on.
        lora: settings of the adapter; None to train all weights of the denoiser.
        config: resolved training settings.
        folder: the run folder, `runs/<run digest>`; an unfinished run in it is continued.
        name: name of the kohya file without suffix.
    """

    base: BaseModelRef
    snapshot: Snapshot
    lora: ResolvedLora | None
    config: ResolvedTraining
    folder: Path
    name: str = "adapter"

    @property
    def digest(self) -> str:
        """Run digest, see `run_digest`."""
        return run_digest(self.base.digest, self.snapshot.training_digest, self.lora, self.config, self.base.quantize)

    @property
    def trains_text_encoders(self) -> bool:
        return self.lora is not None and self.lora.text_encoder_rank is not None
