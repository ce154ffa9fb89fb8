"""Files in memory that write down all that happens to them, so that every crash can be made up.

`RecordingFiles` is put in at the one door to the file system.  Its `events` are, in order: each
write by sector of 512 bytes, each change of a size, each name made, renamed or removed, the
beginning and the end of each sync, and the marks that the test put in between.  What a mapping
holds is looked at whenever anything happens; what differs from the last look is written down as
mapped.  `disk.py` works out from the events what a crash may leave.

Content belongs to an inode and not to a name, and is numbered from 1; the directory has number 0.
An inode's descriptor is kept as long as the files are, so a removed file can come back.

It also fails the Nth call (`fail`, of FailingMemoryFiles), holds it until it is let go (`hold`),
and cuts a write short as the system may (`shorten`).

Thread safety: any thread may call; an event is written down after the call has taken effect, but
for the beginning of a sync.
"""

from __future__ import annotations

import itertools
import mmap
import os
import threading
from typing import Any, NamedTuple

from cesium.files import Files, MemoryFiles
from failing_files import FailingMemoryFiles

SECTOR_BYTES = 512
DIRECTORY = 0  # its number, among the inodes

Content = dict[str, bytes]  # the files of a crash image, by name


class Data(NamedTuple):
    """Sectors that hold something else now: by write, or found in a mapping."""

    inode: int
    sectors: tuple[tuple[int, bytes], ...]
    mapped: bool


class Size(NamedTuple):
    """A file has another size."""

    inode: int
    size: int


class Link(NamedTuple):
    """A new file has a name."""

    name: str
    inode: int


class Rename(NamedTuple):
    """A name of a file was changed, replacing."""

    old: str
    new: str
    inode: int


class Unlink(NamedTuple):
    """A name was removed."""

    name: str


class SyncStarted(NamedTuple):
    """What is there now is durable once the sync of this ticket is done."""

    ticket: int
    inode: int


class SyncDone(NamedTuple):
    """The sync of this ticket returned."""

    ticket: int


class Mark(NamedTuple):
    """What the test has to say: a commit begun, one acknowledged."""

    note: Any


Event = Data | Size | Link | Rename | Unlink | SyncStarted | SyncDone | Mark


class _Inode:
    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        self.fd = fd
        self.seen = bytearray()  # the content at the last look
        self.mapped = False


class Hold:
    """A call that waits: `reached` is set when it has come, `release` lets it go on."""

    def __init__(self, kind: str, at: int) -> None:
        self.kind = kind
        self.at = at
        self.reached = threading.Event()
        self.release = threading.Event()


