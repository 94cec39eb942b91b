"""What has to hold after each round, read from outside: by SQL, over HTTP, from files and from the process table."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak import records
from tests.soak.plan import STYLES
from tests.soak.retained import exceeded
from tests.soak.system import System
from tests.soak.waiting import SoakError, wait_until
from tests.soak.world import REJECTED

_PATIENCE_SECONDS = 300.0  # the heartbeat of `sdlora up` looks after killed runs each minute


@dataclass
class Known:
    """What earlier rounds have seen, against which a later state is compared.

    Attributes:
        blobs: bytes that were compared with their digest.
        entries: entries of each style's history; they are only ever added to.
        interrupted: digests of runs that ended with an earlier soak on the folder. The repeated round brings other
            images, so nobody asks for them again.
    """

    blobs: set[str] = field(default_factory=set)
    entries: dict[str, list[records.Entry]] = field(default_factory=dict)
    interrupted: set[str] = field(default_factory=set)


def check(system: System, known: Known, after_gc: bool = False) -> list[str]:
    """Return what does not hold; empty if all is well."""
    found = _no_run_is_left(system) + _no_orphan(system)
    for style in STYLES:
        for invariant in (_images, _snapshot, _digests, _history, _versions, _starts):
            found += [f"{style}: {problem}" for problem in invariant(system, known, style)]
    found += _bytes(system, known)
    if after_gc:
        found += [f"after gc: {problem}" for problem in exceeded(system.home)] + _databases(system)
    return found


def _images(system: System, known: Known, style: str) -> list[str]:
    """Every file of the source is a member with a verdict, or refused with a reason; nothing else is a member."""
    files = system.world.files[style]
    recorded, members = records.files_of(system.home, style), records.members_of(system.home, style)
    if not recorded:
        return []  # never asked for so far
    found, refused = [], []
    for file in files:
        member = recorded.get(file.path)
        if member is None:
            refused.append(file)
            if file.kind != "empty":
                found.append(f"{file.path} ({file.kind}) is neither recorded nor of a kind that is refused")
        elif member.sha256 != file.sha256:
            found.append(f"{file.path} is recorded as {member.sha256[:12]}, its bytes are {file.sha256[:12]}")
        elif member.verdict not in ("accepted", "rejected"):
            found.append(f"{file.path} has no verdict: {member.verdict}")
        elif member.verdict == "rejected" and not member.reason:
            found.append(f"{file.path} was rejected without a reason")
        elif file.kind in REJECTED and member.verdict != "rejected":
            found.append(f"{file.path} ({file.kind}) was accepted")
    strangers = set(members) - {file.sha256 for file in files}
    found += [f"member {sha256[:12]} is in no file of the source" for sha256 in sorted(strangers)]
    return found + _refusals(system, style, len(refused))


def _refusals(system: System, style: str, count: int) -> list[str]:
    """The page of the last run that completed counts the files that were not read, and gives reasons."""
    ended = [one for one in records.tickets_of(system.home, style) if one.state in ("done", "skipped")]
    if not count or not ended or ended[-1].flow_run_id is None:
        return []
    run = ended[-1].flow_run_id
    pages = system.api(
        "artifacts/filter", {"flow_runs": {"id": {"any_": [run]}}, "artifacts": {"key": {"any_": ["images"]}}}
    )
    if not pages:
        return []  # a run from a terminal may have had a server of its own
    text = pages[0]["data"]
    row = next((line for line in text.splitlines() if line.startswith(f"| {style} |")), "")
    told = [cell.strip() for cell in row.strip("| ").split("|")]
    found = (
        [] if told and told[-1] == str(count) else [f"{count} files were refused, the page of the run says: {row!r}"]
    )
    return found if "### Not read" in text else [*found, f"{count} files were refused, and the page names no reason"]


def _snapshot(system: System, known: Known, style: str) -> list[str]:
    """The newest snapshot holds exactly the accepted images."""
    accepted = {sha for sha, member in records.members_of(system.home, style).items() if member.verdict == "accepted"}
    frozen = records.snapshot_of(system.home, style)
    if not frozen or frozen.keys() == accepted:
        return []
    missing, extra = sorted(accepted - frozen.keys()), sorted(frozen.keys() - accepted)
    return [f"the newest snapshot lacks {len(missing)} accepted images {missing[:3]} and has {extra[:3]} too many"]


def _digests(system: System, known: Known, style: str) -> list[str]:
    """Every digest that was asked for was trained once and published, and no run ended without outcome or reason."""
    tickets = records.tickets_of(system.home, style)
    found = [f"ticket {one.id} is still {one.state}" for one in tickets if one.state in ("waiting", "running")]
    found += [
        f"ticket {one.id} ended as {one.state} without a reason"
        for one in tickets
        if one.state in ("skipped", "failed", "cancelled", "lost") and not one.reason
    ]
    done = Counter(one.run_digest for one in tickets if one.state == "done")
    found += [f"run {str(digest)[:12]} was done {count} times" for digest, count in done.items() if count > 1]
    asked = {one.run_digest for one in tickets if one.run_digest}
    missing = unpublished(system.home, style) - known.interrupted
    found += [f"run {digest[:12]} was asked for and never published" for digest in sorted(missing)]
    trained = records.trainings(system.home)
    repeated = {digest: trained[digest] for digest in asked if trained.get(digest, 0) > 1}
    return found + [f"run {digest[:12]} has {count} runs in MLflow" for digest, count in repeated.items()]


def unpublished(home: Path, style: str) -> set[str]:
    """Return the digests of runs that were asked for and have no version."""
    published = {entry.run_digest for entry in records.history_of(home, style)}
    return {one.run_digest for one in records.tickets_of(home, style) if one.run_digest} - published


def _history(system: System, known: Known, style: str) -> list[str]:
    """Entries are numbered 1 to n, each starts where the one before ended, none changes, and MLflow follows."""
    history = records.history_of(system.home, style)
    found = []
    if [entry.number for entry in history] != list(range(1, len(history) + 1)):
        found.append(f"the history is numbered {[entry.number for entry in history]}")
    before = None
    for entry in history:
        if entry.from_version != before:
            found.append(f"entry {entry.number} starts from champion {entry.from_version}, it was {before}")
        before = entry.to_version
    seen = known.entries.get(style, [])
    if history[: len(seen)] != seen:
        found.append("an entry of the history was changed or removed")
    known.entries[style] = history
    alias = records.alias_of(system.home, style)
    if alias != before:
        found.append(f"MLflow's alias is version {alias}, the newest entry says {before}")
    return found


def _versions(system: System, known: Known, style: str) -> list[str]:
    """Versions are numbered 1 to n, in our table and in MLflow; each was decided on."""
    ours, theirs = records.versions_of(system.home, style), records.mlflow_versions_of(system.home, style)
    found = []
    if sorted(ours) != list(range(1, len(ours) + 1)):
        found.append(f"versions are numbered {sorted(ours)}")
    if set(ours) != theirs:
        found.append(f"versions {sorted(set(ours) ^ theirs)} are in one of the two registries only")
    if doubled := len(ours) - len(set(ours.values())):
        found.append(f"{doubled} versions have the adapter of another one")
    decided = {entry.version for entry in records.history_of(system.home, style)}
    return found + [f"version {number} was never decided on" for number in sorted(set(ours) - decided)]


def _starts(system: System, known: Known, style: str) -> list[str]:
    """Each run that new data started is one flow run, and its end is recorded with its outcome."""

    def unfinished() -> list[str]:
        return [start.key for start in records.starts_of(system.home, style) if start.state != "ended"]

    found = _within_patience(unfinished, "the start has no recorded end")
    for start in records.starts_of(system.home, style):
        runs = records.flow_runs_with_key(system.home, start.key)
        if runs != [start.flow_run_id]:
            found.append(f"start {start.key} is recorded as flow run {start.flow_run_id}, Prefect has {runs}")
        if start.state == "ended" and not start.outcome:
            found.append(f"start {start.key} ended without an outcome")
    return found


def _bytes(system: System, known: Known) -> list[str]:
    """The bytes of each member are stored whole."""
    found = []
    for style in STYLES:
        for sha256 in records.members_of(system.home, style).keys() - known.blobs:
            path = system.home / "blobs" / sha256[:2] / sha256
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                found.append(f"{style}: the bytes of {sha256[:12]} are not stored whole")
            known.blobs.add(sha256)
    return found


def _databases(system: System) -> list[str]:
    checked = {name: records.integrity(system.home, name) for name in records.DATABASES}
    return [f"database {name}: {answer}" for name, answer in checked.items() if answer != "ok"]


def _no_run_is_left(system: System) -> list[str]:
    """No run is shown as active when none works, and no task of a run that has ended."""
    active = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}}

    def runs() -> list[str]:
        early = system.early_runs()
        return [
            f"{run['name']}: {run['state_type']}"
            for run in system.api("flow_runs/filter", active)
            if run["id"] not in early
        ]

    return _within_patience(runs, "Prefect shows a run as active that no process works on")


def _no_orphan(system: System) -> list[str]:
    return _within_patience(system.orphans, "orphan process")


def _within_patience(look: Callable[[], list[str]], problem: str) -> list[str]:
    try:
        wait_until(lambda: not look(), _PATIENCE_SECONDS, problem, 0.5)
    except SoakError:
        return [f"{problem}: {one}" for one in look()]
    return []


def state_bytes(home: Path) -> dict[str, int]:
    """Return the bytes on the disk of each part of the state folder; a file with several names counts once."""
    sizes: Counter[str] = Counter()
    seen = set()
    for folder, _, names in os.walk(home):
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(OSError):
                status = path.lstat()
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    sizes[path.relative_to(home).parts[0]] += status.st_blocks * 512
    return dict(sizes)
