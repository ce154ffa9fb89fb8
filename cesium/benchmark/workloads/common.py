"""What workloads share: measuring a tape, and opening what a job was given."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from cesium.benchmark.engines import Engine, NotOffered
from cesium.benchmark.job import LATENCY_CALLS, LATENCY_SHARE, Context, Outcome
from cesium.benchmark.timing import Tape, run_threads

WARM_UP_SHARE = 0.2  # of a run's seconds, of the work itself; not counted
PASS_FACTOR = 5  # a store is read through before, for at most so many times a run's seconds
PASS_ROWS = 1_000  # between two looks at the clock


@contextmanager
def loaded(context: Context, cold: bool = False) -> Iterator[Engine]:
    """The loaded store, only to be read; one that lives in memory is filled first."""
    with closing(_open_store(context, None, cold)) as store:
        store.only_reads()
        if store.on_disk and not cold:
            _read_through(store, context.job.seconds * PASS_FACTOR)
        yield store


def _read_through(store: Engine, seconds: float) -> None:
    """Fills the caches: the system's, and the engine's own."""
    end = time.perf_counter() + seconds
    rows = iter(store.iterate())
    while time.perf_counter() < end and next(islice(rows, PASS_ROWS - 1, None), None) is not None:
        pass


@contextmanager
def copied(context: Context, durability: str | None = None) -> Iterator[Engine]:
    """A copy of the loaded store, to be written to."""
    with closing(_open_store(context, durability, False, copy=True)) as store:
        yield store


def _open_store(context: Context, durability: str | None, cold: bool, copy: bool = False) -> Engine:
    if not context.engine_class.on_disk:
        store = context.open(context.fresh_path(), durability)
        store.load(store.rows(context.rows), True)
        return store
    assert context.job.store is not None
    path = Path(context.job.store)
    if copy:
        path = copy_of(path, context.fresh_path())
    return context.open(path, durability, cold)


def copy_of(path: Path, to: Path) -> Path:
    """Another copy of a closed store."""
    if path.is_dir():
        shutil.copytree(path, to)
    else:
        shutil.copy(path, to)
    return to


def sessions(context: Context, store: Engine) -> list[Engine]:
    """A session for each thread that the job asks for."""
    threads = context.job.threads
    if threads == 1:
        return [store]
    if not store.threads:
        raise NotOffered("one thread at a time")
    found = [store, *(store.session() for _ in range(threads - 1))]
    for session in found:
        if session is not store:
            session.only_reads()
    return found


def measure(
    context: Context, make: Callable[[Engine, int], Tape], store: Engine, rows_a_call: int = 1
) -> Outcome:
    """Runs of a tape for each thread; then, with one thread, how long single calls take.

    make(session, thread): the tape of a thread.  rows_a_call: what a call counts for.
    """
    job = context.job
    stores = sessions(context, store)
    try:
        tapes = [make(session, thread) for thread, session in enumerate(stores)]
        outcome = Outcome()
        warm_up = run_threads(tapes, job.seconds * WARM_UP_SHARE)
        for _ in range(job.repeats):
            calls, seconds = run_threads(tapes, job.seconds)
            if calls:
                outcome.runs.append(calls * rows_a_call / seconds)
        if not outcome.runs:  # so few rows that all was done in the warm-up
            calls, seconds = warm_up
            outcome.runs.append(calls * rows_a_call / seconds)
        if len(tapes) == 1:
            seconds = job.seconds if job.rate else job.seconds * LATENCY_SHARE
            outcome.add_latencies(tapes[0].latencies(LATENCY_CALLS, seconds, job.rate))
        return outcome
    finally:
        for session in stores[1:]:
            if session is not store:
                session.close()
