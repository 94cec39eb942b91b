"""Identity of a run of the loop, and the release of an earlier equal run."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from sdlora.config import ResolvedConfig
from sdlora.core.refs import BaseModelRef, SnapshotRef
from sdlora.training.identity import run_digest
from tasks.pages import Link, nothing_new_page
from tasks.progress import task_progress
from tasks.results import Release, RunRef
from tasks.run_log import run_log
from tasks.tracking import NoWholeCopyError, Registry
from tasks.version_page import REPORT


@task(name="identify run", persist_result=False)
def identify_run(base: BaseModelRef, snapshot: SnapshotRef, config: ResolvedConfig, home: Path) -> RunRef:
    """Name the run by the digest of all inputs of its adapter, so that equal inputs find earlier results."""
    digest = run_digest(base.digest, snapshot.digest, config.lora, config.training, base.quantize)
    run_log().info("Run %s", digest)
    return RunRef(digest=digest, folder=home / "runs" / config.name / digest[:16])


@task(name="find release", persist_result=False)
def find_release(run: RunRef, name: str, home: Path) -> Release | None:
    """Find the version of an earlier equal run; None unless its publishing was completed and an adapter is whole."""
    report = task_progress()
    report("look into the registry", 0, 1)  # the first query creates its tables, which takes seconds
    registry = Registry(home)
    version = registry.find(name, run_digest=run.digest)
    report("look into the registry", 1, 1)
    if version is None or not version.published:
        return None
    try:
        registry.fetch(version, home)
    except NoWholeCopyError as error:  # the run goes on and trains again, as the message advises
        run_log().warning("%s", error)
        return None
    release, title = version.as_release(run, new=False), f"{name} version {version.number}"
    run_log().info("Nothing new: %s was made from the same images with the same settings", title)
    page = registry.run_page(version)
    links = [
        Link(f"Version {version.number} in MLflow", registry.page_of(version), None),
        Link("Report", page.absolute_url(page.file(REPORT)) if page else None, release.report),
    ]
    create_markdown_artifact(
        nothing_new_page(title, release.reasons, links), key="result", description=f"Nothing new: {title} stands"
    )
    return release
