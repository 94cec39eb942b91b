"""Generated images that people rated highly: `generated://?min_stars=4`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from urllib.parse import parse_qs, urlsplit

from sdlora.core.errors import DataError
from sdlora.data.sources.base import (
    Content,
    Item,
    SidecarInfo,
    Source,
    SourceContext,
    UnreadableItemError,
    address_key,
    already_read,
)
from sdlora.store.image_store import ImageStore
from sdlora.store.ratings import RatedGeneration, liked_generations
from sdlora.store.records import Caption

SCHEME = "generated"
DEFAULT_STARS = 4.0


def open_generated(uri: str, context: SourceContext) -> Source | None:
    """Open the generated images with a mean rating of at least `min_stars`. Captions are the prompts.

    Args:
        uri: `generated://`, with `?min_stars=4` (the default) and `&version=…` to select one model version.

    Raises:
        DataError: an option is unknown, or no image has such a rating.
    """
    if urlsplit(uri).scheme != SCHEME:
        return None
    min_stars, version = _options(uri)
    store = context.store
    with store.read() as session:
        liked = liked_generations(session, min_stars, version)
    if not liked:
        raise DataError(
            f"data.sources: {uri!r}: no generated image has a mean rating of {min_stars:g} stars or more. Rate "
            "some images, or lower min_stars."
        )
    return Source(name=SCHEME, key=address_key(SCHEME), count=len(liked), items=lambda: _items(store, liked))


def _options(uri: str) -> tuple[float, str | None]:
    options = {key: values[-1] for key, values in parse_qs(urlsplit(uri).query).items()}
    unknown = options.keys() - {"min_stars", "version"}
    try:
        min_stars = float(options.get("min_stars", DEFAULT_STARS))
    except ValueError:
        min_stars = 0.0
    if unknown or not 1 <= min_stars <= 5:
        raise DataError(
            f"data.sources: {uri!r}: expected generated://?min_stars=4 (1 to 5), optionally with &version=…, found "
            f"{', '.join(f'{key}={value}' for key, value in options.items())}."
        )
    return min_stars, options.get("version")


def _items(store: ImageStore, liked: list[RatedGeneration]) -> Iterator[Item]:
    for generation in liked:
        origin = f"drawn by {generation.model_version}, rated {generation.mean_stars:.2g}"
        yield Item(
            path=f"{generation.id}.png",
            stamp=generation.sha256,
            read=partial(_read, store, generation.sha256),
            sidecar=already_read(SidecarInfo((Caption(generation.prompt, "prompt"),), origin=origin)),
            caption_stamp=address_key(generation.prompt)[:16],
        )


def _read(store: ImageStore, sha256: str, _: str | None = None) -> Content:
    try:
        return Content(store.read_bytes(sha256), sha256)
    except DataError as error:
        raise UnreadableItemError(str(error)) from error
