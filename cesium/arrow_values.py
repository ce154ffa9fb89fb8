"""Arrow columns as arrays of numpy's or Columns: which type becomes what, and what is refused.

Numbers, times and long text share Arrow's memory.  Refused are types that no cesium column holds,
and nulls where a dtype has nothing to stand for them: only floats (NaN) and times (NaT) do.

Pure functions: safe from any thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cesium._arrow_import import ArrowColumn, ArrowType
from cesium.columns import Column
from cesium.errors import SchemaError

NUMBERS = {
    "c": "i1", "C": "u1", "s": "i2", "S": "u2", "i": "i4", "I": "u4", "l": "i8", "L": "u8",
    "e": "f2", "f": "f4", "g": "f8",
}  # fmt: skip
UNITS = {"s": "s", "m": "ms", "u": "us", "n": "ns"}
TEXTS = {"u": "str", "U": "str", "vu": "str", "z": "bytes", "Z": "bytes", "vz": "bytes"}
REFUSED = {
    "n": ("null", "leave it out"),
    "+l": ("list", "leave it out, or give each row as many and use a fixed-size list"),
    "+L": ("list", "leave it out, or give each row as many and use a fixed-size list"),
    "+s": ("struct", "give its fields as columns"),
    "+m": ("map", "leave it out"),
    "+r": ("run-end encoded", "decode it"),
    "d:": ("decimal", "cast it to float64, or to an integer of the smallest unit"),
    "ti": ("interval", "cast it to a duration"),
    "+u": ("union", "leave it out"),
    "+v": ("list view", "leave it out"),
}


def column_type(name: str, given: ArrowType) -> Any:
    """The dtype of an Arrow column, or "str", "bytes", "uuid"; SchemaError for what has none."""
    if given.dictionary is not None:
        return column_type(name, given.dictionary)
    form = given.format
    if form in NUMBERS:
        return np.dtype(NUMBERS[form])
    if form in TEXTS:
        return TEXTS[form]
    if form == "b":
        return np.dtype("?")
    if form == "tdD":
        return np.dtype("M8[D]")
    if form == "tdm":
        return np.dtype("M8[ms]")
    if form[:2] in ("ts", "tD", "tt"):
        return np.dtype(f"{'M8' if form[1] == 's' else 'm8'}[{UNITS[form[2]]}]")
    if form.startswith("w:"):
        width = int(form[2:])
        return "uuid" if width == 16 and given.extension == "arrow.uuid" else np.dtype(f"V{width}")
    if form.startswith("+w:"):
        items = column_type(name, given.children[0])
        if given.children[0].dictionary is not None:
            raise SchemaError(f"column {name!r}: a list of categories has no type here: decode it")
        if isinstance(items, np.dtype) and items.base.kind in "biufMmV":
            return np.dtype((items.base, (int(form[3:]), *items.shape)))
        raise SchemaError(f"column {name!r}: a list of {items} in every row has no type here")
    words, instead = REFUSED.get(form[:2], (f"of Arrow's format {form!r}", "leave it out"))
    raise SchemaError(f"column {name!r} ({words}) has no type here: {instead}")


def column_values(name: str, given: ArrowType, column: ArrowColumn, nulls: bool = True) -> Any:
    """The rows of an Arrow column, an array or a Column.

    nulls: whether floats and times may be null (NaN, NaT); SchemaError names the first row that is
    and must not be.
    """
    kind = column_type(name, given)
    valid = column.validity()
    if valid is not None and not (nulls and isinstance(kind, np.dtype) and kind.kind in "fMm"):
        row = int(np.argmin(valid))
        raise SchemaError(
            f"column {name!r} ({kind}): row {row} of a batch is null; only values that are floats "
            "or times may be (NaN, NaT): fill nulls, or drop these rows"
        )
    if given.dictionary is not None:
        return _decoded(name, given, column, valid)
    if given.format in TEXTS:
        return _texts(kind, given.format, column)
    values = _fixed(given, kind, column)
    if valid is None:
        return values
    filled = values.copy()
    filled[~valid] = "NaT" if filled.dtype.kind in "Mm" else np.nan
    return filled


def _fixed(given: ArrowType, kind: Any, column: ArrowColumn) -> Any:
    form = given.format
    if form == "b":
        bits = column.buffer(1, (column.offset + column.length + 7) // 8)
        assert bits is not None
        whole = np.unpackbits(bits, count=column.offset + column.length, bitorder="little")
        return whole[column.offset :].view(np.bool_)
    if form.startswith("+w:"):
        child = column.children[0]
        if child.validity() is not None:
            raise SchemaError("a list in a row has a null in it")
        size, (_, *inside) = int(form[3:]), kind.shape
        items = np.dtype((kind.base, tuple(inside)))
        rows = _fixed(given.children[0], items, child)
        first = column.offset * size
        return rows[first : first + column.length * size].reshape(column.length, *kind.shape)
    narrow = {"tdD": "i4", "tts": "i4", "ttm": "i4"}.get(form)
    if narrow is not None:
        counts = _numbers(column, np.dtype(narrow), column.offset, column.length)
        return counts.astype(np.int64).view(kind)
    dtype = np.dtype("V16") if kind == "uuid" else kind
    return _numbers(column, dtype, column.offset, column.length)


def _numbers(column: ArrowColumn, dtype: np.dtype[Any], first: int, count: int) -> Any:
    if count == 0:
        return np.empty(0, dtype)
    data = column.buffer(1, (first + count) * dtype.itemsize)
    assert data is not None
    return data.view(dtype)[first:]


def _texts(kind: str, form: str, column: ArrowColumn) -> Column:
    if form.startswith("v"):
        return Column(*column.gather_views(), kind)
    if column.length == 0:
        return Column(np.zeros(1, np.int64), np.empty(0, np.uint8), kind)
    dtype = np.dtype("i4" if form in "uz" else "i8")
    ends = column.buffer(1, (column.offset + column.length + 1) * dtype.itemsize)
    assert ends is not None
    offsets = ends.view(dtype)[column.offset :].astype(np.int64, copy=False)
    data = column.buffer(2, int(offsets[-1]))
    return Column(offsets, np.empty(0, np.uint8) if data is None else data, kind)


def _decoded(name: str, given: ArrowType, column: ArrowColumn, valid: Any) -> Any:
    """A categorical column as what it stands for."""
    assert given.dictionary is not None and column.dictionary is not None
    words = column_values(name, given.dictionary, column.dictionary)
    codes = _numbers(column, np.dtype(NUMBERS[given.format]), column.offset, column.length)
    if valid is not None:
        codes = np.where(valid, codes, 0)
    if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < len(words):
        if valid is None or valid.any():
            raise SchemaError(f"column {name!r}: a code beyond its categories")
        words = np.zeros(1, words.dtype)
    rows = words.take(codes)
    if valid is not None:
        rows[~valid] = "NaT" if rows.dtype.kind in "Mm" else np.nan
    return rows


def joined(parts: list[Any], kind: Any) -> Any:
    """Parts of one column as one; kind: its type, for where there are none."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Column.from_values([], kind) if kind in ("str", "bytes") else np.empty(
            0, "V16" if kind == "uuid" else kind
        )  # fmt: skip
    if not isinstance(parts[0], Column):
        return np.concatenate(parts)
    return join_columns(parts)


def join_columns(parts: list[Column]) -> Column:
    """Columns of one kind behind one another."""
    packed = [part._packed() for part in parts]
    starts = np.cumsum([0, *(len(part.data) for part in packed)])
    offsets = [part.offsets[:-1] + start for part, start in zip(packed, starts)]
    ends = np.array([starts[-1]], np.int64)
    data = np.concatenate([part.data for part in packed])
    return Column(np.concatenate([*offsets, ends]), data, parts[0].kind)
