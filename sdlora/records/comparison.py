"""What a comparison of ways to train found: plain values, written once and read by pages, tables and trackers."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import EvaluationError
from sdlora.records.metrics import METRICS, Estimate, Metric

COMPARISON_FILE, COMPARISON_GRID = "comparison.json", "comparison.png"
BASE = "base"
TITLES = {
    "base": "base model",
    "full": "regular fine-tuning",
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "pissa": "PiSSA",
}

COMPARED: dict[str, Metric] = {
    **{name: METRICS[name] for name in ("kid", "fid", "subject_top10", "denoising_psnr", "denoising_ssim")},
    "kept_psnr": Metric(
        label="Base kept, PSNR",
        better="higher",
        decimals=2,
        unit="dB",
        meaning="The base's own pictures of other subjects, half turned to noise and restored with their prompt: what "
        "is lost against the base's value has been forgotten.",
    ),
    "drift": Metric(
        label="Drift",
        better="lower",
        meaning="How far pictures of other subjects moved from the base's, same prompts and seeds: 1 - cosine of "
        "image features.",
    ),
    "copied_share": METRICS["copied_share"],
    "seconds_per_image": METRICS["seconds_per_image"],
}


class Contender(FrozenConfig):
    """One way to train: what it cost, and what came of it."""

    name: str
    steps: int
    trained_parameters: int
    seconds: float = Field(description="training alone, from loading the base to the written file")
    processor_seconds: float = Field(0.0, description="of all its processors, which other work does not stretch")
    process_peak_bytes: int = Field(description="the most that the training's own process held; 0: not measured")
    training_peak_bytes: int = Field(description="of it, above what it held with the libraries loaded")
    file_bytes: int
    metrics: dict[str, Estimate]


class Comparison(FrozenConfig):
    """Several ways to train on the same data, seeds and budget, and the base that they began with."""

    inputs_digest: str
    base_digest: str
    snapshot_digest: str
    budget: str = Field(description="what was held equal, in words")
    prompts: int
    neutral_prompts: int
    contenders: tuple[Contender, ...] = Field(description="the base first")
    differences: dict[str, dict[str, Estimate]] = Field(description="contender minus base, paired, by name and metric")
    against_first: dict[str, dict[str, Estimate]] = Field(
        default={}, description="later contenders minus the first trained one, paired, by name and metric"
    )


def title(name: str) -> str:
    """A contender's name as people read it."""
    return TITLES.get(name, name)


def load_comparison(folder: Path) -> Comparison:
    """Read `folder/comparison.json`.

    Raises:
        EvaluationError: missing or damaged.
    """
    path = folder / COMPARISON_FILE
    try:
        return Comparison.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is no finished comparison ({error}). Run the comparison again.") from error
