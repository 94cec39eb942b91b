"""Named sets of images in one store."""

from __future__ import annotations

import pytest

from sdlora.core.errors import DataError
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.selection import Selection
from tests.stores import both_places
from tests.unit.store.test_lineage import freeze, learn

pytestmark = both_places


@pytest.fixture
def ink(store: ImageStore) -> Dataset:
    return store.dataset("ink")


@pytest.fixture
def props(store: ImageStore) -> Dataset:
    return store.dataset("props")


def test_a_dataset_is_made_once_and_found_by_its_name(store: ImageStore) -> None:
    made = store.dataset("ink")
    assert store.dataset("ink") == made == store.existing_dataset("ink")
    assert store.dataset_names() == ["ink"]
    with pytest.raises(DataError, match=r"no dataset 'inc'\. Nearest: ink\."):
        store.existing_dataset("inc")
    with pytest.raises(DataError, match=r"no dataset 'photographs'\. There are: ink\."):
        store.existing_dataset("photographs")
    with pytest.raises(DataError, match="lower-case letters"):
        store.dataset("Ink and Paper")


def test_an_image_of_two_datasets_is_kept_once_with_captions_and_decisions_of_each(
    ink: Dataset, props: Dataset
) -> None:
    sha256 = ink.add_image(b"bytes", ["a trigger word"], licence="CC0")
    assert props.add_image(b"bytes", ["a sword"]) == sha256
    ink.set_captions(sha256, ["by hand"])
    props.decide(sha256, "rejected", "not a prop", "ana")
    assert ink.store.image_count() == 1
    assert (ink.image(sha256).captions, ink.image(sha256).verdict, ink.image(sha256).licence) == (
        ("by hand",),
        None,
        "CC0",
    )
    assert (props.image(sha256).captions, props.image(sha256).verdict, props.image(sha256).licence) == (
        ("a sword",),
        "rejected",
        None,
    )
    assert ink.details(sha256).lineage.datasets == ("ink", "props")
    assert ink.details(sha256).overrides == ()


def test_an_image_of_another_dataset_is_not_found_but_said_to_be_there(ink: Dataset, props: Dataset) -> None:
    sha256 = ink.add_image(b"bytes")
    with pytest.raises(DataError, match=r"not in dataset 'props'\. It is in 'ink' \(--dataset\)"):
        props.image(sha256[:8])


def test_a_takedown_is_everywhere(ink: Dataset, props: Dataset) -> None:
    sha256 = ink.add_image(b"bytes", ["one"])
    props.add_image(b"bytes", ["another"])
    purged = ink.store.purge(sha256, "asked for", "ana")
    assert (purged.captions, purged.lineage.datasets) == (("another", "one"), ("ink", "props"))
    for dataset in (ink, props):
        assert (dataset.image(sha256).rejected_by, dataset.image(sha256).captions) == ("purged", ())
        assert [override.why for override in dataset.details(sha256).overrides] == ["asked for"]
    with pytest.raises(DataError, match="cannot be added again"):
        ink.store.dataset("heroes").add_image(b"bytes")


def test_images_are_added_from_another_dataset_with_the_captions_in_force(ink: Dataset, props: Dataset) -> None:
    sword = ink.add_image(b"sword", ["a sword"], source="a museum", licence="CC0")
    shield = ink.add_image(b"shield", ["a shield"], licence="CC-BY-4.0")
    ink.set_captions(sword, ["a long sword"])
    own = props.add_image(b"shield", ["my own words"])
    assert own == shield
    added = props.add_from(ink, Selection())
    assert (added.new, added.known) == ((sword,), (shield,))
    record = props.image(sword)
    assert (record.captions, record.source, record.licence) == (("a long sword",), "a museum", "CC0")
    assert props.image(shield).captions == ("my own words",)
    ink.set_captions(sword, ["changed afterwards"])
    assert props.image(sword).captions == ("a long sword",)
    props.set_captions(sword, ["by hand"])
    assert props.image(sword).captions == ("by hand",)
    assert props.add_from(ink, Selection()).known == (sword, shield)


def test_captions_may_stay_behind_and_names_stay_the_last_resort(ink: Dataset, props: Dataset) -> None:
    sword = ink.add_image(b"sword", ["a sword"])
    props.add_from(ink, Selection(), with_captions=False)
    assert props.image(sword).captions == ()


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(), "abc"),
        (Selection(licence="cc0*"), "a"),
        (Selection(licence="CC-BY-4._"), ""),
        (Selection(caption="SWORD"), "ac"),
        (Selection(caption="sword", licence="CC-BY*"), "c"),
        (Selection(source="by-*"), "abc"),
        (Selection(source="by-hand/????????*"), "abc"),
        (Selection(source="elsewhere"), ""),
        (Selection(min_stars=4), "b"),
        (Selection(verdict="rejected"), "c"),
        (Selection(rejected_by="person"), "c"),
    ],
)
def test_images_are_selected_by_what_is_recorded_of_them(ink: Dataset, selection: Selection, names: str) -> None:
    shas = {
        "a": ink.add_image(b"a", ["a sword"], licence="CC0-1.0"),
        "b": ink.add_image(b"b", ["a shield"], licence="CC-BY-4.0"),
        "c": ink.add_image(b"c", ["a broken sword"], licence="CC-BY-4.0"),
    }
    ink.store.rate(shas["b"], 5, "ana")
    ink.store.rate(shas["b"], 3, "ben")
    ink.store.rate(shas["a"], 5, "ana")
    ink.store.undo_rating(shas["a"], "ana")
    ink.decide(shas["c"], "rejected", "broken", "ana")
    assert [image.sha256 for image in ink.select(selection)] == [shas[name] for name in names]
    both = Selection(ids=(shas["a"][:10], shas["c"][:10].upper()))
    assert [image.sha256 for image in ink.select(both)] == [shas["a"], shas["c"]]


