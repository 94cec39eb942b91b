"""Limits of the captions and names that a source gives to an image."""

from __future__ import annotations

from collections.abc import Sequence

from sdlora.store.records import Caption

MAX_CAPTION_CHARS = 10_000
"""Longest caption. Text encoders read at most a few hundred tokens; a longer text is a document."""

MAX_CAPTIONS = 100
"""Most captions of one image from one source."""

MAX_NAME_CHARS = 4096
"""Longest path, origin or licence, as long as a path of the operating system may be."""


def limited_captions(captions: Sequence[Caption]) -> tuple[tuple[Caption, ...], tuple[str, ...]]:
    """Return the captions within the limits, and the reasons why others are left out."""
    kept = [caption for caption in captions if len(caption.text) <= MAX_CAPTION_CHARS]
    problems = []
    if len(kept) < len(captions):
        longest = max(len(caption.text) for caption in captions)
        problems.append(
            f"{_captions(len(captions) - len(kept))} of up to {longest:,} characters left out, "
            f"more than {MAX_CAPTION_CHARS:,}"
        )
    if len(kept) > MAX_CAPTIONS:
        problems.append(f"{_captions(len(kept) - MAX_CAPTIONS)} after the first {MAX_CAPTIONS} left out")
    return tuple(kept[:MAX_CAPTIONS]), tuple(problems)


def limited_name(name: str | None, what: str) -> tuple[str | None, tuple[str, ...]]:
    """Return a name within the limit, else None and the reason."""
    if name is None or len(name) <= MAX_NAME_CHARS:
        return name, ()
    return None, (f"{what} of {len(name):,} characters left out, more than {MAX_NAME_CHARS:,}",)


def _captions(count: int) -> str:
    return f"{count:,} caption{'s' if count > 1 else ''}"
