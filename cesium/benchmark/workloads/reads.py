"""Reads of a loaded store that lies in the page cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from cesium.benchmark.engines import Engine, NotOffered
from cesium.benchmark.job import Context, Outcome
from cesium.benchmark.shapes import Keys, misses
from cesium.benchmark.timing import Tape
from cesium.benchmark.workloads.common import loaded, measure

PROBES = 200_000
BATCH_ROWS = 10_000
BATCHES = 20
RANGES = 5_000
SHORT_ROWS = 100


def probes(context: Context, count: int = PROBES) -> Keys:
    """Random keys that are there, as often as chance has it."""
    return context.rows.keys.take(context.random.integers(0, context.job.rows, count))


def get_hit(context: Context) -> Outcome:
    """Single gets of random keys that are there."""
    return _gets(context, probes(context))


def get_miss(context: Context) -> Outcome:
    """Single gets of keys that are not there, each right behind one that is."""
    return _gets(context, misses(probes(context)))


def _gets(context: Context, keys: Keys) -> Outcome:
    def tape(store: Engine, thread: int) -> Tape:
        asked = store.keys(keys.take(slice(thread, None, context.job.threads)))
        get = store.get

        def slices(first: int, end: int) -> None:
            for key in asked[first:end]:
                get(key)

        return Tape(len(asked), slices, lambda number: get(asked[number]), again=True)

    with loaded(context) as store:
        return measure(context, tape, store)


def get_many(context: Context) -> Outcome:
    """Batches of random keys that are there, to an array of values."""
    rows = min(BATCH_ROWS, context.job.rows)

    def tape(store: Engine, thread: int) -> Tape:
        batches = [store.batch(probes(context, rows)) for _ in range(BATCHES)]
        return _calls(store.get_many, [(batch,) for batch in batches])

    with loaded(context) as store:
        return measure(context, tape, store, rows)


def _calls(call: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> Tape:
    def slices(first: int, end: int) -> None:
        for given in arguments[first:end]:
            call(*given)

    return Tape(len(arguments), slices, lambda number: call(*arguments[number]), again=True)


def range_100(context: Context) -> Outcome:
    """Ranges of 100 rows to arrays, forward."""
    return _ranges(context, SHORT_ROWS, False)


def range_100_reverse(context: Context) -> Outcome:
    """Ranges of 100 rows to arrays, backward."""
    return _ranges(context, SHORT_ROWS, True)


def range_1pct(context: Context) -> Outcome:
    """Ranges of a hundredth of all rows to arrays, forward."""
    return _ranges(context, context.job.rows // 100, False)


def range_1pct_reverse(context: Context) -> Outcome:
    """Ranges of a hundredth of all rows to arrays, backward."""
    return _ranges(context, context.job.rows // 100, True)


def _ranges(context: Context, rows: int, reverse: bool) -> Outcome:
    rows = max(min(rows, context.job.rows - 1), 1)

    def tape(store: Engine, thread: int) -> Tape:
        starts = context.random.integers(0, context.job.rows - rows, RANGES)
        lower = store.keys(context.rows.keys.take(starts))
        upper = store.keys(context.rows.keys.take(starts + rows))
        return _calls(store.range, [(*bounds, reverse) for bounds in zip(lower, upper)])

    with loaded(context) as store:
        _ranged(store)
        return measure(context, tape, store)


def scan(context: Context) -> Outcome:
    """All rows to arrays, in one call."""
    with loaded(context) as store:
        _ranged(store)
        return measure(
            context, lambda store, _: _calls(store.range, [(None, None)]), store, context.job.rows
        )


def iterate(context: Context) -> Outcome:
    """All rows one by one, as Python objects."""
    with loaded(context) as store:
        _ranged(store)

        def tape(store: Engine, thread: int) -> Tape:
            return _calls(lambda: deque(store.iterate(), 0), [()])

        return measure(context, tape, store, context.job.rows)


def _ranged(store: Engine) -> None:
    if not store.ranged:
        raise NotOffered("no order")
