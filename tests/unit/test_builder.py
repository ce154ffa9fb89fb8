"""Segment builder: bulk paths, writing behind, failures, what `finish` tells."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from cesium._builder import SegmentBuilder
from cesium._page import TableShape
from cesium._segment import UNBOUNDED_UPPER
from cesium.errors import LimitError, StorageFullError
from cesium.files import DirectFile, Files, MemoryFiles
from failing_files import FailingFiles
from segment_files import NAME, SEGMENT_ID, UUID, build, checksum, content, open_segment


def builder(files: Files, shape: TableShape, **options: int) -> SegmentBuilder:
    return SegmentBuilder(files, NAME, SEGMENT_ID, UUID, shape, **options)


ROWS = 150_000  # 4.5 MiB of 32-byte rows: both buffers take their turn


@pytest.mark.parametrize("fields", [(8,), (4, 4), (1, 2, 5), (8, 8, 16), (3,)])
@pytest.mark.parametrize("place", ["directory", "memory"])
def test_columns_pairs_and_single_entries_give_the_same_file(
    fields: tuple[int, ...], place: str, tmp_path: Path
) -> None:
    width = sum(fields)
    shape = TableShape(8, width, fields)
    random = np.random.default_rng(1)
    heads = np.unique(random.integers(0, 2**64, ROWS, np.uint64))
    rows = random.integers(0, 256, (len(heads), width), np.uint8)
    files = Files(tmp_path) if place == "directory" else MemoryFiles()

    bulk = builder(files, shape)
    third = len(heads) // 3
    bulk.add_columns(heads[:third], rows[:third].reshape(-1))
    bulk.add_columns(heads[third:], rows[third:].reshape(-1))
    record = bulk.finish()
    expected = content(files)
    assert record["bytes"] == len(expected) > len(heads) * (8 + width)
    assert record["value_bytes"] == rows.nbytes
    assert record["key_bytes"] == heads.nbytes

    order = random.permutation(len(heads)).astype(np.uint64)
    shuffled = np.empty_like(rows)
    shuffled[order] = rows
    pairs = builder(files, shape)
    pairs.add_pairs(np.column_stack((heads, order)), shuffled.reshape(-1))
    assert pairs.finish() == record
    assert content(files) == expected

    if width <= 8:
        payload = np.zeros((len(heads), 8), np.uint8)
        payload[:, :width] = rows
        inline = builder(files, shape)
        inline.add_pairs(np.column_stack((heads, payload.view(np.uint64).reshape(-1))))
        assert inline.finish() == record
        assert content(files) == expected

    single = builder(files, shape)
    for head, row in zip(heads.tolist(), rows, strict=True):
        single.add(head, row.tobytes())
    assert single.finish() == record
    assert content(files) == expected


def test_every_page_has_its_own_checksum() -> None:
    files, record = build(
        TableShape(0, 0),
        [(b"%05d" % i, b"v" * (i % 3000)) for i in range(500)],
        [(b"a", b"b")],
        filter_keys=500,
    )
    data = content(files)
    for number in range(record.page_count):
        page = bytes(data[number * 4096 : (number + 1) * 4096])
        assert struct.unpack_from("<I", page)[0] == checksum(number, page)
    assert record.checksum == struct.unpack_from("<I", data, len(data) - 4096)[0]


def test_entries_of_another_segment_are_copied() -> None:
    shape = TableShape(8, 8, slots_max=5)
    entries = [(i * 3, None if i % 11 == 0 else struct.pack("<Q", i)) for i in range(700)]
    files, record = build(shape, entries)
    reader, _ = open_segment(files, record, shape)
    for lower, upper in [(0, None), (0, 700), (3, 4), (5, 340), (699, 700), (700, None)]:
        others = MemoryFiles()
        copy = builder(others, shape)
        copy.add_segment(reader, lower, upper)
        expected_files, expected = build(shape, entries[lower:upper])
        assert copy.finish() == vars(expected)
        assert content(others) == content(expected_files)


def test_overflowed_entries_are_copied() -> None:
    shape = TableShape(0, 0)
    entries = [(b"%04d" % i * (1 + i % 200), bytes([i % 256]) * (i * 50)) for i in range(300)]
    files, record = build(shape, entries, filter_keys=300)
    reader, _ = open_segment(files, record, shape)
    others = MemoryFiles()
    copy = builder(others, shape, filter_keys=300)
    copy.add_segment(reader)
    assert copy.finish() == vars(record)
    assert content(others) == content(files)


def test_a_copied_segment_that_is_damaged_raises_its_own_error() -> None:
    from cesium.errors import CorruptionError
    from segment_files import with_content

    shape = TableShape(8, 8)
    files, record = build(shape, [(i, bytes(8)) for i in range(2000)])
    data = content(files)
    data[4096 + 100] ^= 1
    reader, _ = open_segment(with_content(bytes(data)), record, shape)
    copy = builder(MemoryFiles(), shape)
    with pytest.raises(CorruptionError) as raised:
        copy.add_segment(reader)
    assert raised.value.offset == 4096


class RefusingFiles(Files):
    """A file system that takes O_DIRECT at open and refuses every write that uses it."""

    def open_direct(self, name: str, allocate_bytes: int) -> DirectFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        return DirectFile(os.open(self.path(name), flags, 0o666), 4096, False)


def test_buffered_writes_give_the_same_file(tmp_path: Path) -> None:
    shape = TableShape(8, 8)
    entries = [(i, struct.pack("<Q", i)) for i in range(300_000)]
    direct, record = build(shape, entries, files=Files(tmp_path))
    expected = content(direct)
    buffered, again = build(shape, entries, files=RefusingFiles(tmp_path))
    assert again == record
    assert content(buffered) == expected


@pytest.mark.parametrize("rows", [10, 400_000])
def test_direct_io_refused_at_the_first_write(tmp_path: Path, rows: int) -> None:
    files = FailingFiles(tmp_path)
    opened = files.open_direct(NAME, 0)
    os.close(opened.fd)
    if not opened.direct:
        pytest.skip("this file system has no direct I/O")
    shape = TableShape(8, 8)
    files.fail("write", 1, errno.EINVAL)
    bulk = builder(files, shape)
    bulk.add_columns(np.arange(rows, dtype=np.uint64), np.zeros(rows * 8, np.uint8))
    bulk.finish()
    assert files.failed == 1 and files.calls["write"] >= 2
    memory = MemoryFiles()
    other = builder(memory, shape)
    other.add_columns(np.arange(rows, dtype=np.uint64), np.zeros(rows * 8, np.uint8))
    other.finish()
    assert content(files) == content(memory)


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_failed_write_raises_and_leaves_no_file(tmp_path: Path, call: str) -> None:
    rows = 400_000
    writes = 1
    while True:
        files = FailingFiles(tmp_path)
        files.fail(call, writes, errno.ENOSPC)
        bulk = builder(files, TableShape(8, 8))
        try:
            bulk.add_columns(np.arange(rows, dtype=np.uint64), np.zeros(rows * 8, np.uint8))
            bulk.finish()
            break
        except StorageFullError as full:
            assert full.errno == errno.ENOSPC
            assert full.filename == files.path(NAME)
            bulk.abort()
        assert files.list() == []
        writes += 1
    assert writes > (3 if call == "write" else 1)


def test_abort_removes_the_file_and_ends_the_builder(tmp_path: Path) -> None:
    files = Files(tmp_path)
    bulk = builder(files, TableShape(8, 8))
    bulk.add_columns(np.arange(300_000, dtype=np.uint64), np.zeros(8 * 300_000, np.uint8))
    assert bulk.bytes > 4 << 20
    bulk.abort()
    bulk.abort()
    assert files.list() == []
    with pytest.raises(ValueError, match="finished or aborted"):
        bulk.add(1, bytes(8))


def test_a_builder_that_is_dropped_frees_everything(tmp_path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    bulk = builder(Files(tmp_path), TableShape(8, 8))
    bulk.add_columns(np.arange(300_000, dtype=np.uint64), np.zeros(8 * 300_000, np.uint8))
    del bulk
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_limits() -> None:
    variable = builder(MemoryFiles(), TableShape(0, 0))
    variable.add(b"k" * 65536, b"")
    with pytest.raises(LimitError):
        variable.add(b"l" * 65537, b"")
    wide = builder(MemoryFiles(), TableShape(0, 0))
    wide.add(b"a", bytes(64 << 20))
    with pytest.raises(LimitError):
        wide.add(b"b", bytes((64 << 20) + 1))
    with pytest.raises(ValueError, match="a row has 8 bytes"):
        builder(MemoryFiles(), TableShape(8, 8)).add(1, b"short")


@pytest.mark.parametrize(
    ("entries", "markers", "lower", "upper"),
    [
        ([], [], b"", b""),
        ([b"b", b"c"], [], b"b", b"c"),
        ([b"b", b"c"], [(b"a", b"bb")], b"a", b"c"),
        ([b"b"], [(b"c", b"d")], b"b", b"d"),
        ([b"b"], [(b"c", None)], b"b", UNBOUNDED_UPPER),
        ([b"b" * 600], [], b"b" * 512, b"b" * 511 + b"c"),
        ([b"b" + b"\xff" * 600], [], b"b" + b"\xff" * 511, b"c"),
        ([b"\xff" * 600], [], b"\xff" * 512, UNBOUNDED_UPPER),
        ([b"\xff" * 512], [], b"\xff" * 512, b"\xff" * 512),
        ([], [(b"", b"x" * 700)], b"", b"x" * 511 + b"y"),
    ],
)
def test_bounds_cover_entries_and_markers(
    entries: list[bytes], markers: list[tuple[bytes, bytes | None]], lower: bytes, upper: bytes
) -> None:
    _, record = build(TableShape(0, 0), [(key, b"") for key in entries], markers)
    assert (record.lower, record.upper) == (lower, upper)


@pytest.mark.parametrize(
    ("entries", "markers", "lower", "upper"),
    [
        ([5, 9], [], 5, 9),
        ([5], [(6, 10)], 5, 9),
        ([5], [(1, 2)], 1, 5),
        ([5], [(6, None)], 5, 2**64 - 1),
        ([0, 2**64 - 1], [], 0, 2**64 - 1),
    ],
)
def test_bounds_of_fixed_keys(
    entries: list[int], markers: list[tuple[int, int | None]], lower: int, upper: int
) -> None:
    _, record = build(TableShape(8, 1), [(key, b"x") for key in entries], markers)
    assert (record.lower, record.upper) == (lower.to_bytes(8, "big"), upper.to_bytes(8, "big"))
