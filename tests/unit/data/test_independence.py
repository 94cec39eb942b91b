"""What a dataset decides does not depend on the other datasets of its store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sdlora.core.errors import DataError
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.duplicates import clusters
from sdlora.data.measuring.measure import ImageScores, measure
from sdlora.data.snapshot import make_snapshot
from sdlora.data.sources import Content, Item, Source
from sdlora.data.sources.base import SidecarInfo, already_read
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.intake import SeenFile, record_files, register_source
from sdlora.store.location import StoreLocation
from sdlora.store.records import Caption
from sdlora.store.selection import Selection
from tests.unit.data.drawing import drawing, encoded, icon

NAMES = ("ink", "heroes", "props")
ELSEWHERE = "elsewhere"
"""Dataset that holds every image from the start, so that a rating or a takedown is possible at any time."""

CONFIG = DataConfig(min_train_images=1, min_held_out_images=1, weight_by=("repeats", "ratings"))
SETTINGS = tuple(
    CONFIG.model_copy(update=update)
    for update in (
        {},
        {"background": "black"},
        {"near_duplicate_difference": 8.0},
        {"max_pixels": 90 * 90},
        {"max_images_per_caption": 2, "background": "black"},
        {"allowed_licences": ("CC0*",), "mirror_sources": True},
        {"near_duplicate_difference": 2.0, "suspect_difference": 40.0, "require_captions": True},
    )
)


@lru_cache(maxsize=1)
def pictures() -> tuple[bytes, ...]:
    """Copies in chains, a crowd of copies, transparent pictures, and some that are no good."""
    contents = []
    for seed in range(3):
        base = icon(seed, side_px=72)
        contents += [encoded(base), encoded(base, "BMP"), encoded(base.resize((64, 64))), encoded(icon(seed, 96))]
        changed = base.copy()
        for step in range(1, 3):  # each is a copy of the one before
            changed.paste("black", (30, 30, 32 + 4 * step, 35))
            contents.append(encoded(changed))
    crowd = icon(9, side_px=120)
    contents += [encoded(crowd.resize((56 + number,) * 2), "JPEG", quality=70 + number) for number in range(36)]
    for seed in (20, 21):
        ink = drawing(seed).convert("RGBA")
        ink.putalpha(Image.linear_gradient("L").resize(ink.size))
        contents.append(encoded(ink))
    contents += [encoded(drawing(seed)) for seed in range(30, 36)]
    contents += [encoded(icon(2, side_px=20)), encoded(Image.new("RGB", (64, 64), "white")), b"no picture"]
    return tuple(contents)


@lru_cache(maxsize=4096)
def measured(sha256: str, max_pixels: int, background: str) -> ImageScores:
    content = next(content for content in pictures() if _sha256(content) == sha256)
    return measure(sha256, content, max_pixels, background)


@lru_cache(maxsize=256)
def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def measurer(blobs: object, sizes: dict[str, int], max_pixels: int, background: str) -> Iterator[ImageScores]:
    for sha256 in sizes:
        yield measured(sha256, max_pixels, background)


Files = dict[str, int]
"""Pictures of a folder, by path."""


def folder_source(name: str, files: Files) -> Source:
    def items() -> Iterator[Item]:
        for path, number in files.items():
            content = pictures()[number]
            text = f"{name} {number % 5}"
            sidecar = SidecarInfo(
                (Caption(text, "metadata"),) if number % 4 else (), licence=("CC0", "CC-BY")[number % 2]
            )
            yield Item(
                path=path,
                stamp=_sha256(content),
                read=lambda _, content=content: Content(content),
                sidecar=already_read(sidecar),
                caption_stamp=text,
                caption_path=path,
            )

    return Source(name=name, key=name, count=len(files), items=items)


@dataclass
class World:
    """Folders outside the store, which grow and shrink."""

    folders: dict[str, Files] = field(default_factory=dict)

    def put(self, name: str, numbers: list[int]) -> None:
        folder = self.folders.setdefault(name, {})
        folder.update({f"{number % 3 + 1}_things/{number}.png": number for number in numbers})

    def take(self, name: str, numbers: list[int]) -> None:
        folder = self.folders.get(name, {})
        for path in [path for path, number in folder.items() if number in numbers and len(folder) > 1]:
            del folder[path]


Step = Callable[[ImageStore], Any]
"""Step of one dataset's history, or of all, which can be repeated in another store."""


