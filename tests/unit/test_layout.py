"""The format documents against the code: every offset, size and constant, and the worked examples.

The tables, the byte maps and the examples of docs/format*.md are read as they stand; what they say
is compared with the compiled structs, with the struct formats of the Python layer, and with bytes
made now.
"""

from __future__ import annotations

import itertools
import re
import struct
from pathlib import Path

import pytest

import cesium
import segment_files as segments
from cesium import _frames, _layout, manifest, origin, replay
from cesium._page import TableShape

DOCS = Path(__file__).parents[2] / "docs"
PACKAGE = Path(cesium.__file__).parent
TYPE_BYTES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "u8[16]": 16}
C_TYPE_BYTES = {"uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "uint64_t": 8}
MAP_CELL = 12  # characters that a byte takes in a byte map

Field = tuple[str, int, int]  # name, offset, bytes

LAYOUT = _layout.describe()
TEXTS = {path.name: path.read_text() for path in sorted(DOCS.glob("format*.md"))}


def plain(name: str) -> str:
    """Reserved fields have a number in the structs and none in the maps."""
    return "reserved" if name.startswith("reserved") else name


def struct_table(text: str, heading: str) -> list[Field]:
    """The rows of the first `| offset | type | field |` table behind a piece of text."""
    assert text.count(heading) == 1, f"{heading!r} stands there {text.count(heading)} times"
    fields: list[Field] = []
    for line in text[text.index(heading) :].splitlines():
        row = re.match(r"\| (\d+) \| (\S+) \| (\w+) \|", line)
        if row:
            fields.append((row[3], int(row[1]), TYPE_BYTES[row[2]]))
        elif fields:
            break
    return fields


def plain_tables(text: str) -> list[list[Field]]:
    """The `offset  bytes  field` tables of a document."""
    blocks = re.findall(r"^offset  bytes  field\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rows = [
        [re.match(r" *(\d+) +(\d+)  (\w+)", line) for line in block.splitlines()]
        for block in blocks
    ]
    return [[(row[3], int(row[1]), int(row[2])) for row in block if row] for block in rows]


def byte_maps(text: str) -> list[list[Field]]:
    """The byte maps of a document: each cell's name, offset and bytes."""
    maps: list[list[Field]] = []
    for block in re.findall(r"^<-+ 8 bytes -+>\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        fields: list[Field] = []
        offset = 0
        for line in block.splitlines():
            if not line.startswith("|"):
                continue
            edges = [index for index, character in enumerate(line) if character == "|"]
            assert edges[0] == 0 and edges[-1] == 8 * MAP_CELL, line
            for start, end in itertools.pairwise(edges):
                name = line[start + 1 : end].strip()
                assert start % MAP_CELL == 0, line
                count = (end - start) // MAP_CELL
                if long := re.fullmatch(r"(\w+) \((\d+) bytes\)", name):
                    name, count = long[1], int(long[2])
                fields.append((name, offset, count))
                offset += count
        maps.append(fields)
    return maps


def c_struct(name: str) -> list[Field]:
    """The fields of a struct of _frames.pxd; its size is asserted by the module, so no padding."""
    text = (PACKAGE / "_frames.pxd").read_text()
    body = re.search(rf"ctypedef struct {name}:\n((?:    .*\n)+)", text)
    assert body is not None
    fields: list[Field] = []
    offset = 0
    for kind, field in re.findall(r"    (\w+) (\w+)", body[1]):
        fields.append((plain(field), offset, C_TYPE_BYTES[kind]))
        offset += C_TYPE_BYTES[kind]
    return fields


def packed_sizes(fields: struct.Struct) -> list[int]:
    """The bytes of each item of a little-endian struct format, padding last as one item."""
    return [
        struct.calcsize("<" + count + kind) if kind in "sx" else struct.calcsize("<" + kind)
        for count, kind in re.findall(r"(\d*)([a-zA-Z])", fields.format)
        for _ in range(1 if kind in "sx" else int(count or 1))
    ]


def assert_gapless(fields: list[Field], size: int) -> None:
    """Each field begins where the one before ends, and the last ends the struct."""
    end = 0
    for name, offset, count in fields:
        assert offset == end, name
        end += count
    assert end == size


STRUCT_HEADINGS = {
    "PageHeader": ("format.md", "## Pages"),
    "Entry": ("format.md", "**Entry**"),
    "OverflowReference": ("format.md", "**OverflowReference**"),
    "BlobPointer": ("format.md", "**BlobPointer**"),
    "BlobHeader": ("format.md", "**BlobHeader**"),
    "SegmentFooter": ("format-segment.md", "## Footer page"),
}


@pytest.mark.parametrize("name", sorted(STRUCT_HEADINGS))
def test_tables_of_structs_are_the_compiled_structs(name: str) -> None:
    document, heading = STRUCT_HEADINGS[name]
    fields = struct_table(TEXTS[document], heading)
    compiled = dict(LAYOUT["structs"][name])
    assert_gapless(fields, compiled.pop("(size)"))
    named = {field: offset for field, offset, _ in fields if plain(field) != "reserved"}
    assert named == compiled


def test_every_compiled_struct_is_described() -> None:
    assert sorted(LAYOUT["structs"]) == sorted(STRUCT_HEADINGS)


def test_the_constants_are_the_compiled_ones() -> None:
    text = TEXTS["format.md"]
    section = text[text.index("### Constants") : text.index("## Limits")]
    rows = re.findall(r"^\| (\w+) \| (\d+) \|", section, re.MULTILINE)
    assert len(rows) == len({name for name, _ in rows})
    assert {name: int(value) for name, value in rows} == LAYOUT["constants"]


def test_the_byte_maps_show_what_the_tables_say() -> None:
    header, blob = byte_maps(TEXTS["format.md"])
    assert blob == [
        (plain(n), o, b) for n, o, b in struct_table(TEXTS["format.md"], "**BlobHeader**")
    ]
    (footer,) = byte_maps(TEXTS["format-segment.md"])
    assert header == [(plain(n), o, b) for n, o, b in struct_table(TEXTS["format.md"], "## Pages")]
    assert footer == [
        (plain(n), o, b) for n, o, b in struct_table(TEXTS["format-segment.md"], "## Footer page")
    ]
    for document, count in (("format-journal.md", 4), ("format-manifest.md", 2)):
        maps, tables = byte_maps(TEXTS[document]), plain_tables(TEXTS[document])
        assert len(maps) == count
        # The operation's table ends in the blocks behind its header, which have no fixed size.
        assert maps == tables


def test_journal_tables_are_the_compiled_structs() -> None:
    file_header, frame, operation, row = plain_tables(TEXTS["format-journal.md"])
    assert row == c_struct("JournalRowHeader")
    assert_gapless(row, _frames.ROW_HEADER_BYTES)
    assert frame == c_struct("JournalFrameHeader")
    assert operation == c_struct("JournalOperationHeader")
    assert_gapless(frame, _frames.FRAME_HEADER_BYTES)
    assert_gapless(operation, _frames.OPERATION_HEADER_BYTES)
    assert_gapless(file_header, _frames.FILE_HEADER_BYTES)
    *fields, reserved = [count for _, _, count in file_header]
    assert fields == packed_sizes(replay.HEADER)
    assert reserved == _frames.FILE_HEADER_BYTES - replay.HEADER.size


def test_manifest_tables_are_the_struct_formats() -> None:
    file_header, frame = plain_tables(TEXTS["format-manifest.md"])
    assert_gapless(file_header, manifest.FILE_HEADER.size)
    assert_gapless(frame, manifest.FRAME_HEADER.size)
    assert [count for _, _, count in file_header] == packed_sizes(manifest.FILE_HEADER)
    assert [count for _, _, count in frame] == packed_sizes(manifest.FRAME_HEADER)


def test_a_journal_header_is_written_where_the_table_says() -> None:
    offsets = {name: offset for name, offset, _ in plain_tables(TEXTS["format-journal.md"])[0]}
    data = replay.FileHeader(
        number=11, epoch=12, manifest_generation=13, base_sequence=14, creation_time=15,
        predecessor=16, predecessor_end=17, predecessor_checksum=18, predecessor_synced=True,
        file_bytes=19, tables=b"[20]",
    ).to_bytes(segments.UUID)  # fmt: skip
    expected = {
        "file_number": 11, "epoch": 12, "manifest_generation": 13, "base_sequence": 14,
        "creation_time": 15, "predecessor_number": 16, "predecessor_end": 17,
        "predecessor_checksum": 18, "predecessor_flags": 1, "file_bytes": 19, "tables_bytes": 4,
        "incompatible_flags": _frames.ROW_FRAMES, "compatible_flags": 0,
        "format_version": _layout.describe()["constants"]["FORMAT_VERSION"],
    }  # fmt: skip
    for name, value in expected.items():
        width = "<I" if name.endswith(("checksum", "predecessor_flags", "version")) else "<Q"
        assert struct.unpack_from(width, data, offsets[name]) == (value,), name
    assert data[offsets["store_uuid"] :][:16] == segments.UUID
    assert data[offsets["tables"] :].rstrip(b"\0") == b"[20]" and len(data) == 4096
    assert data[:8] == replay.MAGIC == b"cesiumJ\0"
    assert origin.TABLES_BYTES_MAX == 4096 - offsets["tables"]
    assert origin.BYTES_MAX == LAYOUT["constants"]["FOOTER_ORIGIN_BYTES_MAX"]


# -- the worked examples


def dumps(text: str, heading: str) -> list[dict[int, str]]:
    """The dumps of a section, one a page: offset to the text of 8 bytes."""
    pages: list[dict[int, str]] = []
    for block in re.findall(
        r"^```\n((?:page|frame).*?)^```", text[text.index(heading) :], re.MULTILINE | re.DOTALL
    ):
        for line in block.splitlines():
            if re.match(r"page|frame", line):
                pages.append({})
                continue
            row = re.match(r" +(\d+)  ((?:[0-9a-f.]{2} ){7}[0-9a-f.]{2})", line)
            assert row is not None, line
            pages[-1][int(row[1])] = row[2]
    return pages


def dump(page: bytes) -> dict[int, str]:
    """Every word of 8 bytes that is not all zeros."""
    return {
        offset: page[offset : offset + 8].hex(" ")
        for offset in range(0, len(page), 8)
        if any(page[offset : offset + 8])
    }


def test_the_worked_examples_are_what_is_written() -> None:
    numbers = [(1, struct.pack("<d", 1.5)), (258, struct.pack("<d", 2.0))]
    texts = [(b"apple pie", b"x"), (b"apple tart, warm", b"yz"), (b"apples", None)]
    first = segments.content(segments.build(TableShape(8, 8), numbers)[0])
    second = segments.content(segments.build(TableShape(0, 0), texts)[0])
    written = [first[:4096], first[4096:8192], first[8192:], second[:4096]]
    assert [dump(page) for page in written] == dumps(TEXTS["format.md"], "## Worked examples")


def test_the_example_of_a_journal_frame_is_what_is_written(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "store", "u8", "f8") as store:
        store[42] = 1.5
        store[43] = 2.0
        data = (tmp_path / "store" / "journal-000001").read_bytes()
    (frame,) = dumps(TEXTS["format-journal.md"], "## Worked example")
    assert list(frame) == list(range(4096, 4240, 8))
    for offset, shown in frame.items():
        found = data[offset : offset + 8].hex(" ")
        assert re.fullmatch(shown, found), f"{offset}: {shown} is {found}"
    assert not any(data[4240:])
