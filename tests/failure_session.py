"""One run of a workload on files that fail, checked against a model after every step.

A `Session` is what a workload drives: `open`, `write`, `keep` (maintenance), `read`, `close`.  Each
step may fail only with an error of the right class that names a file; what it left must be what the
rules say (docs/durability.md): a write that raised changed nothing, unless its commit was made and
could not be synced, which poisons the handle.  After a single failure a handle that is not poisoned
does the same step again, and must succeed.  `finish` heals the files, goes on writing where that
must be possible, closes, and opens what is there with sound files.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import cesium
from cesium.files import Files
from cesium.named import named_records
from cesium.opening import acquire
from cesium.options import Options
from cesium.store import Store
from failing_files import FailingFiles

Model = dict[Any, Any]
Change = Callable[[Model], Any]


class QuickFiles(Files):
    """Sound files; nothing here crashes, so nothing needs to wait for the drive."""

    def sync_data(self, fd: int, path: str | None = None) -> None: ...

    def sync_file(self, fd: int, path: str) -> None: ...

    def sync_directory(self) -> None: ...


def resources(directory: Path) -> tuple[int, int, int]:
    """How many descriptors and threads this process has, and mappings below `directory`."""
    with open("/proc/self/maps", "rb") as maps:
        mapped = maps.read().count(os.fsencode(directory))
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), mapped


def is_named(error: BaseException, directory: str) -> bool:
    """Whether the error, or the one that it wraps, says which file it is about."""
    return isinstance(getattr(error, "filename", None), str) or directory in str(error)


class Session:
    """See the module.  key, value: the schema; `forever`: whether failures go on, once begun."""

    def __init__(
        self, path: Path, files: FailingFiles, model: Model, options: dict[str, Any], forever: bool
    ) -> None:
        self.path = path
        self.files = files
        self.options = options
        self.forever = forever
        self.model = dict(model)  # what is visible
        self.states: dict[int, Model] = {}  # by sequence
        self.acknowledged = 0  # the last sequence that a call returned, at the level "sync"
        self.store: Store | None = None
        self.poisoned = False
        self.was_poisoned = False
        self.refused = 0  # steps that raised
        self.memtable_bytes = 0  # tiny memtables, where asked for
        self.named: dict[str, Model] = {}  # checkpoints, by name, as far as the store knows

    # -- what workloads call

    def open(self, flag: str = "c", **more: Any) -> None:
        """Opens the store; a failure leaves nothing open, and the next try succeeds."""
        assert self.store is None
        try:
            self.store = self._open(flag, more)
        except cesium.Error as error:
            self._expect(error)
        except OSError as error:
            self._expect(error)
        if self.store is None:
            if self.forever:
                self.files.heal()
            self.store = self._open(flag, more)
        self.poisoned = False
        if self.store.sequence not in self.states:
            self.states[self.store.sequence] = dict(self.model)
        self.check("after opening")

    def _open(self, flag: str, more: dict[str, Any]) -> Store:
        options = Options(**{**self.options, "flag": flag, **more})
        store = Store(acquire(self.path, options, 0, self.files), options)
        if self.memtable_bytes:
            store.core.memtable_limit_bytes = self.memtable_bytes
        return store

    def write(self, call: Callable[[Store], Any], change: Change) -> None:
        """A commit; `change` does to a dict what it does to the store."""
        self._step(call, change)

    def keep(self, call: Callable[[Store], Any]) -> None:
        """What changes no row: checkpoint, compact, sync."""
        self._step(call, lambda model: None)

    def keep_name(self, name: str, call: Callable[[Store], Any]) -> None:
        """Names or drops a checkpoint: done, or not done at all."""
        assert self.store is not None
        before = name in self.names()
        self._step(call, lambda model: None, lambda: (name in self.names()) != before)
        if name in self.names():
            self.named.setdefault(name, dict(self.model))
        else:
            self.named.pop(name, None)

    def names(self) -> list[str]:
        """Of the checkpoints that the open store knows."""
        assert self.store is not None
        return [each.name for each in self.store.checkpoints()]

    def read(self, call: Callable[[Store], Any], expected: Callable[[Model], Any]) -> None:
        """A read: it raises the drive's error, or gives the right answer."""
        assert self.store is not None
        for attempt in (1, 2):
            try:
                found = call(self.store)
            except (OSError, cesium.Error) as error:
                self._expect(error)
                if self.forever:
                    return
                assert attempt == 1, "it failed twice"
            else:
                assert found == expected(self.model)
                return

    def scrub(self) -> None:
        """Verifies: what cannot be read, at a second try either, is an error or in the report."""
        assert self.store is not None
        failed = self.files.failed
        try:
            report = self.store.verify()
        except OSError as error:
            self._expect(error)
            return
        assert report.ok or self.files.failed > failed, report
        assert not (report.ok and self.forever and self.files.failed > failed), report

    def close(self) -> None:
        """Closes; whatever that meets, the lock is free and the descriptors are closed."""
        assert self.store is not None
        store, self.store = self.store, None
        try:
            store.close()
        except (OSError, cesium.Error) as error:
            self._expect(error)
        assert store.closed
        store.close()  # does nothing

    # -- one step

    def _step(
        self,
        call: Callable[[Store], Any],
        change: Change,
        is_done: Callable[[], bool] = lambda: False,
    ) -> None:
        assert self.store is not None
        before = self.store.sequence
        if self._attempt(call, change) or self.forever or self.poisoned or is_done():
            return
        assert self.store.sequence == before
        assert self._attempt(call, change), "what failed once failed again"

    def _attempt(self, call: Callable[[Store], Any], change: Change) -> bool:
        store = self.store
        assert store is not None
        before = store.sequence
        failures = self.files.failed
        try:
            call(store)
        except (OSError, cesium.Error) as error:
            self.refused += 1
            poisoned = store._engine.core_engine.poisoned is not None
            if self.poisoned:
                assert isinstance(error, cesium.PoisonedError), error
                assert store.sequence == before, "a poisoned handle wrote"
            else:
                assert self.files.failed > failures, "an error without a failure"
                self._expect(error)
            self.poisoned = poisoned
            self.was_poisoned |= poisoned
            assert self.forever or poisoned == self._must_poison(), f"poisoned: {poisoned}"
            if store.sequence != before:
                assert isinstance(error, cesium.PoisonedError), error
                self._commit(change)
                assert store.durable_sequence < store.sequence
            self.check(f"after {error!r}")
            return False
        assert not self.poisoned, "a poisoned handle did as it was asked"
        self.poisoned = store._engine.core_engine.poisoned is not None
        self.was_poisoned |= self.poisoned
        if store.sequence != before:
            self._commit(change)
            self.acknowledged = store.sequence
        if self.files.failed > failures:
            self.check("after a failure that was not told")
        return True

    def _must_poison(self) -> bool:
        """Whether the one failure left something of which nobody knows what is on the drive."""
        kind, name = self.files.failures[-1]
        if kind == "sync":
            return name.startswith(("journal-", "manifest-"))
        if kind == "write":
            appended = name.startswith("manifest-") and not name.endswith(".new")
            return appended and self.files.error_number != errno.ENOSPC
        if kind == "rename":
            return name.startswith("manifest-")
        # Of the directory: after the rename of a manifest.
        return kind == "sync_directory" and self.files.after_rename.startswith("manifest-")

    def _commit(self, change: Change) -> None:
        assert self.store is not None
        assert self.store.sequence == max(self.states) + 1
        change(self.model)
        self.states[self.store.sequence] = dict(self.model)

    def _expect(self, error: BaseException) -> None:
        """The error is one that the failure explains, and names the file."""
        number = self.files.error_number
        assert self.files.failed, error
        assert is_named(error, str(self.path)), f"{error!r} names no file"
        if isinstance(error, cesium.PoisonedError):
            assert error.__cause__ is not None
            assert is_named(error.__cause__, str(self.path)), f"{error.__cause__!r} names no file"
        elif number == errno.ENOSPC:
            assert isinstance(error, cesium.StorageFullError), repr(error)
        else:
            assert isinstance(error, OSError) and not isinstance(error, cesium.Error), repr(error)
            assert error.errno == number, repr(error)

    def check(self, when: str) -> None:
        """Reads go on, and their answers are right, whatever happened to the writes."""
        store = self.store
        assert store is not None
        while True:
            try:
                assert contents(store) == self.model, f"wrong rows {when}"
                for key in list(self.model)[:3]:
                    assert same(store[key], self.model[key]), f"a wrong value {when}"
                break
            except OSError as error:  # pages and files that are read for the first time
                self._expect(error)
                if self.forever:
                    break
        assert store.durable_sequence <= store.sequence

    # -- the end

    def finish(self) -> None:
        """Heals the files and sees what is left: see the module."""
        self.files.heal()
        failed = self.files.failed
        if self.store is None:
            self.store = self._open("c", {})
            self.poisoned = False
        store = self.store
        self.check("in the end")
        key = next(iter(self.model), 0)
        if self.poisoned:
            with contextlib.suppress(cesium.PoisonedError):
                store.delete(key)
                raise AssertionError("a poisoned handle took a write")
        else:
            self.write(lambda store: store.delete(key), lambda model: model.pop(key, None))
            self.keep(lambda store: store.checkpoint())
        self.check("after healing")
        copy = self.path.with_name("copy")
        shutil.copytree(self.path, copy)
        self._check_reopened(copy)  # as a killed process leaves it
        self.store = None
        store.close()
        assert self.files.failed == failed
        del store
        self._check_reopened(self.path)

    def _check_reopened(self, path: Path) -> None:
        """All that was acknowledged, nothing that never was, nothing damaged, nothing left over."""
        options = Options(**{**self.options, "flag": "w"})
        store = Store(acquire(path, options, 0, QuickFiles(path)), options)
        try:
            assert store.sequence >= self.acknowledged, "an acknowledged commit is gone"
            assert contents(store) == self.states[store.sequence], "a state that never was"
            report = store.verify()
            assert report.ok, report.problems
            store.delete(next(iter(self.model), 0))
            self._check_names(path, store)
            records = [reader.record for reader in store._engine.segments()]
            records += named_records(store._engine.manifest.state)
            live = {f"segment-{record.id:010d}" for record in records}
            live |= {f"blob-{share.id:010d}" for record in records for share in record.blobs}
            live |= {f"journal-{file.number:06d}" for file in store._engine.journal.files}
            live |= {f"manifest-{store._engine.manifest.number:06d}", "LOCK"}
            left = set(os.listdir(path)) - live
            assert not left, f"left over: {left}"
            assert live <= set(os.listdir(path)) | {"LOCK"}
        finally:
            store.close()
        shutil.rmtree(path)

    def _check_names(self, path: Path, store: Store) -> None:
        """The checkpoints of the store hold what they held; a poisoned one may have one more."""
        found = [each.name for each in store.checkpoints()]
        assert self.was_poisoned or set(found) == set(self.named)
        for name in found:
            options = Options(**{**self.options, "flag": "r", "at": name})
            with Store(acquire(path, options, 0, QuickFiles(path)), options) as then:
                assert then.verify().ok
                if name in self.named:
                    assert contents(then) == self.named[name], f"wrong rows at {name!r}"


def same(found: Any, expected: Any) -> bool:
    return bool(np.all(found == expected))


def contents(store: Store) -> Model:
    """All rows of a store, read in one go."""
    return dict(store.items())


def settled(directory: Path, before: tuple[int, int, int]) -> tuple[int, int, int]:
    """The resources now, once what only awaits collection is collected."""
    now = resources(directory)
    if now != before:
        gc.collect()
        for thread in threading.enumerate():
            if thread.name.startswith("cesium"):
                thread.join(10)
        now = resources(directory)
    return now
