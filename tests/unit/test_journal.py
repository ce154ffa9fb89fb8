"""The journal: appending, syncing, rotation, and which frames count after damage."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cesium
from cesium import _frames, _journal, manifest
from cesium.errors import CorruptionError, Error, LimitError, PoisonedError, StorageFullError
from cesium.files import Bytes, Files, MemoryFiles
from cesium.frames import Frame
from cesium.journal import PROCESS_STEP_BYTES, Journal
from cesium.replay import journal_name, read_header
from failing_files import FailingMemoryFiles
from journal_frames import length_at, starts_of

UUID = bytes(range(16))
FIXED = _frames.FIXED_KEYS | _frames.FIXED_VALUES
Row = tuple[int, bytes, bytes]  # sequence, key, value


def journal_of(files: Files, **options: object) -> Journal:
    options = {"first_file_bytes": 8192, "largest_file_bytes": 8192, **options}
    return Journal(files, UUID, **options)  # type: ignore[arg-type]


def opened(files: Files, **options: object) -> tuple[Journal, list[Frame]]:
    journal = journal_of(files, **options)
    return journal, list(journal.replay())


def put(journal: Journal, sequence: int, value: bytes = b"value", sync: bool = True) -> None:
    """One row with a variable key and value, as a commit of its own."""
    key = b"key %d" % sequence
    writer = journal.writer or journal.rotate()
    status, end = writer.append_single(sequence, time.time_ns(), 1, _frames.PUT, 0, key, value)
    if status == _journal.FULL:
        writer = journal.rotate(len(value) + 200)
        status, end = writer.append_single(sequence, time.time_ns(), 1, _frames.PUT, 0, key, value)
    assert status == _journal.OK
    if sync:
        assert writer.sync(end) == _journal.OK


def drop_through(journal: Journal, sequence: int, including_current: bool = False) -> list[int]:
    """What a checkpoint does once everything up to a sequence is in segments."""
    numbers = journal.detach_through(sequence, including_current=including_current)
    journal.remove_detached()
    return numbers


def rows_of(frames: list[Frame]) -> list[Row]:
    rows = []
    for frame in frames:
        for operation in frame.operations():
            assert operation.key_data is not None and operation.value_data is not None
            rows.append(
                (frame.sequence, operation.key_data.tobytes(), operation.value_data.tobytes())
            )
    return rows


def expected(first: int, last: int, value: bytes = b"value") -> list[Row]:
    return [(number, b"key %d" % number, value) for number in range(first, last + 1)]


def copied(files: Files, changes: dict[str, bytes | None]) -> MemoryFiles:
    """The same files with some content replaced (zeros follow it, to the old size), or removed."""
    copy = MemoryFiles()
    for name in files.list():
        data = changes.get(name, files.read_all(name))
        if data is not None:
            fd = copy.create(name)
            copy.write_all(fd, data, 0)
            copy.allocate(fd, max(files.size(name), len(data)))
            copy.close(fd)
    return copy


@pytest.fixture(params=["posix", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return Files(tmp_path) if request.param == "posix" else MemoryFiles()


# -- the ordinary way


def test_append_and_replay(files: Files) -> None:
    journal, frames = opened(files)
    assert frames == [] and files.list() == [], "opening writes nothing"
    for number in range(1, 301):
        put(journal, number)
    assert len(journal.files) > 2, "it rotated"
    assert [record.last_sequence for record in journal.files][-1] == 300
    journal.close()
    again, frames = opened(files)
    assert rows_of(frames) == expected(1, 300)
    assert again.last_sequence == 300
    assert rows_of(opened(files, flushed_sequence=123)[1]) == expected(124, 300)
    assert rows_of(opened(files, flushed_sequence=300)[1]) == []


def test_every_form_of_operation(files: Files) -> None:
    journal, _ = opened(files)
    heads = np.array([3, 5, 2**64 - 1], np.uint64)
    values = np.arange(6, dtype=np.uint16).reshape(3, 2)
    lengths = np.array([0, 3, 1], np.uint32)

    def header(kind: int, flags: int, rows: int, key_bytes: int, value_bytes: int) -> bytes:
        return struct.pack("<IBBHIIQQ", 9, kind, flags, 0, rows, 0, key_bytes, value_bytes)

    parts = [
        header(_frames.PUT, FIXED, 3, 24, 12), heads, values,
        header(_frames.PUT, 0, 3, 16 + 4, 16 + 4), lengths, b"abcd", lengths, b"wxyz",
        header(_frames.DELETE, _frames.FIXED_KEYS, 3, 24, 0), heads,
        header(_frames.DELETE_RANGE, _frames.FIXED_KEYS | _frames.HIGH_UNBOUNDED, 1, 16, 0),
        np.array([4, 0], np.uint64),
        header(_frames.DELETE_RANGE, 0, 1, 8 + 3, 0), np.array([1, 2], np.uint32), b"abc",
    ]  # fmt: skip
    writer, end = journal.append(_frames.FRAME_COMMIT, 5, parts, 5, commit_time=77)
    journal.append_attach(6, {"segments": [{"id": 1, "name": "é"}]})
    journal.sync()
    assert writer.synced_position > end
    _, (commit, attach) = opened(files)
    assert (commit.type, commit.sequence, commit.commit_time) == (_frames.FRAME_COMMIT, 5, 77)
    fixed, variable, deletes, upward, between = commit.operations()
    assert fixed.heads is not None and fixed.value_data is not None
    assert np.array_equal(fixed.heads, heads) and fixed.value_width == 4
    assert fixed.value_data.tobytes() == values.tobytes() and fixed.table_id == 9
    assert variable.key_lengths is not None and variable.key_data is not None
    assert variable.key_lengths.tolist() == [0, 3, 1] and variable.key_data.tobytes() == b"abcd"
    assert variable.value_lengths is not None and variable.value_data is not None
    assert variable.value_data.tobytes() == b"wxyz" and variable.value_lengths[1] == 3
    assert deletes.heads is not None and deletes.heads[2] == 2**64 - 1
    assert deletes.value_data is None and deletes.row_count == 3
    assert upward.heads is not None and upward.heads.tolist() == [4, 0]
    assert upward.flags & _frames.HIGH_UNBOUNDED
    assert between.key_lengths is not None and between.key_lengths.tolist() == [1, 2]
    assert attach.attached() == {"segments": [{"id": 1, "name": "é"}]}


@pytest.mark.parametrize("key_bytes", [0, 1, 7, 8, 9, 65000, 70000])
@pytest.mark.parametrize("value_bytes", [0, 1, 8, 13, 489, 490, 529])
@pytest.mark.parametrize("flags", [0, _frames.FIXED_VALUES, _frames.FIXED_KEYS, FIXED])
@pytest.mark.parametrize("kind", [_frames.PUT, _frames.DELETE])
def test_single_rows_are_what_the_general_form_writes(
    key_bytes: int, value_bytes: int, flags: int, kind: int
) -> None:
    """First in a file, which is a full frame, and as a row frame, unsynced and synced."""
    if flags & _frames.FIXED_KEYS and key_bytes != 8:
        return
    journal, _ = opened(MemoryFiles(), first_file_bytes=1 << 20)
    writer = journal.rotate()
    key, value = b"k" * key_bytes, b"v" * value_bytes if kind == _frames.PUT else b""
    writer.append_single(1, 7, 3, kind, flags, key, value)
    key_block = key if flags & _frames.FIXED_KEYS else struct.pack("<II", key_bytes, 0) + key
    value_block = struct.pack("<II", len(value), 0) + value
    if flags & _frames.FIXED_VALUES or kind == _frames.DELETE:
        value_block = value
    header = struct.pack("<IBBHIIQQ", 3, kind, flags, 0, 1, 0, len(key_block), len(value_block))
    writer.append(_frames.FRAME_COMMIT, 2, 7, [header, key_block, value_block], 1)
    now = time.time_ns()
    _, end = writer.append_single(3, now, 3, kind, flags, key, value)
    writer.sync(end)
    writer.append_single(4, now, 3, kind, flags, key, value)
    files = journal._files
    content = files.read_all(journal_name(1))
    first, second, third, fourth = opened(files)[1]
    assert content[first.position + 56 : first.end] == content[second.position + 56 : second.end]
    (reference,) = first.operations()
    if kind == _frames.PUT:
        assert reference.value_data is not None and reference.value_data.tobytes() == value
    for frame in (third, fourth):
        long = key_bytes + len(value) > 65_489
        assert (content[frame.position + 4] & 7) == (0 if long else 1)
        assert frame.operation_count == 1 and frame.type == _frames.FRAME_COMMIT
        assert now - (1 if long else 65_536) < frame.commit_time <= now
        unsaid = 4096 if long else 0
        assert frame.synced_position == (unsaid if frame is third else third.end)
        (operation,) = frame.operations()
        for name in operation.__slots__:
            found, wanted = getattr(operation, name), getattr(reference, name)
            assert np.array_equal(found, wanted) or (found is None and wanted is None), name


def put_one(writer: _journal.JournalWriter, sequence: int, time: int, table: int = 1) -> int:
    """A put of u8 -> f8; what the frame takes."""
    before = writer.position
    status, end = writer.append_single(
        sequence, time, table, _frames.PUT, FIXED, bytes(8), bytes(8)
    )
    assert status == _journal.OK
    return end - before


def test_a_row_frame_is_written_where_one_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    created = 1_000_000_000_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: created)
    journal, _ = opened(MemoryFiles(), first_file_bytes=1 << 20)
    writer = journal.rotate()
    unit = 1 << 16
    assert put_one(writer, 1, created) == 104, "the first of a file"
    assert put_one(writer, 2, created) == 32
    assert put_one(writer, 3, created - 1) == 104, "before the file was created"
    assert put_one(writer, 4, created + unit * 2**32 - 1) == 32
    assert put_one(writer, 5, created + unit * 2**32) == 104, "too late"
    assert put_one(writer, 6, created, table=255) == 32
    assert put_one(writer, 7, created, table=256) == 104, "a table beyond a byte"
    assert put_one(writer, 9, created) == 104, "a sequence left out"
    assert put_one(writer, 2**32, created) == 104, "likewise"
    assert put_one(writer, 2**32 + 1, created) == 104, "too far above the first"
    frames = opened(journal._files)[1]
    assert [frame.sequence for frame in frames] == [1, 2, 3, 4, 5, 6, 7, 9, 2**32, 2**32 + 1]
    times = [frame.commit_time - created for frame in frames]
    assert times == [0, 0, -1, unit * (2**32 - 1), unit * 2**32, 0, 0, 0, 0, 0]
    tables = [operation.table_id for frame in frames for operation in frame.operations()]
    assert tables == [1, 1, 1, 1, 1, 255, 256, 1, 1, 1]


def test_sequences_beyond_32_bits(files: Files) -> None:
    """Row frames have the low bits only: around a multiple of 2^32, and far above it."""
    for flushed in (2**32 - 3, 5 * 2**32 + 7, 2**63 - 100):
        journal, _ = opened(files, flushed_sequence=flushed)
        for number in range(flushed + 1, flushed + 7):
            put(journal, number)
        _, frames = opened(files, flushed_sequence=flushed)
        assert rows_of(frames) == expected(flushed + 1, flushed + 6)
        drop_through(journal, flushed + 6, including_current=True)


def test_each_sector_says_what_was_synced() -> None:
    """With every sector but one lost, what is left vouches for all that its frames were told."""
    files = MemoryFiles()
    journal, _ = opened(files, first_file_bytes=1 << 20)
    writer = journal.rotate()
    known: dict[int, int] = {}  # frame position: what was synced when it was appended
    for number in range(1, 400):
        known[writer.position] = writer.synced_position
        put_one(writer, number, time.time_ns())
        if number % 37 == 0:
            writer.sync(writer.position)
    content = files.read_all(journal_name(1))
    starts = starts_of(content)
    assert sum(end - start == 40 for start, end in itertools.pairwise(starts)) < 60
    base = read_header(files, 1, UUID).base
    for sector in range(4096, starts[-1], 512):
        inside = [start for start in starts[:-1] if sector <= start < sector + 512]
        whole = [start for start in inside if starts[starts.index(start) + 1] <= sector + 512]
        left = bytes(sector) + content[sector : sector + 512]
        told = max((known[start] for start in whole), default=0)
        vouched = _frames.highest_vouched(left, sector, len(left), base, 4096)
        assert vouched == max(told, 4096)


def test_files_without_row_frames_have_none(files: Files) -> None:
    """In a file without the flag, as older versions made them, such bytes are no frame."""
    made(files, 5)
    content = bytearray(files.read_all(journal_name(1)))
    assert content[24] == 1 << 5
    content[24] = 0
    content[8:12] = _frames.checksum(bytes(content[12:4096])).to_bytes(4, "little")
    previous = int.from_bytes(content[8:12], "little")
    starts = starts_of(content)
    for start in starts[:-1]:
        previous = resealed(content, start, previous)
    journal, frames = opened(copied(files, {journal_name(1): bytes(content)}))
    assert rows_of(frames) == expected(1, 1) and journal.dropped_bytes
    content[24] = 1 << 5
    content[8:12] = _frames.checksum(bytes(content[12:4096])).to_bytes(4, "little")
    previous = int.from_bytes(content[8:12], "little")
    for start in starts[:-1]:
        previous = resealed(content, start, previous)
    assert rows_of(opened(copied(files, {journal_name(1): bytes(content)}))[1]) == expected(1, 5)


def test_the_worked_example_of_the_format() -> None:
    files = MemoryFiles()
    journal, _ = opened(files)
    writer = journal.rotate()
    head, value = struct.pack("<Q", 42), struct.pack("<d", 1.5)
    writer.append_single(1, 0, 1, _frames.PUT, FIXED, head, value)
    data = files.read_all(journal_name(1))
    shown = """
        68 00 00 00 01 00 00 00 00 00 00 00
        01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00
        00 00 00 00 00 00 00 00 00 10 00 00 00 00 00 00
        HEADER_CRC_ 01 00 00 00 01 00 00 00 01 03 00 00
        01 00 00 00 00 00 00 00 08 00 00 00 00 00 00 00
        08 00 00 00 00 00 00 00 2a 00 00 00 00 00 00 00
        00 00 00 00 00 00 f8 3f
    """.replace("HEADER_CRC_", data[8:12].hex(" "))
    assert data[4100:4200] == bytes.fromhex(shown)
    seed = int.from_bytes(data[8:12], "little") ^ 4096
    assert data[4096:4100] == _frames.checksum(data[4100:4200], seed).to_bytes(4, "little")


def test_a_large_frame_gets_a_file_of_its_size_and_the_limit_holds(files: Files) -> None:
    journal, _ = opened(files)
    put(journal, 1)
    put(journal, 2, bytes(100_000))
    assert files.size(journal_name(2)) >= 100_000
    with pytest.raises(LimitError):
        huge = np.zeros(_frames.MAXIMUM_FRAME_BYTES, np.uint8)
        journal.append(_frames.FRAME_COMMIT, 3, [huge], 0)
    writer = journal.writer
    assert writer is not None
    assert writer.append(_frames.FRAME_COMMIT, 3, 0, [huge], 0)[0] == _journal.LIMIT
    put(journal, 3)
    assert rows_of(opened(files)[1])[-1] == expected(3, 3)[0]


def test_files_grow_to_the_largest_size(tmp_path: Path) -> None:
    files = Files(tmp_path)
    journal = Journal(files, UUID)
    sizes = [journal.rotate().capacity_bytes for _ in range(5)]
    assert sizes == [size << 20 for size in (1, 4, 16, 64, 64)]


def test_a_full_drive_takes_a_smaller_file(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Files.allocate if type(files) is Files else MemoryFiles.allocate

    def small(self: Files, fd: int, size: int) -> None:
        if size > 8192:
            raise OSError(errno.ENOSPC, "full")
        real(self, fd, size)

    monkeypatch.setattr(type(files), "allocate", small)
    journal, _ = opened(files, first_file_bytes=1 << 20)
    put(journal, 1)
    assert files.size(journal_name(1)) == 8192
    with pytest.raises(StorageFullError):
        put(journal, 2, bytes(50_000))
    assert files.list() == [journal_name(1)]
    put(journal, 2)
    assert rows_of(opened(files)[1]) == expected(1, 2)


# -- openings, rotation, dropping


def test_every_opening_starts_a_file_of_a_higher_epoch(files: Files) -> None:
    for opening in range(4):
        journal, frames = opened(files)
        assert rows_of(frames) == expected(1, 3 * opening)
        for number in range(3 * opening + 1, 3 * opening + 4):
            put(journal, number)
        assert journal.epoch == opening + 1
        journal.close(clean=opening % 2 == 0)
    assert files.list() == [journal_name(number) for number in range(1, 5)]


def test_appending_before_the_replay_is_refused(files: Files) -> None:
    journal, _ = opened(files)
    put(journal, 1)
    with pytest.raises(RuntimeError):
        journal_of(files).rotate()


def test_drop_through(files: Files) -> None:
    journal, _ = opened(files)
    for number in range(1, 301):
        put(journal, number)
    records = journal.files
    assert drop_through(journal, records[1].last_sequence) == [1, 2]
    assert rows_of(opened(files, flushed_sequence=records[1].last_sequence)[1]) == expected(
        records[1].last_sequence + 1, 300
    )
    with pytest.raises(CorruptionError, match="missing"):
        opened(files, flushed_sequence=records[0].last_sequence)
    drop_through(journal, 300)
    assert files.list() == [journal_name(records[-1].number)]
    drop_through(journal, 300, including_current=True)
    assert files.list() == [] and journal.writer is None
    put(journal, 301)
    journal.close()
    _, frames = opened(files, flushed_sequence=300)
    assert rows_of(frames) == expected(301, 301)


def test_commits_go_on_between_detaching_and_removing(files: Files) -> None:
    """Whatever of the old files a crash leaves, only the new commits are replayed."""
    journal, _ = opened(files)
    for number in range(1, 301):
        put(journal, number)
    old = journal.detach_through(300, including_current=True)
    assert len(old) > 2 and journal.writer is None and journal.files == []
    put(journal, 301)
    for kept in ([], old, old[:1], old[-1:], old[::2]):
        gone = dict.fromkeys(journal_name(number) for number in old if number not in kept)
        again, frames = opened(copied(files, dict(gone)), flushed_sequence=300)
        assert rows_of(frames) == expected(301, 301)
        put(again, 302)
        assert len(again.files) == 2 and rows_of(opened(again._files, flushed_sequence=300)[1])
    journal.remove_detached()
    assert files.list() == [journal_name(old[-1] + 1)]


def test_closing_closes_what_was_detached(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    journal, _ = opened(Files(tmp_path))
    for number in range(1, 301):
        put(journal, number)
    journal.detach_through(300, including_current=True)
    assert len(os.listdir("/proc/self/fd")) > before
    journal.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_checkpoint_closes_and_unlinks_without_the_writer_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cesium.open(tmp_path / "s", key="u8", value="u8", durability="process")
    engine = store._engine
    seen = []
    for name in ("unlink", "close"):
        real = getattr(Files, name)

        def watched(self: Files, what: str | int, name: str = name, real: Any = real) -> None:
            seen.append((name, engine.core_engine.is_writing_here))
            real(self, what)

        monkeypatch.setattr(Files, name, watched)
    store[1] = 1
    seen.clear()
    store.checkpoint()
    assert {name for name, _ in seen} == {"unlink", "close"}
    assert not any(writing for _, writing in seen)
    store.close()


def test_replayed_files_are_dropped_too(files: Files) -> None:
    journal, _ = opened(files)
    put(journal, 1)
    journal.close()
    journal, _ = opened(files)
    put(journal, 2)
    assert drop_through(journal, 0) == []
    assert drop_through(journal, 1) == [1]
    journal.close()
    assert rows_of(opened(files, flushed_sequence=1)[1]) == expected(2, 2)


def test_a_missing_manifest_is_noticed(files: Files) -> None:
    journal, _ = opened(files, manifest_generation=7)
    put(journal, 1)
    opened(files, manifest_generation=7)
    with pytest.raises(CorruptionError, match="generation 7"):
        opened(files, manifest_generation=6)


# -- a file made ahead


def half_full(journal: Journal) -> int:
    """Puts until the next file may be made ahead; the last sequence."""
    number = journal.last_sequence
    while not journal.prepare_next():
        number += 1
        put(journal, number)
        assert journal.writer is not None and number < 1000
    return number


def test_a_file_made_ahead_is_taken_by_the_next_rotation() -> None:
    files = FailingMemoryFiles()
    journal, _ = opened(files)
    assert not journal.prepare_next() and files.list() == [], "before the first write"
    last = half_full(journal)
    assert files.list() == [journal_name(1), "journal-spare-1.new"]
    assert journal.prepare_next(), "one is enough"
    assert rows_of(opened(files)[1]) == expected(1, last), "it counts for nothing yet"
    created = files.calls["create"]
    journal.rotate()
    assert files.calls["create"] == created
    assert files.list() == [journal_name(1), journal_name(2)]
    put(journal, last + 1)
    assert rows_of(opened(files)[1]) == expected(1, last + 1)
    half_full(journal)
    journal.close()
    assert files.list() == [journal_name(1), journal_name(2)]
    assert not journal.prepare_next()


def test_the_thread_of_the_interval_makes_files_ahead(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8", durability="interval") as store:
        for number in range(20_000):  # more than half of the first file, of 1 MiB
            store[number] = number
        store._engine.interval_sync._sync()
        assert list((tmp_path / "s").glob("journal-spare-*.new"))
    assert not list((tmp_path / "s").glob("*.new"))


def test_a_file_made_ahead_that_is_too_small_goes(files: Files) -> None:
    journal, _ = opened(files)
    last = half_full(journal)
    put(journal, last + 1, bytes(100_000))
    assert files.list() == [journal_name(1), journal_name(2)]
    assert files.size(journal_name(2)) > 100_000
    assert rows_of(opened(files)[1])[:-1] == expected(1, last)


def test_a_file_made_ahead_does_not_outlive_a_crash(files: Files) -> None:
    journal, _ = opened(files)
    last = half_full(journal)
    journal, frames = opened(files)
    assert rows_of(frames) == expected(1, last)
    put(journal, last + 1)
    assert files.list() == [journal_name(1), journal_name(2)]


@pytest.mark.parametrize("what", ["create", "allocate", "map", "write", "sync_file"])
def test_a_drive_that_refuses_a_file_ahead_of_time(what: str) -> None:
    files = FailingMemoryFiles()
    journal, _ = opened(files)
    last = half_full(journal)
    journal.rotate()
    while journal.writer is not None and 2 * journal.writer.position < 8192:
        last += 1
        put(journal, last)
    files.fail(what, 1, errno.ENOSPC)
    assert not journal.prepare_next()
    assert files.list() == [journal_name(1), journal_name(2)]
    assert journal.prepare_next(), "there is room again"
    journal.rotate()
    put(journal, last + 1)
    assert rows_of(opened(files)[1]) == expected(1, last + 1)


@pytest.mark.threads
def test_files_are_made_ahead_while_others_commit(tmp_path: Path) -> None:
    files = Files(tmp_path)
    journal, _ = opened(files)
    put(journal, 1)
    ended = threading.Event()

    def ahead() -> None:
        while not ended.is_set():
            journal.prepare_next()

    threads = [threading.Thread(target=ahead) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2, 2001):
            put(journal, number, sync=False)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    journal.close()
    assert not [name for name in files.list() if name.endswith(".new")]
    assert rows_of(opened(files)[1]) == expected(1, 2000)


# -- syncing


def test_a_sync_of_what_is_synced_does_nothing(files: Files) -> None:
    journal, _ = opened(files)
    put(journal, 1)
    writer = journal.writer
    assert writer is not None and writer.sync_count == 1 and writer.fully_synced
    assert writer.sync(writer.position) == _journal.OK
    assert writer.sync_count == 1
    put(journal, 2, sync=False)
    assert not writer.fully_synced
    journal.sync()
    assert writer.sync_count == 2 and writer.synced_position == writer.position


def test_older_files_are_synced_first() -> None:
    files = FailingMemoryFiles()
    journal, _ = opened(files)
    for number in range(1, 301):
        put(journal, number, sync=False)
    count = len(journal.files)
    assert count > 2 and files.calls["sync"] == 0
    journal.sync()
    assert files.calls["sync"] == count
    put(journal, 301)
    assert files.calls["sync"] == count + 1


def test_a_dropped_file_needs_no_sync() -> None:
    files = FailingMemoryFiles()
    journal, _ = opened(files)
    for number in range(1, 301):
        put(journal, number, sync=False)
    records = journal.files
    old = journal._open[0].writer
    drop_through(journal, records[-2].last_sequence)
    assert old.sync(10_000) == _journal.OK
    journal.sync()
    assert files.calls["sync"] == 1


def test_closing_without_a_sync_does_not_claim_one() -> None:
    journal, _ = opened(MemoryFiles())
    put(journal, 1)
    synced = journal.writer
    put(journal, 2, sync=False)
    assert synced is not None
    position = synced.position
    journal.close(clean=False)
    assert synced.sync(synced.synced_position) == _journal.OK
    assert synced.sync(position) == _journal.IO and synced.failed == errno.ECANCELED


def test_a_failed_sync_poisons() -> None:
    for fail_at in range(1, 4):
        files = FailingMemoryFiles()
        files.fail("sync", fail_at, errno.ENOSPC)
        journal, _ = opened(files)
        for number in range(1, fail_at):
            put(journal, number)
        put(journal, fail_at, sync=False)
        with pytest.raises(PoisonedError, match="No space left") as caught:
            journal.sync()
        assert isinstance(caught.value.__cause__, StorageFullError)
        assert journal.poisoned
        with pytest.raises(PoisonedError):
            journal.append(_frames.FRAME_COMMIT, 9, [], 0)
        with pytest.raises(PoisonedError):
            journal.rotate()
        with pytest.raises(OSError):
            journal.sync()
        writer = journal.writer
        assert writer is not None
        if fail_at > 1:
            assert writer.sync(writer.synced_position) == _journal.OK, "that much is durable"
        journal.close()


@pytest.mark.threads
def test_threads_share_syncs(tmp_path: Path) -> None:
    files = Files(tmp_path)
    journal = Journal(files, UUID)
    list(journal.replay())
    mutex = threading.Lock()
    each, count = 40, 6
    sequences = iter(range(1, each * count + 1))
    writers = set()

    def work() -> None:
        for _ in range(each):
            with mutex:
                sequence = next(sequences)
                writer, end = journal.append(_frames.FRAME_COMMIT, sequence, [b"x" * 5000], 0)
                writers.add(writer)
            assert writer.sync(end) == _journal.OK
            assert writer.synced_position >= end

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    syncs = sum(writer.sync_count for writer in writers)
    assert syncs < each * count, "some callers shared a sync"
    assert len(writers) > 1
    journal.close()
    assert len(opened(files)[1]) == each * count


# -- damage


def test_the_format_document_adds_up() -> None:
    """Its tables have no gap, and end where the compiled structs and this package's do."""
    sizes = []
    for name in ("format-journal.md", "format-manifest.md"):
        text = (Path(__file__).parents[2] / "docs" / name).read_text()
        for block in re.findall(
            r"^offset  bytes  field\n(.*?)^```", text, re.MULTILINE | re.DOTALL
        ):
            end = 0
            for line in block.splitlines():
                if found := re.match(r" *(\d+) +(\d+)  \w", line):
                    assert int(found[1]) == end, line
                    end += int(found[2])
            sizes.append(end)
    assert sizes == [
        _frames.FILE_HEADER_BYTES, _frames.FRAME_HEADER_BYTES, _frames.OPERATION_HEADER_BYTES,
        _frames.ROW_HEADER_BYTES,
        manifest.FILE_HEADER.size, manifest.FRAME_HEADER.size,
    ]  # fmt: skip


