"""Reading journal files: which frames count, and what is in them.

The rules are in docs/format-journal.md, "Which frames count".  Nothing here writes.  Bytes are read
into private memory and are hostile until the checksum of their frame was checked; the pieces of an
operation are bounds-checked before an array is formed over them.

Thread safety: a Replay belongs to one thread.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from cesium._frames import (
    FILE_HEADER_BYTES,
    FRAME_ATTACH,
    FRAME_END,
    FRAME_HEADER_BYTES,
    highest_vouched,
    next_frame,
    next_operation,
    scan_frames,
    skip_through,
)
from cesium.checksum import crc32c
from cesium.errors import CorruptionError, Error
from cesium.files import Bytes, Files
from cesium.manifest import check_readable, numbers_of
from cesium.state import FORMAT_VERSION, parse_json

MAGIC = b"cesiumJ\0"
HEADER = struct.Struct("<8sIIQQ16sQQQQQQQIIQQ")
PREDECESSOR_SYNCED = 1


def journal_name(number: int) -> str:
    """The file name of a journal file."""
    return f"journal-{number:06d}"


def corrupt(path: str, what: str, offset: int, expected: object, found: object) -> NoReturn:
    """Raise what damage in a journal file is."""
    raise CorruptionError(
        f"{path} at {offset}: {what} (expected {expected}, found {found})",
        file=path, offset=offset, expected=expected, found=found,
    )  # fmt: skip


class Link(NamedTuple):
    """Where the frames that count end in a file: what the next file continues."""

    number: int
    position: int
    checksum: int
    sequence: int


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The header of a journal file.  tables: their schemas (cesium/origin.py)."""

    number: int
    epoch: int
    manifest_generation: int
    base_sequence: int
    creation_time: int
    predecessor: int
    predecessor_end: int
    predecessor_checksum: int
    predecessor_synced: bool
    file_bytes: int = 0
    checksum: int = 0
    tables: bytes = b""

    def to_bytes(self, store_uuid: bytes) -> bytes:
        """The 4,096 bytes, checksum included."""
        data = HEADER.pack(
            MAGIC, 0, FORMAT_VERSION, 0, 0, store_uuid, self.number, self.epoch,
            self.manifest_generation, self.base_sequence, self.creation_time, self.predecessor,
            self.predecessor_end, self.predecessor_checksum,
            PREDECESSOR_SYNCED if self.predecessor_synced else 0,
            self.file_bytes, len(self.tables),
        )[12:]  # fmt: skip
        data = (data + self.tables).ljust(FILE_HEADER_BYTES - 12, b"\0")
        return MAGIC + struct.pack("<I", crc32c(data)) + data


def read_header(files: Files, number: int, store_uuid: bytes) -> FileHeader:
    """Read and check a file's header, and that the file is not cut off."""
    header = parse_header(files, number, store_uuid)
    name = journal_name(number)
    if (size := files.size(name)) < header.file_bytes:
        corrupt(
            files.path(name), "the file is cut off", size,
            f"{header.file_bytes} bytes", f"{size} bytes",
        )  # fmt: skip
    return header


