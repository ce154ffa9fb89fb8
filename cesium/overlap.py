"""Which keys sources touch, and whether they touch the same ones."""

from __future__ import annotations

from cesium._memtable import MemtableSnapshot
from cesium._merge import memtable_bounds
from cesium._segment import UNBOUNDED_UPPER, SegmentReader
from cesium.state import SegmentRecord
from cesium.table_engine import Source

Bounds = tuple[bytes, bytes | None]  # inclusive; upper None: no upper end


def record_bounds(record: SegmentRecord) -> Bounds:
    """The interval of keys that a segment touches."""
    return record.lower, None if record.upper == UNBOUNDED_UPPER else record.upper


def encoded_bound(bound: int | bytes) -> bytes:
    """A bound as records say it: fixed keys are heads, which are big-endian there."""
    return bound.to_bytes(8, "big") if isinstance(bound, int) else bound


def source_bounds(source: Source) -> Bounds | None:
    """The interval of keys that a source touches; None for an empty one."""
    if isinstance(source, MemtableSnapshot):
        return memtable_bounds(source)
    return run_bounds(source)


def run_bounds(source: list[SegmentReader]) -> Bounds:
    """The interval of keys that a run of segments touches."""
    uppers = [record_bounds(reader.record)[1] for reader in source]
    known = [upper for upper in uppers if upper is not None]
    return (
        min(reader.record.lower for reader in source),
        max(known) if len(known) == len(uppers) else None,
    )


def overlaps(a: Bounds | None, b: Bounds | None) -> bool:
    """Whether two intervals of keys have a key in common."""
    if a is None or b is None:
        return False
    return (a[1] is None or b[0] <= a[1]) and (b[1] is None or a[0] <= b[1])
