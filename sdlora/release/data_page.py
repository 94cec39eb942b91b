"""Data page: images, rejections with reasons, and changes. One file, no script, no requests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from sdlora.core.errors import StorageError
from sdlora.core.files import replace_file
from sdlora.data.check_list import ListedCheck
from sdlora.data.config import DataConfig
from sdlora.data.duplicates.groups import NEAR
from sdlora.release.blanking import image_name
from sdlora.release.data_facts import DataFacts, file_name, gather_facts
from sdlora.release.histograms import bar_chart, binned, column_chart
from sdlora.release.images import Thumbnails
from sdlora.release.pages import Tile, style, templates
from sdlora.store.dataset import Dataset
from sdlora.store.overrides import PURGED
from sdlora.store.records import ImageRecord

_MAX_WEIGHT_COLUMNS = 8
_WEIGHT_EDGES = (1, 2, 3, 5, 10, 20, 50, 100)
_SIDE_EDGES = (64, 128, 256, 512, 768, 1024, 2048)
_ASPECT_EDGES = (0.5, 0.7, 0.9, 1.12, 1.43, 2.0)
_ASPECT_NAMES = ("tall", "1:2", "3:4", "square", "4:3", "2:1", "wide")
_WORD_EDGES = (1, 2, 4, 7, 11, 21, 51)


@dataclass(frozen=True)
class WrittenPage:
    """Path of the page, and the fact that it lacks, with the remedy; None if it is complete."""

    path: Path
    trouble: str | None


def write_data_page(
    dataset: Dataset, config: DataConfig, path: Path, *, title: str, snapshot_digest: str | None = None
) -> WrittenPage:
    """Write the page. If the previous snapshot is damaged, the page lacks only the changes.

    Args:
        config: settings of the data stage.
        path: where to write.
        title: title of the page, such as the name of a style.
        snapshot_digest: the new snapshot; see `gather_facts`.

    Raises:
        DataError: there is no such snapshot, or it is damaged.
        StorageError: the page cannot be written; an earlier one is untouched.
    """
    facts = gather_facts(dataset, config, snapshot_digest)
    page = render_data_page(facts, Thumbnails(dataset.store), title)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error}. Correct the folder's rights and run again.") from error
    replace_file(path, page.encode())
    return WrittenPage(path, facts.trouble)


def render_data_page(facts: DataFacts, thumbnails: Thumbnails, title: str) -> str:
    """Render the page as text; names, captions and reasons are escaped."""
    environment = templates()
    environment.filters.update(count=lambda value: f"{value:,}", image_name=image_name)
    environment.globals.update(thumbnail=thumbnails.of, file_name=file_name)
    css = style(environment, "report.css", "data.css")
    return environment.get_template("data.html.jinja").render(
        title=title,
        made=datetime.now(UTC),
        facts=facts,
        css=Markup(css),  # noqa: S704 -- the package's own style sheets
        style_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        tiles=list(_tiles(facts)),
        verdicts=bar_chart("Images by verdict and check", _verdicts(facts)),
        distributions=list(_distributions(facts)),
        groups=list(_groups(facts)),
        near_count=facts.counts.rejected_by.get(NEAR, 0),
    )


@dataclass(frozen=True)
class Distribution:
    """Chart of a distribution with its heading and a note."""

    heading: str
    chart: Markup
    note: str


@dataclass(frozen=True)
class Group:
    """Images that one check rejected: their count and the first of them."""

    name: str
    check: ListedCheck | None
    count: int
    shown: Sequence[ImageRecord]


def _tiles(facts: DataFacts) -> Iterator[Tile]:
    counts = facts.counts
    waiting = f", {counts.pending:,} not judged yet" if counts.pending else ""
    yield Tile("Accepted", f"{counts.accepted:,}", f"of {counts.total:,} images{waiting}")
    share = f"{counts.rejected / counts.total:.1%} of all" if counts.total else "of none"
    purged = counts.rejected_by.get(PURGED, 0)
    detail = f"{purged:,} purged, the others kept" if purged else "none of them deleted"
    yield Tile("Left out", f"{counts.rejected:,}", f"{share}, {detail}")
    detail = f"{len(facts.changes.removed):,} went, {len(facts.changes.recaptioned):,} have other captions"
    detail += f", {len(facts.changes.reweighted):,} another weight" if facts.changes.reweighted else ""
    detail += f", {len(facts.changes.remasked):,} another mask" if facts.changes.remasked else ""
    if facts.trouble:
        yield Tile("New", "?", "the previous snapshot is damaged")
    else:
        yield Tile("New", f"{len(facts.changes.added):,}", detail)
    if facts.frozen:
        yield Tile("To train on", f"{facts.frozen.train_count:,}", f"and {facts.frozen.held_out_count:,} held out")


def _verdicts(facts: DataFacts) -> Mapping[str, int]:
    counts = facts.counts
    waiting = {"not judged yet": counts.pending} if counts.pending else {}
    return {"accepted": counts.accepted} | waiting | counts.rejected_by


def _groups(facts: DataFacts) -> Iterator[Group]:
    checks = {check.name: check for check in facts.checks}
    for name, images in facts.rejected.items():
        yield Group(name, checks.get(name), facts.counts.rejected_by[name], images)


def _distributions(facts: DataFacts) -> Iterator[Distribution]:
    sides: dict[float, int] = {}
    aspects: dict[float, int] = {}
    for (width, height), count in facts.sizes.items():
        sides[min(width, height)] = sides.get(min(width, height), 0) + count
        aspects[width / height] = aspects.get(width / height, 0) + count
    if sides:
        chart = column_chart("Images by shorter side", _names(_SIDE_EDGES), binned(sides, _SIDE_EDGES))
        yield Distribution("Shorter side", chart, f"pixels; from {min(sides):,.0f} to {max(sides):,.0f}")
        chart = column_chart("Images by width over height", _ASPECT_NAMES, binned(aspects, _ASPECT_EDGES))
        yield Distribution("Shape", chart, f"width : height; from {min(aspects):.2f} to {max(aspects):.2f}")
    if facts.caption_words:
        words = {float(number): count for number, count in facts.caption_words.items()}
        labels = ["none", "1", "2–3", "4–6", "7–10", "11–20", "21–50", "more"]
        chart = column_chart("Captions by number of words", labels, binned(words, _WORD_EDGES))
        yield Distribution("Words in a caption", chart, "all captions of accepted images, from every source")
    yield from _weight_chart(facts)


def _weight_chart(facts: DataFacts) -> Iterator[Distribution]:
    """Chart how often training shows images, if the weights differ."""
    if len(facts.weights) < 2:
        return
    weights = sorted(facts.weights)
    total = sum(weight * count for weight, count in facts.weights.items())
    few = len(weights) <= _MAX_WEIGHT_COLUMNS
    names = [f"{weight:g}" for weight in weights] if few else _names(_WEIGHT_EDGES)
    chart = column_chart(
        "Training images by weight", names, binned(facts.weights, weights[1:] if few else _WEIGHT_EDGES)
    )
    share = weights[-1] * facts.weights[weights[-1]] / total
    note = f"from {weights[0]:g} to {weights[-1]:g}; the heaviest are {share:.0%} of the images that training shows"
    yield Distribution("Weight in training", chart, note)


def _names(edges: Sequence[int]) -> list[str]:
    """Name the bins that begin at these edges: "<64", "64+", "128+", ..."""
    return [f"<{edges[0]}", *(f"{edge}+" for edge in edges)]
