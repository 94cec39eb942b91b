from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from sdlora.core.errors import DataError
from sdlora.data.config import DataConfig
from sdlora.data.sources import Item, Source, SourceContext
from sdlora.data.sources import open_source as open_source_within
from sdlora.data.sources.captions import find_captions
from sdlora.store.dataset import Dataset
from tests.unit.data.drawing import drawing, encoded

OpenSource = Callable[[str], Source]


@pytest.fixture
def open_source(dataset: Dataset) -> OpenSource:
    return lambda uri: open_source_within(uri, SourceContext(DataConfig(), dataset))


def _texts(item: Item) -> tuple[str, ...]:
    found = find_captions(item, item.sidecar(), lambda: item.read().data)
    return tuple(caption.text for caption in found.captions)


def _captions(source: Source) -> dict[str, tuple[str, ...]]:
    return {item.path: _texts(item) for item in source.items()}


def test_a_folder_is_read_with_all_folders_in_it_but_hidden_ones(open_source: OpenSource, folder: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/deep/er/x.webp", ".hidden.png", ".git/y.png", "notes.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    source = open_source(str(folder))
    assert [item.path for item in source.items()] == ["b.png", "a/z.JPG", "a/deep/er/x.webp"]
    assert (source.name, source.count) == ("pictures", 3)


def test_captions_come_from_metadata_then_a_text_file_then_the_name(open_source: OpenSource, folder: Path) -> None:
    for name in ("one.png", "two.png", "red-apple_3.png", "four.png"):
        (folder / name).write_bytes(b"")
    rows = [
        {"file_name": "one.png", "text": ["first", "second", "", 7], "licence": "CC0", "source": "me"},
        {"file_name": "four.png", "text": None},
        {"file_name": "gone.png", "text": "nothing there"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (folder / "one.txt").write_text("hidden by the metadata")
    (folder / "two.txt").write_bytes("\ufeffa tree\n\n  in  the\tsnow\n".encode())
    assert _captions(open_source(str(folder))) == {
        "one.png": ("first", "second"),
        "two.png": ("a tree", "in the snow"),
        "red-apple_3.png": ("red apple 3",),
        "four.png": ("four",),
    }
    source = open_source(str(folder))
    one = next(item for item in list(source.items()) if item.path == "one.png")
    assert source.unmatched == ["gone.png"]
    assert (one.sidecar().licence, one.sidecar().origin) == ("CC0", "me")


def test_metadata_of_a_folder_further_in_knows_better(open_source: OpenSource, folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "x.png").write_bytes(b"")
    (folder / "metadata.jsonl").write_text('{"file_name": "in/x.png", "text": "from outside"}\n')
    assert _captions(open_source(str(folder))) == {"in/x.png": ("from outside",)}
    (folder / "in" / "metadata.csv").write_text('file_name,text\nx.png,"from inside, with a comma"\n')
    assert _captions(open_source(str(folder))) == {"in/x.png": ("from inside, with a comma",)}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metadata.jsonl", b'{"file_name": "a.png"}\n{oops\n', "line 2: not JSON"),
        ("metadata.jsonl", b'["a.png"]\n', "expected an object"),
        ("metadata.jsonl", b'{"file": "a.png", "text": "x"}\n', "expected a `file_name`, found the keys file, text"),
        ("metadata.csv", b"name,text\na.png,x\n", "expected a `file_name`"),
        ("metadata.csv", b"file_name,text\na.png,\xff\xfe\n", "not UTF-8"),
    ],
)
def test_metadata_that_cannot_be_understood_is_named_by_file_and_line(
    open_source: OpenSource, folder: Path, name: str, content: bytes, words: str
) -> None:
    (folder / "a.png").write_bytes(b"")
    (folder / name).write_bytes(content)
    source = open_source(str(folder))
    assert [item.path for item in source.items()] == ["a.png"]
    ((place, reason),) = source.problems.first
    assert f"{place}: {reason}".startswith(f"{name}, line ")
    assert words in f"{place}: {reason}"


def test_names_that_are_not_utf8_or_hold_control_characters_are_shown_safely(
    open_source: OpenSource, folder: Path
) -> None:
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"1")
    (folder / "line\nbreak\x1b[31m.png").write_bytes(b"2")
    items = {item.path: item for item in open_source(str(folder)).items()}
    assert items["caf\\xe9.png"].read().data == b"1"
    broken = next(item for path, item in items.items() if path.startswith("line"))
    assert _texts(broken)[0] == "line break [31m"


def test_a_missing_folder_a_file_and_a_folder_without_images_are_named_with_the_remedy(
    open_source: OpenSource, folder: Path
) -> None:
    with pytest.raises(DataError, match=r"data\.sources.*nowhere.*nothing there.*Correct the path"):
        open_source(str(folder / "nowhere"))
    (folder / "notes.md").write_text("x")
    with pytest.raises(DataError, match=r"notes\.md.*found a file"):
        open_source(str(folder / "notes.md"))
    (folder / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"expected a URL per line in .*notes\.txt.*found 'x'"):
        open_source(str(folder / "notes.txt"))
    with pytest.raises(DataError, match=r"no image in the folder.*found 2 other files"):
        open_source(str(folder))
    with pytest.raises(DataError, match=r"gopher://host/x.*no kind that can be collected"):
        open_source("gopher://host/x")


def test_a_file_uri_is_a_path(open_source: OpenSource, folder: Path) -> None:
    (folder / "a b.png").write_bytes(b"")
    assert [item.path for item in open_source(folder.as_uri()).items()] == ["a b.png"]


def _dataset(rows: dict[str, list[object]]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image())


def test_a_saved_dataset_gives_undecoded_bytes_and_captions(open_source: OpenSource, folder: Path) -> None:
    contents = [encoded(drawing(seed)) for seed in range(3)]
    rows = {
        "id": [1, 2, 3, 4],
        "picture": [
            *({"bytes": content, "path": None} for content in contents),
            {"bytes": b"no picture", "path": None},
        ],
        "prompt": ["one", "two", "", "four"],
    }
    table = _dataset(rows)
    datasets.DatasetDict(train=table, test=table.select([0])).save_to_disk(folder / "saved")
    source = open_source(str(folder / "saved"))
    items = list(source.items())
    assert source.count == len(items) == 5
    assert [item.path for item in items][:2] == ["test/00000000", "train/00000000"]
    assert [item.read().data for item in items[1:]] == [*contents, b"no picture"]
    assert [_texts(item) for item in items[1:]] == [
        ("one",),
        ("two",),
        (),
        ("four",),
    ]


def test_a_dataset_without_an_image_column_is_refused_with_what_was_found(
    open_source: OpenSource, folder: Path
) -> None:
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(folder / "saved")
    with pytest.raises(DataError, match=r"no image column, found text \(Value\)"):
        open_source(str(folder / "saved"))


def test_a_damaged_dataset_is_refused(open_source: OpenSource, folder: Path) -> None:
    (folder / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be loaded"):
        open_source(str(folder))
