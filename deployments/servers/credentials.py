"""Credentials of a state folder's servers: one owner and a password, kept in a file of the folder.

The file is created at first use, readable only by the folder's owner. Processes get the password through their
environment: a command line could be read by every user of the machine.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sdlora.core.errors import ConfigError
from sdlora.core.files import make_private_folder
from tasks.private import OTHERS

FILE = "credentials.json"
OWNER = "sdlora"


@dataclass(frozen=True)
class Credentials:
    """User, password and secret key of the servers of one state folder."""

    user: str
    password: str
    mlflow_secret_key: str  # signs MLflow's form tokens; MLflow does not start without one
    receiver_token: str = ""  # announces sources to the watcher, and opens nothing else

    @property
    def login(self) -> str:
        """Text that Prefect's login page takes and that its clients send."""
        return f"{self.user}:{self.password}"

    def instructions(self) -> str:
        """Return two indented lines that say what to type into which page."""
        return f"    Prefect: {self.login}\n    MLflow:  user {self.user}, password {self.password}"

    def __repr__(self) -> str:  # keeps the password out of tracebacks and logs
        return f"Credentials(user={self.user!r})"

    def for_prefect_server(self, origin: str) -> dict[str, str]:
        """Return variables for a Prefect server that answers only its own pages and clients with the password."""
        return {
            "PREFECT_SERVER_API_AUTH_STRING": self.login,
            # Each variable has a second name without API and SERVER. Prefect prefers the names used here, so that a
            # user's environment cannot override them by the second name.
            "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": origin,
            "PREFECT_SERVER_UI_API_URL": f"{origin}/api",  # where the page sends the password
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
        }

    def for_prefect_clients(self) -> dict[str, str]:
        return {"PREFECT_API_AUTH_STRING": self.login}

    def for_mlflow_clients(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_USERNAME": self.user, "MLFLOW_TRACKING_PASSWORD": self.password}


def credentials_of(home: Path) -> Credentials:
    """Read the credentials of `home`, or create them.

    Raises:
        ConfigError: other users can read the file, the file belongs to another user or is damaged, or the file system
            cannot keep a file private.
    """
    path = home.resolve() / FILE
    try:
        credentials = _read(path)
    except FileNotFoundError:
        _create(path)
        credentials = _read(path)
    if not credentials.receiver_token:  # the file is from before the receiver
        complete = replace(credentials, receiver_token=secrets.token_urlsafe(32))
        descriptor, name = tempfile.mkstemp(prefix=f".{FILE}-", dir=path.parent)  # readable by the owner alone
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(complete), file)
        Path(name).rename(path)
        credentials = _read(path)
    return credentials


def _create(path: Path) -> None:
    make_private_folder(path.parent)
    credentials = Credentials(OWNER, *(secrets.token_urlsafe(size) for size in (24, 32, 32)))
    descriptor, name = tempfile.mkstemp(prefix=f".{FILE}-", dir=path.parent)  # readable by the owner from the start
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            if os.fstat(descriptor).st_mode & OTHERS:  # as on /mnt/c of WSL, or on exFAT
                raise _unsuitable(path, "keeps no permissions")
            json.dump(asdict(credentials), file)
        # A hard link appears whole and replaces nothing, so only one of two processes creates the file.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise _unsuitable(path, "keeps no hard links") from error
        raise
    finally:
        draft.unlink()


def _unsuitable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"The file system of {path.parent} {reason}, so it cannot keep a password private. Choose a --home on a file "
        "system with permissions, such as one below your home folder."
    )


def _read(path: Path) -> Credentials:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except PermissionError:
        _require_private(path, _status(path))
        raise
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ConfigError(
            f"{path} is a symbolic link, but the password has to be in the state folder itself. Remove the link; the "
            "next start creates the file."
        ) from error
    with os.fdopen(descriptor) as file:
        _require_private(path, os.fstat(descriptor))
        try:
            return Credentials(**json.load(file))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} is damaged: {error}. Delete it; the next start creates a new one.") from error


def _status(path: Path) -> os.stat_result | None:
    """Return the status of a file that cannot be opened, or None if its folder is closed, too."""
    try:
        return path.lstat()
    except PermissionError:
        return None


def _require_private(path: Path, status: os.stat_result | None) -> None:
    if status is None or status.st_uid != os.getuid():
        raise ConfigError(f"{path} belongs to another user. Work with a state folder of your own: --home FOLDER")
    mode = stat.S_IMODE(status.st_mode)
    if mode & OTHERS:
        raise ConfigError(
            f"{path} holds the password of the servers. Its mode is {mode:04o}, so other users can read it; it has to "
            "be 0600. If others use this machine, delete the file: the next start creates a new one. Otherwise: "
            f"chmod 600 {path}"
        )
