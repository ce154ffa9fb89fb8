"""Whole loads into a new store, from rows in memory to stable storage."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing
from pathlib import Path

from cesium.benchmark.job import Context, Outcome
from cesium.benchmark.workspace import bytes_on_disk

PUT_LOAD_FACTOR = 20
SLICE = 100  # puts between two looks at the clock


def load_sorted(context: Context) -> Outcome:
    """All rows, ascending by key."""
    return _load(context, ordered=True)


def load_shuffled(context: Context) -> Outcome:
    """All rows in random order; where an engine gains by sorting them, that is in its time."""
    return _load(context, ordered=False)


def _load(context: Context, ordered: bool) -> Outcome:
    rows = context.rows if ordered else context.shuffled()
    outcome = Outcome()
    for _ in range(context.job.repeats):
        path = context.fresh_path()
        with closing(context.open(path)) as store:
            given = store.rows(rows)
            start = time.perf_counter()
            store.load(given, ordered, context.job.threads)
            outcome.runs.append(len(rows) / (time.perf_counter() - start))
            del given
        if store.on_disk:
            outcome.extra["disk_bytes"] = bytes_on_disk(path)
            outcome.extra["raw_bytes"] = len(rows) * context.shape.row_bytes
        _remove(context)
    return outcome


def load_singly(context: Context) -> Outcome:
    """All rows in random order, put after put, in one transaction where an engine has those.

    An engine that is not through after PUT_LOAD_FACTOR times a run's seconds gets the rate that it
    has had by then: its later puts would be slower still.
    """
    rows = context.shuffled()
    outcome = Outcome()
    for _ in range(context.job.repeats):
        with closing(context.open(context.fresh_path())) as store:
            keys, values = store.keys(rows.keys), store.values(rows.values)
            done = 0
            start = time.perf_counter()
            end = start + context.job.seconds * PUT_LOAD_FACTOR
            store.begin()
            put = store.put
            while done < len(keys) and time.perf_counter() < end:
                for key, value in zip(keys[done : done + SLICE], values[done : done + SLICE]):
                    put(key, value)
                done += SLICE
            store.commit()
            outcome.runs.append(min(done, len(keys)) / (time.perf_counter() - start))
        _remove(context)
    return outcome


def _remove(context: Context) -> None:
    """What a run wrote is not the next one's burden."""
    for path in context.scratch.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    os.sync()


def prepare(context: Context) -> Outcome:
    """The loaded store that other workloads read and copy."""
    assert context.job.store is not None
    with closing(context.open(Path(context.job.store))) as store:
        store.load(store.rows(context.rows), True)
        store.settle()
    return Outcome()
