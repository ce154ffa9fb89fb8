"""What single failures leave of a store; tests/crash/test_failure_loops.py tries them all."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from pathlib import Path

import pytest

import cesium
from cesium import checkpoint
from cesium.directory import segment_name
from cesium.maintenance import FROZEN_MOST
from cesium.opening import acquire
from cesium.options import Options
from cesium.store import Store
from cesium.tiers import RUNS_DUE
from failing_files import FailingFiles

pytestmark = pytest.mark.usefixtures("foreground")

ROW = b"v" * 1000


class RefusingFiles(FailingFiles):
    """Fails whatever a test names: (kind, beginning of the file's name)."""

    refused: tuple[tuple[str, str], ...] = ()
    number = errno.ENOSPC

    def _called(self, kind: str, path: str | None = None, fd: int = -1) -> None:
        super()._called(kind, path, fd)
        if any(kind == k and Path(path or "").name.startswith(n) for k, n in self.refused):
            self.error_number = self.number
            self._raise(kind, path)


def opened(path: Path, **options: object) -> tuple[Store, RefusingFiles]:
    files = RefusingFiles(path)
    chosen = Options("u8", "bytes", **options)  # type: ignore[arg-type]
    return Store(acquire(path, chosen, 0, files), chosen), files


def test_nothing_is_appended_behind_the_end_that_a_new_journal_file_recorded(
    tmp_path: Path,
) -> None:
    """The new file could neither be published nor removed; it counts when the store is opened."""
    path = tmp_path / "store"
    store, files = opened(path, durability="process")
    store[1] = ROW
    files.refused = (("sync_directory", ""), ("unlink", "journal-000002"))
    with pytest.raises(cesium.StorageFullError):
        store[2] = bytes(2 << 20)  # does not fit into the first file
    acknowledged = {1: ROW}
    for key in (3, 4):
        with contextlib.suppress(cesium.StorageFullError):
            store[key] = ROW
            acknowledged[key] = ROW
    shutil.copytree(path, tmp_path / "killed")
    with cesium.open(tmp_path / "killed") as killed:
        assert dict(killed.items()) == acknowledged
    files.refused = ()
    store[5] = ROW
    assert dict(store.items()) == acknowledged | {5: ROW}
    store.close()


def test_replayed_commits_that_could_not_be_synced_poison(tmp_path: Path) -> None:
    """A second try would succeed: the kernel tells of a failed write back only once."""
    living = tmp_path / "living"
    with cesium.open(living, "u8", "bytes", durability="process") as store:
        store[1] = ROW
        shutil.copytree(living, tmp_path / "killed")
    store, files = opened(tmp_path / "killed")
    files.fail("sync", 1)
    for _ in range(2):
        with pytest.raises(cesium.PoisonedError, match="journal-000001"):
            store[2] = ROW
    assert store.durable_sequence == 0 and dict(store.items()) == {1: ROW}
    store.close()


def overlapping(store: Store, sources: int) -> None:
    for turn in range(sources):
        store.put_many(range(turn, 100, 3), [ROW] * len(range(turn, 100, 3)))
        store.checkpoint()


def test_a_put_whose_merge_meets_a_damaged_page_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store"
    store = cesium.open(path, "u8", "bytes", memory_limit="1MiB")
    overlapping(store, 6)
    store.close()
    store = cesium.open(path, memory_limit="1MiB")
    while store.stats().newer_sources != RUNS_DUE - 1:
        overlapping(store, 1)
    for name in sorted(path.glob("segment-*")):
        with name.open("r+b") as file:
            file.seek(100)
            file.write(b"damage")
    keys = range(1000, 1200)
    with caplog.at_level(logging.WARNING, "cesium"):
        for key in keys:
            before = store.sequence
            assert store.put(key, ROW) == before + 1
            store.delete(50)  # overlaps everything, so that merges are due
    assert "maintenance failed" in caplog.text
    assert "CorruptionError" in (store.stats().maintenance_failure or "")
    assert all(store[key] == ROW for key in keys)
    with pytest.raises(cesium.CorruptionError):
        store.compact()
    with pytest.raises(cesium.CorruptionError):
        store.close()
    assert store.closed
    with pytest.raises(cesium.CorruptionError), cesium.open(path) as store:
        assert all(store[key] == ROW for key in keys)
        store[1] = ROW
        store.compact()


def test_memtables_wait_for_room_up_to_a_bound(tmp_path: Path) -> None:
    store, files = opened(tmp_path / "store", durability="process")
    store.core.memtable_limit_bytes = 20_000
    files.refused = (("create", "segment-"),)
    written = 0
    with pytest.raises(cesium.StorageFullError, match="segment-"):
        for key in range(10_000):
            store[key] = ROW
            written += 1
    assert written >= 9 * FROZEN_MOST
    assert store.stats().frozen_memtables == FROZEN_MOST
    for _ in range(5):
        before = store.sequence
        with pytest.raises(cesium.StorageFullError, match="segment-"):
            store.put_many([1, 2], [b"", b""])
        assert store.sequence == before, "it was journaled"
    assert "StorageFullError" in (store.stats().maintenance_failure or "")
    assert len(store) == written and store[1] == ROW
    files.refused = ()
    store[written] = ROW
    assert store.stats().frozen_memtables == 0
    assert store.stats().maintenance_failure is None
    store.close()


def test_a_merge_recorded_after_one_that_could_not_be_forgets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest has no room for the edit of the first of two merges that lie apart."""
    path = tmp_path / "store"
    store, _ = opened(path)
    for first in (0, 10_000):
        for turn in range(2):
            store.bulk_load(range(first + turn, first + 100), [ROW] * (100 - turn))
        store.checkpoint()
    rows = dict(store.items())
    append = checkpoint.StoreEngine.append_edit
    tries = 0

    def refuse_the_first(engine: checkpoint.StoreEngine, edit: object) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise cesium.StorageFullError(errno.ENOSPC, "no room", "manifest")
        append(engine, edit)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint.StoreEngine, "append_edit", refuse_the_first)
    monkeypatch.setattr(checkpoint, "checkpoint_held", lambda engine: None)
    monkeypatch.setattr("cesium.maintenance.checkpoint_held", lambda engine: None)
    with pytest.raises(cesium.StorageFullError):
        store.compact()
    store.compact()
    assert tries >= 2
    shutil.copytree(path, tmp_path / "killed")
    monkeypatch.undo()
    with cesium.open(tmp_path / "killed") as killed:
        assert dict(killed.items()) == rows
    store.close()


def test_a_load_that_is_committed_does_not_fail_by_reading_back(tmp_path: Path) -> None:
    store, files = opened(tmp_path / "store")
    files.refused = (("map", "segment-"),)
    assert store.bulk_load([1, 2], [ROW, ROW]).sequence == store.sequence == 1
    assert segment_name(1) in (store.stats().maintenance_failure or "")
    with pytest.raises(cesium.StorageFullError):
        store[1]
    files.refused = ()
    assert store[1] == ROW
    store.close()


def test_journal_files_leave_room_on_a_drive_that_is_nearly_full(tmp_path: Path) -> None:
    store, files = opened(tmp_path / "store", durability="process")
    files.free_bytes = lambda: 4 << 20  # type: ignore[method-assign]
    store[1] = ROW
    assert store.stats().journal_bytes == 512 << 10
    store[2] = bytes(1 << 20)  # what a frame needs, it gets
    assert store.stats().journal_bytes > 1 << 20
    store.close()


def test_what_an_old_iterator_pins_is_not_unlinked_in_a_new_store(tmp_path: Path) -> None:
    """A merged-away segment goes with its last reader, unless its store was closed before."""
    path = tmp_path / "store"
    store = cesium.open(path, "u8", "bytes")
    store.bulk_load(range(100), [ROW] * 100)
    rows = iter(store.items())
    next(rows)
    store[5] = ROW
    store.checkpoint()
    store.compact()
    store.close()
    with cesium.open(path, "u8", "bytes", flag="n") as store:
        store.bulk_load(range(100), [ROW] * 100)
        del rows
        assert (path / segment_name(1)).exists()
    with cesium.open(path) as store:
        assert len(list(store)) == 100
