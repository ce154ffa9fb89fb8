"""Merges: pages taken whole, damage that kept its checksum, what the counters say."""

from __future__ import annotations

import random
import struct
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cesium
from cesium._builder import SegmentBuilder
from cesium._merge import Merge
from cesium._page import TableShape
from cesium._segment import SegmentReader
from cesium._segment_view import SegmentView
from cesium._version import Version
from cesium.errors import CorruptionError, Error
from cesium.files import MemoryFiles
from segment_files import (
    NAME,
    PAGE_BYTES,
    SEGMENT_ID,
    UUID,
    Entry,
    Key,
    build,
    content,
    open_segment,
    seal,
    with_content,
)

Marker = tuple[Key, Key | None]
FIXED = TableShape(8, 8)
VARIABLE = TableShape(0, 0)
HEADER_BYTES = 64


def reader_of(
    shape: TableShape, entries: list[Entry], markers: list[Marker] | None = None
) -> SegmentReader:
    files, record = build(shape, entries, markers or [])
    record.markers = record.range_deletes
    return open_segment(files, record, shape)[0]


def row(number: int) -> bytes:
    return struct.pack("<Q", number)


def key_of(shape: TableShape, number: int) -> Key:
    return number if shape is FIXED else b"key %08d" % number


class Merged:
    """One merge of readers, newest first, into one segment with a filter."""

    def __init__(
        self, shape: TableShape, readers: list[SegmentReader], keep_markers: bool = False
    ) -> None:
        files = MemoryFiles()
        builder = SegmentBuilder(files, NAME, SEGMENT_ID, UUID, shape, filter_keys=1000)
        version = Version(shape, [[reader] for reader in readers], False)
        self.merge = Merge(version, keep_markers)
        try:
            self.merge.write(builder, 1 << 40)
            self.record = SimpleNamespace(**builder.finish())
        except BaseException:
            builder.abort()
            raise
        self.reader, self.view = open_segment(files, self.record, shape)

    def check(self, expected: list[Entry]) -> None:
        assert list(self.view.entries()) == expected
        assert list(self.reader.verify()) == []
        assert self.record.rows == len(expected)
        for number, (key, value) in enumerate(expected[::97]):
            assert self.view.find(key) == (key, value)
            assert self.view.may_contain(key)
            assert self.view.rank(key) == number * 97


