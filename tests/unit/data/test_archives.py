from __future__ import annotations

import io
import json
import re
import resource
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from sdlora.core.errors import DataError
from sdlora.data.collect import collect
from sdlora.data.collect_report import CollectReport
from sdlora.data.config import DataConfig
from sdlora.store.dataset import Dataset
from tests.unit.data.drawing import drawing, encoded

CONFIG = DataConfig()
PICTURES = {f"in/{seed}.png": encoded(drawing(seed)) for seed in range(3)}
BESIDE = {
    "in/0.txt": b"from a text file\n",
    "in/1.json": json.dumps({"caption": "from JSON", "license": "CC0"}).encode(),
    "metadata.jsonl": b'{"file_name": "in/2.png", "text": "from metadata"}\n',
}
CAPTIONS = {"in/0.png": "from a text file", "in/1.png": "from JSON", "in/2.png": "from metadata"}


def write_zip(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def captions(dataset: Dataset, source: str) -> dict[str, str]:
    return {image.files[0].removeprefix(source + "/"): image.captions[0] for image in dataset.images()}


def reasons(report: CollectReport) -> dict[str, str]:
    return {skipped.path: skipped.reason for skipped in report.skipped}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_an_archive_is_collected_as_a_folder_is(dataset: Dataset, folder: Path, name: str) -> None:
    members = dict(reversed((PICTURES | BESIDE | {"__MACOSX/in/._0.png": b"", "readme.md": b"x"}).items()))
    if name.endswith(".zip"):
        write_zip(folder / name, members)
    else:
        packing = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
        write_tar(folder / name, members, packing[(folder / name).suffix])
    report = collect(dataset, str(folder / name), CONFIG)
    assert (report.source, report.files, report.new, report.skipped) == (name, 3, 3, ())
    assert captions(dataset, name) == CAPTIONS
    assert {image.licence for image in dataset.images()} == {None, "CC0"}
    again = collect(dataset, str(folder / name), CONFIG)
    assert (again.new, again.known, again.bytes_read) == (0, 3, 0)


def test_members_that_may_not_come_in_are_named_with_the_reason_and_the_others_do(
    dataset: Dataset, folder: Path
) -> None:
    good = {"good.png": PICTURES["in/0.png"]}
    hostile = {
        "../../escape.png": b"x",
        "/abs.png": b"x",
        "C:\\x.png": b"x",
        "a\\..\\..\\b.png": b"x",
        "n\x1bm.png": b"x",
    }
    write_zip(folder / "a.zip", hostile | good)
    with zipfile.ZipFile(folder / "a.zip", "a") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    report = collect(dataset, str(folder / "a.zip"), CONFIG)
    assert report.new == 1
    assert reasons(report) == {
        "../../escape.png": "its path leads out of the archive",
        "/abs.png": "its path is absolute",
        "C:/x.png": "its path is absolute",
        "a/../../b.png": "its path leads out of the archive",
        "n\\x1bm.png": "its name has control characters",
        "link.png": "a link",
    }
    links = {
        "soft.png": special("soft.png", tarfile.SYMTYPE, "/etc/passwd"),
        "hard.png": special("hard.png", tarfile.LNKTYPE, "/etc/passwd"),
        "device.png": special("device.png", tarfile.CHRTYPE),
        "pipe.png": special("pipe.png", tarfile.FIFOTYPE),
    }
    write_tar(folder / "a.tar.gz", {"../x.png": b"x"} | links | good | {"good.png ": b"y"}, "w:gz")
    report = collect(dataset, str(folder / "a.tar.gz"), CONFIG)
    assert (report.new, report.known) == (0, 1)
    assert reasons(report) == {
        "../x.png": "its path leads out of the archive",
        "soft.png": "a link",
        "hard.png": "a link",
        "device.png": "not a regular file",
        "pipe.png": "not a regular file",
    }
    assert not (folder.parent / "escape.png").exists()


def test_a_gigabyte_of_zeros_costs_no_memory_and_no_image(dataset: Dataset, folder: Path) -> None:
    zeros = bytes(2**20)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", PICTURES["in/0.png"])
        with archive.open("zeros.png", "w", force_zip64=True) as member:
            for _ in range(1024):
                member.write(zeros)
        archive.writestr("small.png", bytes(200_000_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = collect(dataset, str(folder / "a.zip"), CONFIG)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert report.new == 1
    assert {"max_archive_ratio" in reason for reason in reasons(report).values()} == {True}
    assert grown_mib < 50


def test_a_member_that_is_larger_than_it_says_is_refused(dataset: Dataset, folder: Path) -> None:
    write_zip(folder / "a.zip", {"liar.png": bytes(500_000), "good.png": PICTURES["in/0.png"]})
    content = bytearray((folder / "a.zip").read_bytes())
    at = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, at + 24, 1000)  # uncompressed size in the central directory
    (folder / "a.zip").write_bytes(content)
    report = collect(dataset, str(folder / "a.zip"), CONFIG)
    assert report.new == 1
    assert reasons(report).keys() == {"liar.png"}


def test_a_packed_tar_that_unpacks_to_too_much_is_left_where_it_does(dataset: Dataset, folder: Path) -> None:
    write_tar(folder / "a.tar.gz", PICTURES | {"zeros.bin": bytes(100_000_000), "late.png": b"x"}, "w:gz")
    report = collect(dataset, str(folder / "a.tar.gz"), CONFIG)
    assert report.new == 3
    assert [("max_archive_ratio" in reason) for reason in reasons(report).values()] == [True]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_header_that_takes_megabytes_is_not_read(dataset: Dataset, folder: Path, mode: str) -> None:
    path = write_tar(folder / ("a.tar" if mode == "w" else "a.tar.gz"), PICTURES | {"x" * 2**21 + ".png": b"x"}, mode)
    report = collect(dataset, str(path), CONFIG)
    assert report.new == 3
    assert [path for path, reason in reasons(report).items() if "a header of 2," in reason] == ["…"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_overlapping_and_doubled_members_and_too_many_are_refused(dataset: Dataset, folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("one.png", PICTURES["in/0.png"])
        archive.writestr("one.png", PICTURES["in/1.png"])
        archive.writestr("two.png", PICTURES["in/2.png"])
        archive.writestr("three.png", b"three")
        archive.infolist()[3].header_offset = archive.infolist()[2].header_offset
    report = collect(dataset, str(folder / "a.zip"), CONFIG)
    assert report.new == 1
    assert reasons(report) == {
        "one.png": "a second member of this name",
        "two.png": "its bytes overlap another member's",
        "three.png": "its bytes overlap another member's",
    }
    few = CONFIG.model_copy(update={"max_archive_members": 2})
    write_tar(folder / "b.tar", PICTURES)
    report = collect(dataset, str(folder / "b.tar"), few)
    assert report.known + report.new == 2
    assert "max_archive_members" in reasons(report)["…"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_of_a_damaged_archive_the_whole_members_come_in(dataset: Dataset, folder: Path, name: str) -> None:
    many = {f"{seed}.png": encoded(drawing(seed)) for seed in range(20)}
    path = (
        write_zip(folder / name, many, 0)
        if name == "a.zip"
        else write_tar(folder / name, many, "w:gz" if name.endswith("gz") else "w")
    )
    content = bytearray(path.read_bytes())
    if name == "a.zip":
        content[300:400] = bytes(100)
    else:
        content = content[: len(content) // 2]
    path.write_bytes(content)
    report = collect(dataset, str(path), CONFIG)
    assert 5 <= report.new < 20
    assert report.skipped_count >= 1
    path.write_bytes(b"no archive at all" * 100)
    with pytest.raises(DataError, match=r"archive that can be read"):
        collect(dataset, str(path), CONFIG)


def test_webdataset_shards_are_one_source_by_pattern(dataset: Dataset, folder: Path) -> None:
    for shard in range(3):
        members: dict[str, bytes] = {}
        for key in range(4):
            seed = 10 * shard + key
            members |= {f"{key:05d}.png": encoded(drawing(seed)), f"{key:05d}.txt": f"number {seed}".encode()}
        write_tar(folder / f"shard-{shard:03d}.tar", members)
    report = collect(dataset, f"{folder}/shard-{{000..002}}.tar", CONFIG)
    assert (report.files, report.new) == (12, 12)
    told = {image.files[0].partition("/")[2]: image.captions for image in dataset.images()}
    assert told["shard-001.tar/00003.png"] == ("number 13",)
    assert collect(dataset, f"{folder}/*.tar", CONFIG).known == 12
    with pytest.raises(DataError, match="nowhere"):
        collect(dataset, f"{folder}/nowhere-{{0..3}}.tar", CONFIG)


def test_an_archive_of_another_kind_or_without_images_is_refused_with_the_remedy(
    dataset: Dataset, folder: Path
) -> None:
    others = {
        "a b.7z": "7z x 'a b.7z' -o'a b'` and collect 'a b'/",
        "a.rar": "unrar x a.rar a/",
        "a.tar.zst": "`zstd -d a.tar.zst` and collect the .tar",
    }
    for name, remedy in others.items():
        (folder / name).write_bytes(b"7z")
        with pytest.raises(DataError, match=rf"\.tar\.xz, \.txz are\. Unpack it: .*{re.escape(remedy)}"):
            collect(dataset, str(folder / name), CONFIG)
    (folder / "torn.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"no zip archive that can be read.*pack it again"):
        collect(dataset, str(folder / "torn.zip"), CONFIG)
    write_zip(folder / "a.zip", {"notes.md": b"x"})
    with pytest.raises(DataError, match="no image in the archive"):
        collect(dataset, str(folder / "a.zip"), CONFIG)
