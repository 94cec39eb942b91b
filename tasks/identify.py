"""Identity of a run of the loop, and the release of an earlier equal run."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from sdlora.config import ResolvedConfig
from sdlora.core.refs import BaseModelRef, SnapshotRef
from sdlora.store.champions import champion_history
from sdlora.store.image_store import ImageStore
from sdlora.training.identity import run_digest
from tasks.decisions.champion_reconciliation import reconcile_history
from tasks.decisions.standing import with_standing
from tasks.pages.markdown import markdown_text
from tasks.pages.run_page import Link, nothing_new_page
from tasks.pages.version_page import REPORT
from tasks.progress import task_progress
from tasks.results import ADOPTED_HINT, HELD_OUT_HINT, Release, RunRef
from tasks.retries import RETRIED
from tasks.run_log import run_log
from tasks.tracking import AdapterVersion, NoWholeCopyError, Registry, RemovedFilesError


@task(name="identify run", persist_result=False, **RETRIED)
def identify_run(base: BaseModelRef, snapshot: SnapshotRef, config: ResolvedConfig, home: Path) -> RunRef:
    """Name the run by the digest of what its adapter learns from, so that equal inputs find earlier results."""
    digest = run_digest(base.digest, snapshot.training_digest, config.lora, config.training, base.quantize)
    run_log().info("Run %s", digest)
    return RunRef(digest=digest, folder=home / "runs" / config.name / digest[:16])


@task(name="find release", persist_result=False, **RETRIED)
def find_release(run: RunRef, snapshot: SnapshotRef, name: str, home: Path) -> Release | None:
    """Find the version of an earlier equal run; None unless its publishing was completed and an adapter is whole.

    The held-out images may be other ones than at its publication. They do not train anything, and no duel is repeated
    for them by itself: an adapter as good as the champion passes about half of its duels, so a duel for each new image
    would let it pass in the end. `force` asks for such a duel.
    """
    registry = Registry(home)
    version = _published_version(registry, run, name, home)
    if version is None:
        return None
    other_held_out = version.snapshot_digest != snapshot.digest
    finding = f"{name} version {version.number} was made from the same training images with the same settings"
    run_log().info("Nothing new to learn: %s", finding)
    if other_held_out:
        run_log().info("%s", HELD_OUT_HINT)
    release = _show_release(registry, version, run, finding, HELD_OUT_HINT if other_held_out else "", home)
    return release.model_copy(update={"other_held_out": other_held_out, "inputs": snapshot.inputs})


@task(name="find adopted version", persist_result=False)
def find_adopted(run: RunRef, name: str, home: Path) -> Release | None:
    """Find the version that was adopted from the same file; None unless its publishing ended and an adapter is whole.

    A file that was refused is not judged again by itself, like an adapter that was trained here; `force` asks for it.
    """
    registry = Registry(home)
    version = _published_version(registry, run, name, home)
    if version is None:
        return None
    finding = f"{name} version {version.number} was adopted from the same file"
    run_log().info("Nothing new: %s. %s", finding, ADOPTED_HINT)
    return _show_release(registry, version, run, finding, ADOPTED_HINT, home)


def _published_version(registry: Registry, run: RunRef, name: str, home: Path) -> AdapterVersion | None:
    """Return the version of an earlier equal run, if its publishing was completed and an adapter is whole."""
    report = task_progress()
    report("look into the registry", 0, 1)  # the first query creates its tables, which takes seconds
    version = registry.find_by_run(name, run.digest)
    report("look into the registry", 1, 1)
    if version is None or not version.published:
        return None
    try:
        registry.fetch(version, home, by_digest=True)
    except RemovedFilesError as error:  # made and judged once, which is enough
        run_log().info("%s", error)
    except NoWholeCopyError as error:  # the run goes on and makes it again, as the message advises
        run_log().warning("%s", error)
        return None
    return version


def _show_release(
    registry: Registry, version: AdapterVersion, run: RunRef, finding: str, hint: str, home: Path
) -> Release:
    """Return the release of a published version, and write the page of the run."""
    release = version.as_release(run, new=False)
    with ImageStore.open(home) as store:
        with store.read() as session:
            history = champion_history(session, version.name)
        if history.waiting is not None:  # a champion that was moved by hand voids the decision
            history = reconcile_history(registry, store, version.name)
    release = with_standing(release, history)
    if not version.files_removed:
        registry.restore_release(version, release.run.release)
    title = f"{version.name} version {version.number}"
    standing = [f"Version {version.number}: {release.standing}"] if release.standing else []
    news = [*standing, *release.next_steps]
    for line in news:
        run_log().info("%s", line)
    page = registry.run_page(version)
    links = [
        Link(f"Version {version.number} in MLflow", registry.page_of(version), None),
        Link("Report", page.absolute_url(page.file(REPORT)) if page else None, release.report),
    ]
    create_markdown_artifact(
        nothing_new_page(finding, release.reasons, links, [*map(markdown_text, news), *([hint] if hint else [])]),
        key="result",
        description=f"Nothing new: {title} stands",
    )
    return release
