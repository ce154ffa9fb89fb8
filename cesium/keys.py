"""Key schemas: from what a user declares to the codec of a table.

A schema is declared once a table, as a numpy dtype or its name, a Python type, "str", "bytes",
"uuid", a `Codec`, or a tuple of those whose members may be descending ("-i4").  `key_codec` turns
it into a codec; the codec's `spec` is the canonical form that the store keeps, and `key_codec`
reads that too.  Pure functions: safe from any thread.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cesium import _key_texts, _key_times, _key_tuples, _keys
from cesium._keys import KeyCodec
from cesium.errors import SchemaError

__all__ = ["Codec", "key_codec"]

_PYTHON_TYPES: dict[Any, str] = {
    int: "i8",
    float: "f8",
    bool: "bool",
    str: "str",
    bytes: "bytes",
    uuid.UUID: "uuid",
    datetime.datetime: "datetime64[us]",
    datetime.date: "datetime64[D]",
    datetime.timedelta: "timedelta64[us]",
}

_SUPPORTED = (
    "supported are integers (i1 to i8, u1 to u8), floats (f2, f4, f8), bool, datetime64[unit], "
    "timedelta64[unit], fixed bytes (S1 and wider), str, bytes, uuid, tuples of these, "
    "and a cesium.keys.Codec"
)


@dataclass(frozen=True)
class Codec:
    """A user's key type: functions to order-keeping bytes and back.

    `encode(key)` must return bytes (at most 65,536) whose plain order is the order wanted, equal
    for equal keys; `decode` is its inverse.  The store keeps only `name`, so opening it again
    needs the codec again.
    """

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def key_codec(spec: Any) -> KeyCodec:
    """The codec of a key schema; SchemaError when it is none, saying what is supported."""
    if isinstance(spec, KeyCodec):
        return spec
    if isinstance(spec, (tuple, list)):
        return _tuple_codec(spec)
    if isinstance(spec, str) and spec.startswith("-"):
        raise SchemaError(f"only a part of a tuple may be descending: use ({spec!r},)")
    return _single_codec(spec)


def _tuple_codec(spec: tuple[Any, ...] | list[Any]) -> KeyCodec:
    parts, descending = [], []
    for part in spec:
        if isinstance(part, (tuple, list)):
            raise SchemaError(f"a tuple key cannot hold another tuple: {part!r}")
        down = isinstance(part, str) and part.startswith("-")
        parts.append(_single_codec(part[1:] if down else part))
        descending.append(down)
    return _key_tuples.TupleCodec(parts, descending)


def _single_codec(spec: Any) -> KeyCodec:
    if isinstance(spec, Codec):
        return _key_texts.UserCodec(spec)
    if isinstance(spec, dict) and set(spec) == {"codec"}:
        raise SchemaError(
            f"the keys need the codec {spec['codec']!r}, which is the user's own: "
            f"pass it again as a cesium.keys.Codec"
        )
    name = _PYTHON_TYPES.get(spec, spec) if isinstance(spec, type) else spec
    if isinstance(name, str):
        if name == "str":
            return _key_texts.StrCodec()
        if name == "bytes":
            return _key_texts.BytesCodec()
        if name == "uuid":
            return _key_texts.UuidCodec()
    return _dtype_codec(name, spec)


def _dtype_codec(name: Any, spec: Any) -> KeyCodec:
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError):
        dtype = None
    if name is None or dtype is None or dtype.names is not None or dtype.subdtype is not None:
        raise SchemaError(f"{spec!r} is no key type: {_SUPPORTED}")
    if dtype.kind in "iub":
        return _keys.IntegerCodec(dtype.kind, dtype.itemsize)
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return _keys.FloatCodec(dtype.itemsize)
    if dtype.kind in "mM":
        unit, step = np.datetime_data(dtype)
        if unit == "generic" or step != 1:
            raise SchemaError(f"{spec!r} needs one unit, as in 'datetime64[ns]': {_SUPPORTED}")
        return _key_times.TimeCodec(dtype.kind == "m", unit)
    if dtype.kind == "S" and dtype.itemsize > 0:
        width = dtype.itemsize
        return _key_texts.FixedBytesCodec(width) if width <= 8 else _key_texts.WideBytesCodec(width)
    if dtype.kind == "U":
        raise SchemaError(f"{spec!r} is no key type, use 'str': {_SUPPORTED}")
    raise SchemaError(f"{spec!r} is no key type: {_SUPPORTED}")