def made(files: Files, count: int, sync: bool = True, clean: bool = False) -> list[bytes]:
    journal, _ = opened(files, first_file_bytes=1 << 20)
    for number in range(1, count + 1):
        put(journal, number, sync=sync)
    if clean:
        journal.close()
    return [files.read_all(name) for name in files.list()]


def test_zeros_from_anywhere_on_give_a_prefix_and_what_was_dropped_is_counted() -> None:
    files = MemoryFiles()
    (data,) = made(files, 8, clean=True)
    counts = set()
    starts = starts_of(data)
    for size in range(4096, starts[-1] + 64):
        journal, frames = opened(copied(files, {journal_name(1): data[:size]}))
        rows = rows_of(frames)
        assert rows == expected(1, len(rows))
        counts.add(len(rows))
        end = starts[len(rows)]
        if size > starts[8] and not any(data[size : starts[9]]):
            end = starts[9]  # an end frame ends in zeros, which are no loss
        assert journal.dropped_bytes == len(data[end:size].rstrip(b"\0")), size
    assert counts == set(range(9))
    for size in range(0, 112, 7):
        with pytest.raises(CorruptionError):
            opened(copied(files, {journal_name(1): data[:size]}))


def test_a_file_that_was_cut_off_is_corruption() -> None:
    files = MemoryFiles()
    (data,) = made(files, 2)
    for size in [*range(0, 5000, 13), len(data) - 1]:
        cut = copied(files, {})
        fd = cut.open(journal_name(1), writable=True)
        os.ftruncate(fd, size)
        cut.close(fd)
        with pytest.raises(CorruptionError, match="cut off"):
            opened(cut)


