"""The durability levels: when a write waits, what a kill or a power cut leaves, what a call raises.

A copy of the files while the store is open is what a killed process leaves.  `SyncedFiles` shows
what was handed to the drive: it counts syncs, and lets a test wait for one.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium import options as limits
from cesium import syncing
from cesium.engine import StoreEngine
from cesium.errors import PoisonedError
from cesium.journal import Journal
from cesium.merging import SMALL_RUN_MOST
from cesium.opening import acquire
from cesium.tiers import RUNS_MOST
from failing_files import FailingFiles

LEVELS = ("none", "process", "interval", "sync")
PATIENCE_SECONDS = 60


class SyncedFiles(FailingFiles):
    """Tells of each sync of the journal, when it has ended, and what was there when it began."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.synced = threading.Semaphore(0)
        self.sequence_of: Callable[[], int] = lambda: 0
        self.covered = 0

    def sync_data(self, fd: int, path: str | None = None) -> None:
        sequence = self.sequence_of()
        try:
            super().sync_data(fd, path)
            self.covered = sequence
        finally:
            self.synced.release()


def opened(path: Path, durability: str, files: Any = None, **more: Any) -> cesium.Store:
    options = cesium.Options(**{"key": "u8", "value": "f8", "durability": durability, **more})
    return cesium.Store(acquire(path, options, 0, files), options)


def killed(path: Path, copy: Path) -> dict[int, float]:
    """What the store holds that a kill of the process now would leave."""
    shutil.copytree(path, copy)
    with cesium.open(copy, flag="r") as store:
        return dict(store.items())


@pytest.mark.parametrize("durability", LEVELS)
def test_what_a_kill_leaves(tmp_path: Path, durability: str) -> None:
    store = opened(tmp_path / "s", durability)
    store.put(1, 1.0)
    commit = store.put_many([2, 3], [2.0, 3.0])
    assert commit.durability == durability and commit.sequence == 2 and commit.rows == 2
    store.delete_range(3, 4)
    everything = {1: 1.0, 2: 2.0}
    assert dict(store.items()) == everything
    left = killed(tmp_path / "s", tmp_path / "copy")
    assert left == ({} if durability == "none" else everything)
    assert store.durable_sequence == (3 if durability == "sync" else 0) or durability == "interval"
    store.checkpoint()
    assert store.durable_sequence == 3
    assert killed(tmp_path / "s", tmp_path / "later") == everything
    store[4] = 4.0
    store.close()
    with opened(tmp_path / "s", durability) as again:
        assert dict(again.items()) == {**everything, 4: 4.0} and again.sequence == 4


WRITES = {
    "put": lambda s, **d: s.put(7, 7.0, **d),
    "delete": lambda s, **d: s.delete(1, **d),
    "put_many": lambda s, **d: s.put_many([7, 8], [7.0, 8.0], **d),
    "delete_many": lambda s, **d: s.delete_many([1], **d),
    "delete_range": lambda s, **d: s.delete_range(0, 2, **d),
    "a batch that goes out as a load": lambda s, **d: s.put_many(
        np.arange(1 << 20), np.zeros(1 << 20), **d
    ),
}


@pytest.mark.parametrize("write", list(WRITES))
@pytest.mark.parametrize("level", list(itertools.combinations_with_replacement(LEVELS, 2)))
def test_a_call_raises_the_level_for_all_before_it(
    tmp_path: Path, level: tuple[str, str], write: str
) -> None:
    own, asked = level
    store = opened(tmp_path / "s", own)
    store.put(1, 1.0)
    store.put(2, 2.0)
    answer = WRITES[write](store, durability=asked)
    if not isinstance(answer, int):
        # A load is always synced.
        assert answer.durability == ("sync" if "load" in write else asked)
    if asked == "sync" or "load" in write:
        assert store.durable_sequence == 3
    expected = dict(store.items())
    left = killed(tmp_path / "s", tmp_path / "copy")
    assert left == ({} if asked == "none" and "load" not in write else expected)
    store.close()


@pytest.mark.parametrize("write", list(WRITES))
def test_a_call_never_lowers_the_level(tmp_path: Path, write: str) -> None:
    with opened(tmp_path / "s", "sync") as store:
        store.put(1, 1.0)
        for asked in LEVELS:
            answer = WRITES[write](store, durability=asked)
            assert isinstance(answer, int) or answer.durability == "sync"
            assert store.durable_sequence == store.sequence


