"""Flushes and merges: when they are due, and who does them.

A store with files has two threads for them (cesium/background.py): a write that finds the memtable
full sets it aside and goes on; it waits only when as many as the memory limit allows are set aside.
Before it comes to that writers are slowed down, in proportion (`cesium.tiers.pace_of`).
Without these threads (in memory, or with `background=False`) whoever finds something due does it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from cesium._engine import WriteGuard
from cesium._memtable import MemtableSnapshot
from cesium.budget import FROZEN_MOST, adapt, has_room, is_full
from cesium.checkpoint import checkpoint_held, flush_through, frozen_cuts
from cesium.engine import StoreEngine
from cesium.merging import (
    GROUP_MOST,
    Progress,
    due,
    merge_chosen,
    merge_into_base,
    merge_part,
    mergeable,
    small_runs,
)
from cesium.options import parse_rate
from cesium.pace import Pace
from cesium.reclaim import COMPACT_DEAD_SHARE, reclaimable
from cesium.segment_output import SEGMENT_BYTES, Step, no_step
from cesium.table_engine import TableEngine
from cesium.tiers import RUNS_MOST, pace_of

PACE_RATE_LEAST = 1 << 16  # bytes a second that writers may always put
ROOM_SECONDS = 1.0  # between two looks whether the threads were stopped
CLOSING_BYTES_MOST = SEGMENT_BYTES  # that a merge reads at most, for which closing waits


def make_room(engine: StoreEngine, must: bool) -> None:
    """A memtable, or the journal, is full: sets it aside to be written out.

    Called after the first commit, too: from then on the flusher looks whether writing pauses.
    must: before a commit to a stalled store, which waits until there is room, or fails, with
    nothing done, if there is none to be had.
    """
    background = engine.background
    if background is None:
        make_room_here(engine, must)
    elif must:
        wait_for_room(engine)
    else:
        engine.core_engine.unwatched = False
        try:
            set_aside(engine)
        except Exception as error:  # not the commit's, which is done
            engine.upkeep.note(engine.path, error)
        background.flusher.wake()


def set_aside(engine: StoreEngine) -> None:
    """Freezes a memtable that is full; too many of them stall the store."""
    inner = engine.core_engine
    if inner.is_writing_here:
        return
    with WriteGuard(inner):
        full = is_full(engine)
        if not full and not inner.checkpoint_due:
            return  # another thread was here first
        if not has_room(engine, waiting(engine)):
            inner.stalled = True
            engine.room.clear()
            return
        inner.checkpoint_due = False
        if engine.freeze():
            engine.speed.note(inner.bytes_put)
            adapt(engine)


def waiting(engine: StoreEngine) -> int:
    """How many times memtables were set aside that wait still."""
    return len(frozen_cuts(engine))


def wait_for_room(engine: StoreEngine) -> None:
    """Waits for the flusher; where it failed, tries again, and raises what it meets."""
    background = engine.background
    assert background is not None
    engine.check_not_inside("a write")
    before = time.monotonic_ns()
    background.flusher.wake()
    while not engine.room.wait(ROOM_SECONDS) and not background.stopped:
        pass
    engine.core_engine.stall_nanoseconds += time.monotonic_ns() - before
    if engine.core_engine.stalled:
        with engine.exclusive_maintenance("a write"):
            flush_frozen(engine)


def flush_frozen(engine: StoreEngine) -> None:
    """Writes out every memtable that waits; `maintenance` is held."""
    while cuts := frozen_cuts(engine):
        flush_through(engine, cuts[:1], cuts[0].sequence)


def flush_waiting(engine: StoreEngine) -> None:
    """The work of the flusher: a memtable at a time, so that others may come in between."""
    background, inner = engine.background, engine.core_engine
    assert background is not None
    try:
        while not background.stopped:
            with engine.maintained():
                if inner.closed or inner.poisoned is not None:
                    return
                if inner.checkpoint_due or loads_wait(engine):
                    checkpoint_held(engine)
                cuts = frozen_cuts(engine)
                if not cuts:
                    break
                flush_through(engine, cuts[:1], cuts[0].sequence)
            set_pace(engine)
            wake_merger(engine)
    except Exception as error:
        failed(engine, error)
    finally:
        engine.room.set()
    wake_merger(engine)


def wake_merger(engine: StoreEngine) -> None:
    """Has the merger work if there is anything to merge; a store that needs none has no thread."""
    background = engine.background
    try:
        if background is not None and due(engine) is not None:
            background.merger.wake()
    except Exception as error:  # range-deletes that cannot be read: merging would meet them, too
        engine.upkeep.note(engine.path, error)


def failed(engine: StoreEngine, error: BaseException) -> None:
    """Keeps a failure (cesium/upkeep.py); with too many memtables waiting the store is stalled."""
    inner = engine.core_engine
    engine.upkeep.note(engine.path, error)
    with WriteGuard(inner, closing=True):  # or a flush in between would be forgotten
        inner.stalled = inner.poisoned is None and not has_room(engine, waiting(engine))


def loads_wait(engine: StoreEngine) -> bool:
    """Whether several sources are not in the manifest yet: only then may they be merged."""
    recorded = engine.manifest.state.segments
    for table in engine.tables.values():
        newer, _ = table.split_sources()
        if len(newer) > 1 and any(
            reader.record.id not in recorded
            for source in newer
            if not isinstance(source, MemtableSnapshot)
            for reader in source
        ):
            return True
    return False


def sources_most(engine: StoreEngine) -> int:
    """Of the table that has most, how many sources could be merged."""
    return max(len(mergeable(table)) for table in engine.tables.values())


def merge_waiting(engine: StoreEngine) -> None:
    """The work of the merger: one merge after the other, until the tiers are in order."""
    background, inner = engine.background, engine.core_engine
    assert background is not None
    if not engine.upkeep.merge_is_due():
        return
    try:
        while not background.halting and not inner.closed and inner.poisoned is None:
            with engine.merging_here():
                engine.step = stepping(engine)
                try:
                    if background.halting or not merge_once(engine):
                        break
                finally:
                    engine.step = no_step
            set_pace(engine)
        engine.upkeep.merged()
    except Halted:
        pass
    except Exception as error:
        engine.upkeep.merge_failed()
        engine.upkeep.note(engine.path, error)
    set_pace(engine)


def when_idle(engine: StoreEngine) -> bool:
    """Called now and then after writes: brings what waits into segments once nobody writes.

    False when nothing is left to be watched.
    """
    inner = engine.core_engine
    if inner.closed or inner.poisoned is not None:
        return False
    # Before the look: a commit that comes after it, or while this is busy, wakes the flusher again.
    inner.unwatched = True
    if inner.sequence == engine.manifest.state.flushed_sequence:
        return False
    if engine.idle.is_quiet(inner.sequence):
        try:
            checkpoint(engine)
        except Exception as error:
            failed(engine, error)
            return False
    return True


class Halted(Exception):
    """A merge that was stopped between two steps, and undone."""


def stepping(engine: StoreEngine) -> Step:
    """What a merge in the background does between two steps: stops if told, and keeps its pace."""
    background = engine.background
    pace = Pace(parse_rate(engine.options.maintenance_rate))

    def step(done: int) -> None:
        if background is None or background.halting:
            raise Halted
        pace(done)

    return step


def merge_once(engine: StoreEngine, most_bytes: int | None = None) -> bool:
    """The merge that is due, if one is; `merging` is held.  most_bytes: a larger one is left."""
    found = due(engine)
    if found is None or (most_bytes is not None and found.bytes_read > most_bytes):
        return False
    return merge_chosen(found)


def runs_above(table: TableEngine) -> int:
    """How many sources in files lie above the last tier."""
    newer, _ = table.split_sources()
    return sum(not isinstance(source, MemtableSnapshot) for source in newer)


def set_pace(engine: StoreEngine) -> None:
    """Slows writers down as far as maintenance lags behind them."""
    lags = [runs_above(table) for table in engine.tables.values()]
    part = pace_of(max(lags), waiting(engine), FROZEN_MOST)
    speed = engine.speed.bytes_per_second
    if part is None or speed is None:
        engine.core_engine.set_pace(0)
    else:
        engine.core_engine.set_pace(max(int(2 * part * speed), PACE_RATE_LEAST))


# -- without threads, and on demand


def make_room_here(engine: StoreEngine, must: bool) -> None:
    """Flushes a full memtable, then merges if the sources became too many.

    must: before a commit to a stalled store, which fails, with nothing done, if this does.
    """
    with engine.merging, engine.maintenance:
        full = is_full(engine)
        if engine.core_engine.stalled if must else full or engine.core_engine.checkpoint_due:
            tidy(engine, must)  # else another thread was here first


def tidy(engine: StoreEngine, must: bool = False) -> None:
    """Checkpoints, and merges if that is due, after a commit, which does not fail by it.

    Failures are kept (cesium/upkeep.py): the commit is in the journal.  Memtables that cannot be
    written out stay where they are, and the next call tries again; with FROZEN_MOST of them the
    store is stalled: writes fail until there is room.  What leaves the manifest in doubt has
    poisoned the engine.  Nothing is done in a closed store, nor by a signal handler in the midst of
    maintenance.
    """
    if engine.background is not None:
        engine.background.flusher.wake()
        bound_sources(engine)
        return
    inner = engine.core_engine
    with engine.merging, engine.maintenance:
        if inner.closed or engine.is_maintained_here:
            return
        try:
            with engine.exclusive_merging("maintenance"), engine.maintained():
                checkpoint_held(engine)
                if engine.upkeep.merge_is_due():
                    merge_if_due(engine)
        except Exception as error:
            failed(engine, error)
            if must and inner.stalled:
                raise


def checkpoint(engine: StoreEngine) -> None:
    """Brings all commits so far into segments and the manifest; then merges, if that is due.

    A merge that fails is kept (cesium/upkeep.py): the checkpoint stands.
    """
    with engine.exclusive_maintenance("a checkpoint"):
        checkpoint_held(engine)
    after_checkpoint(engine)


def after_checkpoint(engine: StoreEngine) -> None:
    """Merges if that is due, here or in the background; with no lock held."""
    if engine.background is not None:
        wake_merger(engine)
        bound_sources(engine)
    elif engine.upkeep.merge_is_due():
        try:
            with engine.exclusive_merging("a checkpoint"), engine.maintained():
                merge_if_due(engine)
        except Exception as error:
            engine.upkeep.note(engine.path, error)


def bound_sources(engine: StoreEngine) -> None:
    """Merges here, where many checkpoints or loads made sources faster than they are merged."""
    if sources_most(engine) < RUNS_MOST or engine.is_maintained_here:
        return
    with engine.merging_here():
        try:
            while sources_most(engine) >= RUNS_MOST and merge_once(engine):
                pass
        except Exception as error:
            engine.upkeep.merge_failed()
            engine.upkeep.note(engine.path, error)


def merge_if_due(engine: StoreEngine, most_bytes: int | None = None) -> None:
    """Merges until the tiers are in order; `merging` is held.  most_bytes: see merge_once."""
    try:
        while merge_once(engine, most_bytes):
            pass
    except Exception:
        engine.upkeep.merge_failed()
        raise
    engine.upkeep.merged()


def merge_before_closing(engine: StoreEngine) -> None:
    """The same for merges no longer than a flush: every closing may add a small segment."""
    merge_if_due(engine, CLOSING_BYTES_MOST)


def compact(
    engine: StoreEngine, tables: Iterable[TableEngine], progress: Progress | None = None
) -> None:
    """Brings each of the tables into one run without delete markers; progress gets the rows
    written.

    Commits, and flushes of what they bring, go on meanwhile.
    """
    with engine.exclusive_merging("compaction"):
        for table in tables:
            compact_table(table, progress)
        engine.upkeep.merged()


def compact_table(table: TableEngine, progress: Progress | None) -> None:
    """One of them; `merging` is held."""
    engine = table.store
    with engine.maintained():
        checkpoint_held(engine)
        newer = mergeable(table)
    if newer:
        merge_into_base(table, newer, progress)
    before = 0
    while runs := [run for run in small_runs(table) if len(run) > 1]:
        if sum(map(len, runs)) == before:
            break  # a load lies in between; a later merge joins what is left
        before = sum(map(len, runs))
        merge_part(table, [], runs[0][:GROUP_MOST], progress)
    for reader in reclaimable(table, COMPACT_DEAD_SHARE):
        merge_part(table, [], [reader], progress, COMPACT_DEAD_SHARE)
