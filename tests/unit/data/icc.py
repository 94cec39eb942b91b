"""Colour profiles written by hand (ICC.1:2001-04), so that what they mean is known without a colour library."""

from __future__ import annotations

import struct
from collections.abc import Sequence

# Adapted to D50, columns red, green, blue.
SRGB_TO_XYZ = ((0.43607, 0.38515, 0.14307), (0.22249, 0.71687, 0.06061), (0.01392, 0.09708, 0.71410))
DISPLAY_P3_TO_XYZ = ((0.51512, 0.29198, 0.15710), (0.24120, 0.69225, 0.06657), (-0.00105, 0.04189, 0.78407))
_D50 = (0.9642, 1.0, 0.8249)


def matrix_profile(to_xyz: Sequence[Sequence[float]], gamma: float) -> bytes:
    """An RGB profile: value ** gamma, times the matrix, gives XYZ."""
    columns = {name: [row[index] for row in to_xyz] for index, name in enumerate(("rXYZ", "gXYZ", "bXYZ"))}
    tags = {"wtpt": _xyz(_D50)} | {name: _xyz(column) for name, column in columns.items()}
    tags |= {name: _gamma(gamma) for name in ("rTRC", "gTRC", "bTRC")}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {"wtpt": _xyz(_D50), "kTRC": _gamma(gamma)})


def cmyk_profile(lab_of: dict[tuple[int, int, int, int], tuple[float, float, float]]) -> bytes:
    """A profile that gives Lab for each combination of no and full ink, and goes straight in between."""
    table = bytearray()
    for corner in range(16):  # the first ink varies slowest
        lightness, a, b = lab_of[tuple(corner >> shift & 1 for shift in (3, 2, 1, 0))]
        table += bytes((round(lightness * 2.55), round(a) + 128, round(b) + 128))
    straight = bytes(range(256))
    unit = b"".join(struct.pack(">i", value) for value in (65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + unit + straight * 4 + bytes(table) + straight * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {"wtpt": _xyz(_D50), "A2B0": lut, "A2B1": lut})


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[str, bytes]) -> bytes:
    tags = {
        "desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78,
        "cprt": b"text\0\0\0\0none\0",
    } | tags
    table, data = struct.pack(">I", len(tags)), b""
    first = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name.encode() + struct.pack(">II", first + len(data), len(content))
        data += content + b"\0" * (-len(content) % 4)
    size = first + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, kind, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + b"".join(map(_fixed, _D50))
    return head.ljust(128, b"\0") + table + data


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _gamma(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))
