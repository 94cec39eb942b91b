"""Several styles, one after the other: `sdlora run --all` and `sdlora run --affected-by`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from deployments.cli.call_flow import call_flow
from deployments.cli.failures import error_message
from deployments.cli.image_ids import image_ids
from deployments.cli.json_output import print_json
from deployments.cli.run_output import release_object
from deployments.cli.stages import clock
from deployments.cli.stores import existing_store
from deployments.cli.terminal import console, error_console, plain
from deployments.styles.files import FOLDER, Style, load_style, load_styles
from deployments.styles.watermark import remember, unchanged_release, watermark
from sdlora.core.errors import ConfigError

if TYPE_CHECKING:
    from sdlora.config import PipelineConfig
    from tasks.results import Release


@dataclass(frozen=True)
class Outcome:
    """Outcome of one style: its release, or the problem that stopped it."""

    style: str
    seconds: float
    release: Release | None = None
    problem: str | None = None


def run_all(home: Path, force: bool, as_json: bool) -> None:
    """Run every style of the state folder in the order of names, see `run_styles`.

    Raises:
        ConfigError: the state folder has no style.
    """
    styles = load_styles(home)
    if not styles:
        raise ConfigError(f"No styles yet in {home / FOLDER}. Make one: sdlora new NAME --images FOLDER")
    run_styles(styles, home, force, as_json)


def run_affected(images: Sequence[str], home: Path, force: bool, as_json: bool) -> None:
    """Run every style with a version that learnt from one of the images, in the order of names, see `run_styles`.

    Args:
        images: first digits of images, or paths of their files.

    Raises:
        DataError: no such image, or nothing was collected yet.
    """
    with existing_store(home) as store:
        lineages = [store.lineage(image) for image in image_ids(store, images)]
    names = sorted({name for lineage in lineages for name in lineage.trained_styles})
    if not names and not as_json:
        console.print("No version learnt from " + ", ".join(lineage.sha256[:10] for lineage in lineages) + ".")
        return
    run_styles([load_style(home, name) for name in names], home, force, as_json)


def run_styles(styles: Sequence[Style], home: Path, force: bool, as_json: bool) -> None:
    """Run the styles in turn, and print one table. A style that fails stops no other.

    Without news in any style no server starts, and neither Prefect nor PyTorch is imported. The exit status is 1 if a
    style failed.
    """
    with ExitStack() as stack:
        runner = _Runner(home, force, stack)
        outcomes = [runner.outcome(style) for style in styles]
    if as_json:
        print_json({"styles": [_object(outcome) for outcome in outcomes]})
    else:
        console.print(_table(outcomes))
        for outcome in outcomes:
            if outcome.problem:
                console.print(plain(f"{outcome.style}: {outcome.problem}"), style="red", soft_wrap=True)
    if any(outcome.problem for outcome in outcomes):
        raise typer.Exit(1)


class _Runner:
    """Styles' runs on one Prefect server, which starts with the first style that has news."""

    def __init__(self, home: Path, force: bool, stack: ExitStack) -> None:
        self._home, self._force, self._stack = home, force, stack
        self._is_started = False

    def outcome(self, style: Style) -> Outcome:
        started_at = time.monotonic()
        release, problem = None, style.problem
        if style.config and not problem:
            try:
                release = self._release(style.config)
            except Exception as error:  # noqa: BLE001  # nineteen other styles are fine
                problem = error_message(error)
        return Outcome(style.name, time.monotonic() - started_at, release, problem)

    def _release(self, config: PipelineConfig) -> Release:
        release = None if self._force else unchanged_release(config, self._home)
        if release is None:
            before = watermark(config, self._home)
            self._start()
            from flows.retrain import retrain

            error_console.print(plain(f"{config.name}:"))
            release = call_flow(retrain, config, self._home, self._force)
            remember(config, self._home, release, before)
        return release

    def _start(self) -> None:
        if self._is_started:
            return
        from deployments.local_run import prefect_server

        server = self._stack.enter_context(prefect_server(self._home, "run"))
        self._is_started = True
        with error_console.status("Starting ..."):
            import flows.retrain  # noqa: F401  # takes seconds, while the server starts

            server.wait_ready()


def _object(outcome: Outcome) -> dict[str, object]:
    release = outcome.release and release_object(outcome.release, outcome.seconds)
    return {"style": outcome.style, "problem": outcome.problem, "release": release}


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("style", "version", "outcome", "time"):
        table.add_column(heading, no_wrap=heading != "outcome")
    for outcome in outcomes:
        release = outcome.release
        version = str(release.version) if release else ""
        table.add_row(*map(plain, (outcome.style, version, _text(release), clock(outcome.seconds))))
    return table


def _text(release: Release | None) -> str:
    if release is None:
        return "failed"
    if release.waits:
        return f"waits for a person: sdlora promote {release.name} --version {release.version}"
    if not release.new:
        return "nothing new"
    return "the champion" if release.promoted else "not promoted"
