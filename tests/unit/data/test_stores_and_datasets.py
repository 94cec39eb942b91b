"""Sources behind fsspec, streamed data sets, and images that a model drew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from sdlora.core.errors import DataError
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.sources.datasets import streamed
from sdlora.data.sources.source_file import expand_braces
from sdlora.store.dataset import Dataset
from tests.unit.data.drawing import drawing, encoded, fill_folder

CONFIG = DataConfig()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


def test_a_folder_in_any_store_is_read_as_a_local_one(dataset: Dataset, memory: fsspec.AbstractFileSystem) -> None:
    for seed in range(4):
        memory.pipe_file(f"/bucket/art/{'in/' if seed > 1 else ''}{seed}.png", encoded(drawing(seed)))
    memory.pipe_file("/bucket/art/0.txt", b"from a text file")
    memory.pipe_file("/bucket/art/metadata.jsonl", b'{"file_name": "in/2.png", "text": "from metadata"}\n')
    memory.pipe_file("/bucket/art/.hidden/9.png", b"x")
    report = collect(dataset, "memory://bucket/art", CONFIG)
    assert (report.source, report.files, report.new) == ("art", 4, 4)
    assert {image.files[0]: image.captions[0] for image in dataset.images()} == {
        "art/0.png": "from a text file",
        "art/1.png": "1",
        "art/in/2.png": "from metadata",
        "art/in/3.png": "3",
    }
    again = collect(dataset, "memory://bucket/art/", CONFIG)
    assert (again.new, again.known, again.bytes_read) == (0, 4, 0)
    memory.pipe_file("/bucket/art/1.png", encoded(drawing(77)))
    assert collect(dataset, "memory://bucket/art", CONFIG).new == 1


def test_an_archive_in_a_store_is_read_there(dataset: Dataset, memory: fsspec.AbstractFileSystem, folder: Path) -> None:
    from tests.unit.data.test_archives import write_tar, write_zip

    members = {f"{seed}.png": encoded(drawing(seed)) for seed in range(3)}
    memory.pipe_file("/bucket/a.zip", write_zip(folder / "a.zip", members).read_bytes())
    for shard in range(2):
        memory.pipe_file(f"/bucket/s-{shard}.tar.gz", write_tar(folder / "a.tgz", members, "w:gz").read_bytes())
    assert collect(dataset, "memory://bucket/a.zip", CONFIG).new == 3
    assert collect(dataset, "memory://bucket/s-*.tar.gz", CONFIG).known == 6


def test_a_store_without_driver_or_contents_is_refused_with_the_remedy(
    dataset: Dataset, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(uri: str) -> None:
        raise ImportError("Install s3fs to access S3")

    with pytest.raises(DataError, match="nothing there"):
        collect(dataset, "memory://nowhere", CONFIG)
    memory.pipe_file("/notes/a.md", b"x")
    with pytest.raises(DataError, match="no image in 'memory://notes'"):
        collect(dataset, "memory://notes", CONFIG)
    with pytest.raises(DataError, match="one page of the web"):
        collect(dataset, "https://example.org/gallery", CONFIG)
    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(DataError, match="Run: pip install s3fs"):
        collect(dataset, "s3://bucket/art", CONFIG)


def _datasets():
    import datasets  # not at the top: processes that other tests start import this folder, too

    return datasets


def test_parquet_files_with_images_are_streamed(dataset: Dataset, folder: Path) -> None:
    datasets = _datasets()
    for part in range(2):
        rows = {
            "image": [{"bytes": encoded(drawing(10 * part + seed)), "path": None} for seed in range(3)],
            "text": [f"number {10 * part + seed}" for seed in range(3)],
        }
        table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        table.to_parquet(folder / f"train-{part:05d}.parquet")
    report = collect(dataset, str(folder / "train-*.parquet"), CONFIG)
    assert (report.files, report.new) == (6, 6)
    assert dataset.images()[4].captions == ("number 11",)
    assert collect(dataset, str(folder / "train-*.parquet"), CONFIG).bytes_read == 0


def test_a_hub_dataset_is_streamed_at_the_commit_that_its_revision_means(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = _datasets()
    fill_folder(folder / "local", range(4))
    asked: list[tuple[str, str | None, str | None]] = []

    class Info:
        sha = "c0ffee"

    class Hub:  # stands in for the hub, which cannot be reached; the loading itself is real
        def dataset_info(self, name: str, revision: str | None) -> Info:
            asked.append((name, revision, None))
            return Info()

    real = datasets.load_dataset

    def load(name: str, config: str | None, *, split: str | None, revision: str, streaming: bool) -> object:
        asked.append((name, revision, split))
        assert streaming
        return real("imagefolder", data_dir=str(folder / "local"), split=split, streaming=True)

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(datasets, "load_dataset", load)
    report = collect(dataset, "hf://datasets/someone/birds@main?split=train", CONFIG)
    assert asked == [("someone/birds", "main", None), ("someone/birds", "c0ffee", "train")]
    assert (report.source, report.files, report.new) == ("birds", 4, 4)
    assert {image.captions for image in dataset.images()} == {(f"drawing number {seed}",) for seed in range(4)}
    again = collect(dataset, "hf://datasets/someone/birds@v2?split=train", CONFIG)  # another name of the same commit
    assert (again.new, again.known, again.bytes_read) == (0, 4, 0)


def test_the_hub_out_of_reach_and_tables_without_images_are_told(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"hf://datasets/someone/birds.*cannot be loaded.*Check the name"):
        collect(dataset, "hf://datasets/someone/birds", CONFIG)
    table = _datasets().Dataset.from_dict({"text": ["a"]}).to_iterable_dataset()
    with pytest.raises(DataError, match=r"no image column, found text \(Value\)"):
        streamed("x", "x", {"rows": table}, "1", CONFIG)


def test_what_people_liked_becomes_a_source_with_the_prompt_as_caption(dataset: Dataset) -> None:
    shas = [
        dataset.store.add_generation(
            encoded(drawing(seed)), model_version="7", prompt=f"a bird {seed}", seed=seed, steps=2, guidance_scale=4.0
        )
        for seed in range(3)
    ]
    with pytest.raises(DataError, match="no generated image has a mean rating of 4 stars"):
        collect(dataset, "generated://", CONFIG)
    for sha256, stars in zip(shas, (5, 4, 2), strict=True):
        dataset.store.rate(sha256, stars, "one")
    dataset.store.rate(shas[1], 1, "another")
    dataset.store.rate(shas[1], 4, "another")  # a later word of the same person
    report = collect(dataset, "generated://?min_stars=4", CONFIG)
    assert (report.source, report.new) == ("generated", 2)
    assert [(image.sha256, image.captions) for image in dataset.images()] == [
        (shas[0], ("a bird 0",)),
        (shas[1], ("a bird 1",)),
    ]
    assert collect(dataset, "generated://?min_stars=1&version=7", CONFIG).new == 1
    for wrong in ("generated://?min_stars=9", "generated://?stars=4", "generated://?min_stars=many"):
        with pytest.raises(DataError, match="expected generated://"):
            collect(dataset, wrong, CONFIG)
    with pytest.raises(DataError, match="1 to 5"):
        dataset.store.rate(shas[0], 6)
    with pytest.raises(DataError, match="expected the first digits of one image"):
        dataset.store.rate("0" * 64, 3)


@pytest.mark.parametrize(
    ("pattern", "addresses"),
    [
        ("x-{08..10}.tar", ["x-08.tar", "x-09.tar", "x-10.tar"]),
        ("{a,b}/{1..2}", ["a/1", "a/2", "b/1", "b/2"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("plain{x}.tar", ["plain{x}.tar"]),
    ],
)
def test_braces_mean_what_they_mean_to_a_shell(pattern: str, addresses: list[str]) -> None:
    assert expand_braces(pattern) == addresses
    with pytest.raises(DataError, match="100,000"):
        expand_braces("{0..99999}-{0..99}")


def test_metadata_rows_in_json_may_hold_several_captions(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(1), captions=False)
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "0000.png", "captions": ["one", "two"]}) + "\n")
    collect(dataset, str(folder), CONFIG)
    assert dataset.images()[0].captions == ("one", "two")


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:S3cr3t@host/folder",
        "https://host/a.zip?X-Amz-Date=1&X-Amz-Signature=S3cr3t",
        "memory://user:S3cr3t@host/nowhere",
        "memory://user:S3cr3t@host/nowhere.zip",
        "nosuch://user:S3cr3t@host/folder",
    ],
)
def test_an_address_that_is_refused_is_quoted_without_what_grants_access(dataset: Dataset, uri: str) -> None:
    with pytest.raises(DataError, match=r"data\.sources: .*://host/|data\.sources: .*'memory://host/") as caught:
        collect(dataset, uri, CONFIG)
    assert "S3cr3t" not in str(caught.value)


def test_a_table_that_names_files_leads_neither_inwards_nor_to_more_than_a_file_may_hold(
    dataset: Dataset, folder: Path
) -> None:
    datasets = _datasets()
    (folder / "large.png").write_bytes(bytes(200_000))
    (folder / "good.png").write_bytes(encoded(drawing(1)))
    paths = [
        "http://169.254.169.254/a.png",
        "zip://a.png::http://127.0.0.1/a.zip",
        str(folder / "large.png"),
        "",
        str(folder / "good.png"),
    ]
    rows = {"image": [{"bytes": None, "path": path} for path in paths] + [{"bytes": bytes(200_000), "path": None}]}
    features = datasets.Features(image={"bytes": datasets.Value("binary"), "path": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features).to_parquet(folder / "a.parquet")
    report = collect(dataset, str(folder / "a.parquet"), CONFIG.model_copy(update={"max_file_bytes": 100_000}))
    assert report.new == 1
    assert {skipped.path[-1]: skipped.reason for skipped in report.skipped} == {
        "0": "169.254.169.254 is not on the public internet (allow_private_addresses)",
        "1": "its address leads into a file of the web",
        "2": "more than max_file_bytes = 100,000",
        "3": "the row has no image",
        "5": "more than max_file_bytes = 100,000",
    }
