"""Pictures beside images that say which parts of them count."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import fsspec
import pytest
from PIL import Image, ImageDraw

from sdlora.data.changes import changes_since_snapshot, compare_snapshots
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.decoding.mask import decode_mask, mask_problem
from sdlora.data.snapshot import Snapshot, load_snapshot, make_snapshot
from sdlora.store.dataset import Dataset
from tests.stores import both_places
from tests.unit.data.drawing import drawing, encoded
from tests.unit.data.test_archives import reasons, write_tar, write_zip

CONFIG = DataConfig(min_train_images=1, min_held_out_images=1, held_out_fraction=0.2)


def mask_of(seed: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """White on the left, black on the right of a line that the seed sets."""
    image = Image.new("L", size)
    ImageDraw.Draw(image).rectangle((0, 0, 8 + seed % (size[0] - 16), size[1]), fill=255)
    return encoded(image)


def masked_files(count: int = 8) -> dict[str, bytes]:
    """Images `<seed>.png`, masked in both spellings by turns."""
    files = {f"{seed}.png": encoded(drawing(seed)) for seed in range(count)}
    for seed in range(count):
        files[f"{seed}{('-masklabel.png', '.mask.png')[seed % 2]}"] = mask_of(seed)
    return files


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def freeze(dataset: Dataset, source: Path, config: DataConfig = CONFIG) -> Snapshot:
    collect(dataset, str(source), config)
    clean(dataset, config)
    return make_snapshot(dataset, config)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def check_masks(dataset: Dataset, snapshot: Snapshot) -> None:
    expected = {sha(encoded(drawing(seed))): sha(mask_of(seed)) for seed in range(8)}
    assert {row.sha256 for row in snapshot.rows} == expected.keys()  # no mask became an image
    assert all(row.mask == expected[row.sha256] for row in snapshot.train)
    assert {row.mask for row in snapshot.held_out} == {""}
    assert all(dataset.store.read_bytes(row.mask) == mask_of(seed_of(row.sha256)) for row in snapshot.train)
    assert load_snapshot(dataset.store, snapshot.digest) == snapshot
    assert not changes_since_snapshot(dataset).any


def seed_of(sha256: str) -> int:
    return next(seed for seed in range(8) if sha(encoded(drawing(seed))) == sha256)


@both_places
def test_masks_beside_images_of_a_folder_are_kept_and_are_no_images(dataset: Dataset, folder: Path) -> None:
    write(folder, masked_files())
    report = collect(dataset, str(folder), CONFIG)
    assert (report.files, report.new, report.skipped_count) == (8, 8, 0)
    check_masks(dataset, freeze(dataset, folder))
    again = collect(dataset, str(folder), CONFIG)
    assert (again.bytes_read, again.recaptioned) == (0, 0)
    assert clean(dataset, CONFIG).decided == 0


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_masks_lie_in_archives_as_they_lie_in_folders(kind: str, dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / f"pictures.{kind}"
    files = {f"in/{name}": content for name, content in sorted(masked_files().items())}
    if kind == "zip":
        write_zip(path, files)
    else:
        write_tar(path, files, {"tar": "w", "tar.gz": "w:gz"}[kind])
    check_masks(dataset, freeze(dataset, path))


@both_places
def test_another_mask_makes_another_snapshot_and_so_does_none(dataset: Dataset, folder: Path) -> None:
    write(folder, masked_files())
    first = freeze(dataset, folder)
    changed = first.train[0].sha256
    name = next(path for path in folder.iterdir() if path.read_bytes() == mask_of(seed_of(changed)))
    name.write_bytes(mask_of(40))
    report = collect(dataset, str(folder), CONFIG)
    assert (report.new, report.recaptioned, report.bytes_read) == (0, 1, 0)
    assert clean(dataset, CONFIG).decoded == 0
    assert changes_since_snapshot(dataset).remasked == (changed,)
    second = make_snapshot(dataset, CONFIG)
    assert compare_snapshots(first, second).remasked == (changed,)
    assert {row.sha256: row.mask for row in second.train}[changed] == sha(mask_of(40))
    name.unlink()
    third = freeze(dataset, folder)
    assert {row.sha256: row.mask for row in third.train}[changed] == ""
    assert len({first.digest, second.digest, third.digest}) == 3
    assert dataset.details(changed).mask is None


def test_a_mask_that_cannot_be_used_rejects_its_image_and_names_the_file(dataset: Dataset, folder: Path) -> None:
    files = masked_files(12)
    files["0-masklabel.png"] = mask_of(0, (64, 32))
    files["2-masklabel.png"] = b"no picture"
    files["4-masklabel.png"] = mask_of(4)[:60]
    snapshot = freeze(dataset, write(folder, files))
    told = {image.files[0].rpartition("/")[2]: image.reason for image in dataset.images("rejected", rejected_by="mask")}
    assert told.keys() == {"0.png", "2.png", "4.png"}
    assert "its mask 0-masklabel.png cannot be used: it has 64 x 32 pixels" in told["0.png"]
    assert "the image's 64 x 64" in told["0.png"]
    assert "its mask 2-masklabel.png cannot be used: the bytes are text" in told["2.png"]
    assert "its mask 4-masklabel.png cannot be used: the file is cut short" in told["4.png"]
    assert len(snapshot.rows) == 9

    (folder / "2-masklabel.png").write_bytes(mask_of(2))
    assert len(freeze(dataset, folder).rows) == 10  # mended

    lenient = CONFIG.model_copy(update={"allow_unfit_masks": True})
    everything = freeze(dataset, folder, lenient)
    unfit = {sha(files["0.png"]), sha(files["4.png"])}
    assert {row.mask for row in everything.rows if row.sha256 in unfit} == {""}
    assert len(everything.rows) == 12


def test_a_mask_without_its_image_is_named_and_never_trained_on(dataset: Dataset, folder: Path) -> None:
    write(folder, {"a.png": encoded(drawing(1)), "b-masklabel.png": mask_of(1), "c.MASK.png": mask_of(2)})
    report = collect(dataset, str(folder), CONFIG)
    assert report.new == 1
    told = reasons(report)
    assert told.keys() == {"b-masklabel.png", "c.MASK.png"}
    assert "a mask without its image, which would be called b.png" in told["b-masklabel.png"]


def test_masks_of_more_bytes_than_allowed_are_refused_with_the_reason(dataset: Dataset, folder: Path) -> None:
    image = encoded(drawing(1))
    noise = encoded(Image.effect_noise((64, 64), 90))
    assert len(noise) > len(image)
    write(folder, {"a.png": image, "a.mask.png": noise})
    config = CONFIG.model_copy(update={"max_file_bytes": len(image)})
    collect(dataset, str(folder), config)
    clean(dataset, config)
    assert f"more than max_file_bytes = {len(image):,}" in dataset.images()[0].reason


def test_lost_bytes_of_a_mask_are_collected_again(dataset: Dataset, folder: Path) -> None:
    write(folder, masked_files())
    row = freeze(dataset, folder).train[0]
    dataset.store.blobs.remove(row.mask)
    collect(dataset, str(folder), CONFIG)
    assert sha(dataset.store.read_bytes(row.mask)) == row.mask


@both_places
def test_a_takedown_takes_the_mask_too_unless_another_image_needs_it(dataset: Dataset, folder: Path) -> None:
    files = masked_files(4)
    files["0-masklabel.png"] = files["2-masklabel.png"] = mask_of(7)
    collect(dataset, str(write(folder, files)), CONFIG)
    dataset.store.purge(sha(files["0.png"]), "a takedown", "ana")
    assert dataset.store.read_bytes(sha(mask_of(7))) == mask_of(7)
    dataset.store.purge(sha(files["2.png"]), "a takedown", "ana")
    assert not dataset.store.blobs.has(sha(mask_of(7)), len(mask_of(7)))
    collect(dataset, str(folder), CONFIG)  # its source still shows it
    assert not dataset.store.blobs.has(sha(mask_of(7)), len(mask_of(7)))


def test_a_mask_fits_the_upright_picture_and_may_be_smaller() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    lying = encoded(drawing(1).resize((90, 60)), "JPEG", exif=exif.tobytes())
    assert mask_problem(mask_of(1, (60, 90)), lying, 10**6) is None
    assert "the image's 60 x 90" in mask_problem(mask_of(1, (90, 60)), lying, 10**6)
    photo = encoded(drawing(1).resize((1000, 667)), "JPEG")
    assert mask_problem(mask_of(1, (250, 167)), photo, 10**6) is None
    assert mask_problem(mask_of(1, (250, 170)), photo, 10**6) is not None
    assert "more than max_pixels = 100" in mask_problem(mask_of(1), photo, 100)
    assert mask_problem(mask_of(1), b"no picture", 10**6) is None  # the image's own check speaks


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_of_every_kind_are_light_where_the_image_counts(mode: str) -> None:
    grey = Image.new("L", (4, 2))
    grey.paste(255, (0, 0, 2, 2))
    if mode == "I;16":
        image = Image.new("I;16", (4, 2))
        image.paste(65535, (0, 0, 2, 2))
    else:
        image = grey.convert("RGB").convert(mode) if mode == "P" else grey.convert(mode)
    out = io.BytesIO()
    image.save(out, "PNG")
    assert list(decode_mask(out.getvalue()).tobytes()) == [255, 255, 0, 0] * 2


def named_masks(wrong: str = "") -> dict[str, bytes]:
    """Images in `pictures/`, masks of the same names in `masks/`, and metadata that join them."""
    files = {f"pictures/{seed}.png": encoded(drawing(seed)) for seed in range(8)}
    files |= {f"masks/{seed}.png": mask_of(seed) for seed in range(8)}
    rows = [{"file_name": f"pictures/{seed}.png", "mask": f"masks/{seed}.png"} for seed in range(8)]
    if wrong:
        rows[0]["mask"] = wrong
        del files["masks/0.png"]
    return files | {"metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "memory"])
def test_metadata_name_masks_anywhere_in_the_source(kind: str, dataset: Dataset, folder: Path, tmp_path: Path) -> None:
    source: Path | str = folder
    if kind == "folder":
        write(folder, named_masks())
    elif kind == "memory":
        source = f"memory://{tmp_path.name}"
        for name, content in named_masks().items():
            fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}", content)
    else:
        source = tmp_path / f"pictures.{kind}"
        (write_zip if kind == "zip" else write_tar)(source, named_masks())
    collect(dataset, str(source), CONFIG)
    clean(dataset, CONFIG)
    check_masks(dataset, make_snapshot(dataset, CONFIG))
    assert collect(dataset, str(source), CONFIG).bytes_read == 0


@pytest.mark.parametrize("wrong", ["masks/none.png", "../outside/0.png", "linked/0.png", "/etc/hostname", "masks"])
def test_a_mask_that_metadata_name_and_that_is_not_there_rejects_its_image(
    wrong: str, dataset: Dataset, folder: Path
) -> None:
    write(folder.parent / "outside", {"0.png": mask_of(0)})
    write(folder, named_masks(wrong))
    (folder / "linked").symlink_to(folder.parent / "outside")
    collect(dataset, str(folder), CONFIG)
    clean(dataset, CONFIG)
    (image,) = dataset.images("rejected", rejected_by="mask")
    assert image.files == ("pictures/pictures/0.png",)
    assert "there is no such file in the source" in image.reason
    assert len(dataset.images("accepted")) == 7
