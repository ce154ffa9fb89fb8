"""Reductions of a range's values, made in its pages: no array is built.

Values that are missing, NaN and NaT, are passed over, as pandas does; skipna=False has them count,
as numpy does.  Integers are added exactly, without wrapping; sums of floats are compensated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cesium._keys import EncodedKeys
from cesium._range_columns import read_columns
from cesium._ranges import RangeReader
from cesium._reduce import extreme_ranks, pick_rows, reduce_columns
from cesium._values import EncodedValues
from cesium.casting import at_least
from cesium.errors import SchemaError
from cesium.extras import needed
from cesium.order_statistics import PARTITION_BYTES, values_at
from cesium.range_columns import value_types

if TYPE_CHECKING:
    from cesium._ranges import View
    from cesium.ordered import OrderedReads

BATCH_ROWS = 1 << 16  # of a column that is read in pieces: what is made of them stays in L2
METHODS = ("minmax", "lttb")
PRESELECTED = 4  # as many points as wanted, that LTTB chooses from: what its authors advise


@dataclass(frozen=True, slots=True)
class Total:
    """What one pass tells of a column.

    present, missing: numbers of values; missing ones are NaN and NaT.  sum: exact of integers.
    least, most: None when nothing is present.  spread: sum of squared distances from the mean.
    """

    dtype: np.dtype[Any]
    present: int
    missing: int
    sum: Any
    least: Any
    most: Any
    spread: float

    def value(self, number: Any) -> Any:
        """A least or most as a Python number, or as numpy's time; None: NaN, or NaT."""
        if self.dtype.kind in "Mm":
            count = np.iinfo(np.int64).min if number is None else number
            return np.array([count], np.int64).view(self.dtype)[0]
        if number is None:
            return math.nan
        return bool(number) if self.dtype.kind == "b" else number

    def mean(self) -> Any:
        """The mean: a float, or a time, rounded down to its unit; NaN or NaT of no values."""
        if self.dtype.kind in "Mm":
            return self.value(self.sum // self.present if self.present else None)
        return self.sum / self.present if self.present else math.nan

    @property
    def bytes(self) -> int:
        """What its rows take."""
        return (self.present + self.missing) * self.dtype.itemsize

    def between(self, low: Any, high: Any, quarters: int) -> Any:
        """What lies so many quarters of the way from one value to another; of times, rounded down.

        Of integers it is exact until it is a float, of floats what numpy's quantile has.
        """
        if self.dtype.kind == "f":
            low, high, part = float(low), float(high), quarters / 4
            if not quarters or low == high:
                return low
            return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)
        low, high = (
            int(value.view(np.int64)) if self.dtype.kind in "Mm" else int(value)
            for value in (low, high)
        )
        fourfold = 4 * low + (high - low) * quarters
        return self.value(fourfold // 4) if self.dtype.kind in "Mm" else fourfold / 4

    def deviation(self) -> float:
        """The standard deviation of a sample (n - 1), as pandas has it; NaN below two values."""
        if self.present < 2:
            return math.nan
        if self.dtype.kind == "f" and not math.isfinite(self.sum):
            return math.nan
        return math.sqrt(self.spread / (self.present - 1))


class Description(dict[str, dict[str, Any]]):
    """What `Range.describe` gives, {column: {"count": ..., ...}}; prints as a table.

    pandas.DataFrame(description) is a frame like that of its own `describe`.
    """

    def __repr__(self) -> str:
        rows = [["", *self]]
        for line in next(iter(self.values()), {}):
            rows.append([line, *(_shown(column[line]) for column in self.values())])
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class Reductions:
    """The reductions of a Range."""

    __slots__ = ()

    if TYPE_CHECKING:
        _store: OrderedReads
        _yields: int

        def _reader(self, values: bool) -> RangeReader: ...
        def _reader_of(self, view: View) -> RangeReader: ...
        def _pick(self, keys: EncodedKeys, values: EncodedValues) -> Any: ...

    def count(self, column: str | None = None) -> Any:
        """How many values are there, NaN and NaT not counted; len() is the number of rows.

        column: of structured values, the field; None: a dict of all fields.  Any dtype.
        """
        types = self._types(column)
        rows = None
        counts: dict[str, int] = {}
        totals = self._totals([name for name in types if _is_number(types[name])], False)
        for name in types:
            if name in totals:
                counts[name] = totals[name].present
            else:
                rows = self._reader(False).count() if rows is None else rows
                counts[name] = rows
        return self._answer(counts, column)

    def sum(self, column: str | None = None, skipna: bool = True) -> Any:
        """The sum of each value column: an int of any size, or a float; of bool how many are True.

        column: of structured values, the field; None: a dict of all fields.  skipna: False gives
        NaN where a value is NaN.  SchemaError for what is not added up: dates, text, complex.
        """

        def result(total: Total) -> Any:
            return math.nan if total.missing and not skipna else total.sum

        return self._reduced("sum", column, "iufb", result)

    def mean(self, column: str | None = None, skipna: bool = True) -> Any:
        """The mean of each value column, a float, or a time; NaN or NaT of no values.

        column, skipna, errors: as of `sum`; times have a mean.
        """

        def result(total: Total) -> Any:
            return total.value(None) if total.missing and not skipna else total.mean()

        return self._reduced("mean", column, "iufbMm", result)

    def min(self, column: str | None = None, skipna: bool = True) -> Any:
        """The least value of each column; NaN or NaT of no values.  As `mean` otherwise."""

        def result(total: Total) -> Any:
            return total.value(None if total.missing and not skipna else total.least)

        return self._reduced("min", column, "iufbMm", result)

    def max(self, column: str | None = None, skipna: bool = True) -> Any:
        """The greatest value of each column; NaN or NaT of no values.  As `mean` otherwise."""

        def result(total: Total) -> Any:
            return total.value(None if total.missing and not skipna else total.most)

        return self._reduced("max", column, "iufbMm", result)

    def describe(self) -> Description:
        """Count, missing, mean, std, min, quartiles and max of each column of numbers or times.

        std is that of a sample, as pandas' (NaN of times).  25%, 50% and 75% are exact, between two
        values interpolated as pandas does, of times rounded down to the unit; one column after the
        other is copied for them if it takes no more than 16 MiB, else read three times or so.
        SchemaError where no column is a number or a time.
        """
        types = {name: kind for name, kind in self._types(None).items() if _is_number(kind)}
        if not types:
            raise SchemaError("describe needs a column of numbers or times: there is none")
        made = Description()
        reader = self._reader(True)
        view = reader.view
        for name, total in self._totals(list(types), True, reader).items():
            low, middle, high = self._quartiles(name, total, view)
            made[name] = {
                "count": total.present,
                "missing": total.missing,
                "mean": total.mean(),
                "std": math.nan if total.dtype.kind in "Mm" else total.deviation(),
                "min": total.value(total.least),
                "25%": low,
                "50%": middle,
                "75%": high,
                "max": total.value(total.most),
            }
        return made

    def sample(self, n: int, seed: Any = None) -> Any:
        """`n` rows chosen evenly at random, in the range's order, as `arrays` gives them.

        Without replacement: all rows where there are no more.  seed: of numpy.random.default_rng;
        the same seed chooses the same rows of the same range.
        """
        n = at_least("the number of rows", n, 0)
        reader = self._reader(True)
        view = reader.view
        rows = reader.count()
        chosen = np.random.default_rng(seed).choice(
            rows, min(n, rows), replace=False, shuffle=False
        )
        return self._pick(*self._picked(view, np.sort(chosen.astype(np.int64))))

    def downsample(self, n: int, column: str | None = None, method: str = "minmax") -> Any:
        """At most `n` rows that look like all of them when drawn, as `arrays` gives them.

        column: whose extremes are kept, of structured values.  method: "minmax" keeps the first and
        the last row and the least and greatest value of equal stretches between; "lttb" lets
        Largest-Triangle-Three-Buckets choose from four times as many of these (MinMaxLTTB), by the
        package tsdownsample.  NaN is passed over.  A range of no more rows comes whole.
        """
        n = at_least("the number of rows", n, 4)
        if method not in METHODS:
            raise ValueError(f"method is one of {', '.join(map(repr, METHODS))}, not {method!r}")
        name, dtype = self._drawn(column)
        chooser = needed("tsdownsample", "downsample") if method == "lttb" else None
        reader = self._reader(True)
        view = reader.view
        rows = reader.count()
        wanted = n if chooser is None else min(rows, PRESELECTED * n)
        if rows <= n:
            ranks = np.arange(rows)
        else:
            found = extreme_ranks(
                self._reader_of(view), self._field(name), _kind(dtype), rows, (wanted - 2) // 2
            )
            ranks = np.unique(np.concatenate([[0], found, [rows - 1]]))
        keys, values = self._picked(view, ranks)
        if chooser is not None and len(ranks) > n:
            places = chooser.LTTBDownsampler().downsample(
                ranks, _floats(self._store.values_codec.decode_array(values), name), n_out=n
            )
            keys, values = self._picked(view, ranks[places.astype(np.int64)])
        return self._pick(keys, values)

    def _picked(self, view: View, ranks: npt.NDArray[np.int64]) -> Any:
        store = self._store
        return pick_rows(self._reader_of(view), store.keys_codec, store.values_codec, ranks)

    def _types(self, column: str | None) -> dict[str, Any]:
        if self._yields == 1:
            raise SchemaError("a range of keys has no values to reduce")
        types = value_types(self._store.values_codec)
        if column is None:
            return types
        if column not in types:
            raise SchemaError(f"there is no column {column!r}: there are {', '.join(types)}")
        return {column: types[column]}

    def _drawn(self, column: str | None) -> tuple[str, np.dtype[Any]]:
        types = {name: kind for name, kind in self._types(column).items() if _is_number(kind)}
        if len(types) != 1:
            raise SchemaError(
                f"downsample needs one column of numbers: name one of {', '.join(types)}"
                if types else "downsample needs a column of numbers: there is none"
            )  # fmt: skip
        return next(iter(types.items()))

    def _field(self, name: str) -> int:
        codec = self._store.values_codec
        names = None if codec.dtype is None else codec.dtype.names
        if codec.width == 0 or (names is not None and len(codec.field_widths) != len(names)):
            raise SchemaError(
                f"column {name!r}: rows of more than 512 bytes or 255 fields are not kept by "
                "column: use arrays()"
            )
        return 0 if names is None else names.index(name)

    def _quartiles(self, name: str, total: Total, view: View) -> list[Any]:
        """What a quarter, a half and three quarters of a column's values lie below."""
        if not total.present:
            return [total.value(None)] * 3
        field = [self._field(name)]
        rows = None if total.bytes <= PARTITION_BYTES else BATCH_ROWS

        def batches() -> Iterator[npt.NDArray[Any]]:
            reader = self._reader_of(view)
            while (piece := read_columns(reader, None, field, rows))[0]:
                yield piece[2][0].view(total.dtype)

        quarters = [divmod((total.present - 1) * quarter, 4) for quarter in (1, 2, 3)]
        ranks = sorted({rank + step for rank, part in quarters for step in range(1 + bool(part))})
        values = values_at(batches, total.dtype, total.present, total.least, total.most, ranks)
        found = dict(zip(ranks, values))
        return [
            total.between(found[rank], found[rank + bool(part)], part) for rank, part in quarters
        ]

    def _totals(
        self, names: list[str], spread: bool, reader: RangeReader | None = None
    ) -> dict[str, Total]:
        if not names:
            return {}
        types = value_types(self._store.values_codec)
        fields = [self._field(name) for name in names]
        kinds = [_kind(types[name]) for name in names]
        found = reduce_columns(reader or self._reader(True), fields, kinds, spread)
        return {name: Total(types[name], *total) for name, total in zip(names, found)}

    def _reduced(
        self, what: str, column: str | None, kinds: str, result: Callable[[Total], Any]
    ) -> Any:
        types = self._types(column)
        for name, kind in types.items():
            if not _is_number(kind) or kind.kind not in kinds:
                raise SchemaError(f"column {name!r}: {kind} has no {what}; name another column")
        totals = self._totals(list(types), False)
        return self._answer({name: result(total) for name, total in totals.items()}, column)

    def _answer(self, found: dict[str, Any], column: str | None) -> Any:
        dtype = self._store.values_codec.dtype
        plain = dtype is None or dtype.names is None
        return next(iter(found.values())) if plain or column is not None else found


def _is_number(kind: Any) -> bool:
    return isinstance(kind, np.dtype) and kind.subdtype is None and kind.kind in "iufbMm"


def _kind(dtype: np.dtype[Any]) -> str:
    return {"m": "M", "b": "?"}.get(dtype.kind, dtype.kind)


def _floats(values: Any, name: str) -> Any:
    column = values if values.dtype.names is None else values[name]
    if column.dtype.kind in "Mm":
        column = np.where(np.isnat(column), np.nan, column.astype(np.int64))
    return np.ascontiguousarray(column, np.float64)
