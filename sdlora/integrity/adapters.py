"""Copies of adapters and of their evidence: run folders, releases, registered versions, downloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.integrity.copies import Copy, digest_check
from sdlora.lora.manifest import MANIFEST_FILE, AdapterManifest, parse_manifest
from sdlora.records.adoption import ADOPTION_FILE
from sdlora.records.decision import DECISION_FILE, Decision
from sdlora.records.duel import DUEL_FILE, Duel

RUN_DIGITS = 16
"""Digits of a run's digest in the name of its folder."""


@dataclass(frozen=True)
class AdapterFolder:
    """Folder of an adapter.

    Attributes:
        folder: holds both weights files and `adapter.json`.
        what: the adapter in words.
        run: first digits of the digest of the training run; folders of equal run and part hold equal adapters.
        part: "adapter", or "runner-up" for the second best of the run.
        remedy: what to do if no copy is whole.
        digest: recorded digest of the adapter, if it is recorded elsewhere.
        is_cache: True for a download from the registry.
        has_evidence: True for a release or a copy of one, which also holds `duel.json` and `decision.json`.
        on_restored: called after a file was restored.
        address: place of the folder for people, if `folder` is a temporary download.
    """

    folder: Path
    what: str
    run: str
    part: str
    remedy: str
    digest: str | None = None
    is_cache: bool = False
    has_evidence: bool = False
    on_restored: Callable[[], None] | None = None
    address: str = ""

    @property
    def identity(self) -> str:
        return f"{self.part} of run {self.run}"

    def copy(self, name: str, identity: str, is_whole: Callable[[Path], bool]) -> Copy:
        return Copy(
            "adapter",
            f"{name} of {self.what}",
            self.folder / name,
            identity,
            is_whole,
            self.remedy,
            self.is_cache,
            self.on_restored,
            f"{self.address}/{name}" if self.address else "",
        )


def adapter_folders(home: Path) -> Iterator[AdapterFolder]:
    """Find the adapters of finished runs, their releases, and downloads from the registry."""
    for run in sorted((home / "runs").glob("*/*/")):
        name = f"run {run.name} of {run.parent.name}"
        remedy = f"Train it again: delete {run} and type `sdlora run`."
        if (run / ADOPTION_FILE).is_file():
            remedy = f"Delete {run} and adopt the file again: sdlora adopt {run.parent.name} FILE."
        for part, folder, what in (
            ("adapter", run / "adapter", f"the adapter of {name}"),
            ("runner-up", run / "runner-up", f"the runner-up of {name}"),
            ("adapter", run / "release", f"the release of {name}"),
        ):
            if folder.is_dir():
                yield AdapterFolder(folder, what, run.name, part, remedy, has_evidence=folder.name == "release")
    for folder in sorted((home / "cache" / "adapters").glob("*/adapter_weights/")):
        manifest, digest = _manifest_in(folder), folder.parent.name
        # Without a manifest the run is unknown; the digest then serves as a name that no run has.
        run_name = manifest.run_digest[:RUN_DIGITS] if manifest else digest
        what = f"the downloaded adapter {digest[:12]}"
        yield AdapterFolder(folder, what, run_name, "adapter", "", digest, is_cache=True, has_evidence=True)


def adapter_copies(folders: Iterable[AdapterFolder]) -> Iterator[Copy]:
    """List the files of adapters with their digests; a damaged `adapter.json` takes its digests from a whole one."""
    folders = list(folders)
    manifests: dict[str, AdapterManifest] = {}
    for folder in folders:
        manifest = _manifest_in(folder.folder)
        if manifest is not None and _fits(manifest, folder):
            manifests.setdefault(folder.identity, manifest)
    for folder in folders:
        manifest = manifests.get(folder.identity)
        yield folder.copy(MANIFEST_FILE, f"{MANIFEST_FILE} of {folder.identity}", _manifest_check(folder))
        weights = [(ADAPTER_WEIGHTS, folder.digest)] if folder.digest else []
        if manifest is not None:
            weights = [(ADAPTER_WEIGHTS, manifest.digest), (manifest.kohya_file, manifest.kohya_digest)]
        for name, digest in weights:
            yield folder.copy(name, digest, digest_check(digest))


def evidence_copies(folders: Iterable[AdapterFolder], decisions: Mapping[str, set[str]]) -> Iterator[Copy]:
    """List `duel.json` and `decision.json` of releases and registered versions.

    Args:
        decisions: digests of the recorded decisions by the first digits of the run's digest.
    """
    folders = [folder for folder in folders if folder.has_evidence]
    own = [_decision_in(folder.folder, decisions.get(folder.run, set())) for folder in folders]
    whole = {decision.digest(): decision for decision in own if decision}
    for folder, decision in zip(folders, own, strict=True):
        recorded = decisions.get(folder.run, set())
        if decision is None and len(recorded) == 1:
            decision = whole.get(next(iter(recorded)))
        expected = {decision.digest()} if decision else recorded
        if expected:
            # A run may have several decisions. Without its own one, a folder does not tell which one it had.
            identity = f"decision {decision.digest()}" if decision else f"decision in {folder.folder}"
            yield folder.copy(DECISION_FILE, identity, _decision_check(expected))
        if decision:
            yield folder.copy(DUEL_FILE, f"duel {decision.duel_digest}", _duel_check(decision.duel_digest))


def _manifest_in(folder: Path) -> AdapterManifest | None:
    try:
        return parse_manifest((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def _fits(manifest: AdapterManifest, folder: AdapterFolder) -> bool:
    return manifest.run_digest.startswith(folder.run) and folder.digest in (None, manifest.digest)


def _manifest_check(folder: AdapterFolder) -> Callable[[Path], bool]:
    return lambda path: _fits(parse_manifest(path.read_bytes()), folder)


def _decision_in(folder: Path, expected: set[str]) -> Decision | None:
    try:
        decision = Decision.model_validate_json((folder / DECISION_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return decision if decision.digest() in expected else None


def _decision_check(expected: set[str]) -> Callable[[Path], bool]:
    return lambda path: Decision.model_validate_json(path.read_bytes()).digest() in expected


def _duel_check(expected: str) -> Callable[[Path], bool]:
    return lambda path: Duel.model_validate_json(path.read_bytes()).digest() == expected
