"""Fuzzing of the readers of sources: strategies of hostile inputs, and what must hold for every input.

A test runs a few examples of each target. `benchmarks/fuzz_sources.py` runs them for minutes.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import threading
import time
import tracemalloc
import zlib
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from hypothesis import strategies as st

from sdlora.core.errors import SdloraError
from sdlora.data.config import DataConfig
from sdlora.data.decoding.mask import mask_problem
from sdlora.data.sources import SourceContext, UnreadableItemError, open_source
from sdlora.data.sources.caption_limits import MAX_CAPTION_CHARS, MAX_CAPTIONS
from sdlora.data.sources.captions import find_captions
from sdlora.data.sources.download import Downloader, checked_url, opt_out
from sdlora.data.sources.embedded import embedded_captions
from sdlora.data.sources.memory import MemoryBudget
from sdlora.data.sources.metadata import SIDECAR_SUFFIXES, read_sidecar
from sdlora.data.sources.signed_urls import file_behind, survey_urls
from sdlora.data.threads import TryLaterError
from tests.unit.data.fuzz_inputs import (
    ADDRESS_TOKENS,
    ADDRESSES,
    AFTER_FIRST,
    ANSWER_TOKENS,
    ANSWERS,
    IMAGE_TOKENS,
    PACKERS,
    PICTURE,
    ROWS,
    TAR_TOKENS,
    TARS,
    URL_TOKENS,
    URLS,
    ZIP_TOKENS,
    ZIPS,
    images,
    mutated,
)

MIB = 2**20
CONFIG = DataConfig(
    max_file_bytes=MIB,
    max_source_memory_bytes=2 * MIB,
    max_pixels=100_000,
    allow_private_addresses=True,
    url_timeout_seconds=0.4,
    url_total_seconds=0.8,
    url_retries=0,
)
MAX_SECONDS = 3.0
"""Longest time of one input, on a processor: what the waits of a download take, its own limits say."""

CORPUS = Path(__file__).parent / "fuzz_corpus"


@dataclass(frozen=True)
class Target:
    """Reader under test.

    Attributes:
        inputs: strategy of inputs.
        check: reads an input. Raises AssertionError if the reader breaks a promise, or the reader's foreign error.
        max_peak_bytes: memory for one input.
    """

    name: str
    inputs: st.SearchStrategy[bytes]
    check: Callable[[bytes], None]
    max_peak_bytes: int = 24 * MIB


def check(target: Target, data: bytes) -> None:
    """Read one input within time and memory.

    Tracing takes most of the time. It is left to one input of eight, and to those after which the process is larger.
    """
    began, size_before = time.process_time(), _peak_bytes()
    if data and zlib.crc32(data) % 8:
        target.check(data)
        if _peak_bytes() - size_before > target.max_peak_bytes // 4:
            _check_memory(target, data)
    else:
        _check_memory(target, data)
    seconds = time.process_time() - began
    assert seconds <= MAX_SECONDS, f"{seconds:.1f} s"


def _check_memory(target: Target, data: bytes) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        target.check(data)
        grown = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert grown <= target.max_peak_bytes, f"{grown / MIB:.0f} MiB"


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# Metadata: the lines before and after the hostile ones come in.

_FIRST = {
    "jsonl": b'{"file_name": "first.png", "text": "first", "licence": "CC0"}\n',
    "csv": b"file_name,text,mask\nfirst.png,first,\n",
}
_LAST = {"jsonl": b'\n{"file_name": "last.png", "text": "last"}\n', "csv": b"\nlast.png,last,\n"}


def _metadata(data: bytes) -> None:
    kind = "csv" if data[:1] == b"c" else "jsonl"
    with TemporaryDirectory() as folder:
        for name in ("first.png", "last.png", "a.png"):
            (Path(folder) / name).write_bytes(b"")
        (Path(folder) / f"metadata.{kind}").write_bytes(_FIRST[kind] + data[1:] + _LAST[kind])
        captions = _read_all(folder)
    assert captions["first.png"] == ("first",)
    assert captions["last.png"] == ("last",)


def _lists(data: bytes) -> None:
    kind = {b"c": "csv", b"j": "jsonl"}.get(data[:1], "txt")
    first = {"csv": b"url,text\n", "jsonl": b'{"url": "x", "text": ""}\n', "txt": b"http://first.example/a.png\n"}[kind]
    last = {
        "csv": b"\nhttp://last.example/,last\n",
        "jsonl": b'\n{"url": "http://last.example/"}\n',
        "txt": b"\nhttp://last.example/\n",
    }[kind]
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"list.{kind}"
        path.write_bytes(first + data[1:] + last)
        source = open_source(str(path), _context())
        paths = [item.path for item in source.items()]
        source.close()
    assert any(path.startswith("http://last.example/") for path in paths)


def _sidecars(data: bytes) -> None:
    for suffix in SIDECAR_SUFFIXES:
        sidecar = read_sidecar(suffix, data)
        assert len(sidecar.captions) <= MAX_CAPTIONS
        assert all(0 < len(caption.text) <= MAX_CAPTION_CHARS for caption in sidecar.captions)
        assert all(caption.text.isprintable() for caption in sidecar.captions)


# Archives: the member before the hostile ones comes in.


def _checksums(data: bytes) -> bytes:
    """Correct the checksums of the blocks that look like headers, so that mutations get past them."""
    fixed = bytearray(data)
    for start in range(0, len(fixed) - 511, 512):
        if fixed[start + 257 : start + 262] == b"ustar":
            fixed[start + 148 : start + 156] = b" " * 8
            fixed[start + 148 : start + 156] = b"%06o\0 " % sum(fixed[start : start + 512])
    return bytes(fixed)


def _tars(data: bytes) -> None:
    suffix, pack = PACKERS.get(data[:1], PACKERS[b"t"])
    captions = _read_archive(suffix, pack(_checksums(data[1:])))
    assert captions is not None
    assert "first.png" in captions


def _packed(data: bytes) -> None:
    _read_archive(PACKERS.get(data[:1], PACKERS[b"g"])[0], data[1:])


def _zips(data: bytes) -> None:
    _read_archive(".zip", data)


def _read_archive(suffix: str, data: bytes) -> dict[str, tuple[str, ...]] | None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(data)
        return _read_all(str(path))


# Headers of images: no pixel is decoded.


def _headers(data: bytes) -> None:
    captions = embedded_captions(data)
    assert all(caption.text.isprintable() for caption in captions)


def _masks(data: bytes) -> None:
    mask_problem(data, PICTURE, CONFIG.max_pixels)
    mask_problem(PICTURE, data, CONFIG.max_pixels)


# The web: answers of a host, and addresses.


class _Answering(StreamRequestHandler):
    answer = b""

    def handle(self) -> None:
        with suppress(OSError):
            self.request.settimeout(1)
            self.request.recv(65536)
            self.request.sendall(self.answer)


class _Server(ThreadingTCPServer):
    daemon_threads, allow_reuse_address = True, True

    def handle_error(self, *_: object) -> None:
        pass


@cache
def _server() -> _Server:
    server = _Server(("127.0.0.1", 0), _Answering)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def _answers(data: bytes) -> None:
    _Answering.answer = data
    port = _server().server_address[1]

    def resolve(host: str, to_port: int) -> list[str]:  # nothing but the server is ever asked
        if to_port != port:
            raise OSError("no network in tests")
        return ["127.0.0.1"]

    memory = MemoryBudget(CONFIG.max_source_memory_bytes)
    downloader = Downloader(CONFIG, resolve, memory=memory)
    try:
        for stamp in (None, 'etag "x"'):
            with suppress(UnreadableItemError, TryLaterError):
                content = downloader.fetch(f"http://host.example:{port}/a.png", stamp)
                assert memory.used == (len(content.data) if content else 0) <= CONFIG.max_file_bytes
            content = None
            assert memory.used == 0
    finally:
        downloader.close()


def _urls(data: bytes) -> None:
    url = data.decode("utf-8", "replace")
    opt_out(url)
    count, shared_names = survey_urls(lambda: iter([url, url + "&token=2"]))
    assert count == 2
    file_behind(url, shared_names)
    with suppress(UnreadableItemError):
        checked_url(url)


def _addresses(data: bytes) -> None:
    uri = data.decode("utf-8", "replace")
    if uri.startswith("generated") or ("://" in uri and not uri.startswith(("file://", "nosuch://"))):
        return  # other schemes reach for the network or a store
    with suppress(ValueError):
        if os.path.isdir(os.path.expanduser(unquote(uri.removeprefix("file://")))):  # noqa: PTH111, PTH112
            return  # the machine's own folders
    with suppress(SdloraError):
        open_source(uri, _context()).close()


def _context() -> SourceContext:
    return SourceContext(CONFIG, None)  # type: ignore[arg-type]  # only generated images need a store


def _read_all(uri: str) -> dict[str, tuple[str, ...]] | None:
    """Read a source as collecting does; return the captions of the items that can be read, None if it is refused."""
    context = _context()
    try:
        source = open_source(uri, context)
    except SdloraError:
        return None
    captions: dict[str, tuple[str, ...]] = {}
    try:
        for item in itertools.islice(source.items(), 5000):
            with suppress(UnreadableItemError):
                content = item.read(None)
                assert content is not None
                captions[item.path] = tuple(
                    caption.text
                    for caption in find_captions(item, item.sidecar(), lambda content=content: content.data).captions
                )
            if item.mask:
                with suppress(UnreadableItemError):
                    item.mask.read()
            assert 0 <= context.memory.used <= context.memory.limit
    finally:
        source.close()
    return captions


def _tagged(tags: list[bytes], inputs: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Prefix inputs with a letter for their kind of file."""
    return st.builds(bytes.__add__, st.sampled_from(tags), inputs)


