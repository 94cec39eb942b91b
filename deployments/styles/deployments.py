"""One deployment of `retrain` per style, kept like the styles' files while `sdlora up` runs.

The server's record of a deployment has a version: a digest of all that was registered. So a start changes nothing that
is registered already, and a schedule that a person paused on the page stays paused until the times in the file change.
The files are polled, not watched: a poll of fifty files takes a millisecond, and it works on every file system.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException

from deployments.register import Deployment
from deployments.styles.files import ANY_STYLE, Style, load_styles, style_of_file
from deployments.styles.registration import mark_broken, pause, register, registered_styles
from sdlora.core.quoting import escaped

_RETRY_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 4.0  # for a file that changes all the time
_MAX_ERROR_CHARS = 1000

Stamp = tuple[int, int, int]


@dataclass
class StyleDeployments:
    """Deployments of the styles of a state folder, and of the one that `--config` names.

    Attributes:
        template: deployment of the flow for any style.
        config_file: file of a style elsewhere; None without one.
        echo: prints a line on the terminal.
    """

    home: Path
    template: Deployment
    config_file: Path | None
    echo: Callable[[str], None]
    _styles: dict[str, Style] = field(default_factory=dict)
    _problems: list[str] = field(default_factory=list)
    _seen: dict[Path, Stamp] = field(default_factory=dict)
    _taken: dict[Path, Stamp] | None = None
    _unsteady_since: float | None = None
    _retry_at: float = 0.0
    _is_refused: bool = False

    def register_all(self) -> None:
        """Register all styles at the start; broken files are named and stop no other."""
        self._seen = self._stamps()
        self._take_up()

    def follow(self) -> None:
        """Take up files that were added, changed or removed; call it about every second.

        Files count once two polls saw the same, so that no half-written one is read.
        """
        stamps, now = self._stamps(), time.monotonic()
        is_steady, self._seen = stamps == self._seen, stamps
        if stamps == self._taken:
            self._unsteady_since = None
            return
        self._unsteady_since = self._unsteady_since or now
        is_due = is_steady or now - self._unsteady_since > _LONGEST_WAIT_SECONDS
        if is_due and now >= self._retry_at:
            self._take_up()

    def _take_up(self) -> None:
        stamps = self._seen  # from before the files are read: a change meanwhile is seen by the next poll
        try:
            styles, problems = self._load()  # OSError: a file was removed meanwhile
            self._bring_to_server(styles)
        except (httpx.HTTPError, PrefectException, OSError) as error:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            if not self._is_refused:
                self.echo(f"Styles are not registered yet: {_short(error)}. It is tried again.")
            self._is_refused = True
            return
        problems += [style.problem for style in styles.values() if style.problem]
        is_start = self._taken is None
        self._tell(styles, problems, is_start)
        self._styles, self._problems, self._taken = styles, problems, stamps
        self._is_refused, self._unsteady_since = False, None

    def _load(self) -> tuple[dict[str, Style], list[str]]:
        """Read all files; return the styles that go to the server, and why others do not.

        The style of `--config` comes first, and a second one of its name is refused.
        """
        styles: dict[str, Style] = {}
        problems: list[str] = []
        own: Style | None = None
        if self.config_file and self.config_file.exists():
            last = [style.name for style in self._styles.values() if style.file == self.config_file]
            own = style_of_file(self.config_file, last[0] if last else self.config_file.stem)
            if self._has_own_name(own, problems):
                styles[own.name] = own
        for style in load_styles(self.home):
            if own and style.file.exists() and style.file.samefile(own.file):
                continue
            if own and style.name == own.name:
                problems.append(
                    f"{style.file} and {own.file} are two styles of the name {own.name}. The second is registered, "
                    "the first is not. Give one of the two another name."
                )
            elif self._has_own_name(style, problems):
                styles[style.name] = style
        return styles, problems

    def _has_own_name(self, style: Style, problems: list[str]) -> bool:
        if style.name != ANY_STYLE:
            return True
        problems.append(
            f"{style.file}: name: {style.name} is the name of the deployment for any style. Choose another one."
        )
        return False

    def _bring_to_server(self, styles: dict[str, Style]) -> None:
        """Register what is new or changed and pause what has no file; a style that the server refuses has a problem."""
        with get_client(sync_client=True) as client:
            registered = registered_styles(self.template, client)
            for style in list(styles.values()):
                try:
                    if style.config:
                        register(style, style.config, registered.get(style.name), self.template, client)
                    elif style.name in registered:
                        mark_broken(style, registered[style.name], client)
                except httpx.HTTPStatusError as error:
                    if error.response.status_code >= 500:
                        raise
                    problem = f"{style.file}: the Prefect server refused its deployment: {_short(error)}"
                    styles[style.name] = Style(style.name, style.file, problem=problem)
            for name, deployment in registered.items():
                if name not in styles:
                    pause(deployment, client)

    def _tell(self, styles: dict[str, Style], problems: list[str], is_start: bool) -> None:
        whole = {name for name, style in styles.items() if style.config}
        if is_start:
            self.echo(f"  styles: {', '.join(sorted(whole)) or 'none yet, make one with: sdlora new'}")
        else:
            for name in sorted(whole):
                before = self._styles.get(name)
                if before is None or before.config != styles[name].config:
                    self.echo(f"Style {name} is {'changed' if before and before.config else 'taken up'}.")
            for name in sorted(self._styles.keys() - styles.keys()):
                self.echo(f"Style {name} has no file any more: its deployment is paused.")
        for problem in problems:
            if problem not in self._problems:
                self.echo(f"{'  ' if is_start else ''}Not taken up: {problem}")

    def _stamps(self) -> dict[Path, Stamp]:
        files = list((self.home / "styles").glob("*.yaml"))
        if self.config_file:
            files.append(self.config_file)
        stamps = {}
        for file in files:
            try:
                status = file.stat()
            except OSError:  # removed meanwhile
                continue
            stamps[file] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return stamps


def _short(error: Exception) -> str:
    return escaped(" ".join(str(error).split()) or type(error).__name__, _MAX_ERROR_CHARS)
