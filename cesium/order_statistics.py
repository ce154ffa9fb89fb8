"""The values at given ranks of a column, exactly and in bounded memory.

A column of no more than PARTITION_BYTES is copied and partitioned.  A larger one is read again and
again, in batches: a pass counts the values by 16 bits of their place between the least and the
most, the next one those in the stretches where the ranks are, until what is in these stretches can
be copied.  The place of a value is that of its bits, turned so that they rise with it: stretches
of floats are finer near zero, and those of numbers that lie close together as fine as they need.

Thread safety: pure functions of what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Of 4 M f8 partitioning takes 0.20 s and narrowing 0.12 s, or 0.47 s where nine in ten are one of
# five values in a wide range; of 1 M (8 MiB) the two take 0.04 s and 0.03 s, or 0.03 s and 0.10 s.
PARTITION_BYTES = 16 << 20
DIGIT_BITS = 16

Values = npt.NDArray[Any]
Batches = Callable[[], Iterable[Values]]


@dataclass(slots=True)
class Stretch:
    """Values whose places have the same digits in front: how many, and how many lie below them.

    ranks: those of all values that lie in it.
    """

    digits: int
    below: int
    count: int
    ranks: list[int]


def values_at(
    batches: Batches, dtype: np.dtype[Any], count: int, least: Any, most: Any, ranks: Sequence[int]
) -> list[Any]:
    """The values that would stand at `ranks` (from 0, rising) if the column were sorted.

    batches: gives the column's values from the beginning, each time that it is called, NaN and NaT
    among them.  count: of those that are present, which is above the last rank.  least, most: the
    ends of these, of the dtype.
    """
    rows_most = max(1, PARTITION_BYTES // dtype.itemsize)
    if count <= rows_most:
        return _partitioned(_joined(_present(batches), dtype), ranks)
    places = _Places(dtype, least, most)
    stretches = [Stretch(0, 0, count, list(ranks))]
    shift = places.bits
    while shift and sum(stretch.count for stretch in stretches) > rows_most:
        narrower = max(shift - DIGIT_BITS, 0)
        stretches = _narrowed(map(places.of, _present(batches)), stretches, shift, narrower)
        shift = narrower
    found: dict[int, Any] = {}
    if shift == 0:  # all values of a stretch are the same
        for stretch in stretches:
            value = places.value(stretch.digits)
            found.update((rank, value) for rank in stretch.ranks)
    else:
        for stretch, values in zip(stretches, _gathered(batches, places, stretches, shift, dtype)):
            inside = [rank - stretch.below for rank in stretch.ranks]
            found.update(zip(stretch.ranks, _partitioned(values, inside)))
    return [found[rank] for rank in ranks]


def _present(batches: Batches) -> Iterator[Values]:
    for values in batches():
        if values.dtype.kind == "f":
            yield values[~np.isnan(values)]
        elif values.dtype.kind in "mM":
            yield values[~np.isnat(values)]
        else:
            yield values


def _joined(pieces: Iterable[Values], dtype: np.dtype[Any]) -> Values:
    return np.concatenate([np.empty(0, dtype), *pieces])


def _partitioned(values: Values, ranks: Sequence[int]) -> list[Any]:
    values.partition(ranks)
    return [values[rank] for rank in ranks]


class _Places:
    """Values of one dtype as whole numbers from 0, which the least one has, in the same order."""

    def __init__(self, dtype: np.dtype[Any], least: Any, most: Any) -> None:
        self._dtype = dtype
        self._bits = np.dtype(f"u{dtype.itemsize}")
        self._sign = self._bits.type(1 << (8 * dtype.itemsize - 1))
        self._base = self._bits.type(0)
        ends = self.of(np.array([least, most], dtype))
        self._base = ends[0]
        self.bits = int(ends[1] - ends[0]).bit_length()

    def of(self, values: Values) -> Values:
        """The places of values, unsigned."""
        if self._dtype.kind == "f":
            values = values + self._dtype.type(0)  # -0.0 is 0.0
        bits: Values = np.ascontiguousarray(values).view(self._bits)
        if self._dtype.kind == "f":  # below zero, greater bits are smaller values
            bits = np.where(bits & self._sign, ~bits, bits | self._sign)
        elif self._dtype.kind in "imM":
            bits = bits ^ self._sign
        places: Values = bits - self._base
        return places

    def value(self, place: int) -> Any:
        """The value of a place."""
        bits = np.array([place], self._bits) + self._base
        if self._dtype.kind == "f":
            bits = np.where(bits & self._sign, bits ^ self._sign, ~bits)
        elif self._dtype.kind in "imM":
            bits = bits ^ self._sign
        return bits.view(self._dtype)[0]


def _narrowed(
    batches: Iterable[Values], stretches: list[Stretch], shift: int, narrower: int
) -> list[Stretch]:
    """The parts of stretches in which their ranks are, by the next digit of places."""
    size = 1 << (shift - narrower)
    counts = np.zeros((len(stretches), size), np.int64)
    for places in batches:
        for number, stretch in enumerate(stretches):
            inside = (
                _inside(places, stretch, shift)
                if len(stretches) > 1 or stretch.digits
                else (places)
            )
            last = ((inside >> narrower) & (size - 1)).astype(np.int64)
            counts[number] += np.bincount(last, minlength=size)
    found: dict[int, Stretch] = {}
    for stretch, row in zip(stretches, counts):
        ends = stretch.below + np.cumsum(row)
        for rank in stretch.ranks:
            digit = int(np.searchsorted(ends, rank, "right"))
            digits = stretch.digits * size + digit
            below, count = int(ends[digit] - row[digit]), int(row[digit])
            found.setdefault(digits, Stretch(digits, below, count, [])).ranks.append(rank)
    return list(found.values())


def _inside(places: Values, stretch: Stretch, shift: int) -> Values:
    inside: Values = places[(places >> shift) == stretch.digits]
    return inside


def _gathered(
    batches: Batches, places: _Places, stretches: list[Stretch], shift: int, dtype: np.dtype[Any]
) -> list[Values]:
    """The values of each stretch."""
    pieces: list[list[Values]] = [[] for _ in stretches]
    for values in _present(batches):
        digits = places.of(values) >> shift
        for stretch, mine in zip(stretches, pieces):
            mine.append(values[digits == stretch.digits])
    return [_joined(mine, dtype) for mine in pieces]
