"""Bulk loads of what comes in pieces: streams larger than memory, as one commit.

Pieces are gathered to what may be sorted at once, and written as a run of the load; nothing is
visible before the last one has come and the load is committed.  What is in memory is one piece, and
a run within the memory limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cesium._core import Commit
from cesium._engine import WriteGuard
from cesium._load import sorted_row_bytes
from cesium.budget import adapt, sort_bytes
from cesium.durability import sync
from cesium.events import Fact, event
from cesium.frame_rows import Part, join_parts
from cesium.large import check_sizes
from cesium.loader import RUN_ROWS_LEAST, Progress, Runs, commit_load, encoded_bytes, settle
from cesium.table_engine import TableEngine

HELD_SHARE = 2  # of what sorting may take, for the rows that are sorted: they are ours, too


def load_stream(
    table: TableEngine,
    parts: Iterable[Part],
    threads: int,
    durability: str,
    progress: Progress | None = None,
) -> Commit:
    """Loads encoded pieces as one commit, of equal keys the last; whatever fails, nothing stays."""
    with event(table.store, "load", rows=0) as facts:
        try:
            commit, loaded = load_parts(table, parts, threads, durability, progress, facts)
        finally:
            adapt(table.store)
        facts["rows"] = commit.rows
    table.store.core_engine.counters.add("loaded_bytes", loaded)
    settle(table)
    return commit


def load_parts(
    table: TableEngine,
    parts: Iterable[Part],
    threads: int,
    durability: str,
    progress: Progress | None,
    facts: dict[str, Fact],
) -> tuple[Commit, int]:
    """The same, without the maintenance that may follow; and the bytes loaded."""
    inner = table.store.core_engine
    with WriteGuard(inner):
        pass  # closed, read-only and poisoned stores refuse before any work is done
    rows = loaded = 0
    with Runs(table, threads, progress) as runs:
        for keys, values in gathered(table, parts):
            runs.add(keys, values)
            rows += keys.count
            loaded += encoded_bytes(keys, values)
        if rows == 0:
            sync(table.store)  # for what came before
            return Commit(inner.sequence, durability, 0), 0
        output, bounds = runs.finish()
    return commit_load(table, output, bounds, rows, threads, durability, facts), loaded


def gathered(table: TableEngine, parts: Iterable[Part]) -> Iterator[Part]:
    """Pieces joined to what may be held and sorted at once."""
    waiting: list[Part] = []
    rows = held = 0
    for keys, values in parts:
        if keys.count == 0:
            continue
        check_sizes(values, table.store.options)
        waiting.append((keys, values))
        rows += keys.count
        held += encoded_bytes(keys, values) + keys.count * sorted_row_bytes(table.shape)
        if rows >= RUN_ROWS_LEAST and held >= sort_bytes(table.store) // HELD_SHARE:
            joined = join_parts(waiting)
            waiting.clear()
            rows = held = 0
            yield joined
    if waiting:
        yield join_parts(waiting)
