"""Inputs for the targets of fuzz_targets.py: sound ones, and sound ones changed on purpose.

A mutation knows where the fields of pages, frames and footers lie, and what numbers break things:
limits, off-by-ones, another field's value.  Everything follows from the seed of `rng`.
"""

from __future__ import annotations

import json
import random
import re
import struct
from functools import cache
from typing import Any

import numpy as np

import cesium
import fuzz_targets as targets
import hostile_stores as stores
import segment_files as segments
from cesium._frames import FRAME_ATTACH
from fuzz_targets import HEADER_BYTES, PAGE_BYTES, PLAIN_CHECKSUMS, SCHEMAS
from journal_frames import length_at

INTERESTING = [
    0, 1, 2, 7, 8, 9, 63, 64, 65, 126, 127, 128, 255, 256, 511, 512, 513, 1023, 1024, 1025, 4031,
    4032, 4033, 4095, 4096, 4097, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**63 - 1, 2**63, 2**64 - 1,
]  # fmt: skip

# Offset and width of the fields of a page header, of a footer, of frames.
PAGE_FIELDS = [
    (4, 1), (5, 1), (6, 1), (7, 1), *((offset, 2) for offset in range(8, 30, 2)), (32, 8), (40, 4),
]  # fmt: skip
FOOTER_FIELDS = [
    *((offset, 8) for offset in range(56, 128, 8)), *((offset, 4) for offset in range(128, 204, 4)),
    (256, 2), (258, 2),
]  # fmt: skip
FRAME_FIELDS = [(4, 4), (8, 1), (9, 1), (10, 1), (12, 4), (16, 8), (24, 8), (40, 8), (52, 4)]
ROW_FIELDS = [(4, 2), (4, 4), (6, 1), (7, 1), (8, 4), (12, 4), (16, 8), (16, 4), (20, 4), (24, 8)]
OPERATION_FIELDS = [(56, 4), (60, 1), (61, 1), (64, 4), (72, 8), (80, 8), (88, 4), (92, 4)]
HEADER_FIELDS = [(offset, 8) for offset in range(48, 104, 8)] + [(12, 4), (108, 4), (112, 8)]


def entries_of(schema: int, rng: random.Random) -> list[tuple[Any, bytes | None]]:
    """Rows of a segment, by kind of schema: many or few, with long keys, values and markers."""
    shape = SCHEMAS[schema][2]
    count = rng.choice([1, 3, 20, 300])
    found: dict[Any, bytes | None] = {}
    for number in range(count):
        key: Any = number * 3 << (48 if schema == 3 else 0)
        if not targets.shape_is_fixed(schema):
            key = b"key %03d" % number + b"k" * rng.choice([0, 0, 0, 8, 600])
            if schema == 4:
                key += b"\0\0" + (2**31 + number ^ 0xFFFFFFFF).to_bytes(4, "big")
        value: bytes | None = rng.randbytes(9)[: [8, 0, 9, 0, 0][schema]]
        if schema in (1, 3):
            value = b"v" * rng.choice([0, 3, 3, 40, 1100, 5000] if count < 300 else [0, 5])
        elif schema == 4:
            value = json.dumps({"number": number}).encode()
        found[key] = None if rng.random() < 0.1 else value
    assert shape is not None
    return sorted(found.items())


def markers_of(schema: int) -> list[tuple[Any, Any]]:
    if targets.shape_is_fixed(schema):
        return [(5, 9), (2**60, None)]
    return [(b"key 004", b"key 006" + b"x" * 700), (b"z", None)]