@pytest.mark.parametrize("shape", [FIXED, VARIABLE, TableShape(8, 0)], ids=["8+8", "text", "8+"])
def test_pages_that_interleave_with_nothing_are_taken_whole(shape: TableShape) -> None:
    count = 60_000
    late = set(random.Random(5).sample(range(count // 2), 12))
    fixed = shape is not VARIABLE
    entries: list[Entry] = [
        (i if fixed else b"key %08d" % i, row(i) if shape is FIXED else b"value %d" % i)
        for i in range(count)
    ]
    older = [entry for i, entry in enumerate(entries[: count // 2]) if i not in late]
    newer = [entry for i, entry in enumerate(entries) if i in late or i >= count // 2]
    merged = Merged(shape, [reader_of(shape, newer), reader_of(shape, older)])
    merged.check(entries)
    pages = merged.reader.footer()["data_pages"]
    assert merged.merge.rows_read == count
    # A late row unpacks the page that it falls into, and the next may have to fill the one begun.
    assert pages - 3 * len(late) - 3 <= merged.merge.whole_pages <= pages - len(late)
    assert merged.merge.whole_rows > 0.8 * count


def test_pages_that_interleave_are_packed_densely_again() -> None:
    entries: list[Entry] = [(i, row(i)) for i in range(40_000)]
    merged = Merged(FIXED, [reader_of(FIXED, entries[i::4]) for i in range(4)])
    merged.check(entries)
    assert merged.merge.whole_pages == 0
    assert merged.reader.footer()["data_pages"] == -(-40_000 // 252)


def test_pages_taken_whole_leave_little_room_unused() -> None:
    """One row in ten pages breaks in: most of what follows may not be sealed early for it."""
    count = 252 * 300
    older: list[Entry] = [(2 * i, row(i)) for i in range(count)]
    newer: list[Entry] = [(2 * i + 1, row(i)) for i in range(0, count, 2520)]
    merged = Merged(FIXED, [reader_of(FIXED, newer), reader_of(FIXED, older)])
    merged.check(sorted(newer + older))
    assert merged.reader.footer()["data_pages"] <= 300 * 17 / 16 + 3


def test_short_pages_are_joined() -> None:
    parts = [[(i, row(i)) for i in range(start, start + 60)] for start in range(0, 6000, 60)]
    merged = Merged(FIXED, [reader_of(FIXED, part) for part in parts])
    merged.check([entry for part in parts for entry in part])
    assert merged.merge.whole_pages == 0
    assert merged.reader.footer()["data_pages"] == -(-6000 // 252)


def test_delete_markers_are_kept_in_whole_pages_and_taken_out_of_them() -> None:
    entries: list[Entry] = [(i, None if i % 7 == 0 else row(i)) for i in range(20_000)]
    kept = Merged(FIXED, [reader_of(FIXED, entries)], keep_markers=True)
    kept.check(entries)
    assert kept.record.delete_markers == len(entries[::7])
    assert kept.merge.whole_pages >= len(entries) // 252
    dropped = Merged(FIXED, [reader_of(FIXED, entries)])
    dropped.check([entry for entry in entries if entry[1] is not None])
    assert dropped.merge.whole_pages == 0
    assert dropped.merge.rows_read == len(entries)


def test_overflowed_entries_are_never_taken_with_their_page() -> None:
    entries: list[Entry] = [(b"%05d" % i, b"v" * (2000 if i % 20 == 0 else 90)) for i in range(900)]
    merged = Merged(VARIABLE, [reader_of(VARIABLE, entries)])
    merged.check(entries)
    assert merged.merge.whole_pages == 0


def unsorted(shape: TableShape, page: int, first: int, second: int) -> SegmentReader:
    """A segment of which two heads in one page have changed places, with a right checksum."""
    entries = [(key_of(shape, i * 2), row(i)) for i in range(2000)]
    files, record = build(shape, entries)
    record.markers = 0
    data = content(files)
    heads = heads_of(data, page)
    heads[[first, second]] = heads[[second, first]]
    del heads
    seal(data, page)
    return open_segment(with_content(bytes(data)), record, shape)[0]


@pytest.mark.parametrize("shape", [FIXED, VARIABLE], ids=["8+8", "text"])
@pytest.mark.parametrize("places", [(0, 1), (0, 50), (20, 70), (98, 99)])
@pytest.mark.parametrize("page", [0, 2])
def test_unsorted_pages_neither_crash_nor_go_round(
    shape: TableShape, page: int, places: tuple[int, int]
) -> None:
    damaged = unsorted(shape, page, *places)
    heads = [int(key if isinstance(key, int) else key[4:]) for key, _ in view_of(damaged)]
    low, high = (heads[page * 100 + place] for place in places)
    others: list[list[tuple[int, int | None]]] = [
        [],
        [(low, low + 1)],
        [(high, high + 1)],
        [(min(low, high) + 2, max(low, high))],
        [(low - 3 if low > 2 else 0, low + 5)],
        [(low, None)],
    ]
    for markers in others:
        cut = [
            (key_of(shape, lower), None if upper is None else key_of(shape, upper))
            for lower, upper in markers
        ]
        newer = reader_of(shape, [(key_of(shape, 1001), row(1))], cut)
        try:
            merged = Merged(shape, [newer, damaged])
        except Error:
            continue
        assert merged.merge.rows_read <= 2001
        if shape is FIXED:
            keys = [key for key, _ in merged.view.entries()]
            assert all(a < b for a, b in pairwise(keys))


def view_of(reader: SegmentReader) -> list[Entry]:
    return list(SegmentView(reader).entries())


def test_an_unsorted_page_of_fixed_keys_is_named_damage() -> None:
    with pytest.raises(CorruptionError):
        Merged(FIXED, [unsorted(FIXED, 1, 10, 60)])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_range_over_a_key_in_a_wrong_page_ends(reverse: bool, tmp_path: Path) -> None:
    """A range-delete is jumped over by a search, which led back to before the key that it hid."""
    count, astray = 2000, 30
    with cesium.open(tmp_path / "store", key="u8", value="f8") as store:
        store.bulk_load(2 * np.arange(0, count, dtype=np.uint64), np.zeros(count))
        (reader,) = store.core.version.segments()
        data = bytearray(Path(reader.path).read_bytes())
        # The first head of the third page becomes one of the first page, or (backwards) the last
        # head of the first page one of the third: under pages that were checked before.
        first, third = (heads_of(data, page) for page in (0, 2))
        if reverse:
            deleted = (len(first) + len(heads_of(data, 1)) + astray) * 2
            first[-1] = third[astray]
        else:
            deleted = astray * 2
            third[0] = first[astray]
        del first, third
        with Path(reader.path).open("r+b") as file:
            file.write(data)
        store.delete_range(deleted, deleted + 1)
        with pytest.raises(CorruptionError):
            list(store.range(reverse=reverse, limit=5 * count))


def heads_of(data: bytearray, page: int) -> Any:
    """The heads of a page, to be changed."""
    count, _, _, offset = struct.unpack_from("<4H", data, page * PAGE_BYTES + 8)
    return np.frombuffer(data, np.uint64, count, page * PAGE_BYTES + offset)