def test_wrong_levels_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'sync', 'interval', 'process', 'none', not 'always'"):
        cesium.open(tmp_path / "s", "u8", "f8", durability="always")
    with cesium.open(tmp_path / "s", "u8", "f8") as store:
        for write in WRITES.values():
            with pytest.raises(ValueError, match="'none', not 'fsync'"):
                write(store, durability="fsync")
        assert len(store) == 0 and store.sequence == 0


# --- interval


def test_interval_syncs_soon_and_then_rests(tmp_path: Path) -> None:
    files = SyncedFiles(tmp_path / "s")
    store = opened(tmp_path / "s", "interval", files)
    for number in range(1, 4):
        before = files.calls["sync"]
        store.put(number, 1.0)
        store.put(number + 100, 1.0)
        assert files.synced.acquire(timeout=PATIENCE_SECONDS)
        assert files.calls["sync"] - before == 1, "two commits, one sync"
    engine = store._engine
    store.close()
    assert engine.interval_sync._thread is not None and not engine.interval_sync._thread.is_alive()


def test_interval_gets_to_the_last_commit(tmp_path: Path) -> None:
    """Whatever the moment of a commit: before, in or after a sync of the thread."""
    files = SyncedFiles(tmp_path / "s")
    store = opened(tmp_path / "s", "interval", files)
    files.sequence_of = lambda: store.sequence
    for number in range(20_000):
        store.put(number, 1.0)
    while files.covered < 20_000:
        assert files.synced.acquire(timeout=PATIENCE_SECONDS)
    store._engine.interval_sync.stop()
    assert store.durable_sequence == 20_000
    store.close()


def test_a_failed_sync_in_the_background_poisons(tmp_path: Path) -> None:
    files = SyncedFiles(tmp_path / "s")
    store = opened(tmp_path / "s", "interval", files)
    store.put(1, 1.0)
    assert files.synced.acquire(timeout=PATIENCE_SECONDS)
    files.fail("sync", 1, errno.EIO, forever=True)
    store.put(2, 2.0)
    assert files.synced.acquire(timeout=PATIENCE_SECONDS)
    store._engine.interval_sync.stop()  # returns when the failure was noted
    with pytest.raises(PoisonedError, match="Input/output error"):
        store.put(3, 3.0)
    assert store.durable_sequence == 1 and dict(store.items()) == {1: 1.0, 2: 2.0}
    store.close()


def test_a_level_raised_to_interval_starts_the_thread(tmp_path: Path) -> None:
    files = SyncedFiles(tmp_path / "s")
    with opened(tmp_path / "s", "process", files) as store:
        store.put(1, 1.0)
        assert files.calls["sync"] == 0 and store._engine.interval_sync._thread is None
        store.put(2, 2.0, durability="interval")
        assert files.synced.acquire(timeout=PATIENCE_SECONDS)
        store._engine.interval_sync.stop()
        assert store.durable_sequence == 2


def test_the_thread_keeps_no_engine_alive(tmp_path: Path) -> None:
    store = opened(tmp_path / "s", "interval")
    store.put(1, 1.0)
    thread = store._engine.interval_sync._thread
    engine = weakref.ref(store._engine)
    assert thread is not None
    store.close()
    del store
    gc.collect()
    assert engine() is None
    alone = syncing.IntervalSync(StoreEngine(None, cesium.Options("u8", "f8")))
    gc.collect()
    alone.schedule()  # its engine is gone
    assert alone._thread is not None
    alone._thread.join(PATIENCE_SECONDS)
    assert not alone._thread.is_alive()


def test_without_a_thread_to_be_had_the_commit_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    files = SyncedFiles(tmp_path / "s")
    store = opened(tmp_path / "s", "interval", files)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for number in range(1, 4):
            store.put(number, 1.0)
            assert store.durable_sequence == number == files.calls["sync"]
            assert files.synced.acquire(timeout=0)
    store.put(4, 1.0)  # now there is one
    assert files.synced.acquire(timeout=PATIENCE_SECONDS)
    store._engine.interval_sync.stop()
    assert store.durable_sequence == 4
    store.close()


