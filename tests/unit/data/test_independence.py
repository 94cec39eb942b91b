"""What a dataset decides does not depend on the other datasets of its store."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from sdlora.core.errors import DataError
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.measuring.measure import ImageScores, measure
from sdlora.data.snapshot import make_snapshot
from sdlora.data.sources import Content, Item, Source
from sdlora.data.sources.base import SidecarInfo, already_read
from sdlora.store.clusters import MIN_MEMBERS
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.intake import SeenFile, record_files, register_source
from sdlora.store.location import StoreLocation
from sdlora.store.membership import _captions_in_force, _select
from sdlora.store.records import Caption
from sdlora.store.selection import Selection
from tests.unit.data.drawing import drawing, encoded, icon

NAMES = ("ink", "heroes", "props")
ELSEWHERE = "elsewhere"
"""Dataset that holds every image from the start, so that a rating or a takedown is possible at any time."""

CONFIG = DataConfig(
    min_train_images=1,
    min_held_out_images=1,
    min_side_px=8,
    blurry_threshold=0,
    low_information_threshold=0,
)
SETTINGS = tuple(
    CONFIG.model_copy(update=update)
    for update in (
        {},
        {"background": "black", "near_duplicate_difference": 8.0},
        {"max_pixels": 30 * 30},
        {"max_images_per_caption": 3},
        {"max_images_per_caption": 2, "background": "black"},
        {"allowed_licences": ("CC0*",), "mirror_sources": True},
        {"near_duplicate_difference": 2.0, "suspect_difference": 40.0, "require_captions": True},
    )
)


@lru_cache(maxsize=1)
def pictures() -> tuple[bytes, ...]:
    """Few and tiny, so that datasets share most of them: exact and near copies, chains of changes, transparent ones."""
    contents = []
    for seed in range(2):
        base = icon(seed, side_px=32)
        contents += [encoded(base), encoded(base, "BMP"), encoded(base.resize((28, 28)))]
        changed = base.copy()
        changed.paste("black", (13, 13, 15 + seed, 15))
        contents.append(encoded(changed))
    for side_px in (32, 24):  # the larger one has too many pixels under some settings
        ink = drawing(20, side_px).convert("RGBA")
        ink.putalpha(Image.linear_gradient("L").resize(ink.size))
        contents.append(encoded(ink))
    on_black = Image.new("RGBA", (24, 24), "black")
    on_black.alpha_composite(ink)
    contents.append(encoded(on_black.convert("RGB")))  # a copy of the transparent ones, if these are on black
    contents += [encoded(drawing(seed, 24)) for seed in (30, 31)]
    contents.append(b"no picture")
    return tuple(contents)


COUNT = 14


@lru_cache(maxsize=1)
def crowd() -> tuple[bytes, ...]:
    """Copies of one picture: more than a cluster needs, and all different files."""
    picture = icon(9, side_px=32)
    return tuple(encoded(picture, "JPEG", quality=60 + number) for number in range(MIN_MEMBERS + 4))


@lru_cache(maxsize=1)
def _contents() -> dict[str, bytes]:
    return {hashlib.sha256(content).hexdigest(): content for content in (*pictures(), *crowd())}


@lru_cache(maxsize=1)
def shas() -> tuple[str, ...]:
    """SHA-256 of the pictures, then of the crowd."""
    return tuple(_contents())


@lru_cache(maxsize=1024)
def measured(sha256: str, max_pixels: int, background: str) -> ImageScores:
    return measure(sha256, _contents()[sha256], max_pixels, background)


def measurer(blobs: object, sizes: dict[str, int], max_pixels: int, background: str) -> Iterator[ImageScores]:
    for sha256 in sizes:
        yield measured(sha256, max_pixels, background)


def folder_source(name: str, numbers: Sequence[int]) -> Source:
    def items() -> Iterator[Item]:
        for number in numbers:
            sha256 = shas()[number]
            content = _contents()[sha256]
            text = f"thing {number % 3}"
            captions = (Caption(text, "metadata"),) if number % 6 else ()
            path = f"{number % 3 + 1}_things/{number}.png"
            yield Item(
                path=path,
                stamp=sha256,
                read=lambda _, content=content: Content(content),
                sidecar=already_read(SidecarInfo(captions, licence=("CC0", "CC-BY")[number % 2])),
                caption_stamp=text,
                caption_path=path,
            )

    return Source(name=name, key=name, count=len(numbers), items=items)


Step = Callable[[ImageStore], Any]
"""Step of one dataset's history, or of all, which can be repeated in another store."""


