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
from tasks.results import HELD_OUT_HINT, Release, RunRef
from tasks.run_log import run_log
from tasks.tracking import NoWholeCopyError, Registry, RemovedFilesError
from tasks.version_page import REPORT


@task(name="identify run", persist_result=False)
def identify_run(base: BaseModelRef, snapshot: SnapshotRef, config: ResolvedConfig, home: Path) -> RunRef:
    """Name the run by the digest of what its adapter learns from, so that equal inputs find earlier results."""
    digest = run_digest(base.digest, snapshot.training_digest, config.lora, config.training, base.quantize)
    run_log().info("Run %s", digest)
    return RunRef(digest=digest, folder=home / "runs" / config.name / digest[:16])


@task(name="find release", persist_result=False)
def find_release(run: RunRef, snapshot: SnapshotRef, name: str, home: Path) -> Release | None:
    """Find the version of an earlier equal run; None unless its publishing was completed and an adapter is whole.

    The held-out images may be other ones than at its publication. They do not train anything, and no duel is repeated
    for them by itself: an adapter as good as the champion passes about half of its duels, so a duel for each new image
    would let it pass in the end. `force` asks for such a duel.
    """
    report = task_progress()
    report("look into the registry", 0, 1)  # the first query creates its tables, which takes seconds
    registry = Registry(home)
    version = registry.find_by_run(name, run.digest)
    report("look into the registry", 1, 1)
    if version is None or not version.published:
        return None
    has_files = True
    try:
        registry.fetch(version, home)
    except RemovedFilesError as error:  # trained and judged once, which is enough
        run_log().info("%s", error)
        has_files = False
    except NoWholeCopyError as error:  # the run goes on and trains again, as the message advises
        run_log().warning("%s", error)
        return None
    other_held_out = version.tags.get("snapshot_digest") != snapshot.digest
    release = version.as_release(run, new=False).model_copy(update={"other_held_out": other_held_out})
    if has_files:
        registry.restore_release(version, release.run.release)
    title = f"{name} version {version.number}"
    run_log().info("Nothing new to learn: %s was made from the same training images with the same settings", title)
    if other_held_out:
        run_log().info("%s", HELD_OUT_HINT)
    page = registry.run_page(version)
    links = [
        Link(f"Version {version.number} in MLflow", registry.page_of(version), None),
        Link("Report", page.absolute_url(page.file(REPORT)) if page else None, release.report),
    ]
    create_markdown_artifact(
        nothing_new_page(title, release.reasons, links, HELD_OUT_HINT if other_held_out else ""),
        key="result",
        description=f"Nothing new: {title} stands",
    )
    return release
