"""Image database of a state folder, opened for a command, and the dataset that the command is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdlora.config import PipelineConfig
    from sdlora.store.dataset import Dataset
    from sdlora.store.image_store import ImageStore

DEFAULT_DATASET = "style"
"""Dataset that the first `sdlora collect` fills without a name: the default name of a style."""


@contextmanager
def existing_store(home: Path) -> Iterator[ImageStore]:
    """Open the store of `home`; a misspelt folder creates no store.

    Raises:
        DataError: no image was collected there.
    """
    from sdlora.core.errors import DataError
    from sdlora.store.image_store import ImageStore

    if not has_store(home):
        raise DataError(f"No images yet in {home}. Collect some: sdlora collect FOLDER")
    with ImageStore.open(home) as store:
        yield store


@contextmanager
def chosen_dataset(home: Path, name: str | None, style: PipelineConfig | None = None) -> Iterator[Dataset]:
    """Open the store of `home` for the dataset of a command.

    Args:
        home: the state folder.
        name: name given on the command line.
        style: style given on the command line; without a name its dataset is taken, if there is one.

    Raises:
        DataError: no image was collected there, there is no such dataset, or none was named and there are several.
    """
    with existing_store(home) as store:
        yield choose_dataset(store, name or only_dataset(store, style))


def only_dataset(store: ImageStore, style: PipelineConfig | None = None) -> str | None:
    """Return the name of the style's dataset if there is one, else of the only dataset; None if there are several."""
    names, of_style = store.dataset_names(), dataset_of(style)
    if of_style in names:
        return of_style
    return names[0] if len(names) == 1 else None


def choose_dataset(store: ImageStore, name: str | None) -> Dataset:
    """Return the named dataset; without a name the only one.

    Raises:
        DataError: there is no such dataset, or none was named and there are several.
    """
    from sdlora.core.errors import DataError

    names = store.dataset_names()
    if name is None and len(names) != 1:
        if not names:
            raise DataError(f"No images yet in {store.home}. Collect some: sdlora collect FOLDER")
        raise DataError(
            f"There are several datasets: {', '.join(names)}. Name one with --dataset, or a style with --style."
        )
    return store.existing_dataset(name or names[0])


def dataset_of_image(store: ImageStore, name: str | None, sha256: str) -> Dataset:
    """Return the named dataset; without a name the only one, or the only one that has the image.

    Raises:
        DataError: there is no such dataset, or none was named and several have the image.
    """
    names = store.datasets_of(sha256) if name is None else []
    return choose_dataset(store, names[0] if len(names) == 1 else name)


@contextmanager
def dataset_to_fill(store: ImageStore, name: str | None) -> Iterator[Dataset]:
    """Provide the dataset that collected sources join: the named one, which may be new, or the only one.

    The dataset of a style counts before the style's first run. The demo's dataset is never taken without being named,
    so that nobody's images get in between its images. A new dataset that gets no image is not kept, because its name
    may be misspelt.

    Args:
        store: the image database.
        name: name given on the command line, or of a style's dataset.

    Raises:
        DataError: none was named, and it is not clear which one is meant.
    """
    names = store.dataset_names()
    dataset = store.dataset(name or _name_to_fill(names, store.home))
    try:
        yield dataset
    finally:
        if dataset.name not in names and not dataset.counts().total:
            store.delete_dataset(dataset.name)


def _name_to_fill(names: list[str], home: Path) -> str:
    from deployments.styles.files import DEMO_STYLE, load_styles
    from sdlora.core.errors import DataError

    of_styles = {dataset_of(style.config) or style.name for style in load_styles(home)}
    names = sorted({*names, *of_styles})
    others = [name for name in names if name != DEMO_STYLE]
    if names and len(others) != 1:
        raise DataError(
            f"Which dataset do these images join? Give --dataset and a name: a new one, or one of {', '.join(names)}."
        )
    return others[0] if others else DEFAULT_DATASET


def dataset_of(style: PipelineConfig | None) -> str | None:
    """Return the name of the dataset that a style learns from."""
    return (style.data.dataset or style.name) if style else None


def has_store(home: Path) -> bool:
    """Return True if images may exist. A database server that the environment names counts as yes, unasked."""
    from sdlora.store.location import StoreLocation

    return StoreLocation.of_home(home).may_hold_images
