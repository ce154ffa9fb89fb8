"""Journal files in the making, open for appending, and those that the journal has let go of.

Thread safety: said at each class.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cesium._frames import FILE_HEADER_BYTES
from cesium._journal import JournalWriter
from cesium.errors import StorageFullError
from cesium.files import UNFINISHED, Files
from cesium.io_errors import raise_io
from cesium.replay import journal_name

PAGE_BYTES = 4096
KEPT = re.compile(r"journal-kept-(\d{6,18})-(\d{1,19})-(\d{1,19})-(\d{1,19})")
FREE_SHARE = 8  # a file takes this part of the free space at most: segments must find room too


@dataclass(slots=True)
class Unfinished:
    """A file of its full size and mapped, but without a header and under no name that counts."""

    name: str
    fd: int
    size: int
    mapping: mmap.mmap

    def discard(self, files: Files) -> None:
        """Closes and removes it; an opening would do the latter, too."""
        self.mapping.close()
        files.close(self.fd)
        files.remove(self.name)


def make_unfinished(files: Files, name: str, wanted_bytes: int, needed_bytes: int) -> Unfinished:
    """A file of the size wanted; on a drive nearly full, one that leaves room for a flush."""
    free = files.free_bytes() // FREE_SHARE // PAGE_BYTES * PAGE_BYTES
    size = min(wanted_bytes, max(free, needed_bytes))
    while True:
        try:
            fd = files.create(name, size)
            break
        except StorageFullError:
            if size <= needed_bytes:
                raise
            size = max(size // 2 // PAGE_BYTES * PAGE_BYTES, needed_bytes)
    try:
        return Unfinished(name, fd, size, files.map_writable(fd, size))
    except BaseException as error:
        files.close(fd)
        files.remove(name)
        if isinstance(error, OSError):
            raise_io(error.errno or errno.EIO, files.path(name))
        raise


class Spare:
    """A file for the next rotation, made ahead: what is left to do is a page and two syncs.

    Any thread may call any method at any time, and none waits for another: while one makes a file,
    a rotation makes its own.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._ready: deque[Unfinished] = deque()
        self._making = threading.Lock()
        self._numbers = itertools.count(1)
        self._closed = threading.Event()

    def make(self, size_bytes: int) -> bool:
        """Makes a file unless there is one; whether there is one then.

        A drive that has no room for it, or fails, is no error here: the rotation, which needs a
        file, tells of it.
        """
        if self._ready:
            return True
        if self._closed.is_set() or not self._making.acquire(blocking=False):
            return False
        made = None
        try:
            if self._files.free_bytes() // FREE_SHARE < size_bytes:
                return False
            name = f"journal-spare-{next(self._numbers)}{UNFINISHED}"
            made = make_unfinished(self._files, name, size_bytes, size_bytes)
            path = self._files.path(name)
            # The header's block gets its place now, so that the header itself is one write.
            self._files.write_all(made.fd, bytes(FILE_HEADER_BYTES), 0, path)
            self._files.sync_file(made.fd, path)
            self._ready.append(made)
            made = None
        except OSError:
            return False
        finally:
            if made is not None:
                made.discard(self._files)
            self._making.release()
        if self._closed.is_set():  # meanwhile
            self.close()
        return bool(self._ready)

    def take(self, needed_bytes: int) -> Unfinished | None:
        """The file, which is the caller's from now on; None when there is none of that size."""
        try:
            made = self._ready.popleft()
        except IndexError:
            return None
        if made.size < needed_bytes:
            made.discard(self._files)
            return None
        return made

    def close(self) -> None:
        """Removes the file, and makes no other."""
        self._closed.set()
        while (made := self.take(0)) is not None:
            made.discard(self._files)


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One file and the sequences it holds: above `base_sequence`, up to `last_sequence`.

    end: the position behind the last frame that counts.  kept: its commits are in segments too,
    and it has the name of a file that is kept for going through it.
    """

    number: int
    base_sequence: int
    last_sequence: int
    bytes: int
    end: int
    kept: bool = False

    @property
    def name(self) -> str:
        """The name of the file; that of a kept one says what its header does not."""
        if not self.kept:
            return journal_name(self.number)
        return kept_prefix(self.number) + f"{self.base_sequence}-{self.last_sequence}-{self.end}"


def kept_prefix(number: int) -> str:
    """What the name of a kept journal file begins with."""
    return f"journal-kept-{number:06d}-"


def kept_records(files: Files, names: Iterable[str]) -> list[JournalRecord]:
    """The kept journal files among some names, oldest first; none of them is opened.

    One that goes meanwhile is left out.
    """
    found = []
    for name in names:
        match = KEPT.fullmatch(name)
        if match is not None:
            number, base, last, end = map(int, match.groups())
            with contextlib.suppress(FileNotFoundError):
                found.append(JournalRecord(number, base, last, files.size(name), end, kept=True))
    return sorted(found, key=lambda record: (record.base_sequence, record.number))


@dataclass(slots=True)
class OpenFile:
    """One file that this opening made: mapped, and held open for its syncs."""

    writer: JournalWriter
    mapping: mmap.mmap
    fd: int

    @property
    def record(self) -> JournalRecord:
        """The file as of now; between two commits, unless it is full."""
        writer = self.writer
        return JournalRecord(
            writer.number, writer.base_sequence, writer.last_sequence, writer.capacity_bytes,
            writer.position,
        )  # fmt: skip

    def retire(self, files: Files, *, durable: bool) -> None:
        """Closes it; waits for a sync under way.  durable: all of it is, here or in segments.

        The writer stays, for threads that wait for a sync of the file hold it.
        """
        self.writer.retire(durable=durable)
        self.mapping.close()
        files.close(self.fd)


class Pin:
    """Somebody who goes through the journal and has come as far as `sequence`."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence


