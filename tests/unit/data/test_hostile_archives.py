"""Archives that unpack to more memory, time or errors than their source may cost."""

from __future__ import annotations

import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from sdlora.core.errors import DataError
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.collect_report import CollectReport
from sdlora.data.config import DataConfig
from sdlora.data.sources import SourceContext, UnreadableItemError, open_source
from sdlora.data.sources.memory import MemoryBudget
from sdlora.store.dataset import Dataset
from tests.unit.data.drawing import drawing, encoded
from tests.unit.data.fuzz_inputs import pax_member, png
from tests.unit.data.test_archives import write_tar, write_zip

MIB = 2**20
CONFIG = DataConfig(max_source_memory_bytes=16 * MIB)
PICTURES = {f"{seed}.png": encoded(drawing(seed)) for seed in range(3)}
EXCESS = "the source needs more memory than max_source_memory_bytes = 16,777,216"


def reasons(report: CollectReport) -> dict[str, str]:
    return {skipped.path: skipped.reason for skipped in report.skipped}


def traced_peak_mib(dataset: Dataset, path: Path, config: DataConfig = CONFIG) -> tuple[CollectReport, float]:
    tracemalloc.start()
    try:
        report = collect(dataset, str(path), config)
        return report, tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def test_masks_full_of_zeros_cost_their_images_and_no_memory(dataset: Dataset, folder: Path) -> None:
    members = dict(PICTURES)
    for number in range(24):
        members[f"z{number}.png"] = encoded(drawing(100 + number))
        members[f"z{number}-masklabel.png"] = bytes(MIB)
    path = write_tar(folder / "a.tar.gz", members, "w:gz")
    report, peak_mib = traced_peak_mib(dataset, path, CONFIG.model_copy(update={"max_archive_ratio": 1000.0}))
    assert peak_mib < 32
    members_after = [image for image in dataset.images() if "z23.png" in image.files[0]]
    assert (report.new, report.skipped, len(members_after)) == (27, (), 1)
    clean(dataset, DataConfig())
    problems = [image.reason for image in dataset.images() if image.rejected_by == "mask"]
    assert len(problems) == 24
    assert sum(EXCESS in problem for problem in problems) == 24 - 7  # masks take at most half of the 16 MiB


def test_an_archive_that_unpacks_to_too_much_in_a_mask_ends_there(dataset: Dataset, folder: Path) -> None:
    members = PICTURES | {f"z{number}-masklabel.png": bytes(8 * MIB) for number in range(12)} | {"late.png": b"x"}
    path = write_tar(folder / "a.tar.gz", members, "w:gz")
    report = collect(dataset, str(path), DataConfig(max_archive_ratio=2))
    assert report.new == 3
    assert "max_archive_ratio" in reasons(report)["…"]


def test_names_count_against_the_memory_and_an_archives_end_gives_it_back(folder: Path, dataset: Dataset) -> None:
    members = {f"{'n' * 200}{number}.png": b"x" for number in range(5000)}
    config = DataConfig(max_source_memory_bytes=2**20)
    context = SourceContext(config, dataset)
    source = open_source(str(write_tar(folder / "a.tar", members)), context)
    items = list(source.items())
    with pytest.raises(UnreadableItemError, match=r"after the first .* max_source_memory_bytes"):
        items[-1].read(None)
    assert 1000 < len(items) < 5000
    assert 2**19 < context.memory.used <= 2**20
    source.close()
    assert context.memory.used == 0


def test_a_zip_whose_directory_alone_takes_the_memory_is_refused(dataset: Dataset, folder: Path) -> None:
    path = write_zip(folder / "a.zip", {f"{number}.png": b"" for number in range(5000)}, 0)
    with pytest.raises(DataError, match=r"a directory of .* max_source_memory_bytes.*Raise the limit"):
        collect(dataset, str(path), DataConfig(max_source_memory_bytes=2**20))


