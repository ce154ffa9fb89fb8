"""The journal of one store: replay on opening, files for appending, and dropping what is covered.

The bytes and the rules of recovery are in docs/format-journal.md; appending and syncing of frames
are in _journal.pyx, reading in replay.py.

Thread safety: `append`, `rotate`, `drop_through` and `close` are serialised by the caller (the
engine's writer mutex).  `sync` may be called from any thread at any time.

1. Opening writes nothing.  The first append syncs what was replayed, then creates a file of a
   higher epoch; no file of an earlier opening is ever appended to.
2. A file is durable, name and header, before anything is appended to it.
3. A file is synced only after those before it.
4. A writer object outlives its file: a thread that waits for a sync may hold it across a rotation.
"""

from __future__ import annotations

import contextlib
import mmap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cesium._frames import (
    FILE_HEADER_BYTES,
    FRAME_ATTACH,
    FRAME_END,
    FRAME_HEADER_BYTES,
    MAXIMUM_FRAME_BYTES,
)
from cesium._journal import FULL, IO, LIMIT, OK, JournalWriter
from cesium.errors import LimitError, PoisonedError, StorageFullError
from cesium.files import UNFINISHED, Files, raise_io
from cesium.replay import FileHeader, Frame, Link, Replay, Span, attach_parts, journal_name

if TYPE_CHECKING:
    from typing_extensions import Buffer

FIRST_FILE_BYTES = 1 << 20
LARGEST_FILE_BYTES = 64 << 20
GROWTH = 4
PAGE_BYTES = 4096