def in_dataset(name: str, work: Callable[[Dataset], Any]) -> Step:
    def step(store: ImageStore) -> Any:
        try:
            return work(store.dataset(name))
        except DataError as error:
            return str(error)

    return step


def collecting(name: str, folder: str, files: Files, config: DataConfig) -> Step:
    def work(dataset: Dataset) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sdlora.data.collect.open_source", lambda uri, context: folder_source(folder, files))
            collect(dataset, folder, config)

    return in_dataset(name, work)


def freezing(name: str, config: DataConfig) -> Step:
    def work(dataset: Dataset) -> Any:
        clean(dataset, config, measurer=measurer)
        facts = {
            image.sha256: (image.verdict, image.rejected_by, image.reason, image.captions, image.licence)
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

    number: int
    captions: tuple[Caption, ...]
    source: str | None
    licence: str | None


def joining(name: str, joined: tuple[Joined, ...], scratch: str, with_captions: bool) -> Step:
    """Add to the dataset what it took from another one, which is not there now."""

    def work(dataset: Dataset) -> None:
        other = dataset.store.dataset(scratch)
        with dataset.store.write() as session:
            source_id = register_source(session, other.id, "scratch", "scratch")
            seen = [
                SeenFile(
                    str(image.number),
                    _sha256(pictures()[image.number]),
                    len(pictures()[image.number]),
                    source=image.source,
                    licence=image.licence,
                    captions=image.captions,
                )
                for image in joined
            ]
            record_files(session, other.id, source_id, seen)
        dataset.add_from(other, Selection(), with_captions=with_captions)

    return in_dataset(name, work)


def taken(store: ImageStore, other: str, selection: Selection) -> tuple[Joined, ...]:
    from sdlora.store.membership import _captions_in_force, _select

    numbers = {_sha256(content): number for number, content in enumerate(pictures())}
    with store.read() as session:
        rows = _select(session, store.dataset(other).id, selection)
        captions = _captions_in_force(session, [row.member_id for row in rows])
    stronger = {"added": "metadata"}
    return tuple(
        Joined(
            numbers[row.sha256],
            tuple(Caption(one.text, stronger.get(one.origin, one.origin)) for one in captions[row.member_id]),
            row.source,
            row.licence,
        )
        for row in rows
    )


numbers = st.lists(st.integers(0, len(pictures()) - 1), min_size=1, max_size=12, unique=True)
crowds = st.integers(18, 40).map(lambda start: list(range(start, min(start + 14, 54))))
some = st.one_of(numbers, crowds)
names, configs = st.sampled_from(NAMES), st.sampled_from(SETTINGS)
folders = st.sampled_from(["shared", *NAMES])
moves = st.one_of(
    st.tuples(st.just("put"), folders, some),
    st.tuples(st.just("collect"), names, st.sampled_from(["shared", "own"]), st.sampled_from(SETTINGS)),
    st.tuples(st.just("take"), folders, some),
    st.tuples(st.just("add"), names, some),
    st.tuples(st.just("move"), names, names, some, st.booleans()),
    st.tuples(st.just("remove"), names, numbers),
    st.tuples(st.just("bring back"), names),
    st.tuples(st.just("caption"), names, numbers),
    st.tuples(st.just("decide"), names, numbers, st.sampled_from(["accepted", "rejected", "undo"])),
    st.tuples(st.just("purge"), st.integers(0, len(pictures()) - 1)),
    st.tuples(st.just("rate"), st.integers(0, len(pictures()) - 1), st.integers(1, 5)),
    st.tuples(st.just("freeze"), names, configs),
)
histories = st.lists(moves, min_size=8, max_size=24)


class Shared:
    """A store with all datasets, and the history of each."""

    def __init__(self, store: ImageStore) -> None:
        self.store, self.world = store, World()
        self.histories: dict[str, list[tuple[Step, Any]]] = {name: [] for name in NAMES}

    def take_step(self, names: tuple[str, ...], step: Step, replayed: Step | None = None) -> None:
        outcome = step(self.store)
        for name in names:
            self.histories[name].append((replayed or step, outcome))

    def do(self, move: tuple[Any, ...]) -> None:  # noqa: C901  # one branch for each kind
        kind, *rest = move
        shas = [_sha256(content) for content in pictures()]
        if kind in ("put", "take"):
            getattr(self.world, kind)(*rest)
        elif kind == "collect":
            name, which, config = rest
            folder = "shared" if which == "shared" else name
            if files := dict(self.world.folders.get(folder, {})):
                self.take_step((name,), collecting(name, folder, files, config))
        elif kind == "add":
            name, chosen = rest
            for number in chosen:
                content = pictures()[number]
                self.take_step((name,), in_dataset(name, lambda dataset, content=content: dataset.add_image(content)))
        elif kind == "move":
            name, other, chosen, with_captions = rest
            if name != other:
                selection = Selection(ids=tuple(shas[number] for number in chosen))
                joined = taken(self.store, other, selection)
                scratch = f"scratch-{len(self.histories[name])}"
                work = in_dataset(
                    name,
                    lambda dataset: (
                        dataset.add_from(dataset.store.dataset(other), selection, with_captions=with_captions) and None
                    ),
                )
                self.take_step((name,), work, joining(name, joined, scratch, with_captions))
        elif kind == "remove":
            name, chosen = rest
            selection = Selection(ids=tuple(shas[number] for number in chosen))
            self.take_step((name,), in_dataset(name, lambda dataset: dataset.remove(selection, "ana")))
        elif kind == "bring back":
            (name,) = rest
            self.take_step((name,), in_dataset(name, lambda dataset: dataset.bring_back(Selection())))
        elif kind == "caption":
            name, chosen = rest
            for sha256 in [shas[number] for number in chosen][:3]:
                work = lambda dataset, sha256=sha256: dataset.set_captions(sha256, ["by hand"]).captions  # noqa: E731
                self.take_step((name,), in_dataset(name, work))
        elif kind == "decide":
            name, chosen, verdict = rest
            for sha256 in [shas[number] for number in chosen][:3]:
                self.take_step((name,), in_dataset(name, lambda d, s=sha256: _decide(d, s, verdict)))
        elif kind == "purge":
            sha256 = shas[rest[0]]
            self.take_step(NAMES, lambda store: store.purge(sha256, "a takedown", "ana") and None)
        elif kind == "rate":
            sha256, stars = shas[rest[0]], rest[1]
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
    new_store: Callable[[], ImageStore], history: list[tuple[Any, ...]], final: list[DataConfig], min_members: int
) -> None:
    with new_store() as store:
        _fill_elsewhere(store)
        shared = Shared(store)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clusters, "MIN_MEMBERS", min_members)
            patch.setattr("sdlora.store.curation.MIN_MEMBERS", min_members)
            patch.setattr("sdlora.store.clusters.MIN_MEMBERS", min_members)
            for move in history:
                shared.do(move)
            for name, config in zip(NAMES, final, strict=True):
                shared.do(("freeze", name, config))
    for name, steps in shared.histories.items():
        with new_store() as fresh:
            _fill_elsewhere(fresh)
            for number, (step, outcome) in enumerate(steps):
                repeated = step(fresh)
                if isinstance(outcome, tuple) and len(outcome) == 2 and isinstance(outcome[0], dict):
                    assert repeated == outcome, (name, number)