@pytest.mark.parametrize("size", ["-1024", "-1536", "-512"])
def test_a_header_that_leads_backwards_ends_the_listing(dataset: Dataset, folder: Path, size: str) -> None:
    good = write_tar(folder / "good.tar", PICTURES).read_bytes()
    end = good.rindex(b"ustar") // 512 * 512 + 512 + -(-len(PICTURES["2.png"]) // 512) * 512
    (folder / "a.tar").write_bytes(good[:end] + pax_member("again.png", b"x", size=size) + bytes(1024))
    report = collect(dataset, str(folder / "a.tar"), CONFIG)
    assert report.new == 3
    assert reasons(report) == {"…": "the archive is damaged after 3 members: a header leads backwards"}


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_headers_upon_headers_are_bounded_together(dataset: Dataset, folder: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 900 * 1024
    chain = (header.tobuf() + bytes(header.size)) * 30
    good = write_tar(folder / "good.tar", {"0.png": PICTURES["0.png"]}).read_bytes()
    end = 512 + -(-len(PICTURES["0.png"]) // 512) * 512
    (folder / "a.tar").write_bytes(good[:end] + chain + good)
    report, peak_mib = traced_peak_mib(dataset, folder / "a.tar")
    assert report.new == 1
    assert list(reasons(report)) == ["…"]
    assert peak_mib < 8
    short = tarfile.TarInfo("header")
    short.type, short.size = kind, 1
    (folder / "b.tar").write_bytes(good[:end] + (short.tobuf() + bytes(512)) * 3000 + good)
    assert list(reasons(collect(dataset, str(folder / "b.tar"), CONFIG))) == ["…"]


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_that_unpacks_to_more_than_it_says_is_unpacked_no_further(
    dataset: Dataset, folder: Path, kind: int
) -> None:
    write_zip(folder / "zeros.zip", {"zeros.png": bytes(64 * MIB)}, kind)
    zeros = (folder / "zeros.zip").read_bytes()
    zeros = zeros[30 + len("zeros.png") : zeros.rindex(b"PK\x01\x02")]
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("good.png", PICTURES["0.png"])
        archive.writestr("liar.png", zeros)
        info = archive.getinfo("liar.png")
    content = bytearray((folder / "a.zip").read_bytes())
    content[info.header_offset + 8 : info.header_offset + 10] = struct.pack("<H", kind)  # in both headers
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 10 : entry + 12] = struct.pack("<H", kind)
    (folder / "a.zip").write_bytes(content)
    report, peak_mib = traced_peak_mib(dataset, folder / "a.zip")
    assert report.new == 1
    assert list(reasons(report)) == ["liar.png"]
    assert peak_mib < 16


def test_one_damaged_archive_of_many_costs_itself(dataset: Dataset, folder: Path) -> None:
    for shard in range(3):
        write_tar(folder / f"s-{shard}.tar", {f"{shard}.png": encoded(drawing(shard))})
    (folder / "s-1.tar").write_bytes(b"no archive")
    report = collect(dataset, f"{folder}/s-*.tar", CONFIG)
    assert report.new == 2
    assert "no tar archive that can be read" in reasons(report)["s-1.tar"]


def test_rows_of_metadata_come_in_as_far_as_memory_goes(dataset: Dataset, folder: Path) -> None:
    (folder / "0.png").write_bytes(PICTURES["0.png"])
    rows = [f'{{"file_name": "{number}.png", "text": "{"word " * 40}"}}' for number in range(3000)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    report = collect(dataset, str(folder), DataConfig(max_source_memory_bytes=MIB))
    assert (report.new, dataset.images()[0].captions[0][:4]) == (1, "word")
    assert 1000 < report.problem_count < 3000
    assert "rows not read: the source needs more memory" in report.problems[0].reason


def test_texts_of_a_png_are_unpacked_once_each(dataset: Dataset, folder: Path) -> None:
    import zlib

    packed = zlib.compress(bytes([97]) * (250 * 2**10))
    chunks = [(b"zTXt", b"key%d\0\0" % number + packed) for number in range(200)]
    (folder / "a.png").write_bytes(png(*chunks, (b"tEXt", b"Description\0a drawing")))
    report, peak_mib = traced_peak_mib(dataset, folder)
    assert (report.new, dataset.images()[0].captions) == (1, ("a drawing",))
    assert peak_mib < 12


def test_masks_leave_memory_for_the_names_of_later_members(dataset: Dataset, folder: Path) -> None:
    members = {f"z{number}-masklabel.png": bytes(100_000) for number in range(12)}
    members |= {f"{'n' * 200}{number}.png": b"%d" % number for number in range(600)}
    path = write_tar(folder / "a.tar.gz", members, "w:gz")
    report = collect(dataset, str(path), DataConfig(max_source_memory_bytes=MIB, max_archive_ratio=2))
    assert report.new == 600


def test_a_budget_counts_exactly() -> None:
    memory = MemoryBudget(10)
    assert (memory.take(6), memory.take(5), memory.take(4), memory.used) == (True, False, True, 10)
    memory.give_back(4)
    assert (memory.used, memory.take(5), memory.take(4)) == (6, False, True)


def test_an_error_of_a_reader_costs_the_item(dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in PICTURES.items():
        (folder / name).write_bytes(content)

    def failing(content: bytes) -> tuple[object, ...]:
        if content == PICTURES["1.png"]:
            raise ZeroDivisionError("a defect of ours")
        return ()

    monkeypatch.setattr("sdlora.data.sources.captions.embedded_captions", failing)
    report = collect(dataset, str(folder), CONFIG)
    assert (report.new, reasons(report)) == (2, {"1.png": "cannot be read: ZeroDivisionError: a defect of ours"})


def test_a_folder_that_cannot_be_listed_costs_itself(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    (folder / "closed").mkdir()
    (folder / "0.png").write_bytes(PICTURES["0.png"])
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = collect(dataset, str(folder), CONFIG)
    assert (report.new, reasons(report)) == (1, {"closed/": "the folder cannot be read: Permission denied"})


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_of_every_packing_are_read_and_checked(dataset: Dataset, folder: Path, kind: int) -> None:
    path = write_zip(folder / "a.zip", PICTURES, kind)
    assert collect(dataset, str(path), CONFIG).new == 3
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 16] ^= 1  # of the last member's checksum
    (folder / "b.zip").write_bytes(content)
    assert reasons(collect(dataset, str(folder / "b.zip"), CONFIG)) == {
        "2.png": "cannot be unpacked: its checksum is another one"
    }
