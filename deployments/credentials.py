"""Who may use the servers of a state folder: one owner, known by a password that its folder keeps.

Made at first need and readable by the owner of the folder alone. Processes get it through their environment, never on
a command line, where every user of the machine could read it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from sdlora.errors import ConfigError

FILE = "credentials.json"
OWNER = "sdlora"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Credentials:
    """What the servers of one state folder ask for."""

    user: str
    password: str
    mlflow_secret_key: str  # signs MLflow's form tokens; MLflow does not start without a fixed one

    @property
    def login(self) -> str:
        """The text that Prefect's login page takes, and its clients send."""
        return f"{self.user}:{self.password}"

    def told(self) -> str:
        """What to type where, for a person."""
        return f"    Prefect: {self.login}\n    MLflow:  user {self.user}, password {self.password}"

    def __repr__(self) -> str:  # a traceback or a log must not show it
        return f"Credentials(user={self.user!r})"

    def for_prefect_server(self, origin: str) -> dict[str, str]:
        """Variables of a Prefect server that answers its own pages, and who knows the password."""
        return {"PREFECT_SERVER_API_AUTH_STRING": self.login, "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin}

    def for_prefect_clients(self) -> dict[str, str]:
        return {"PREFECT_API_AUTH_STRING": self.login}

    def for_mlflow_clients(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_USERNAME": self.user, "MLFLOW_TRACKING_PASSWORD": self.password}


def credentials_of(home: Path) -> Credentials:
    """Read the credentials of `home`, or make them.

    Raises:
        ConfigError: others can read the file, it is not ours, or it is damaged.
    """
    path = home.resolve() / FILE
    if not path.exists():
        _create(path)
    return _read(path)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Credentials(OWNER, secrets.token_urlsafe(24), secrets.token_urlsafe(32))
    descriptor, name = tempfile.mkstemp(prefix=f".{FILE}-", dir=path.parent)  # readable by the owner from the start
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(made), file)
        # A link appears with its whole content and replaces nothing: of two processes, one makes the file.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()


def _read(path: Path) -> Credentials:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
        found = os.fstat(file.fileno())
        if found.st_uid != os.getuid():
            raise ConfigError(f"{path} belongs to another user. Work with a state folder of your own: --home FOLDER")
        if found.st_mode & _OTHERS:
            mode = stat.S_IMODE(found.st_mode)
            raise ConfigError(
                f"{path} holds the password of the servers and has mode {mode:04o}, so that others can read it; it has "
                "to be 0600. If others use this machine, delete it: a new one is made. Otherwise: chmod 600 "
                + str(path)
            )
        try:
            return Credentials(**json.load(file))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} is damaged: {error}. Delete it; a new one is made.") from error