# How much is made writable at once.  When every commit is synced, a step is one page, so that a
# sync writes 4 KiB; otherwise 64 KiB, which halves the cost of a fresh page.
SYNC_STEP_BYTES = PAGE_BYTES
PROCESS_STEP_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One file and the sequences it holds: above `base_sequence`, up to `last_sequence`."""

    number: int
    base_sequence: int
    last_sequence: int
    bytes: int


@dataclass(slots=True)
class _OpenFile:
    writer: JournalWriter
    mapping: mmap.mmap
    fd: int


class Journal:
    """See the module.  `manifest_generation` is what the next file will say that it needs."""

    def __init__(
        self,
        files: Files,
        store_uuid: bytes,
        *,
        names: list[str] | None = None,
        flushed_sequence: int = 0,
        manifest_generation: int = 0,
        minimum_epoch: int = 0,
        prepare_step_bytes: int = SYNC_STEP_BYTES,
        first_file_bytes: int = FIRST_FILE_BYTES,
        largest_file_bytes: int = LARGEST_FILE_BYTES,
    ) -> None:
        self._files = files
        self._store_uuid = store_uuid
        self._names = files.list() if names is None else names
        self._replay = Replay(
            files, self._names, store_uuid,
            flushed_sequence=flushed_sequence, manifest_generation=manifest_generation,
        )  # fmt: skip
        self.manifest_generation = manifest_generation
        self.prepare_step_bytes = prepare_step_bytes
        self.epoch = max([minimum_epoch, *(header.epoch for header in self._replay.chain)])
        self._next_number = max(self._replay.numbers, default=0) + 1
        self._next_bytes = first_file_bytes
        self._largest_bytes = largest_file_bytes
        self._flushed_sequence = flushed_sequence
        self._replayed: list[JournalRecord] = []
        self._replayed_synced = False
        self._open: list[_OpenFile] = []  # oldest first; the last is appended to
        self._kept: list[JournalWriter] = []  # of files that are gone (invariant 4)
        self._started = False  # whether this opening has created a file

    # -- replay

    def replay_spans(self) -> Iterator[Span]:
        """Runs of checked frames above the flushed sequence, for compiled walking."""
        yield from self._replay.spans()
        self._note_replayed()

    def replay(self) -> Iterator[Frame]:
        """The frames above the flushed sequence, in order; exhaust it before appending."""
        yield from self._replay.frames()
        self._note_replayed()

    def _note_replayed(self) -> None:
        chain, end = self._replay.chain, self._replay.end
        self._replayed = [
            JournalRecord(
                header.number,
                header.base_sequence,
                chain[index + 1].base_sequence
                if index + 1 < len(chain)
                else (end.sequence if end else header.base_sequence),
                self._files.size(journal_name(header.number)),
            )
            for index, header in enumerate(chain)
        ]

    @property
    def last_sequence(self) -> int:
        """The last sequence in the journal, or the flushed one when that is later."""
        end = self._replay.end
        last = self._open[-1].writer.last_sequence if self._open else (end.sequence if end else 0)
        return max(last, self._flushed_sequence)

    # -- appending

    @property
    def writer(self) -> JournalWriter | None:
        """What to append to; None before the first `rotate` and after everything was dropped."""
        return self._open[-1].writer if self._open else None

    @property
    def poisoned(self) -> bool:
        """Whether a sync failed, so that nothing more may be appended."""
        return any(file.writer.failed for file in self._open) or any(
            writer.failed for writer in self._kept
        )

    def append(
        self,
        frame_type: int,
        sequence: int,
        parts: Sequence[Buffer],
        operation_count: int,
        commit_time: int | None = None,
    ) -> tuple[JournalWriter, int]:
        """Append a frame, rotating as needed; return the writer and the position to sync up to."""
        if commit_time is None:
            commit_time = time.time_ns()
        length = FRAME_HEADER_BYTES + sum(-(-memoryview(part).nbytes // 8) * 8 for part in parts)
        if length > MAXIMUM_FRAME_BYTES:
            raise LimitError(f"a frame of {length} bytes; at most {MAXIMUM_FRAME_BYTES}")
        writer = self.writer or self.rotate(length)
        status, end = writer.append(frame_type, sequence, commit_time, parts, operation_count)
        if status == FULL:
            writer = self.rotate(length)
            status, end = writer.append(frame_type, sequence, commit_time, parts, operation_count)
        if status != OK:
            self.raise_status(status, writer)
        return writer, end

    def append_attach(self, sequence: int, payload: object) -> tuple[JournalWriter, int]:
        """Append an attach frame with a JSON payload."""
        return self.append(FRAME_ATTACH, sequence, attach_parts(payload), 0)

    def raise_status(self, status: int, writer: JournalWriter) -> None:
        """Raise what a status of the compiled journal, other than OK and FULL, means."""
        path = self._files.path(journal_name(writer.number))
        if status == IO:
            raise_io(writer.failed or writer.error_number, path)
        if status == LIMIT:
            raise LimitError(f"a frame is longer than {MAXIMUM_FRAME_BYTES} bytes")
        raise PoisonedError(f"an earlier sync of {path} failed; writes are refused")

    def rotate(self, frame_bytes: int = 0) -> JournalWriter:
        """Create the next file, with room for a frame of that length; append there from now on."""
        if not self._replay.finished:
            raise RuntimeError("the journal was not replayed to its end")
        if self.poisoned:
            raise PoisonedError("an earlier sync of the journal failed; writes are refused")
        self._sync_replayed()
        previous = self.writer
        synced = previous is None or previous.fully_synced
        link = self._link()
        epoch = self.epoch if self._started else self.epoch + 1
        header = FileHeader(
            self._next_number, epoch, self.manifest_generation,
            self.last_sequence, time.time_ns(),
            link.number if link else 0, link.position if link else 0,
            link.checksum if link else 0, bool(link and synced),
        )  # fmt: skip
        data = header.to_bytes(self._store_uuid)
        if not self._started:
            self._remove_dead()
        needed = FILE_HEADER_BYTES + frame_bytes + FRAME_HEADER_BYTES
        needed = -(-needed // PAGE_BYTES) * PAGE_BYTES
        name = journal_name(header.number)
        fd, size = self._create(name + UNFINISHED, max(needed, self._next_bytes), needed)
        try:
            self._files.write_all(fd, data, 0, self._files.path(name))
            self._files.publish(name, fd)
            self._next_number += 1
            mapping = self._files.map_writable(fd, size)
            writer = JournalWriter(
                fd, mapping, self._files.operations, number=header.number, epoch=epoch,
                base_sequence=header.base_sequence,
                header_checksum=int.from_bytes(data[8:12], "little"),
                prepare_step_bytes=self.prepare_step_bytes, previous=None if synced else previous,
            )  # fmt: skip
        except BaseException:
            self._files.close(fd)
            with contextlib.suppress(OSError):
                self._files.unlink(name + UNFINISHED)
                self._files.unlink(name)
            raise
        self._started = True
        self.epoch = epoch
        self._next_bytes = min(self._next_bytes * GROWTH, self._largest_bytes)
        self._open.append(_OpenFile(writer, mapping, fd))
        return writer

    def _link(self) -> Link | None:
        """What the next file continues; None when all before it is flushed and gone."""
        if self._open:
            writer = self._open[-1].writer
            return Link(writer.number, writer.position, writer.last_checksum, writer.last_sequence)
        if self._replayed and self._replay.end and not self._started:
            return self._replay.end
        return None

    def _create(self, name: str, wanted_bytes: int, needed_bytes: int) -> tuple[int, int]:
        """A file of the size wanted; on a drive nearly full, halved until it fits."""
        size = wanted_bytes
        while True:
            try:
                return self._files.create(name, size), size
            except StorageFullError:
                if size <= needed_bytes:
                    raise
                size = max(size // 2 // PAGE_BYTES * PAGE_BYTES, needed_bytes)

    def _remove_dead(self) -> None:
        """Remove what no frame counts of; the sync of the directory that follows makes it durable.

        Highest first: what is left after a crash in between is still a chain up to the hole.
        """
        for number in sorted(self._replay.dead, reverse=True):
            self._files.unlink(journal_name(number))
        for name in self._names:
            if name.startswith("journal-") and name.endswith(UNFINISHED):
                self._files.unlink(name)

    # -- syncing

    def sync(self) -> None:
        """Return when everything appended, or replayed, so far is on stable storage."""
        writer = self.writer
        if writer is None:
            self._sync_replayed()
            return
        status = writer.sync(writer.position)
        if status != OK:
            self.raise_status(status, writer)

    def _sync_replayed(self) -> None:
        if self._replayed_synced:
            return
        for record in self._replayed:
            name = journal_name(record.number)
            fd = self._files.open(name)
            try:
                self._files.sync_data(fd, self._files.path(name))
            finally:
                self._files.close(fd)
        self._replayed_synced = True

    # -- dropping and closing

    @property
    def files(self) -> list[JournalRecord]:
        """The files that count, oldest first."""
        return self._replayed + [
            JournalRecord(
                file.writer.number, file.writer.base_sequence, file.writer.last_sequence,
                file.writer.capacity_bytes,
            )
            for file in self._open
        ]  # fmt: skip

    def drop_through(self, sequence: int, *, including_current: bool = False) -> list[int]:
        """Unlink the files whose sequences are all flushed, durably, up to `sequence`.

        The file being appended to goes too if asked; the next append then makes a new one.  Returns
        the numbers of the files removed.
        """
        self._flushed_sequence = max(self._flushed_sequence, sequence)
        dropped = []
        while self._replayed and self._replayed[0].last_sequence <= sequence:
            number = self._replayed.pop(0).number
            self._files.unlink(journal_name(number))
            dropped.append(number)
        while (
            self._open
            and not self._replayed
            and self._open[0].writer.last_sequence <= sequence
            and (including_current or len(self._open) > 1)
        ):
            file = self._open.pop(0)
            self._files.unlink(journal_name(file.writer.number))
            dropped.append(file.writer.number)
            self._retire(file, durable=True)
        return dropped

    def _retire(self, file: _OpenFile, *, durable: bool) -> None:
        file.writer.retire(durable=durable)
        file.mapping.close()
        self._files.close(file.fd)
        self._kept.append(file.writer)

    def close(self, *, clean: bool = True) -> None:
        """Close all files; a clean close syncs and records the end first."""
        try:
            writer = self.writer
            if clean and writer is not None and not self.poisoned:
                self.sync()
                status, end = writer.append(FRAME_END, writer.last_sequence, time.time_ns(), (), 0)
                if status == OK:
                    status = writer.sync(end)
                if status != OK:
                    self.raise_status(status, writer)
        finally:
            while self._open:  # the newest first: its sync may still need the older ones
                file = self._open.pop()
                self._retire(file, durable=file.writer.fully_synced)
