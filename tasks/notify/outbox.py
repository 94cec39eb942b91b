"""Messages that still have to be sent: one file for each message and recipient, deleted after the message has arrived.

A message is in the outbox before it is sent. One that a killed run or a closed network left there is sent by the next
run of the state folder, or by `sdlora up` within minutes.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import SdloraError
from sdlora.core.files import json_digest, replace_file
from sdlora.release.messages import Message
from tasks.notify.recipients import FOLDER, Recipient, load_recipients
from tasks.notify.sending import load_block, send
from tasks.private import private_folder
from tasks.run_log import run_log

OUTBOX = "outbox"
"""Folder below `messages` of the messages that still have to be sent."""
RETRY_SECONDS = (1.0, 4.0)
"""Waits between the attempts of one run; each attempt takes up to 10 s."""
TOTAL_SECONDS = 45.0
"""The longest time that a run waits for all its messages."""
_LATER = timedelta(minutes=1)
_LATEST = timedelta(hours=1)
_KEPT = timedelta(days=3)


class PendingMessage(FrozenConfig):
    """Message for one recipient.

    Attributes:
        attempts: number of runs that tried to send it.
        due_at: time of the next attempt.
    """

    recipient: str
    message: Message
    attempts: int = 0
    due_at: datetime

    @property
    def is_due(self) -> bool:
        return self.due_at <= datetime.now(UTC)


def put(home: Path, recipients: Sequence[Recipient], message: Message) -> None:
    """Put a message into the outbox for each recipient; the same message again changes nothing."""
    if not recipients:
        return
    folder = private_folder(home / FOLDER) / OUTBOX
    for recipient in recipients:
        path = folder / f"{json_digest([message.key, recipient.name])[:32]}.json"
        if not path.exists():
            _write(path, PendingMessage(recipient=recipient.name, message=message, due_at=datetime.now(UTC)))


def deliver(home: Path, retry_seconds: Sequence[float] = RETRY_SECONDS) -> int:
    """Send the messages that are due, to all recipients at the same time; return the number of those that arrived.

    A message that does not arrive stays for later attempts, at growing intervals, for three days. A server that
    accepts a connection and does not answer delays a run by at most `TOTAL_SECONDS`.
    """
    due = _due_by_recipient(home / FOLDER / OUTBOX)
    if not due:
        return 0
    recipients = {recipient.name: recipient for recipient in load_recipients(home)}
    arrived: list[Path] = []
    threads = []
    for name, paths in due.items():
        arguments = (_deliver_all, recipients.get(name), paths, retry_seconds, arrived)
        # In a copy of the context, which holds the log of the run and the address of its Prefect server. A daemon
        # thread that hangs in a library without a time limit does not keep the process from ending.
        threads.append(threading.Thread(target=copy_context().run, args=arguments, daemon=True))
    deadline = time.monotonic() + TOTAL_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        run_log().warning("Some messages are still being sent after %.0f s; the run goes on", TOTAL_SECONDS)
    return len(arrived)


def deliver_in_background(home: Path) -> None:
    """Send the messages that are due without waiting; those that the end of the process interrupts stay."""
    threading.Thread(target=copy_context().run, args=(deliver, home), daemon=True).start()


def _due_by_recipient(folder: Path) -> dict[str, list[Path]]:
    """List the files of messages that are due, the oldest message first."""
    found = [(pending, path) for path in folder.glob("*.json") if (pending := _read(path)) and pending.is_due]
    files: dict[str, list[Path]] = {}
    for pending, path in sorted(found, key=lambda item: item[0].message.made_at):
        files.setdefault(pending.recipient, []).append(path)
    return files


def _deliver_all(
    recipient: Recipient | None, paths: Sequence[Path], retry_seconds: Sequence[float], arrived: list[Path]
) -> None:
    """Send the messages of one recipient; after the first that does not arrive, the others are only postponed."""
    problem, waits = None, (0.0, *retry_seconds)
    for path in paths:
        with _claimed(path) as pending:
            if pending is None:
                continue
            if recipient is not None:  # else it was removed meanwhile
                problem = problem or _send(recipient, pending.message, waits)
            if problem is None:
                path.unlink(missing_ok=True)
                arrived.append(path)
            else:
                _postpone(path, pending, problem)


def _postpone(path: Path, pending: PendingMessage, problem: str) -> None:
    log = run_log()
    if datetime.now(UTC) - pending.message.made_at > _KEPT:
        log.warning("Message to %s given up after three days: %s", pending.recipient, problem)
        path.unlink(missing_ok=True)
        return
    log.warning("Message to %s not sent yet: %s. It is tried again later.", pending.recipient, problem)
    wait = min(_LATER * 2 ** min(pending.attempts, 10), _LATEST)
    update = {"attempts": pending.attempts + 1, "due_at": datetime.now(UTC) + wait}
    _write(path, pending.model_copy(update=update))


def _send(recipient: Recipient, message: Message, waits: Sequence[float]) -> str | None:
    """Try to send a message a few times; return the reason of the last failure, or None."""
    where, problem = f"{recipient.kind} at {recipient.host}", ""
    try:
        block = load_block(recipient)
    except SdloraError as error:
        return f"{where}: {error}"
    except Exception as error:  # noqa: BLE001  # of Prefect's client, which may not find its server
        return f"{where}: Prefect did not give the address ({type(error).__name__})"
    for wait in waits:
        time.sleep(wait)
        try:
            send(recipient, message, block)
        except SdloraError as error:
            problem = f"{where}: {error}"
        else:
            return None
    return problem


@contextmanager
def _claimed(path: Path) -> Iterator[PendingMessage | None]:
    """Lock a message for one process; yield None if another process is sending it or has sent it."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pending = _read(path)  # only now: another process may have sent or postponed it
            yield pending if pending and pending.is_due else None
    except (BlockingIOError, FileNotFoundError):
        yield None


def _read(path: Path) -> PendingMessage | None:
    try:
        return PendingMessage.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError):  # of another version of sdlora
        path.unlink(missing_ok=True)
        return None


def _write(path: Path, pending: PendingMessage) -> None:
    replace_file(path, pending.model_dump_json().encode())
