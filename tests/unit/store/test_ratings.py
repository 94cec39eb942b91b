"""What people think of images, on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest

from sdlora.core.errors import DataError
from sdlora.store.dataset import Dataset
from sdlora.store.ratings import mean_stars
from tests.stores import both_places


@both_places
def test_any_image_can_be_rated_by_its_first_digits_and_the_newest_word_of_each_person_counts(
    dataset: Dataset,
) -> None:
    sha256 = dataset.add_image(b"bytes")
    assert dataset.store.rate(sha256[:10].upper(), 5, "ana", "  just  right ") == sha256
    dataset.store.rate(sha256, 1, "ana", "on second thought")
    dataset.store.rate(sha256, 4, "ben")
    with dataset.store.read() as session:
        assert list(mean_stars(session, dataset.id).values()) == [2.5]
    first, second, third = dataset.details(sha256).ratings
    assert (first.stars, first.why, first.withdrawn_at is None) == (5, "just right", False)
    assert (second.stars, second.rater, second.withdrawn_at) == (1, "ana", None)
    assert (third.stars, third.why) == (4, "")


@both_places
def test_a_rating_taken_back_counts_no_longer_and_stays_in_the_history(dataset: Dataset) -> None:
    sha256 = dataset.add_image(b"bytes")
    dataset.store.rate(sha256, 5, "ana")
    dataset.store.undo_rating(sha256, "ana")
    with dataset.store.read() as session:
        assert mean_stars(session, dataset.id) == {}
    assert [one.withdrawn_at is None for one in dataset.details(sha256).ratings] == [False]
    with pytest.raises(DataError, match="ana has not rated it"):
        dataset.store.undo_rating(sha256, "ana")


def test_what_cannot_be_rated_is_refused_with_the_reason(dataset: Dataset) -> None:
    sha256 = dataset.add_image(b"bytes")
    for stars in (0, 6):
        with pytest.raises(DataError, match=f"stars = {stars}: expected 1 to 5"):
            dataset.store.rate(sha256, stars)
    for digits in ("feed" * 16, "", "%"):
        with pytest.raises(DataError, match="expected the first digits of one image's SHA-256, found none"):
            dataset.store.rate(digits, 3)
    dataset.store.purge(sha256, "a takedown", "ana")
    with pytest.raises(DataError, match=r"purged by ana.*a takedown.*cannot be rated"):
        dataset.store.rate(sha256, 3)
