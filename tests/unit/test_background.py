"""Maintenance by threads of the store's own: flushes, merges, space, pace, failures, closing."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium import background, checkpoint, maintenance, merging, tiers
from cesium.background import Background, Speed
from cesium.opening import acquire
from cesium.segment_output import SegmentOutput
from failing_files import FailingFiles

PATIENCE_SECONDS = 120.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "IDLE_SECONDS", 0.01)


@pytest.fixture
def runs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Even a small store merges above the last tier first, in segments that fit its segments."""
    monkeypatch.setattr(tiers, "DIRECT_BYTES", 0)
    monkeypatch.setattr("cesium.segment_output.CUT_BYTES", 4096)
    for module in ("checkpoint", "loader", "merging"):
        monkeypatch.setattr(f"cesium.{module}.SEGMENT_BYTES", 128 << 10)
    yield


def opened(path: Path, **more: Any) -> cesium.Store:
    options = cesium.Options(**{"key": "u8", "value": "u8", "durability": "process", **more})
    return cesium.open(path, options=options)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it does not happen"


def segment_bytes(path: Path) -> int:
    total = 0
    for file in path.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it goes just now
            total += file.stat().st_size
    return total


class FullFiles(FailingFiles):
    """Makes no segment while `full`."""

    full = False
    number = errno.ENOSPC

    def _called(self, kind: str, path: str | None = None, fd: int = -1) -> None:
        super()._called(kind, path, fd)
        if self.full and kind == "create" and Path(path or "").name.startswith("segment-"):
            self.error_number = self.number
            self._raise(kind, path)


def put_shuffled(store: cesium.Store, rows: int, step: int = 2000) -> dict[int, int]:
    keys = np.random.default_rng(3).permutation(rows).astype("u8")
    for first in range(0, rows, step):
        part = keys[first : first + step]
        store.put_many(part, part + np.uint64(first))
    return {int(key): int(key) + place // step * step for place, key in enumerate(keys)}


# --- flushes and merges ---------------------------------------------------------------------------


def test_memtables_are_written_out_and_merged_without_a_call(tmp_path: Path) -> None:
    store = opened(tmp_path / "s", memory_limit="1MiB")
    rows = put_shuffled(store, 100_000)
    engine = store._engine

    def is_in_order() -> bool:
        stats = store.stats()
        waiting = stats.memtable_entries + stats.frozen_memtables + stats.journal_files
        return waiting == 0 and stats.newer_sources < tiers.RUNS_DUE and not merging.due(engine)

    wait_until(is_in_order)  # idling is seen, too: without a journal all is in segments
    assert dict(store.items()) == rows
    store.close()
    with cesium.open(tmp_path / "s", flag="r") as again:
        assert dict(again.items()) == rows and again.verify().ok


def test_runs_above_the_last_tier_are_whole_after_reopening(
    tmp_path: Path, runs_of_their_own: None
) -> None:
    path = tmp_path / "s"
    expected: dict[int, int] = {}
    with opened(path, background=False) as store:
        store.bulk_load(np.arange(50_000, dtype="u8"), np.zeros(50_000, "u8"))
        expected.update(dict.fromkeys(range(50_000), 0))
        for turn in range(1, tiers.RUNS_DUE + 1):
            keys = np.arange(turn, 50_000, 40 + turn, dtype="u8")
            store.put_many(keys, np.full(len(keys), turn, "u8"))
            expected.update(dict.fromkeys(keys.tolist(), turn))
            store.delete_range(1000 * turn, 1000 * turn + 500)
            store.delete_many(np.arange(30_000 + turn, 30_100 + turn, dtype="u8"))
            for key in [*range(1000 * turn, 1000 * turn + 500)]:
                expected.pop(key, None)
            for key in range(30_000 + turn, 30_100 + turn):
                expected.pop(key, None)
            store.checkpoint()
        records = store._engine.manifest.state.segments.values()
        made = [record for record in records if record.tier == 0 and record.run != record.id]
        assert made, "no run of several segments was made"
        assert any(record.markers and not record.rows for record in records)
        assert dict(store.items()) == expected
        newer = store.stats().newer_sources
    with opened(path) as store:
        assert store.stats().newer_sources <= newer
        assert dict(store.items()) == expected
        assert dict(store.range(reverse=True)) == expected
        keys = np.arange(50_000, dtype="u8")
        _, found = store.get_many(keys)
        assert found.tolist() == [key in expected for key in range(50_000)]
        store.compact()
        assert dict(store.items()) == expected and store.stats().newer_sources == 0


def test_a_segment_that_overlaps_nothing_goes_down_by_an_edit(tmp_path: Path) -> None:
    with opened(tmp_path / "s", background=False) as store:
        store.bulk_load(np.arange(0, 1000, dtype="u8"), np.zeros(1000, "u8"))
        store.put_many(np.arange(500, 600, dtype="u8"), np.ones(100, "u8"))
        store.checkpoint()
        engine = store._engine
        upper = merging.mergeable(engine.main)[0][0]
        with engine.maintained(), merging.WriteGuard(engine.core_engine):
            engine.main.core.publish(
                engine.main.version_of([[upper]], [])
            )  # as if it overlapped nothing
        assert merging.merge_into_base(engine.main, [[upper]])
        assert engine.main.split_sources() == ([], [upper])
        assert engine.manifest.state.segments[upper.record.id].tier == 1
        assert list(store.keys()) == list(range(500, 600))


# --- space ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_range", [False, True])
def test_deleted_rows_give_their_space_back_by_themselves(tmp_path: Path, by_range: bool) -> None:
    keys = np.arange(200_000, dtype="u8")
    with opened(tmp_path / "fresh") as fresh:
        fresh.bulk_load(keys[180_000:], keys[180_000:])
    wanted = 1.3 * segment_bytes(tmp_path / "fresh")
    store = opened(tmp_path / "s")
    store.bulk_load(keys, keys)
    assert segment_bytes(tmp_path / "s") > 5 * wanted
    if by_range:
        store.delete_range(None, 180_000)
    else:
        for first in range(0, 180_000, 10_000):
            store.delete_many(keys[first : first + 10_000])
    wait_until(lambda: segment_bytes(tmp_path / "s") <= wanted)
    assert len(store) == 20_000 and store.first() == (180_000, 180_000)
    store.close()
    assert segment_bytes(tmp_path / "s") <= wanted


def test_commits_beside_an_idle_checkpoint_are_written_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path / "s")
    record_segments = checkpoint.record_segments
    late = iter([2, 3, 4])

    def beside(*arguments: Any) -> None:
        for key in late:  # one each time, while a journal file is there
            store[key] = key
            break
        record_segments(*arguments)

    monkeypatch.setattr(checkpoint, "record_segments", beside)
    store[1] = 1
    wait_until(lambda: store._engine.manifest.state.flushed_sequence == 4)
    assert dict(store.items()) == {1: 1, 2: 2, 3: 3, 4: 4}
    store.close()


