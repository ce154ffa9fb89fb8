"""How the keys of a table are spread: entries between bounds, from the fences, without a scan.

The span from the first to the last key is cut into steps: of equal width in the keys' own numbers
or times, where they have such, else in the first 8 bytes by which encoded keys differ, read as
digits of the bytes that a few keys have there (text uses few of the 256 bytes, and steps between
those that it does not use would be empty).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cesium._outline import entries_below
from cesium._ranges import EncodedRange, RangeReader, View
from cesium._row_iterator import RowIterator

if TYPE_CHECKING:
    from cesium._reads import TableReads

KEYS = 1  # what an iterator of rows gives
Encoded = int | bytes


@dataclass(frozen=True, slots=True)
class Spread:
    """Entries in each step: `counts` (n), between `edges` (n + 1).

    edges: numbers or datetime64, or, where `labels` is not None, positions from 0 to n; `labels`
    are then pairs (position, key), the first key at or behind that place.
    """

    edges: npt.NDArray[Any]
    counts: npt.NDArray[np.int64]
    labels: list[tuple[float, Any]] | None


LABELS = 3  # keys named along an axis that has no numbers
DIGITS = 8
SAMPLED = 48  # keys that are looked at for their bytes


def spread(table: TableReads, steps: int) -> Spread | None:
    """How the keys are spread now; None without any."""
    view = table._view()
    ends = [nearest(table, view, backwards) for backwards in (False, True)]
    if ends[0] is None:
        return None
    dtype = number_dtype(table.keys_codec.spec)
    found = None if dtype is None else by_number(table, view, dtype, steps)
    return found or by_bytes(table, view, ends[0], ends[1], steps)


def number_dtype(spec: Any) -> np.dtype[Any] | None:
    """The dtype of keys that are numbers or times."""
    if not isinstance(spec, str) or spec in ("str", "bytes", "uuid"):
        return None
    dtype = np.dtype(spec)
    return dtype if dtype.kind in "iufMm" else None


def nearest(
    table: TableReads, view: View, backwards: bool, lower: Encoded | None = None,
    upper: Encoded | None = None,
) -> Any:  # fmt: skip
    """The first or last key between bounds, or None."""
    lowest: Encoded = 0 if table.keys_codec.width else b""
    interval = EncodedRange(view.core, lowest if lower is None else lower, upper)
    reader = RangeReader(view, interval, backwards, 1)
    return next(RowIterator(reader, table.keys_codec, table.values_codec, KEYS), None)


def by_number(table: TableReads, view: View, dtype: np.dtype[Any], steps: int) -> Spread | None:
    """Steps of equal width in numbers or times; NaN, NaT and infinities are left out."""
    codec = table.keys_codec
    lower: Any = None
    upper: Any = None
    if dtype.kind == "f":
        most = np.finfo(dtype).max
        lower, upper = codec.lower_bound(-float(most)), codec.upper_bound(float(most), True)
    elif dtype.kind in "mM":  # NaT is the last key
        upper = codec.upper_bound(np.array(np.iinfo(np.int64).max).astype(dtype)[()], True)
    first, last = (nearest(table, view, backwards, lower, upper) for backwards in (False, True))
    if first is None:
        return None
    low, high = np.array([first, last], dtype)
    if dtype.kind == "f":
        parts = np.linspace(0, 1, steps + 1)
        # Not by their difference, which may be more than a float holds.
        edges = np.unique((low * (1 - parts) + high * parts).astype(dtype))
    else:
        numbers = np.dtype(np.int64) if dtype.kind in "mM" else dtype
        start = int(low.astype(numbers))
        end = min(int(high.astype(numbers)) + 1, np.iinfo(numbers).max)  # the last has a step, too
        steps = max(min(steps, end - start), 1)
        whole = [start + (end - start) * step // steps for step in range(steps + 1)]
        edges = np.array(whole, numbers).astype(dtype)
    if len(edges) == 1:
        edges = np.append(edges, edges)
    bounds = [codec.lower_bound(edge) for edge in edges[:-1]]
    counts = between(view, bounds, codec.upper_bound(edges[-1], True))
    return Spread(edges, counts, None)


def by_bytes(table: TableReads, view: View, first: Any, last: Any, steps: int) -> Spread:
    """Steps of equal width in encoded keys."""
    codec = table.keys_codec
    ends: list[Any] = [codec.lookup_key(key) for key in (first, last)]
    make: Callable[[int], Encoded]
    if isinstance(ends[0], int):
        low, high, make = ends[0], ends[1], int
    else:
        digits = digits_of(table, view, ends[0], ends[1])
        low, high, make = digits.number(ends[0]), digits.number(ends[1]), digits.key
    steps = max(min(steps, high - low), 1)
    places = [low + (high - low) * step // steps for step in range(1, steps)]
    counts = between(view, [ends[0], *map(make, places)], codec.upper_bound(last, True))
    labels: list[tuple[float, Any]] = [(0, first)]
    for number in range(1, LABELS):
        place = low + (high - low) * number // (LABELS - 1)
        key = nearest(table, view, False, make(place)) if number < LABELS - 1 else last
        if key != labels[-1][1]:
            labels.append((steps * number / (LABELS - 1), key))
    return Spread(np.arange(steps + 1), counts, labels)


class Digits:
    """Encoded keys as integers and back: digits of the bytes from `low` to `high` at each place."""

    def __init__(self, prefix: bytes, low: bytes, high: bytes) -> None:
        self._prefix = prefix
        self._low = low
        self._sizes = [b - a + 1 for a, b in zip(low, high)]

    def number(self, key: bytes) -> int:
        """Where a key lies; what is beyond a digit's range counts as its end."""
        number = 0
        for byte, low, size in zip(window(key, len(self._prefix)), self._low, self._sizes):
            number = number * size + min(max(byte - low, 0), size - 1)
        return number

    def key(self, number: int) -> bytes:
        """The bytes at that place."""
        found = bytearray(DIGITS)
        for place in reversed(range(DIGITS)):
            number, digit = divmod(number, self._sizes[place])
            found[place] = self._low[place] + digit
        return self._prefix + bytes(found)


