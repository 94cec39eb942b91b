"""What a check on single images is."""

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

if TYPE_CHECKING:  # the processes that measure need none of them, and start the sooner
    from sqlalchemy.orm import Session

    from sdlora.data.config import DataConfig
    from sdlora.store.records import Verdict

Statistic = Callable[[Stack], DoubleArray]
"""One number for each picture of a stack, (N,)."""


@dataclass(frozen=True)
class Picture:
    """One image as the checks see it.

    Attributes:
        header: None where the bytes are no picture at all.
        problem: why decoding failed, in words.
        stack: the decoded picture, among others of its size; None where decoding failed, or was not tried.
        position: which of them it is.
    """

    header: Header | None
    problem: str | None
    stack: Stack | None = None
    position: int = 0

    def of_pixels(self, statistic: Statistic) -> float | None:
        """What a statistic, computed for all pictures of the stack at once, says of this one; None without pixels."""
        return None if self.stack is None else float(self.stack.computed(statistic)[self.position])


@dataclass(frozen=True)
class Check:
    """One cleaning rule: a score that is taken once, and what the settings make of it.

    Attributes:
        score: of a picture; None where it cannot be had (nothing was decoded).
        settings: the fields of DataConfig that decide.
        rejects: (score, config) -> the reason in words, or None if the image passes.
        ends_decoding: a rejected image is not decoded, so later checks may have no score.
        appends_problem: the reason is followed by why decoding failed.
    """

    name: str
    version: int
    score: Callable[[Picture], float | None]
    settings: tuple[str, ...]
    rejects: Callable[[float, DataConfig], str | None]
    ends_decoding: bool = False
    appends_problem: bool = False

    @property
    def measures(self) -> str:
        """What the score is, in one sentence."""
        return _first_line(self.score)

    def parameters(self, config: DataConfig) -> str:
        """Digest of the settings that decide: the key under which a verdict is recorded."""
        return digest_of(self.settings, config)


Findings = Mapping[int, tuple[float | None, str | None]]
"""Score, and reason or None, by image id; images that a check has nothing to say of are left out."""


@dataclass(frozen=True)
class RecordCheck:
    """A cleaning rule on what is recorded of an image (captions, licence), read anew whenever the image is decided.

    Whoever changes such a record empties `images.rules` of the image, so that the next cleaning decides it again.

    Attributes:
        judge: (session, image ids, config) -> (score, reason or None) of each image; at most a chunk of them at once.
        settings: the fields of DataConfig that decide.
        depends_on: what else decides, such as the digest of a model that a setting only names.
        affects: (session, image ids, config) -> other images whose ruling may change because these are there.
    """

    name: str
    version: int
    judge: Callable[[Session, Sequence[int], DataConfig], Findings]
    settings: tuple[str, ...]
    affects: Callable[[Session, Sequence[int], DataConfig], Iterable[int]] | None = None
    depends_on: Callable[[DataConfig], str] | None = None

    @property
    def measures(self) -> str:
        """What the score is, in one sentence."""
        return _first_line(self.judge)

    def parameters(self, config: DataConfig) -> str:
        """Digest of the settings that decide: the key under which a verdict is recorded."""
        digest = digest_of(self.settings, config)
        dependency = self.depends_on(config) if self.depends_on else ""
        return parameters_digest({"settings": digest, "also": dependency}) if dependency else digest

    def rulings(self, session: Session, image_ids: Sequence[int], config: DataConfig) -> dict[int, Ruling]:
        """What this check says of each of these images."""
        parameters = self.parameters(config)
        findings = self.judge(session, image_ids, config)
        return {
            image_id: Ruling(self.name, self.version, parameters, score, reason)
            for image_id, (score, reason) in findings.items()
        }


class Ruling(NamedTuple):
    """What one check decided of one image. A tuple, as a dozen are made of every image that is decided."""

    check: str
    version: int
    parameters: str
    score: float | None
    reason: str | None

    @property
    def key(self) -> tuple[str, int, str]:
        """Under which the ledger has it, beside the image."""
        return self.check, self.version, self.parameters

    @property
    def verdict(self) -> Verdict:
        return "rejected" if self.reason else "accepted"


def digest_of(settings: tuple[str, ...], config: DataConfig) -> str:
    """Digest of these settings as `config` has them."""
    values = (getattr(config, name) for name in settings)
    return _cached_digest(tuple((name, value, type(value)) for name, value in zip(settings, values, strict=True)))


@lru_cache(maxsize=1024)
def _cached_digest(typed_settings: tuple[tuple[str, Hashable, type], ...]) -> str:  # asked for once per image and check
    return parameters_digest({name: value for name, value, _ in typed_settings})


def parameters_digest(settings: dict[str, object]) -> str:
    """16 hexadecimal digits that name these settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _first_line(function: Callable[..., object]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
