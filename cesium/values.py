"""The value form of a table: from what a caller or the manifest names to a codec.

Owns the names of value forms.  Safe from any thread; codecs never change.

    a numpy dtype, or its name      "f8", np.int32, "datetime64[ns]", "S16"; also int, float, bool
    a list of (name, dtype)         one column run per field; rows are named tuples
    "bytes", "str"                  any length, to 4 GiB
    "json", "msgpack"               what those formats represent
    Codec(name, encode, decode)     a pair of functions of the user's
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._values import (
    FixedStringCodec,
    NumberCodec,
    StructCodec,
    SubarrayCodec,
    TimeCodec,
    ValueCodec,
)
from ._variable_values import BytesCodec, FunctionCodec, StrCodec, WideCodec
from .casting import describe
from .errors import CorruptionError, SchemaError

ROW_LIMIT = 512  # bytes of a row that a page keeps in column runs
FORMS = (
    "a numpy dtype, a list of (name, dtype), 'bytes', 'str', 'json', 'msgpack' "
    "or a cesium.values.Codec"
)
PYTHON_TYPES: dict[object, str] = {
    int: "i8", float: "f8", complex: "c16", bool: "bool", str: "str", bytes: "bytes",
}  # fmt: skip


@dataclass(frozen=True)
class Codec:
    """A value form of the user's own: `encode` gives bytes for a value, `decode` the value again.

    The store remembers only `name`, so the codec must be given again on every opening.
    """

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise SchemaError(f"expected a name for the codec, given {describe(self.name)}")
        if not callable(self.encode) or not callable(self.decode):
            raise SchemaError(f"expected two functions for the codec {self.name!r}")


def value_codec(spec: Any) -> ValueCodec:
    """The codec of a value form; `value_codec(codec.spec)` gives an equal codec again.

    Raises SchemaError for what names none, and for the spec of a `Codec`, whose functions no
    store keeps.
    """
    if isinstance(spec, ValueCodec):
        return spec
    if isinstance(spec, Codec):
        return FunctionCodec({"codec": spec.name}, spec.name, spec.encode, spec.decode)
    if isinstance(spec, Mapping) and "codec" in spec:
        name = spec["codec"]
        raise SchemaError(
            f"the values were written with the codec {name!r}, whose functions are not stored: "
            f"pass value=Codec({name!r}, encode, decode) again"
        )
    if isinstance(spec, type) and spec in PYTHON_TYPES:
        spec = PYTHON_TYPES[spec]
    if isinstance(spec, str) and spec in _NAMED:
        return _NAMED[spec]()
    dtype = _read_dtype(spec)
    if dtype.kind == "T":
        return StrCodec()
    rows = _row_codec(_packed(dtype))
    return WideCodec(rows) if rows.width > ROW_LIMIT else rows


def _read_dtype(spec: Any) -> np.dtype[Any]:
    """Whatever names a dtype, in the caller's form or the manifest's."""
    if isinstance(spec, list):
        return _read_fields(spec)
    try:
        if isinstance(spec, Mapping) and set(spec) == {"items", "shape"}:
            return np.dtype((_read_dtype(spec["items"]), tuple(spec["shape"])))
        if spec is None or (isinstance(spec, tuple) and not _is_shaped(spec)):
            raise TypeError  # numpy would take None for float64, and a pair of dtypes for one
        if isinstance(spec, type) and spec in PYTHON_TYPES:
            spec = PYTHON_TYPES[spec]
        dtype: np.dtype[Any] = np.dtype(spec)
        return dtype
    except (TypeError, ValueError) as error:
        raise SchemaError(f"expected {FORMS} for the values, given {describe(spec)}") from error


def _is_shaped(spec: tuple[Any, ...]) -> bool:
    if len(spec) != 2:
        return False
    shape = spec[1] if isinstance(spec[1], tuple) else (spec[1],)
    return all(isinstance(length, int) for length in shape)


def _read_fields(spec: list[Any]) -> np.dtype[Any]:
    fields: list[Any] = []
    for entry in spec:
        if not isinstance(entry, (tuple, list)) or len(entry) not in (2, 3):
            raise SchemaError(f"expected (name, dtype) for each field, given {describe(entry)}")
        name, dtype, *shape = entry
        if not isinstance(name, str) or not name:
            raise SchemaError(f"expected a name for each field, given {describe(name)}")
        fields.append((name, _read_dtype(dtype), *shape))
    try:
        return np.dtype(fields)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"expected fields that a dtype can have: {error}") from error


def _packed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same dtype little-endian, without padding, titles or metadata; SchemaError if unfit."""
    if dtype.names is not None:
        assert dtype.fields is not None
        return np.dtype([(name, _packed(dtype.fields[name][0])) for name in dtype.names])
    if dtype.subdtype is not None:
        items, shape = dtype.subdtype
        return np.dtype((_packed(items), shape))
    if dtype.kind not in "biufcMmSUV":
        raise SchemaError(
            f"expected a dtype of fixed width, given {dtype}; for Python objects use 'json', "
            "'msgpack' or a cesium.values.Codec"
        )
    if dtype.type in (np.longdouble, np.clongdouble):
        raise SchemaError(f"expected a dtype that is the same on every machine, given {dtype}")
    if dtype.kind in "Mm" and np.datetime_data(dtype)[0] == "generic":
        raise SchemaError(f"expected a unit, as in '{dtype}[ns]', given {dtype}")
    return np.dtype(dtype.newbyteorder("<").str)


