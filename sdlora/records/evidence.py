"""What a duel found and what the gate made of it: plain values that are written once and read by many.

The evaluation writes them; reports, model cards, trackers and the person who approves read them. They hold no
tensors and no absolute paths, and survive the way through JSON unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import EvaluationError
from sdlora.core.files import json_digest

Contestant = Literal["base", "champion", "candidate"]
CONTESTANTS: tuple[Contestant, ...] = ("base", "champion", "candidate")
DUEL_FILE, DECISION_FILE, CHOICE_FILE = "duel.json", "decision.json", "choice.json"


class Metric(FrozenConfig):
    """How to read one number of a duel."""

    label: str
    better: Literal["lower", "higher"]
    meaning: str
    decimals: int = 3
    unit: str = ""


METRICS: dict[str, Metric] = {
    "kid": Metric(
        label="KID",
        better="lower",
        decimals=4,
        meaning="Kernel distance between generated and real held-out images; hardly depends on how many there are.",
    ),
    "fid": Metric(
        label="FID",
        better="lower",
        decimals=1,
        meaning="Fréchet distance. Biased upwards at few images: compare only within this table.",
    ),
    "subject_top10": Metric(
        label="Subject found",
        better="higher",
        meaning="Share of samples with a real image of the same caption among their 10 nearest real images.",
    ),
    "denoising_psnr": Metric(
        label="Denoising PSNR",
        better="higher",
        decimals=2,
        unit="dB",
        meaning="Held-out images, half turned to noise and restored with their caption, against the originals.",
    ),
    "denoising_ssim": Metric(
        label="Denoising SSIM", better="higher", meaning="The same restored images, by structural similarity."
    ),
    "reconstruction_psnr": Metric(
        label="Autoencoder PSNR",
        better="higher",
        decimals=2,
        unit="dB",
        meaning="Held-out images through the base model's autoencoder and back: the ceiling for every contestant.",
    ),
    "reconstruction_ssim": Metric(
        label="Autoencoder SSIM", better="higher", meaning="The same reconstructions, by structural similarity."
    ),
    "copied_share": Metric(
        label="Near copies",
        better="lower",
        meaning="Share of samples that are nearly a training image. Real held-out images have a share, too: see below.",
    ),
    "excess_copies": Metric(
        label="Near copies beyond real",
        better="lower",
        meaning="Near copies minus the share among real held-out images, which no model has seen.",
    ),
    "seconds_per_image": Metric(
        label="Time per image",
        better="lower",
        unit="s",
        meaning="Median over batches, measured while drawing the samples.",
    ),
    "seconds_per_image_p95": Metric(
        label="Time per image, 95th percentile", better="lower", unit="s", meaning="The slow end of the same batches."
    ),
}


class Estimate(FrozenConfig):
    """A measured value with its 95 % interval; `low` equals `high` where no interval was measured."""

    model_config = ConfigDict(ser_json_inf_nan="constants")  # a NaN stays visible and fails the gate

    value: float
    low: float
    high: float


class Scores(FrozenConfig):
    """One contestant's metrics by name; a metric that could not be measured is absent."""

    adapter_digest: str | None = Field(description="None for the bare base model")
    metrics: dict[str, Estimate]


class Sample(FrozenConfig):
    """One row of the duel: the held-out image, the prompt and seed made from it, and the candidate's neighbour."""

    held_out_sha256: str
    prompt: str
    seed: int
    nearest_training_sha256: str
    nearest_similarity: float = Field(description="cosine of image features, candidate's sample to training image")
    nearly_a_copy: bool


class ShownImages(FrozenConfig):
    """The small PNGs of one row of the grids, relative to the duel's folder."""

    prompt: str
    real: str
    base: str
    champion: str | None
    candidate: str
    nearest_training: str


