"""The commits of an open store's journal in order, from any sequence on that it still holds.

`held` says, under the writer lock, which files there are and how far each of them counts, and opens
them: from then on they can be read whatever a checkpoint unlinks, and nothing is read beyond what
had been committed.  The bytes are hostile all the same: they are copied, and checksum, order and
length of every frame are checked before anything is made of them.

Thread safety: `held` may be called from any thread; a HeldJournal and what it yields belong to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cesium._engine import WriteGuard
from cesium._frames import (
    FILE_HEADER_BYTES,
    check_frames,
    checksums_at,
    scan_frames,
    skip_through,
)
from cesium.errors import ClosedError, CorruptionError, NotKeptError
from cesium.files import Bytes, Files
from cesium.frames import Frame, Span, corrupt, frames_of
from cesium.journal_files import JournalRecord, kept_prefix, kept_records
from cesium.replay import FileHeader, header_of

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
        name, self._fd = _opened(files, record)
        self.path = files.path(name)

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


def _opened(files: Files, record: JournalRecord) -> tuple[str, int | None]:
    """The file's name and a descriptor; it may be given the name of a kept one just now."""
    try:
        return record.name, files.open(record.name)
    except FileNotFoundError:
        prefix = kept_prefix(record.number)
        for name in files.list():
            if name.startswith(prefix):
                return name, files.open(name)
        raise


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
        for span, after in spans_of(file, self._store_uuid, place):
            for frame in frames_of(span, file.path):
                # Only the end of a span is a place to go on from; within, the sequence says all.
                yield frame, after if frame.end == span.end else Place(frame.sequence)


def spans_of(
    file: HeldFile, store_uuid: bytes | None, place: Place
) -> Iterator[tuple[Span, Place]]:
    """Runs of checked frames of a file behind a place, each with the place behind it.

    CorruptionError for damage, and where the file ends before the last of its commits.
    """
    record = file.record
    header = header_of(
        file.read(0, FILE_HEADER_BYTES).tobytes(), file.path, record.number, store_uuid
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
        at = Place(sequence, record.number, position, checksum)
        yield Span(record.number, data, start, position, header.base), at
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


def _backwards(engine: StoreEngine, sequence: int) -> Iterator[JournalRecord]:
    """The files that have the commits up to a sequence, without a gap, newest first.

    Others may have had no journal.  The newest file may have more of them.
    """
    journal = engine.journal
    open_files = journal.files  # first: without the writer lock, a file may be let go of meanwhile
    numbers = {record.number for record in open_files}
    kept = [record for record in journal.detached.records if record.number not in numbers]
    reached: int | None = None
    for record in reversed([*kept, *open_files]):
        if reached is None and not record.kept:
            reached = max(sequence, record.last_sequence)
        if record.last_sequence != (sequence if reached is None else reached):
            return
        yield record
        reached = record.base_sequence


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
        for record in _backwards(engine, sequence):
            if since is not None and kept <= since:
                break
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


def check_kept(
    files: Files, names: Iterable[str], store_uuid: bytes | None, paced: Callable[[int], None]
) -> Iterator[tuple[str, int, int, str | None]]:
    """Reads the kept files: (path, size, sound frames, damage or None) of each."""
    for record in kept_records(files, names):
        try:
            file = HeldFile(files, record)
        except FileNotFoundError:
            continue  # dropped meanwhile
        frames, message = 0, None
        try:
            for span, _ in spans_of(file, store_uuid, Place(record.base_sequence)):
                count, senseless = check_frames(span.data, span.start, span.end, span.base)
                frames += count
                if senseless is not None:
                    message = f"{file.path} at {senseless}: a frame holds what is no operation"
                    break
        except CorruptionError as error:
            message = str(error)
        finally:
            file.close()
        paced(record.bytes)
        yield file.path, record.bytes, frames, message


def reaches_back(engine: StoreEngine) -> int:
    """The earliest sequence after which the journal has all commits; that of the last for none.

    Takes no lock.
    """
    kept = engine.sequence
    for record in _backwards(engine, kept):
        kept = min(kept, record.base_sequence)
    return kept
