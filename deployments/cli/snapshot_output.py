"""Output of `sdlora snapshot`: one snapshot, and the changes between two."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from deployments.cli.terminal import console, plain
from sdlora.data.changes import compare_snapshots

if TYPE_CHECKING:
    from sdlora.data.snapshot import Snapshot
    from sdlora.store.lineage import SnapshotRecord


def snapshot_object(record: SnapshotRecord, rows: Snapshot, parent: Snapshot | None) -> dict[str, object]:
    """Return a snapshot with all its images, and its changes since its parent."""
    return {"snapshot": record, "images": rows.rows, "changes": changes_object(parent, rows)}


def changes_object(old: Snapshot | None, new: Snapshot) -> dict[str, object]:
    """Return the changes between two snapshots, each with the values before and after."""
    changes = compare_snapshots(old, new)
    before = {row.sha256: row for row in old.rows} if old else {}
    after = {row.sha256: row for row in new.rows}
    return {
        "added": [after[sha256] for sha256 in changes.added],
        "removed": [before[sha256] for sha256 in changes.removed],
        **{
            kind: [{"sha256": sha256, "before": before[sha256], "after": after[sha256]} for sha256 in shas]
            for kind, shas in (
                ("recaptioned", changes.recaptioned),
                ("reweighted", changes.reweighted),
                ("remasked", changes.remasked),
            )
        },
    }


def print_snapshot(record: SnapshotRecord, rows: Snapshot, parent: Snapshot | None, limit: int) -> None:
    """Print one snapshot, and at most `limit` images of each kind of change."""
    multi_captioned = sum(len(row.captions) > 1 for row in rows.rows)
    uncaptioned = sum(row.captions == ("",) for row in rows.rows)
    console.print(f"[bold]Snapshot {record.digest}[/] of dataset {record.dataset}", soft_wrap=True)
    console.print(f"made {when(record)}: {record.train_count} images to train on, {record.held_out_count} held out")
    console.print(f"captions: {multi_captioned} images have several, {uncaptioned} have none")
    _print_weights(rows)
    if masked := sum(bool(row.mask) for row in rows.train):
        console.print(f"masks: {masked} of the images to train on have one (training.masked_weight)")
    console.print(plain("versions: " + (", ".join(version.label for version in record.versions) or "none yet")))
    print_changes(f"since {record.parent[:10]}" if record.parent else "the first snapshot", parent, rows, limit)


def _print_weights(snapshot: Snapshot) -> None:
    """Print each weight's number of images and share of training, unless all weights are equal."""
    counts = Counter(row.weight for row in snapshot.train)
    if len(counts) < 2:
        return
    total = sum(weight * count for weight, count in counts.items())
    shares = (f"{count} weigh {weight:g} ({weight * count / total:.0%})" for weight, count in sorted(counts.items()))
    console.print("weights (share of training): " + ", ".join(shares), soft_wrap=True)


def print_changes(title: str, old: Snapshot | None, new: Snapshot, limit: int) -> None:
    """Print the changes between two snapshots, at most `limit` images of each kind."""
    changes = compare_snapshots(old, new)
    counts = f"{len(changes.added)} came, {len(changes.removed)} went, {len(changes.recaptioned)} have other captions"
    counts += f", {len(changes.reweighted)} another weight" if changes.reweighted else ""
    counts += f", {len(changes.remasked)} another mask" if changes.remasked else ""
    console.print(f"[bold]{title}:[/] {counts}")
    if old is None:
        return  # all images are new
    before = {row.sha256: row for row in old.rows}
    after = {row.sha256: row for row in new.rows}
    added = [(sha256, after[sha256].captions[0]) for sha256 in changes.added]
    removed = [(sha256, before[sha256].captions[0]) for sha256 in changes.removed]
    changed = [
        (sha256, " | ".join(before[sha256].captions) + " -> " + " | ".join(after[sha256].captions))
        for sha256 in changes.recaptioned
    ]
    changed += [
        (sha256, f"weight {before[sha256].weight:g} -> {after[sha256].weight:g}") for sha256 in changes.reweighted
    ]
    changed += [
        (sha256, f"mask {before[sha256].mask[:10] or 'none'} -> {after[sha256].mask[:10] or 'none'}")
        for sha256 in changes.remasked
    ]
    for sign, lines in (("[green]+[/]", added), ("[red]-[/]", removed), ("[yellow]~[/]", changed)):
        for sha256, text in lines[:limit]:
            console.print(f"  {sign} {sha256[:10]}", end="  ")
            console.print(plain(text), overflow="ellipsis", no_wrap=True)
        if len(lines) > limit:
            console.print(f"  {sign} ... and {len(lines) - limit} more (--limit)")


def when(record: SnapshotRecord) -> str:
    """Return the local time at which a snapshot was made."""
    return record.made_at.astimezone().strftime("%Y-%m-%d %H:%M")
