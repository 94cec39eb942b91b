from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import event

from sdlora.data import clean as cleaning
from sdlora.data.checks import RecordCheck
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.duplicates import clusters
from sdlora.data.measuring.measure import ImageScores, measure
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
from tests.stores import opened_dataset, servers_when_patient
from tests.unit.data.drawing import drawing, encoded, fill_folder, icon

CONFIG = DataConfig()


@pytest.fixture(scope="module")
def family() -> dict[bytes, ImageScores]:
    """Images of which many are copies of others, some in chains, with what is measured of them."""
    contents = []
    for seed in range(4):
        base = icon(seed, side_px=72)
        contents += [
            encoded(base),
            encoded(base, "BMP"),
            encoded(base.resize((64, 64))),
            encoded(icon(seed, side_px=96 - seed * 16)),
        ]
        contents.append(encoded(base, "JPEG", quality=60))
        for step in range(1, 4):  # each is a copy of the one before, the last no longer of the first
            changed = base.copy()
            changed.paste("black", (30, 30, 30 + 3 * step, 34))
            contents.append(encoded(changed))
    frames = [icon(0, side_px=120), icon(9, side_px=120)]
    contents.append(encoded(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:]))
    contents += [encoded(icon(2, side_px=20)), encoded(Image.new("RGB", (64, 64), "white")), b"no picture"]
    measured = {}
    for content in dict.fromkeys(contents):
        one = measure("", content, CONFIG.max_pixels)
        measured[content] = one
    return measured


@dataclass
class Measured:
    """Stands in for the decoder: what each image would give, by its SHA-256."""

    by_sha256: dict[str, ImageScores]
    asked: int = 0

    def __call__(self, blobs: object, sizes: dict[str, int], max_pixels: int, background: str) -> Iterator[ImageScores]:
        for sha256 in sizes:
            self.asked += 1
            yield replace(self.by_sha256[sha256], sha256=sha256)


def _verdicts(dataset: Dataset) -> dict[str, tuple[str | None, str | None, str | None]]:
    return {image.sha256: (image.verdict, image.rejected_by, image.reason) for image in dataset.images()}


def _fill(dataset: Dataset, contents: list[bytes], decoder: Measured, family: dict[bytes, ImageScores]) -> None:
    for content in contents:
        decoder.by_sha256[dataset.add_image(content)] = family[content]


SETTINGS = (
    CONFIG,
    CONFIG.model_copy(update={"allow_animated": True}),
    CONFIG.model_copy(update={"near_duplicate_difference": 8.0}),
    CONFIG.model_copy(update={"min_side_px": 16, "near_duplicate_difference": 30.0}),
    CONFIG.model_copy(update={"max_pixels": 90 * 90}),
)


orders = given(
    shuffle=st.randoms(use_true_random=False),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    detours=st.lists(st.sampled_from(SETTINGS), max_size=6),
    final=st.sampled_from(SETTINGS),
    portion=st.sampled_from([1, 3, 500]),
    min_members=st.sampled_from([1, 2, 4, clusters.MIN_MEMBERS]),
)


@settings(deadline=None, max_examples=6)
@orders
def test_cleaning_in_any_portions_ends_where_one_pass_would(
    family: dict[bytes, ImageScores],
    empty_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
    shuffle: random.Random,
    cuts: list[int],
    detours: list[DataConfig],
    final: DataConfig,
    portion: int,
    min_members: int,
) -> None:
    def new_store() -> ImageStore:
        home = tmp_path_factory.mktemp("home")
        shutil.copy(empty_database, home)
        return ImageStore.open(home).dataset("icons")

    _clean_in_portions(family, new_store, shuffle, cuts, detours, final, portion, min_members)


