"""Checked reading: what a caller gave, as an array of one dtype, or a `SchemaError`.

Owns no state; safe from any thread.

1. Nothing is broadcast, rounded to an integer, wrapped, cut off or filled in.  The only inexact
   casts are those of numbers to a float or complex dtype, which round as numpy rounds.
2. An array that already has the dtype is returned as it is, without a copy.
3. What one value may be and what an array may hold agree (`_values.pyx` reads single values).
"""

from __future__ import annotations

import datetime
import operator
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import SchemaError

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60

TIMES = {"M": np.datetime64, "m": np.timedelta64}


def describe(value: object) -> str:
    """A value, or the dtype and shape of an array, short enough for an error message."""
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    return f"{_repr.repr(value)} ({type(value).__name__})"


def refusal(expects: str, value: object) -> SchemaError:
    """The error for a value that is not what the schema expects."""
    return SchemaError(f"expected {expects}, given {describe(value)}")


def read_sequence(values: Any, expects: str, dimensions: int = 1) -> Sequence[Any] | NDArray[Any]:
    """`values` as a tuple of Python values, or as an array that has no Python objects in it.

    An array must have `dimensions` dimensions; single values are not broadcast.
    """
    if isinstance(values, (list, tuple)):
        return tuple(values)
    if isinstance(values, (str, bytes, bytearray, dict, set, frozenset)) or values is None:
        raise refusal(f"a sequence of values ({expects})", values)
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise SchemaError(f"expected {expects} in every row, given an array with masked rows")
    array = np.asarray(values)
    if array.ndim == 0:
        raise SchemaError(
            f"expected a sequence of values ({expects}), given one value, {describe(values)}; "
            "single values are not broadcast"
        )
    if array.dtype.kind in "OT" and array.ndim == 1:
        return tuple(array.tolist())
    if array.ndim != dimensions:
        raise SchemaError(
            f"expected an array of {dimensions} dimension{'s' if dimensions > 1 else ''} "
            f"({expects}), given {describe(array)}"
        )
    return array


def cast(array: NDArray[Any], dtype: np.dtype[Any], expects: str) -> NDArray[Any]:
    """An array of a plain `dtype` with the same values, copied only if need be, or SchemaError."""
    if array.dtype == dtype:
        checked = array
    else:
        checked = _cast_by_kind(array, dtype, expects)
    if dtype.kind == "U":
        _check_code_points(checked, expects)
    return checked


def _cast_by_kind(array: NDArray[Any], dtype: np.dtype[Any], expects: str) -> NDArray[Any]:
    given, wanted = array.dtype.kind, dtype.kind
    if wanted in "iu" and given in "biuf":
        return _to_integers(array, dtype, expects)
    if (wanted == "f" and given in "biuf") or (wanted == "c" and given in "biufc"):
        return _to_floats(array, dtype, expects)
    if wanted in "Mm" and given == wanted:
        return _to_times(array, dtype, expects)
    if wanted in "bSUV" and given == wanted and array.dtype.names is None:
        return _to_width(array, dtype, expects)
    raise refusal(expects, array)


def _to_integers(array: NDArray[Any], dtype: np.dtype[Any], expects: str) -> NDArray[Any]:
    if array.size == 0 or array.dtype.kind == "b":
        return array.astype(dtype)
    if array.dtype.kind == "f":
        _refuse_rows(~np.isfinite(array), array, expects)
        _refuse_rows(np.floor(array) != array, array, expects)
    limits = np.iinfo(dtype)
    low, high = int(array.min()), int(array.max())  # Python integers: exact against any limit
    if low < limits.min or high > limits.max:
        row = int(array.argmin() if low < limits.min else array.argmax())
        raise _refused_row(row, array, expects)
    return array.astype(dtype)


def _to_floats(array: NDArray[Any], dtype: np.dtype[Any], expects: str) -> NDArray[Any]:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result = array.astype(dtype)
    # What was finite and is infinite now did not fit.
    if not np.isfinite(result).all():
        _refuse_rows(np.isinf(result) & np.isfinite(array), array, expects)
    return result


