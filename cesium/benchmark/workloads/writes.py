"""Single writes and batches, into a copy of a loaded store."""

from __future__ import annotations

import numpy as np

from cesium.benchmark.engines import Engine, NotOffered
from cesium.benchmark.job import LATENCY_SHARE, Context, Outcome
from cesium.benchmark.shapes import Rows, make_rows
from cesium.benchmark.timing import Tape
from cesium.benchmark.workloads.common import WARM_UP_SHARE, copied, measure

PUTS_A_SECOND = 2_000_000  # more than any engine does, so that a run does not end before its time
NEW_BYTES_MOST = 256 << 20
BATCH_ROWS = 1_000
BATCHES_MOST = 500
RANGE_ROWS = 101  # the last stays: it is the bound


def affordable(context: Context, rows: int) -> int:
    """So many rows, or as many as there is memory to make before the clock."""
    return max(min(rows, NEW_BYTES_MOST // context.shape.row_bytes), 1)


def new_rows(context: Context, count: int) -> Rows:
    """Rows whose keys are not in the loaded store (but for a chance of one in many), shuffled."""
    rows = make_rows(context.shape, count, context.job.seed + 1)
    return rows.take(context.random.permutation(count))


def put_sync(context: Context) -> Outcome:
    """Single puts of new random keys, each on stable storage before the next."""
    return _puts(context, "sync")


def put_interval(context: Context) -> Outcome:
    """The same, synced in the background."""
    return _puts(context, "interval")


def put_process(context: Context) -> Outcome:
    """The same, safe from a kill of the process."""
    return _puts(context, "process")


def put_none(context: Context) -> Outcome:
    """The same without a journal."""
    return _puts(context, "none")


def _puts(context: Context, durability: str) -> Outcome:
    _one_thread(context)
    context.require(durability)
    seconds = context.job.seconds * (context.job.repeats + WARM_UP_SHARE + LATENCY_SHARE)
    most = PUTS_A_SECOND if durability != "sync" else PUTS_A_SECOND // 30
    rows = new_rows(context, affordable(context, max(int(most * seconds), 1000)))

    def tape(store: Engine, thread: int) -> Tape:
        keys, values = store.keys(rows.keys), store.values(rows.values)
        put = store.put

        def slices(first: int, end: int) -> None:
            for key, value in zip(keys[first:end], values[first:end]):
                put(key, value)

        return Tape(len(keys), slices, lambda number: put(keys[number], values[number]))

    with copied(context, durability) as store:
        return measure(context, tape, store)


def batch_sync(context: Context) -> Outcome:
    """Batches of 1,000 new random rows, each on stable storage before the next."""
    return _batches(context, "sync")


def batch_process(context: Context) -> Outcome:
    """The same, safe from a kill of the process."""
    return _batches(context, "process")


def _batches(context: Context, durability: str) -> Outcome:
    _one_thread(context)
    context.require(durability)
    count = min(BATCHES_MOST, max(context.job.rows // BATCH_ROWS, 10))
    count = max(affordable(context, count * BATCH_ROWS) // BATCH_ROWS, 2)
    rows = new_rows(context, count * BATCH_ROWS)

    def tape(store: Engine, thread: int) -> Tape:
        batches = [
            store.rows(rows.take(slice(first, first + BATCH_ROWS)))
            for first in range(0, len(rows), BATCH_ROWS)
        ]
        put_many = store.put_many

        def slices(first: int, end: int) -> None:
            for batch in batches[first:end]:
                put_many(batch)

        return Tape(len(batches), slices, lambda number: put_many(batches[number]))

    with copied(context, durability) as store:
        return measure(context, tape, store, BATCH_ROWS)


def delete(context: Context) -> Outcome:
    """Single deletes of random keys that are there, safe from a kill of the process."""
    _one_thread(context)
    keys = context.shuffled().keys

    def tape(store: Engine, thread: int) -> Tape:
        gone = store.keys(keys)
        delete = store.delete

        def slices(first: int, end: int) -> None:
            for key in gone[first:end]:
                delete(key)

        return Tape(len(gone), slices, lambda number: delete(gone[number]))

    with copied(context) as store:
        return measure(context, tape, store)


def delete_range(context: Context) -> Outcome:
    """Deletes of ranges of 100 rows each that do not overlap, in random order; rows are counted."""
    _one_thread(context)
    count = context.job.rows // RANGE_ROWS
    starts = context.random.permutation(count) * RANGE_ROWS

    def tape(store: Engine, thread: int) -> Tape:
        every = context.rows.keys
        ends = np.minimum(starts + RANGE_ROWS - 1, context.job.rows - 1)
        bounds = list(zip(store.keys(every.take(starts)), store.keys(every.take(ends))))
        delete_range = store.delete_range

        def slices(first: int, end: int) -> None:
            for lower, upper in bounds[first:end]:
                delete_range(lower, upper)

        return Tape(len(bounds), slices, lambda number: delete_range(*bounds[number]))

    with copied(context) as store:
        if not store.ranged:
            raise NotOffered("no order")
        return measure(context, tape, store, RANGE_ROWS - 1)


def _one_thread(context: Context) -> None:
    if context.job.threads > 1:
        raise NotOffered("one thread writes here")
