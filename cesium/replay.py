"""Reading journal files: which frames count, and what is in them.

The rules are in docs/format-journal.md, "Which frames count".  Nothing here writes.  Bytes are read
into private memory and are hostile until the checksum of their frame was checked.

Thread safety: a Replay belongs to one thread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np

from cesium._frames import (
    FILE_HEADER_BYTES,
    ROW_FRAMES,
    FrameBase,
    checksums_at,
    highest_vouched,
    scan_frames,
    skip_through,
)
from cesium.checksum import crc32c
from cesium.features import check_readable
from cesium.files import Bytes, Files
from cesium.frames import Frame, Span, corrupt, frames_of
from cesium.manifest import numbers_of
from cesium.state import FORMAT_VERSION

MAGIC = b"cesiumJ\0"
HEADER = struct.Struct("<8sIIQQ16sQQQQQQQIIQQ")
PREDECESSOR_SYNCED = 1

WHOLE = 1 << 62  # of a file: more than any has
# A replay that goes on from an earlier one reads so much at first, which holds 1,000 puts, and more
# only where it does not end in so many zeros: a file of 64 MiB, read to its end, takes 17 ms.
AHEAD_BYTES = 64 * 1024
ZEROS_BYTES = 16 * 1024  # more than a sector: one that was lost does not hide what is behind it


def journal_name(number: int) -> str:
    """The file name of a journal file."""
    return f"journal-{number:06d}"


class Link(NamedTuple):
    """Where the frames that count end in a file: what the next file continues."""

    number: int
    position: int
    checksum: int
    sequence: int


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The header of a journal file.

    tables: their schemas (cesium/origin.py).  row_frames: the file may have some.
    """

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
    row_frames: bool = True

    @property
    def base(self) -> FrameBase:
        """What the file's frames are read against."""
        return FrameBase(
            self.epoch, self.checksum, self.base_sequence, self.creation_time, self.row_frames
        )

    def to_bytes(self, store_uuid: bytes) -> bytes:
        """The 4,096 bytes, checksum included."""
        flags = ROW_FRAMES if self.row_frames else 0
        data = HEADER.pack(
            MAGIC, 0, FORMAT_VERSION, 0, flags, store_uuid, self.number, self.epoch,
            self.manifest_generation, self.base_sequence, self.creation_time, self.predecessor,
            self.predecessor_end, self.predecessor_checksum,
            PREDECESSOR_SYNCED if self.predecessor_synced else 0,
            self.file_bytes, len(self.tables),
        )[12:]  # fmt: skip
        data = (data + self.tables).ljust(FILE_HEADER_BYTES - 12, b"\0")
        return MAGIC + struct.pack("<I", crc32c(data)) + data


class Place(NamedTuple):
    """Where a replay ended, for one that goes on from there: in which life of which file."""

    header: FileHeader
    link: Link


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
    data = files.read_all(name, FILE_HEADER_BYTES)
    return header_of(data, files.path(name), number, store_uuid)


