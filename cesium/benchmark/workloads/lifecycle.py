"""Opening a store that was closed."""

from __future__ import annotations

import time
from pathlib import Path

from cesium.benchmark.engines import NotOffered
from cesium.benchmark.job import Context, Outcome

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
