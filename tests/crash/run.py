"""One recorded run of a workload: a store on recording files, and the history of its commits.

Everything is made tiny, so that a few dozen commits rotate the journal, fill memtables, flush,
merge, split a load in several segments and rewrite the manifest.  A workload calls the methods of
`Run`, each of which marks when its commit begins and when it is acknowledged.
"""

from __future__ import annotations

import contextlib
import functools
import pkgutil
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import cesium
from cesium.durability import sync
from crash.check import open_at, open_store
from crash.history import (
    NO_STORE,
    TABLES,
    Acknowledged,
    Begun,
    Commit,
    Dropped,
    Dropping,
    Durable,
    Era,
    History,
    Named,
    Naming,
    Opened,
    Opening,
    Reopened,
    Rows,
    rows_of,
)
from crash.recording_files import Content, Mark, RecordingFiles, Rename

FIRST_FILE_BYTES = 8192
LARGEST_FILE_BYTES = 12288
MEMTABLE_BYTES = 20_000
DURABILITIES = ("none", "process", "interval", "sync")  # each keeps what those before it keep
SMALL: dict[str, Any] = {
    # The background thread of level interval: when it syncs is for the workload to say.
    "cesium.syncing.IntervalSync.schedule": lambda interval_sync: None,
    "cesium.options.Options.journal_limit_bytes": 56_000,
    "cesium.manifest.REWRITE_BYTES": 1500,
    "cesium.loader.SEGMENT_BYTES": 16384,
    "cesium.segment_output.SEGMENT_BYTES": 40960,
    "cesium.merging.SEGMENT_BYTES": 40960,
    "cesium.merging.SMALL_RUN_MOST": 4,
    # Even small stores merge above the last tier first.
    "cesium.tiers.DIRECT_BYTES": 0,
    "cesium.segment_output.CUT_BYTES": 4096,
}


# What is counted when it happens: a function of the engine, and the corner that it is.
COUNTED = {
    "cesium.checkpoint.flush": "flush",
    "cesium.merging.merge_part": "merge",
    "cesium.merging.merge_into_run": "merge into a run",
    "cesium.loader.attach": "load",
    "cesium.loader.merge_runs": "load of several runs",
    "cesium.blob_files.BlobFiles.doom": "blob file reclaimed",
}


RUN_ROWS = 64


@contextlib.contextmanager
def small_limits() -> Iterator[None]:
    """While this is open, segments, manifests and the runs that are joined are small.

    What happens in the engine meanwhile is counted in `happened`.
    """
    with contextlib.ExitStack() as patches:
        for name, value in SMALL.items():
            patches.enter_context(mock.patch(name, value))
        # A load of more rows is sorted in runs, as one above the memory limit is.
        patches.enter_context(mock.patch("cesium.loader.run_rows", lambda engine, keys: RUN_ROWS))
        for name, corner in COUNTED.items():
            patches.enter_context(mock.patch(name, _counting(pkgutil.resolve_name(name), corner)))
        yield


happened: Counter[str] = Counter()


