"""Segments for tests: built in memory, damaged on purpose, opened again."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from types import SimpleNamespace

from cesium._builder import SegmentBuilder
from cesium._kernels import crc32c
from cesium._page import TableShape
from cesium._segment import SegmentReader
from cesium._segment_view import SegmentView
from cesium.files import Files, MemoryFiles

UUID = bytes(range(16))
NAME = "segment-0000000007"
SEGMENT_ID = 7
PAGE_BYTES = 4096

Key = int | bytes
Entry = tuple[Key, bytes | None]


def build(
    shape: TableShape,
    entries: Iterable[Entry],
    markers: Iterable[tuple[Key, Key | None]] = (),
    *,
    files: Files | None = None,
    filter_keys: int = 0,
) -> tuple[Files, SimpleNamespace]:
    """Build a segment from entries in key order; returns where it is and its record."""
    files = files or MemoryFiles()
    builder = SegmentBuilder(files, NAME, SEGMENT_ID, UUID, shape, filter_keys=filter_keys)
    for key, value in entries:
        builder.add(key, value)
    for lower, upper in markers:
        builder.add_marker(lower, upper)
    return files, SimpleNamespace(**builder.finish())


def open_segment(
    files: Files, record: SimpleNamespace, shape: TableShape, uuid: bytes = UUID
) -> tuple[SegmentReader, SegmentView]:
    """A reader of a built segment, and its entries."""
    reader = SegmentReader(record, files, NAME, shape, uuid)
    return reader, SegmentView(reader)


def content(files: Files) -> bytearray:
    """The bytes of the built segment."""
    return bytearray(files.read_all(NAME))


def with_content(data: bytes) -> Files:
    """Files in memory whose segment has these bytes."""
    files = MemoryFiles()
    fd = files.create(NAME)
    os.pwrite(fd, data, 0)
    os.close(fd)
    return files


def checksum(page_number: int, page: bytes, segment_id: int = SEGMENT_ID) -> int:
    """The checksum that a page should have."""
    return crc32c(page[4:], crc32c(struct.pack("<QQ", segment_id, page_number)))


def seal(data: bytearray, page_number: int) -> None:
    """Give a page that was changed its right checksum."""
    start = page_number * PAGE_BYTES
    page = bytes(data[start : start + PAGE_BYTES])
    struct.pack_into("<I", data, start, checksum(page_number, page))