def _to_times(array: NDArray[Any], dtype: np.dtype[Any], expects: str) -> NDArray[Any]:
    absent = np.isnat(array)
    if np.datetime_data(array.dtype)[0] == "generic":
        # A count without a unit means nothing, but a NaT needs none.
        _refuse_rows(~absent, array, expects)
        return array.astype(dtype)
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise refusal(expects, array)
    try:
        result = array.astype(dtype)
        same = result.astype(array.dtype) == array  # also sees what overflowed and wrapped
    except OverflowError as error:
        raise refusal(expects, array) from error
    _refuse_rows(~(same | absent) | (np.isnat(result) & ~absent), array, expects)
    return result


def _to_width(array: NDArray[Any], dtype: np.dtype[Any], expects: str) -> NDArray[Any]:
    if array.dtype.kind == "V":
        if array.dtype.itemsize != dtype.itemsize:
            raise refusal(expects, array)
        return array
    if array.dtype.itemsize > dtype.itemsize:
        room = np.dtype((dtype.type, dtype.itemsize // (4 if dtype.kind == "U" else 1)))
        _refuse_rows(array.astype(room) != array, array, expects)
    return array.astype(dtype)


def _check_code_points(array: NDArray[Any], expects: str) -> None:
    """Refuse what is no Unicode code point: numpy does not look, and Python cannot read it back."""
    if array.size == 0:
        return
    points = np.ascontiguousarray(array).view(np.uint32).reshape(len(array), -1)
    if points.max() > 0x10FFFF:
        row = int((points > 0x10FFFF).any(axis=1).argmax())
        raise SchemaError(f"row {row}: expected {expects}, given what is no Unicode code point")


def _refuse_rows(wrong: NDArray[np.bool_], array: NDArray[Any], expects: str) -> None:
    if wrong.any():
        raise _refused_row(int(wrong.argmax()), array, expects)


def _refused_row(row: int, array: NDArray[Any], expects: str) -> SchemaError:
    return SchemaError(f"row {row}: expected {expects}, given {describe(array[row])}")


def read_time(value: Any, dtype: np.dtype[Any], expects: str) -> Any:
    """One moment or duration as a numpy scalar of `dtype`; SchemaError where that is not exact.

    Takes numpy's and pandas' scalars, `datetime`, `date` and `timedelta`.  A `datetime` with a time
    zone is stored as UTC, as numpy and pandas do.
    """
    scalar: Any = None
    if isinstance(value, TIMES[dtype.kind]):
        scalar = value
    elif dtype.kind == "M" and isinstance(value, datetime.date):
        scalar = moment_of(value)
    elif dtype.kind == "m" and isinstance(value, datetime.timedelta):
        exact = getattr(value, "to_timedelta64", None)  # pandas, which counts nanoseconds
        scalar = exact() if exact is not None else np.timedelta64(value, "us")
    if scalar is None:
        raise refusal(expects, value)
    try:
        return _to_times(np.asarray([scalar]), dtype, expects)[0]
    except SchemaError as error:
        raise refusal(expects, value) from error


def moment_of(value: datetime.date) -> Any:
    """A date, or a time in UTC, as numpy's scalar; pandas' own and aware ones included."""
    exact = getattr(value, "to_datetime64", None)  # pandas, which counts nanoseconds
    if exact is not None:
        return exact()
    if not isinstance(value, datetime.datetime):
        return np.datetime64(value, "D")
    moment = np.datetime64(value.replace(tzinfo=None), "us")
    east = value.utcoffset()
    # Not by astimezone, which knows no year 10000.
    return moment if east is None else moment - np.timedelta64(east)


def at_least(what: str, number: Any, least: int) -> int:
    """A whole number from an argument; TypeError for another type, ValueError below the least."""
    value = operator.index(number)
    if value < least:
        raise ValueError(f"{what} is at least {least}, not {value}")
    return min(value, 2**62)  # more than any store holds