def _counting(function: Callable[..., Any], corner: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def counting(*arguments: Any, **options: Any) -> Any:
        answer = function(*arguments, **options)
        happened[corner] += 1
        return answer

    return counting


class Run:
    """A store on recording files.  `rng` is seeded: the same seed makes the same run.

    content: the files that are there at the beginning, durably; rows and sequence are found in them
    by opening.  files: a kind of recording files.
    """

    def __init__(
        self,
        seed: str,
        content: Content | None = None,
        *,
        files: Callable[[Content | None], RecordingFiles] = RecordingFiles,
        key: Any = "u8",
        value: Any = "f8",
        durability: str = "sync",
        blob_threshold: int | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.files = files(content)
        self.history = History()
        self.options = cesium.Options(
            key=key, value=value, durability=durability, blob_threshold=blob_threshold,
            # Of half of the runs; decided apart, for the rest of a seed's run stays as it was.
            journal_retention=random.Random(f"{seed} kept").choice((0, 4 * LARGEST_FILE_BYTES)),
        )  # fmt: skip
        self.seen: Counter[str] = Counter()
        self._era = NO_STORE
        happened.clear()
        self.open()

    @property
    def events(self) -> list[Any]:
        """What was recorded."""
        return self.files.events

    # -- opening and ending

    def open(self, flag: str = "c", durability: str | None = None) -> None:
        """Opens the store, or makes it new with flag "n"; at another level if asked."""
        if durability:
            self.options = replace(self.options, durability=durability)
        if self._era == NO_STORE or flag == "n":
            flushed = self._flushed() if self._era != NO_STORE else 0
            self.files.mark(Opening(flushed))
        options = replace(self.options, flag=flag)
        self.store = open_store(self.files, options)
        engine: Any = self.store._engine
        engine.journal._first_bytes = engine.journal._next_bytes = FIRST_FILE_BYTES
        engine.journal._largest_bytes = LARGEST_FILE_BYTES
        self.store.core.memtable_limit_bytes = MEMTABLE_BYTES
        self.seen["orphan found"] += bool(engine._orphans)
        uuid = engine.manifest.state.store_uuid
        if not self.history.eras or self.history.eras[-1].uuid != uuid:
            sequence = self.store.sequence
            self.history.eras.append(Era(uuid, sequence, rows_of(self.store)))
            self._era += 1
            self.files.mark(Opened(self._era, sequence))
            self._note_names()
        else:
            self.files.mark(Reopened())

    def _note_names(self) -> None:
        """The checkpoints that the store began with, and what they hold."""
        for each in self.store.checkpoints():
            with open_at(self.files, self.options, each.name) as then:
                self.history.eras[-1].named[each.name, each.sequence] = list(then.items())
            self.files.mark(Naming(each.name, each.sequence))
            self.files.mark(Named(each.name))

    def _flushed(self) -> int:
        return self.store._engine.manifest.state.flushed_sequence

    def close(self) -> None:
        """Closes cleanly: everything is durable."""
        sequence = self.store.sequence
        self.store.close()
        self.files.mark(Durable(sequence))

    def kill(self, flag: str = "c", durability: str | None = None) -> None:
        """The process dies without the system, and the next one opens the store.

        Not with commits of level none that no checkpoint has brought in: those are lost.
        """
        before = len(self.events)
        self.store._engine.core_engine.poisoned = OSError("the process was killed")
        self.store.close()  # lets go of what it holds, and does nothing to the files
        assert len(self.events) == before, self.events[before:]
        self.seen["killed"] += 1
        self.open(flag, durability)

    def finish(self) -> None:
        """After the workload: the history is complete."""
        self.store.close()
        self.history.settle()
        self.seen.update(happened)
        self.seen["made new"] = len(self.history.eras) - 1
        opened = 0  # whether a journal file was made since the store was opened
        manifests = 0
        for event in self.events:
            match event:
                case Mark(Opening() | Opened() | Reopened()):
                    opened = 0
                case Rename(_, name, _) if name.startswith("journal-kept-"):
                    self.seen["kept"] += 1
                case Rename(_, name, _) if name.startswith("journal-"):
                    self.seen["rotation"] += opened
                    opened = 1
                case Rename(_, name, _) if name.startswith("manifest-"):
                    manifests += 1
        self.seen["manifest rewritten"] = max(0, manifests - len(self.history.eras))

    # -- commits

    def commit(self, apply: Callable[[Rows], None], call: Callable[[], Any], level: str) -> None:
        """One commit: `call` makes it, `apply` does the same to a dict."""
        commit = Commit(apply)
        self.files.mark(Begun(commit))
        answer = call()
        commit.sequence = answer if isinstance(answer, int) else answer.sequence
        self.history.eras[-1].commits.append(commit)
        self.files.mark(Acknowledged(commit, level))

    def put_that_fails(self, key: Any, value: Any, kind: str, nth: int = 1) -> None:
        """A put whose Nth call of a kind fails: it may be there afterwards, or not."""
        commit = Commit(lambda rows: rows.update({key: value}))
        self.files.mark(Begun(commit))
        before = self.store.sequence
        self._fails(lambda: self.store.put(key, value, durability="sync"), kind, nth)
        if self.store.sequence > before:
            commit.sequence = self.store.sequence
            self.history.eras[-1].commits.append(commit)

    def checkpoint_that_fails(self, kind: str, nth: int = 1) -> None:
        """A checkpoint whose Nth call of a kind fails."""
        self._fails(self.store.checkpoint, kind, nth)

    def dies(self, call: Callable[[], Any], nth: int, *rows: Rows) -> None:
        """The process is killed at the Nth call to the system in the midst of `call`.

        rows: those that it commits, if it does.
        """
        commit = Commit(lambda state: state.update(*rows))
        before = self.store.sequence
        if rows:
            self.files.mark(Begun(commit))
        self.files.fail(None, nth, forever=True)
        with contextlib.suppress(OSError, cesium.Error):
            call()
        self.seen["died in the midst"] += self.files.failed > 0
        if self.store.sequence > before:
            commit.sequence = self.store.sequence
            self.history.eras[-1].commits.append(commit)
        self.store._engine.core_engine.poisoned = OSError("the process was killed")
        with contextlib.suppress(OSError, cesium.Error):
            self.store.close()
        self.files.failed = 0
        self.files.fail(None, 0)
        self.open()

    def _fails(self, call: Callable[[], Any], kind: str, nth: int) -> None:
        self.files.fail(kind, nth)
        with contextlib.suppress(OSError, cesium.Error):
            call()
            self.seen["a failure was no failure"] += 1
        self.seen["failed call"] += self.files.failed
        self.files.failed = 0
        self.files.fail(kind, 0)

    def _level(self, durability: str | None) -> str:
        return max(durability or "none", self.options.durability, key=DURABILITIES.index)

    def put(self, key: Any, value: Any, durability: str | None = None) -> None:
        self.commit(
            lambda rows: rows.update({key: value}),
            lambda: self.store.put(key, value, durability=durability),
            self._level(durability),
        )

    def delete(self, key: Any, durability: str | None = None) -> None:
        self.commit(
            lambda rows: rows.pop(key, None) and None,
            lambda: self.store.delete(key, durability=durability),
            self._level(durability),
        )

    def put_many(self, rows: Rows, durability: str | None = None) -> None:
        self.commit(
            lambda state: state.update(rows),
            lambda: self.store.put_many(list(rows), list(rows.values()), durability=durability),
            self._level(durability),
        )

    def delete_many(self, keys: Iterable[Any], durability: str | None = None) -> None:
        gone = list(keys)

        def apply(rows: Rows) -> None:
            for key in gone:
                rows.pop(key, None)

        self.commit(
            apply,
            lambda: self.store.delete_many(gone, durability=durability),
            self._level(durability),
        )

    def delete_range(self, lo: Any, hi: Any, durability: str | None = None) -> None:
        def apply(rows: Rows) -> None:
            for key in list(rows):
                if (lo is None or lo <= key) and (hi is None or key < hi):
                    del rows[key]

        self.commit(
            apply,
            lambda: self.store.delete_range(lo, hi, durability=durability),
            self._level(durability),
        )

    def transaction(
        self,
        rows: Rows,
        deleted: Iterable[Any],
        interval: tuple[Any, Any],
        durability: str | None = None,
    ) -> None:
        """A range-delete, deletes and puts in one commit, part of them behind a savepoint."""
        gone = list(deleted)

        def apply(state: Rows) -> None:
            for key in [*state]:
                if interval[0] <= key < interval[1]:
                    del state[key]
            for key in gone:
                state.pop(key, None)
            state.update(rows)

        def call() -> cesium.Commit:
            with self.store.transaction(self.rng.random() < 0.5, durability) as transaction:
                transaction.delete_range(*interval)
                with transaction.savepoint():
                    transaction.delete_many(gone)
                    transaction.update(rows)
            assert transaction.committed is not None
            return transaction.committed

        self.commit(apply, call, self._level(durability))

    def bulk_load(self, rows: Rows) -> None:
        self.commit(
            lambda state: state.update(rows),
            lambda: self.store.bulk_load(list(rows), list(rows.values()), threads=1),
            "sync",
        )

    # -- tables

    def table(self, name: str) -> Any:
        """A table of the store, made if it is not there; "": the store."""
        if not name:
            return self.store
        table = self.store.table(name, key="u8", value="f8")
        table.core.memtable_limit_bytes = MEMTABLE_BYTES
        return table

    def put_into(self, name: str, rows: Rows) -> None:
        first = TABLES.get(name, 0)
        table = self.table(name)
        self.commit(
            lambda state: state.update((first + key, rows[key]) for key in rows),
            lambda: table.put_many(list(rows), list(rows.values())),
            self.options.durability,
        )

    def load_into(self, name: str, rows: Rows) -> None:
        first = TABLES.get(name, 0)
        table = self.table(name)
        self.commit(
            lambda state: state.update((first + key, rows[key]) for key in rows),
            lambda: table.bulk_load(list(rows), list(rows.values()), threads=1),
            "sync",
        )

    def across(self, rows: dict[str, Rows]) -> None:
        """One transaction over tables."""
        for name in rows:
            self.table(name)

        def apply(state: Rows) -> None:
            for name, some in rows.items():
                state.update((TABLES.get(name, 0) + key, some[key]) for key in some)

        def call() -> cesium.Commit:
            with self.store.transaction(self.rng.random() < 0.5) as transaction:
                for name, some in rows.items():
                    (transaction.table(name) if name else transaction).update(some)
            assert transaction.committed is not None
            return transaction.committed

        self.commit(apply, call, self.options.durability)

    def empty_and_drop(self, name: str) -> None:
        """Empties a table by a commit, for a drop is none, and drops it."""
        first = TABLES[name]
        table = self.table(name)

        def apply(state: Rows) -> None:
            for key in [*state]:
                if first <= key < first + 1000:
                    del state[key]

        self.commit(apply, table.clear, self.options.durability)
        self.store.drop_table(name)
        self.seen["table dropped"] += 1

    # -- what makes commits durable

    def sync(self) -> None:
        sequence = self.store.sequence
        self.store.sync()
        self.files.mark(Durable(sequence))

    def checkpoint(self) -> None:
        sequence = self.store.sequence
        self.store.checkpoint()
        self.files.mark(Durable(sequence))

    def name(self, name: str, dies_at: int = 0) -> None:
        """Names a checkpoint; dies_at: the process is killed at that call to the system."""
        sequence = self.store.sequence
        self.files.mark(Naming(name, sequence))
        if dies_at:
            self.dies(lambda: self.store.checkpoint(name), dies_at)
        else:
            self.store.checkpoint(name)
            self.files.mark(Durable(sequence))
        if name in self.names:
            self.files.mark(Named(name))

    def drop(self, name: str, dies_at: int = 0) -> None:
        """Drops a named checkpoint; dies_at: as above."""
        self.files.mark(Dropping(name))
        if dies_at:
            self.dies(lambda: self.store.drop_checkpoint(name), dies_at)
        else:
            self.store.drop_checkpoint(name)
        self.files.mark(Named(name) if name in self.names else Dropped(name))
        self.seen["checkpoint dropped"] += name not in self.names

    @property
    def names(self) -> list[str]:
        """Of the checkpoints that are there."""
        return [each.name for each in self.store.checkpoints()]

    def compact(self) -> None:
        sequence = self.store.sequence
        self.store.compact()
        self.files.mark(Durable(sequence))

    def sync_in_the_background(self) -> None:
        """What the thread of level interval does when it is due; says nothing to anybody."""
        engine = self.store._engine
        engine.core_engine.sync_scheduled = False
        sync(engine)

    def claim(self) -> None:
        """Takes the store at its word."""
        self.files.mark(Durable(self.store.durable_sequence))
