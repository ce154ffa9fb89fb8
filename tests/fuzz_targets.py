"""What the fuzzers call: bytes in, a store read in every way, nothing raised but cesium's errors.

A target takes any bytes, makes files of them with right checksums (a hostile writer has those, and
without them no fuzzer gets far), opens these as a store and reads it.  The first byte of an input
chooses schema and mode; the rest is, by target:

- `page`: up to 4 pages; the last is the data page of a segment, those before it are overflow pages;
- `segment`: all pages of a segment file: data, fences, range-deletes, filter and footer;
- `journal`: the first 120 bytes of a file header, then frames;
- `manifest`: a file as it is, or JSON payloads, one a line, that are put into frames.

Nothing here needs a fuzzer: test_smoke.py runs the same functions.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cesium
import hostile_stores as stores
import segment_files as segments
from cesium._builder import UNBOUNDED_UPPER, SegmentBuilder
from cesium._merge import Merge
from cesium._page import TableShape
from cesium.checksum import crc32c
from cesium.files import MemoryFiles
from cesium.manifest import EDIT, FILE_HEADER, FRAME_HEADER, MAGIC, SNAPSHOT, Manifest
from cesium.opening import acquire
from cesium.repair import MODES, repair
from cesium.state import SegmentRecord, State, TableRecord
from journal_frames import length_at

PAGE_BYTES = 4096
PAGES_MOST = 16
JOURNAL_MOST = 1 << 16
HEADER_BYTES = 120  # of a journal file, that are not reserved
FRAME_BYTES = 56
ROW_FRAME_BYTES = 16
PLAIN_CHECKSUMS = 0x80  # in the first byte: leave journal or manifest frames as they are
SEGMENT = segments.NAME
JOURNAL = "journal-000001"

# Key, value, and the widths of both with those of the fields, as schema.py has them.
SCHEMAS: list[tuple[Any, Any, TableShape]] = [
    ("u8", "f8", TableShape(8, 8)),
    ("str", "bytes", TableShape(0, 0)),
    ("bytes", [["a", "u1"], ["b", "f8"]], TableShape(0, 9, (1, 8))),
    ("i2", "str", TableShape(2, 0)),
    (["str", "-i4"], "json", TableShape(0, 0)),
]


def put_file(files: MemoryFiles, name: str, content: bytes) -> None:
    fd = files.create(name)
    files.write_all(fd, content, 0)
    files.close(fd)


@cache
def single(schema: int) -> tuple[bytes, bytes, bytes]:
    """Data page, fence page and footer of a segment with one row."""
    shape = SCHEMAS[schema][2]
    key: Any = 1 if shape_is_fixed(schema) else b"k"
    value = bytes([b"\0" * 8, b"v", b"\0" * 9, b"v", b"{}"][schema])
    files, _ = segments.build(shape, [(key, value)])
    content = bytes(segments.content(files))
    return content[:PAGE_BYTES], content[PAGE_BYTES : 2 * PAGE_BYTES], content[2 * PAGE_BYTES :]


def shape_is_fixed(schema: int) -> bool:
    return schema in (0, 3)


def store_files(schema: int, records: list[SegmentRecord], **more: int) -> MemoryFiles:
    """The files of a store that names some segments."""
    key, value, _ = SCHEMAS[schema]
    files = MemoryFiles()
    state = State(
        segments.UUID, next_table_id=2, next_segment_id=9, sequence=5, flushed_sequence=5,
        tables={1: TableRecord(1, "", key, value)},
        segments={record.id: record for record in records},
    )  # fmt: skip
    Manifest.create(files, replace(state, **more)).close()
    return files


def record_of(schema: int, content: bytes) -> SegmentRecord:
    """What a manifest says of a segment, taken from its footer, whatever that says."""
    page = content[-PAGE_BYTES:]
    (checksum,) = struct.unpack_from("<I", page)
    entries, delete_markers, range_deletes = struct.unpack_from("<QQQ", page, 88)
    fixed = shape_is_fixed(schema)
    return SegmentRecord(
        id=segments.SEGMENT_ID, table=1, tier=1 if not range_deletes else 0,
        lower=bytes(8) if fixed else b"", upper=b"\xff" * 8 if fixed else UNBOUNDED_UPPER,
        rows=entries, markers=range_deletes, delete_markers=delete_markers, first_sequence=1,
        last_sequence=5, bytes=len(content), pages=len(content) // PAGE_BYTES, checksum=checksum,
    )  # fmt: skip


def sealed(content: bytes) -> bytes:
    """Whole pages, each with its right checksum."""
    data = bytearray(content[: PAGES_MOST * PAGE_BYTES])
    data += bytes(-len(data) % PAGE_BYTES)
    for number in range(len(data) // PAGE_BYTES):
        segments.seal(data, number)
    return bytes(data)


# -- reading


def probes_of(store: Any) -> list[Any]:
    """Keys to look up: some that are there, some of the schema that may not be."""
    found: list[Any] = {
        "u8": [0, 1, 2**64 - 1], "str": ["", "k", "x" * 600], "bytes": [b"", b"k", b"k" * 600],
        "i2": [-5, 0, 7],
    }.get(str(store.options.key), [("", 0), ("k", 5)])  # fmt: skip
    with contextlib.suppress(cesium.Error):
        for number, (key, _) in enumerate(store.items()):
            if number < 600 and number % 7 == 0:
                found.append(key)
    return found


def read_all(store: Any) -> int:
    """Reads in every way; how many gave an answer, and one.  Anything but cesium's errors rises."""
    probes = probes_of(store)
    reads: list[Callable[[], Any]] = [
        *(lambda read=read: read(store, probes, ([], 0)) for read in stores.READS.values()),
        *(lambda key=key: store.get(key) for key in probes),
        *(lambda key=key: (store.floor(key), store.higher(key)) for key in probes[:3]),
        lambda: stores.pairs_of(store.range(probes[1], None, reverse=True, limit=9).arrays()),
        lambda: len(store.range(probes[0], probes[1])),
    ]
    answered = 1
    for read in reads:
        with contextlib.suppress(cesium.Error):
            read()
            answered += 1
    store.verify()
    store.stats()
    with contextlib.suppress(cesium.Error):
        merge(store)
    return answered


