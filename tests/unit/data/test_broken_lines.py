"""What cannot be read of metadata and captions costs a line or a caption, with its reason, and no image."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from deployments.cli.collect import _summary
from sdlora.core.errors import DataError
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.collect_report import CollectReport
from sdlora.data.config import DataConfig
from sdlora.data.sources.rows import MAX_LINE_CHARS
from sdlora.store.dataset import Dataset
from tasks.pages.run_page import images_page
from tests.unit.data.drawing import drawing, encoded, fill_folder

CONFIG = DataConfig()


def problems(report: CollectReport) -> dict[str, str]:
    return {problem.path: problem.reason for problem in report.problems}


def captions(dataset: Dataset) -> dict[str, str]:
    return {image.files[0].rpartition("/")[2]: image.captions[0] for image in dataset.images()}


def test_a_broken_line_of_json_costs_that_line(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(9), captions=False)
    lines = [
        b'{"file_name": "0000.png", "text": "zero"}',
        b"{oops",
        b'["0001.png"]',
        b'{"file": "0002.png"}',
        b'{"file_name": "0003.png", "text": "\xff"}',
        b'{"file_name": "0004.png", "seed": %s}' % (b"9" * 5000),
        b"[" * 5000,
        b'{"file_name": "0005.png", "text": "%s"}' % (b"x" * MAX_LINE_CHARS),
        b"",
        b'{"file_name": "0006.png", "text": "six"}',
    ]
    (folder / "metadata.jsonl").write_bytes(b"\n".join(lines))
    report = collect(dataset, str(folder), CONFIG)
    assert (report.new, report.skipped_count, report.problem_count) == (9, 0, 7)
    assert problems(report) == {
        "metadata.jsonl, line 2": "not JSON: Expecting property name enclosed in double quotes at character 2",
        "metadata.jsonl, line 3": "expected an object in braces, found list",
        "metadata.jsonl, line 4": "expected a `file_name`, found the keys file",
        "metadata.jsonl, line 5": "not UTF-8 text",
        "metadata.jsonl, line 6": "not read: it has an integer of more than 4,300 digits",
        "metadata.jsonl, line 7": "not read: lists or objects are nested more than 64 deep",
        "metadata.jsonl, line 8": "more than 1,048,576 characters",
    }
    found = captions(dataset)
    assert (found["0000.png"], found["0006.png"], found["0001.png"]) == ("zero", "six", "0001")


def test_a_broken_line_of_csv_costs_that_line_and_not_the_next_one(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(8), captions=False)
    lines = [
        b"file_name,text",
        b'0000.png,"not closed',
        b'0001.png,"a cat, sitting"',
        b"0002.png,\xff",
        b'0003.png,"two',
        b'lines"',
        b"0004.png," + b"x" * 200_000,
        b'0005.png,"says "hi" to you"',
        b'0006.png,"not closed either',
        b"0007.png,last",
    ]
    (folder / "metadata.csv").write_bytes(b"\n".join(lines))
    limit = csv.field_size_limit()
    report = collect(dataset, str(folder), CONFIG)
    assert csv.field_size_limit() == limit
    assert report.new == 8
    assert problems(report) == {
        "metadata.csv, line 2": "its quotes cannot be understood",
        "metadata.csv, line 4": "not UTF-8 text",
        "metadata.csv, line 9": "its quotes cannot be understood",
        "0004.png": "1 caption of up to 200,000 characters left out, more than 10,000",
    }
    assert captions(dataset) == {
        "0000.png": "0000",
        "0001.png": "a cat, sitting",
        "0002.png": "0002",
        "0003.png": "two lines",
        "0004.png": "0004",
        "0005.png": 'says hi" to you"',
        "0006.png": "0006",
        "0007.png": "last",
    }


def test_a_caption_over_the_limit_costs_the_caption_wherever_it_comes_from(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(4), captions=False)
    long = "x" * 10_001
    (folder / "0000.txt").write_text(f"{long}\nshort\n")
    (folder / "0001.json").write_text(json.dumps({"text": [f"caption {number}" for number in range(101)]}))
    (folder / "0002.txt").write_text("y" * 300_000)
    (folder / "0003.json").write_text("{")
    (folder / "a.jpg").write_bytes(encoded(drawing(7), "JPEG", exif=_description("z" * 20_000)))
    report = collect(dataset, str(folder), CONFIG)
    assert report.new == 5
    assert problems(report) == {
        "0000.png": "its .txt: 1 caption of up to 10,001 characters left out, more than 10,000",
        "0001.png": "its .json: 1 caption after the first 100 left out",
        "0002.png": "its .txt: 300,000 bytes, more than a sidecar may have = 262,144",
        "0003.png": "its .json: not JSON: Expecting property name enclosed in double quotes at character 2",
        "a.jpg": "1 caption of up to 20,000 characters left out, more than 10,000",
    }
    found = captions(dataset)
    assert (found["0000.png"], found["0002.png"], found["a.jpg"]) == ("short", "0002", "a")
    assert max(len(image.captions) for image in dataset.images()) == 100


def test_lines_and_captions_that_were_not_read_are_told_where_people_look(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(2))
    (folder / "metadata.jsonl").write_text("{oops\n" + '{"file_name": "0000.png", "text": "' + "x" * 20_000 + '"}\n')
    report = collect(dataset, str(folder), CONFIG)
    page = images_page([report], clean(dataset, CONFIG))
    for place, reason in problems(report).items():
        for shown in (_summary(report), page):
            assert place.partition(",")[0] in shown
            assert reason.partition(" at ")[0] in shown
    assert "2 lines or captions not read; no image is lost" in _summary(report)


def test_a_line_of_a_list_that_cannot_be_read_is_a_skipped_image(dataset: Dataset, folder: Path) -> None:
    config = CONFIG.model_copy(update={"url_retries": 0})
    (folder / "a.jsonl").write_text('{oops\n{"text": "no address"}\n{"url": "ftp://host/a.png"}\n')
    (folder / "b.csv").write_bytes(
        b'url,text\nftp://host/b.png,"open\nftp://host/c.png,x\nftp://host/d.png,\xff\n,none\n'
    )
    (folder / "c.txt").write_bytes(b"ftp://host/e.png\n\xff\nhttp://host/" + b"a" * 10_000 + b"\n")
    skipped = {
        name: {item.path: item.reason for item in collect(dataset, str(folder / name), config).skipped}
        for name in ("a.jsonl", "b.csv", "c.txt")
    }
    scheme = "its scheme is ftp, expected http or https"
    assert skipped["a.jsonl"] == {
        "line 1": "not JSON: Expecting property name enclosed in double quotes at character 2",
        "line 2": "no address in 'url'",
        "ftp://host/a.png": scheme,
    }
    assert skipped["b.csv"] == {
        "line 2": "its quotes cannot be understood",
        "ftp://host/c.png": scheme,
        "line 4": "not UTF-8 text",
        "line 5": "no address in 'url'",
    }
    assert skipped["c.txt"] == {
        "ftp://host/e.png": scheme,
        "line 2": "not UTF-8 text",
        "line 3": "its address has 10,012 characters, more than 8,192",
    }
    (folder / "d.jsonl").write_text("{oops\n{again\n")
    with pytest.raises(DataError, match=r"no line can be read: line 1: not JSON.*Correct the list"):
        collect(dataset, str(folder / "d.jsonl"), config)


def test_a_metadata_file_that_is_too_large_costs_its_captions_only(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(2), captions=False)
    rows = [json.dumps({"file_name": f"{number:04d}.png", "text": "x" * 4000}) for number in range(400)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    size = (folder / "metadata.jsonl").stat().st_size
    report = collect(dataset, str(folder), CONFIG.model_copy(update={"max_file_bytes": 10**6}))
    assert report.new == 2
    assert problems(report) == {"metadata.jsonl": f"{size:,} bytes, more than max_file_bytes = 1,000,000"}


@pytest.mark.parametrize(
    "name", ["a\0b", "x" * 300, "file:///a%00b", "http://[", "~nobody-at-all/x", "x-{1..%s}.tar" % ("9" * 5000)]
)
def test_an_address_that_can_be_no_path_is_refused_with_a_message(dataset: Dataset, folder: Path, name: str) -> None:
    uri = name if "/" in name else str(folder / name)
    with pytest.raises(DataError, match=r"^data\.sources: ") as caught:
        collect(dataset, uri, CONFIG)
    assert "\0" not in str(caught.value)
    if "\0" in name or "%00" in name:
        assert "has a NUL character" in str(caught.value)


def _description(text: str) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[0x010E] = text
    return exif.tobytes()
