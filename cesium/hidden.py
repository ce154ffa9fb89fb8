"""How many rows the range-deletes of a segment hide in older ones, as far as fences tell.

An estimate for the policy of merges: it reads fences and no data page.  Pages that a range-delete
covers in part do not count.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from cesium._segment import SegmentReader
from cesium._segment_view import SegmentView
from cesium.errors import CorruptionError
from cesium.overlap import encoded_bound, record_bounds

Key = int | bytes


@dataclass(slots=True)
class Interval:
    """A stretch of deleted keys, `[low, high)`, and the same as records say bounds."""

    low: Key
    high: Key | None
    lower: bytes
    upper: bytes | None


def hidden_rows(reader: SegmentReader, older: Iterable[Iterable[SegmentReader]]) -> int:
    """Rows of older sources that range-deletes of this segment hide, about."""
    if not reader.record.markers:
        return 0
    try:
        intervals = [
            Interval(low, high, encoded_bound(low), None if high is None else encoded_bound(high))
            for low, high in SegmentView(reader).markers()
        ]
        return sum(rows_inside(below, intervals) for source in older for below in source)
    except (OSError, CorruptionError):
        return 0  # only an estimate: who needs what is damaged is told, and closing does not


def rows_inside(reader: SegmentReader, intervals: list[Interval]) -> int:
    """Rows of a segment that lie in intervals, which lie apart and are in order, about."""
    lower, upper = record_bounds(reader.record)
    view = SegmentView(reader)
    pages: int | None = None  # of data: asked for when an interval ends inside
    inside = 0
    first = max(bisect_right(intervals, lower, key=attrgetter("lower")) - 1, 0)
    for interval in intervals[first:]:
        if upper is not None and interval.lower > upper:
            break
        if interval.upper is not None and interval.upper <= lower:
            continue
        begins = interval.lower <= lower
        ends = interval.upper is None or (upper is not None and upper < interval.upper)
        if begins and ends:
            return reader.record.rows
        if pages is None:
            last = view.route((1 << 64) - 1 if isinstance(interval.low, int) else b"\xff" * 65536)
            pages = 0 if last is None else last + 1
        if pages:
            page = -1 if begins else view.route(interval.low) or 0
            end = pages if ends or interval.high is None else view.route(interval.high) or 0
            inside += max(end - page - 1, 0)
    return reader.record.rows * inside // pages if pages else 0
