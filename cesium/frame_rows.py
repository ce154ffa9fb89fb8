"""Columns of a frame as rows of a table: which column is which part, encoded batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cesium._keys import EncodedKeys, KeyCodec
from cesium._values import EncodedValues, ValueCodec
from cesium.columns import Column
from cesium.errors import SchemaError
from cesium.incoming import Columns, Incoming, character_places, incoming
from cesium.key_names import Names, default_names
from cesium.range_columns import key_types

Part = tuple[EncodedKeys, EncodedValues]


class FrameRows:
    """The rows of a source for a table of these codecs; SchemaError when its columns do not fit.

    key: names of the key columns; None: `names`, the table's own, if the source has all of them.
    """

    def __init__(
        self, source: Any, key: Any, keys: KeyCodec, values: ValueCodec, names: Names = ()
    ) -> None:
        parts = len(key_types(keys.spec))
        default = default_names(parts)
        given = source if isinstance(source, Incoming) else incoming(source, key, default, names)
        if len(given.keys) != parts:
            raise SchemaError(
                f"the key has {parts} part{'s' if parts > 1 else ''}, {keys.spec}, "
                f"given {len(given.keys)} to make it of: {', '.join(given.keys)}"
            )
        self._given = given
        self._keys = keys
        self._values = values
        self._rest = [name for name in given.types if name not in given.keys]
        self._check_names()

    def _check_names(self) -> None:
        dtype = self._values.dtype
        names = None if dtype is None else dtype.names
        if names is None:
            if len(self._rest) != 1:
                raise SchemaError(
                    f"the value is one {self._values.spec}, given {len(self._rest)} columns beside "
                    f"the key: {', '.join(self._rest) or 'none'}"
                )
        elif set(names) != set(self._rest):
            raise SchemaError(
                f"the value has the fields {', '.join(names)}, given the columns "
                f"{', '.join(self._rest) or 'none'} beside the key"
            )

    def parts(self) -> Iterator[Part]:
        """The rows, encoded, in pieces as they come."""
        for batch in self._given.batches():
            keys = self._encode_keys(batch)
            yield keys, self._encode_values(batch, keys.count)

    def whole(self) -> Part:
        """All rows, encoded, as one batch."""
        parts = list(self.parts())
        if parts:
            return join_parts(parts)
        return self._keys.encode_array(self._no_keys()), self._values.encode_array([])

    def _no_keys(self) -> Any:
        return tuple([] for _ in self._given.keys) if isinstance(self._keys.spec, list) else []

    def _encode_keys(self, batch: Columns) -> EncodedKeys:
        given = self._given
        arrays = tuple(_key_column(batch[name], given.types[name]) for name in given.keys)
        composite = isinstance(self._keys.spec, list)
        try:
            return self._keys.encode_array(arrays if composite else arrays[0])
        except SchemaError as error:
            names = ", ".join(map(repr, given.keys))
            raise SchemaError(f"key column {names}: {error}") from error

    def _encode_values(self, batch: Columns, count: int) -> EncodedValues:
        dtype = self._values.dtype
        if dtype is not None and dtype.names is not None:
            assert dtype.fields is not None
            fields = {
                name: fitted(name, batch[name], dtype.fields[name][0]) for name in dtype.names
            }
            return self._values.encode_array(fields, count)
        name = self._rest[0]
        column = batch[name] if dtype is None else fitted(name, batch[name], dtype)
        try:
            return self._values.encode_array(column, count)
        except SchemaError as error:
            raise SchemaError(f"column {name!r}: {error}") from error


def _key_column(values: Any, kind: Any) -> Any:
    """Raw bytes of one width as a column of bytes, which is what a key can be."""
    if not isinstance(values, Column) and values.dtype.kind == "V" and kind != "uuid":
        width = values.dtype.itemsize
        return Column(np.arange(len(values) + 1) * width, values.view(np.uint8), "bytes")
    return values


def fitted(name: str, values: Any, dtype: np.dtype[Any]) -> Any:
    """A column of text or bytes as numpy's strings of a fixed width, without an object per row.

    SchemaError for a row that is longer, or ends in NUL, which such strings do not keep.
    """
    if not isinstance(values, Column) or dtype.kind not in "SU":
        return values
    if (values.kind == "str") != (dtype.kind == "U"):
        raise SchemaError(f"column {name!r} is {values.kind}, the field {dtype}")
    packed = values._packed()
    if dtype.kind == "S":
        width, places, items = dtype.itemsize, packed.offsets, packed.data
    else:
        try:
            text = packed.data.tobytes().decode()
        except UnicodeDecodeError as error:
            raise SchemaError(f"column {name!r} has text that is not UTF-8") from error
        width, places = dtype.itemsize // 4, character_places(packed)
        items = np.frombuffer(text.encode("utf-32-le"), "<u4")
    lengths = np.diff(places)
    if len(lengths) and int(lengths.max()) > width:
        row = int(lengths.argmax())
        raise SchemaError(
            f"column {name!r}: row {row} has {int(lengths[row])} "
            f"{'characters' if dtype.kind == 'U' else 'bytes'}, the field {width}"
        )
    ends = places[1:][lengths > 0] - 1
    if len(ends) and bool((items[ends] == 0).any()):
        raise SchemaError(f"column {name!r}: a row ends in NUL, which a field of {dtype} drops")
    return _spread(items, lengths, width).view(dtype).reshape(-1)


def _spread(items: npt.NDArray[Any], lengths: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    rows = np.zeros((len(lengths), width), items.dtype)
    rows[np.arange(width) < lengths[:, np.newaxis]] = items
    return rows


def join_parts(parts: list[Part]) -> Part:
    """Encoded pieces behind one another, as one batch."""
    if len(parts) == 1:
        return parts[0]
    keys = [part[0] for part in parts]
    values = [part[1] for part in parts]
    count = sum(piece.count for piece in keys)
    if keys[0].heads is not None:
        joined_keys = EncodedKeys(count, np.concatenate([piece.heads for piece in keys]))
    else:
        joined_keys = EncodedKeys(count, None, *_join_bytes(keys))
    if values[0].rows is not None:
        rows = np.concatenate([piece.rows for piece in values])
        return joined_keys, EncodedValues(count, rows)
    return joined_keys, EncodedValues(count, None, *_join_bytes(values))


def _join_bytes(pieces: list[Any]) -> tuple[Any, Any]:
    starts = np.cumsum([0, *(int(piece.offsets[-1]) for piece in pieces)])
    offsets = [piece.offsets[:-1] + start for piece, start in zip(pieces, starts)]
    data = [piece.data[: int(piece.offsets[-1])] for piece in pieces]
    return np.concatenate([*offsets, np.array([starts[-1]])]), np.concatenate(data)