def parse_header(files: Files, number: int, store_uuid: bytes) -> FileHeader:
    """The same, whatever the size of the file."""
    name = journal_name(number)
    path = files.path(name)
    data = files.read_all(name, FILE_HEADER_BYTES)
    if len(data) < FILE_HEADER_BYTES:
        corrupt(path, "the file is cut off", 0, FILE_HEADER_BYTES, len(data))
    (magic, checksum, version, _, incompatible, uuid, found_number, epoch, generation, base,
     created, predecessor, end, predecessor_checksum, flags,
     file_bytes, tables_bytes) = HEADER.unpack_from(data)  # fmt: skip
    if magic != MAGIC:
        corrupt(path, "not a journal file", 0, MAGIC, magic)
    if (found := crc32c(data[12:])) != checksum:
        corrupt(path, "the file header's checksum is wrong", 8, checksum, found)
    check_readable(path, version, incompatible)
    if uuid != store_uuid:
        corrupt(path, "a file of another store", 32, store_uuid.hex(), uuid.hex())
    if found_number != number:
        corrupt(path, "the file has another's name", 48, number, found_number)
    if predecessor and end < FILE_HEADER_BYTES:
        corrupt(path, "the predecessor's end is impossible", 96, FILE_HEADER_BYTES, end)
    return FileHeader(
        number, epoch, generation, base, created, predecessor, end, predecessor_checksum,
        bool(flags & PREDECESSOR_SYNCED), file_bytes, checksum,
        data[HEADER.size : HEADER.size + tables_bytes],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Span:
    """A run of checked frames: `data[start:end]` of one file (uint8), for compiled walking."""

    number: int
    data: Bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on rows of one table.

    Keys are `heads` (uint64) or `key_lengths` (uint32) and `key_data` (uint8); a delete range has
    two.  Values of a put are `value_data` (uint8), rows of `value_width` or of `value_lengths`.
    """

    table_id: int
    kind: int
    flags: int
    row_count: int
    heads: npt.NDArray[np.uint64] | None
    key_lengths: npt.NDArray[np.uint32] | None
    key_data: Bytes | None
    value_lengths: npt.NDArray[np.uint32] | None
    value_data: Bytes | None
    value_width: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; its payload is a view of the file's bytes in private memory."""

    path: str
    position: int
    type: int
    epoch: int
    sequence: int
    commit_time: int
    synced_position: int
    operation_count: int
    payload: Bytes

    def operations(self) -> Iterator[Operation]:
        """The operations of a commit frame, in order."""
        offset = 0
        for index in range(self.operation_count):
            found = next_operation(self.payload, offset)
            if not isinstance(found, tuple):
                self._corrupt("operations are missing or make no sense", index)
            (offset, table_id, kind, flags, rows, keys, heads, key_lengths, key_data, key_bytes,
             value_lengths, value_data, value_bytes, value_width) = found  # fmt: skip
            yield Operation(
                table_id, kind, flags, rows,
                self._view(heads, keys, np.uint64),
                self._view(key_lengths, keys, np.uint32),
                self._view(key_data, key_bytes, np.uint8),
                self._view(value_lengths, rows, np.uint32),
                self._view(value_data, value_bytes, np.uint8),
                value_width,
            )  # fmt: skip
        if offset != len(self.payload):
            self._corrupt("there are more operations than counted", self.operation_count)

    def attached(self) -> Any:
        """The JSON of an attach frame."""
        try:
            (length,) = struct.unpack_from("<Q", self.payload.data)
            if length > len(self.payload) - 8:
                raise ValueError("it is cut off")
            return parse_json(self.payload[8 : 8 + length].tobytes())
        except (ValueError, struct.error) as error:
            self._corrupt(f"an attach frame makes no sense: {error}", 0)

    def _view(self, offset: int, count: int, dtype: Any) -> npt.NDArray[Any] | None:
        if offset < 0:
            return None
        return np.frombuffer(self.payload, dtype, count, offset)

    def _corrupt(self, what: str, found: object) -> NoReturn:
        corrupt(self.path, what, self.position, self.operation_count, found)


def used_bytes(data: Bytes) -> int:
    """How many bytes there are up to the last that is not zero."""
    step = 1 << 16
    for start in range(len(data) - len(data) % step, -1, -step):
        used = np.flatnonzero(data[start : start + step])
        if len(used):
            return start + int(used[-1]) + 1
    return 0


class Replay:
    """The frames that count, in order.

    `end`, `dead` and `dropped_bytes` are known once they were walked.
    """

    def __init__(
        self,
        files: Files,
        names: list[str],
        store_uuid: bytes,
        *,
        flushed_sequence: int,
        manifest_generation: int,
    ) -> None:
        self._files = files
        self.numbers = numbers_of(names, "journal")
        self.flushed_sequence = flushed_sequence
        self.chain: list[FileHeader] = []
        self.end: Link | None = None
        self.dropped_bytes = 0  # that were written behind the end, and do not count
        self.finished = not self.numbers
        self._find_chain(store_uuid)
        for header in self.chain:
            if header.manifest_generation > manifest_generation:
                corrupt(
                    files.path(journal_name(header.number)),
                    "the manifest is older than the journal needs",
                    64, f"generation {header.manifest_generation}", manifest_generation,
                )  # fmt: skip
        live = {header.number for header in self.chain}
        self.dead = [number for number in self.numbers if number not in live]

    def _find_chain(self, store_uuid: bytes) -> None:
        number = self.numbers[-1] if self.numbers else 0
        while number:
            header = read_header(self._files, number, store_uuid)
            self.chain.insert(0, header)
            if header.base_sequence <= self.flushed_sequence:
                return
            number = header.predecessor
            if number not in self.numbers or number >= header.number:
                path = self._files.path(journal_name(header.number))
                corrupt(path, "the journal before it is missing", 88, journal_name(number), None)

    def spans(self) -> Iterator[Span]:
        """Walk the files; CorruptionError where synced bytes are damaged."""
        link: Link | None = None
        for index, header in enumerate(self.chain):
            if link and header.base_sequence < link.sequence:
                path = self._files.path(journal_name(header.number))
                corrupt(path, "sequences overlap", 72, link.sequence, header.base_sequence)
            data, link, whole = self._scan(index)
            start = skip_through(data, FILE_HEADER_BYTES, link.position, self.flushed_sequence)
            if start < link.position:
                yield Span(header.number, data, start, link.position)
            self.end = link
            if not whole or index + 1 == len(self.chain):
                self._note_dropped(data, index)
            if not whole:
                self.dead += [dead.number for dead in self.chain[index + 1 :]]
                del self.chain[index + 1 :]
                break
        self.finished = True

    def _scan(self, index: int) -> tuple[Bytes, Link, bool]:
        """The bytes of a file, where its sound frames end, and whether the next file goes on there.

        A damaged place is read twice: beside a writer in another process, pages are read at
        different moments, so a frame may be missing that later ones vouch for.
        """
        header = self.chain[index]
        successor = self.chain[index + 1] if index + 1 < len(self.chain) else None
        name = journal_name(header.number)
        damaged = -1
        while True:
            data, data_end = self._files.read_sparse(name)
            data = data[:data_end]
            limit = successor.predecessor_end if successor else data_end
            position, checksum, sequence, _ = scan_frames(
                data, FILE_HEADER_BYTES, limit, header.epoch, header.checksum, header.checksum,
                header.base_sequence,
            )  # fmt: skip
            link = Link(header.number, position, checksum, sequence)
            if successor and position == limit and checksum == successor.predecessor_checksum:
                return data, link, True
            vouched = highest_vouched(
                data, position, data_end, header.epoch, header.checksum, position
            )
            if successor and vouched <= position and self._vouched_by_later(index + 1):
                vouched = max(limit, position + 1)
            if vouched <= position:
                return data, link, successor is None
            if position == damaged:
                self._corrupt_at(self._files.path(name), data, header, position, vouched)
            damaged = position

    def _note_dropped(self, data: Bytes, index: int) -> None:
        """Counts what was written behind the end, in the file's `data` and in later files."""
        assert self.end is not None
        self.dropped_bytes = used_bytes(data[self.end.position :])
        for header in self.chain[index + 1 :]:
            later, _ = self._files.read_sparse(journal_name(header.number))
            self.dropped_bytes += used_bytes(later[FILE_HEADER_BYTES:])

    def _vouched_by_later(self, index: int) -> bool:
        """Whether a later file shows that everything before `chain[index]` was synced."""
        for header in self.chain[index:]:
            if header.predecessor_synced:
                return True
            data, end = self._files.read_sparse(journal_name(header.number))
            above = FILE_HEADER_BYTES
            if highest_vouched(data, above, end, header.epoch, header.checksum, above) > above:
                return True
        return False

    def _corrupt_at(
        self, path: str, data: Bytes, header: FileHeader, position: int, vouched: int
    ) -> NoReturn:
        stored = computed = None
        if position + FRAME_HEADER_BYTES <= len(data):
            stored, length = struct.unpack_from("<II", data.data, position)
            if FRAME_HEADER_BYTES <= length <= len(data) - position:
                computed = crc32c(
                    data[position + 4 : position + length],
                    (position & 0xFFFFFFFF) ^ header.checksum,
                )
        corrupt(path, f"damage below {vouched}, which was synced", position, stored, computed)

    def frames(self) -> Iterator[Frame]:
        """The frames above the flushed sequence, as objects."""
        for span in self.spans():
            yield from frames_of(span, self._files.path(journal_name(span.number)))


def frames_of(span: Span, path: str) -> Iterator[Frame]:
    """The commit and attach frames of a span; Error for what this version cannot read."""
    position = span.start
    while (found := next_frame(span.data, position, span.end)) is not None:
        end, kind, epoch, sequence, time, synced, count, codec, key_id = found
        if codec or key_id or not 1 <= kind <= FRAME_END:
            raise Error(f"{path} at {position}: frame type {kind}, codec {codec}, key {key_id}")
        if kind != FRAME_END:
            yield Frame(
                path, position, kind, epoch, sequence, time, synced, count,
                span.data[position + FRAME_HEADER_BYTES : end],
            )  # fmt: skip
        position = end


def attach_parts(payload: object) -> list[bytes]:
    """The parts of an attach frame for a JSON-ready payload."""
    data = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
    return [struct.pack("<Q", len(data)) + data]


__all__ = [
    "FRAME_ATTACH",
    "FileHeader",
    "Frame",
    "Link",
    "Operation",
    "Replay",
    "Span",
    "attach_parts",
    "frames_of",
    "journal_name",
    "parse_header",
    "read_header",
]