# --- pace, failures, closing ----------------------------------------------------------------------


def test_writers_are_slowed_down_and_the_wait_is_counted(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        inner = store._engine.core_engine
        for key in range(1000):
            store[key] = key
        assert inner.stall_nanoseconds == 0 and inner.bytes_put == 16_000
        inner.set_pace(1 << 20)
        for key in range(2000):
            store[key] = key
        assert inner.stall_nanoseconds > 0
        waited = inner.stall_nanoseconds
        inner.set_pace(0)
        store.put_many(np.arange(5000, dtype="u8"), np.arange(5000, dtype="u8"))
        assert inner.stall_nanoseconds == waited


def test_the_speed_of_writers_leaves_pauses_out() -> None:
    moments = iter([1.0, 2.0, 100.0, 101.0])
    speed = Speed(lambda: next(moments))
    for bytes_put in (1000, 3000, 4000, 8000):
        speed.note(bytes_put)
    assert speed.bytes_per_second == (2000 + 4000) / 2


def test_a_full_drive_stalls_writers_until_there_is_room(tmp_path: Path) -> None:
    files = FullFiles(tmp_path / "s")
    options = cesium.Options("u8", "u8", durability="process")
    store = cesium.Store(acquire(tmp_path / "s", options, 0, files), options)
    engine = store._engine
    engine.background = Background(
        engine, maintenance.flush_waiting, maintenance.merge_waiting, maintenance.when_idle
    )
    store.core.memtable_limit_bytes = 20_000
    files.full = True
    written = 0
    with pytest.raises(cesium.StorageFullError, match="segment-"):
        for key in range(100_000):
            store[key] = key
            written += 1
    assert store.stats().frozen_memtables == maintenance.FROZEN_MOST
    assert len(store) == written and store[0] == 0
    files.full = False
    store[written] = written
    wait_until(lambda: store.stats().frozen_memtables == 0)
    engine.background.stop()
    assert engine.background is None
    store.close()


def test_damage_that_the_policy_meets_ends_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*arguments: Any) -> Any:
        raise cesium.CorruptionError("a range-delete cannot be read")

    store = opened(tmp_path / "s", memory_limit="1MiB")
    with monkeypatch.context() as patch:
        patch.setattr(merging, "describe", damaged)
        store[1] = 1
        store.checkpoint()
        assert "cannot be read" in (store.stats().maintenance_failure or "")
    rows = put_shuffled(store, 30_000)
    wait_until(lambda: store.stats().memtable_entries == 0)
    assert dict(store.items()) == {1: 1} | rows
    store.close()


