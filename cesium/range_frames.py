"""A range as a frame: pandas, polars, Arrow, or whatever takes an Arrow stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cesium._arrow_export import Array, Stream
from cesium._ranges import RangeReader
from cesium.arrow_types import COARSE, DAYS, arrow_array, arrow_field, text_column
from cesium.casting import at_least
from cesium.columns import Column
from cesium.errors import SchemaError
from cesium.extras import needed
from cesium.range_columns import TableColumns, batches

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from cesium.ordered import OrderedReads

# Of a stream, at most.  Columns of 8 MiB come in huge pages: 16 M rows of 16 bytes in 0.1 s; in
# batches of 65,536 rows 0.3 s.
BATCH_ROWS = 1 << 20


class ArrowRange:
    """A range's columns as an Arrow stream, for whatever has the PyCapsule interface.

    Made by `Range.arrow_stream`; each consumer gets a stream of its own, of one snapshot.
    """

    def __init__(self, view: FrameReads, columns: Iterable[str] | None, rows: int | None) -> None:
        self._view = view
        self._columns = view._table_columns(columns)
        self._rows = rows
        self._stream: Stream | None = None  # the newest

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A PyCapsule "arrow_array_stream"; a requested schema is not looked at, as is allowed."""
        self._stream = Stream(self._fields(), self._batches())
        return self._stream.capsule()

    def _fields(self) -> list[Any]:
        return [arrow_field(name, raw_type(kind)) for name, kind in self._columns.types.items()]

    def _batches(self) -> Iterator[list[Array]]:
        reader = self._view._reader(bool(self._columns.values))
        return (
            [arrow_array(name, values) for name, values in found.items()]
            for found in batches(self._columns, reader, self._rows)
        )

    def _given_to(self, consumer: Any) -> Any:
        """What the consumer makes of the stream; an error in it as it was, not as text."""
        try:
            return consumer(self)
        except Exception as error:
            if self._stream is not None and self._stream.error is not None:
                raise self._stream.error from error
            raise


class FrameReads:
    """The frames of a Range."""

    __slots__ = ()

    if TYPE_CHECKING:
        _store: OrderedReads
        _yields: int

        def _reader(self, values: bool) -> RangeReader: ...

    def _table_columns(self, columns: Iterable[str] | None) -> TableColumns:
        keys, values = self._yields != 2, self._yields != 1
        return TableColumns(self._store, columns, keys, values)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The range as an Arrow stream of batches of one snapshot: see `arrow_stream`."""
        return self.arrow_stream().__arrow_c_stream__(requested_schema)

    def arrow_stream(
        self, columns: Iterable[str] | None = None, rows: int = BATCH_ROWS
    ) -> ArrowRange:
        """What DuckDB, polars, pyarrow and others read a range from, batch by batch.

        columns: names, as `to_arrow`.  rows: of a batch, at most.  No library is needed.
        """
        return ArrowRange(self, columns, at_least("a batch's number of rows", rows, 1))

    def to_arrow(self, columns: Iterable[str] | None = None) -> pyarrow.Table:
        """The range as a pyarrow.Table of one chunk.

        columns: names of those to read, in that order; the others are not touched.  None: all, keys
        first (by their names, or "key", or "key_0", "key_1", ... of a tuple), then the fields of
        the values, or "value".  Text is large_string, bytes large_binary; NaT becomes null, NaN
        stays.  Values of codecs are what is stored: text of JSON, bytes of the others.  SchemaError
        for a column that is not there, or that Arrow has no type for (complex, times finer than
        nanoseconds).
        """
        arrow = needed("pyarrow", "arrow")
        table: pyarrow.Table = ArrowRange(self, columns, None)._given_to(arrow.table)
        return table

    def to_polars(self, columns: Iterable[str] | None = None) -> polars.DataFrame:
        """The range as a polars.DataFrame; columns as of `to_arrow`."""
        library = needed("polars", "polars")
        frame: polars.DataFrame = ArrowRange(self, columns, None)._given_to(library.DataFrame)
        return frame

    def to_pandas(
        self, columns: Iterable[str] | None = None, index: bool = True
    ) -> pandas.DataFrame:
        """The range as a pandas.DataFrame, its index the keys: a MultiIndex of composite ones.

        columns: names of those to read, as of `to_arrow`; the keys need not be among them.  index:
        False has keys as columns like others, read only if they are named.  Numbers and times are
        numpy arrays that nothing else holds; text has pandas' own dtype (objects without pyarrow);
        JSON, MessagePack and the user's codecs come decoded, one object each.
        """
        pandas = needed("pandas", "pandas")
        wanted = self._table_columns(columns)
        if index:
            wanted.with_keys()
        _, found = wanted.read(self._reader(bool(wanted.values)), None, raw=False)
        series = {name: pandas_values(name, values) for name, values in found.items()}
        keys = [name for name in series if name in wanted.keys] if index else []
        rest = {name: values for name, values in series.items() if name not in keys}
        if not keys:
            return pandas.DataFrame(rest, copy=False)
        levels = [series[name] for name in keys]
        if len(levels) == 1:
            made = pandas.Index(levels[0], name=keys[0], copy=False)
        else:
            made = pandas.MultiIndex.from_arrays(levels, names=keys)
        return pandas.DataFrame(rest, index=made, copy=False)


def raw_type(kind: Any) -> Any:
    """The type of a column that stays encoded: JSON is text, other codecs are bytes."""
    if kind == "json":
        return "str"
    return "bytes" if isinstance(kind, dict) or kind == "msgpack" else kind


def pandas_values(name: str, values: Any) -> Any:
    """A column as pandas holds it, without a copy where it is an array of a dtype it knows."""
    if isinstance(values, Column):
        return _pandas_texts(values)
    if values.ndim > 1:
        raise SchemaError(
            f"column {name!r}: a pandas column has one dimension, not arrays of {values.shape[1:]}"
            "; use to_arrow() or arrays()"
        )
    if values.dtype.kind in "SU":
        return _pandas_texts(text_column(values))
    if values.dtype.kind == "V":
        return Column(
            np.arange(len(values) + 1) * values.dtype.itemsize, values.view(np.uint8), "bytes"
        ).to_numpy()
    if values.dtype.kind in "Mm":
        unit, _ = np.datetime_data(values.dtype)
        if unit in COARSE or unit in DAYS:
            return values.astype(f"{values.dtype.kind}8[s]")
        if unit not in ("s", "ms", "us", "ns"):
            raise SchemaError(f"column {name!r}: pandas has no {values.dtype}; use arrays()")
    return values


def _pandas_texts(column: Column) -> Any:
    try:
        import pyarrow
    except ImportError:
        return column.to_numpy()
    kind = pyarrow.large_string() if column.kind == "str" else pyarrow.large_binary()
    buffers = [None, pyarrow.py_buffer(column.offsets), pyarrow.py_buffer(column.data)]
    return pyarrow.Array.from_buffers(kind, len(column), buffers).to_pandas().array