def merge(store: Any) -> None:
    """What a compaction does with the same bytes."""
    engine = store._engine
    if not engine.main.core.version.segments():
        return
    builder = SegmentBuilder(
        MemoryFiles(), segments.NAME, 8, segments.UUID, engine.main.shape, filter_keys=10
    )
    try:
        Merge(engine.main.core.version, False).write(builder, 1 << 62)
        builder.finish()
    except BaseException:
        builder.abort()
        raise


def read_store(files: MemoryFiles) -> int:
    """Opens and reads; 0 when it does not open, else one and how many reads gave an answer."""
    options = cesium.Options(flag="r")
    try:
        store = cesium.Store(acquire("fuzzed", options, 0, files), options)
    except cesium.Error:
        return 0
    with store:
        return read_all(store)


def repair_store(files: MemoryFiles) -> int:
    """Repairs a store in each mode; how many gave one, which verifies clean and is written to."""
    made = 0
    with stores.scratch() as directory:
        Path(directory / "store").mkdir()
        for name in files.list():
            (directory / "store" / name).write_bytes(files.read_all(name))
        for mode in MODES:
            target = directory / mode
            with contextlib.suppress(cesium.Error):
                repair(directory / "store", target, mode=mode)
                made += 1
                with cesium.open(target, flag="w") as store:
                    assert store.verify().ok
                    store.clear()
                with cesium.open(target, flag="r") as store:
                    assert not len(store)
    return made


Reader = Callable[[MemoryFiles], int]


# -- targets