def in_dataset(name: str, work: Callable[[Dataset], Any]) -> Step:
    def step(store: ImageStore) -> Any:
        try:
            return work(store.dataset(name))
        except DataError:
            return DataError  # the message may name datasets that have the image

    return step


def collecting(name: str, folder: str, numbers: Sequence[int], config: DataConfig) -> Step:
    def work(dataset: Dataset) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sdlora.data.collect.open_source", lambda uri, context: folder_source(folder, numbers))
            report = collect(dataset, folder, config)
        return report.new, report.recaptioned, report.left

    return in_dataset(name, work)


def freezing(name: str, config: DataConfig) -> Step:
    def work(dataset: Dataset) -> Any:
        clean(dataset, config, measurer=measurer)
        facts = {
            image.sha256: (image.verdict, image.rejected_by, image.reason, image.captions, image.licence, image.split)
            for image in dataset.images()
        }
        try:
            return facts, make_snapshot(dataset, config).digest
        except DataError as error:
            return facts, str(error)

    return in_dataset(name, work)


@dataclass(frozen=True)
class Joined:
    """Image as it was taken from another dataset."""

    sha256: str
    captions: tuple[Caption, ...]
    source: str | None
    licence: str | None


def joining(name: str, joined: tuple[Joined, ...], scratch: str, with_captions: bool) -> Step:
    """Add to the dataset what it took from another one, which is not there now."""

    def work(dataset: Dataset) -> None:
        other = dataset.store.dataset(scratch)
        for image in joined:  # one at a time, because the other dataset may have got them in another order
            byte_size = len(_contents()[image.sha256])
            seen = SeenFile(
                image.sha256,
                image.sha256,
                byte_size,
                source=image.source,
                licence=image.licence,
                captions=image.captions,
            )
            with dataset.store.write() as session:
                source_id = register_source(session, other.id, "scratch", "scratch")
                record_files(session, other.id, source_id, [seen])
            dataset.add_from(other, Selection(ids=(image.sha256,)), with_captions=with_captions)

    return in_dataset(name, work)


def taken(store: ImageStore, other: str, selection: Selection) -> tuple[Joined, ...]:
    with store.read() as session:
        rows = _select(session, store.dataset(other).id, selection)
        captions = _captions_in_force(session, [row.member_id for row in rows])
    stronger = {"added": "metadata"}
    return tuple(
        Joined(
            row.sha256,
            tuple(Caption(one.text, stronger.get(one.origin, one.origin)) for one in captions[row.member_id]),
            row.source,
            row.licence,
        )
        for row in rows
    )


Move = tuple[Any, ...]
"""Kind of a step, and its arguments."""

numbers = st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=4, unique=True)
many = st.lists(st.integers(0, COUNT - 1), min_size=6, max_size=10, unique=True)
names, configs = st.sampled_from(NAMES), st.sampled_from(SETTINGS)
moves = st.one_of(
    st.tuples(st.just("collect"), names, st.sampled_from(["shared", "own"]), many, configs),
    st.tuples(st.just("add"), names, numbers),
    st.tuples(st.just("move"), names, names, many, st.booleans()),
    st.tuples(st.just("remove"), names, numbers),
    st.tuples(st.just("bring back"), names),
    st.tuples(st.just("caption"), names, numbers),
    st.tuples(st.just("decide"), names, numbers, st.sampled_from(["accepted", "rejected", "undo"])),
    st.tuples(st.just("purge"), st.integers(0, COUNT - 1)),
    st.tuples(st.just("rate"), st.integers(0, COUNT - 1), st.integers(1, 5)),
    st.tuples(st.just("freeze"), names, configs),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Move]:
    """Dense: every dataset collects and freezes first, and freezes last."""
    history: list[Move] = []
    for name in draw(st.permutations(NAMES)):
        history.append(("collect", name, draw(st.sampled_from(["shared", "own"])), draw(many), draw(configs)))
        history.append(("freeze", name, draw(configs)))
    history += draw(st.lists(moves, min_size=6, max_size=12))
    return history + [("freeze", name, draw(configs)) for name in draw(st.permutations(NAMES))]


