"""Rows of JSON Lines and CSV files. A line that cannot be read costs itself, with its number and the reason."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import BinaryIO

from sdlora.core.foreign_json import parse_json

MAX_LINE_CHARS = 2**20
"""Longest line, and longest row of a CSV file. A longer one is no description of an image."""

_MAX_REPEATED_CHARS = 16 * MAX_LINE_CHARS
"""Characters that may be parsed again after broken lines of a CSV file."""

_FIELD_LIMIT_LOCK = threading.Lock()
_BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, slots=True)
class Row:
    """Row of a table. `number` is its line, from 1; of a row with several lines the first one."""

    number: int
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """Line that cannot be read, with the reason."""

    number: int
    reason: str


_Line = tuple[int, str | BrokenRow]
"""Number of a line, from 1, and its text or its problem."""


def json_rows(file: BinaryIO) -> Iterator[Row | BrokenRow]:
    """Yield the objects of a JSON Lines file in UTF-8 or UTF-16. Empty lines are passed over."""
    for number, line in _lines(file):
        if isinstance(line, BrokenRow):
            yield line
        elif line.strip():
            values = json_object(line)
            yield BrokenRow(number, values) if isinstance(values, str) else Row(number, values)


def json_object(text: str) -> dict[str, object] | str:
    """Return the JSON object of a text, or the reason why there is none."""
    try:
        value = parse_json(text, MAX_LINE_CHARS)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.pos + 1:,}"
    except ValueError as error:
        # Python refuses to convert longer integers, because that takes quadratic time.
        reason = "it has an integer of more than 4,300 digits" if "digits" in str(error) else str(error)
        return f"not read: {reason}"
    if not isinstance(value, dict):
        return f"expected an object in braces, found {type(value).__name__}"
    return value


def csv_rows(file: BinaryIO, delimiter: str = ",") -> Iterator[Row | BrokenRow]:
    """Yield the rows of a CSV file with a header, in UTF-8 or UTF-16. Empty lines are passed over.

    A field in quotes may have several lines. A quote that is not closed costs its line, not the rows after it.
    """
    header: list[str] | None = None
    for number, fields in _csv_records(file, delimiter):
        if isinstance(fields, BrokenRow):
            yield fields
            if header is None:
                return
        elif header is None:
            header = fields
        elif fields:
            yield Row(number, dict(zip_longest(header, fields[: len(header)])))


def text_lines(file: BinaryIO) -> Iterator[Row | BrokenRow]:
    """Yield the lines of a text in UTF-8 or UTF-16 as rows with the key `line`. Empty lines are passed over."""
    for number, line in _lines(file):
        if isinstance(line, BrokenRow):
            yield line
        elif line.strip():
            yield Row(number, {"line": line.strip()})


def _lines(file: BinaryIO) -> Iterator[_Line]:
    """Yield (number, line) with the line's end; bytes that are no text and excessive length are a line's problem."""
    start = file.read(2)
    file.seek(0)
    encoding = _BOMS.get(start, "utf-8-sig")
    # Lone surrogates mark the lines of UTF-8 with other bytes. UTF-16 cannot be marked so, and loses only a letter.
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    text = io.TextIOWrapper(file, encoding, errors, newline="")
    try:
        number = 0
        while line := text.readline(MAX_LINE_CHARS):
            number += 1
            if len(line) == MAX_LINE_CHARS and line[-1] not in "\r\n":
                while (rest := text.readline(MAX_LINE_CHARS)) and rest[-1] not in "\r\n":
                    pass
                yield number, BrokenRow(number, f"more than {MAX_LINE_CHARS:,} characters")
            else:
                yield number, line if _is_text(line) else BrokenRow(number, "not UTF-8 text")
    finally:
        text.detach()


def _is_text(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Lines(Iterator[_Line]):
    """Iterator of lines that takes lines back."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines, self._returned = lines, deque[_Line]()

    def __next__(self) -> _Line:
        return self._returned.popleft() if self._returned else next(self._lines)

    def take_back(self, lines: Sequence[_Line]) -> None:
        self._returned.extendleft(reversed(lines))


def _csv_records(file: BinaryIO, delimiter: str) -> Iterator[tuple[int, list[str] | BrokenRow]]:
    """Yield (number, fields) of each record. After a broken record, its second line begins the next record."""
    lines, repeated_chars = _Lines(_lines(file)), 0
    for line in lines:
        number, text = line
        if isinstance(text, BrokenRow):
            yield number, text
            continue
        lines.take_back([line])
        record, fields = _read_record(lines, delimiter)
        if fields is None and len(record) == 1 and text.count('"') % 2 == 0:
            fields = _lenient_fields(text, delimiter)  # such as "say "hi" to them", which other programs write
        if fields is None:
            yield number, BrokenRow(number, "its quotes cannot be understood" if '"' in text else "not CSV")
            repeated_chars += sum(len(str(again)) for _, again in record[1:])
            if repeated_chars > _MAX_REPEATED_CHARS:
                yield number, BrokenRow(number + 1, "not read, as all lines after it: too many quotes are not closed")
                return
            lines.take_back(record[1:])
        else:
            yield number, fields


def _read_record(lines: _Lines, delimiter: str) -> tuple[list[_Line], list[str] | None]:
    """Return the lines of the next record and its fields; None if they are no proper CSV."""
    record: list[_Line] = []

    def feed() -> Iterator[str]:
        char_count = 0
        for line in lines:
            _, text = line
            char_count += len(text) if isinstance(text, str) else 0
            if isinstance(text, BrokenRow) or (record and char_count > MAX_LINE_CHARS):
                lines.take_back([line])
                return
            record.append(line)
            yield text

    return record, _parse(csv.reader(feed(), delimiter=delimiter, strict=True))


def _lenient_fields(text: str, delimiter: str) -> list[str] | None:
    return _parse(csv.reader([text], delimiter=delimiter))


def _parse(reader: Iterator[list[str]]) -> list[str] | None:
    with _FIELD_LIMIT_LOCK:  # the limit belongs to the process; other users of the module keep theirs
        limit = csv.field_size_limit(2 * MAX_LINE_CHARS)
        try:
            return next(reader)
        except csv.Error:
            return None
        finally:
            csv.field_size_limit(limit)