TARGETS = {
    target.name: target
    for target in (
        Target("metadata", _tagged([b"c", b"j"], mutated(ROWS)), _metadata),
        Target("lists", _tagged([b"c", b"j", b"t"], mutated([*ROWS, *URLS], URL_TOKENS)), _lists),
        Target("sidecars", mutated([*ROWS, b"one\ntwo\n", "\ufeffä".encode("utf-16")]), _sidecars),
        Target("tars", _tagged(list(PACKERS), mutated(TARS, TAR_TOKENS, AFTER_FIRST, 512)), _tars),
        Target(
            "packed", _tagged([b"g", b"b", b"x"], mutated([pack(TARS[0]) for _, pack in PACKERS.values()])), _packed
        ),
        Target("zips", mutated(ZIPS, ZIP_TOKENS), _zips),
        Target("headers", mutated(images(), IMAGE_TOKENS), _headers),
        Target("masks", mutated(images(), IMAGE_TOKENS), _masks, 160 * MIB),  # Pillow unpacks texts up to 64 MiB
        Target("answers", mutated(ANSWERS, ANSWER_TOKENS), _answers),
        Target("urls", mutated(URLS, URL_TOKENS), _urls),
        Target("addresses", mutated(ADDRESSES, ADDRESS_TOKENS), _addresses),
    )
}


def corpus() -> list[tuple[str, str, bytes]]:
    """Return (target, name, input) of inputs that broke a reader of an earlier version."""
    entries = json.loads((CORPUS / "inputs.json").read_text())
    return [(entry["target"], entry["name"], zlib.decompress(b64decode(entry["zlib"]))) for entry in entries]
