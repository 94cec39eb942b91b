"""Hostile inputs for the readers of sources: seeds with mutations, which shrink to the fewest that matter."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from hypothesis import strategies as st
from PIL import Image

_NUMBERS = [0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]
_INTEGERS = [
    struct.pack(order + code, number & (2 ** (8 * struct.calcsize(code)) - 1))
    for number in _NUMBERS
    for order in "<>"
    for code in "BHIQ"
]
_TEXTS = [
    b"\0",
    b"\n",
    b"\r",
    b'"',
    b"'",
    b",",
    b"{",
    b"[",
    b"}",
    b"]",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\x1b[31m",
    b"../",
    b"/etc/passwd",
    b"-1",
    b"1e999",
    b"NaN",
    b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 1500,
    b"\\ud800",
    "ä\u2028😀".encode(),
    b"x" * 300,
    b"x" * 20_000,
    b"a, " * 5000,
    b"null",
    b"true",
]


def mutated(
    seeds: list[bytes], tokens: tuple[bytes, ...] = (), start: int = 0, block: int = 1
) -> st.SearchStrategy[bytes]:
    """Return a strategy of seeds in which up to eight places after `start` are changed.

    Args:
        block: insertions that are whole blocks, and repetitions, keep to the places of blocks.
    """
    payload = st.one_of(
        st.sampled_from([*_TEXTS, *_INTEGERS, *tokens]), st.binary(max_size=12), st.sampled_from(tokens or (b"",))
    )
    kinds = st.sampled_from(["overwrite", "insert", "delete", "repeat", "cut"])
    mutation = st.tuples(kinds, st.integers(0, 10**6), payload)
    return st.builds(
        lambda seed, mutations: _apply(seed, mutations, start, block),
        st.sampled_from(seeds),
        st.lists(mutation, max_size=8),
    )


def _apply(seed: bytes, mutations: list[tuple[str, int, bytes]], start: int, block: int) -> bytes:
    data = bytearray(seed)
    for kind, place, payload in mutations:
        at = start + place % max(len(data) - start, 1)
        block_at = start + (at - start) // block * block
        if kind == "overwrite":
            data[at : at + len(payload)] = payload
        elif kind == "insert":
            at = block_at if len(payload) % block == 0 else at
            data[at:at] = payload
        elif kind == "delete":
            del data[at : at + max(len(payload), 1)]
        elif kind == "repeat":
            data[block_at:block_at] = data[block_at : block_at + max(2 * block, 64)] * min(len(payload) + 1, 250)
        elif kind == "cut" and len(payload) == 1:
            del data[at:]
    return bytes(data[:300_000])


ROWS = [
    b'{"file_name": "a.png", "text": ["one", "two"], "source": "me", "mask": "m.png"}\n{"file_name": "b/c.png"}',
    b'a.png,"a cat, sitting",\nb.png,"two\nlines",m.png\nc.png,"say ""hi""",',
    b'a.png,"a "quoted" word"\nb.png,plain\n',
]


