"""What the rules of retention allow to be left after `sdlora gc`, counted on the disk."""

from __future__ import annotations

from pathlib import Path

from tests.soak import records
from tests.soak.plan import STYLES
from tests.soak.world import RETENTION

_OF_DUELS = ("generations", "features", "reconstructions", "adapters")


def exceeded(home: Path) -> list[str]:
    """List what is left beyond the rules, and champions whose files are gone."""
    found = []
    if (home / "trash").is_dir() and any((home / "trash").iterdir()):
        found.append("the trash is not empty")
    # The rule is about images and features of duels (docs/retention.md), not about what is kept for each image.
    cache = sum(path.stat().st_size for name in _OF_DUELS for path in home.glob(f"cache/{name}/**/*") if path.is_file())
    if cache > RETENTION["cache_megabytes"] * 1e6:
        found.append(f"the cache of duels has {cache / 1e6:.1f} MB")
    for style in STYLES:
        pages = list(home.glob(f"pages/{style}/data-*.html"))
        if len(pages) > RETENTION["pages"]:
            found.append(f"{style}: {len(pages)} data pages")
        found += [f"{style}: {problem}" for problem in _runs(home, style)]
    return found


def _runs(home: Path, style: str) -> list[str]:
    history = records.history_of(home, style)
    champions = {entry.to_version for entry in history} - {None}
    refused = {entry.version for entry in history if entry.kind in ("refused", "not confirmed")}
    decided = {entry.version for entry in history if entry.who != "gate"}
    digests = {entry.version: entry.run_digest for entry in history if entry.run_digest}
    with_weights = {
        number for number, digest in digests.items() if (home / "runs" / style / str(digest)[:16] / "adapter").is_dir()
    }
    found = [f"champion {number} has lost its weights" for number in sorted(champions - with_weights)]
    lost = (refused & with_weights) - champions - decided
    if len(lost) > RETENTION["lost_candidates"]:
        found.append(f"{len(lost)} refused versions have weights")
    published = {str(digest)[:16] for digest in digests.values()}
    found += [
        f"the published run {folder.name} has checkpoints"
        for folder in home.glob(f"runs/{style}/*")
        if folder.name in published and any(folder.glob("checkpoints/*"))
    ]
    runner_ups = [folder for folder in home.glob(f"runs/{style}/*/runner-up") if folder.is_dir()]
    if len(runner_ups) > RETENTION["runner_ups"] + len(champions | decided):
        found.append(f"{len(runner_ups)} runner-ups")
    return found
