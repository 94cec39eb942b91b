"""Page of a comparison as one self-contained HTML file: no script, no outside resource, all text escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from markupsafe import Markup

from sdlora.core.files import replace_file
from sdlora.records.comparison import BASE, COMPARED, COMPARISON_GRID, Comparison, title
from sdlora.records.costs import Costs
from sdlora.records.metrics import Estimate, Metric
from sdlora.release.pages import style, templates

PAGE_FILE = "comparison.html"


def write_comparison_page(folder: Path, comparison: Comparison, name: str) -> Path:
    """Write `folder/comparison.html`; the grid of the comparison is read from the same folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    environment = templates()
    css = style(environment, "report.css")
    page = environment.get_template("comparison.html.jinja").render(
        name=name,
        comparison=comparison,
        titles=[title(result.name) for result in comparison.contestants],
        pairs=pair_titles(comparison),
        differences=list(difference_rows(comparison)),
        costs=list(cost_rows(comparison)),
        quality=list(quality_rows(comparison)),
        meanings=[(metric.label, metric.meaning) for metric in COMPARED.values()],
        grid="data:image/png;base64," + base64.b64encode((folder / COMPARISON_GRID).read_bytes()).decode(),
        css=Markup(css),  # noqa: S704 -- the package's own style sheet
        style_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
    )
    path = folder / PAGE_FILE
    replace_file(path, page.encode())
    return path


def cost_rows(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the costs table: label, and one cell per contestant."""
    costs_by_name = {result.name: result.costs for result in comparison.contestants if result.name != BASE}
    names = [result.name for result in comparison.contestants]

    def cells(to_text: Callable[[Costs], str]) -> list[str]:
        return [to_text(costs_by_name[name]) if name in costs_by_name else "–" for name in names]

    yield "Steps", cells(lambda costs: str(costs.steps))
    yield "Training time", cells(lambda costs: f"{costs.seconds:.1f} s")
    yield "Processor time", cells(lambda costs: _seconds(costs.processor_seconds))
    yield "Time per step", cells(lambda costs: f"{1000 * costs.seconds / max(1, costs.steps):.0f} ms")
    yield "Peak memory", cells(lambda costs: _bytes(costs.process_peak_bytes))
    yield "Peak memory beyond the libraries", cells(lambda costs: _bytes(costs.training_peak_bytes))
    yield "Trained parameters", cells(lambda costs: f"{costs.trained_parameters:,}")
    yield "File size", cells(lambda costs: _bytes(costs.file_bytes))


def quality_rows(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the metrics table: label with the better direction, and one estimate per contestant."""
    for key, metric in COMPARED.items():
        yield (
            f"{metric.label} {metric.arrow}",
            [metric.format(result.metrics.get(key)) for result in comparison.contestants],
        )


def pair_titles(comparison: Comparison) -> list[str]:
    """Return the columns of `difference_rows`: every method against the base, then later methods against the first."""
    reference = next(iter(comparison.differences), "")
    return [
        *(f"{title(name)} against the base" for name in comparison.differences),
        *(f"{title(name)} against {title(reference)}" for name in comparison.against_first),
    ]


def difference_rows(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the differences table, metrics of quality only: label, and one difference per pair."""
    pairs = [*comparison.differences.values(), *comparison.against_first.values()]
    for key, metric in COMPARED.items():
        if key != "seconds_per_image":
            yield metric.label, [_difference_cell(pair.get(key), metric) for pair in pairs]


def _difference_cell(difference: Estimate | None, metric: Metric) -> str:
    if difference is None:
        return "missing"
    value = metric.number(difference.value, "+")
    if difference.low <= 0 <= difference.high:
        return f"{value}, no clear difference"
    if not difference.low * difference.high > 0:  # not a number
        return f"{value}, not measured"
    return f"{value}, {'better' if (difference.value > 0) == (metric.better == 'higher') else 'worse'}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value else "not measured"


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count else "not measured"