@pytest.mark.slow
@settings(
    deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@orders
def test_so_does_cleaning_on_servers(
    family: dict[bytes, ImageScores],
    on_servers: Callable[[], StoreLocation],
    tmp_path: Path,
    shuffle: random.Random,
    cuts: list[int],
    detours: list[DataConfig],
    final: DataConfig,
    portion: int,
    min_members: int,
) -> None:
    new_store = lambda: ImageStore.open(tmp_path, on_servers()).dataset("icons")  # noqa: E731
    _clean_in_portions(family, new_store, shuffle, cuts, detours, final, portion, min_members)


def _clean_in_portions(
    family: dict[bytes, ImageScores],
    new_store: Callable[[], Dataset],
    shuffle: random.Random,
    cuts: list[int],
    detours: list[DataConfig],
    final: DataConfig,
    portion: int,
    min_members: int,
) -> None:
    contents = list(family)
    shuffle.shuffle(contents)
    found = []
    for portions in ([len(contents)], [*sorted(cuts), len(contents)]):
        decoder = Measured({})
        with pytest.MonkeyPatch.context() as patch:
            dataset = new_store()
            if len(portions) > 1:
                patch.setattr(clusters, "MIN_MEMBERS", min_members)  # in the one pass every pair is compared
                patch.setattr(cleaning, "ROWS_PER_STATEMENT", portion)
                patch.setattr(cleaning, "_IMAGES_PER_WINDOW", 3 * portion)
            start = 0
            for number, end in enumerate(portions):
                _fill(dataset, contents[start:end], decoder, family)
                start = end
                on_the_way = number < min(len(detours), len(portions) - 1)
                clean(dataset, detours[number] if on_the_way else final, measurer=decoder)
            assert clean(dataset, final, measurer=decoder).decided == 0
            found.append(_verdicts(dataset))
            dataset.store.close()
    assert found[0] == found[1]


@servers_when_patient
def test_the_family_has_every_kind_of_copy(dataset: Dataset, family: dict[bytes, ImageScores]) -> None:
    for content in family:
        dataset.add_image(content)
    rejected = clean(dataset, CONFIG).counts.rejected_by
    assert {"animated", "blank", "exact_duplicate", "near_duplicate", "too_small", "unreadable"} == set(rejected)
    assert rejected["near_duplicate"] >= 8


def _rows_written_by_one_more_image(dataset: Dataset) -> int:
    rows: list[int] = []
    dataset.add_image(encoded(icon(7, side_px=80)))

    def count(_c: object, _k: object, statement: str, parameters: list[object], _x: object, many: bool) -> None:
        rows.append(len(parameters) if many else 1)

    event.listen(dataset.store.database.engine, "before_cursor_execute", count)
    assert clean(dataset, CONFIG).decided == 1
    event.remove(dataset.store.database.engine, "before_cursor_execute", count)
    assert dataset.counts().rejected_by == {"near_duplicate": 1}
    return sum(rows)


def test_what_one_image_more_costs_does_not_grow_with_the_store(tmp_path: Path) -> None:
    costs = []
    for size in (10, 80):
        with opened_dataset(tmp_path / str(size)) as dataset:
            for seed in range(size):
                dataset.add_image(encoded(icon(seed)))
            clean(dataset, CONFIG)
            costs.append(_rows_written_by_one_more_image(dataset))
    assert costs[0] == costs[1] < 60


@servers_when_patient
def test_a_persons_word_decides_over_the_image_and_its_group_without_a_look(dataset: Dataset) -> None:
    images = {
        "small": encoded(icon(1, side_px=20)),
        "kept": encoded(icon(2)),
        "copy": encoded(icon(2, side_px=90)),
        "unwanted": encoded(icon(3)),
        "its copy": encoded(icon(3, side_px=48)),
    }
    shas = {name: dataset.add_image(content) for name, content in images.items()}
    clean(dataset, CONFIG)
    before = _verdicts(dataset)
    assert dataset.image(shas["kept"]).rejected_by == "near_duplicate"
    assert dataset.image(shas["its copy"]).rejected_by == "near_duplicate"
    dataset.decide(shas["small"], "accepted", "it is meant to be tiny", "ana")
    dataset.decide(shas["kept"], "accepted", "the original", "ana")
    dataset.decide(shas["unwanted"], "rejected", "off topic", "ana")
    assert clean(dataset, CONFIG).decoded == 0
    found = {name: dataset.image(sha256) for name, sha256 in shas.items()}
    assert "it is meant to be tiny" in (found["small"].reason or "")
    assert (found["kept"].verdict, found["copy"].rejected_by) == ("accepted", "near_duplicate")
    assert (found["unwanted"].rejected_by, found["its copy"].verdict) == ("person", "accepted")
    clean(dataset, CONFIG.model_copy(update={"min_side_px": 33}))
    assert dataset.image(shas["small"]).verdict == "accepted"
    for name in ("small", "kept", "unwanted"):
        dataset.undo_decision(shas[name], "ana")
    clean(dataset, CONFIG)
    assert _verdicts(dataset) == before


@servers_when_patient
def test_checks_on_records_reach_images_that_were_decided_before(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that reads the whole database: no more than three images in all."""
    everybody = range(1, 5)
    crowded = RecordCheck(
        name="crowded",
        version=1,
        judge=lambda session, ids, _: dict.fromkeys(
            ids, (float(n := len(dataset.images())), "too many" if n > 3 else None)
        ),
        settings=(),
        affects=lambda session, dataset_id, ids, _: everybody,
    )
    for module in ("decide_images", "verdicts", "clean"):
        monkeypatch.setattr(f"sdlora.data.{module}.RECORD_CHECKS", (crowded,))
    fill_folder(folder, range(3))
    collect(dataset, str(folder), CONFIG)
    assert clean(dataset, CONFIG).counts.accepted == 3
    dataset.add_image(encoded(drawing(9)))
    report = clean(dataset, CONFIG)
    assert (report.decoded, report.decided, report.counts.rejected_by) == (1, 4, {"crowded": 4})
    assert clean(dataset, CONFIG).decided == 0