@cache
def segment_seeds() -> list[bytes]:
    """Segments of every schema: small and large, with markers and filters, and without."""
    rng = random.Random("segments")
    found = []
    for schema in range(len(SCHEMAS)):
        for variant in range(4):
            entries = entries_of(schema, rng)
            markers = markers_of(schema) if variant % 2 else []
            files, _ = segments.build(
                SCHEMAS[schema][2], entries, markers, filter_keys=50 * (variant // 2)
            )
            content = bytes(segments.content(files))
            if len(content) <= targets.PAGES_MOST * PAGE_BYTES:
                found.append(bytes([schema]) + content)
    return found


@cache
def page_seeds() -> list[bytes]:
    """Data pages with the overflow pages before them."""
    found = []
    for seed in segment_seeds():
        content, first = seed[1:], 0
        for start in range(0, len(content), PAGE_BYTES):
            if content[start + 4] == 1 and start - first <= 3 * PAGE_BYTES:
                found.append(seed[:1] + content[first : start + PAGE_BYTES])
            if content[start + 4] != 3:
                first = start + PAGE_BYTES
    return found[::2]


@cache
def journal_seeds() -> list[bytes]:
    """The journals of real stores, with every kind of frame."""
    found = []
    for schema, (key, value, _) in enumerate(SCHEMAS):
        with stores.scratch() as directory:
            spec = tuple(key) if isinstance(key, list) else key
            dtype = [tuple(field) for field in value] if isinstance(value, list) else value
            # Without threads: an idle checkpoint would take the journal away.
            options = cesium.Options(spec, dtype, background=False)
            store = cesium.open(directory / "s", options=options)
            keys: list[Any] = {
                0: [5, 1, 2**40], 1: ["", "b" * 700, "c"], 2: [b"", b"b" * 700, b"c"],
                3: [1, -7, 300], 4: [("", 1), ("b" * 700, 2), ("c", -3)],
            }[schema]  # fmt: skip
            values: list[Any] = {
                0: [0.5] * 3, 1: [b"", b"v" * 2000, b"w"], 2: [(1, 0.5)] * 3,
                3: ["", "v" * 2000, "w"], 4: [{}, [1, "x"], None],
            }[schema]  # fmt: skip
            if isinstance(dtype, list):
                values = list(np.array(values, dtype))
            store.put(keys[0], values[0])
            store.put_many(keys, values)
            store.delete(keys[2])
            store.delete_range(keys[0], None)
            with stores.loads_stay_in_the_journal():
                store.bulk_load(keys[:2], values[:2])
            store.delete_many(keys[1:])
            store.put(keys[1], values[1])
            content = max((directory / "s").glob("journal-*")).read_bytes()
            store.close()
        used = content[:HEADER_BYTES] + content[PAGE_BYTES:].rstrip(b"\0")
        # As the first file of the store that the target makes, without a predecessor.
        header = bytearray(used[:HEADER_BYTES])
        header[32:48] = segments.UUID
        header[48:120] = bytes(72)
        header[48], header[56] = 1, content[56]
        frames = naming_the_targets_segment(schema, used[HEADER_BYTES:] + bytes(8))
        found.append(bytes([schema]) + header + frames)
    return found


def naming_the_targets_segment(schema: int, frames: bytes) -> bytes:
    """The same frames, with the segment that the target puts beside them in the attach frame."""
    record = targets.record_of(schema, b"".join(targets.single(schema)))
    text = json.dumps({"segments": [record.to_json()]}).encode()
    payload = struct.pack("<Q", len(text)) + text + bytes(-len(text) % 8)
    result, at = b"", 0
    while at + targets.ROW_FRAME_BYTES <= len(frames) and (length := length_at(frames, at)):
        frame = bytearray(frames[at : at + length])
        if not frame[4] & 7 and frame[8] == FRAME_ATTACH:
            frame[targets.FRAME_BYTES :] = payload
            struct.pack_into("<I", frame, 4, len(frame))
        result += frame
        at += length
    return result


@cache
def manifest_seeds() -> list[bytes]:
    """A snapshot, and a snapshot with edits, as JSON, and a file as it is."""
    record = targets.record_of(0, b"".join(targets.single(0)))
    snapshot = {
        "sequence": 5, "flushed_sequence": 5, "epoch": 1, "next_segment_id": 9, "next_table_id": 2,
        "options": {}, "named_versions": {}, "segments": [record.to_json()],
        "tables": [{"id": 1, "name": "", "key": "u8", "value": "f8", "flushed_sequence": 0}],
    }  # fmt: skip
    edits: list[Any] = [
        {"remove_segments": [7]},
        {"put_segments": [record.to_json()], "set": {"sequence": 6, "epoch": 2, "options": {}}},
        {"put_tables": snapshot["tables"], "set": {"next_segment_id": 10}},
        {"remove_tables": [1]},
    ]
    others: list[tuple[Any, Any]] = [
        (["str", "-i4"], [["price", "f8"], ["size", {"items": "i4", "shape": [2, 3]}]]),
        ("datetime64[ns]", "json"), ("S16", "str"), ({"codec": "mine"}, {"codec": "theirs"}),
    ]  # fmt: skip
    found = [[snapshot], [snapshot, *edits[:3]], [snapshot, edits[3]]]
    for key, value in others:
        table = {"id": 1, "name": "", "key": key, "value": value}
        found.append([{**snapshot, "tables": [table], "segments": []}])
    lines = [[json.dumps(payload).encode() for payload in payloads] for payloads in found]
    whole = bytes([PLAIN_CHECKSUMS]) + targets.manifest_of(lines[1])
    return [*(b"\0" + b"\n".join(payloads) for payloads in lines), whole]


SEEDS = {
    "page": page_seeds,
    "segment": segment_seeds,
    "journal": journal_seeds,
    "manifest": manifest_seeds,
}


# -- mutations


def number_for(rng: random.Random, old: int, width: int) -> int:
    choice = rng.randrange(4)
    if choice == 0:
        new = old + rng.choice([-64, -8, -2, -1, 1, 2, 8, 64])
    elif choice == 1:
        new = old ^ 1 << rng.randrange(8 * width)
    elif choice == 2:
        new = rng.randrange(1 << 8 * rng.randint(1, width))
    else:
        new = rng.choice(INTERESTING)
    return new % (1 << 8 * width)


def set_field(rng: random.Random, data: bytearray, offset: int, width: int) -> None:
    if offset + width <= len(data):
        old = int.from_bytes(data[offset : offset + width], "little")
        data[offset : offset + width] = number_for(rng, old, width).to_bytes(width, "little")


def change_pages(rng: random.Random, data: bytearray) -> None:
    """A field of a page's header, of the footer, or an integer among the columns or the heap."""
    pages = max(1, len(data) // PAGE_BYTES)
    start = 1 + rng.randrange(pages) * PAGE_BYTES
    kind = data[start + 4] if start + 4 < len(data) else 0
    choice = rng.randrange(3)
    if kind == 6 and choice:
        set_field(rng, data, *shifted(rng.choice(FOOTER_FIELDS), start))
    elif choice == 0:
        set_field(rng, data, *shifted(rng.choice(PAGE_FIELDS), start))
    elif choice == 1:
        used = [i for i in range(start, min(start + PAGE_BYTES, len(data))) if data[i]]
        width = rng.choice([1, 2, 4, 8])
        set_field(rng, data, rng.choice(used or [start]) & ~1 | 1 if width > 1 else start, width)
    else:  # a run of bytes to another place
        source, target = (start + rng.randrange(PAGE_BYTES) for _ in range(2))
        length = rng.choice([2, 6, 8, 16, 64])
        piece = data[source : source + length]
        data[target : target + len(piece)] = piece


def shifted(field: tuple[int, int], start: int) -> tuple[int, int]:
    return start + field[0], field[1]


def change_journal(rng: random.Random, data: bytearray) -> None:
    """A field of the file header, of a frame or of its first operation; a byte; a frame twice."""
    starts, at = [], 1 + HEADER_BYTES
    while at + targets.ROW_FRAME_BYTES <= len(data):
        starts.append(at)
        length = length_at(data, at)
        if length < targets.ROW_FRAME_BYTES:
            break
        at += length
    start = rng.choice(starts or [1])
    choice = rng.randrange(8)
    if choice == 0:
        set_field(rng, data, *shifted(rng.choice(HEADER_FIELDS), 1))
    elif choice <= 5 and data[start + 4 : start + 5] and data[start + 4] & 7 == 1:
        set_field(rng, data, *shifted(rng.choice(ROW_FIELDS), start))
    elif choice <= 2:
        set_field(rng, data, *shifted(rng.choice(FRAME_FIELDS), start))
    elif choice <= 5:
        set_field(rng, data, *shifted(rng.choice(OPERATION_FIELDS), start))
    elif choice == 6:
        set_field(rng, data, start + 8 * rng.randrange(40) + rng.randrange(8), rng.choice([1, 4]))
    else:
        length = length_at(data, start) if start + 8 <= len(data) else 0
        data[start:start] = data[start : start + length]


TOKEN = re.compile(rb'-?\d+|"[^"]*"')
TEXTS = [
    b"0", b"-1", b"1.5", b"true", b"null", b'""', b'"u8"', b"[]", b"{}", b"[1]", b'"\\ud800"',
    b"1e999", b"NaN", b'"AAAAAAAAAAA="', b'"S999999999"', b'"f16"', b'"O"', b'"i4"', b'"-u8"',
    b'[["a", "i4"], ["a", "i4"]]', b'{"codec": 5}', b'{"items": "f8", "shape": [99999999, 9999]}',
    b"[" * 2000,
]  # fmt: skip


def change_manifest(rng: random.Random, data: bytearray) -> None:
    """A number, a text or a bracket becomes something else; a line goes or comes twice."""
    if data[0] & PLAIN_CHECKSUMS:
        set_field(rng, data, 1 + rng.randrange(max(1, len(data) - 8)), rng.choice([1, 2, 4, 8]))
        return
    tokens = list(TOKEN.finditer(bytes(data), 1))
    choice = rng.randrange(5)
    if choice == 0 and b"\n" in data:
        lines = bytes(data[1:]).split(b"\n")
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
        data[1:] = b"\n".join(lines)
    elif tokens:
        numbers = [token for token in tokens if token[0].isdigit()]
        token, other = rng.choice(tokens), rng.choice(tokens)
        new = rng.choice(TEXTS) if choice < 3 else other[0]
        if numbers and rng.random() < 0.7:
            token = rng.choice(numbers)
            new = b"%d" % (number_for(rng, int(token[0]), 8) >> rng.choice([0, 1, 32]))
        data[token.start() : token.end()] = new
    if rng.random() < 0.02:  # no JSON any more, or another
        set_field(rng, data, rng.randrange(len(data)), 1)


CHANGES = {
    "page": change_pages,
    "segment": change_pages,
    "journal": change_journal,
    "manifest": change_manifest,
}


def mutated(name: str, data: bytes, rng: random.Random) -> bytes:
    """An input with one to three changes."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 2, 3])):
        if rng.random() < 0.1:
            set_field(rng, changed, rng.randrange(len(changed)), 1)
        CHANGES[name](rng, changed)
    return bytes(changed)