def header_of(data: bytes, path: str, number: int, store_uuid: bytes | None) -> FileHeader:
    """The header in the first bytes of a file, checked; store_uuid: None where it is not known."""
    if len(data) < FILE_HEADER_BYTES:
        corrupt(path, "the file is cut off", 0, FILE_HEADER_BYTES, len(data))
    (magic, checksum, version, _, incompatible, uuid, found_number, epoch, generation, base,
     created, predecessor, end, predecessor_checksum, flags,
     file_bytes, tables_bytes) = HEADER.unpack_from(data)  # fmt: skip
    if magic != MAGIC:
        corrupt(path, "not a journal file", 0, MAGIC, magic)
    if (found := crc32c(data[12:])) != checksum:
        corrupt(path, "the file header's checksum is wrong", 8, checksum, found)
    check_readable(path, version, incompatible, ROW_FRAMES)
    if store_uuid is not None and uuid != store_uuid:
        corrupt(path, "a file of another store", 32, store_uuid.hex(), uuid.hex())
    if found_number != number:
        corrupt(path, "the file has another's name", 48, number, found_number)
    if predecessor and end < FILE_HEADER_BYTES:
        corrupt(path, "the predecessor's end is impossible", 96, FILE_HEADER_BYTES, end)
    return FileHeader(
        number, epoch, generation, base, created, predecessor, end, predecessor_checksum,
        bool(flags & PREDECESSOR_SYNCED), file_bytes, checksum,
        data[HEADER.size : HEADER.size + tables_bytes], bool(incompatible & ROW_FRAMES),
    )  # fmt: skip


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

    `end`, `dead` and `dropped_bytes` are known once they were walked.  after: begin there, where an
    earlier replay ended; only if `continues`.
    """

    def __init__(
        self,
        files: Files,
        names: list[str],
        store_uuid: bytes,
        *,
        flushed_sequence: int,
        manifest_generation: int,
        after: Place | None = None,
    ) -> None:
        self._files = files
        self._after = after
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
        self.continues = after is None or after.header in self.chain
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
        after = self._after
        skipped = self.chain.index(after.header) if after else 0
        for index, header in enumerate(self.chain[skipped:], skipped):
            begin = (
                Link(header.number, FILE_HEADER_BYTES, header.checksum, header.base_sequence)
                if link or after is None
                else after.link
            )
            if link and header.base_sequence < link.sequence:
                path = self._files.path(journal_name(header.number))
                corrupt(path, "sequences overlap", 72, link.sequence, header.base_sequence)
            data, link, whole = self._scan(index, begin)
            start = skip_through(
                data, begin.position, link.position, header.base, self.flushed_sequence
            )
            if start < link.position:
                yield Span(header.number, data, start, link.position, header.base)
            self.end = link
            if not whole or index + 1 == len(self.chain):
                self._note_dropped(data, index)
            if not whole:
                self.dead += [dead.number for dead in self.chain[index + 1 :]]
                del self.chain[index + 1 :]
                break
        self.finished = True

    @property
    def place(self) -> Place | None:
        """Where the walk ended; None where there is no journal."""
        end = self.end
        if end is None:
            return None
        return next(Place(header, end) for header in self.chain if header.number == end.number)

    def _scan(self, index: int, begin: Link) -> tuple[Bytes, Link, bool]:
        """The bytes of a file, where its sound frames end, and whether the next file goes on there.

        A damaged place is read twice: beside a writer in another process, pages are read at
        different moments, so a frame may be missing that later ones vouch for.
        """
        header = self.chain[index]
        successor = self.chain[index + 1] if index + 1 < len(self.chain) else None
        name = journal_name(header.number)
        damaged = -1
        most = begin.position + AHEAD_BYTES if self._after else WHOLE
        if successor:
            most = max(most, successor.predecessor_end)
        while True:
            content, data_end = self._files.read_sparse(name, begin.position, most)
            data = content[:data_end]
            limit = successor.predecessor_end if successor else data_end
            position, checksum, sequence, _ = scan_frames(
                data, begin.position, limit, header.base, begin.checksum, begin.sequence
            )
            link = Link(header.number, position, checksum, sequence)
            if successor and position == limit and checksum == successor.predecessor_checksum:
                return data, link, True
            rest = content[position:]
            if len(content) == most and (successor or len(rest) < ZEROS_BYTES or rest.any()):
                most = begin.position + 4 * (most - begin.position)
                continue
            vouched = highest_vouched(data, position, data_end, header.base, position)
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
            if highest_vouched(data, above, end, header.base, above) > above:
                return True
        return False

    def _corrupt_at(
        self, path: str, data: Bytes, header: FileHeader, position: int, vouched: int
    ) -> NoReturn:
        stored, computed = checksums_at(data, position, header.base) or (None, None)
        corrupt(path, f"damage below {vouched}, which was synced", position, stored, computed)

    def frames(self) -> Iterator[Frame]:
        """The frames above the flushed sequence, as objects."""
        for span in self.spans():
            yield from frames_of(span, self._files.path(journal_name(span.number)))
