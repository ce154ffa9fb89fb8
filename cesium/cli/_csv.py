"""Delimited text as columns: what types its cells have, and the cells as arrays.

A file is read as a stream, in pieces of `PIECE_ROWS` rows, so its size does not matter.  Types are
found by a pass over the whole file, not guessed from a sample: what the first pass has seen, the
second one can convert.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np

from cesium.cli._text import parse_scalar

PIECE_ROWS = 8192  # larger pieces wake the garbage collector: 3 times as slow at 300,000 rows
FIXED_TEXT_BYTES = 64
FIXED_ROW_BYTES = 512
EXACT_FLOAT = 1 << 53

NULLS = frozenset(["", "NA"])

# Without leading zeros: 007 is a code, not a number.
INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
FLOAT = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]+)?|[-+]?inf(?:inity)?|nan",
    re.IGNORECASE,
)
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?Z?)?")
TIME_FRACTION = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?Z?)?"
)


def _is_integer(cell: str) -> bool:
    return INTEGER.fullmatch(cell) is not None and -(2**63) <= int(cell) < 2**63


def _is_time(cell: str, pattern: re.Pattern[str] = TIME) -> bool:
    if pattern.fullmatch(cell) is None:
        return False
    try:
        np.datetime64(cell.removesuffix("Z"))
    except ValueError:  # the 30th of February
        return False
    return True


def _is_float(cell: str) -> bool:
    """Whole numbers that a float would round are left as text: no two keys become one."""
    if FLOAT.fullmatch(cell) is None:
        return False
    digits = cell.lstrip("+-")
    return not digits.isdigit() or int(float(digits)) == int(digits)


# In the order of preference; text is what is left.
TYPES: dict[str, Callable[[str], bool]] = {
    "i8": _is_integer,
    "f8": _is_float,
    "datetime64[s]": _is_time,
    "datetime64[us]": lambda cell: _is_time(cell, TIME_FRACTION),
}


@dataclass
class Column:
    """What is known of one column after the pass over the file."""

    name: str
    possible: list[str] = field(default_factory=lambda: list(TYPES))
    has_nulls: bool = False
    has_cells: bool = False
    exact: bool = True  # as float64, when integers have gaps
    text_bytes_max: int = 1
    ascii: bool = True

    def see(self, cells: set[str]) -> None:
        """Takes note of the distinct cells of a piece."""
        content = cells - NULLS
        self.has_nulls |= len(content) < len(cells)
        self.has_cells |= bool(content)
        self.possible = [name for name in self.possible if all(map(TYPES[name], content))]
        if "i8" in self.possible:
            self.exact &= all(abs(int(cell)) <= EXACT_FLOAT for cell in content)
        if self.ascii:
            self.ascii = all(map(str.isascii, cells)) and not any("\0" in cell for cell in cells)
        self.text_bytes_max = max(self.text_bytes_max, *map(len, cells)) if cells else 1

    @property
    def type(self) -> str:
        """The type without regard to nulls: a numpy dtype's name, or `str`."""
        if not self.has_cells:
            return "f8" if self.has_nulls else "str"
        return self.possible[0] if self.possible else "str"

    @property
    def dtype(self) -> str | None:
        """The fixed-width dtype that holds every cell, nulls included; None when there is none."""
        if self.type == "str":
            fixed = self.ascii and self.text_bytes_max <= FIXED_TEXT_BYTES
            return f"S{self.text_bytes_max}" if fixed else None
        if self.type == "i8" and self.has_nulls:
            return "f8" if self.exact else None
        return self.type


