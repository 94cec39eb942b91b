"""The markdown pages that a run shows in Prefect. Text from captions and files is escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from sdlora.data import CleanReport, CollectReport
from sdlora.evidence import CONTESTANTS, METRICS, Decision, Duel, Estimate, Metric

MAX_TILE_PX = 256
JPEG_QUALITY = 85


def data_page(collected: Sequence[CollectReport], cleaned: CleanReport) -> str:
    """What came in, what is kept, and why the rest is not."""
    sources = [
        [report.source, str(report.files), str(report.new), str(report.skipped_count + report.unmatched_count)]
        for report in collected
    ]
    counts = cleaned.counts
    verdicts = [["accepted", str(counts.accepted)], *([check, str(n)] for check, n in counts.rejected_by.items())]
    turned_down = [[one.sha256[:12], one.check, one.reason] for one in cleaned.rejected]
    parts = [
        "## Images",
        _table(["source", "images", "new", "not read"], sources) if sources else "No source: the database as it is.",
        _table(["all images by verdict", "count"], verdicts),
    ]
    if turned_down:
        parts += ["### Turned down in this run", _table(["image", "check", "reason"], turned_down)]
    return "\n\n".join(parts)


def duel_page(duel: Duel, folder: Path) -> str:
    """A table of scores and the before/after grid."""
    present = [name for name in CONTESTANTS if name in duel.scores]
    header = ["metric", *present, "better is"]
    rows = [
        [metric.label, *(_cell(duel.scores[name].metrics.get(key), metric) for name in present), metric.better]
        for key, metric in METRICS.items()
    ]
    prompts = len(duel.samples)
    return "\n\n".join(
        [
            f"## Duel on {prompts} held-out images, the same prompts and seeds for all",
            _table(header, rows),
            "Values with their 95 % interval.",
            "### Base model, and with the adapter",
            inline_image(folder / duel.before_after_grid, "before and after"),
        ]
    )


def decision_page(decision: Decision) -> str:
    """The verdict, and every check with its finding."""
    verdict = "becomes the champion" if decision.promote else "does not become the champion"
    rows = [["passed" if check.passed else "**failed**", check.name, check.reason] for check in decision.checks]
    return "\n\n".join([f"## The candidate {verdict}", _table(["", "check", "finding"], rows)])


def release_page(name: str, number: int, report: Path, grid: Path, registry_url: str | None) -> str:
    """Where to find what was published."""
    lines = [f"## {name} version {number}", f"- Report: [{report.name}]({report.as_uri()}) (`{report}`)"]
    if registry_url:
        lines.append(f"- [Version {number} in MLflow]({registry_url})")
    return "\n".join(lines) + "\n\n" + inline_image(grid, "before and after")


def drawings_page(model: str, prompt: str, paths: Sequence[Path]) -> str:
    """Generated images side by side."""
    images = " ".join(inline_image(path, path.name) for path in paths)
    return f"## {_escape(prompt)}\n\n{_escape(model)}\n\n{images}"


def inline_image(path: Path, title: str) -> str:
    """A JPEG inside the page, so that it needs no server; `MAX_TILE_PX` bounds it to 4 x 16 tiles."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((4 * MAX_TILE_PX, 16 * MAX_TILE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"![{title}](data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()})"


def _cell(estimate: Estimate | None, metric: Metric) -> str:
    if estimate is None:
        return "missing"
    value = f"{estimate.value:.{metric.decimals}f}"
    if estimate.low == estimate.high:
        return value
    return f"{value} [{estimate.low:.{metric.decimals}f}, {estimate.high:.{metric.decimals}f}]"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)


def _escape(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