class Detached:
    """Files whose commits are all in segments: to be closed, and to be unlinked.

    `add` is called with the writer lock held, `remove` and `close` without it or with it, by one
    thread at a time (it holds `engine.maintenance`).  No rule of recovery asks for their removal in
    an order or before another commit: a file that is still there after a crash, or that came back,
    lies before the first one that counts.  So some stay, under a name that no recovery looks at:
    those that a pin needs, and the newest of at most `retention_bytes` in sum.  `pinned` may be
    entered by any thread at any time.

    kept: those that earlier openings have left.
    """

    def __init__(
        self, files: Files, retention_bytes: int = 0, kept: Iterable[JournalRecord] = ()
    ) -> None:
        self._files = files
        self._retention_bytes = retention_bytes
        self._open: deque[OpenFile] = deque()
        self._records: deque[JournalRecord] = deque(kept)
        self._pins: dict[int, Pin] = {}  # by id()
        self.failed = False  # a sync of one of them failed before it was closed

    @property
    def records(self) -> list[JournalRecord]:
        """Those that are not unlinked yet, oldest first."""
        return list(self._records)

    @contextlib.contextmanager
    def pinned(self, sequence: int) -> Iterator[Pin]:
        """Keeps files with commits after `sequence`; move that of the pin as it is passed."""
        pin = Pin(sequence)
        try:
            self._pins[id(pin)] = pin
            yield pin
        finally:
            self._pins.pop(id(pin), None)  # interrupted, it may not have been there yet

    def add(self, record: JournalRecord, file: OpenFile | None = None) -> None:
        """Takes over a file; those that an earlier opening made are not open."""
        if file is not None:
            self._open.append(file)
        self._records.append(record)

    def close(self) -> None:
        """Closes what is open; that and unlinking 62 MiB just written took 9 to 13 ms."""
        while self._open:
            file = self._open.popleft()
            file.retire(self._files, durable=True)
            self.failed = self.failed or file.writer.failed != 0

    def remove(self, *, pins: bool = True) -> None:
        """Closes and unlinks; what the drive refuses to unlink is tried again the next time.

        pins: those that are needed stay.
        """
        self.close()
        try:
            for record in self._records_to_drop(pins):
                self._files.unlink(record.name)
                self._records.popleft()
            self._rename_kept()
        except OSError:
            return  # the rows are in segments; opening the store removes it, too

    def _records_to_drop(self, pins: bool) -> list[JournalRecord]:
        """The oldest ones, up to the first that anybody wants."""
        records = list(self._records)
        passed = min([pin.sequence for pin in list(self._pins.values())], default=None)
        left, first = self._retention_bytes, len(records)
        for index, record in reversed(list(enumerate(records))):
            left -= record.bytes
            needed = pins and passed is not None and passed < record.last_sequence
            if left < 0 and not needed:
                break
            first = index
        return records[:first]

    def _rename_kept(self) -> None:
        renamed = False
        for index, record in enumerate(list(self._records)):
            if not record.kept:
                kept = replace(record, kept=True)
                self._sync(record.name)  # a crash must not leave a part of it under that name
                self._files.rename(record.name, kept.name)
                self._records[index] = kept
                renamed = True
        if renamed:
            self._files.sync_directory()

    def _sync(self, name: str) -> None:
        fd = self._files.open(name)
        try:
            self._files.sync_data(fd, self._files.path(name))
        finally:
            self._files.close(fd)