def test_a_removed_image_stays_out_until_a_person_brings_it_back(ink: Dataset, props: Dataset) -> None:
    sha256 = ink.add_image(b"bytes", ["a caption"])
    props.add_image(b"bytes")
    ink.decide(sha256, "rejected", "a whim", "ana")
    assert ink.remove(Selection(ids=(sha256,)), "ana") == (sha256,)
    ink.add_image(b"bytes")
    assert ink.images() == [] and ink.counts().total == 0
    assert ink.image(sha256).removed_at is not None
    assert len(props.images()) == 1
    with pytest.raises(DataError, match="removed from the dataset"):
        ink.decide(sha256, "accepted", "a whim", "ana")
    assert ink.bring_back(Selection()) == (sha256,)
    assert [image.captions for image in ink.images()] == [("a caption",)]
    ink.remove(Selection(), "ana")
    assert ink.add_from(props, Selection()).new == (sha256,)
    assert ink.counts().pending == 1


def test_a_dataset_is_renamed_with_all_that_it_has(store: ImageStore, ink: Dataset, props: Dataset) -> None:
    sha256 = ink.add_image(b"bytes", ["a caption"])
    store.rename_dataset("ink", "paper")
    assert store.existing_dataset("paper").image(sha256).captions == ("a caption",)
    assert store.dataset_names() == ["paper", "props"]
    for wrong in ("props", "Paper"):
        with pytest.raises(DataError):
            store.rename_dataset("paper", wrong)


def test_a_deleted_dataset_leaves_its_images_to_the_store_and_to_others(
    store: ImageStore, ink: Dataset, props: Dataset
) -> None:
    sha256 = ink.add_image(b"bytes", ["a caption"])
    props.add_image(b"bytes", ["another"])
    ink.decide(sha256, "rejected", "a whim", "ana")
    assert store.delete_dataset("ink") is False
    assert store.dataset_names() == ["props"]
    assert props.image(sha256).captions == ("another",)
    assert store.image_count() == 1
    assert store.dataset("ink").images() == []


def test_a_dataset_with_snapshots_is_deleted_by_force_only_and_its_snapshots_stay(
    store: ImageStore, ink: Dataset
) -> None:
    sha256 = ink.add_image(b"bytes")
    freeze(ink, "a" * 64, [sha256], [])
    learn(ink, "comics", 1, "1" * 64, "a" * 64)
    with pytest.raises(DataError, match=r"1 snapshots stand on dataset 'ink'.*--force"):
        store.delete_dataset("ink")
    assert len(ink.images()) == 1
    assert store.delete_dataset("ink", force=True) is True
    assert store.dataset_names() == []
    (figures,) = store.datasets()
    assert (figures.name, figures.images, figures.versions) == ("ink", 0, ("comics version 1",))
    assert figures.deleted_at is not None
    with pytest.raises(DataError, match=r"'ink' was deleted on .* Choose another name"):
        store.dataset("ink")
    assert [version.label for version in store.lineage(sha256).trained_versions] == ["comics version 1"]
    assert store.snapshot("aa").dataset == "ink"


def test_equal_snapshots_of_two_datasets_are_two_with_parents_and_versions_of_their_own(
    ink: Dataset, props: Dataset
) -> None:
    sha256 = ink.add_image(b"bytes")
    props.add_image(b"bytes")
    for dataset in (ink, props):
        freeze(dataset, "a" * 64, [sha256], [])
    with ink.store.write() as session:
        from sdlora.store.lineage import record_version

        record_version(session, "comics", 1, "1" * 64, "a" * 64, "ink")
        record_version(session, "games", 1, "2" * 64, "a" * 64, "props")
    assert [version.label for version in ink.snapshot("aa").versions] == ["comics version 1"]
    assert [version.label for version in props.snapshot("aa").versions] == ["games version 1"]
    assert ink.store.snapshot("aa").digest == "a" * 64
    assert ink.store.lineage(sha256).trained_styles == ("comics", "games")


def test_datasets_are_listed_with_their_figures(store: ImageStore, ink: Dataset, props: Dataset) -> None:
    first, _ = ink.add_image(b"one"), ink.add_image(b"two")
    props.add_image(b"one")
    ink.decide(first, "rejected", "a whim", "ana")
    figures = [(row.name, row.images, row.rejected, row.pending) for row in store.datasets()]
    assert figures == [("ink", 2, 1, 1), ("props", 1, 0, 1)]
