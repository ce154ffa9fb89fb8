"""Which blob files are mostly dead, and what has to be merged so that their space comes back.

A segment's record says how many bytes it refers to in each blob file, so what is live in a file is
the sum over the live segments, and nothing is read to know it.  A merge writes anew the values that
it meets in a file that is mostly dead; when no segment refers to the file any more, it goes.  The
new pointers and the new values become visible with the merge, in one edit of the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable

from cesium._segment import SegmentReader
from cesium.engine import StoreEngine
from cesium.state import SegmentRecord

# Dead bytes are at most as many as live ones, and a byte that is written anew has freed one at
# least: values are written twice at most, for each time that they are overwritten.
DEAD_SHARE = 0.5
COMPACT_DEAD_SHARE = 0.1  # what a call of `compact` leaves


def blob_totals(records: Iterable[SegmentRecord]) -> dict[int, tuple[int, int, int]]:
    """By blob file: its bytes, those of all values in it, of those that segments point to."""
    totals: dict[int, tuple[int, int, int]] = {}
    for record in records:
        for share in record.blobs:
            live = totals.get(share.id, (0, 0, 0))[2] + share.live_bytes
            totals[share.id] = share.file_bytes, share.value_bytes, live
    return totals


def mostly_dead(engine: StoreEngine, dead_share: float = DEAD_SHARE) -> frozenset[int]:
    """The blob files of which more than that share is dead."""
    totals = blob_totals(reader.record for reader in engine.core.version.segments())
    return frozenset(
        number
        for number, (_, values, live) in totals.items()
        if values - live > values * dead_share
    )


def reclaimable(engine: StoreEngine, dead_share: float = DEAD_SHARE) -> list[SegmentReader]:
    """The segments in the last tier, recorded in the manifest, that hold such files' live values.

    Merging each by itself gives the space back.
    """
    dead = mostly_dead(engine, dead_share)
    if not dead:
        return []
    _, base = engine.split_sources()
    recorded = engine.manifest.state.segments
    return [
        reader
        for reader in base
        if reader.record.id in recorded and any(share.id in dead for share in reader.record.blobs)
    ]
