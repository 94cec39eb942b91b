"""Which run of the loop this is, and whether it was done before."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from sdlora.artifacts import BaseModelRef, SnapshotRef
from sdlora.config import ResolvedConfig
from sdlora.training import run_digest
from tasks.progress import task_progress
from tasks.results import Release, RunRef
from tasks.tracking import Registry


@task(name="identify run", persist_result=False)
def identify_run(base: BaseModelRef, snapshot: SnapshotRef, config: ResolvedConfig, home: Path) -> RunRef:
    """Name the run by the digest of all that decides its adapter; equal inputs find what was done before."""
    digest = run_digest(base.digest, snapshot.digest, config.lora, config.training, base.quantize)
    return RunRef(digest=digest, folder=home / "runs" / config.name / digest[:16])


@task(name="find release", persist_result=False)
def find_release(run: RunRef, name: str, home: Path) -> Release | None:
    """The version that this run led to before, if publishing it came to its end."""
    report = task_progress()
    report("look into the registry", 0, 1)  # the first look makes its tables, which takes seconds
    version = Registry(home).find(name, run_digest=run.digest)
    report("look into the registry", 1, 1)
    return version.as_release(run, new=False) if version and version.published else None
