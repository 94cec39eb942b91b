"""What people think of images, on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest

from sdlora.core.errors import DataError
from sdlora.store.image_store import ImageStore
from sdlora.store.ratings import mean_stars
from tests.stores import both_places


@both_places
def test_any_image_can_be_rated_by_its_first_digits_and_the_newest_word_of_each_person_counts(
    store: ImageStore,
) -> None:
    sha256 = store.add_image(b"bytes")
    assert store.rate(sha256[:10].upper(), 5, "ana", "  just  right ") == sha256
    store.rate(sha256, 1, "ana", "on second thought")
    store.rate(sha256, 4, "ben")
    with store.read() as session:
        assert list(mean_stars(session).values()) == [2.5]
    first, second, third = store.details(sha256).ratings
    assert (first.stars, first.why, first.withdrawn_at is None) == (5, "just right", False)
    assert (second.stars, second.rater, second.withdrawn_at) == (1, "ana", None)
    assert (third.stars, third.why) == (4, "")


@both_places
def test_a_rating_taken_back_counts_no_longer_and_stays_in_the_history(store: ImageStore) -> None:
    sha256 = store.add_image(b"bytes")
    store.rate(sha256, 5, "ana")
    store.undo_rating(sha256, "ana")
    with store.read() as session:
        assert mean_stars(session) == {}
    assert [one.withdrawn_at is None for one in store.details(sha256).ratings] == [False]
    with pytest.raises(DataError, match="ana has not rated it"):
        store.undo_rating(sha256, "ana")


def test_what_cannot_be_rated_is_refused_with_the_reason(store: ImageStore) -> None:
    sha256 = store.add_image(b"bytes")
    for stars in (0, 6):
        with pytest.raises(DataError, match=f"stars = {stars}: expected 1 to 5"):
            store.rate(sha256, stars)
    for digits in ("feed" * 16, "", "%"):
        with pytest.raises(DataError, match="expected the first digits of one image's SHA-256, found none"):
            store.rate(digits, 3)
    store.purge(sha256, "a takedown", "ana")
    with pytest.raises(DataError, match=r"purged by ana.*a takedown.*cannot be rated"):
        store.rate(sha256, 3)