def test_an_interrupt_while_a_thread_is_started_does_not_silence_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    store = opened(tmp_path / "s")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store[1] = 1  # visible: what was interrupted is the care for it
    store[2] = 2
    store.core.memtable_limit_bytes = 1
    store[3] = 3
    wait_until(lambda: store.stats().frozen_memtables == 0)
    assert store.stats().segments, "the flusher was woken"
    assert dict(store.items()) == {1: 1, 2: 2, 3: 3}
    store.close()


@pytest.mark.parametrize("threads", [False, True])
def test_a_write_in_the_midst_of_a_merge_of_its_thread_begins_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: bool
) -> None:
    """As a signal handler may, while `compact` runs."""
    store = opened(tmp_path / "s", background=threads)
    store.bulk_load(range(1000), range(1000))
    store.bulk_load(range(500, 1500), range(1000))
    monkeypatch.setattr(maintenance, "RUNS_MOST", 0)
    here = threading.get_ident()
    merged: list[int] = []
    merge = maintenance.merge_once
    monkeypatch.setattr(
        maintenance, "merge_once",
        lambda *arguments: merged.append(threading.get_ident()) or merge(*arguments),
    )  # fmt: skip

    def handler(rows: int) -> None:
        store.core.memtable_limit_bytes = 1
        store[7] = 70
        store.bulk_load([8, 600], [80, 6000])

    maintenance.compact(store._engine, [store._table], handler)
    assert here not in merged
    assert store.stats().maintenance_failure is None
    assert store[7] == 70 and store[600] == 6000 and len(store) == 1500
    store.close()


def test_closing_stops_a_merge_and_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    store = opened(path)
    engine = store._engine
    begun, go_on = threading.Event(), threading.Event()
    write = SegmentOutput._write_segment

    def slowly(output: SegmentOutput, *arguments: Any) -> bool:
        if threading.current_thread().name == "cesium-merge":
            begun.set()
            go_on.wait(PATIENCE_SECONDS)
        return write(output, *arguments)

    monkeypatch.setattr(SegmentOutput, "_write_segment", slowly)
    rows: dict[int, int] = {}
    for turn in range(tiers.RUNS_DUE + 1):
        keys = np.arange(turn, 5000, 3, dtype="u8")
        store.put_many(keys, np.full(len(keys), turn, "u8"))
        rows.update(dict.fromkeys(keys.tolist(), turn))
        store.checkpoint()
    assert begun.wait(PATIENCE_SECONDS)
    closing = threading.Thread(target=store.close)
    closing.start()
    wait_until(lambda: engine.background is None or engine.background.stopped)
    go_on.set()
    closing.join(PATIENCE_SECONDS)
    assert not closing.is_alive()
    with cesium.open(path, flag="r") as again:
        named = {f"segment-{number:010d}" for number in again._engine.manifest.state.segments}
        assert named == {file.name for file in path.glob("segment-*")}
        assert dict(again.items()) == rows and again.verify().ok


def test_readers_and_writers_go_on_while_it_merges(tmp_path: Path) -> None:
    store = opened(tmp_path / "s", memory_limit="1MiB", maintenance_rate="20MB/s")
    rows = put_shuffled(store, 60_000)
    seen = [0]
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            assert len(store) == len(rows)
            assert store.range(100, 200).arrays()[0].tolist() == list(range(100, 200))
            seen[0] += 1

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(3):
        put_shuffled(store, 60_000)
        store.compact()
    ended.set()
    reader.join(PATIENCE_SECONDS)
    assert seen[0] and dict(store.items()) == rows
    store.close()
