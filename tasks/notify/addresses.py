"""Addresses of recipients: as they are typed, and the blocks of Prefect that keep them encrypted.

An address of a webhook lets everybody who has it write messages, so the whole address is a secret.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from sdlora.core.config_base import MAX_TEXT_CHARS
from sdlora.core.errors import ConfigError
from tasks.notify.recipients import RecipientKind

if TYPE_CHECKING:
    from prefect.blocks.core import Block

ADDRESS = "address"
"""Name of the address among the secrets of a block for a webhook."""
PAYLOAD = {"title": "{{ subject }}", "message": "{{ body }}", "text": "{{ body }}"}
"""JSON of a webhook; Gotify reads the first two, Mattermost, Rocket.Chat and others the last."""
SEND_SECONDS = 10.0

_PATTERNS: dict[RecipientKind, re.Pattern[str]] = {
    "slack": re.compile(r"https://hooks\.slack(?:-gov)?\.com/services/\w+/\w+/\w+/?"),
    "discord": re.compile(r"https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/(?P<id>\d+)/(?P<token>[\w-]+)/?"),
}
_EXPECTED: dict[RecipientKind, str] = {
    "slack": "https://hooks.slack.com/services/...",
    "teams": "the https address of a workflow that starts when a Teams webhook request is received",
    "discord": "https://discord.com/api/webhooks/...",
    "webhook": "https://..., or http:// to a host of your own network",
    "email": "smtps://USER:PASSWORD@HOST?to=PERSON@EXAMPLE.COM",
}
_SMTP = {"smtps": "SSL", "smtp": "STARTTLS", "smtp+plain": "INSECURE"}
"""How mail is encrypted, by the scheme of the address."""
_EMAIL_EXTRA = "E-mail needs a package that is not installed. Run: pip install 'sdlora[email]'"


@dataclass(frozen=True)
class Address:
    """Address of a recipient: the block that keeps it, and what may be shown of it."""

    host: str
    block: Block
    to: tuple[str, ...] = ()
    sender: str | None = None

    def __repr__(self) -> str:  # keeps the address out of tracebacks and logs
        return f"Address(host={self.host!r})"


def require_address(kind: RecipientKind, text: str) -> SplitResult:
    """Check that a text is an address of this kind, without Prefect, and return its parts.

    Raises:
        ConfigError: it is none. The message does not contain it.
    """
    parts = split_url(text, _EXPECTED[kind])
    if kind == "email":
        _people_of(parts)
        return parts
    require_safe_scheme(parts, _EXPECTED[kind])
    pattern = _PATTERNS.get(kind)
    if pattern and not pattern.fullmatch(text):
        raise _unsuitable(kind)
    return parts


def parse_address(kind: RecipientKind, text: str) -> Address:
    """Read an address as it was typed.

    Raises:
        ConfigError: it is no address of this kind, or the package for e-mail is not installed. The message does not
            contain the address.
    """
    parts = require_address(kind, text)
    host = parts.hostname or ""
    if kind == "email":
        to, sender = _people_of(parts)
        return Address(host, block_class(kind)(**_mail_options(parts)), to, sender)
    try:
        return Address(host, block_class(kind)(**_webhook_options(kind, text)))
    except ValueError as error:  # the messages of pydantic and apprise contain the address
        raise _unsuitable(kind) from _named_only(error)


def block_class(kind: RecipientKind) -> type[Block]:
    """Return the class of Prefect's block for a kind of recipients.

    Raises:
        ConfigError: the package for e-mail is not installed.
    """
    from prefect.blocks import notifications

    if kind == "email":
        try:
            from prefect_email import EmailServerCredentials
        except ImportError as error:
            raise ConfigError(_EMAIL_EXTRA) from error
        return EmailServerCredentials
    classes: dict[RecipientKind, type[Block]] = {
        "slack": notifications.SlackWebhook,
        "teams": notifications.MicrosoftTeamsWebhook,
        "discord": notifications.DiscordWebhook,
        "webhook": notifications.CustomWebhookNotificationBlock,
    }
    return classes[kind]


def split_url(text: str, expected: str) -> SplitResult:
    """Split an address.

    Raises:
        ConfigError: it is no address, or too long. The message does not contain it.
    """
    problem = f"This is no address that messages can be sent to. Expected: {expected}"
    if not text or len(text) > MAX_TEXT_CHARS or not text.isprintable() or " " in text:
        raise ConfigError(problem)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(problem) from _named_only(error)
    if not parts.scheme or not parts.hostname:
        raise ConfigError(problem)
    return parts


def require_safe_scheme(parts: SplitResult, expected: str) -> None:
    """Check that an address is read by nobody on its way: https, or http inside one's own network.

    Raises:
        ConfigError: it is neither.
    """
    if parts.scheme == "https" or (parts.scheme == "http" and is_private_host(parts.hostname or "")):
        return
    raise ConfigError(
        f"An address with {parts.scheme}:// to another network would be read on its way, and it is a secret. "
        f"Expected: {expected}"
    )


def is_private_host(host: str) -> bool:
    """Return True if every address of the host is of this machine or a private network."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(str(ip).split("%", 1)[0]).is_private for ip in found)


def _webhook_options(kind: RecipientKind, text: str) -> dict[str, Any]:
    if kind == "webhook":
        # The field `url` of this block is no secret, so it only names one.
        return {
            "name": "sdlora",
            "url": f"{{{{ {ADDRESS} }}}}",
            "secrets": {ADDRESS: text},
            "json_data": PAYLOAD,
            "timeout": SEND_SECONDS,
        }
    if kind == "discord":
        match = _PATTERNS[kind].fullmatch(text)
        assert match is not None
        return {"webhook_id": match["id"], "webhook_token": match["token"]}
    return {"url": text}


def _people_of(parts: SplitResult) -> tuple[tuple[str, ...], str]:
    """Return the mail addresses to which, and from which, messages are sent.

    Raises:
        ConfigError: one is missing, or the mail would be read on its way.
    """
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    to = tuple(person.strip() for person in query.get("to", "").split(",") if person.strip())
    sender = query.get("from", unquote(parts.username or ""))
    if parts.scheme not in _SMTP or not to or any("@" not in person for person in (*to, sender)):
        raise ConfigError(
            f"E-mail: expected {_EXPECTED['email']} (smtps: TLS, smtp: STARTTLS, smtp+plain: no encryption, on your "
            "own network only), with &from=... if the user is no mail address."
        )
    if parts.scheme == "smtp+plain" and not is_private_host(parts.hostname or ""):
        raise ConfigError(f"E-mail: smtp+plain to another network would be read on its way. {_EXPECTED['email']}")
    return to, sender


def _mail_options(parts: SplitResult) -> dict[str, Any]:
    return {
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password or ""),
        "smtp_server": parts.hostname,
        "smtp_type": _SMTP[parts.scheme],
        "smtp_port": parts.port,
    }


def _unsuitable(kind: RecipientKind) -> ConfigError:
    return ConfigError(f"This is no address of kind {kind}. Expected: {_EXPECTED[kind]}")


def _named_only(error: Exception) -> Exception | None:
    """Return the cause of an error for its traceback: only the class, because a message may contain the address."""
    return type("Cause", (Exception,), {})(type(error).__name__)
