"""Recipients of messages: who hears of what. Their addresses are secrets, which blocks of Prefect keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationError

from sdlora.core.config_base import FrozenConfig, first_problem
from sdlora.core.errors import ConfigError
from sdlora.core.files import replace_file
from sdlora.release.messages import Message, MessageKind
from tasks.private import private_folder

FOLDER = "messages"
"""Private folder of everything about messages, below the state folder."""
FILE = "recipients.json"
RecipientKind = Literal["slack", "teams", "discord", "webhook", "email"]
RECIPIENT_KINDS: tuple[RecipientKind, ...] = get_args(RecipientKind)
NAME_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
"""Pattern of names, which are parts of names of blocks in Prefect."""


class Recipient(FrozenConfig):
    """Person or channel that gets messages.

    Attributes:
        host: host of the address, for people; the address itself is a secret.
        on: kinds of messages; empty: all.
        styles: styles whose messages are sent; empty: all.
        to: mail addresses; for e-mail only.
        sender: mail address of the sender; for e-mail only.
    """

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=40)]
    kind: RecipientKind
    host: str
    on: tuple[MessageKind, ...] = ()
    styles: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    sender: str | None = None

    @property
    def block_name(self) -> str:
        """Name of the block in Prefect that keeps the address."""
        return f"sdlora-{self.name}"

    def wants(self, message: Message) -> bool:
        if message.kind == "test":
            return True
        return (not self.on or message.kind in self.on) and (not self.styles or message.style in self.styles)


class _File(FrozenConfig):
    recipients: tuple[Recipient, ...] = ()
    heartbeat_host: str | None = None


def load_recipients(home: Path) -> tuple[Recipient, ...]:
    """Read the recipients of the state folder; none if there is no file.

    Raises:
        ConfigError: the file is damaged.
    """
    return _load(home).recipients


def find_recipient(home: Path, name: str) -> Recipient:
    """Return the recipient of this name.

    Raises:
        ConfigError: there is none.
    """
    recipients = load_recipients(home)
    for recipient in recipients:
        if recipient.name == name:
            return recipient
    known = ", ".join(recipient.name for recipient in recipients) or "none"
    raise ConfigError(f"No recipient {name!r}; known: {known}. Add one: sdlora notify add {name} --kind webhook")


def save_recipient(home: Path, recipient: Recipient) -> None:
    """Add the recipient, or replace the one of its name."""
    file = _load(home)
    others = tuple(other for other in file.recipients if other.name != recipient.name)
    _save(home, file.model_copy(update={"recipients": (*others, recipient)}))


def forget_recipient(home: Path, name: str) -> None:
    file = _load(home)
    others = tuple(other for other in file.recipients if other.name != name)
    _save(home, file.model_copy(update={"recipients": others}))


def heartbeat_host(home: Path) -> str | None:
    """Return the host of the heartbeat's address; None without a heartbeat."""
    return _load(home).heartbeat_host


def save_heartbeat_host(home: Path, host: str | None) -> None:
    _save(home, _load(home).model_copy(update={"heartbeat_host": host}))


def _load(home: Path) -> _File:
    path = home / FOLDER / FILE
    try:
        return _File.model_validate_json(path.read_text())
    except FileNotFoundError:
        return _File()
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"{path} is damaged: {reason}. Delete it and add the recipients again.") from error


def _save(home: Path, file: _File) -> None:
    replace_file(
        private_folder(home / FOLDER) / FILE, f"{json.dumps(file.model_dump(mode='json'), indent=1)}\n".encode()
    )
