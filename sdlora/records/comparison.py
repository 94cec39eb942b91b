"""Record of a comparison of training methods: written once, read by pages, tables and trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import EvaluationError
from sdlora.records.costs import Costs
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
        meaning="The base's own pictures of other subjects, half turned to noise and restored with their prompt. A "
        "lower value than the base's means that the model has forgotten.",
    ),
    "drift": Metric(
        label="Drift",
        better="lower",
        meaning="Distance of pictures of other subjects from the base's, same prompts and seeds: 1 - cosine of "
        "image features.",
    ),
    "copied_share": METRICS["copied_share"],
    "seconds_per_image": METRICS["seconds_per_image"],
}


class ContestantResult(FrozenConfig):
    """Result of one contestant: the costs of its training, and its metrics.

    In the file the costs are flat, between name and metrics. The layout must not change: a takedown reads comparisons
    of any age to find the pictures in their grids.
    """

    name: str
    costs: Costs
    metrics: dict[str, Estimate]

    @model_validator(mode="before")
    @classmethod
    def _gather_costs(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "costs" in values:
            return values
        costs = {name: value for name, value in values.items() if name in Costs.model_fields}
        return {name: value for name, value in values.items() if name not in costs} | {"costs": costs}

    @model_serializer(mode="wrap")
    def _spread_costs(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = dump(self)
        return {"name": values["name"], **values["costs"], "metrics": values["metrics"]}


class Comparison(FrozenConfig):
    """Results of several training methods on the same base, data, seeds and budget, and of the base itself."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    inputs_digest: str
    base_digest: str
    snapshot_digest: str
    budget: str = Field(description="what all trainings had in common, in words")
    prompts: int
    neutral_prompts: int
    contestants: tuple[ContestantResult, ...] = Field(
        alias="contenders", description="the base first; files of any age have the alias as key"
    )
    differences: dict[str, dict[str, Estimate]] = Field(description="contestant minus base, paired, by name and metric")
    against_first: dict[str, dict[str, Estimate]] = Field(
        default={}, description="later contestants minus the first trained one, paired, by name and metric"
    )


def title(name: str) -> str:
    """Return the display name of a contestant or method."""
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
        raise EvaluationError(f"{path} is not a finished comparison ({error}). Run the comparison again.") from error