def _row_codec(dtype: np.dtype[Any]) -> ValueCodec:
    """The codec of a packed dtype's rows, however wide."""
    if dtype.itemsize == 0:
        raise SchemaError(
            f"expected a dtype with a width, given {dtype}; for any length use 'bytes' or 'str'"
        )
    if dtype.names is not None:
        assert dtype.fields is not None
        return StructCodec(dtype, [_row_codec(dtype.fields[name][0]) for name in dtype.names])
    if dtype.subdtype is not None:
        return SubarrayCodec(dtype, _row_codec(dtype.subdtype[0]))
    if dtype.kind in "Mm":
        return TimeCodec(dtype)
    if dtype.kind in "SUV":
        return FixedStringCodec(dtype)
    return NumberCodec(dtype)


def _json_codec() -> ValueCodec:
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    decoder = json.JSONDecoder()

    def encode(value: Any) -> bytes:
        try:
            return encoder.encode(value).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise SchemaError(
                f"expected a value that JSON represents, given {describe(value)}: {error}"
            ) from error

    def decode(data: bytes) -> Any:
        if not data:  # no JSON text is empty: a miss in a batch
            return None
        try:
            return decoder.decode(data.decode())
        except (ValueError, RecursionError) as error:
            raise CorruptionError(f"a value of a json table is not JSON: {error}") from error

    return FunctionCodec("json", "json", encode, decode)


def _msgpack_codec() -> ValueCodec:
    try:
        import msgpack
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "values in MessagePack need the package msgpack: pip install 'cesiumdb[msgpack]'",
            name="msgpack",
        ) from error

    def encode(value: Any) -> bytes:
        try:
            data: bytes = msgpack.packb(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SchemaError(
                f"expected a value that MessagePack represents, given {describe(value)}: {error}"
            ) from error
        return data

    def decode(data: bytes) -> Any:
        if not data:  # no MessagePack value is empty: a miss in a batch
            return None
        try:
            return msgpack.unpackb(data, strict_map_key=False)
        except (ValueError, msgpack.UnpackException) as error:
            raise CorruptionError(
                f"a value of a msgpack table is not MessagePack: {error}"
            ) from error

    return FunctionCodec("msgpack", "msgpack", encode, decode)


def _no_pickle() -> ValueCodec:
    raise SchemaError(
        "expected a value form that is safe to read, given 'pickle', which can run any code that "
        "its writer chose; if the store is yours alone, pass it yourself: "
        "value=Codec('pickle', pickle.dumps, pickle.loads)"
    )


_NAMED: dict[str, Callable[[], ValueCodec]] = {
    "bytes": BytesCodec,
    "str": StrCodec,
    "json": _json_codec,
    "msgpack": _msgpack_codec,
    "pickle": _no_pickle,
}
