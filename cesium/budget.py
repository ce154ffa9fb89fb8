"""How the memory limit is divided: docs/design.md has the shares, and why they are so.

No put asks here: a commit compares its table's live memtable with its share (`memtable_share_bytes`
of the core), and those of all tables with theirs.  `adapt` sets them anew whenever something large
was taken or let go of: a memtable was set aside, a segment begun or finished, a run of a load
sorted.  What readers pin and iterators hold is seen at the next of these moments.

Thread safety: any thread; what is read is of about the same moment.
"""

from __future__ import annotations

from cesium._memory import tables_memory
from cesium.engine import StoreEngine
from cesium.memory import memory, memory_of

NO_LIMIT = (1 << 64) - 1
FROZEN_MOST = 4  # times that memtables were set aside, and wait to be written out,
MEMTABLES = FROZEN_MOST + 2  # beside the live one; one more share is for what is taken meanwhile
MEMTABLE_LEAST_SHARE = 64  # of the limit: what the live memtable may take in any case,
MEMTABLE_BYTES_LEAST = 64 << 10  # and no less than that
SORT_SHARE = 2  # of what is free, for the run that a load sorts
FILTER_SHARE = 24  # bytes of the limit for each key of a filter, which takes 11 bits
WRITERS_SHARE = 8  # of the limit, for the buffers of all that writes a load's segments


def memtable_share(limit: int, others: int) -> int:
    """What the live memtable may take while others hold so many bytes of the limit."""
    least = max(limit // MEMTABLE_LEAST_SHARE, MEMTABLE_BYTES_LEAST)
    return max(least, (limit - others) // MEMTABLES)


def adapt(engine: StoreEngine) -> None:
    """Sets the share of the live memtables by what all but the memtables in use hold now."""
    cores = engine.cores()
    tables = tables_memory(cores)
    now = memory_of(engine, tables)
    share = memtable_share(now.limit, now.total - now.memtable - now.frozen_memtables)
    for core in cores:
        core.memtable_share_bytes = share
    # Of one table its own share says all.  Those of several are looked at in sum, with what empty
    # ones hold, and frozen ones, as of now: what is let go of meanwhile is theirs to take.
    held = now.memtable + now.frozen_memtables + now.pinned
    engine.core_engine.memtables_most = (
        NO_LIMIT if len(cores) == 1 else held - tables.filled + share
    )


def is_full(engine: StoreEngine) -> bool:
    """Whether a live memtable, or all of them, take more than they may."""
    inner = engine.core_engine
    return inner.counters.held()[0] > inner.memtables_most or any(
        core.live_counters()["bytes"] > min(core.memtable_limit_bytes, core.memtable_share_bytes)
        for core in engine.cores()
    )


def has_room(engine: StoreEngine, frozen: int) -> bool:
    """Whether one more may be set aside, beside so many.

    One always may, so that writing goes on whatever the others hold.
    """
    if frozen == 0:
        return True
    return frozen < FROZEN_MOST and memory(engine).total <= engine.options.memory_limit_bytes


def sort_bytes(engine: StoreEngine) -> int:
    """What a load may take to sort rows, now."""
    return max(engine.options.memory_limit_bytes - memory(engine).total, 0) // SORT_SHARE


def filter_keys_most(engine: StoreEngine) -> int:
    """How many keys the filter of one segment may be made for."""
    return engine.options.memory_limit_bytes // FILTER_SHARE


def writers_most(engine: StoreEngine) -> int:
    """How many threads may write segments of one load, each with two buffers."""
    buffers = 2 * engine.core_engine.counters.portion_bytes
    return max(1, engine.options.memory_limit_bytes // WRITERS_SHARE // buffers)