def window(key: bytes, start: int) -> bytes:
    """The bytes that differ first."""
    return key[start : start + DIGITS].ljust(DIGITS, b"\0")


def digits_of(table: TableReads, view: View, first: bytes, last: bytes) -> Digits:
    """The bytes that keys have behind what all share, as far as a few keys tell."""
    shared = next(
        (place for place, (a, b) in enumerate(zip(first, last)) if a != b),
        min(len(first), len(last)),
    )
    whole = Digits(first[:shared], bytes(DIGITS), b"\xff" * DIGITS)
    low, high = whole.number(first), whole.number(last)
    windows = [window(first, shared), window(last, shared)]
    for number in range(1, SAMPLED):
        place = whole.key(low + (high - low) * number // SAMPLED)
        key = nearest(table, view, False, place)
        encoded = None if key is None else table.keys_codec.lookup_key(key)
        if isinstance(encoded, bytes):
            windows.append(window(encoded, shared))
    columns = list(zip(*windows))
    return Digits(first[:shared], bytes(map(min, columns)), bytes(map(max, columns)))


def between(view: View, bounds: list[Any], end: Encoded | None) -> npt.NDArray[np.int64]:
    """Entries from each bound to the next, the last one's up to `end` (None: to the end)."""
    bounds = [max(bounds[0], bound) for bound in bounds]
    below = entries_below(view, bounds if end is None else [*bounds, end])
    if end is None:
        below.append(max(view.estimated_rows(), below[-1]))
    counts: npt.NDArray[np.int64] = np.diff(np.array(below, np.int64)).astype(np.int64)
    return counts
