"""The commits of an open store's journal in order, from any sequence on that it still holds.

`held` says, under the writer lock, which files there are and how far each of them counts, and opens
them: from then on they can be read whatever a checkpoint unlinks, and nothing is read beyond what
had been committed.  The bytes are hostile all the same: they are copied, and checksum, order and
length of every frame are checked before anything is made of them.

Thread safety: `held` may be called from any thread; a HeldJournal and what it yields belong to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cesium._engine import WriteGuard
from cesium._frames import FILE_HEADER_BYTES, checksums_at, scan_frames, skip_through
from cesium.errors import ClosedError, NotKeptError
from cesium.files import Bytes, Files
from cesium.frames import Frame, Span, corrupt, frames_of
from cesium.journal_files import JournalRecord
from cesium.replay import FileHeader, header_of, journal_name

if TYPE_CHECKING:
    from cesium.engine import StoreEngine

PIECE_BYTES = 1 << 20  # what is read and checked at once, unless a frame is longer


class Place(NamedTuple):
    """How far the journal was read: through `sequence`, which ends at `position` of file `number`.

    number 0: not known where that is.
    """

    sequence: int
    number: int = 0
    position: int = 0
    checksum: int = 0


class HeldFile:
    """A journal file held open; closed with the last reference."""

    def __init__(self, files: Files, record: JournalRecord) -> None:
        self._files = files
        self.record = record
        self.path = files.path(journal_name(record.number))
        self._fd: int | None = files.open(journal_name(record.number))

    def read(self, start: int, end: int) -> Bytes:
        """`end` bytes, of which those from `start` on were read; the others are zero.

        For a frame's checksum depends on its place in the file.  Zeros that nobody touches take no
        memory.
        """
        assert self._fd is not None
        data = np.zeros(end, np.uint8)
        found = start + self._files.read_into(self._fd, data.data[start:], start)
        if found < end:
            corrupt(self.path, "the file is cut off", found, f"{end} bytes", f"{found} bytes")
        return data

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            self._files.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            self.close()


class HeldJournal:
    """The journal as it was when `held` was called.

    kept: all commits after it, through `sequence`, are in the files.
    """

    def __init__(self, store_uuid: bytes, files: list[HeldFile], kept: int, sequence: int) -> None:
        self._store_uuid = store_uuid
        self._files = files
        self.kept = kept
        self.sequence = sequence

    def frames(self, place: Place) -> Iterator[tuple[Frame, Place]]:
        """The frames behind a place, at or after `kept`, each with the place behind it."""
        while self._files:
            file = self._files.pop(0)
            try:
                if file.record.last_sequence > place.sequence:
                    for frame, after in self._frames_of(file, place):
                        if frame.sequence > self.sequence:
                            return
                        yield frame, after
                        place = after
            finally:
                file.close()

    def _frames_of(self, file: HeldFile, place: Place) -> Iterator[tuple[Frame, Place]]:
        record = file.record
        header = header_of(
            file.read(0, FILE_HEADER_BYTES).tobytes(), file.path, record.number, self._store_uuid
        )
        at = Place(header.base_sequence, record.number, FILE_HEADER_BYTES, header.checksum)
        if place.number == record.number:
            at = place
        length = PIECE_BYTES
        while at.position < record.end:
            end = min(at.position + length, record.end)
            data = file.read(at.position, end)
            position, checksum, sequence, _ = scan_frames(
                data, at.position, end, header.base, at.checksum, at.sequence
            )
            if position == at.position:
                if end == record.end:
                    _damaged(file, data, at, header)
                length *= 2
                continue
            start = skip_through(data, at.position, position, header.base, place.sequence)
            after = Place(sequence, record.number, position, checksum)
            for frame in frames_of(
                Span(record.number, data, start, position, header.base), file.path
            ):
                # Only the end of a piece is a place to go on from; within, the sequence says all.
                yield frame, after if frame.end == position else Place(frame.sequence)
            at = after
            length = PIECE_BYTES
        if at.sequence < record.last_sequence:
            corrupt(file.path, "frames are missing", at.position, record.last_sequence, at.sequence)


def _damaged(file: HeldFile, data: Bytes, at: Place, header: FileHeader) -> None:
    stored, computed = checksums_at(data, at.position, header.base) or (None, None)
    corrupt(file.path, "a committed frame is damaged", at.position, stored, computed)


def check_journaled(engine: StoreEngine) -> None:
    """NotKeptError for a store that keeps no journal."""
    if engine.in_memory:
        raise NotKeptError("a store in memory keeps no journal, and so no commits to go through")
    if engine.core_engine.unjournaled:
        raise NotKeptError(
            "a store with durability='none' keeps no journal, and so no commits to go through"
        )


def held(engine: StoreEngine, since: int | None) -> HeldJournal:
    """The journal as of now, for reading what was committed after `since` (None: all there is).

    ValueError for a sequence that is yet to come, NotKeptError for one that is too long ago.
    """
    check_journaled(engine)
    inner = engine.core_engine
    found: list[HeldFile] = []
    with WriteGuard(inner, closing=True):  # between two commits; read-only stores, too
        if inner.closed:
            raise ClosedError("the store is closed")
        sequence = kept = engine.sequence
        journal = engine.journal
        for record in reversed([*journal.detached.records, *journal.files]):
            if record.last_sequence < kept or (since is not None and kept <= since):
                break  # commits without a journal came in between; or there is enough
            try:
                found.insert(0, HeldFile(engine.files, record))
            except FileNotFoundError:
                break  # unlinked just now, with all before it; or by the process that writes
            kept = min(kept, record.base_sequence)
    if since is not None and since > sequence:
        raise ValueError(f"since is at most the store's last sequence, {sequence}, not {since}")
    if since is not None and since < kept:
        raise NotKeptError(
            f"commits after sequence {since} are asked for; the journal has those after {kept}",
            since=since, kept=kept,
        )  # fmt: skip
    return HeldJournal(engine.manifest.state.store_uuid, found, kept, sequence)
