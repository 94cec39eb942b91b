"""Report of a version as one self-contained HTML page: no script, no outside resource, everything escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sdlora.core.config_base import dotted
from sdlora.core.files import replace_file
from sdlora.records.duel import ContestantName, Duel
from sdlora.records.metrics import METRICS, Estimate, Metric
from sdlora.release.blanking import image_name
from sdlora.release.charts import interval_plot, loss_chart
from sdlora.release.images import data_uri, file_data_uri
from sdlora.release.pages import Tile, style, templates
from sdlora.release.record import DATA_PAGE, VersionRecord, caption_pattern

REPORT_FILE = "report.html"
_MAX_THUMBNAILS = 48


def write_report(folder: Path, record: VersionRecord) -> Path:
    """Write `folder/report.html`.

    Raises:
        StorageError: the folder cannot be written; an earlier report is untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REPORT_FILE
    replace_file(path, render_report(record).encode())
    return path


def render_report(record: VersionRecord) -> str:
    """Render the page as text."""
    environment = templates()
    environment.filters.update(number=_number, interval=_interval, signed=_signed, image_name=image_name)
    css = style(environment, "report.css")
    return environment.get_template("report.html.jinja").render(
        record=record,
        duel=record.duel,
        decision=record.decision,
        data=record.data,
        css=Markup(css),  # noqa: S704 -- the package's own style sheet
        style_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        tiles=list(_tiles(record)),
        rows=list(_metric_rows(record.duel)),
        shown=list(_shown_rows(record)),
        chart=loss_chart(record.curves),
        samples=record.samples and file_data_uri(record.samples),
        rejected=[
            (image, image.content and data_uri(image.content, 96)) for image in _first_items(record.data.rejected)
        ],
        rejected_count=max(len(record.data.rejected), record.data.verdicts.get("rejected", 0)),
        example=json.dumps(record.duel.samples[0].prompt if record.duel.samples else "a prompt", ensure_ascii=False),
        settings=[(name, _setting(value)) for name, value in dotted(record.settings).items()],
        data_page=DATA_PAGE if record.data_page and record.data_page.is_file() else None,
        pattern=caption_pattern(record.data.captions),
    )


@dataclass(frozen=True)
class MetricRow:
    """Row of the duel table: one metric of all contestants, with the candidate's paired differences."""

    metric: Metric
    estimates: Mapping[ContestantName, Estimate]
    plot: Markup
    differences: Mapping[str, tuple[Estimate, str]]
    """Rival -> (difference, "better", "worse", "unclear" or "same")."""


@dataclass(frozen=True)
class ShownRow:
    """Row of the image grids, as data URIs."""

    prompt: str
    images: Mapping[str, str | None]
    candidate: str | None
    nearest: str | None
    held_out_sha256: str
    nearest_sha256: str
    similarity: float
    nearly_a_copy: bool


def _tiles(record: VersionRecord) -> Iterator[Tile]:
    scores, duel = record.duel.scores, record.duel
    base, candidate = (scores[name].metrics.get("kid") if name in scores else None for name in ("base", "candidate"))
    if base and candidate:
        detail = f"base model {base.value:.3f}; lower is closer to the real images"
        yield Tile("KID", f"{candidate.value:.3f}", detail)
    counts = record.data
    detail = f"and {counts.held_out_count:,} held out from training"
    if record.adoption:
        detail = f"adopted from a file; judged by {counts.held_out_count:,} images"
    yield Tile("Training images", "unknown" if record.adoption else f"{counts.train_count:,}", detail)
    metrics = scores["candidate"].metrics if "candidate" in scores else {}
    if "copied_share" in metrics:
        detail = f"of {len(duel.samples)} samples; unseen real images: {duel.held_out_copied_share:.0%}"
        yield Tile("Near copies", f"{metrics['copied_share'].value:.0%}", detail)
    if "seconds_per_image" in metrics:
        yield Tile(
            "Time per image", f"{metrics['seconds_per_image'].value:.2f} s", "measured while drawing the samples"
        )


def _metric_rows(duel: Duel) -> Iterator[MetricRow]:
    for name, metric in METRICS.items():
        estimates = {
            contestant: duel.scores[contestant].metrics[name]
            for contestant in duel.contestants
            if name in duel.scores[contestant].metrics
        }
        finite = {
            contestant: e for contestant, e in estimates.items() if all(map(math.isfinite, (e.value, e.low, e.high)))
        }
        if not finite:
            continue
        pairs = {"base": duel.against_base, "champion": duel.against_champion}
        differences = {
            rival: (table[name], _standing(table[name], metric)) for rival, table in pairs.items() if name in table
        }
        yield MetricRow(metric, estimates, interval_plot(finite), differences)


def _standing(difference: Estimate, metric: Metric) -> str:
    if not all(map(math.isfinite, (difference.value, difference.low, difference.high))):
        return "not measured"
    if difference.value == difference.low == difference.high == 0:
        return "same"
    if difference.low <= 0 <= difference.high:
        return "unclear"
    return "better" if (difference.value < 0) == (metric.better == "lower") else "worse"


def _shown_rows(record: VersionRecord) -> Iterator[ShownRow]:
    for row, sample in zip(record.duel.shown, record.duel.samples, strict=False):
        names = {"real": row.real, "base": row.base, "champion": row.champion, "candidate": row.candidate}
        yield ShownRow(
            prompt=row.prompt,
            images={column: file_data_uri(record.duel_folder / name) for column, name in names.items() if name},
            candidate=file_data_uri(record.duel_folder / row.candidate),
            nearest=file_data_uri(record.duel_folder / row.nearest_training),
            held_out_sha256=sample.held_out_sha256,
            nearest_sha256=sample.nearest_training_sha256,
            similarity=sample.nearest_similarity,
            nearly_a_copy=sample.nearly_a_copy,
        )


def _first_items(items: Any) -> list[Any]:
    return list(items[:_MAX_THUMBNAILS])


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _number(value: float, metric: Metric) -> str:
    return metric.with_unit(metric.number(value)) if math.isfinite(value) else "not measured"


def _interval(estimate: Estimate, metric: Metric) -> str:
    if not (math.isfinite(estimate.low) and estimate.low < estimate.high):
        return ""
    return f"{metric.number(estimate.low)} to {metric.number(estimate.high)}"


def _signed(value: float, metric: Metric) -> str:
    return metric.number(value, "+").replace("-", "−")
