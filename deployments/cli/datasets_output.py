"""Output of `sdlora datasets`: one dataset, and images selected for a change."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from deployments.cli.terminal import console, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdlora.store.dataset import Dataset
    from sdlora.store.records import ImageRecord

_IMAGES_SHOWN = 20


def dataset_object(dataset: Dataset) -> dict[str, Any]:
    """Return a dataset's images by verdict, source and licence, its snapshots, and the versions trained on it."""
    from sdlora.store.overview import licence_figures, source_figures

    counts = dataset.counts()
    with dataset.store.read() as session:
        sources, licences = source_figures(session, dataset.id), licence_figures(session, dataset.id)
    snapshots = dataset.snapshots()
    return {
        "name": dataset.name,
        "counts": {**asdict(counts), "total": counts.total},
        "sources": sources,
        "licences": [{"licence": name, "images": sum(verdicts)} for name, verdicts in licences.items()],
        "snapshots": snapshots,
        "versions": [version for record in snapshots for version in record.versions],
    }


def print_dataset(facts: dict[str, Any]) -> None:
    """Print the facts of `dataset_object`; of the snapshots the newest."""
    counts = facts["counts"]
    checks = ", ".join(f"{count} {check}" for check, count in counts["rejected_by"].items())
    lines = [
        f"{facts['name']}: {counts['total']:,} images, {counts['accepted']:,} accepted, {counts['rejected']:,} rejected"
        + (f" ({checks})" if checks else "")
        + (f", {counts['pending']:,} not yet judged" if counts["pending"] else "")
    ]
    lines += [f"source {one.name}: {one.images:,} images in {one.files:,} files" for one in facts["sources"]]
    lines += [f"licence {row['licence']}: {row['images']:,} images" for row in facts["licences"]]
    for record in facts["snapshots"][:1]:
        lines.append(
            f"newest of {len(facts['snapshots'])} snapshots: {record.digest[:10]}, {record.train_count:,} images to "
            f"train on, {record.held_out_count:,} held out"
        )
    lines.append("versions: " + (", ".join(version.label for version in facts["versions"]) or "none yet"))
    for line in lines:
        console.print(plain(line), soft_wrap=True)


def print_selected(rows: Sequence[ImageRecord], what: str, name: str) -> None:
    """Print the images that a change concerns, without the change."""
    for row in rows[:_IMAGES_SHOWN]:
        seen_as = row.files[0] if row.files else ""
        console.print(plain(f"  {row.sha256[:10]}  {seen_as}  {(row.captions or ('',))[0]}"), no_wrap=True)
    if len(rows) > _IMAGES_SHOWN:
        console.print(f"  and {len(rows) - _IMAGES_SHOWN:,} more")
    console.print(f"{len(rows):,} images {what} {name}. Nothing was changed (--dry-run).", markup=False)