@pytest.mark.parametrize("clean", [False, True])
def test_every_flipped_bit_is_found_or_harmless(clean: bool) -> None:
    files = MemoryFiles()
    (data,) = made(files, 3, clean=clean)
    starts = starts_of(data)
    used = starts[-1]
    assert len(starts) == (5 if clean else 4) and not any(data[used:])
    content = bytearray(data[: used + 64])
    found = 0
    header = sorted({*range(0, 4096, 61), *range(112)})
    bits = [bit for byte in header for bit in range(8 * byte, 8 * byte + 8)]
    for bit in (*bits, *range(4096 * 8, len(content) * 8)):
        content[bit // 8] ^= 1 << bit % 8
        try:
            rows = rows_of(opened(copied(files, {journal_name(1): bytes(content)}))[1])
        except (CorruptionError, Error):
            found += 1
        else:
            # The last frame of an unclean end is vouched for by nothing: it may look unwritten.
            assert rows == expected(1, 3) or (not clean and rows == expected(1, 2)), f"bit {bit}"
            assert bit // 8 >= starts[3 if clean else 2]
        content[bit // 8] ^= 1 << bit % 8
    assert found == len(bits) + 8 * (starts[3 if clean else 2] - 4096)


def test_an_unsynced_hole_ends_the_replay() -> None:
    files = MemoryFiles()
    (data,) = made(files, 5, sync=False)
    hole, behind = starts_of(data)[2:4]
    holed = data[:hole] + bytes(behind - hole) + data[behind:]
    files = copied(files, {journal_name(1): holed})
    journal, frames = opened(files)
    assert rows_of(frames) == expected(1, 2)
    put(journal, 3, b"another")
    journal.close()
    _, frames = opened(files)
    assert rows_of(frames) == [*expected(1, 2), *expected(3, 3, b"another")]


def test_a_synced_hole_says_where_it_is() -> None:
    files = MemoryFiles()
    (data,) = made(files, 5, sync=True)
    hole = starts_of(data)[2]
    holed = bytearray(data)
    holed[hole + 30] ^= 1
    with pytest.raises(CorruptionError) as caught:
        opened(copied(files, {journal_name(1): bytes(holed)}))
    error = caught.value
    assert error.offset == hole and str(error.file).endswith(journal_name(1))
    assert error.expected is not None and error.expected != error.found
    # what was flushed needs no frames before it in an older file, but this one is still read
    with pytest.raises(CorruptionError):
        opened(copied(files, {journal_name(1): bytes(holed)}), flushed_sequence=1)


def test_a_hole_before_a_rotation() -> None:
    """Without syncs it ends the replay and later files are dead; with syncs it is corruption."""
    for synced in (False, True):
        files = MemoryFiles()
        journal, _ = opened(files)
        for number in range(1, 700):
            put(journal, number, sync=False)
        assert len(journal.files) >= 3
        if synced:
            journal.sync()
            put(journal, 700)
        data = files.read_all(journal_name(2))
        hole = starts_of(data)[1]
        holed = data[:hole] + bytes(len(data) - hole)
        damaged = copied(files, {journal_name(2): holed})
        if synced:
            with pytest.raises(CorruptionError):
                opened(damaged)
            continue
        first = journal.files[0].last_sequence
        journal, frames = opened(damaged)
        assert rows_of(frames) == expected(1, first + 1)
        numbers = [int(name[8:]) for name in damaged.list()]
        assert rows_of(opened(damaged)[1]) == expected(1, first + 1), "reading changed nothing"
        put(journal, first + 2, b"another")
        assert damaged.list() == [journal_name(n) for n in (1, 2, numbers[-1] + 1)]
        journal.close()
        rows = rows_of(opened(damaged)[1])
        assert rows == [*expected(1, first + 1), *expected(first + 2, first + 2, b"another")]


def test_damage_is_looked_at_twice() -> None:
    """Beside a writer, a late frame may be read and an early one not; a second look has both."""

    class MovingFiles(MemoryFiles):
        reads = 0

        def read_sparse(self, name: str, *arguments: int) -> tuple[Bytes, int]:
            content, end = super().read_sparse(name, *arguments)
            MovingFiles.reads += 1
            if MovingFiles.reads == 1:
                late, following = starts_of(content.tobytes())[1:3]
                content[late:following] = 0
            return content, end

    files = MovingFiles()
    made(files, 5)
    assert rows_of(opened(files)[1]) == expected(1, 5)
    assert MovingFiles.reads == 2


def test_a_missing_file_in_the_middle() -> None:
    files = MemoryFiles()
    journal, _ = opened(files)
    for number in range(1, 700):
        put(journal, number)
    middle = journal.files[1]
    for flushed in (0, middle.last_sequence - 1):
        with pytest.raises(CorruptionError, match="missing"):
            opened(copied(files, {journal_name(2): None}), flushed_sequence=flushed)
    rest = opened(copied(files, {journal_name(2): None}), flushed_sequence=middle.last_sequence)[1]
    assert rows_of(rest) == expected(middle.last_sequence + 1, 699)


def test_content_of_a_former_life_never_replays() -> None:
    """A new header over old frames: of the same place, of other epochs, and shifted."""
    old = MemoryFiles()
    (before,) = made(old, 20)
    starts = starts_of(before)
    for opening in (1, 2):
        files = MemoryFiles()
        for _ in range(opening):
            journal, _ = opened(files, first_file_bytes=1 << 20)
            journal.rotate()
            journal.close(clean=False)
        name = files.list()[-1]
        fresh = files.read_all(name)
        for shift in (0, 120, 40, 8):
            body = bytes(shift) + before[4096 : len(fresh) - shift]
            recycled = copied(files, {name: fresh[:4096] + body})
            journal, frames = opened(recycled)
            assert frames == []
    # and behind new frames, at the very place where the next one would be
    files = MemoryFiles()
    (data,) = made(files, 2)
    used = starts_of(data)[-1]
    assert used == starts[2]
    recycled = copied(files, {journal_name(1): data[:used] + before[used:]})
    assert rows_of(opened(recycled)[1]) == expected(1, 2)


def test_a_journal_stored_inside_a_value_vouches_for_nothing() -> None:
    inner = MemoryFiles()
    (data,) = made(inner, 20)
    for shift in range(0, 200, 8):
        files = MemoryFiles()
        journal, _ = opened(files, first_file_bytes=1 << 20)
        put(journal, 1)
        put(journal, 2, bytes(shift) + data[4096:8192], sync=False)
        content = bytearray(files.read_all(journal_name(1)))
        content[starts_of(content)[1] + 8] ^= 1
        rows = rows_of(opened(copied(files, {journal_name(1): bytes(content)}))[1])
        assert rows == expected(1, 1)


def test_files_of_another_store_or_name_are_refused() -> None:
    files = MemoryFiles()
    (data,) = made(files, 2)
    with pytest.raises(CorruptionError, match="another store"):
        Journal(files, bytes(16))
    renamed = copied(files, {})
    renamed.rename(journal_name(1), journal_name(4))
    with pytest.raises(CorruptionError, match="another's name"):
        opened(renamed)
    header = bytearray(data)
    header[24] |= 1
    header[8:12] = _frames.checksum(bytes(header[12:4096])).to_bytes(4, "little")
    with pytest.raises(Error, match="blob log"):
        opened(copied(files, {journal_name(1): bytes(header)}))


def resealed(data: bytearray, position: int, previous: int) -> int:
    """Give the frame at `position` the checksum that fits its bytes."""
    length = length_at(data, position)
    if not data[position + 4] & 7:
        struct.pack_into("<I", data, position + 48, previous)
    (seed,) = struct.unpack_from("<I", data, 8)
    value = _frames.checksum(bytes(data[position + 4 : position + length]), position ^ seed)
    struct.pack_into("<I", data, position, value)
    return value


@pytest.mark.parametrize("number", [0, 1])
@given(st.data())
def test_hostile_operations_under_sound_checksums(number: int, data: st.DataObject) -> None:
    """Bytes of the first frame, a full one, and of the second, a row frame."""
    files = MemoryFiles()
    (original,) = made(files, 2)
    content = bytearray(original)
    start, end = starts_of(content)[number : number + 2]
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(start + (6 if number else 52), end - 1))
        content[offset] = data.draw(st.integers(0, 255))
    previous = struct.unpack_from("<I", content, 8)[0]
    for position in starts_of(content)[:-1]:
        previous = resealed(content, position, previous)
    try:
        for frame in opened(copied(files, {journal_name(1): bytes(content)}))[1]:
            for operation in frame.operations():
                assert operation.key_data is None or len(operation.key_data) <= end - start
    except CorruptionError:
        pass


def test_what_this_version_cannot_read_is_refused() -> None:
    for offset in (8, 10, 12):
        files = MemoryFiles()
        (original,) = made(files, 1)
        content = bytearray(original)
        content[4096 + offset] = 77
        resealed(content, 4096, struct.unpack_from("<I", content, 8)[0])
        with pytest.raises(Error, match="77"):
            opened(copied(files, {journal_name(1): bytes(content)}))


@given(st.binary(max_size=300), st.integers(0, 100), st.booleans(), st.integers(0, 2**64 - 1))
def test_walking_any_bytes(payload: bytes, offset: int, row: bool, last: int) -> None:
    """Lengths that fit are put in; what lies behind the frame's header is anything."""
    base = _frames.FrameBase(1, 2, last, 3, True)
    data = bytearray(payload.ljust(24, b"\1"))
    data += bytes(-len(data) % 8)
    if not row and len(data) < 56:
        data += bytes(56)
    struct.pack_into("<H" if row else "<I", data, 4, len(data) + row)
    found = _frames.next_operation(data, 0, len(data), base, offset)
    assert found is None or found == -1 or isinstance(found, tuple)
    assert _frames.next_frame(data, 0, len(data), base) is not None or data[6] & 16
    _frames.check_frames(data, 0, len(data), base)
    assert _frames.find_frame(payload, 0, len(payload), base, last) is None
    assert _frames.highest_vouched(payload, 0, len(payload), base, last) == last


@given(st.lists(st.tuples(st.sampled_from("psrdcko"), st.integers(0, 600)), max_size=40))
def test_a_journal_is_a_list_of_commits(steps: list[tuple[str, int]]) -> None:
    """Puts, syncs, rotations, drops, closes and kills against a list."""
    files = MemoryFiles()
    model: list[Row] = []
    sequence = flushed = 0
    journal, _ = opened(files)
    for step, number in steps:
        if step == "p":
            sequence += 1
            put(journal, sequence, b"v" * number, sync=False)
            model.append((sequence, b"key %d" % sequence, b"v" * number))
        elif step == "s":
            journal.sync()
        elif step == "r":
            journal.rotate()
        elif step == "d":
            flushed = max(flushed, sequence - number % 10)
            drop_through(journal, flushed, including_current=number % 2 == 0)
        else:
            if step == "c":
                journal.close()
            journal, frames = opened(files, flushed_sequence=flushed, minimum_epoch=journal.epoch)
            assert rows_of(frames) == [row for row in model if row[0] > flushed]
            assert journal.last_sequence == sequence
    _, frames = opened(files, flushed_sequence=flushed)
    assert rows_of(frames) == [row for row in model if row[0] > flushed]


# -- what the drive and the kernel do


KILLED = """
import os, sys, time
from cesium.files import Files
from cesium.journal import Journal, PROCESS_STEP_BYTES
journal = Journal(Files(sys.argv[1]), bytes(range(16)), prepare_step_bytes=PROCESS_STEP_BYTES)
assert list(journal.replay()) == []
writer = journal.rotate()
for number in range(1, 1_000_000):
    row = number, time.time_ns(), 1, 1, 0, b"key %d" % number, b"value"
    status, end = writer.append_single(*row)
    if status == 2:
        writer = journal.rotate()
        writer.append_single(*row)
    if number % 1000 == 0:
        os.write(1, b"%d\\n" % number)
"""


@pytest.mark.crash
def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 20_000:
        acknowledged = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    acknowledged = max([acknowledged, *(int(line) for line in rest.split())])
    _, frames = opened(Files(tmp_path))
    assert len(frames) >= acknowledged
    assert [frame.sequence for frame in frames] == list(range(1, len(frames) + 1))


def test_a_small_journal_is_small_on_the_drive(tmp_path: Path) -> None:
    files = Files(tmp_path)
    journal = Journal(files, UUID, prepare_step_bytes=PROCESS_STEP_BYTES)
    put(journal, 1)
    assert files.allocated(journal_name(1)) <= (1 << 20) + 65536


def test_a_synced_put_dirties_one_page(tmp_path: Path) -> None:
    """By the process's own account; the account that counts is the drive's, in bench/."""

    def written_bytes() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))

    try:
        written_bytes()
    except (OSError, StopIteration):
        pytest.skip("no account of bytes written here")
    journal = Journal(Files(tmp_path), UUID)
    put(journal, 1)
    amounts = []
    for number in range(2, 200):
        before = written_bytes()
        put(journal, number)
        amounts.append(written_bytes() - before)
    assert max(amounts) <= 8192


def test_the_mapping_must_be_whole_pages() -> None:
    files = MemoryFiles()
    fd = files.create("f", 8192)
    mapping = mmap.mmap(fd, 8192)
    with pytest.raises(ValueError):
        _journal.JournalWriter(
            fd, memoryview(mapping)[8:], files.operations, number=1, epoch=1,
            base_sequence=0, creation_time=0,
            header_checksum=0, prepare_step_bytes=4096,
        )  # fmt: skip
    writer = _journal.JournalWriter(
        fd, mapping, files.operations, number=1, epoch=1,
            base_sequence=0, creation_time=0,
        header_checksum=0, prepare_step_bytes=4096,
    )  # fmt: skip
    writer.retire()
    with pytest.raises(ValueError, match="retired"):
        writer.append(1, 1, 1, [], 0)
    mapping.close()
    files.close(fd)