class Source:
    """An open CSV file: its header, its rows, and how much of it was read."""

    def __init__(self, text: io.TextIOBase, position: Callable[[], int], bytes_total: int) -> None:
        self.position = position
        self.bytes_total = bytes_total
        self._reader = csv.reader(text, strict=True)
        try:
            self.header = next(self._reader, [])
        except csv.Error as error:
            raise click.ClickException(f"line 1: {error}") from None
        except UnicodeDecodeError:
            raise click.ClickException("the text is not UTF-8") from None
        if not self.header:
            raise click.ClickException("the file is empty; a first line with names is expected")
        if len(set(self.header)) < len(self.header) or "" in self.header:
            raise click.ClickException("the first line must name every column, each once")

    def pieces(self) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
        """The rows as columns of cells, a piece at a time, with the line where it begins."""
        width = len(self.header)
        while True:
            line = self._reader.line_num + 1
            try:
                rows = [row for row in itertools.islice(self._reader, PIECE_ROWS) if row]
            except csv.Error as error:
                raise click.ClickException(f"line {self._reader.line_num}: {error}") from None
            except UnicodeDecodeError:
                raise click.ClickException(
                    f"after line {self._reader.line_num}: the text is not UTF-8"
                ) from None
            if not rows:
                if self._reader.line_num + 1 > line:
                    continue  # a piece of blank lines
                return
            try:
                columns = list(zip(*rows, strict=True))
            except ValueError:
                columns = []
            if len(columns) != width:
                uneven = next(row for row in rows if len(row) != width)
                raise click.ClickException(
                    f"a row at or after line {line} has {len(uneven)} cells instead of {width}: "
                    f"{','.join(uneven)[:60]}"
                )
            yield line, columns


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Opens plain, `.gz` or `.zip` (of one file) text by its suffix."""
    with path.open("rb") as raw:
        position: Callable[[], int] = raw.tell
        bytes_total = path.stat().st_size
        binary: BinaryIO | Any = raw
        try:
            if path.suffix == ".gz":
                binary = gzip.open(raw)  # noqa: SIM115 - closed with `text` below
            elif path.suffix == ".zip":
                archive = zipfile.ZipFile(raw)
                members = archive.infolist()
                if len(members) != 1:
                    raise click.ClickException(f"{path} holds {len(members)} files instead of one")
                binary = archive.open(members[0])
                position, bytes_total = binary.tell, members[0].file_size
            with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
                yield Source(text, position, bytes_total)
        except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError) as error:
            raise click.ClickException(f"{path}: {error}") from None


def infer(source: Source, advance: Callable[[int], None]) -> list[Column]:
    """Finds the type of every column; `advance` is told the position in the file."""
    columns = [Column(name) for name in source.header]
    for _, piece in source.pieces():
        for column, cells in zip(columns, piece, strict=True):
            column.see(set(cells))
        advance(source.position())
    return columns


def convert(name: str, dtype: str, cells: Sequence[str], line: int) -> Any:
    """The cells as an array of `dtype`, or as a list of text when that is `str`.

    Empty cells and `NA` become NaN or NaT, or empty bytes; where there is no such thing, and for
    cells that are none of the dtype, the error names the line.
    """
    if dtype == "str":
        return list(cells)
    kind = np.dtype(dtype).kind if dtype not in ("bytes", "uuid") else "O"
    try:
        if kind in "iu":
            return np.array(list(map(int, cells)), dtype)
        if kind == "f":
            return np.array([float("nan" if cell in NULLS else cell) for cell in cells], dtype)
        if kind == "M":
            times = ["NaT" if cell in NULLS else cell.removesuffix("Z") for cell in cells]
            return np.array(times, "datetime64").astype(dtype)
        if kind == "S":
            found = np.array([cell.encode() for cell in cells])
            if found.dtype.itemsize <= np.dtype(dtype).itemsize:
                return found.astype(dtype)
        else:
            return [parse_scalar(dtype, cell) for cell in cells]
    except (ValueError, OverflowError, click.UsageError):
        pass
    raise click.ClickException(_culprit(name, dtype, cells, line))


def _culprit(name: str, dtype: str, cells: Sequence[str], line: int) -> str:
    for number, cell in enumerate(cells):
        try:
            np.array([parse_scalar(dtype, cell)], dtype)
            fits = np.dtype(dtype).kind != "S" or len(cell.encode()) <= np.dtype(dtype).itemsize
        except (ValueError, OverflowError, click.UsageError):
            fits = cell in NULLS and np.dtype(dtype).kind in "fM"
        if not fits:
            return f"row {number + 1} from line {line}: column '{name}': '{cell}' is not a {dtype}"
    return f"a row after line {line}: column '{name}' does not fit {dtype}"
