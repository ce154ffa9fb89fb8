"""What the failure loops do to a store, step by step: each is a function of a Session.

A workload is deterministic (but for threads=2), small, and names the store that it starts from:
`base` fills it once, with sound files, and every run gets a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cesium.store import Store
from failure_session import Model, Session

TINY_MEMTABLE = 10_000  # bytes: six or seven of the rows below
JOURNAL_BYTES = 64 << 10  # of the first journal file
LONG = 4000  # bytes of a value: 16 of them fill that file


def nothing(session: Session) -> None:
    """Starts where there is no store."""


@dataclass(frozen=True)
class Workload:
    """Steps, the store that they start from, and its options."""

    name: str
    steps: Callable[[Session], None]
    base: Callable[[Session], None] = nothing
    options: dict[str, Any] = field(default_factory=lambda: {"key": "u8", "value": "bytes"})
    killed: bool = False  # the base is as a killed process leaves it: not closed
    segment_bytes: int = 64 << 20
    part_rows: int = 1 << 16  # a load's, for each thread
    run_rows: int = 1 << 16  # and for each sorting


def put(session: Session, key: Any, value: Any) -> None:
    session.write(lambda store: store.put(key, value), lambda model: model.update({key: value}))


def put_many(session: Session, rows: Model) -> None:
    session.write(lambda store: store.update(rows), lambda model: model.update(rows))


def delete(session: Session, key: Any) -> None:
    session.write(lambda store: store.delete(key), lambda model: model.pop(key, None))


def delete_range(session: Session, lo: Any, hi: Any) -> None:
    def change(model: Model) -> None:
        for key in [key for key in model if lo <= key < hi]:
            del model[key]

    session.write(lambda store: store.delete_range(lo, hi), change)


def load(session: Session, keys: Any, values: Any, threads: int = 1) -> None:
    rows = dict(zip(np.asarray(keys).tolist(), values if isinstance(values, list) else
                    np.asarray(values).tolist()))  # fmt: skip
    session.write(
        lambda store: store.bulk_load(keys, values, threads=threads),
        lambda model: model.update(rows),
    )


def text(number: int, length: int = 40) -> bytes:
    return f"{number:08d}".encode() * (length // 8)


# --- bases ---------------------------------------------------------------------------------------


def in_the_journal(session: Session) -> None:
    """Commits in two journal files, none of them in a segment."""
    session.open()
    for number in range(20):
        put(session, number, text(number, LONG))
    delete(session, 3)
    delete_range(session, 5, 8)


def in_segments(session: Session) -> None:
    """Two loads in the last tier, two flushes above them, some rows in the journal."""
    session.open()
    load(session, range(0, 400, 2), [text(number) for number in range(0, 400, 2)])
    load(session, range(1000, 1100), [text(number) for number in range(1000, 1100)])
    for first in (1, 101):
        put_many(session, {key: text(key + 7) for key in range(first, first + 60)})
        delete(session, first + 1)
        session.keep(lambda store: store.checkpoint())
    put(session, 5000, text(9))


def overlapping(session: Session) -> None:
    """A last tier of one segment and four sources above it, all of the same keys."""
    session.open()
    load(session, range(200), [text(number) for number in range(200)])
    for turn in range(4):
        put_many(session, {key: text(key + turn + 1) for key in range(turn, 200, 9)})
        if turn == 2:
            delete_range(session, 20, 30)
        session.keep(lambda store: store.checkpoint())


# --- steps ---------------------------------------------------------------------------------------


def create(session: Session) -> None:
    session.open()
    put(session, 1, text(1))
    delete(session, 2)
    session.close()


def make_anew(session: Session) -> None:
    session.model.clear()
    session.states.clear()
    session.acknowledged = 0
    session.open("n")
    put(session, 1, text(1))
    session.close()


def replay(session: Session) -> None:
    session.open()
    put(session, 30, text(30))
    delete(session, 4)
    session.close()


def replay_and_sync(session: Session) -> None:
    session.open()
    session.keep(lambda store: store.sync())
    session.keep(lambda store: store.checkpoint())
    put(session, 30, text(30))
    session.close()


def journal_files(session: Session) -> None:
    session.open()
    for number in range(22):
        put(session, number, text(number, LONG))
    session.keep(lambda store: store.sync())
    put(session, 50, b"")
    session.close()


def journal_files_unsynced(session: Session) -> None:
    session.open()
    for number in range(40):
        put(session, number, text(number, LONG))
        if session.store is not None:
            session.store._engine.journal.prepare_next()  # fails in silence
        if number % 15 == 14:
            session.keep(lambda store: store.sync())
    session.close()


def batches(session: Session) -> None:
    session.open()
    put_many(session, {key: text(key) for key in range(60)})
    session.write(
        lambda store: store.delete_many([1, 2, 3]),
        lambda model: [model.pop(key, None) for key in (1, 2, 3)],
    )
    delete_range(session, 10, 20)
    put_many(session, {key: text(key + 1, 4096) for key in range(15, 40)})
    session.write(lambda store: store.clear(), lambda model: model.clear())
    put_many(session, {key: text(key) for key in range(5)})
    session.close()


def flushes_and_merges(session: Session) -> None:
    """Tiny memtables, so that flushes and merges happen inside puts."""
    session.memtable_bytes = TINY_MEMTABLE
    session.open()
    for number in range(48):
        put(session, number * 37 % 101, text(number, 640))
        if number == 20:
            delete_range(session, 30, 50)
    session.close()


def compact(session: Session) -> None:
    session.open()
    session.keep(lambda store: store.compact())
    put(session, 7, text(8))
    session.keep(lambda store: store.compact())
    session.close()


def load_one(session: Session) -> None:
    session.open()
    load(session, range(300, 0, -1), [text(number) for number in range(300)])
    put(session, 7, text(8))
    session.close()


def load_over(session: Session) -> None:
    """Above what is there, with a memtable that it freezes."""
    session.open()
    put(session, 11, text(11))
    load(session, range(1, 400, 3), [text(number) for number in range(1, 400, 3)])
    put(session, 12, text(12))
    load(session, range(1, 400, 7), [text(number) for number in range(1, 400, 7)])
    session.keep(lambda store: store.checkpoint())
    session.close()


def load_several(session: Session) -> None:
    session.open()
    put(session, 1 << 40, text(5))
    load(session, range(300), [text(number, 400) for number in range(300)])
    session.close()


def large_values(session: Session) -> None:
    """Into blob files, over one another, merged, deleted until the rest is written anew."""
    session.open()
    load(session, range(0, 60, 2), [text(number, 400) for number in range(0, 60, 2)])
    put_many(session, {key: text(key + 7, 800) for key in range(10, 30)})
    session.keep(lambda store: store.checkpoint())
    session.read(lambda store: store.get(12), lambda model: model.get(12))
    session.keep(lambda store: store.compact())
    delete_range(session, 8, 54)
    session.keep(lambda store: store.checkpoint())
    session.keep(lambda store: store.compact())
    session.read(lambda store: dict(store.items()), dict)
    session.close()


def load_by_two(session: Session) -> None:
    session.open()
    load(session, range(300), [text(number, 400) for number in range(300)], 2)
    session.close()


def load_in_runs(session: Session) -> None:
    """More rows than may be sorted at once: two runs, merged."""
    session.open()
    keys = np.random.default_rng(1).permutation(300)
    load(session, keys, [text(number, 400) for number in range(300)])
    session.close()


def name(session: Session, name: str) -> None:
    session.keep_name(name, lambda store: store.checkpoint(name))


def drop(session: Session, name: str) -> None:
    if name in session.names():
        session.keep_name(name, lambda store: store.drop_checkpoint(name))


def named_checkpoints(session: Session) -> None:
    """Two names, of which one is dropped, over a merge that would remove their files."""
    session.open()
    put(session, 7, text(8))
    name(session, "first")
    session.keep(lambda store: store.compact())
    put_many(session, {key: text(key + 3) for key in range(40, 90)})
    name(session, "second")
    session.keep(lambda store: store.compact())
    drop(session, "first")
    session.close()
    session.open()
    drop(session, "second")
    session.close()


def tables(session: Session) -> None:
    """A table made, written to together with the store, flushed, dropped, and made again."""

    def make(store: Store) -> None:
        store.table("t", key="str", value="u8")

    def across(store: Store) -> Any:
        make(store)
        with store.transaction() as txn:
            txn[5] = text(9)
            txn.table("t")["a"] = 1
        return txn.committed

    def remove(store: Store) -> None:
        make(store)
        store.drop_table("t")

    session.open()
    session.write(across, lambda model: model.update({5: text(9)}))
    session.keep(lambda store: store.checkpoint())
    session.write(across, lambda model: model.update({5: text(9)}))
    session.keep(remove)
    put(session, 6, text(6))
    session.write(across, lambda model: model.update({5: text(9)}))
    session.keep(lambda store: store.compact())
    session.close()
    session.open()
    session.keep(remove)
    session.close()


def checkpoints(session: Session) -> None:
    session.open()
    for number in range(4):
        put(session, number, text(number))
        session.keep(lambda store: store.checkpoint())
    session.close()
    session.open()
    put(session, 9, text(9))
    session.close()


def closes(session: Session) -> None:
    for number in range(3):
        session.open()
        put(session, number, text(number))
        session.close()


def cold_reads(session: Session) -> None:
    def rows(model: Model) -> list[tuple[Any, Any]]:
        return sorted(model.items())

    def get_many(store: Store) -> tuple[list[bytes], list[bool]]:
        values, found = store.get_many([4, 5, 102, 1050, 5000])
        return list(values), found.tolist()

    keys = [4, 5, 102, 1050, 5000]
    session.open("r")
    session.read(lambda store: store.get(4), lambda model: model.get(4))
    session.read(lambda store: 102 in store, lambda model: 102 in model)
    session.read(get_many, lambda model: (
        [model.get(key, b"") for key in keys], [key in model for key in keys]))  # fmt: skip
    session.read(lambda store: list(store.range(50, 1010)), lambda model: [
        pair for pair in rows(model) if 50 <= pair[0] < 1010])  # fmt: skip
    session.read(len, len)
    session.read(lambda store: store.last(), lambda model: rows(model)[-1])
    session.read(
        lambda store: list(reversed(store.range(None, 300))),
        lambda model: [pair for pair in rows(model)[::-1] if pair[0] < 300],
    )
    session.close()


def scrub(session: Session) -> None:
    session.open("r")
    session.scrub()
    session.close()


TEXTS = {"key": "u8", "value": "bytes"}

WORKLOADS = [
    Workload("create", create),
    Workload("make anew", make_anew, in_segments),
    Workload("replay", replay, in_the_journal, killed=True),
    Workload("replay, sync, checkpoint", replay_and_sync, in_the_journal, killed=True),
    Workload("replay over segments", replay, in_segments, killed=True),
    Workload("several journal files", journal_files),
    Workload(
        "several unsynced journal files", journal_files_unsynced,
        options={**TEXTS, "durability": "process"},
    ),
    Workload("batches and deletes", batches),
    Workload("flushes and merges in puts", flushes_and_merges),
    Workload("compact", compact, overlapping),
    Workload("tables", tables),
    Workload("load of one segment", load_one),
    Workload("loads over others", load_over, in_segments),
    Workload("load of several segments", load_several, segment_bytes=1 << 15),
    Workload("large values", large_values, options={**TEXTS, "blob_threshold": 200}),
    Workload("load by two threads", load_by_two, segment_bytes=1 << 15, part_rows=100),
    Workload(
        "load in runs", load_in_runs, options={**TEXTS, "memory_limit": "1MiB"},
        segment_bytes=1 << 15, run_rows=100,
    ),
    Workload("checkpoints", checkpoints),
    Workload("named checkpoints", named_checkpoints, overlapping),
    Workload("closing and opening again", closes),
    Workload("cold reads of a read-only handle", cold_reads, in_segments, killed=True),
    Workload("verify", scrub, in_segments, killed=True),
]  # fmt: skip
