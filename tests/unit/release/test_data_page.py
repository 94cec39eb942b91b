from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.release.data_facts import gather_facts
from sdlora.release.data_page import render_data_page, write_data_page
from sdlora.release.images import Thumbnails
from sdlora.store.dataset import Dataset
from tests.stores import both_places, dataset, empty_database, location, migrated, on_servers, postgres, s3, store
from tests.unit.data.drawing import drawing, fill_folder

__all__ = ["dataset", "empty_database", "location", "migrated", "on_servers", "postgres", "s3", "store"]
CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten drawings, a smaller copy of one, and one that cannot be read under a hostile name."""
    folder = fill_folder(tmp_path / "pictures", range(10))
    drawing(0, side_px=96).save(folder / "copy.png")
    (folder / "<img src=x onerror=alert(1)>.png").write_bytes(b"\x89PNG torn")
    return folder


def page(dataset: Dataset, **options: str) -> str:
    return render_data_page(gather_facts(dataset, CONFIG, **options), Thumbnails(dataset.store), "<i>Images</i>")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


@both_places
def test_the_page_tells_what_was_left_out_and_why_with_pictures(dataset: Dataset, pictures: Path) -> None:
    collect(dataset, str(pictures), CONFIG)
    clean(dataset, CONFIG)
    facts = gather_facts(dataset, CONFIG)
    (pair,) = facts.pairs
    assert {facts.files[pair.kept], facts.files[pair.left_out]} == {"0000.png", "copy.png"}
    assert facts.counts.rejected_by == {"near_duplicate": 1, "unreadable": 1}
    assert [one.files for one in facts.sources] == [12]
    assert facts.sizes == {(64, 64): 9, (96, 96): 1}
    assert facts.caption_words == {1: 1, 3: 9}  # "copy", from the name of the file
    assert facts.licences == {"not stated": (10, 2)}
    shown = page(dataset)
    reason = dataset.images("rejected", rejected_by="unreadable")[0].reason
    assert reason is not None
    assert reason in shown.replace("&#39;", "'")
    assert shown.count("<img") == 2 + 10  # the pair, and all that is new


def test_what_is_new_is_counted_from_the_snapshot_before(dataset: Dataset, pictures: Path) -> None:
    collect(dataset, str(pictures), CONFIG)
    clean(dataset, CONFIG)
    first = make_snapshot(dataset, CONFIG)
    assert "No snapshot yet" not in page(dataset)
    assert not gather_facts(dataset, CONFIG).changes.any
    changed = dataset.images("accepted")[0].sha256
    dataset.set_captions(changed, ["words by hand"])
    (pictures / "more").mkdir()
    drawing(77).save(pictures / "more" / "new.png")
    collect(dataset, str(pictures), CONFIG)
    clean(dataset, CONFIG)
    waiting = gather_facts(dataset, CONFIG)
    made = make_snapshot(dataset, CONFIG)
    frozen = gather_facts(dataset, CONFIG, made.digest)
    for facts in (waiting, frozen):
        assert facts.since is not None
        assert facts.since.digest == first.digest
        assert [image.files[0].rpartition("/")[2] for image in facts.new] == ["new.png"]
        assert [(one.sha256, one.after) for one in facts.recaptioned] == [(changed, ("words by hand",))]
    assert "words by hand" in page(dataset, snapshot_digest=made.digest)


def test_weights_are_shown_where_they_differ(dataset: Dataset, pictures: Path) -> None:
    collect(dataset, str(pictures), CONFIG)
    clean(dataset, CONFIG)
    plain = make_snapshot(dataset, CONFIG)
    assert "Weight in training" not in page(dataset)
    dataset.store.rate(plain.train[0].sha256, 5, "ana")
    waiting = page(dataset)
    assert "1 another weight" in waiting
    made = make_snapshot(dataset, CONFIG)
    facts = gather_facts(dataset, CONFIG, made.digest)
    assert facts.weights == {1.0: len(made.train) - 1, 4.0: 1}
    share = 4 / (len(made.train) + 3)
    expected = f"from 1 to 4; the heaviest are {share:.0%} of the images that training shows"
    assert expected in page(dataset, snapshot_digest=made.digest)


def test_a_persons_decisions_are_shown_and_a_purged_image_has_no_picture(dataset: Dataset, pictures: Path) -> None:
    collect(dataset, str(pictures), CONFIG)
    clean(dataset, CONFIG)
    kept, gone = (image.sha256 for image in dataset.images("accepted", limit=2))
    dataset.decide(kept, "rejected", "a </figcaption> logo", "ana")
    dataset.store.purge(gone, "a takedown", "ana")
    shown = page(dataset)
    assert "a &lt;/figcaption&gt; logo" in shown
    assert "purged by ana" in shown
    assert "1 purged, the others kept" in shown
    assert Thumbnails(dataset.store).of(gone) is None


def test_the_page_loads_nothing_runs_nothing_and_escapes_what_others_wrote(dataset: Dataset, pictures: Path) -> None:
    collect(dataset, str(pictures), CONFIG)
    clean(dataset, CONFIG)
    shown = page(dataset)
    tags = Tags(shown).found
    assert "script" not in {tag for tag, _ in tags}
    assert not [attributes for _, attributes in tags if any(name.startswith("on") for name in attributes)]
    assert all(attributes["src"].startswith("data:image/") for tag, attributes in tags if tag == "img")
    assert "&lt;i&gt;Images&lt;/i&gt;" in shown
    assert not re.search(r"(src|href)=.https?:", shown)
    assert "style" not in {name for _, attributes in tags for name in attributes}  # the policy would not apply it


def test_pictures_stop_at_the_budget_and_the_page_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    for seed in range(3):
        path = tmp_path / f"{seed}.png"
        Image.effect_noise((300, 300), 90 + seed).save(path)
        dataset.add_image(path.read_bytes())
    thumbnails = Thumbnails(dataset.store, budget_left_bytes=1000)
    made = [thumbnails.of(image.sha256) for image in dataset.images()]
    assert made[0] is not None
    assert made[1:] == [None, None]
    assert thumbnails.of(dataset.images()[0].sha256) == made[0]


def test_an_empty_store_has_a_page_too(dataset: Dataset, tmp_path: Path) -> None:
    written = write_data_page(dataset, CONFIG, tmp_path / "new folder" / "data.html", title="Images")
    assert "No snapshot yet" in written.path.read_text()
    assert written.trouble is None


def damage(dataset: Dataset) -> None:
    """Lose the words of one row of the newest snapshot."""
    with dataset.store.write() as session:
        session.connection().exec_driver_sql(
            "UPDATE snapshot_images SET captions = '[]' WHERE image_id = (SELECT max(image_id) FROM snapshot_images)"
            " AND snapshot_id = (SELECT max(id) FROM snapshots)"
        )


@both_places
def test_a_damaged_snapshot_costs_the_page_what_is_new_and_nothing_else(dataset: Dataset, pictures: Path) -> None:
    collect(dataset, str(pictures), CONFIG)
    clean(dataset, CONFIG)
    first = make_snapshot(dataset, CONFIG)
    whole = page(dataset)
    damage(dataset)
    facts = gather_facts(dataset, CONFIG)
    shown = page(dataset)
    assert f"Snapshot {first.digest[:16]} is damaged" in (facts.trouble or "")
    assert "sdlora run" in (facts.trouble or "")
    assert "The changes are unknown. Snapshot" in shown
    assert "near-duplicates" in shown
    assert "The changes are unknown" not in whole
    dataset.set_captions(first.rows[0].sha256, ["other words"])
    clean(dataset, CONFIG)
    frozen = gather_facts(dataset, CONFIG, make_snapshot(dataset, CONFIG).digest)
    assert first.digest[:16] in (frozen.trouble or "")
