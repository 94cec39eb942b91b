"""Diagnosis of the installation and the state folder: problems and their remedies.

`diagnose` takes seconds. `diagnose_deeply` reads everything that has a digest.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from deployments.environment import MLFLOW_PORT, PREFECT_PORT
from deployments.servers.credentials import FILE as CREDENTIALS_FILE
from deployments.servers.credentials import credentials_of
from deployments.servers.running import running_services
from deployments.servers.services import require_free_port
from sdlora.core.errors import SdloraError
from sdlora.core.progress import OnProgress
from sdlora.integrity.damage import Damage
from sdlora.integrity.database import integrity_problem

FREE_GIB = 2.0
LOOKED_UP = 1000
"""Images whose bytes the quick check looks up; an object store answers each in milliseconds."""


@dataclass(frozen=True)
class Finding:
    """Result of one probe."""

    level: Literal["good", "note", "problem"]
    subject: str
    text: str


def diagnose(home: Path) -> Iterator[Finding]:
    """Run every probe, cheap ones first; an error that a probe raises becomes a problem."""
    probes: tuple[Callable[[Path], Finding], ...] = (
        _python,
        _packages,
        disk_finding,
        _state,
        _login,
        _images,
        _bytes,
        _styles,
        _records,
        _ports,
        _torch,
        _base_model,
        _exports,
    )
    for probe in probes:
        try:
            yield probe(home)
        except SdloraError as error:
            yield Finding("problem", probe.__name__.strip("_").replace("_", " "), str(error))


def diagnose_deeply(home: Path, on_progress: OnProgress, *, repair: bool) -> list[Damage]:
    """Compare everything that has a digest with its digest; see `sdlora.integrity.verify`.

    A repair has the state folder for itself, because a run in progress writes the same files.

    Raises:
        StorageError: a store cannot be reached, or a repair fails.
        TrainingError: a run is in progress, and `repair` is set.
    """
    from sdlora.integrity.verify import Registered, verify
    from sdlora.store.image_store import ImageStore
    from sdlora.store.location import StoreLocation
    from tasks.lock import exclusive_lock
    from tasks.tracking import has_records, registered_copies

    location = StoreLocation.of_home(home)
    with ExitStack() as stack:
        if repair and home.exists():  # a misspelt folder is not made
            stack.enter_context(exclusive_lock(home))
        store = stack.enter_context(ImageStore.open(home, location)) if location.may_hold_images else None
        registered = stack.enter_context(registered_copies(home)) if has_records(home) else Registered()
        return verify(home, store, registered, on_progress, repair=repair)


def _python(home: Path) -> Finding:
    return Finding("good", "Python", f"{'.'.join(map(str, sys.version_info[:3]))} in {sys.prefix}")


def _packages(home: Path) -> Finding:
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in requires("sdlora") or ()]
    except PackageNotFoundError:
        return Finding("problem", "packages", "sdlora itself is not installed in this Python: run `make dev`.")
    problems = []
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            problems.append(f"{requirement} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            problems.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if problems:
        return Finding("problem", "packages", "; ".join(problems) + ". Install again: make dev")
    return Finding("good", "packages", f"{len(needed)} requirements are met")


def disk_finding(home: Path) -> Finding:
    """Compare the free space with what a round needs, measured from the last rounds."""
    from sdlora.retention.space import WARN_ROUNDS, disk_space

    space = disk_space(home)
    remedy = "`sdlora gc --dry-run` lists what the state folder no longer needs."
    if space.rounds is None:
        level: Literal["good", "note"] = "good" if space.free >= FREE_GIB * 2**30 else "note"
        advice = "" if level == "good" else f"; a run needs up to {FREE_GIB:.0f} GiB"
        return Finding(level, "disk", f"{space.in_words()} at {home.resolve()}{advice}")
    if space.rounds == 0:
        return Finding("problem", "disk", f"{space.in_words()}: the next round does not fit. {remedy}")
    if space.rounds < WARN_ROUNDS:
        return Finding("note", "disk", f"{space.in_words()}: space for about {space.rounds} rounds. {remedy}")
    return Finding("good", "disk", f"{space.in_words()}: space for about {space.rounds:,} rounds")


def _state(home: Path) -> Finding:
    if not home.exists():
        return Finding("note", "state folder", f"{home.resolve()} does not exist yet; `sdlora demo` creates it")
    if not os.access(home, os.W_OK):
        return Finding("problem", "state folder", f"{home.resolve()} is not writable. Change its rights.")
    running = running_services(home)
    state = f", its servers run: {running['prefect']} and {running['mlflow']}" if running else ""
    return Finding("good", "state folder", f"{home.resolve()}{state}")


def _login(home: Path) -> Finding:
    if not (home / CREDENTIALS_FILE).exists():
        return Finding("note", "login", "none yet; the first command that starts a server creates it")
    credentials_of(home)
    return Finding(
        "good", "login", f"kept in {home.resolve() / CREDENTIALS_FILE}, readable only by you; sdlora login shows it"
    )


def _images(home: Path) -> Finding:
    from sdlora.core.errors import StorageError
    from sdlora.store.image_store import ImageStore
    from sdlora.store.location import StoreLocation

    location = StoreLocation.of_home(home)
    if not location.may_hold_images:
        return Finding("note", "image database", "none yet; `sdlora collect FOLDER` creates it")
    if isinstance(location.database, Path) and (broken := _database_problem(location.database)):
        return Finding("problem", "image database", f"{broken}. Restore images.db from a backup, or collect again.")
    try:
        with ImageStore.open(home, location) as store:
            count, datasets = store.image_count(), store.dataset_names()
            store.blobs.has("0" * 64, 0)  # raises StorageError if the store of bytes does not answer
            location_text = "" if isinstance(location.database, Path) else f" in {store.database.name}"
    except StorageError as error:
        return Finding("problem", "image database", str(error))
    return Finding(
        "good", "image database", f"{count} images, datasets: {', '.join(datasets) or 'none'}{location_text}"
    )


def _bytes(home: Path) -> Finding:
    """Look up the bytes of a sample of the images, without reading them."""
    from sdlora.store.image_store import ImageStore
    from sdlora.store.location import StoreLocation

    location = StoreLocation.of_home(home)
    if not location.may_hold_images:
        return Finding("note", "image bytes", "none yet")
    with ImageStore.open(home, location) as store:
        sample = store.blob_sample(LOOKED_UP)
        missing = store.blobs.missing(sample)
    if missing:
        return Finding(
            "problem",
            "image bytes",
            f"{len(missing)} of {len(sample)} images that were looked up have no bytes in {store.blobs.url}, the first "
            f"is {min(missing)[:12]}. `sdlora doctor --deep` finds all and says where they can be had again.",
        )
    return Finding("good", "image bytes", f"{len(sample)} images looked up; sdlora doctor --deep reads every byte")


def _styles(home: Path) -> Finding:
    from deployments.styles.files import load_styles

    styles = load_styles(home)
    if problems := [style.problem for style in styles if style.problem]:
        return Finding("problem", "styles", "\n".join(problems))
    if not styles:
        return Finding("note", "styles", "none yet; `sdlora new NAME --images FOLDER` makes one")
    return Finding("good", "styles", ", ".join(style.name for style in styles))


def _records(home: Path) -> Finding:
    if "MLFLOW_TRACKING_URI" in os.environ:
        address = re.sub(r"//[^/@]*@", "//", os.environ["MLFLOW_TRACKING_URI"])
        return Finding("good", "MLflow", f"records go to {address} (MLFLOW_TRACKING_URI)")
    path = home / "mlflow" / "mlflow.db"
    if not path.is_file():
        return Finding("note", "MLflow", "no records yet; the first run creates them")
    broken = _database_problem(path)
    if broken:
        return Finding("problem", "MLflow", f"{broken}. Restore {path} from a backup.")
    return Finding("good", "MLflow", f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")


def _ports(home: Path) -> Finding:
    if running_services(home):
        return Finding("good", "ports", "in use by this state folder's own servers")
    taken = []
    for port, server, option in ((PREFECT_PORT, "Prefect", "--prefect-port"), (MLFLOW_PORT, "MLflow", "--mlflow-port")):
        try:
            require_free_port(port, server, option)
        except SdloraError:
            taken.append(f"{port} ({server}) is in use: sdlora up {option} {port + 1}")
    return Finding("note", "ports", "; ".join(taken)) if taken else Finding("good", "ports", "4200 and 5000 are free")


def _torch(home: Path) -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("good", "PyTorch", f"{torch.__version__} on {torch.cuda.get_device_name(0)}")
    return Finding("good", "PyTorch", f"{torch.__version__} on the CPU with {torch.get_num_threads()} threads")


def _base_model(home: Path) -> Finding:
    from sdlora.models.config import BaseModelConfig
    from sdlora.models.files.sources import load_base_model

    base = load_base_model(BaseModelConfig(), home)
    size = sum(path.stat().st_size for path in base.folder.rglob("*") if path.is_file()) / 2**20
    return Finding("good", "base model", f"{base.name}, {size:.0f} MiB, digest {base.digest[:12]}")


def _exports(home: Path) -> Finding:
    """Look at the folders of drawing tools that get the champions."""
    from sdlora.records.export import export_records

    records = export_records(home)
    if not records:
        return Finding("note", "exports", "none; the setting export.on_promote names a drawing tool's folder")
    from sdlora.release.lora_folder import folder_problem

    problems = []
    for record in records:
        problem = folder_problem(record.file.parent) or record.problem
        if problem is None and not record.file.is_file():
            problem = f"{record.file} is gone. The next run writes it again."
        if problem:
            problems.append(f"{record.style}: {problem}")
    if problems:
        return Finding("problem", "exports", "; ".join(problems))
    return Finding("good", "exports", f"champions of {', '.join(record.style for record in records)} are in place")


def _database_problem(path: Path) -> str | None:
    problem = integrity_problem(path, "quick_check(1)")
    return f"{path} is damaged ({problem})" if problem else None
