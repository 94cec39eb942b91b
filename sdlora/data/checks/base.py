"""Base types of checks on single images: `Check` on pixels, `RecordCheck` on records."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sdlora.data.arrays import DoubleArray
from sdlora.data.decoding.decode import Header
from sdlora.data.decoding.stack import Stack

if TYPE_CHECKING:  # worker processes need none of these, and start sooner without
    from sqlalchemy.orm import Session

    from sdlora.data.config import DataConfig

Statistic = Callable[[Stack], DoubleArray]
"""Function from a stack to one number for each of its pictures, (N,)."""


@dataclass(frozen=True)
class Picture:
    """Input of the checks on pixels: one decoded image.

    Attributes:
        header: None if the bytes are no picture.
        problem: the reason in words if decoding failed.
        stack: decoded pictures of one size, this one among them; None if decoding failed or was not tried.
        position: index of this picture in the stack.
    """

    header: Header | None
    problem: str | None
    stack: Stack | None = None
    position: int = 0

    def of_pixels(self, statistic: Statistic) -> float | None:
        """Return the value of a statistic for this picture, or None without pixels. It is computed once per stack."""
        return None if self.stack is None else float(self.stack.computed(statistic)[self.position])


@dataclass(frozen=True)
class Check:
    """Cleaning rule on pixels: a score that is computed once, and its limit from the settings.

    Attributes:
        version: raised when the same image would get another score.
        score: score of a picture; None if it cannot be computed (nothing was decoded).
        settings: names of the DataConfig fields that decide.
        rejects: (score, config) -> the reason in words, or None if the image passes.
        ends_decoding: a rejected image is not decoded, so later checks may have no score.
        appends_problem: the reason is followed by the problem of decoding.
        depends_on_background: the reason names `data.background` if the background hides a picture.
    """

    name: str
    version: int
    score: Callable[[Picture], float | None]
    settings: tuple[str, ...]
    rejects: Callable[[float, DataConfig], str | None]
    ends_decoding: bool = False
    appends_problem: bool = False
    depends_on_background: bool = False

    @property
    def measures(self) -> str:
        """Description of the score in one sentence."""
        return _first_line(self.score)

    def parameters(self, config: DataConfig) -> str:
        """Return the digest of the deciding settings."""
        return digest_of(self.settings, config)


Findings = Mapping[int, tuple[float | None, str | None]]
"""Score, and reason or None, by member id. Members without a ruling of the check are left out."""


@dataclass(frozen=True)
class RecordCheck:
    """Cleaning rule on records of an image in a dataset (captions, licence), read again whenever it is decided.

    Code that changes such a record must clear `members.rules` of the image, so that the next cleaning decides it again.

    Attributes:
        judge: (session, member ids, config) -> (score, reason or None) of each member; at most a chunk of ids.
        settings: names of the DataConfig fields that decide.
        depends_on: (config) -> further input of the digest, such as the digest of a model that a setting names.
        affects: (session, dataset id, member ids, config) -> ids of other members whose ruling these may change.
    """

    name: str
    version: int
    judge: Callable[[Session, Sequence[int], DataConfig], Findings]
    settings: tuple[str, ...]
    affects: Callable[[Session, int, Sequence[int], DataConfig], Iterable[int]] | None = None
    depends_on: Callable[[DataConfig], str] | None = None

    @property
    def measures(self) -> str:
        """Description of the score in one sentence."""
        return _first_line(self.judge)

    def parameters(self, config: DataConfig) -> str:
        """Return the digest of the deciding settings, and of further input."""
        digest = digest_of(self.settings, config)
        dependency = self.depends_on(config) if self.depends_on else ""
        return parameters_digest({"settings": digest, "also": dependency}) if dependency else digest

    def rulings(self, session: Session, member_ids: Sequence[int], config: DataConfig) -> dict[int, Ruling]:
        """Return the rulings of this check by member id."""
        findings = self.judge(session, member_ids, config)
        return {
            member_id: Ruling(self.name, self.version, score, reason) for member_id, (score, reason) in findings.items()
        }


class Ruling(NamedTuple):
    """Result of one check on one image. A tuple for speed: every decided image gets a dozen of them."""

    check: str
    version: int
    score: float | None
    reason: str | None


def digest_of(settings: tuple[str, ...], config: DataConfig) -> str:
    """Return the digest of these settings and their values in `config`."""
    values = (getattr(config, name) for name in settings)
    return _cached_digest(tuple((name, value, type(value)) for name, value in zip(settings, values, strict=True)))


@lru_cache(maxsize=1024)
def _cached_digest(typed_settings: tuple[tuple[str, Hashable, type], ...]) -> str:  # called once per image and check
    return parameters_digest({name: value for name, value, _ in typed_settings})


def parameters_digest(settings: dict[str, object]) -> str:
    """Return 16 hexadecimal digits that identify these settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _first_line(function: Callable[..., object]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
