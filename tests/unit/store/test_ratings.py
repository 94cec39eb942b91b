"""What people think of images, on SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from sdlora.core.errors import DataError
from sdlora.store import database
from sdlora.store.image_store import ImageStore
from sdlora.store.ratings import liked_generations, mean_stars
from tests.servers import new_database
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
    store.take_rating_back(sha256, "ana")
    with store.read() as session:
        assert mean_stars(session) == {}
    assert [one.withdrawn_at is None for one in store.details(sha256).ratings] == [False]
    with pytest.raises(DataError, match="ana has not rated it"):
        store.take_rating_back(sha256, "ana")


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


def _old_ratings(address: Path | str) -> list[tuple[object, ...]]:
    """Ratings as an earlier version wrote them, one per generation of the same bytes, brought to the new schema."""
    opened = database.open_database(address)  # makes the newest schema, from which the way back is tested, too
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))

    def migrate(step: str) -> None:
        with opened._writer.begin() as connection:
            config.attributes["connection"] = connection
            (command.downgrade if step == "0005" else command.upgrade)(config, step)

    migrate("0005")
    with opened._writer.begin() as connection:
        for number, sha256 in enumerate(("a" * 64, "a" * 64, "b" * 64), start=1):
            connection.exec_driver_sql(
                "INSERT INTO generations (id, sha256, model_version, prompt, negative_prompt, seed, steps, "
                f"guidance_scale, generated_at) VALUES ({number}, '{sha256}', '7', 'a bird', '', {number}, 2, 4.0, "
                "'2026-01-01 00:00:00')"
            )
            connection.exec_driver_sql(
                "INSERT INTO ratings (generation_id, rater, stars, rated_at) "
                f"VALUES ({number}, 'ana', 4, '2026-01-01 00:00:00')"
            )
    migrate("0006")
    with opened.engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT sha256, rater, stars, withdrawn_at FROM ratings ORDER BY sha256"
        ).all()
    with opened.read() as session:
        assert [one.id for one in liked_generations(session, 4)] == [1, 2, 3]
    migrate("0005")
    with opened.engine.connect() as connection:
        back = connection.exec_driver_sql("SELECT generation_id, stars FROM ratings ORDER BY 1").all()
    assert [tuple(row) for row in back] == [(1, 4), (3, 4)]
    opened.close()
    return [tuple(row) for row in rows]


def test_ratings_of_before_are_kept_by_the_migration_and_back(tmp_path: Path) -> None:
    assert _old_ratings(tmp_path / "images.db") == [("a" * 64, "ana", 4, None), ("b" * 64, "ana", 4, None)]


def test_ratings_of_before_are_kept_on_postgresql(postgres: str) -> None:
    assert _old_ratings(new_database(postgres)) == [("a" * 64, "ana", 4, None), ("b" * 64, "ana", 4, None)]
