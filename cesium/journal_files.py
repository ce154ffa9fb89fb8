"""Journal files open for appending, and those that the journal has let go of.

Thread safety: said at each class.
"""

from __future__ import annotations

import mmap
from collections import deque
from dataclasses import dataclass

from cesium._journal import JournalWriter
from cesium.files import Files
from cesium.replay import journal_name


@dataclass(slots=True)
class OpenFile:
    """One file that this opening made: mapped, and held open for its syncs."""

    writer: JournalWriter
    mapping: mmap.mmap
    fd: int

    def retire(self, files: Files, *, durable: bool) -> None:
        """Closes it; waits for a sync under way.  durable: all of it is, here or in segments.

        The writer stays, for threads that wait for a sync of the file hold it.
        """
        self.writer.retire(durable=durable)
        self.mapping.close()
        files.close(self.fd)


class Detached:
    """Files whose commits are all in segments: to be closed, and to be unlinked.

    `add` is called with the writer lock held, `remove` and `close` without it or with it, by one
    thread at a time (it holds `engine.maintenance`).  No rule of recovery asks for their removal in
    an order or before another commit: a file that is still there after a crash, or that came back,
    lies before the first one that counts.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._open: deque[OpenFile] = deque()
        self._names: deque[str] = deque()
        self.failed = False  # a sync of one of them failed before it was closed

    def add(self, number: int, file: OpenFile | None = None) -> None:
        """Takes over a file; those that an earlier opening made are not open."""
        if file is not None:
            self._open.append(file)
        self._names.append(journal_name(number))

    def close(self) -> None:
        """Closes what is open; that and unlinking 62 MiB just written took 9 to 13 ms."""
        while self._open:
            file = self._open.popleft()
            file.retire(self._files, durable=True)
            self.failed = self.failed or file.writer.failed != 0

    def remove(self) -> None:
        """Closes and unlinks; what the drive refuses to unlink is tried again the next time."""
        self.close()
        while self._names:
            try:
                self._files.unlink(self._names[0])
            except OSError:
                return  # the rows are in segments; opening the store removes it, too
            self._names.popleft()
