"""The life of a store: opening it, again after a kill, and how it grows."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path

from cesium.benchmark.engines import NotOffered
from cesium.benchmark.job import Context, Outcome
from cesium.benchmark.shapes import Rows, make_rows
from cesium.benchmark.workloads.common import copy_of
from cesium.benchmark.workloads.writes import affordable, new_rows
from cesium.benchmark.workspace import bytes_on_disk

UNFLUSHED_PUTS = 100_000
GROWTH_FACTOR = 10  # a run of growth is so many times as long as another
GROWTH_ROWS = 100_000  # whose keys are made at once, while the clock stands
GROWTH_SLICE = 1_000
POINTS_MOST = 500
OPENINGS = 5  # a run's figure is the least of these: what else runs only ever adds


def open_store(context: Context) -> Outcome:
    """From the call to the first value; the system has the files in memory."""
    if not context.engine_class.on_disk:
        raise NotOffered("nothing to open")
    assert context.job.store is not None
    path = Path(context.job.store)
    outcome = Outcome()
    for run in range(context.job.repeats + 1):
        best = float("inf")
        for _ in range(OPENINGS):
            keys = context.rows.keys.take(context.random.integers(0, context.job.rows, 1))
            start = time.perf_counter()
            store = context.open(path)
            opened = time.perf_counter()
            key = store.keys(keys)[0]
            asked = time.perf_counter()
            found = store.get(key)
            best = min(best, time.perf_counter() - asked + opened - start)
            store.close()
            assert found is not None
        if run:  # the first is the warm-up
            outcome.runs.append(best)
    return outcome


def recover(context: Context) -> Outcome:
    """Opening, to the first value, after SIGKILL with 100,000 puts that no file but a log holds
    (of a small store a fifth of its rows).

    The puts are safe from a kill of the process, where an engine offers that; the process that did
    them is killed in their midst, its caches with it.
    """
    if not context.engine_class.on_disk or context.engine_class.bound:
        raise NotOffered("nothing to recover")
    assert context.job.store is not None
    rows = new_rows(context, affordable(context, min(UNFLUSHED_PUTS, context.job.rows // 5)))
    outcome = Outcome()
    for _ in range(context.job.repeats):
        path = copy_of(Path(context.job.store), context.fresh_path())
        _put_and_die(context, path, rows)
        start = time.perf_counter()
        store = context.open(path)
        opened = time.perf_counter()
        asked = store.keys(rows.keys.take(slice(0, 1)))[0]
        begun = time.perf_counter()
        found = store.get(asked)
        outcome.runs.append(time.perf_counter() - begun + opened - start)
        assert found is not None
        last = store.keys(rows.keys.take(slice(len(rows) - 1, None)))[0]
        assert store.get(last) is not None, "a put that was acknowledged is gone"
        store.close()
    return outcome


def _put_and_die(context: Context, path: Path, rows: Rows) -> None:
    child = os.fork()
    if child == 0:
        try:
            store = context.open(path)
            put = store.put
            if store.settings.durability == "sync":
                store.put_many(store.rows(rows))  # 100,000 syncs are not what is measured
            else:
                for key, value in zip(store.keys(rows.keys), store.values(rows.values)):
                    put(key, value)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise RuntimeError("the process that was to be killed while writing failed before")


def growth(context: Context) -> Outcome:
    """Puts of random keys from empty, in the process level: rows over time, and what they cost.

    amplification: bytes that the process made the kernel write, and bytes of the directory, over
    bytes put.
    """
    outcome = Outcome()
    path = context.fresh_path()
    seconds = context.job.seconds * GROWTH_FACTOR
    before = written_bytes()
    with closing(context.open(path)) as store:
        if not store.on_disk:
            raise NotOffered("nothing on the drive")
        put = store.put
        made = affordable(context, GROWTH_ROWS)
        points, rows, taken = [], 0, 0.0
        while taken < seconds:
            fresh = make_rows(context.shape, made, context.job.seed + 7 + rows)
            fresh = fresh.take(context.random.permutation(made))
            keys, values = store.keys(fresh.keys), store.values(fresh.values)
            end, done = 0, 0
            while done < made and taken < seconds:
                end = done + GROWTH_SLICE
                start = time.perf_counter()
                for key, value in zip(keys[done:end], values[done:end]):
                    put(key, value)
                taken += time.perf_counter() - start
                rows += min(end, made) - done
                done = end
                points.append([taken, rows])
    put_bytes = rows * context.shape.row_bytes
    outcome.runs.append(rows / taken)
    outcome.extra["over_time"] = points[:: max(1, len(points) // POINTS_MOST)]
    outcome.extra["write_amplification"] = (written_bytes() - before) / put_bytes
    outcome.extra["space_amplification"] = bytes_on_disk(path) / put_bytes
    return outcome


def written_bytes() -> int:
    """What this process made the kernel write."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes"):
            return int(line.split()[1])
    raise OSError("the kernel does not say write_bytes in /proc/self/io")
