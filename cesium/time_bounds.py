"""Bounds of ranges on times that are given as text, or finer than the keys' unit.

A codec takes times that some key could equal.  A bound may be any: ISO text is read here, and one
that lies between two keys begins, or ends, a range there.  Pure functions: safe from any thread.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from typing import Any

import numpy as np

from cesium._key_times import UNITS
from cesium._keys import KeyCodec
from cesium.casting import moment_of
from cesium.errors import SchemaError

Encoded = int | bytes

DATE = r"(?P<date>\d{4}(?:-\d\d(?:-\d\d)?)?)"
TIME = r"(?P<time>\d\d(?::\d\d(?::\d\d)?)?)(?P<fraction>(?<=:\d\d:\d\d)\.\d{1,9})?"
ZONE = r"(?:Z|(?P<sign>[+-])(?P<hours>[01]\d|2[0-3])(?::?(?P<minutes>[0-5]\d))?)"
ISO = re.compile(rf"{DATE}(?:[T ]{TIME}{ZONE}?)?", re.ASCII)


def beside_time(codec: KeyCodec, key: Any, after: bool, refused: SchemaError) -> Encoded | None:
    """Where a range begins or ends beside a key that the codec refused, before it or after it.

    `refused` is raised again where no time in the key is why, SchemaError for text that is none.
    """
    found = exact(codec.spec, key)
    if found is None:
        raise refused
    key, between = found
    return codec.upper_bound(key, after if between is None else between)


def prefix_of_time(
    codec: KeyCodec, prefix: Any, partial: bool, refused: SchemaError
) -> tuple[Encoded | None, Encoded | None]:
    """The bounds of what begins with a prefix that the codec refused: likewise."""
    found = exact(codec.spec, prefix)
    if found is None:
        raise refused
    if found[1] is not None:
        raise SchemaError(f"a prefix of {codec.spec} keys has whole units of time, not {prefix!r}")
    return codec.prefix_bounds(found[0], partial)


def exact(spec: Any, key: Any) -> tuple[Any, bool | None] | None:
    """A key with its times in the unit of their part; None where it holds none to be changed.

    Where one lies between two keys, it is the lower one, what follows in a tuple is left out, and
    whether the place is behind that and its extensions is told; else that is None.
    """
    if isinstance(spec, str):
        found = _in_unit(spec, key)
        return None if found is None else (found[0], True if found[1] else None)
    if not isinstance(spec, list) or not isinstance(key, tuple) or len(key) > len(spec):
        return None
    parts = list(key)
    changed = False
    for place, (kind, part) in enumerate(zip(spec, key)):
        found = _in_unit(kind, part)
        if found is None:
            continue
        parts[place], between = found
        changed = True
        if between:
            return tuple(parts[: place + 1]), not kind.startswith("-")
    return (tuple(parts), None) if changed else None


def _in_unit(kind: Any, part: Any) -> tuple[np.datetime64, bool] | None:
    """A time in the unit of datetime64 keys, rounded down, and whether it was; None for others."""
    if not isinstance(kind, str) or not kind.removeprefix("-").startswith("datetime64["):
        return None
    time = time_of_text(part) if isinstance(part, str) else _scalar(part)
    if time is None:
        return None
    dtype = np.dtype(kind.removeprefix("-"))
    if np.datetime_data(dtype)[0] == "W" and np.datetime_data(time.dtype)[0] in ("Y", "M"):
        time = time.astype("M8[D]")  # a month may begin within a week
    if np.isnat(time) or _rank(time.dtype) <= _rank(dtype):
        return time, False  # no fraction of a unit; the codec sees what is beyond its range
    rounded: np.datetime64 = time.astype(dtype)
    return rounded, bool(rounded != time)


def _rank(dtype: np.dtype[Any]) -> int:
    return UNITS.index(np.datetime_data(dtype)[0])


def time_of_text(text: str) -> np.datetime64:
    """The instant at which the year, month, day, hour, ... of ISO text begins, in UTC.

    SchemaError for other text.
    """
    match = ISO.fullmatch(text)
    expected = (
        "ISO text, such as '2013-07-01' or '2013-07-01T12:30:00', a datetime, or a np.datetime64"
    )
    if match is not None:
        with contextlib.suppress(ValueError):  # a month or an hour that there is not
            whole = match["date"] + ("T" + match["time"] if match["time"] else "")
            time = np.datetime64(whole + (match["fraction"] or ""))
            # Beyond the years that nanoseconds reach, numpy wraps around.
            if time.astype("M8[s]") == np.datetime64(whole, "s"):
                return time - _east(match) if match["sign"] else time
            expected = "six digits of a second at most, for nanoseconds reach from 1678 to 2261"
    raise SchemaError(f"{text!r} is no time: expected {expected}")


def _east(match: re.Match[str]) -> np.timedelta64:
    minutes = int(match["hours"]) * 60 + int(match["minutes"] or 0)
    return np.timedelta64(minutes if match["sign"] == "+" else -minutes, "m")


def _scalar(part: Any) -> np.datetime64 | None:
    if isinstance(part, np.datetime64):
        return part
    if isinstance(part, datetime.date) or hasattr(part, "to_datetime64"):  # of pandas
        found: np.datetime64 = moment_of(part)
        return found
    return None