def page(data: bytes, read: Reader = read_store) -> int:
    schema = data[0] % len(SCHEMAS) if data else 0
    content = data[1 : 1 + 4 * PAGE_BYTES] or b"\0"
    content += bytes(-len(content) % PAGE_BYTES)
    overflow = len(content) // PAGE_BYTES - 1
    (count,) = struct.unpack_from("<H", content, overflow * PAGE_BYTES + 8)
    fence_page, footer_page = (bytearray(part) for part in single(schema)[1:])
    (values,) = struct.unpack_from("<H", fence_page, 20)
    struct.pack_into("<I", fence_page, values, overflow)
    struct.pack_into("<QQ", footer_page, 88, count, 0)
    fences = overflow + 1
    struct.pack_into(
        "<8I", footer_page, 128,
        fences + 2, 1, overflow, fences, 1, fences, 1, fences + 1,
    )  # fmt: skip
    struct.pack_into("<4I", footer_page, 160, 0, fences + 1, 0, 0)
    return segment_of(schema, content + fence_page + footer_page, read)


def segment(data: bytes, read: Reader = read_store) -> int:
    schema = data[0] % len(SCHEMAS) if data else 0
    return segment_of(schema, data[1:] or b"\0", read)


def segment_of(schema: int, content: bytes, read: Reader) -> int:
    content = sealed(content)
    files = store_files(schema, [record_of(schema, content)])
    put_file(files, SEGMENT, content)
    return read(files)


def journal(data: bytes, read: Reader = read_store) -> int:
    schema = data[0] % 0x80 % len(SCHEMAS) if data else 0
    header = bytearray(data[1 : 1 + HEADER_BYTES].ljust(PAGE_BYTES, b"\0"))
    frames = bytearray(data[1 + HEADER_BYTES :][:JOURNAL_MOST])
    frames += bytes(-len(frames) % 8)
    struct.pack_into("<I", header, 8, crc32c(header[12:]))
    if not (data and data[0] & PLAIN_CHECKSUMS):
        seal_frames(header, frames)
    files = store_files(schema, [], sequence=0, flushed_sequence=0, next_segment_id=1)
    put_file(files, SEGMENT, b"".join(single(schema)))
    put_file(files, JOURNAL, bytes(header + frames))
    return read(files)


def seal_frames(header: bytes | bytearray, frames: bytearray) -> None:
    """Right checksums, and right checksums of the frames before, as far as lengths lead."""
    (file_checksum,) = struct.unpack_from("<I", header, 8)
    previous, start = file_checksum, 0
    while len(frames) - start >= ROW_FRAME_BYTES:
        length = length_at(frames, start)
        row = frames[start + 4] & 7 == 1
        if not (ROW_FRAME_BYTES if row else FRAME_BYTES) <= length <= len(frames) - start:
            return
        if not row:
            struct.pack_into("<I", frames, start + 48, previous)
        seed = (PAGE_BYTES + start) ^ file_checksum
        previous = crc32c(frames[start + 4 : start + length], seed)
        struct.pack_into("<I", frames, start, previous)
        start += length


def manifest(data: bytes, read: Reader = read_store) -> int:
    files = store_files(0, [])
    if data and data[0] & PLAIN_CHECKSUMS:
        content = data[1:]
    else:
        content = manifest_of([line for line in data[1:].split(b"\n") if line])
    put_file(files, SEGMENT, b"".join(single(0)))
    put_file(files, "manifest-000001", content)
    return read(files)


def manifest_of(payloads: list[bytes]) -> bytes:
    """A file of one snapshot and edits, whatever these say."""
    rest = FILE_HEADER.pack(MAGIC, 0, 1, 0, 0, segments.UUID, 1)[12:]
    previous = crc32c(rest)
    content = MAGIC + struct.pack("<I", previous) + rest
    for number, payload in enumerate(payloads):
        padded = payload + bytes(-len(payload) % 8)
        header = FRAME_HEADER.pack(
            0, FRAME_HEADER.size + len(padded), EDIT if number else SNAPSHOT, 0, 0, 0, 0, number,
            previous, crc32c(padded), len(payload), 0,
        )[4:]  # fmt: skip
        previous = crc32c(header, len(content))
        content += struct.pack("<I", previous) + header + padded
    return content


TARGETS: dict[str, Callable[..., int]] = {
    "page": page,
    "segment": segment,
    "journal": journal,
    "manifest": manifest,
}
