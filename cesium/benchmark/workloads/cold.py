"""Reads of a loaded store that is not in memory: its pages are dropped from the page cache first.

Dropping is by advice to the kernel; a virtual drive's host may still have them.  A few gets come
before the clock: an engine maps its files and reads their indexes once, which `open` measures.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from cesium.benchmark.engines import Engine, NotOffered
from cesium.benchmark.job import Context, Outcome
from cesium.benchmark.timing import Tape
from cesium.benchmark.workspace import bytes_on_disk, drop_from_memory

PAGE_BYTES = 4096
READ_SHARE = 20  # one page of so many is asked for, so that hardly any is met twice
STORE_BYTES_LEAST = 8 << 20  # of a smaller one, reading ahead brings in all that is there
BATCH_KEYS_MOST = 100_000
WARM_UP_GETS = 8


def cold_get(context: Context) -> Outcome:
    """Single gets of random keys, hardly two of them in one page."""
    return _cold(context, batch=False)


def cold_get_many(context: Context) -> Outcome:
    """The same keys in one batch."""
    return _cold(context, batch=True)


def _cold(context: Context, batch: bool) -> Outcome:
    if not context.engine_class.on_disk or context.engine_class.bound:
        raise NotOffered("nothing on the drive")
    assert context.job.store is not None
    path = Path(context.job.store)
    size = bytes_on_disk(path)
    if context.job.rows * context.shape.row_bytes < STORE_BYTES_LEAST:
        raise NotOffered(f"a store of less than {STORE_BYTES_LEAST >> 20} MiB is never cold")
    count = min(size // PAGE_BYTES // READ_SHARE, BATCH_KEYS_MOST)
    outcome = Outcome()
    for _ in range(context.job.repeats):
        places = context.random.integers(0, context.job.rows, count + WARM_UP_GETS)
        keys = context.rows.keys.take(places[:count])
        first = context.rows.keys.take(places[count:])
        drop_from_memory(path)
        with closing(context.open(path, cold=True)) as store:
            store.only_reads()
            for key in store.keys(first):
                store.get(key)
            if batch:
                asked = store.batch(keys)
                start = time.perf_counter()
                store.get_many(asked)
                outcome.runs.append(count / (time.perf_counter() - start))
            else:
                _single(context, store, store.keys(keys), outcome)
    return outcome


def _single(context: Context, store: Engine, keys: list[object], outcome: Outcome) -> None:
    get = store.get
    tape = Tape(len(keys), lambda first, end: None, lambda number: get(keys[number]))
    start = time.perf_counter()
    histogram = tape.latencies(len(keys), max(context.job.seconds, 0.2), context.job.rate)
    outcome.runs.append(histogram.count / (time.perf_counter() - start))
    outcome.add_latencies(histogram)
