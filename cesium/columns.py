"""A column of variable-length values: many `str` or `bytes` in two arrays, no object per row.

A `Column` is immutable: its arrays are checked once, made read-only, and shared by its slices, so
any thread may read it.  Invariants:

1. `offsets` never decreases, begins at 0 or above and ends at or below `len(data)`.
2. Row `i` is `data[offsets[i]:offsets[i + 1]]`, as UTF-8 when `kind` is "str".
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from cesium.errors import CorruptionError, SchemaError

__all__ = ["Column"]

_KINDS = ("str", "bytes")
_REPR_ROWS = 6


class Column:
    """An immutable sequence of `str` or `bytes` values held as offsets and bytes.

    `offsets` is int64[n + 1] and `data` uint8[...]; neither is copied when it has that dtype and
    is C-contiguous.  `kind` is "str" (the bytes are UTF-8) or "bytes".  Raises SchemaError when
    the arrays do not describe a column.  Text is decoded only when it is read; CorruptionError says
    that it is not UTF-8.

    `column[i]` is a value, `column[a:b]` a column that shares the data, `column[mask]` and
    `column[indices]` columns of their own; `==` compares row by row into a bool array.
    """

    __slots__ = ("data", "kind", "offsets")

    offsets: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]
    kind: str

    def __init__(self, offsets: npt.ArrayLike, data: npt.ArrayLike, kind: str) -> None:
        if kind not in _KINDS:
            raise SchemaError(f"a column holds 'str' or 'bytes', not {kind!r}")
        offset_array = _exact("offsets", offsets, np.dtype(np.int64))
        data_array = _exact("data", data, np.dtype(np.uint8))
        if len(offset_array) == 0:
            raise SchemaError("a column of n values has n + 1 offsets, given none")
        first, last = int(offset_array[0]), int(offset_array[-1])
        if first < 0 or last > len(data_array):
            raise SchemaError(
                f"column offsets run from {first} to {last}, "
                f"beyond the {len(data_array)} bytes of data"
            )
        if bool((offset_array[1:] < offset_array[:-1]).any()):
            raise SchemaError("column offsets must not decrease")
        self._set(offset_array, data_array, kind)

    def _set(self, offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8], kind: str) -> None:
        object.__setattr__(self, "offsets", _read_only(offsets))
        object.__setattr__(self, "data", _read_only(data))
        object.__setattr__(self, "kind", kind)

    @classmethod
    def _trusted(
        cls, offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8], kind: str
    ) -> Column:
        """A column of arrays that are known to keep the invariants."""
        column = cls.__new__(cls)
        column._set(offsets, data, kind)
        return column

    @classmethod
    def from_values(cls, values: Iterable[Any], kind: str) -> Column:
        """A column of `str` values, or of bytes-like ones; SchemaError names what is not."""
        if kind not in _KINDS:
            raise SchemaError(f"a column holds 'str' or 'bytes', not {kind!r}")
        rows = values if isinstance(values, list) else list(values)
        pieces, data = _encode_text(rows) if kind == "str" else _encode_bytes(rows)
        offsets = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=offsets[1:])
        return cls._trusted(offsets, np.frombuffer(data, np.uint8), kind)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a column is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a column is immutable: {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        packed = self._packed()
        return Column, (packed.offsets, packed.data, self.kind)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: slice | npt.NDArray[Any] | list[Any]) -> Column: ...
    @overload
    def __getitem__(self, index: int) -> str | bytes: ...
    def __getitem__(self, index: Any) -> Column | str | bytes:
        if isinstance(index, slice):
            return self._slice(index)
        if isinstance(index, (list, np.ndarray)) and np.ndim(index) == 1:
            return self._select(np.asarray(index))
        row = operator.index(index)
        count = len(self)
        if not -count <= row < count:
            raise IndexError(f"row {row} of a column of {count}")
        row %= count
        raw = self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()
        if self.kind != "str":
            return raw
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise CorruptionError(f"row {row} of a column of text is not UTF-8") from error

    def _slice(self, index: slice) -> Column:
        start, stop, step = index.indices(len(self))
        if step != 1:
            return self.take(np.arange(start, stop, step))
        return Column._trusted(self.offsets[start : max(start, stop) + 1], self.data, self.kind)

    def _select(self, index: npt.NDArray[Any]) -> Column:
        if index.dtype == np.bool_:
            if len(index) != len(self):
                raise IndexError(f"a mask of {len(index)} rows over a column of {len(self)}")
            return self.take(np.flatnonzero(index))
        return self.take(index)

    def take(self, indices: npt.ArrayLike) -> Column:
        """The rows at `indices` (integers, negative from the end) as a column of its own."""
        rows = np.asarray(indices)
        if rows.size == 0:
            rows = rows.astype(np.int64)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise SchemaError(
                f"take needs a 1-dimensional array of integers, given {rows.ndim} of {rows.dtype}"
            )
        count = len(self)
        rows = rows.astype(np.int64)
        if rows.size and not (-count <= rows.min() and rows.max() < count):
            raise IndexError(f"an index lies outside a column of {count}")
        rows = np.where(rows < 0, rows + count, rows)
        starts = self.offsets[:-1][rows]
        sizes = self.offsets[1:][rows] - starts
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        places = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Column._trusted(offsets, self.data[places], self.kind)

    def _packed(self) -> Column:
        """The same rows with offsets from 0 and no other bytes; itself when it is so already."""
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        if first == 0 and last == len(self.data):
            return self
        return Column._trusted(self.offsets - first, self.data[first:last], self.kind)

    def __iter__(self) -> Iterator[str | bytes]:
        data, kind = memoryview(self.data.data), self.kind
        offsets = self.offsets
        try:
            for first in range(0, len(self), 4096):
                edges = offsets[first : first + 4097].tolist()
                for start, end in pairwise(edges):
                    yield str(data[start:end], "utf-8") if kind == "str" else bytes(data[start:end])
        except UnicodeDecodeError as error:
            raise CorruptionError("a row of a column of text is not UTF-8") from error

    def __eq__(self, other: object) -> Any:
        if isinstance(other, (str, bytes)):
            return np.fromiter((row == other for row in self), np.bool_, len(self))
        if not isinstance(other, (Column, list, tuple, np.ndarray)):
            return NotImplemented
        if len(other) != len(self):
            raise ValueError(f"a column of {len(self)} rows cannot be compared with {len(other)}")
        return np.fromiter(map(operator.eq, self, other), np.bool_, len(self))

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else ~equal

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        head = ", ".join(repr(row) for row in self[:_REPR_ROWS])
        more = ", ..." if len(self) > _REPR_ROWS else ""
        return f"Column([{head}{more}], kind={self.kind!r}, len={len(self)})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a column becomes an array only by a copy")
        array = self.to_numpy()
        return array if dtype is None else array.astype(dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and of their offsets."""
        return int(self.offsets[-1] - self.offsets[0]) + self.offsets.nbytes

    def to_list(self) -> list[Any]:
        """The values as a list of `str` or `bytes`."""
        return list(self)

    def to_numpy(self) -> npt.NDArray[np.object_]:
        """The values as an array of objects, shape (n,)."""
        array = np.empty(len(self), np.object_)
        array[:] = self.to_list()
        return array


def _exact(name: str, values: npt.ArrayLike, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype != dtype):
        raise SchemaError(
            f"column {name} must be a 1-dimensional array of {dtype}, "
            f"given {array.ndim} dimensions of {array.dtype}"
        )
    return np.ascontiguousarray(array, dtype)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _encode_text(rows: list[Any]) -> tuple[list[Any], bytes]:
    try:
        joined = "".join(rows)
        if joined.isascii():  # then lengths in characters are lengths in bytes
            return rows, joined.encode()
        pieces = [row.encode() for row in rows]
    except (TypeError, UnicodeEncodeError):
        _refuse_text(rows)
        raise
    return pieces, b"".join(pieces)


def _refuse_text(rows: list[Any]) -> None:
    for row, value in enumerate(rows):
        if not isinstance(value, str):
            raise SchemaError(f"row {row}: expected str, given {type(value).__name__}") from None
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SchemaError(f"row {row}: text with a lone surrogate is not UTF-8") from None


def _encode_bytes(rows: list[Any]) -> tuple[list[bytes], bytes]:
    for row, value in enumerate(rows):
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise SchemaError(f"row {row}: expected bytes, given {type(value).__name__}")
    pieces = [bytes(value) for value in rows]
    return pieces, b"".join(pieces)
