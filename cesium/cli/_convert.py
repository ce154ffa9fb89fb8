"""Cells as the arrays that a store takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cesium.cli._infer import NULLS, Column, Literal
from cesium.cli._numbers import NumberCells, integers
from cesium.cli._text import BOOLEANS, bytes_of, parse_scalar

FROM_TEXT: dict[str, Callable[[str], Any]] = {"i8": int, "f8": float, "bool": BOOLEANS.__getitem__}

FINE = ("ns", "ps", "fs", "as")
CLOCKS = {"now", "today"}  # numpy's words for the time of the load


class BadCells(Exception):
    """Some of the cells are none of the type that is wanted."""


def convert(dtype: str, cells: Sequence[str], literal: bool) -> Any:
    """The cells as an array of `dtype`, or as a list where that is text or has no array.

    Empty cells and `NA` become NaN or NaT, or empty bytes.  literal: bytes are the text's own;
    else `0x` begins hexadecimal digits.  BadCells where one is none of the dtype.
    """
    if dtype == "str":
        return texts(cells)
    kind = np.dtype(dtype).kind if dtype not in ("bytes", "uuid") else "O"
    try:
        if kind in "iu":
            return integers(list(map(int, cells)), dtype)
        if kind == "f":
            numbers = [float("nan" if cell in NULLS else cell) for cell in cells]
            with np.errstate(over="ignore"):  # beyond float32 is infinite
                return np.array(numbers, dtype)
        if kind == "M":
            return _times(dtype, cells)
        if kind == "m":
            counts = [None if cell in NULLS else int(cell) for cell in cells]
            return np.array(["NaT" if count is None else count for count in counts], dtype)
        if kind in "SV":
            return fixed(dtype, [cell.encode() if literal else bytes_of(cell) for cell in cells])
        if kind == "U":
            found = np.array(list(cells), np.str_)
            if found.dtype.itemsize <= np.dtype(dtype).itemsize:
                return found.astype(dtype)
        else:
            return [parse_scalar(dtype, cell) for cell in cells]
    except Exception as error:  # of numpy, int, float, click: whatever they say to a bad cell
        raise BadCells from error
    raise BadCells


def texts(cells: Sequence[str]) -> list[str]:
    """The cells as they are; BadCells where UTF-8 has no such text, which JSON can escape."""
    found = list(cells)
    try:
        "".join(found).encode()
    except UnicodeEncodeError as error:
        raise BadCells from error
    return found


def _times(dtype: str, cells: Sequence[str]) -> Any:
    if any(cell.lower() in CLOCKS for cell in cells):
        raise BadCells
    times = ["NaT" if cell in NULLS else cell.removesuffix("Z") for cell in cells]
    found = np.array(times, "datetime64")
    if np.datetime_data(found.dtype)[0] in FINE:  # in which a far year becomes another one
        days = np.datetime_as_string(found, "D")
        if not all(day.startswith(time[:10]) for day, time in zip(days, times)):
            raise BadCells
    return exact(found, dtype)


def exact(found: Any, dtype: str) -> Any:
    """Times in another unit; BadCells where that cannot say one."""
    made = found.astype(dtype)
    if not ((made.astype(found.dtype) == found) | np.isnat(found)).all():
        raise BadCells  # finer, or farther away, than the dtype can say
    return made


def fixed(dtype: str, cells: list[bytes]) -> Any:
    """Bytes of one width; BadCells where one does not fit."""
    size = np.dtype(dtype).itemsize
    if dtype.lstrip("|").startswith("V"):
        if any(len(cell) != size for cell in cells):
            raise BadCells
        return np.frombuffer(b"".join(cells), dtype)
    if any(len(cell) > size for cell in cells):
        raise BadCells
    return np.array(cells, dtype)


def json_cells(column: Column, cells: Sequence[str]) -> list[Any]:
    """Numbers as numbers, absent ones and NaN as null, all else as its text."""
    if isinstance(cells, NumberCells):
        return list(cells.values)
    cells = list(cells)
    if any(type(cell) is Literal for cell in cells):
        typed = [json_cell(cell) for cell in cells]
    elif column.type == "str":
        return cells
    else:
        read = FROM_TEXT.get(column.type, str)
        typed = [None if cell in NULLS else read(cell) for cell in cells]
    return [None if cell != cell else cell for cell in typed]


def json_cell(cell: str) -> Any:
    """A cell of a JSON file as what it was there."""
    if type(cell) is not Literal:
        return cell
    return json.loads(cell) if cell else None


def json_value(text: str) -> Any:
    """The value that a cell of a text file says, where it is all of the value."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadCells from error
