"""Cells of a text file in an Arrow array: a sequence of str that can be looked at as a whole.

Where the array as a whole cannot tell what is asked, its cells are asked one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, overload

import numpy as np

from cesium.cli._arrow import column_of
from cesium.cli._formats import needed
from cesium.cli._infer import EXACT_FLOAT, NULLS, TYPES, Cells
from cesium.cli._text import BOOLEANS

INTEGER = b"0123456789-"
NUMBER = b"0123456789+-.eE"
DATE, MINUTES, SECONDS = 10, 16, 19  # characters of a time without Z


class ArrowCells(Cells):
    """The cells of a column.  array: of `string`, without nulls."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self._arrow = needed("pyarrow", "arrow")
        self._compute = needed("pyarrow.compute", "arrow")

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> ArrowCells: ...
    def __getitem__(self, index: int | slice) -> str | ArrowCells:
        if isinstance(index, slice):
            return ArrowCells(self._array[index])
        return str(self._array[index].as_py())

    def __iter__(self) -> Iterator[str]:
        return iter(self._array.to_pylist())

    # -- what `_infer` asks

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        return _parts(self._array)

    @cached_property
    def _nulls(self) -> Any:
        """Which cells are absent; None when none is."""
        starts, sizes, data = self._parts
        if not len(sizes) or sizes.min() > max(map(len, NULLS)):
            return None
        absent = sizes == 0
        two = np.flatnonzero(sizes == 2)
        absent[two] = (data[starts[two]] == ord("N")) & (data[starts[two] + 1] == ord("A"))
        return absent if absent.any() else None

    @cached_property
    def _content(self) -> Any:
        """The cells that are not absent."""
        return self._array if self._nulls is None else self._array.filter(_mask(~self._nulls))

    @cached_property
    def _distinct(self) -> list[str]:
        return list(self._content.unique().to_pylist())

    @property
    def has_nulls(self) -> bool:
        return self._nulls is not None

    @property
    def has_cells(self) -> bool:
        return len(self._content) > 0

    @property
    def nested(self) -> bool:
        return False

    @property
    def exact(self) -> bool:
        """Whether float64 holds them, when they are integers."""
        numbers = self._integers
        if numbers is None:
            return all(abs(int(cell)) <= EXACT_FLOAT for cell in self._distinct)
        return bool(((numbers >= -EXACT_FLOAT) & (numbers <= EXACT_FLOAT)).all())

    @property
    def ascii(self) -> bool:
        data = self._parts[2]
        return not len(data) or bool(data.max() < 128)

    @property
    def text_bytes_max(self) -> int:
        """Of what is ASCII."""
        return int(self._parts[1].max(initial=1))

    def are(self, name: str) -> bool:
        match name:
            case "i8":
                said = self._are_plain_integers
            case "f8":
                said = self._are_plain_floats()
            case "datetime64[s]":
                said = self._are_times
            case "datetime64[us]":
                said = self._are_times or self._times(name, strict=True) is not None
            case _:
                said = False
        return said or all(map(TYPES[name], self._distinct))

    # -- what `_convert` asks

    def converted(self, dtype: str, literal: bool) -> Any:
        if dtype == "str":
            return column_of(self._array, "str")
        if dtype == "bytes":
            return None if self._have_prefix("0x") else column_of(self._array, "bytes")
        if dtype == "uuid":
            return None
        kind = np.dtype(dtype).kind
        if kind == "S":
            return None if not literal and self._have_prefix("0x") else self._fixed(dtype)
        if kind == "b":
            return self._booleans()
        if kind in "iu":
            return None if self.has_nulls else self._whole(np.dtype(dtype))
        found = {"f": lambda: self._floats, "M": lambda: self._times(dtype, strict=False)}
        content = found[kind]() if kind in found else None
        return None if content is None else self._spread(content, dtype)

    def _spread(self, content: Any, dtype: str) -> Any:
        """With NaN or NaT in the place of cells that are absent."""
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            made = content.astype(dtype)
        if self._nulls is None:
            return made
        found = np.full(len(self), np.array("nan" if made.dtype.kind == "f" else "NaT", dtype))
        found[~self._nulls] = made
        return found

    def _have_prefix(self, prefix: str) -> bool:
        return bool(self._compute.any(self._compute.starts_with(self._array, prefix)).as_py())

    # -- cells as numbers and times

    @cached_property
    def _content_parts(self) -> tuple[Any, Any, Any]:
        return self._parts if self._nulls is None else _parts(self._content)

    @cached_property
    def _arrow_integers(self) -> Any:
        """int64, where no cell is anything but digits and signs of minus; these Arrow reads as
        `int` does."""
        return self._cast("int64", INTEGER)

    @cached_property
    def _integers(self) -> Any:
        found = self._arrow_integers
        return None if found is None else _numbers(found, "int64")

    @cached_property
    def _floats(self) -> Any:
        """float64, likewise; of other texts, `nan(1)` for one, Arrow takes more than `float`."""
        found = self._cast("float64", NUMBER)
        return None if found is None else _numbers(found, "float64")

    def _cast(self, kind: str, alphabet: bytes) -> Any:
        if self._content_parts[2].tobytes().translate(None, alphabet):
            return None
        try:
            return self._compute.cast(self._content, kind)
        except self._arrow.ArrowInvalid:
            return None

    @cached_property
    def _are_plain_integers(self) -> bool:
        """Whether each is written as Python would; those are `_infer.INTEGER`."""
        found = self._arrow_integers
        return found is not None and self._compute.cast(found, "string").equals(self._content)

    def _are_plain_floats(self) -> bool:
        """Whether they are `_infer.FLOAT`, and none is a whole number that a float would round."""
        if self._are_plain_integers and len(self._integers):
            low, high = self._integers.min(), self._integers.max()
            return bool(low >= -EXACT_FLOAT and high <= EXACT_FLOAT)
        found = self._floats
        if found is None or not (np.abs(found) < EXACT_FLOAT).all():
            return False
        starts, sizes, data = self._content_parts
        data = np.concatenate([data, np.zeros(2, np.uint8)])  # a look beyond the last cell
        first = starts + ((data[starts] == ord("+")) | (data[starts] == ord("-")))
        leading = (data[first] == ord("0")) & (first + 1 < starts + sizes)
        return not (leading & (data[first + 1] - ord("0") < 10)).any()

    def _whole(self, dtype: np.dtype[Any]) -> Any:
        found, limits = self._integers, np.iinfo(dtype)
        if found is None or not len(found) or found.min() < limits.min or found.max() > limits.max:
            return None
        return found.astype(dtype)

    @cached_property
    def _are_times(self) -> bool:
        return self._times("datetime64[s]", strict=True) is not None

    def _times(self, dtype: str, strict: bool) -> Any:
        """Times of the dtype, where each has one of the usual lengths and the dtype can say it.

        strict: as `_infer.TIME`, by which a date has no Z.
        """
        bare = self._compute.ascii_rtrim(self._content, "Z")
        before, sizes = self._content_parts[1], _parts(bare)[1]
        usual = (sizes == DATE) | (sizes == MINUTES) | (sizes == SECONDS)
        unit = "s"
        if not usual.all():
            usual |= (sizes >= SECONDS + 2) & (sizes <= SECONDS + 7)
            unit = "us"
        marked = before - sizes
        wrong = ~usual | (marked > 1) | (strict & (marked == 1) & (sizes == DATE))
        if wrong.any() or (strict and unit == "us" and dtype == "datetime64[s]"):
            return None
        try:
            times = self._compute.cast(bare, self._arrow.timestamp(unit))
        except self._arrow.ArrowInvalid:
            return None
        found = _numbers(times, f"datetime64[{unit}]")
        made = found.astype(dtype)
        return made if (made.astype(found.dtype) == found).all() else None

    def _booleans(self) -> Any:
        coded = self._array.dictionary_encode()
        said = [BOOLEANS.get(cell.lower()) for cell in coded.dictionary.to_pylist()]
        if None in said:
            return None
        return np.array(said, np.bool_)[_numbers(coded.indices, "int32")]

    def _fixed(self, dtype: str) -> Any:
        width = np.dtype(dtype).itemsize
        if self._parts[1].max(initial=0) > width:
            return None
        padded = self._compute.ascii_rpad(self._array, width, "\0")
        return _parts(padded)[2].view(dtype)


def _parts(array: Any) -> tuple[Any, Any, Any]:
    """Where each cell of an array of `string` begins, its size, and the bytes of all."""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, "u1")
    return ends[:-1] - ends[0], np.diff(ends), content[ends[0] : ends[-1]]


def _numbers(array: Any, dtype: str) -> Any:
    """An array of Arrow's without nulls; its own `to_numpy` would import pandas."""
    found = np.frombuffer(array.buffers()[1] or b"", dtype)
    return found[array.offset : array.offset + len(array)]


def _mask(rows: Any) -> Any:
    """An array of truths, as Arrow's; `pyarrow.array` would import pandas."""
    arrow = needed("pyarrow", "arrow")
    bits = arrow.py_buffer(np.packbits(rows, bitorder="little"))
    return arrow.Array.from_buffers(arrow.bool_(), len(rows), [None, bits])
