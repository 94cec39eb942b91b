"""Files of training runs with a recorded digest: checkpoints, kept weights, pictures of duels."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sdlora.core.errors import EvaluationError
from sdlora.integrity.copies import Copy, digest_check
from sdlora.records.duel import Duel, load_duel

_MANIFEST, _STATE, _TENSORS = "manifest.json", "state.json", "state.safetensors"
_DRAW_AGAIN = "`sdlora run --force` draws the pictures of the duel again."
_EARLIER = "The same command continues from the checkpoint before it, or from the start."


def checkpoint_copies(home: Path) -> Iterator[Copy]:
    """List the files of the checkpoints of unfinished runs, and the weights that the runs have kept so far."""
    patterns = ("runs/*/*/checkpoints/step-*/", "bases/*/stages/*/step-*/")
    for folder in sorted(folder for pattern in patterns for folder in home.glob(pattern)):
        what = f"checkpoint {folder.relative_to(home)}"
        try:
            digests = dict(json.loads((folder / _MANIFEST).read_text()))
        except (OSError, ValueError, TypeError):
            digests = {}
        if {_STATE, _TENSORS} <= digests.keys():
            for name, digest in sorted(digests.items()):
                path = folder / name
                yield Copy("checkpoint", f"{name} of {what}", path, str(path), digest_check(digest), _EARLIER)
            yield from _kept_weights(folder)
        else:
            path = folder / _MANIFEST
            yield Copy("checkpoint", f"{_MANIFEST} of {what}", path, str(path), lambda _: False, _EARLIER)


def _kept_weights(checkpoint: Path) -> Iterator[Copy]:
    """List the weights that a checkpoint names with step and SHA-256."""
    try:
        state = json.loads((checkpoint / _STATE).read_text())
    except (OSError, ValueError):  # listed as damaged already
        return
    run = checkpoint.parents[1]
    for step, digest in sorted(_digests_by_step(state).items()):
        path = run / "kept" / f"step-{step:08d}.safetensors"
        remedy = f"Train it again: delete {run} and type `sdlora run`."
        yield Copy("checkpoint", f"kept weights of step {step}", path, str(path), digest_check(digest), remedy)


def _digests_by_step(value: Any) -> dict[int, str]:
    """Find all objects with a `step` and a `sha256` in a JSON value."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {}
    found = {step: digest for entry in value.values() for step, digest in _digests_by_step(entry).items()}
    if isinstance(value.get("step"), int) and isinstance(value.get("sha256"), str):
        found[value["step"]] = value["sha256"]
    return found


def duel_copies(home: Path, duels: Mapping[str, Collection[str]]) -> Iterator[Copy]:
    """List the first duels of runs, in `evaluation/`.

    Args:
        duels: digests of the duels of recorded decisions by the first digits of the run's digest. A duel without a
            recorded decision has nothing to be compared with.
    """
    for path in sorted((home / "runs").glob("*/*/evaluation/duel.json")):
        run = path.parents[1].name
        recorded = duels.get(run, ())
        identity = f"duel {next(iter(recorded))}" if len(recorded) == 1 else str(path)
        yield Copy("duel", f"duel of run {run}", path, identity, partial(_is_recorded_duel, recorded), _DRAW_AGAIN)


def _is_recorded_duel(recorded: Collection[str], path: Path) -> bool:
    duel = Duel.model_validate_json(path.read_bytes())
    return not recorded or duel.digest() in recorded


def picture_copies(home: Path, purged: Collection[str]) -> Iterator[Copy]:
    """List the pictures of duels. A takedown paints over pictures, so duels that show a purged image are left out."""
    for folder in sorted((home / "runs").glob("*/*/evaluation/")):
        try:
            duel = load_duel(folder)
        except EvaluationError:
            continue  # `duel_copies` lists it
        shown = {sha for sample in duel.samples for sha in (sample.held_out_sha256, sample.nearest_training_sha256)}
        if shown.isdisjoint(purged):
            for name, digest in sorted(duel.files.items()):
                what = f"{name} of the duel of run {folder.parent.name}"
                yield Copy("picture", what, folder / name, digest, digest_check(digest), _DRAW_AGAIN)
                if name == duel.grid and (folder.parent / "release").is_dir():
                    what = f"{name} of the release of run {folder.parent.name}"
                    path = folder.parent / "release" / "grid.png"
                    yield Copy("picture", what, path, digest, digest_check(digest), _DRAW_AGAIN)