def _fill_elsewhere(store: ImageStore) -> None:
    dataset = store.dataset(ELSEWHERE)
    with store.write() as session:
        source_id = register_source(session, dataset.id, "all", "all")
        files = [SeenFile(str(n), _sha256(content), len(content)) for n, content in enumerate(pictures())]
        record_files(session, dataset.id, source_id, files)


arguments = given(
    history=histories,
    final=st.lists(st.sampled_from(SETTINGS), min_size=3, max_size=3),
    min_members=st.sampled_from([2, 4, clusters.MIN_MEMBERS]),
)


@settings(deadline=None, max_examples=10)
@arguments
def test_each_snapshot_is_that_of_a_fresh_store_with_the_datasets_own_history(
    empty_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[Any, ...]],
    final: list[DataConfig],
    min_members: int,
) -> None:
    def new_store() -> ImageStore:
        home = tmp_path_factory.mktemp("home")
        shutil.copy(empty_database, home)
        return ImageStore.open(home)

    _compare_with_fresh_stores(new_store, history, final, min_members)


@pytest.mark.slow
@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@arguments
def test_so_it_is_on_servers(
    on_servers: Callable[[], StoreLocation],
    tmp_path: Path,
    history: list[tuple[Any, ...]],
    final: list[DataConfig],
    min_members: int,
) -> None:
    _compare_with_fresh_stores(lambda: ImageStore.open(tmp_path, on_servers()), history, final, min_members)
