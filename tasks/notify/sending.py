"""Sending of one message to one recipient, and words about a failure that do not contain the address."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretBytes, SecretStr

from sdlora.core.errors import SdloraError
from sdlora.core.quoting import escaped
from sdlora.release.messages import Message
from tasks.notify.addresses import block_class
from tasks.notify.recipients import Recipient

if TYPE_CHECKING:
    from prefect.blocks.core import Block

REDACTED = "[address]"
_MIN_SECRET_CHARACTERS = 6
"""Shorter parts of an address are common words such as `api`."""
_LOGGERS = ("httpx", "httpcore", "requests", "urllib3.connectionpool", "apprise", "prefect_email")
"""Loggers of the libraries that send; at some levels they log addresses."""


class SendingError(SdloraError):
    """Message that did not arrive; the text contains no address."""


def send(recipient: Recipient, message: Message, block: Block) -> None:
    """Send a message to the address in a block.

    Redirections are not followed: a redirected message would go to a host that nobody named.

    Raises:
        SendingError: it did not arrive.
    """
    secrets = secrets_of(block)
    with without_secrets_in_logs(secrets):
        try:
            _send(recipient, message, block)
        except Exception as error:  # noqa: BLE001  # whatever a library raises, a message is not worth a failed run
            raise SendingError(_reason(error, secrets)) from None


def load_block(recipient: Recipient) -> Block:
    """Load the block with the address from the Prefect server.

    Raises:
        SendingError: the server has no such block.
        ConfigError: the package for e-mail is not installed.
    """
    try:
        return cast("Block", block_class(recipient.kind).load(recipient.block_name, _sync=True))  # type: ignore[call-arg]
    except ValueError as error:
        raise SendingError(
            f"its address is not stored on this Prefect server; run: sdlora notify add {recipient.name} --kind "
            f"{recipient.kind}"
        ) from error


def body_text(message: Message, kind: str = "webhook") -> str:
    """Format lines and links as text; marks that a program would obey are made harmless."""
    lines = [_harmless(line, kind) for line in message.lines]
    return "\n".join([*lines, *(f"{link.label}: {link.address}" for link in message.links)]) or message.subject


def secrets_of(block: Block) -> tuple[str, ...]:
    """List the secret texts of a block as `secret_parts` does."""
    return secret_parts(*(text for value in block.model_dump().values() for text in _secret_texts(value)))


def secret_parts(*texts: str) -> tuple[str, ...]:
    """List secret texts, and the parts of addresses among them, the longest first."""
    found = {*texts, *(part for text in texts if "://" in text for part in _parts(text))}
    return tuple(sorted((text for text in found if len(text) >= _MIN_SECRET_CHARACTERS), key=len, reverse=True))


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Replace secrets in a text."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return text


def _send(recipient: Recipient, message: Message, block: Any) -> None:
    subject, body = _harmless(message.subject, recipient.kind), body_text(message, recipient.kind)
    if recipient.kind == "email":
        from prefect_email import email_send_message

        # `fn`: as a task of its own, it would also need a flow run, which a crashed run has not.
        asyncio.run(
            email_send_message.fn(
                subject, "", block, msg_plain=body, email_from=recipient.sender, email_to=list(recipient.to)
            )
        )
        return
    for service in getattr(block, "_apprise_client", ()):
        service.redirects = False
    with block.raise_on_failure():
        block.notify(body, subject, _sync=True)


def _harmless(text: str, kind: str) -> str:
    """Take the power from marks that mention people or hide addresses."""
    if kind == "slack":  # even as an entity, <!channel> would call everybody
        return text.translate({ord("<"): "‹", ord(">"): "›", ord("|"): "¦"})
    if kind == "discord":
        text = text.replace("@", "@\u200b")
        return "".join(f"\\{char}" if char in "\\*_~`|<>[]()#" else char for char in text)
    if kind == "teams":
        return text.replace("](", "] (").replace("<", "‹").replace(">", "›")
    return text


def _reason(error: Exception, secrets: Iterable[str]) -> str:
    """Describe a failure; the texts of the libraries may contain the address."""
    response = getattr(error, "response", None)
    if status := getattr(response, "status_code", None):
        return f"its server answered with status {status}"
    text = str(getattr(error, "log", "")) or str(error)
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return f"{type(error).__name__}: {escaped(redacted(last, secrets))}" if last else type(error).__name__


def _secret_texts(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr | SecretBytes) or type(value).__name__ == "SecretDict":
        value = value.get_secret_value()
        if isinstance(value, Mapping):
            yield from map(str, value.values())
        else:
            yield value.decode(errors="replace") if isinstance(value, bytes) else value


def _parts(url: str) -> Iterator[str]:
    """List the parts of an address that may be secret: user, password, path, values of parameters."""
    parts = urlsplit(url)
    yield from filter(None, (parts.username, parts.password, parts.query))
    if len(parts.path) > 1:
        yield parts.path
    for text in (*parts.path.split("/"), *(value for _, value in parse_qsl(parts.query))):
        yield text
        yield unquote(text)


@contextmanager
def without_secrets_in_logs(secrets: Iterable[str]) -> Iterator[None]:
    """Keep the secrets out of the log lines of the libraries that send."""
    secrets = tuple(secrets)

    def harmless(record: logging.LogRecord) -> bool:
        record.msg, record.args, record.exc_info = redacted(record.getMessage(), secrets), (), None
        return record.levelno >= logging.WARNING

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(harmless)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(harmless)
