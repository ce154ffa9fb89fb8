"""Numbers of a JSON file: cells whose text is made only where something asks for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np

from cesium.cli._infer import EXACT_FLOAT, TYPES, Cells, Literal

NUMBERS = {int, float, type(None)}


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether they are numbers and nulls, at least one a number, and none infinite or NaN."""
    kinds = set(map(type, values))
    if not kinds & {int, float} or not kinds <= NUMBERS:
        return False
    return float not in kinds or all(math.isfinite(v) for v in values if type(v) is float)


class NumberCells(Cells):
    """A column of int, finite float and None."""

    nested = False
    ascii = True
    has_cells = True

    def __init__(self, values: Sequence[int | float | None]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, int):
            return _text(self.values[index])
        part = self.values[index]
        return NumberCells(part) if is_numeric(part) else list(map(_text, part))

    def __iter__(self) -> Iterator[str]:
        return map(_text, self.values)

    @cached_property
    def _numbers(self) -> list[int | float]:
        return [value for value in self.values if value is not None]

    @cached_property
    def _are_whole(self) -> bool:
        return set(map(type, self._numbers)) == {int}

    @cached_property
    def has_nulls(self) -> bool:
        return len(self._numbers) < len(self.values)

    @property
    def exact(self) -> bool:
        return max(map(abs, self._numbers)) <= EXACT_FLOAT

    @property
    def text_bytes_max(self) -> int:
        if self._are_whole and not self.has_nulls:
            return max(len(str(min(self._numbers))), len(str(max(self._numbers))))
        return max(map(len, self))

    def are(self, name: str) -> bool:
        whole = (value for value in self._numbers if type(value) is int)
        if name == "i8":
            return self._are_whole and min(whole) >= -(2**63) and max(self._numbers) < 2**63
        if name == "f8" and all(-EXACT_FLOAT <= value <= EXACT_FLOAT for value in whole):
            return True
        return name == "f8" and all(map(TYPES[name], map(_text, self._numbers)))

    def converted(self, dtype: str, literal: bool) -> Any:
        kind = np.dtype(dtype).kind if dtype not in ("str", "bytes", "uuid") else "O"
        try:
            if kind in "iu" and self._are_whole and not self.has_nulls:
                return integers(self._numbers, dtype)
            if kind == "f":
                numbers = np.array([math.nan if v is None else v for v in self.values], "f8")
                with np.errstate(over="ignore"):  # beyond float32 is infinite
                    return numbers.astype(dtype)
        except OverflowError:
            return None
        return None


def integers(values: Sequence[int | float], dtype: str) -> Any:
    """Whole numbers as an array; OverflowError for one beyond the dtype.

    numpy before 2 takes the lowest bits of such a one.
    """
    limits = np.iinfo(dtype)
    if len(values) and not limits.min <= min(values) <= max(values) <= limits.max:
        raise OverflowError(f"{dtype} has no numbers from {min(values)} to {max(values)}")
    return np.array(values, dtype)


def _text(value: int | float | None) -> Literal:
    return Literal() if value is None else Literal(value)
