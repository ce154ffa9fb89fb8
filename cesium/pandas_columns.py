"""Columns of a pandas frame as arrays of numpy's or Columns, with or without pyarrow.

Nothing is imported: what is looked at is what the frame itself has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cesium._arrow_import import ArrowStream
from cesium.arrow_values import column_type, column_values, joined
from cesium.columns import Column
from cesium.errors import SchemaError


def is_pandas(value: Any) -> bool:
    """Whether a value is a pandas DataFrame."""
    kind = type(value)
    return kind.__module__.partition(".")[0] == "pandas" and hasattr(value, "iloc") and (
        hasattr(value, "columns")
    )  # fmt: skip


def named_series(frame: Any) -> dict[str, Any]:
    """The columns of a frame by name, levels of the index before them."""
    found: dict[str, Any] = {}
    for number, name in enumerate(index_names(frame)):
        if name is not None:
            found[name] = frame.index.get_level_values(number).to_series(index=frame.index)
    for number, name in enumerate(frame.columns):
        if not isinstance(name, str):
            raise SchemaError(f"a column's name is text, not {name!r}: rename it")
        if name in found:
            raise SchemaError(
                f"the frame has two columns {name!r}, or a level of its index: rename"
            )
        found[name] = frame.iloc[:, number]
    return found


def index_names(frame: Any) -> list[str | None]:
    """Names of the levels of the index; "index" for one that has none but is more than a count."""
    if type(frame.index).__name__ == "RangeIndex" and frame.index.name is None:
        return [None]
    return [
        ("index" if len(frame.index.names) == 1 else f"index_{number}")
        if name is None
        else str(name)
        for number, name in enumerate(frame.index.names)
    ]


def series_values(name: str, series: Any, nulls: bool = True) -> Any:
    """The rows of a pandas Series, an array or a Column; SchemaError names the column and row.

    nulls: as of `arrow_values.column_values`.
    """
    kind = series.dtype
    if isinstance(kind, np.dtype) and kind.kind in "biufcMmSUV":
        values = series.to_numpy(copy=False)
        if not nulls:
            _refuse_nulls(name, kind, series)
        return values
    words = str(kind)
    if words == "object":
        return _objects(name, series)
    if words == "category":
        return _categories(name, series, nulls)
    if hasattr(kind, "tz"):  # as UTC, which is what a time with a zone is
        return series_values(name, series.dt.tz_convert(None), nulls)
    if words in ("str", "string") or words.startswith("string") or hasattr(kind, "pyarrow_dtype"):
        return _arrow_backed(name, series, nulls)
    plain = getattr(kind, "numpy_dtype", None)
    if plain is None or plain.kind not in "biuf":
        raise SchemaError(f"column {name!r} ({kind}) has no type here: cast it")
    if plain.kind == "f" and nulls:
        return series.to_numpy(plain, na_value=np.nan)
    _refuse_nulls(name, kind, series)
    return series.to_numpy(plain)


def _refuse_nulls(name: str, kind: Any, series: Any) -> None:
    absent = series.isna().to_numpy()
    if absent.any():
        raise SchemaError(
            f"column {name!r} ({kind}): row {int(absent.argmax())} is null; only values that are "
            "floats or times may be (NaN, NaT): fill nulls, or drop these rows"
        )


def _objects(name: str, series: Any) -> Column:
    """A column of Python objects, which are there already: text or bytes."""
    rows = series.tolist()
    for kind, types in (("str", str), ("bytes", (bytes, bytearray, memoryview))):
        if rows and isinstance(rows[0], types):
            try:
                return Column.from_values(rows, kind)
            except SchemaError as error:
                raise SchemaError(f"column {name!r} (object): {error}") from error
    if not rows:
        return Column.from_values([], "str")
    given = type(rows[0]).__name__
    raise SchemaError(f"column {name!r} (object of {given}) has no type here: cast it")


def _categories(name: str, series: Any, nulls: bool) -> Any:
    words = series_values(name, series.cat.categories.to_series())
    codes = series.cat.codes.to_numpy()
    absent = codes < 0
    if not absent.any():
        return words.take(codes)
    if not nulls or isinstance(words, Column) or words.dtype.kind not in "fMm":
        _refuse_nulls(name, series.dtype, series)
    if len(words) == 0:
        words = np.zeros(1, words.dtype)
    rows = words.take(np.where(absent, 0, codes))
    rows[absent] = "NaT" if rows.dtype.kind in "Mm" else np.nan
    return rows


def _arrow_backed(name: str, series: Any, nulls: bool) -> Any:
    export = getattr(series.array, "__arrow_array__", None)
    try:
        given = None if export is None else export()
    except ImportError:  # text that is not backed by Arrow, and no pyarrow
        given = None
    if given is None:
        _refuse_nulls(name, series.dtype, series)
        return _objects(name, series.astype(object))
    stream = ArrowStream(given)
    parts = [column_values(name, stream.type, part, nulls) for part in stream]
    return joined(parts, column_type(name, stream.type))