class Shared:
    """A store with all datasets, and the history of each."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self.histories: dict[str, list[tuple[Step, Any]]] = {name: [] for name in NAMES}

    def take_step(self, names: tuple[str, ...], step: Step, replayed: Step | None = None) -> None:
        outcome = step(self.store)
        for name in names:
            self.histories[name].append((replayed or step, outcome))

    def do(self, move: tuple[Any, ...]) -> None:  # noqa: C901  # one branch for each kind
        kind, *rest = move
        if kind == "collect":
            name, folder, chosen, config = rest
            folder = folder if folder == "shared" else name
            self.take_step((name,), collecting(name, folder, tuple(chosen), config))
        elif kind == "add":
            name, chosen = rest
            for number in chosen:
                content = _contents()[shas()[number]]
                self.take_step((name,), in_dataset(name, lambda dataset, content=content: dataset.add_image(content)))
        elif kind == "move":
            name, other, chosen, with_captions = rest
            if name != other:
                selection = Selection(ids=tuple(shas()[number] for number in chosen))
                joined = taken(self.store, other, selection)
                scratch = f"scratch-{other}"
                work = in_dataset(
                    name,
                    lambda dataset: (
                        dataset.add_from(dataset.store.dataset(other), selection, with_captions=with_captions) and None
                    ),
                )
                self.take_step((name,), work, joining(name, joined, scratch, with_captions))
        elif kind == "remove":
            name, chosen = rest
            selection = Selection(ids=tuple(shas()[number] for number in chosen))
            self.take_step((name,), in_dataset(name, lambda dataset: dataset.remove(selection, "ana")))
        elif kind == "bring back":
            (name,) = rest
            self.take_step((name,), in_dataset(name, lambda dataset: dataset.bring_back(Selection())))
        elif kind == "caption":
            name, chosen = rest
            for sha256 in [shas()[number] for number in chosen][:3]:
                work = lambda dataset, sha256=sha256: dataset.set_captions(sha256, ["by hand"]).captions  # noqa: E731
                self.take_step((name,), in_dataset(name, work))
        elif kind == "decide":
            name, chosen, verdict = rest
            for sha256 in [shas()[number] for number in chosen][:3]:
                self.take_step((name,), in_dataset(name, lambda d, s=sha256: _decide(d, s, verdict)))
        elif kind == "purge":
            sha256 = shas()[rest[0]]
            self.take_step(NAMES, lambda store: store.purge(sha256, "a takedown", "ana") and None)
        elif kind == "rate":
            sha256, stars = shas()[rest[0]], rest[1]
            self.take_step(NAMES, in_dataset(ELSEWHERE, lambda dataset: dataset.store.rate(sha256, stars, "ana")))
        elif kind == "freeze":
            name, config = rest
            self.take_step((name,), freezing(name, config))


def _decide(dataset: Dataset, sha256: str, verdict: str) -> None:
    if verdict == "undo":
        dataset.undo_decision(sha256, "ana")
    else:
        dataset.decide(sha256, verdict, "a whim", "ana")


def _compare_with_fresh_stores(
    new_store: Callable[[], ImageStore], history: Sequence[Move], min_members: int = MIN_MEMBERS
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("data.duplicates.clusters", "store.curation", "store.clusters"):
            patch.setattr(f"sdlora.{module}.MIN_MEMBERS", min_members)
        with new_store() as store:
            _fill_elsewhere(store)
            shared = Shared(store)
            for move in history:
                shared.do(move)
        for name, steps in shared.histories.items():
            with new_store() as fresh:
                _fill_elsewhere(fresh)
                for number, (step, outcome) in enumerate(steps):
                    assert step(fresh) == outcome, (name, number)


def _fill_elsewhere(store: ImageStore) -> None:
    dataset = store.dataset(ELSEWHERE)
    with store.write() as session:
        source_id = register_source(session, dataset.id, "all", "all")
        files = [SeenFile(sha256, sha256, len(content)) for sha256, content in _contents().items()]
        record_files(session, dataset.id, source_id, files)


@pytest.fixture(scope="module")
def new_store(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], ImageStore]:
    def new() -> ImageStore:
        home = tmp_path_factory.mktemp("home")
        shutil.copy(empty_database, home)
        return ImageStore.open(home)

    return new


ALL = tuple(range(COUNT))
CROWD = tuple(range(COUNT, COUNT + MIN_MEMBERS + 4))
DEFAULT, FEW_PIXELS, RARE_CAPTIONS = SETTINGS[0], SETTINGS[2], SETTINGS[4]

SCRIPTS: dict[str, list[Move]] = {
    "best copies are in another dataset": [
        ("collect", "ink", "own", (0, 4, 8), DEFAULT),
        ("collect", "heroes", "own", (2, 3, 6, 7, 9), DEFAULT),
        ("freeze", "ink", DEFAULT),
        ("freeze", "heroes", DEFAULT),
    ],
    "captions are common in all datasets together": [
        ("collect", "ink", "shared", (1, 4, 10, 11), RARE_CAPTIONS),
        ("collect", "heroes", "shared", (1, 4, 7, 8), RARE_CAPTIONS),
        ("freeze", "heroes", RARE_CAPTIONS),
        ("freeze", "ink", RARE_CAPTIONS),
    ],
    "other limits of pixels and other backgrounds": [
        ("collect", "ink", "own", ALL, FEW_PIXELS),
        ("freeze", "ink", FEW_PIXELS),
        ("collect", "heroes", "own", ALL, DEFAULT),
        ("freeze", "heroes", RARE_CAPTIONS),
        ("freeze", "heroes", DEFAULT),
        ("freeze", "ink", FEW_PIXELS),
        ("freeze", "ink", DEFAULT),
    ],
    "a crowd of copies, and its first image is purged": [
        ("collect", "ink", "own", CROWD, DEFAULT),
        ("freeze", "ink", DEFAULT),
        ("collect", "heroes", "own", CROWD[-3:], DEFAULT),
        ("freeze", "heroes", DEFAULT),
        ("collect", "props", "own", (*CROWD[20:], 0, 2), DEFAULT),
        ("purge", CROWD[0]),
        ("freeze", "props", DEFAULT),
        ("freeze", "heroes", DEFAULT),
        ("freeze", "ink", DEFAULT),
    ],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_known_ways_of_datasets_to_meet_leave_their_snapshots_alone(
    new_store: Callable[[], ImageStore], script: str
) -> None:
    _compare_with_fresh_stores(new_store, SCRIPTS[script])


clusters_of = st.sampled_from([2, 4, MIN_MEMBERS])


@settings(deadline=None, max_examples=8, derandomize=True, database=None, phases=[Phase.generate])
@given(history=histories(), min_members=clusters_of)
def test_each_snapshot_is_that_of_a_fresh_store_with_the_datasets_own_history(
    new_store: Callable[[], ImageStore], history: list[Move], min_members: int
) -> None:
    _compare_with_fresh_stores(new_store, history, min_members)


@pytest.mark.slow
@settings(deadline=None, max_examples=5, derandomize=True, database=None, phases=[Phase.generate])
@given(history=histories(), min_members=clusters_of)
def test_so_it_is_on_servers(
    on_servers: Callable[[], StoreLocation],
    tmp_path_factory: pytest.TempPathFactory,
    history: list[Move],
    min_members: int,
) -> None:
    home = tmp_path_factory.mktemp("home")
    _compare_with_fresh_stores(lambda: ImageStore.open(home, on_servers()), history, min_members)
