"""Mixes of reads and writes: YCSB's core workloads, and readers beside a writer.

YCSB (Cooper and others, "Benchmarking Cloud Serving Systems with YCSB", SoCC 2010): A is half
reads and half updates, B 95 % reads, C reads alone, D 95 % reads of what was inserted lately, E
95 % ranges of 1 to 100 rows and inserts, F half reads and half read-modify-writes.  A, B, C, E and
F choose rows by a zipfian distribution of theta 0.99 (hot rows lie anywhere), or `uniform`; D by
`latest`: zipfian from the newest row back.  Writes are safe from a kill of the process, or synced
where an engine has nothing else.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from cesium.benchmark.engines import Engine, NotOffered
from cesium.benchmark.job import Context, Outcome
from cesium.benchmark.shapes import Rows, make_values, zipfian
from cesium.benchmark.timing import Tape, run_threads
from cesium.benchmark.workloads.common import copied, measure
from cesium.benchmark.workloads.reads import probes
from cesium.benchmark.workloads.writes import affordable, new_rows

OPERATIONS_A_SECOND = 1_500_000
OPERATIONS_LEAST = 2_000
READ, UPDATE, INSERT, RANGE, MODIFY = range(5)
RANGE_ROWS_MOST = 100


def ycsb_a(context: Context) -> Outcome:
    """Half reads, half updates; zipfian."""
    return _ycsb(context, {READ: 0.5, UPDATE: 0.5})


def ycsb_a_uniform(context: Context) -> Outcome:
    """Half reads, half updates; uniform."""
    return _ycsb(context, {READ: 0.5, UPDATE: 0.5}, "uniform")


def ycsb_b(context: Context) -> Outcome:
    """95 % reads, 5 % updates; zipfian."""
    return _ycsb(context, {READ: 0.95, UPDATE: 0.05})


def ycsb_c(context: Context) -> Outcome:
    """Reads alone; zipfian."""
    return _ycsb(context, {READ: 1.0})


def ycsb_c_uniform(context: Context) -> Outcome:
    """Reads alone; uniform."""
    return _ycsb(context, {READ: 1.0}, "uniform")


def ycsb_d(context: Context) -> Outcome:
    """95 % reads of what was inserted lately, 5 % inserts."""
    return _ycsb(context, {READ: 0.95, INSERT: 0.05}, "latest")


def ycsb_e(context: Context) -> Outcome:
    """95 % ranges of 1 to 100 rows, 5 % inserts; zipfian."""
    return _ycsb(context, {RANGE: 0.95, INSERT: 0.05})


def ycsb_f(context: Context) -> Outcome:
    """Half reads, half read-modify-writes; zipfian."""
    return _ycsb(context, {READ: 0.5, MODIFY: 0.5})


class Mix:
    """Operations, made before the clock: kinds, and for each the key, the value, or the bounds."""

    def __init__(
        self, context: Context, parts: dict[int, float], chosen_by: str, count: int
    ) -> None:
        random = context.random
        self.kinds = random.choice(list(parts), count, p=list(parts.values()))
        inserts = self.kinds == INSERT
        inserted = int(inserts.sum())
        loaded = context.shuffled()
        fresh = new_rows(context, max(inserted, 1))
        rows = len(loaded)
        # Places in the shuffled rows, then the inserted ones behind them in their order.
        newest = rows + np.cumsum(inserts) - inserts
        if chosen_by == "uniform":
            self.places = random.integers(0, rows, count)
        elif chosen_by == "latest":
            self.places = newest - 1 - np.minimum(zipfian(rows, count, random), newest - 1)
        else:
            self.places = zipfian(rows, count, random)
        self.places[inserts] = rows + np.arange(inserted)
        self.keys = Rows.joined(loaded, fresh).keys
        self.values = make_values(context.shape, count, random)
        self.lengths = random.integers(1, RANGE_ROWS_MOST + 1, count)
        self.order = loaded.keys.order() if RANGE in parts else None

    def arguments(self, store: Engine) -> tuple[list[int], list[Any], list[Any]]:
        """(kinds, keys, what each needs beside its key), in the engine's forms."""
        every = store.keys(self.keys)
        values = store.values(self.values)
        if self.order is None:
            return self.kinds.tolist(), [every[place] for place in self.places.tolist()], values
        rank = np.empty(len(self.order), np.int64)
        rank[self.order] = np.arange(len(self.order))
        seconds: list[Any] = values
        ranged = np.flatnonzero(self.kinds == RANGE)
        ends = np.minimum(rank[self.places[ranged]] + self.lengths[ranged], len(self.order) - 1)
        for number, end in zip(ranged.tolist(), self.order[ends].tolist()):
            seconds[number] = every[end]
        return self.kinds.tolist(), [every[place] for place in self.places.tolist()], seconds


