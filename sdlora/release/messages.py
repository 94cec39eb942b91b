"""Messages to people: their kinds, and their words as plain text.

A message holds no secret and no picture, because it leaves the machine. Foreign text in it is escaped and shortened.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

from pydantic import Field

from sdlora.core.config_base import FrozenConfig
from sdlora.core.printable import escape_controls
from sdlora.records.champions import GATE, HistoryEntry

MessageKind = Literal["waiting", "promotion", "refusal", "failure", "silence", "given-up"]
KINDS: tuple[MessageKind, ...] = get_args(MessageKind)
MEANINGS: dict[MessageKind, str] = {
    "waiting": "a candidate waits for the decision of a person",
    "promotion": "a style has another champion, or its champion was confirmed",
    "refusal": "a candidate did not pass, or a champion did not pass again",
    "failure": "a run failed, or its process was killed",
    "silence": "a source that gave images before gives none, several times in a row",
    "given-up": "a training is not tried again until something changes",
}
MAX_LINE_CHARACTERS = 600
MAX_LINES = 12


class MessageLink(FrozenConfig):
    """Address of a page, or the path of a file."""

    label: str
    address: str


class Message(FrozenConfig):
    """Message about a style.

    Attributes:
        key: identity of the cause; a message is sent once for each cause.
        kind: what it tells; "test" reaches everybody who is tested.
        style: the style, or the dataset if no style is known; may be empty.
        subject: the message in one line.
        lines: details, one sentence or finding a line.
        facts: values for programs.
    """

    key: str
    kind: MessageKind | Literal["test"]
    style: str
    subject: str
    lines: tuple[str, ...] = ()
    links: tuple[MessageLink, ...] = ()
    facts: dict[str, str | int | None] = Field(default_factory=dict)
    made_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


def decision_message(style: str, entry: HistoryEntry, links: Sequence[MessageLink] = ()) -> Message:
    """Tell an entry of the history of a style: a decision of the gate, or a change by a person."""
    number, kind = entry.version.number, _kind_of_entry(entry)
    facts: dict[str, str | int | None] = {
        "version": number,
        "outcome": entry.kind,
        "from_version": entry.from_version,
        "to_version": entry.to_version,
        "who": entry.who,
    }
    return Message(
        key=f"decision-{style}-{entry.number}",
        kind=kind,
        style=style,
        subject=f"{style}: {_outcome(entry)}",
        lines=(*_lines(entry.why.splitlines(), MAX_LINES - 1), *_commands(style, entry)),
        links=tuple(links),
        facts=facts,
    )


def failure_message(
    style: str, run: str, attempt: str, reason: str, killed: bool = False, links: Sequence[MessageLink] = ()
) -> Message:
    """Tell that a run failed, or that its process was killed.

    Args:
        style: name of the style, or of the dataset; empty if the run has none.
        run: name of the run.
        attempt: identity of the run and its attempt.
        reason: message of the error, without secrets.
        killed: the process of the run ended without a report.
        links: page of the run.
    """
    what = "a run was cut off" if killed else "a run failed"
    return Message(
        key=f"failure-{attempt}",
        kind="failure",
        style=style,
        subject=f"{style or _line(run)}: {what}",
        lines=_lines((f"Run: {run}", *reason.splitlines(), "The next run continues where this one stopped.")),
        links=tuple(links),
        facts={"run": run, "killed": int(killed)},
    )


def silence_message(dataset: str, source: str, times: int, since: datetime, reason: str) -> Message:
    """Tell that a source gave images before and gives none now.

    Args:
        dataset: name of the dataset.
        source: address of the source, without secrets.
        times: collections in a row that found nothing.
        since: time of the first of these collections.
        reason: message of the last failure.
    """
    return Message(
        key=f"silence-{dataset}-{int(since.timestamp())}",
        kind="silence",
        style=dataset,
        subject=f"{dataset}: a source gives no images any more",
        lines=_lines(
            (
                f"Source: {source}",
                f"It gave images before. The last {times} collections, since {since:%Y-%m-%d %H:%M} UTC, found none.",
                reason,
            )
        ),
        facts={"times": times},
    )


def given_up_message(style: str, run_digest: str, settings_digest: str | None, times: int, reason: str) -> Message:
    """Tell that a training is not tried again by itself.

    Args:
        style: name of the style.
        run_digest: digest of the run.
        settings_digest: digest of its settings; None if they are unknown.
        times: number of its failures.
        reason: message of the last failure, without secrets.
    """
    what = f"Run {run_digest[:16]} failed {times} times in the same way."
    return _given_up(style, ("run_digest", run_digest), settings_digest, times, what, reason)


def images_given_up_message(
    style: str, data_digest: str, settings_digest: str | None, times: int, reason: str
) -> Message:
    """Tell that new images start no run any more, because the runs for them failed.

    Args:
        style: name of the style.
        data_digest: digest of the dataset's rows.
        settings_digest: digest of the style's settings; None if they are unknown.
        times: number of failed runs.
        reason: end of the last run, without secrets.
    """
    what = f"New images started {times} runs, and none of them ended well. The last one:"
    return _given_up(style, ("data_digest", data_digest), settings_digest, times, what, reason)


def _given_up(
    style: str, cause: tuple[str, str], settings_digest: str | None, times: int, what: str, reason: str
) -> Message:
    name, digest = cause
    remedy = f"It is tried again after a change of images, settings or base model, or with: sdlora run {style}"
    return Message(
        key=f"given-up-{style}-{digest[:16]}-{(settings_digest or '')[:16]}",
        kind="given-up",
        style=style,
        subject=f"{style}: this training is not tried again",
        lines=_lines((what, *reason.splitlines(), remedy)),
        facts={name: digest, "settings_digest": settings_digest, "times": times},
    )


def trial_message(recipient: str) -> Message:
    """Show a person that messages arrive."""
    return Message(
        key=f"test-{recipient}",
        kind="test",
        style="",
        subject="sdlora: test message",
        lines=(f"Messages of sdlora arrive here ({recipient}).",),
    )


def _commands(style: str, entry: HistoryEntry) -> tuple[str, ...]:
    """Return the line to type, for a candidate that waits for a person."""
    if _kind_of_entry(entry) != "waiting":
        return ()
    version = f"{style} --version {entry.version.number}"
    return (f"Decide: sdlora promote {version}, or: sdlora reject {version}",)


def _kind_of_entry(entry: HistoryEntry) -> MessageKind:
    """Return "refusal" for a version that did not pass; every other outcome is about a champion."""
    kind: str = entry.kind
    if kind == "waiting":
        return "waiting"
    return "promotion" if entry.changes_champion or entry.kind == "confirmed" else "refusal"


def _outcome(entry: HistoryEntry) -> str:
    number, champion = entry.version.number, entry.to_version
    by = "" if entry.who == GATE else f" by {_line(entry.who)}"
    kind: str = entry.kind
    match kind:
        case "waiting":
            return f"version {number} waits for your decision"
        case "rejected":
            return f"version {number} was rejected{by}; {_champion_stays(champion)}"
        case "first champion":
            return f"version {number} is the first champion"
        case "promoted":
            return f"version {number} is the new champion, after version {entry.from_version}{by}"
        case "adopted":
            after = f", after version {entry.from_version}" if entry.from_version else ""
            return f"version {number}, adopted from a file, is the new champion{after}"
        case "confirmed":
            return f"version {number} passed again and stays champion"
        case "not confirmed":
            return f"version {number} did not pass again and stays champion"
        case "rolled back":
            return f"rolled back to version {number}{by}"
        case "moved by hand":
            return f"the champion was changed to version {champion}{by}" if champion else f"no champion any more{by}"
    return f"version {number} did not pass{by}; {_champion_stays(champion)}"


def _champion_stays(champion: int | None) -> str:
    return f"version {champion} stays champion" if champion else "there is no champion yet"


def _lines(texts: Sequence[str], limit: int = MAX_LINES) -> tuple[str, ...]:
    found = [_line(text) for text in texts if text.strip()]
    return (*found[: limit - 1], f"... and {len(found) - limit + 1} more") if len(found) > limit else tuple(found)


def _line(text: str) -> str:
    line = escape_controls(text.strip(), keep="")
    return line if len(line) <= MAX_LINE_CHARACTERS else f"{line[: MAX_LINE_CHARACTERS - 3]}..."
