"""What is loaded from: frames of pandas, and whatever has an Arrow interface, batch by batch.

An Incoming knows the columns and their types before any row is read; what it cannot take it
refuses by the column's name.  A stream is read once, one batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cesium._arrow_import import ArrowColumn, ArrowStream
from cesium.arrow_values import column_type, column_values, joined
from cesium.casting import describe
from cesium.columns import Column
from cesium.errors import SchemaError
from cesium.pandas_columns import index_names, is_pandas, named_series, series_values

Columns = dict[str, Any]
FRAMES = (
    "a pandas or polars DataFrame, a pyarrow Table, RecordBatch or RecordBatchReader, or what has "
    "__arrow_c_stream__ or __arrow_c_array__"
)


def is_frame(source: Any) -> bool:
    """Whether `incoming` takes it."""
    return is_pandas(source) or _has_arrow(source)


def _has_arrow(source: Any) -> bool:
    kind = type(source)
    return hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__")


class Incoming:
    """The columns of one source: `types` by name, `keys` the names of the key columns."""

    types: dict[str, Any]
    keys: list[str]

    def batches(self) -> Iterator[Columns]:
        """The rows, in pieces; each an array or a Column by name.  Once only."""
        raise NotImplementedError

    def text_widths(self, names: Iterable[str]) -> dict[str, int]:
        """The longest row of columns of text (in characters) or bytes.

        SchemaError for a stream, which would be read up.
        """
        raise NotImplementedError

    def _find_keys(self, key: Any, default: list[str]) -> list[str]:
        names = default if key is None else [key] if isinstance(key, str) else list(key)
        if not names:
            raise SchemaError(
                f"key= names the key columns: one of {', '.join(self.types)}, or a list of several"
            )
        for number, name in enumerate(names):
            if name not in self.types:
                raise SchemaError(
                    f"there is no column {name!r} to be the key: there are {', '.join(self.types)}"
                )
            if name in names[:number]:
                raise SchemaError(f"column {name!r} is twice in the key")
        return names


def incoming(source: Any, key: Any, default: list[str], names: tuple[str, ...] = ()) -> Incoming:
    """A source of rows; SchemaError for what is none.

    key: a name or names of key columns; None: `names` where the source has all of them, or the
    index of a pandas frame that has one, or `default`.
    """
    if is_pandas(source):
        return PandasIncoming(source, key, default, names)
    if _has_arrow(source):
        return ArrowIncoming(source, key, default, names)
    hint = "; call collect() first" if type(source).__name__ == "LazyFrame" else ""
    raise SchemaError(f"expected {FRAMES}, given {describe(source)}{hint}")


class PandasIncoming(Incoming):
    """A pandas DataFrame; one batch."""

    def __init__(self, frame: Any, key: Any, default: list[str], wanted: tuple[str, ...]) -> None:
        series = named_series(frame)
        levels = [name for name in index_names(frame) if name is not None]
        self.types = dict.fromkeys(series)
        if not set(default) <= set(series):
            default = []
        if key is None and wanted and set(wanted) <= set(series):
            key = wanted
        self.keys = self._find_keys(key, levels or default)
        for name in levels:  # that nobody named, and that is no key: only a count of rows
            if name.startswith("index") and name not in frame.index.names and name not in self.keys:
                del series[name], self.types[name]
        self._columns = {
            name: series_values(name, column, name not in self.keys)
            for name, column in series.items()
        }
        self.types = {name: _type_of(column) for name, column in self._columns.items()}

    def batches(self) -> Iterator[Columns]:
        return iter([self._columns])

    def text_widths(self, names: Iterable[str]) -> dict[str, int]:
        return {name: longest(self._columns[name]) for name in names}


class ArrowIncoming(Incoming):
    """What has an Arrow interface."""

    def __init__(self, source: Any, key: Any, default: list[str], wanted: tuple[str, ...]) -> None:
        self._source = source
        self._stream = ArrowStream(source)
        if self._stream.type.format != "+s":
            raise SchemaError(f"expected a table with columns, given {describe(source)}")
        fields = self._stream.type.children
        self.types = {}
        for field in fields:
            if field.name in self.types:
                raise SchemaError(f"the table has two columns {field.name!r}: rename one")
            self.types[field.name] = column_type(field.name, field)
        default = next(
            (each for each in (list(wanted), default) if each and set(each) <= set(self.types)), []
        )
        self.keys = self._find_keys(key, default)

    def batches(self) -> Iterator[Columns]:
        fields = self._stream.type.children
        for batch in self._stream:
            if batch.validity() is not None:
                raise SchemaError("a whole row is null: fill nulls, or drop these rows")
            parts = batch.parts()
            if batch.length:
                yield {
                    field.name: column_values(field.name, field, part, field.name not in self.keys)
                    for field, part in zip(fields, parts)
                }

    def text_widths(self, names: Iterable[str]) -> dict[str, int]:
        names = list(names)
        if not hasattr(self._source, "num_rows") and not hasattr(self._source, "height"):
            raise SchemaError(
                f"column {names[0]!r} ({self.types[names[0]]}) has no width: several value columns "
                f"have fixed ones, and a stream cannot be measured; give value=[({names[0]!r}, "
                "'U16'), ...]"
            )
        widths = dict.fromkeys(names, 1)
        stream = ArrowStream(self._source)
        for batch in stream:
            parts: list[ArrowColumn] = batch.parts()
            for field, part in zip(stream.type.children, parts):
                if field.name in widths:
                    rows = column_values(field.name, field, part, False)
                    widths[field.name] = max(widths[field.name], longest(rows))
        return widths


def arrow_rows(values: Any) -> Any:
    """Keys or values that are one Arrow column, as an array or a Column; anything else as it is."""
    kind = type(values)
    if kind is np.ndarray or kind is list or not _has_arrow(values) or is_pandas(values):
        return values
    stream = ArrowStream(values)
    if stream.type.format == "+s":
        return values  # a table: for key= to choose from
    name = stream.type.name
    parts = [column_values(name, stream.type, part) for part in stream]
    return joined(parts, column_type(name, stream.type))


def longest(values: Any) -> int:
    """Characters of the longest text, bytes of the longest bytes; at least 1."""
    if not isinstance(values, Column):
        return int(values.dtype.itemsize // (4 if values.dtype.kind == "U" else 1))
    places = character_places(values) if values.kind == "str" else values.offsets
    return max(1, int(np.diff(places).max(initial=0)))


def character_places(column: Column) -> Any:
    """int64[n + 1]: how many characters lie before each row of a packed column of text."""
    packed = column._packed()
    starts = (packed.data & 0xC0) != 0x80  # not the second or a later byte of a character
    return np.concatenate([[0], np.cumsum(starts, dtype=np.int64)])[packed.offsets]


def _type_of(values: Any) -> Any:
    return values.kind if isinstance(values, Column) else values.dtype
