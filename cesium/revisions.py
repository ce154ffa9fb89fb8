"""Calls that look at a value and change it in one step: of a store, and of a transaction.

Each is a decision about one value, which `_revise` takes where nobody can come in between.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from cesium._core import KEEP
from cesium._reads import MISSING, Missing, TableReads
from cesium.errors import SchemaError
from cesium.typed import K, V


class Revisions(TableReads[K, V]):
    """compare_and_set and its like, for a table that has `_revise`."""

    _revise: Callable[[Any, Callable[[Any], Any]], Any]

    def compare_and_set(self, key: K, expected: V | Missing, new: V | Missing) -> bool:
        """Stores `new` under `key` if its value is `expected`; whether it was, in one commit.

        MISSING stands for absence: expected, nothing may be there; new, the key is removed.  Values
        are the same if they are equal, or encoded to the same bytes (so NaN is NaN).
        """
        codec = self.values_codec
        wanted = MISSING if expected is MISSING else codec.encode_value(expected)
        if new is not MISSING:
            codec.encode_value(new)  # refused whatever is there

        def decide(old: Any) -> Any:
            if old is MISSING or expected is MISSING:
                return new if old is expected else KEEP
            same = codec.encode_value(old) == wanted or (old == expected) is True
            return new if same else KEEP

        return self._revise(key, decide) is not KEEP

    def put_if_absent(self, key: K, value: V) -> bool:
        """Stores `value` under `key` if nothing is there; whether it did."""
        if value is MISSING:
            raise SchemaError("cesium.MISSING stands for absence; it cannot be stored")
        return self.compare_and_set(key, MISSING, value)

    def increment(self, key: K, by: Any = 1) -> V:
        """Adds `by` to the number under `key`, or to 0, in one commit; returns the sum.

        SchemaError when the sum does not fit or, of whole numbers, `by` is none (nothing changes),
        TypeError when values are no numbers.
        """
        codec = self.values_codec
        dtype = codec.dtype
        if dtype is None or dtype.kind not in "iufc":
            raise TypeError(f"values are {codec.spec!r}, and only numbers increment")
        by = exact_number(by, dtype.kind)

        def add(old: Any) -> Any:
            # As it will be read again: a sum in "f4" is rounded.
            total = by if old is MISSING else old + by
            return codec.decode_value(codec.encode_value(total))

        total: V = self._revise(key, add)
        return total


def exact_number(by: Any, kind: str) -> Any:
    """A number that Python adds exactly, or as a double: numpy's scalars wrap around and round."""
    if isinstance(by, np.generic):
        by = by.item()
    try:
        if kind == "f" and not isinstance(by, complex):
            return float(by) if isinstance(by, numbers.Real) else by
        if kind in "iu":
            return int(by) if isinstance(by, float) and by.is_integer() else operator.index(by)
    except OverflowError as error:
        raise SchemaError(f"{by!r} is too large for a floating-point number") from error
    except TypeError as error:
        if isinstance(by, numbers.Number):
            raise SchemaError(f"whole numbers increment by a whole number, not {by!r}") from error
        raise
    return by
