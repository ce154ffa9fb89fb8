"""Columns of a table as Arrow arrays: which type a dtype becomes, and its buffers.

No Arrow library is needed: _arrow_export.pyx speaks the C interface.  Nothing is copied where the
memory has Arrow's form already: numbers, times and durations without NaT, raw bytes, columns of
text and bytes.  Copied are bool (to bits), days (to 32 bits) and numpy's own strings.

Pure functions: safe from any thread.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from cesium._arrow_export import Array, Field
from cesium.columns import Column
from cesium.errors import SchemaError
from cesium.values import value_codec

NUMBERS = {
    "i1": "c", "u1": "C", "i2": "s", "u2": "S", "i4": "i", "u4": "I", "i8": "l", "u8": "L",
    "f2": "e", "f4": "f", "f8": "g",
}  # fmt: skip
UNITS = {"s": "s", "ms": "m", "us": "u", "ns": "n"}
COARSE = ("h", "m")  # become seconds, which hold them exactly
DAYS = ("Y", "M", "W", "D")  # become days
DAY_LIMIT = 2**31


def arrow_field(name: str, dtype: Any) -> Field:
    """The type of a column of this dtype, "str", "bytes" or "uuid"; SchemaError when Arrow has
    none."""
    if dtype == "str":
        return Field(name, "U")
    if dtype == "bytes":
        return Field(name, "Z")
    if dtype == "uuid":
        return Field(name, "w:16", metadata=_extension("arrow.uuid"))
    dtype = np.dtype(dtype)
    if dtype.subdtype is not None:
        items, shape = dtype.subdtype
        inner = np.dtype((items, shape[1:])) if len(shape) > 1 else items
        return Field(name, f"+w:{shape[0]}", children=[arrow_field("item", inner)])
    if dtype.kind == "b":
        return Field(name, "b")
    if dtype.kind in "iuf":
        return Field(name, NUMBERS[dtype.str[1:]])
    if dtype.kind in "Mm":
        return Field(name, _time_format(name, dtype), nullable=True)
    if dtype.kind in "SU":
        return Field(name, "Z" if dtype.kind == "S" else "U")
    if dtype.kind == "V" and dtype.names is None:
        return Field(name, f"w:{dtype.itemsize}")
    raise SchemaError(
        f"column {name!r}: Arrow has no type for {dtype}; view.arrays() gives it as it is"
    )


def _time_format(name: str, dtype: np.dtype[Any]) -> str:
    unit, step = np.datetime_data(dtype)
    if step == 1 and dtype.kind == "M" and unit in DAYS:
        return "tdD"
    target = "s" if unit in COARSE or (dtype.kind == "m" and unit in ("D", "W")) else unit
    if step != 1 or target not in UNITS:
        raise SchemaError(f"column {name!r}: Arrow has no {dtype}; view.arrays() gives it as it is")
    return f"ts{UNITS[target]}:" if dtype.kind == "M" else f"tD{UNITS[target]}"


def _extension(name: str) -> bytes:
    """Metadata of one pair, as the C interface encodes it."""
    pair = (b"ARROW:extension:name", name.encode())
    parts = [struct.pack("=i", 1)]
    for text in pair:
        parts += [struct.pack("=i", len(text)), text]
    key = b"ARROW:extension:metadata"
    parts[0] = struct.pack("=i", 2)
    return b"".join([*parts, struct.pack("=i", len(key)), key, struct.pack("=i", 0)])


def arrow_array(name: str, values: Any) -> Array:
    """The rows of a column: a numpy array of any dtype that `arrow_field` takes, or a Column."""
    if isinstance(values, Column):
        packed = values._packed()
        return Array(len(values), (None, packed.offsets, packed.data))
    if values.ndim > 1:
        flat = values.reshape(len(values) * values.shape[1], *values.shape[2:])
        return Array(len(values), (None,), children=[arrow_array(name, flat)])
    kind = values.dtype.kind
    if kind == "b":
        return Array(len(values), (None, np.packbits(values, bitorder="little")))
    if kind in "Mm":
        return _times(name, values)
    if kind in "SU":
        return arrow_array(name, text_column(values))
    return Array(len(values), (None, np.ascontiguousarray(values)))


def text_column(values: npt.NDArray[Any]) -> Column:
    """numpy's strings (U) or bytes (S) as a column."""
    kind = "str" if values.dtype.kind == "U" else "bytes"
    encoded = value_codec(kind).encode_array(values)
    assert encoded.offsets is not None and encoded.data is not None
    return Column(encoded.offsets, encoded.data, kind)


def _times(name: str, values: npt.NDArray[Any]) -> Array:
    unit, _ = np.datetime_data(values.dtype)
    absent = np.isnat(values)
    count = int(np.count_nonzero(absent))
    valid = np.packbits(~absent, bitorder="little") if count else None
    if values.dtype.kind == "M" and unit in DAYS:
        days = values.astype("M8[D]").view(np.int64)
        if count:
            days = np.where(absent, 0, days)
        if len(days) and not -DAY_LIMIT <= int(days.min()) <= int(days.max()) < DAY_LIMIT:
            raise SchemaError(f"column {name!r}: a day beyond the 32 bits of Arrow's date32")
        return Array(len(values), (valid, days.astype(np.int32)), count)
    if unit not in UNITS:
        values = values.astype(f"{values.dtype.kind}8[s]")
    return Array(len(values), (valid, np.ascontiguousarray(values)), count)
