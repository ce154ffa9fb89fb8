"""Putting the immutable files of a store into another directory: linked, cloned or copied.

A segment or blob file never changes once it has its name, so a hard link is as good as a copy;
where a link is refused the file system may share the blocks (a reflink); else the bytes are copied,
with direct I/O where there is, and every page of them is checked on the way.  A file gets its name
when it is whole and synced; the name is durable once the caller has synced the directory.

Thread safety: a Transfer belongs to one thread.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cesium.checksum import crc32c
from cesium.directory import blob_name, segment_name
from cesium.errors import CorruptionError
from cesium.files import UNFINISHED, Files
from cesium.io_errors import naming
from cesium.pace import PAGE_BYTES
from cesium.state import BlobShare, SegmentRecord

CHUNK_BYTES = 1 << 22  # direct writes of 1 to 4 MiB are the fastest


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its name, its size, and the checksum that says whether a file there is this one.

    The checksum is that of a segment's last page, or of a blob file's bytes; `id` is the file's.
    """

    name: str
    bytes: int
    checksum: int
    id: int
    is_blob: bool

    @classmethod
    def of_segment(cls, record: SegmentRecord) -> Part:
        """The segment file of a record."""
        return cls(segment_name(record.id), record.bytes, record.checksum, record.id, False)

    @classmethod
    def of_blob(cls, share: BlobShare) -> Part:
        """The blob file that a record refers to."""
        return cls(blob_name(share.id), share.file_bytes, share.checksum, share.id, True)


def parts_of(records: Iterable[SegmentRecord]) -> list[Part]:
    """The files of segments, and the blob files that they refer to, each once."""
    blobs = {share.id: share for record in records for share in record.blobs}
    return [*map(Part.of_segment, records), *map(Part.of_blob, blobs.values())]


@dataclass(slots=True)
class Transfer:
    """Puts files of `source` into `target` and counts the bytes by what became of them.

    links: whether bytes may be shared with the source; else all are copied.  progress: called with
    the pages done.
    """

    source: Files
    target: Files
    links: bool
    progress: Callable[[int], None]
    linked_bytes: int = 0
    cloned_bytes: int = 0
    copied_bytes: int = 0
    kept_bytes: int = 0
    files: int = 0

    def put(self, part: Part, there: bool) -> None:
        """Puts one file; there: a file has the name, and is kept where it is the same.

        CorruptionError when bytes that are copied are damaged; OSError.
        """
        self.files += 1
        if not part.bytes or part.bytes % PAGE_BYTES:
            self._corrupt(part, f"{part.bytes} bytes are no whole number of pages", 0)
        if there and self._is_same(part):
            self.kept_bytes += part.bytes
            self.progress(part.bytes // PAGE_BYTES)
            return
        making = part.name + UNFINISHED
        try:
            self._make(part, making)
        except BaseException:
            self.target.remove(making)
            raise
        self.target.rename(making, part.name)

    def _is_same(self, part: Part) -> bool:
        if self.target.size(part.name) != part.bytes:
            return False
        last = part.bytes // PAGE_BYTES - 1
        number = 0 if part.is_blob else last
        page = bytearray(PAGE_BYTES)
        fd = self.target.open(part.name)
        try:
            with naming(self.target.path(part.name)):
                self.target.read_into(fd, page, number * PAGE_BYTES)
        finally:
            self.target.close(fd)
        found = int.from_bytes(page[:4], "little")
        return found == page_checksum(part.id, number, page) and (
            part.is_blob or found == part.checksum
        )

    def _make(self, part: Part, making: str) -> None:
        self.target.unlink(making)  # of a backup that was interrupted
        size = self.source.size(part.name)
        if size != part.bytes:
            self._corrupt(part, f"the file has {size} bytes instead of {part.bytes}", 0)
        if self.links and self.target.link_from(self.source, part.name, making):
            self.linked_bytes += part.bytes
            self.progress(part.bytes // PAGE_BYTES)
            return
        source_fd = self.source.open(part.name)
        try:
            if self.links and self._clone(making, source_fd):
                self.cloned_bytes += part.bytes
                self.progress(part.bytes // PAGE_BYTES)
            else:
                self._copy(part, making, source_fd)
                self.copied_bytes += part.bytes
        finally:
            self.source.close(source_fd)

    def _clone(self, making: str, source_fd: int) -> bool:
        path = self.target.path(making)
        fd = self.target.create(making)
        try:
            cloned = self.target.share_blocks(fd, source_fd, path)
            if cloned:
                self.target.sync_file(fd, path)
            return cloned
        finally:
            self.target.close(fd)

    def _copy(self, part: Part, making: str, source_fd: int) -> None:
        path = self.target.path(making)
        check = BlobCheck(part) if part.is_blob else PageCheck(part)
        # Aligned, for direct writes, and not shared with a forked child.
        buffer = mmap.mmap(-1, CHUNK_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        view = memoryview(buffer)
        file = self.target.open_direct(making, part.bytes)
        try:
            for offset in range(0, part.bytes, CHUNK_BYTES):
                piece = view[: min(CHUNK_BYTES, part.bytes - offset)]
                with naming(self.source.path(part.name)):
                    read = self.source.read_into(source_fd, piece, offset)
                if read < len(piece):
                    self._corrupt(part, "the file is cut off", offset)
                check.see(piece)
                if check.wrong is not None:
                    self._corrupt(part, check.wrong, check.offset)
                self.target.write_all(file.fd, piece, offset, path)
                self.progress(len(piece) // PAGE_BYTES)
            if not check.agrees():
                self._corrupt(part, "the file is not the one that the manifest names", 0)
            self.target.sync_file(file.fd, path)
        finally:
            self.target.close(file.fd)

    def _corrupt(self, part: Part, what: str, offset: int) -> None:
        path = self.source.path(part.name)
        raise CorruptionError(f"{path} at {offset}: {what}", file=path, offset=offset)


def page_checksum(file_id: int, number: int, page: bytearray | memoryview) -> int:
    """The checksum that a page at its place must have: docs/format.md."""
    return crc32c(memoryview(page)[4:], crc32c(struct.pack("<QQ", file_id, number)))


class PageCheck:
    """Checks the pages of a segment as they pass.  wrong, offset: the first bad one."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._number = 0
        self._last = 0
        self.wrong: str | None = None
        self.offset = 0

    def see(self, piece: memoryview) -> None:
        """The next pages."""
        for start in range(0, len(piece), PAGE_BYTES):
            page = piece[start : start + PAGE_BYTES]
            self._last = int.from_bytes(page[:4], "little")
            if page_checksum(self._part.id, self._number, page) != self._last:
                self.wrong = "wrong checksum of a page"
                self.offset = self._number * PAGE_BYTES
                return
            self._number += 1

    def agrees(self) -> bool:
        """Whether the last page was the one that the manifest knows."""
        return self._last == self._part.checksum


class BlobCheck:
    """The same for a blob file, which has one checksum over all."""

    wrong: str | None = None
    offset = 0

    def __init__(self, part: Part) -> None:
        self._part = part
        self._found = 0

    def see(self, piece: memoryview) -> None:
        """The next bytes."""
        self._found = crc32c(piece, self._found)

    def agrees(self) -> bool:
        """Whether all bytes together have the checksum."""
        return self._found == self._part.checksum