def picture(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((8, 8), 50 + seed).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = picture()


def tar(members: dict[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pax_member(name: str, content: bytes, **headers: str) -> bytes:
    """Return a member with pax headers as they are given, and no end of the archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    records = b""
    for key, value in headers.items():
        record = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(record) + len(str(len(record)))
        length = len(record) + len(str(length))
        records += str(length).encode() + record
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    blocks = [header.tobuf(), records, bytes(-len(records) % 512), info.tobuf(), content, bytes(-len(content) % 512)]
    return b"".join(blocks)


def gnu_long_name(name: bytes) -> bytes:
    """Return the header of GNU tar that gives the next member a long name."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, len(name)
    return header.tobuf(tarfile.GNU_FORMAT) + name + bytes(-len(name) % 512)


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


MEMBERS = {
    "first.png": PICTURE,
    "a.png": picture(1),
    "a.txt": b"a caption\n",
    "a-masklabel.png": picture(2),
    "b.png": picture(3),
    "b.json": b'{"text": "from JSON"}',
    "metadata.jsonl": b'{"file_name": "c.png", "text": "from metadata", "mask": "m.png"}\n',
    "c.png": picture(4),
    "m.png": picture(5),
    "ä" * 60 + ".png": b"x",
    "d/" * 60 + "long.png": b"x",
}
AFTER_FIRST = 512 + -(-len(PICTURE) // 512) * 512
TARS = [
    tar(MEMBERS),
    tar(MEMBERS, tarfile.GNU_FORMAT),
    tar({"first.png": PICTURE})[:AFTER_FIRST]
    + pax_member("a.png", PICTURE, size=str(len(PICTURE)), path="p.png")
    + bytes(1024),
    tar({"first.png": PICTURE})[:AFTER_FIRST]
    + pax_member(
        "a.png",
        b"1\n0\n8\n" + bytes(506),
        GNU__sparse__major="1",
        GNU__sparse__minor="0",
        GNU__sparse__name="s.png",
        GNU__sparse__realsize="8",
    )
    + bytes(1024),
]
TAR_TOKENS = (
    *(bytes([kind]) for kind in b"0123456789LKSxgXVDM"),
    *(b"16 size=%d\n" % size for size in (-1024, -512)),
    *(b"%d size=-%d\n" % (12 + len(str(size)), size) for size in (100, 1024, 51200)),
    *(b"0000000%o\0" % size for size in (0, 512, 4096)),
    b"\x80" + bytes(11),
    b"\xff" * 12,
    b"ustar\0" + b"00",
    b"ustar  \0",
    b"22 GNU.sparse.major=1\n",
    b"22 GNU.sparse.minor=0\n",
    b"27 GNU.sparse.map=0,9,1,9\n",
    b"99999999999 path=",
    b"hdrcharset=BINARY\n",
    b"21 hdrcharset=BINARY\n",
    gnu_long_name(b"n.png\0"),
    pax_member("again.png", b"x", size="-1024"),
    pax_member("again.png", b"x", size="-1536"),
    pax_member("n.png", b"", path="n" * 5000),
)


ZIPS = [
    zipped(MEMBERS),
    zipped(MEMBERS, zipfile.ZIP_STORED),
    zipped({"a.png": bytes(100_000), "b.png": PICTURE}, zipfile.ZIP_BZIP2),
    zipped({"a.png": bytes(100_000), "b.png": PICTURE}, zipfile.ZIP_LZMA),
]
ZIP_TOKENS = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", struct.pack("<HH", 1, 28))

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Description><dc:description><rdf:Alt><rdf:li xml:lang="en">'
    b"a tree</rdf:li></rdf:Alt></dc:description><dc:subject><rdf:Bag><rdf:li>one</rdf:li></rdf:Bag></dc:subject>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with further chunks before the pixels."""
    extra = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return PICTURE[:33] + extra + PICTURE[33:]


def images() -> list[bytes]:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a prompt\nSteps: 20".encode("utf-16-le")
    images = [
        png(
            (b"tEXt", b"parameters\0a prompt\nNegative prompt: x"),
            (b"zTXt", b"Description\0\0" + zlib.compress(b"text")),
        ),
        png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP), (b"eXIf", exif.tobytes()[6:])),
        png((b"iTXt", b"Description\0\1\0\0\0" + zlib.compress(b"x" * 1000))),
    ]
    for kind in ("JPEG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(PICTURE)).convert("RGB").save(buffer, kind, exif=exif.tobytes(), xmp=XMP)
        images.append(buffer.getvalue())
    return images


IMAGE_TOKENS = (
    *(
        b"tEXt",
        b"zTXt",
        b"iTXt",
        b"eXIf",
        b"parameters\0",
        b"Description\0",
        b"XML:com.adobe.xmp\0",
        b"XMP ",
        b"EXIF",
        b"RIFF",
    ),
    *(b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<rdf:li>" * 200, b"&#xD800;", b"\xff\xe1", b"\xff\xd8", b"II*\0", b"MM\0*"),
    zlib.compress(bytes(10_000_000)),
    XMP,
)


ANSWERS = [
    b'HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 4\r\nETag: "x"\r\n\r\nabcd',
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Robots-Tag: noai\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 429 Busy\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\nabcd",
    b"HTTP/1.0 304 Not Modified\r\n\r\n",
]
ANSWER_TOKENS = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"\r\n\r\n",
    b"Content-Length: ",
    b"Retry-After: ",
    b"Location: ",
    b"Transfer-Encoding: chunked\r\n",
    b"X-Robots-Tag: ",
    b"FFFFFFFFFFFFFFFF\r\n",
    b"http://[::1",
    b"http://169.254.169.254/",
    b"ftp://x/",
)


URLS = [
    b"https://user:pw@h.example:8080/a;b.png?X-Amz-Signature=1&token=2#f",
    b"http://[2606:4700::1111]/%C3%A4?key=1&Expires=9",
    b"//host/a.png",
    b"HTTP://b\xc3\xbccher.example/../a\\b",
]
URL_TOKENS = (
    b"[",
    b"]",
    b"%",
    b"%zz",
    b"@",
    b":",
    b"://",
    b"?token=",
    b"&sig=",
    b"\\",
    b"#",
    b";",
    b"xn--",
    b"\xe2\x84\x80",
    b"%00",
)


ADDRESSES = [
    b"shards/{000..015}.tar",
    b"file:///tmp/nowhere",
    b"generated://?min_stars=4",
    b"~nobody/x",
    b"a*.zip",
    b"nosuch://b/c",
]
ADDRESS_TOKENS = (
    b"{1..",
    b"..",
    b"}",
    b"{",
    b"~",
    b"[",
    b"*",
    b"\0",
    b"%00",
    b"file://",
    b"x" * 300,
    b".tar",
    b".zip",
    b".parquet",
)


PACKERS: dict[bytes, tuple[str, Callable[[bytes], bytes]]] = {
    b"t": (".tar", lambda data: data),
    b"g": (".tar.gz", lambda data: gzip.compress(data, 1)),
    b"b": (".tar.bz2", lambda data: bz2.compress(data, 1)),
    b"x": (".tar.xz", lambda data: lzma.compress(data, preset=0)),
}