class RecordingFiles(FailingMemoryFiles):
    """content: files that are there, durably, at the beginning."""

    has_links = False  # whether files of another directory can be linked here

    def __init__(self, content: Content | None = None) -> None:
        super().__init__()
        self.events: list[Event] = []
        self._recording = threading.RLock()
        self._inodes: dict[int, _Inode] = {}  # by the system's number of the inode
        self._tickets = itertools.count(1)
        self._holds: list[Hold] = []
        self._pieces: list[int] = []  # how much the next writes of the system take, each
        for name, data in (content or {}).items():
            fd = self.create(name)
            MemoryFiles.write_all(self, fd, data, 0)
            self._look_at(self._inode_of(fd), 0, len(data))
            self._record_sync(self._inode_of(fd).number)
            self.close(fd)
        self._record_sync(DIRECTORY)
        self.first_event = len(self.events)  # those before it made the content

    def __del__(self) -> None:
        for inode in self._inodes.values():
            os.close(inode.fd)
        super().__del__()

    # -- writing down

    def mark(self, note: Any) -> None:
        """Put a note between the events."""
        self._record(Mark(note))

    def _record(self, *events: Event) -> None:
        with self._recording:
            self._look()
            self.events.extend(events)

    def _record_sync(self, number: int) -> None:
        ticket = next(self._tickets)
        self._record(SyncStarted(ticket, number), SyncDone(ticket))

    def _inode_of(self, fd: int) -> _Inode:
        return self._inodes[os.fstat(fd).st_ino]

    def _look(self) -> None:
        for inode in self._inodes.values():
            if inode.mapped:
                self._look_at(inode, 0, len(inode.seen), mapped=True)

    def _look_at(self, inode: _Inode, start: int, stop: int, mapped: bool = False) -> None:
        """Writes down what differs from the last look between two offsets, and a new size."""
        with self._recording:
            seen = inode.seen
            size = os.fstat(inode.fd).st_size
            if size != len(seen):
                self.events.append(Size(inode.number, size))
                del seen[size:]
                seen.extend(bytes(size - len(seen)))
            start -= start % SECTOR_BYTES
            stop = min(-(-stop // SECTOR_BYTES) * SECTOR_BYTES, size)
            data = os.pread(inode.fd, max(stop - start, 0), start)
            if data == seen[start:stop]:
                return
            sectors = []
            for offset in range(start, stop, SECTOR_BYTES):
                piece = data[offset - start : offset - start + SECTOR_BYTES]
                if piece != seen[offset : offset + len(piece)]:
                    sectors.append((offset // SECTOR_BYTES, piece.ljust(SECTOR_BYTES, b"\0")))
            seen[start:stop] = data
            self.events.append(Data(inode.number, tuple(sectors), mapped))

    # -- delay, short writes

    def hold(self, kind: str, nth: int = 1) -> Hold:
        """Let the Nth call of a kind from now on wait until it is released.

        A sync is held after it began, for what comes then to race it; "before sync" is a kind, too.
        """
        hold = Hold(kind, self.calls[kind] + nth)
        self._holds.append(hold)
        return hold

    def shorten(self, *pieces: int) -> None:
        """Let the next writes of the system take so many bytes, and no more, one after another."""
        self._pieces = list(pieces)

    def write_some(self, fd: int, data: Any, offset: int) -> int:
        if self._pieces:
            data = memoryview(data)[: self._pieces.pop(0)]
        return super().write_some(fd, data, offset)

    def _called(self, kind: str, *what: Any, **more: Any) -> None:
        super()._called(kind, *what, **more)
        self._wait(kind)

    def _wait(self, kind: str) -> None:
        if kind.startswith("before"):
            self.calls[kind] += 1
        for hold in self._holds:
            if hold.kind == kind and hold.at == self.calls[kind] and not hold.reached.is_set():
                hold.reached.set()
                hold.release.wait()

    # -- the door

    def create(self, name: str, allocate_bytes: int = 0) -> int:
        fd = super().create(name, allocate_bytes)
        with self._recording:
            inode = _Inode(len(self._inodes) + 1, os.dup(fd))
            self._inodes[os.fstat(fd).st_ino] = inode
            self._record(Link(name, inode.number))
            self._look_at(inode, 0, 0)
        return fd

    def link_from(self, source: Files, old: str, name: str) -> bool:
        """As a hard link would: what the file holds is durable, its new name is not."""
        if not self.has_links:
            return super().link_from(source, old, name)
        self._called("link", self.path(name))
        data = source.read_all(old)
        fd = self.create(name)
        MemoryFiles.write_all(self, fd, data, 0)
        self._look_at(self._inode_of(fd), 0, len(data))
        self._record_sync(self._inode_of(fd).number)
        self.close(fd)
        return True

    def rename(self, old: str, new: str) -> None:
        with self._mutex:
            inode = self._inode_of(self._descriptor(old))
        super().rename(old, new)
        self._record(Rename(old, new, inode.number))

    def unlink(self, name: str) -> None:
        with self._mutex:
            fd = self._names.get(name)
            inode = None if fd is None else self._inode_of(fd)
        self._record()
        super().unlink(name)
        if inode is not None:
            self._record(Unlink(name))
            inode.mapped = False

    def write_all(self, fd: int, data: Any, offset: int, path: str | None = None) -> None:
        try:
            super().write_all(fd, data, offset, path)
        finally:
            with self._recording:
                self._look()
                self._look_at(self._inode_of(fd), offset, offset + memoryview(data).nbytes)

    def map_writable(self, fd: int, size: int) -> mmap.mmap:
        mapping = super().map_writable(fd, size)
        self._inode_of(fd).mapped = True
        return mapping

    def populate(self, fd: int, offset: int, size: int) -> None:
        super().populate(fd, offset, size)
        self._record()

    def sync_data(self, fd: int, path: str | None = None) -> None:
        self._wait("before sync")
        ticket = next(self._tickets)
        self._record(SyncStarted(ticket, self._inode_of(fd).number))
        super().sync_data(fd, path)
        self._record(SyncDone(ticket))

    def sync_file(self, fd: int, path: str) -> None:
        ticket = next(self._tickets)
        self._record(SyncStarted(ticket, self._inode_of(fd).number))
        super().sync_file(fd, path)
        self._record(SyncDone(ticket))

    def sync_directory(self) -> None:
        ticket = next(self._tickets)
        self._record(SyncStarted(ticket, DIRECTORY))
        super().sync_directory()
        self._record(SyncDone(ticket))
