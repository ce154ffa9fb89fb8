"""The columns of a range: their names and types, and their rows read from one snapshot.

Keys come first, by their names, or "key", or "key_0", "key_1", ... for the parts of a tuple; then
the fields of structured values by their names, or "value".

Thread safety: a ColumnReader belongs to one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cesium._range_columns import read_columns
from cesium._ranges import RangeReader
from cesium._values import EncodedValues, ValueCodec
from cesium.columns import Column
from cesium.errors import SchemaError
from cesium.key_names import column_names, value_name
from cesium.keys import key_codec

if TYPE_CHECKING:
    from cesium.ordered import OrderedReads

Columns = dict[str, Any]


def key_types(spec: Any) -> list[Any]:
    """The types of the key columns: dtypes, "str", "bytes", "uuid", or {"codec": name}."""
    parts = spec if isinstance(spec, list) else [spec]
    return [part.removeprefix("-") if isinstance(part, str) else part for part in parts]


def value_types(codec: ValueCodec) -> dict[str, Any]:
    """The types of the value columns by name, likewise; "json" and others by their spec."""
    if codec.dtype is None:
        return {"value": codec.spec}
    if codec.dtype.names is None:
        return {"value": codec.dtype}
    assert codec.dtype.fields is not None
    return {name: codec.dtype.fields[name][0] for name in codec.dtype.names}


def is_structured(codec: ValueCodec) -> bool:
    """Whether the values have fields."""
    return codec.dtype is not None and codec.dtype.names is not None


class TableColumns:
    """The columns of a table, and which of them are wanted; SchemaError for one that is not there.

    wanted: names, in the order in which they shall come; None: all of them.
    """

    def __init__(
        self, store: OrderedReads, wanted: Iterable[str] | None, keys: bool, values: bool
    ) -> None:
        self._store = store
        types = key_types(store.keys_codec.spec)
        of_values = value_types(store.values_codec)
        if not is_structured(store.values_codec):
            of_values = {value_name(store.key_names): of_values["value"]}
        names = column_names(store.key_names, len(types), of_values)
        self.keys = dict(zip(names, types)) if keys else {}
        self.values = of_values if values else {}
        self.types: dict[str, Any] = {**self.keys, **self.values}
        if wanted is not None:
            self.types = {name: self._type(name) for name in chosen(wanted)}

    def with_keys(self) -> None:
        """All keys are wanted, before what was wanted already."""
        self.types = {**self.keys, **self.types}

    def _type(self, name: str) -> Any:
        if name not in self.types:
            raise SchemaError(f"there is no column {name!r}: there are {', '.join(self.types)}")
        return self.types[name]

    def read(self, reader: RangeReader, most: int | None, raw: bool) -> tuple[int, Columns]:
        """Up to `most` further rows: their number, and the wanted columns in order.

        raw: what codecs of the user's, JSON and MessagePack would decode stays the bytes, or the
        text, that are stored.
        """
        store = self._store
        keys = [name for name in self.keys if name in self.types]
        values = [name for name in self.values if name in self.types]
        codec = store.keys_codec
        if raw and isinstance(codec.spec, dict):
            codec = key_codec("bytes")
        fields = fields_of(store.values_codec, values)
        count, decoded, read = read_columns(reader, codec if keys else None, fields, most)
        found: Columns = {}
        if keys:
            parts = decoded if isinstance(decoded, tuple) else (decoded,)
            found = dict(zip(self.keys, parts))
        if values:
            found |= value_columns(store.values_codec, self.values, values, fields, read, raw)
        return count, {name: found[name] for name in self.types}


def chosen(wanted: Iterable[str]) -> list[str]:
    """Names of columns as a list: at least one, and each once; else SchemaError."""
    if isinstance(wanted, str):
        raise SchemaError(f"columns is a list of names, such as [{wanted!r}], not {wanted!r}")
    names = list(wanted)
    if not names:
        raise SchemaError("columns is a list of at least one name, or None for all")
    for number, name in enumerate(names):
        if name in names[:number]:
            raise SchemaError(f"column {name!r} is wanted twice")
    return names


def fields_of(codec: ValueCodec, names: list[str]) -> list[int] | None:
    """The column runs that hold the named values; None where they are read as wholes."""
    if not names:
        return []
    if codec.width == 0:
        return None
    assert codec.dtype is not None
    every = codec.dtype.names
    if every is None or len(codec.field_widths) != len(every):
        return list(range(len(codec.field_widths)))
    return [every.index(name) for name in names]


def value_columns(
    codec: ValueCodec,
    types: dict[str, Any],
    names: list[str],
    fields: list[int] | None,
    read: Any,
    raw: bool,
) -> Columns:
    """What was read of the values, as columns.  types: of all of them."""
    if fields is not None and len(fields) == len(names):
        return {name: _items(data, types[name]) for name, data in zip(names, read)}
    if fields is not None:  # more fields than a page has column runs: rows in one run
        assert codec.dtype is not None
        rows = read[0].view(codec.dtype)
    elif codec.dtype is None and (raw or codec.spec in ("str", "bytes")):
        return {names[0]: _texts(codec, read)}
    else:
        rows = codec.decode_array(read)
    if rows.dtype.names is None:
        return {names[0]: rows}
    return {name: np.ascontiguousarray(rows[name]) for name in names}


def _items(data: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.subdtype is None:
        return data.view(dtype)
    items, shape = dtype.subdtype
    return data.view(items).reshape(-1, *shape)


def _texts(codec: ValueCodec, read: EncodedValues) -> Column:
    assert read.offsets is not None and read.data is not None
    return Column(read.offsets, read.data, "str" if codec.spec in ("str", "json") else "bytes")


def read_fields(
    store: OrderedReads, wanted: Iterable[str], keys: bool, reader: RangeReader, most: int | None
) -> tuple[int, Any, Any]:
    """Up to `most` rows as Range.arrays has them, the values with the wanted fields alone.

    Gives their number, the keys (None: not asked for), and the values.
    """
    fields = TableColumns(store, wanted, False, True)
    names = list(fields.types)
    both = TableColumns(store, None, keys, True)
    both.types = {name: both.types[name] for name in [*both.keys, *names]}
    count, found = both.read(reader, most, raw=False)
    parts = tuple(found[name] for name in both.keys)
    composite = isinstance(store.keys_codec.spec, list)
    dtype = store.values_codec.dtype
    if dtype is None or dtype.names is None:
        values = found[names[0]]
    else:
        values = np.empty(count, [(name, fields.types[name]) for name in names])
        for name in names:
            values[name] = found[name]
    return count, (parts if composite else parts[0]) if keys else None, values


def batches(columns: TableColumns, reader: RangeReader, rows: int | None) -> Iterator[Columns]:
    """Batches of at most `rows` rows, raw; None: all rows as one.  No batch is empty."""
    while True:
        columns._store._check_open()
        count, found = columns.read(reader, rows, raw=True)
        if count == 0:
            return
        yield found