def test_an_interrupted_commit_leaves_the_next_one_to_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(sync: syncing.IntervalSync) -> None:
        raise KeyboardInterrupt

    files = SyncedFiles(tmp_path / "s")
    store = opened(tmp_path / "s", "interval", files)
    with monkeypatch.context() as patch:
        patch.setattr(syncing.IntervalSync, "schedule", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.put(1, 1.0)
    store.put(2, 1.0)
    assert files.synced.acquire(timeout=PATIENCE_SECONDS)
    store._engine.interval_sync.stop()
    assert store.durable_sequence == 2
    store.close()


def test_a_signal_handler_may_close_the_store_in_its_first_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SIGTERM's handler does, at the worst moment: while the thread is being started."""
    store = opened(tmp_path / "s", "interval", background=False)
    start = threading.Thread.start

    def start_and_close(thread: threading.Thread) -> None:
        start(thread)
        monkeypatch.undo()
        store.close()

    monkeypatch.setattr(threading.Thread, "start", start_and_close)
    store.put(1, 1.0)
    assert store.closed
    thread = store._engine.interval_sync._thread
    assert thread is not None
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    with opened(tmp_path / "s", "sync") as again:
        assert dict(again.items()) == {1: 1.0}


def test_closing_tells_of_a_sync_that_failed_unseen(tmp_path: Path) -> None:
    for written_again in (False, True):
        files = SyncedFiles(tmp_path / f"s{written_again}")
        store = opened(tmp_path / f"s{written_again}", "interval", files)
        files.fail("sync", 1, errno.EIO, forever=True)
        store.put(1, 1.0)
        assert files.synced.acquire(timeout=PATIENCE_SECONDS)
        store._engine.interval_sync.stop()
        if written_again:
            with pytest.raises(PoisonedError):
                store.put(2, 2.0)
            store.close()
        else:
            with pytest.raises(PoisonedError, match=r"after 0 .* Input/output error"):
                store.close()
        assert store.closed and store._engine.lock is not None and not store._engine.lock.held


# --- none


def test_none_writes_no_journal_and_flushes_when_full(tmp_path: Path) -> None:
    store = opened(tmp_path / "s", "none", memory_limit="1MiB", background=False)
    keys = np.arange(2_000)
    for part in range(30):
        store.put_many(keys + part * 2_000, np.full(2_000, float(part)))
    assert not list((tmp_path / "s").glob("journal-*"))
    stats = store.stats()
    assert stats.segments and 0 < stats.durable_sequence < 30, "a full memtable is a checkpoint"
    left = killed(tmp_path / "s", tmp_path / "copy")
    assert len(left) == stats.durable_sequence * 2_000, "whole commits, the first ones"
    assert max(left) == stats.durable_sequence * 2_000 - 1
    store.sync()
    assert store.durable_sequence == 30
    assert len(killed(tmp_path / "s", tmp_path / "later")) == 60_000
    store.close()


def test_none_after_a_crash_of_another_level(tmp_path: Path) -> None:
    store = opened(tmp_path / "s", "process")
    store.put(1, 1.0)
    shutil.copytree(tmp_path / "s", tmp_path / "copy")
    store.close()
    (tmp_path / "copy" / "segment-0000000099").write_bytes(b"orphan")
    store = opened(tmp_path / "copy", "none")
    assert dict(store.items()) == {1: 1.0}
    store.put(2, 2.0)
    assert killed(tmp_path / "copy", tmp_path / "again") == {1: 1.0}
    store.checkpoint()
    assert not list((tmp_path / "copy").glob("journal-*"))
    assert not (tmp_path / "copy" / "segment-0000000099").exists()
    store.close()
    with opened(tmp_path / "copy", "sync") as again:
        again.put(3, 3.0)
        assert dict(again.items()) == {1: 1.0, 2: 2.0, 3: 3.0}


# --- the journal's length


def test_the_journal_has_a_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same key again and again leaves the memtable small."""
    monkeypatch.setattr(limits, "JOURNAL_BYTES_LEAST", 3 << 20)
    longest = 0
    with opened(tmp_path / "s", "process", memory_limit="1MiB", background=False) as store:
        for number in range(200_000):
            store.put(1, float(number))
            if number % 1000 == 0:
                longest = max(longest, store.stats().journal_bytes)
        assert store.stats().memtable_entries <= 1
        assert 3 << 20 < longest <= (3 + 16) << 20, "the cap, and the file that began then"
        assert store.durable_sequence > 0


def test_what_follows_a_hole_goes_before_what_is_before_it(tmp_path: Path) -> None:
    """A checkpoint right after a recovery must not leave a file whose predecessor it removes."""
    path = tmp_path / "s"
    store = opened(path, "process")
    for number in range(40_000):  # more than the first file of 1 MiB holds
        store.put(number, 1.0)
    journals = sorted(path.glob("journal-*"))
    assert len(journals) == 2
    shutil.copytree(path, tmp_path / "copy")
    store.close()
    first = tmp_path / "copy" / journals[0].name
    data = bytearray(first.read_bytes())
    data[500_000:504_096] = bytes(4096)  # a page that never reached the drive
    first.write_bytes(data)
    with opened(tmp_path / "copy", "process") as store:
        count = len(store)
        assert 0 < count < 20_000
        assert len(Journal(store._engine.files, store._engine.manifest.state.store_uuid)._names) > 2
        store.checkpoint()
        assert not list((tmp_path / "copy").glob("journal-*"))
    with opened(tmp_path / "copy", "process") as again:
        assert len(again) == count and again.verify().ok


# --- what an interrupt or a failure in the midst leaves


class Interrupted(FailingFiles):
    """Raises KeyboardInterrupt when, once armed, the Nth call that drops a journal has ended."""

    armed = False

    def unlink(self, name: str) -> None:
        super().unlink(name)
        if self.armed and name.startswith("journal-"):
            self.armed = False
            raise KeyboardInterrupt


def test_a_commit_after_an_interrupted_checkpoint_is_not_lost(tmp_path: Path) -> None:
    files = Interrupted(tmp_path / "s")
    store = opened(tmp_path / "s", "sync", files)
    store.put(1, 1.0)
    files.armed = True
    with pytest.raises(KeyboardInterrupt):
        store.checkpoint()
    for number in range(2, 6):
        store.put(number, 1.0)
    assert store.durable_sequence == 5
    assert sorted(killed(tmp_path / "s", tmp_path / "copy")) == [1, 2, 3, 4, 5]
    store.close()


def test_a_commit_after_an_unlink_that_failed_is_not_lost(tmp_path: Path) -> None:
    files = FailingFiles(tmp_path / "s")
    store = opened(tmp_path / "s", "sync", files)
    store.put(1, 1.0)
    files.fail("unlink", 1)
    with contextlib.suppress(OSError):
        store.checkpoint()
    assert files.failed == 1
    for number in range(2, 15_000):  # into the next file
        store.put(number, 1.0, durability="process" if number % 1000 else "sync")
    assert len(killed(tmp_path / "s", tmp_path / "copy")) == 14_999
    store.close()


@pytest.mark.parametrize("durability", LEVELS)
def test_an_empty_batch_reaches_its_level_for_what_came_before(
    tmp_path: Path, durability: str
) -> None:
    empty = {
        "put_many": lambda s: s.put_many([], [], durability="sync"),
        "delete_many": lambda s: s.delete_many([], durability="sync"),
        "bulk_load": lambda s: s.bulk_load([], []),
    }
    for name, call in empty.items():
        with opened(tmp_path / name, durability) as store:
            store.put(1, 1.0)
            assert call(store) == (1, "sync", 0) and store.durable_sequence == 1, name


def test_checkpoints_one_after_the_other_do_not_pile_up_segments(tmp_path: Path) -> None:
    for durability in ("none", "process"):
        for background, most in ((False, 13), (True, RUNS_MOST + SMALL_RUN_MOST)):
            path = tmp_path / f"{durability}-{background}"
            with opened(path, durability, background=background) as store:
                for number in range(60):
                    store.put(number % 7, float(number), durability="sync")
                    store.checkpoint()
                assert store.stats().segments <= most and len(store) == 7


@pytest.mark.parametrize("kind", ["create", "write", "sync_directory"])
def test_a_load_at_none_on_a_full_drive_is_whole_or_nothing(tmp_path: Path, kind: str) -> None:
    for nth in itertools.count(1):
        path = tmp_path / str(nth)
        files = FailingFiles(path)
        store = opened(path, "none", files)
        store.put(1, 1.0)
        files.fail(kind, nth, errno.ENOSPC)
        try:
            store.bulk_load([2, 3], [2.0, 3.0])
        except OSError:
            assert dict(store.items()) in ({1: 1.0}, {1: 1.0, 2: 2.0, 3: 3.0})
        files.fail(kind, 0)  # there is room again
        if store._engine.core_engine.poisoned is None:
            store.bulk_load([2, 3], [2.0, 3.0])
            assert len(killed(path, tmp_path / f"copy{nth}")) == 3
        with contextlib.suppress(PoisonedError):
            store.close()
        if not files.failed:
            break
    assert nth > 1