class Duel(FrozenConfig):
    """Base, champion (if any) and candidate, scored on the same prompts, seeds and held-out images."""

    inputs_digest: str = Field(description="digest of everything that decides the outcome: a finished duel is reused")
    evaluation_version: int
    base_digest: str
    snapshot_digest: str
    candidate_digest: str
    candidate_snapshot_digest: str
    champion_digest: str | None
    champion_snapshot_digest: str | None
    settings: dict[str, Any] = Field(description="the evaluation section of the configuration")
    scores: dict[Contestant, Scores]
    against_base: dict[str, Estimate] = Field(description="candidate minus base, paired")
    against_champion: dict[str, Estimate] = Field(description="candidate minus champion, paired; empty without one")
    held_out_copied_share: float = Field(description="share of real held-out images as close to a training image")
    samples: tuple[Sample, ...]
    shown: tuple[ShownImages, ...]
    files: dict[str, str] = Field(description="SHA-256 of every image file, by name relative to the folder")
    grid: str = "grid.png"
    before_after_grid: str = "before-after.png"
    nearest_grid: str = "nearest.png"

    @property
    def contestants(self) -> tuple[Contestant, ...]:
        """Who took part, in the order of display."""
        return tuple(name for name in CONTESTANTS if name in self.scores)

    def digest(self) -> str:
        """SHA-256 of the whole evidence; decisions and approvals are bound to it."""
        return json_digest(self.model_dump(mode="json"))


class Choice(FrozenConfig):
    """Which step's adapter a training run kept. Differences are paired by held-out image; below 0 the kept is better.

    They are of the loss, or of the drawn images' KID if `by` is that. Losses and differences are None where nothing was
    measured, intervals need two held-out images.
    """

    rule: Literal["best", "last"]
    step: int
    trained_steps: int
    stopped_early: bool
    by: Literal["loss", "kid"] = "loss"
    validation_loss: float | None = None
    validation_kid: Estimate | None = Field(None, description="of the images that it drew, if any were drawn")
    against_start: Estimate | None = Field(None, description="against the base model without adapter")
    against_last: Estimate | None = Field(None, description="against the last step; None if that is the one kept")
    runner_up_step: int | None = None
    against_runner_up: Estimate | None = None

    def in_words(self) -> str:
        """One or two sentences for people."""
        stop = f"Training stopped at step {self.trained_steps}: it had ceased to help. " if self.stopped_early else ""
        if self.validation_loss is None:
            return f"{stop}The adapter of the last step, {self.step}, was kept; there was nothing to measure it on."
        measured = [f"validation loss {self.validation_loss:.4g}"]
        if self.validation_kid is not None:
            of_kid = self.validation_kid
            measured.append(f"KID of drawn captions {of_kid.value:.3g} [{of_kid.low:.3g}, {of_kid.high:.3g}]")
        if self.by == "loss":
            measured.reverse()  # what was chosen by is said last, before its differences
        rule = f"{self.rule} by KID" if self.by == "kid" and self.rule == "best" else self.rule
        words = (
            f"{stop}The adapter of step {self.step} of {self.trained_steps} was kept ({rule}): {', '.join(measured)}"
        )
        for rival, difference in (
            ("the base model", self.against_start),
            ("the last step", self.against_last),
            (f"the runner-up, step {self.runner_up_step}", self.against_runner_up),
        ):
            if difference is not None:
                interval = f"[{difference.low:+.2g}, {difference.high:+.2g}]"
                words += f"; against {rival} {difference.value:+.2g} {interval}"
        return words + "."


class Check(FrozenConfig):
    """One rule of the gate and what it found, as a sentence."""

    name: str
    passed: bool
    reason: str


class Decision(FrozenConfig):
    """The gate's answer. Void for any other duel than the one with `duel_digest`."""

    promote: bool
    reasons: tuple[str, ...] = Field(description="why: every check if promoted, else those that failed")
    checks: tuple[Check, ...]
    duel_digest: str
    candidate_digest: str
    champion_digest: str | None


def load_duel(folder: Path) -> Duel:
    """Read `folder/duel.json`.

    Raises:
        EvaluationError: the file is missing or not a duel.
    """
    path = folder / DUEL_FILE
    try:
        return Duel.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is not a finished duel ({error}). Run the evaluation again.") from error


def load_choice(folder: Path) -> Choice | None:
    """Read the training run's `choice.json`; None if there is none or it is damaged: it only explains."""
    try:
        return Choice.model_validate_json((folder / CHOICE_FILE).read_bytes())
    except (OSError, ValueError):
        return None