def _ycsb(context: Context, parts: dict[int, float], chosen_by: str = "zipfian") -> Outcome:
    if context.job.threads > 1:
        raise NotOffered("one thread")
    seconds = context.job.seconds * (context.job.repeats + 1)
    count = affordable(context, max(int(OPERATIONS_A_SECOND * seconds), OPERATIONS_LEAST))
    mix = Mix(context, parts, chosen_by, count)

    def tape(store: Engine, thread: int) -> Tape:
        kinds, keys, seconds_ = mix.arguments(store)
        get, put = store.get, store.put
        range_ = store.range if store.ranged else None

        def slices(first: int, end: int) -> None:
            for kind, key, other in zip(kinds[first:end], keys[first:end], seconds_[first:end]):
                if kind == READ:
                    get(key)
                elif kind == RANGE:
                    range_(key, other)  # type: ignore[misc]
                elif kind == MODIFY:
                    get(key)
                    put(key, other)
                else:
                    put(key, other)

        return Tape(len(kinds), slices, lambda number: slices(number, number + 1))

    with copied(context) as store:
        if RANGE in parts and not store.ranged:
            raise NotOffered("no order")
        if set(parts) == {READ}:
            store.only_reads()
        return measure(context, tape, store)


def mixed(context: Context) -> Outcome:
    """Gets of all threads but one beside a thread that puts; the gets are counted.

    With one thread asked for, there are two.
    """
    readers = max(context.job.threads - 1, 1)
    keys = probes(context)
    seconds = context.job.seconds * (context.job.repeats + 1)
    count = max(int(OPERATIONS_A_SECOND * seconds), OPERATIONS_LEAST)
    rows = new_rows(context, affordable(context, count))
    outcome = Outcome()
    with copied(context) as store:
        if not store.threads:
            raise NotOffered("one thread at a time")
        new_keys, new_values = store.keys(rows.keys), store.values(rows.values)
        stores = [store.session() for _ in range(readers)]
        done = threading.Event()
        written = [0]

        def write() -> None:
            put = store.put
            for key, value in zip(new_keys, new_values):
                put(key, value)
                written[0] += 1
                if done.is_set():
                    return

        def tape(reader: Engine) -> Tape:
            asked = reader.keys(keys)
            get = reader.get

            def slices(first: int, end: int) -> None:
                for key in asked[first:end]:
                    get(key)

            return Tape(len(asked), slices, lambda number: get(asked[number]), again=True)

        tapes = [tape(reader) for reader in stores]
        writer = threading.Thread(target=write)
        begun = time.perf_counter()
        writer.start()
        try:
            run_threads(tapes, context.job.seconds * 0.2)
            for _ in range(context.job.repeats):
                calls, taken = run_threads(tapes, context.job.seconds)
                outcome.runs.append(calls / taken)
        finally:
            done.set()
            writer.join()
        outcome.extra["puts_per_second"] = written[0] / (time.perf_counter() - begun)
        for reader in stores:
            if reader is not store:
                reader.close()
    return outcome
