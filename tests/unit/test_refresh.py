"""Store.refresh: a read-only handle follows the writer, whatever that does; here in one process.

`beside` opens a handle with an engine of its own, as another process would; tests/threads has the
same with processes.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium.files import Files
from cesium.merging import merge_into_base
from cesium.opening import acquire
from cesium.replay import AHEAD_BYTES, ZEROS_BYTES
from failing_files import FailingFiles


def opened(path: Path, **more: Any) -> cesium.Store:
    options = {"key": "u8", "value": "i8", "durability": "process", "background": False}
    return cesium.open(path, options=cesium.Options(**(options | more)))


def beside(path: Path, files: Files | None = None) -> cesium.Store:
    options = cesium.Options(flag="r")
    return cesium.Store(acquire(path, options, files=files or Files(path)), options)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[cesium.Store]:
    with opened(tmp_path / "s") as store:
        yield store


def same(reader: cesium.Store, writer: cesium.Store) -> None:
    """The reader refreshes, and is then what the writer is."""
    assert reader.refresh() == reader.sequence == writer.sequence == reader.stats().sequence
    assert list(reader.items()) == list(writer.items())
    assert len(reader) == len(writer)


def flip(path: Path, offset: int, count: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = bytes(byte ^ 0xFF for byte in data[offset : offset + count])
    with path.open("r+b") as file:  # in place: the writer has it mapped
        file.seek(offset)
        file.write(data[offset : offset + count])


def newest(path: Path, kind: str) -> Path:
    return max(path.glob(f"{kind}-*"))


# --- what the writer does -------------------------------------------------------------------------


def test_each_kind_of_commit_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    writer = opened(path)
    reader = beside(path)
    keys = np.arange(1000, dtype="u8")
    steps = [
        lambda: writer.put(1, 10),
        lambda: writer.put_many(keys, np.arange(1000)),
        lambda: writer.delete(5),
        lambda: writer.delete_range(100, 200),
        lambda: writer.put(150, 1),
        lambda: writer.increment(150),
        lambda: writer.bulk_load(keys[:50], np.zeros(50, "i8")),  # lies above what is there
        lambda: writer.delete_many(keys[40:45]),
        lambda: writer.bulk_load(keys + 5000, np.ones(1000, "i8")),  # goes into the last tier
        lambda: writer.put(5, 5),
        lambda: writer.put(6, 6),
        lambda: writer.checkpoint(),
        lambda: writer.put(7, 7),
        lambda: writer.compact(),
        lambda: writer.delete_range(None, 3),
        lambda: writer.bulk_load(keys + 9000, np.ones(1000, "i8")),
        lambda: writer.checkpoint(),
        lambda: writer.clear(),
        lambda: writer.put(8, 8),
    ]
    same(reader, writer)
    for step in steps:
        step()
        same(reader, writer)
        assert reader.refresh() == writer.sequence
    writer.close()
    assert reader.refresh() == reader.sequence and dict(reader.items()) == {8: 8}
    with opened(path) as writer:
        same(reader, writer)
        writer[9] = 9
        same(reader, writer)
    assert reader.verify().ok
    reader.close()


@pytest.mark.parametrize("start", [0, 9000])
def test_a_load_is_attached_once(tmp_path: Path, writer: cesium.Store, start: int) -> None:
    """Commits before and after it do not become one memtable, however long they are."""
    reader = beside(tmp_path / "s")
    keys = np.arange(6000, dtype="u8")
    for step in (
        lambda: writer.put(1, 1),
        lambda: writer.put_many(keys[:2000], np.zeros(2000, "i8")),
        lambda: writer.bulk_load(keys[:9] + start, np.arange(9)),
        lambda: writer.put(2, 2),
        lambda: writer.put_many(keys[1000:4000], np.ones(3000, "i8")),
        lambda: writer.put(3, 3),
    ):
        step()
        same(reader, writer)
        assert reader.stats().tiers == writer.stats().tiers
    reader.close()


def test_the_change_feed_goes_as_far_as_the_refresh(tmp_path: Path, writer: cesium.Store) -> None:
    writer[1] = 1
    reader = beside(tmp_path / "s")
    for last in range(2, 30):
        writer.put_many(np.arange(last * 100, dtype="u8"), np.zeros(last * 100))
        assert not list(reader.changes(since=last - 1))
        same(reader, writer)
        assert [change.sequence for change in reader.changes(since=1)] == [*range(2, last + 1)]
        found = reader.watch(since=last - 1, timeout=0)
        assert found is not None and found.operations[0].rows == last * 100
    reader.close()


def test_values_in_blob_files(tmp_path: Path) -> None:
    with opened(tmp_path / "s", key="str", value="bytes", blob_threshold="4KiB") as writer:
        reader = beside(tmp_path / "s")
        for turn in range(6):
            writer.update({f"{turn}-{number}": bytes([turn]) * 9000 for number in range(20)})
            same(reader, writer)
            writer.checkpoint()
            same(reader, writer)
            writer.delete_range(f"{turn}-1", f"{turn}-15")
            writer.compact()
            same(reader, writer)
        assert reader.verify().ok
        reader.close()


@pytest.mark.parametrize("seed", range(4))
def test_random_work(tmp_path: Path, seed: int) -> None:
    """Refreshed seldom and often, with the journal in many files, and restarts."""
    dice = random.Random(seed)
    path = tmp_path / "s"
    writer = opened(path, key="str", value="str")
    reader = beside(path)
    for _ in range(120):
        action = dice.random()
        key = f"{dice.randrange(300):04}"
        if action < 0.5:
            writer.update({f"{dice.randrange(300):04}": str(action) for _ in range(40)})
        elif action < 0.6:
            writer.delete_range(key, key + "5")
        elif action < 0.7:
            writer.put(key, "x" * 100_000)  # fills a journal file now and then
        elif action < 0.8:
            writer.bulk_load([key, key + "a"], ["loaded", "too"])
        elif action < 0.9:
            writer.checkpoint()
        elif action < 0.95:
            writer.compact()
        else:
            writer.close()
            writer = opened(path, key="str", value="str")
        if dice.random() < 0.5:
            same(reader, writer)
    same(reader, writer)
    writer.close()
    reader.close()


def test_commits_that_are_not_journaled_come_with_the_checkpoint(tmp_path: Path) -> None:
    with opened(tmp_path / "s", durability="none") as writer:
        reader = beside(tmp_path / "s")
        writer[1] = 1
        assert reader.refresh() == 0 and not reader
        writer.checkpoint()
        same(reader, writer)
        reader.close()


# --- what stays -----------------------------------------------------------------------------------


def test_what_was_begun_keeps_what_it_reads(tmp_path: Path, writer: cesium.Store) -> None:
    writer.bulk_load(np.arange(20_000, dtype="u8"), np.arange(20_000))
    writer.put_many(np.arange(0, 20_000, 2, dtype="u8"), np.full(10_000, -1))
    reader = beside(tmp_path / "s")
    before = list(writer.items())
    rows, batches = iter(reader.items()), reader.range().batches(1000)
    snapshot = reader.snapshot()
    begun, first = next(rows), next(batches)
    writer.delete_range(10, 19_000)
    same(reader, writer)
    writer.compact()
    writer[3] = 4
    same(reader, writer)
    assert [begun, *rows] == before and list(snapshot.items()) == before
    kept = np.concatenate([first[0], *(keys for keys, _ in batches)])
    assert kept.tolist() == [key for key, _ in before]
    assert snapshot.sequence == 2 and reader.snapshot().sequence == writer.sequence
    reader.close()


def test_handles_move_on_their_own(tmp_path: Path, writer: cesium.Store) -> None:
    first, second = beside(tmp_path / "s"), beside(tmp_path / "s")
    writer[1] = 1
    assert first.refresh() == 1 and 1 in first
    assert second.sequence == 0 and 1 not in second
    writer[2] = 2
    assert second.refresh() == 2 and 2 in second
    assert first.sequence == 1 and 2 not in first
    first.close()
    second.close()


def test_readers_of_files_that_stay_are_kept(tmp_path: Path, writer: cesium.Store) -> None:
    """Their mappings, and what they know of pages that were checked."""
    writer.bulk_load(np.arange(50_000, dtype="u8"), np.arange(50_000))
    writer.checkpoint()
    reader = beside(tmp_path / "s")
    (old,) = reader.core.version.segments()
    assert len(reader) == reader.range().arrays()[0].size == 50_000
    checked = reader.memory().checked_pages
    for turn in range(3):
        writer.put_many(np.arange(turn, 9000, 7, dtype="u8"), np.zeros(len(range(turn, 9000, 7))))
        writer.checkpoint()
        same(reader, writer)
        assert old in reader.core.version.segments() and reader.memory().checked_pages >= checked
    maps = Path("/proc/self/maps")
    assert old.path in maps.read_text()
    writer.compact()
    del old
    same(reader, writer)
    assert f"{tmp_path}" in maps.read_text() and "(deleted)" not in "".join(
        line for line in maps.read_text().splitlines() if str(tmp_path) in line
    ), "what nobody reads any more is let go of"
    reader.close()


def test_a_file_that_goes_to_another_tier_is_kept(tmp_path: Path, writer: cesium.Store) -> None:
    keys = np.arange(100, dtype="u8")
    writer.put_many(keys, np.zeros(100, "i8"))
    writer.checkpoint()
    writer.delete_range(0, 100)
    writer.checkpoint()
    writer.bulk_load(keys[:50], np.ones(50, "i8"))  # above what it overlaps
    writer.checkpoint()
    loaded, marker, _ = writer.core.version.segments()
    with writer._engine.merging_here():
        merge_into_base(writer._table, [[marker]])  # which leaves nothing below the load
    reader = beside(tmp_path / "s")
    before = reader.core.version.segments()
    assert len(reader) == 50 and reader.stats().newer_sources == 1
    writer.compact()
    assert writer.core.version.segments() == [loaded], "a segment without markers is moved"
    same(reader, writer)
    assert reader.core.version.segments() == before
    assert reader.stats().tiers == writer.stats().tiers and reader.stats().newer_sources == 0
    reader.close()


def test_many_small_refreshes_leave_few_memtables(tmp_path: Path, writer: cesium.Store) -> None:
    reader = beside(tmp_path / "s")
    most = 0
    for number in range(3000):
        writer[number * 7919 % 10_007] = number
        if number % 3 == 0:
            assert reader.refresh() == number + 1
            assert reader[number * 7919 % 10_007] == number
            most = max(most, reader.stats().frozen_memtables)
    assert 2 <= most <= 8, "3,000 rows of 32 bytes, from 16 KiB on by doubling"
    memory = reader.memory()
    assert memory.frozen_memtables > 0 and memory.pinned < memory.frozen_memtables
    same(reader, writer)
    reader.close()


def test_a_refresh_reads_the_end_of_the_journal_only(tmp_path: Path, writer: cesium.Store) -> None:
    class Counting(Files):
        bytes_read = 0

        def read_into(self, fd: int, buffer: Any, offset: int) -> int:
            Counting.bytes_read += memoryview(buffer).nbytes
            return super().read_into(fd, buffer, offset)

    for turn in range(3):
        writer.put_many(np.arange(50_000, dtype="u8") + turn, np.zeros(50_000, "i8"))
    reader = beside(tmp_path / "s", Counting(tmp_path / "s"))
    standing = reader._engine.standing
    assert standing is not None and standing.place is not None
    end, journal = standing.place.link.position, newest(tmp_path / "s", "journal")
    with journal.open("r+b") as file:  # as where the file was prepared ahead: no hole is left
        file.seek(end)
        file.write(bytes(journal.stat().st_size - end))
    assert journal.stat().st_size - end > 1 << 20
    for number in range(5):
        writer[number] = -1
        Counting.bytes_read = 0
        assert reader.refresh() == writer.sequence and reader[number] == -1
        assert Counting.bytes_read < 200_000
    same(reader, writer)
    reader.close()


@pytest.mark.parametrize("edge", [AHEAD_BYTES - ZEROS_BYTES, AHEAD_BYTES, 4 * AHEAD_BYTES])
def test_commits_as_long_as_what_is_read_at_first(
    tmp_path: Path, writer: cesium.Store, edge: int
) -> None:
    writer[0] = 0
    reader = beside(tmp_path / "s")
    for size in range(edge - 256, edge + 64, 16):
        rows = size // 16
        writer.put_many(np.arange(rows, dtype="u8"), np.full(rows, size))
        assert reader.refresh() == writer.sequence and reader[rows - 1] == size
        writer[1] = size
        assert reader.refresh() == writer.sequence and reader[1] == size
    same(reader, writer)
    reader.close()


@pytest.mark.threads
def test_threads_that_read_meanwhile_see_whole_commits(
    tmp_path: Path, writer: cesium.Store
) -> None:
    keys = np.arange(500, dtype="u8")
    writer.put_many(keys, np.zeros(500, "i8"))
    reader = beside(tmp_path / "s")
    ended = threading.Event()
    failures: list[Any] = []

    def read() -> None:
        last = 0
        while not ended.is_set():
            with reader.snapshot() as snapshot:
                values, found = snapshot.get_many(keys)
                again = {value for _, value in reader.items()}
                if not found.all() or len(set(values.tolist())) != 1 or len(again) != 1:
                    failures.append((values.tolist(), again))
                if values[0] != snapshot.sequence - 1 or values[0] < last:
                    failures.append((values[0], snapshot.sequence, last))
                last = values[0]

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1, 150):
        writer.put_many(keys, np.full(500, number))
        if number % 40 == 0:
            writer.checkpoint()
        assert reader.refresh() == number + 1
    ended.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]
    reader.close()


# --- handles that do not follow -------------------------------------------------------------------


def test_handles_that_are_at_the_newest_commit(tmp_path: Path, writer: cesium.Store) -> None:
    writer[1] = 1
    assert writer.refresh() == writer.sequence == 1
    with cesium.open(tmp_path / "s", flag="r") as shared:  # one engine with the writer
        writer[2] = 2
        assert shared.refresh() == 2 and 2 in shared
    with cesium.open(":memory:", key="u8", value="u8") as memory:
        memory[1] = 1
        assert memory.refresh() == 1


def test_closed_handles(tmp_path: Path, writer: cesium.Store) -> None:
    reader = beside(tmp_path / "s")
    reader.close()
    assert str(tmp_path) not in "".join(
        line for line in Path("/proc/self/maps").read_text().splitlines() if "segment-" in line
    )
    with pytest.raises(cesium.ClosedError):
        reader.refresh()


# --- failures -------------------------------------------------------------------------------------


def test_another_store_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path) as writer:
        writer.put_many(np.arange(100, dtype="u8"), np.arange(100))
        writer.checkpoint()
    reader = beside(path)
    with opened(path, flag="n") as writer:
        for _ in range(2):
            with pytest.raises(cesium.Error, match=r"another store by now.*open it again"):
                reader.refresh()
            assert reader.sequence == 1 and len(reader) == 100 and reader[99] == 99
            writer[1] = 1
    for file in path.iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="no store"):
        reader.refresh()
    assert reader[99] == 99
    reader.close()


def test_a_store_that_went_back(tmp_path: Path, writer: cesium.Store) -> None:
    path = tmp_path / "s"
    reader = beside(path)
    writer[1] = 1
    assert reader.refresh() == 1
    journal = newest(path, "journal")
    journal.rename(tmp_path / "aside")
    with pytest.raises(cesium.Error, match="ends at sequence 0, before 1"):
        reader.refresh()
    assert reader[1] == 1
    (tmp_path / "aside").rename(journal)
    writer[2] = 2
    same(reader, writer)
    reader.close()


def test_damage_in_the_journal(tmp_path: Path) -> None:
    """Also where a whole sector was lost, so that it looks like the end."""
    path = tmp_path / "s"
    with opened(path, durability="sync") as writer:
        writer[0] = 0
        reader = beside(path)
        standing = reader._engine.standing
        assert standing is not None and standing.place is not None
        begin = standing.place.link.position
        writer.put_many(np.arange(1, 100, dtype="u8"), np.ones(99, "i8"))
        for number in range(100, 200):
            writer[number] = 1
        journal = newest(path, "journal")
        sound = journal.read_bytes()
        for damage in (bytes([sound[begin + 60] ^ 1]), bytes(512)):
            with journal.open("r+b") as file:
                file.seek(begin if len(damage) > 1 else begin + 60)
                file.write(damage)
            with pytest.raises(cesium.CorruptionError, match="journal-000001"):
                reader.refresh()
            assert reader.sequence == 1 and dict(reader.items()) == {0: 0}
            with journal.open("r+b") as file:
                file.seek(begin)
                file.write(sound[begin : begin + 4096])
        same(reader, writer)
        reader.close()


def test_what_does_not_count_behind_the_end(tmp_path: Path, writer: cesium.Store) -> None:
    """What a writer that was killed in the midst of a frame may leave."""
    path = tmp_path / "s"
    writer[1] = 1
    reader = beside(path)
    standing = reader._engine.standing
    assert standing is not None and standing.place is not None
    with newest(path, "journal").open("r+b") as file:
        file.seek(standing.place.link.position + 8)
        file.write(b"half a frame")
    for _ in range(2):
        assert reader.refresh() == 1
    writer[2] = 2  # over it
    same(reader, writer)
    reader.close()


def test_damage_in_the_manifest_and_lost_files(tmp_path: Path, writer: cesium.Store) -> None:
    path = tmp_path / "s"
    writer.put_many(np.arange(100, dtype="u8"), np.arange(100))
    reader = beside(path)
    writer.checkpoint()
    manifest, segment = newest(path, "manifest"), newest(path, "segment")
    flip(manifest, 70)
    with pytest.raises(cesium.CorruptionError, match="manifest-"):
        reader.refresh()
    flip(manifest, 70)
    content = segment.read_bytes()
    for damage in (None, b""):  # gone, and empty
        segment.unlink(missing_ok=True)
        if damage is not None:
            segment.write_bytes(damage)
        with pytest.raises(cesium.CorruptionError, match="segment-"):
            reader.refresh()
        assert reader.sequence == 1 and reader[99] == 99
    segment.write_bytes(content)
    writer[100] = 100
    same(reader, writer)
    reader.close()


@pytest.mark.crash
@pytest.mark.parametrize("step", ["put", "load", "checkpoint", "compact"])
def test_every_call_to_the_file_system_fails_once(tmp_path: Path, step: str) -> None:
    path = tmp_path / "s"
    with opened(path) as writer:
        writer.bulk_load(np.arange(100, dtype="u8"), np.arange(100))
        writer.put_many(np.arange(50, dtype="u8"), np.arange(50))
        writer.checkpoint()
        writer[1000] = 1
        files = FailingFiles(path)
        reader = beside(path, files)
        before = list(reader.items())
        writer[1001] = 2
        if step == "load":
            writer.bulk_load(np.arange(20, dtype="u8"), np.zeros(20, "i8"))
        elif step != "put":
            getattr(writer, step)()
        failed = 0
        while True:
            failed += 1
            files.failed = 0
            files.fail(None, failed)
            try:
                sequence = reader.refresh()
            except (OSError, cesium.CorruptionError):
                assert files.failed == 1
                assert reader.sequence < writer.sequence and list(reader.items()) == before
                continue
            assert sequence == writer.sequence
            break
        files.heal()
        assert failed > 6
        same(reader, writer)
        reader.close()


def test_files_that_go_in_the_midst_are_looked_for_again(tmp_path: Path) -> None:
    """At every call: the writer checkpoints and merges just before it."""
    path = tmp_path / "s"

    class Moving(Files):
        calls = -1

        def open(self, name: str, *, writable: bool = False) -> int:
            if Moving.calls >= 0:
                Moving.calls -= 1
                if Moving.calls < 0:
                    writer[writer.sequence] = 5
                    writer.compact()
                    writer[writer.sequence] = 6
            return super().open(name, writable=writable)

    with opened(path) as writer:
        reader = beside(path, Moving(path))
        for call in range(40):
            writer.put_many(np.arange(call, 100, dtype="u8"), np.full(100 - call, call))
            if call % 2:
                writer.checkpoint()
            sequence = writer.sequence
            Moving.calls = call // 2
            assert reader.refresh() >= sequence
            Moving.calls = -1
            same(reader, writer)
        reader.close()
