"""The journal of one store: replay on opening, files for appending, and dropping what is covered.

The bytes and the rules of recovery are in docs/format-journal.md; appending and syncing of frames
are in _journal.pyx, reading in replay.py.

Thread safety: `append`, `rotate`, `detach_through` and `close` are serialised by the caller (the
engine's writer mutex).  `sync` and `prepare_next` may be called from any thread at any time,
`remove_detached` by one thread at a time.

1. Opening writes nothing.  The first append syncs what was replayed, then creates a file of a
   higher epoch; no file of an earlier opening is ever appended to.
2. A file is durable, name and header, before anything is appended to it.
3. A file is synced only after those before it.
4. A writer object outlives its file: a thread that waits for a sync may hold it across a rotation.
5. Once the next file may have its name, nothing is appended to the one before it: the header says
   where that one ends, and frames behind that place would be lost.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from cesium._frames import (
    FILE_HEADER_BYTES,
    FRAME_ATTACH,
    FRAME_END,
    FRAME_HEADER_BYTES,
    MAXIMUM_FRAME_BYTES,
)
from cesium._journal import FULL, IO, LIMIT, OK, JournalWriter
from cesium.errors import LimitError, PoisonedError
from cesium.files import UNFINISHED, Files
from cesium.frames import Frame, Span, attach_parts
from cesium.io_errors import io_error, raise_io
from cesium.journal_files import (
    PAGE_BYTES,
    Detached,
    JournalRecord,
    OpenFile,
    Spare,
    kept_records,
    make_unfinished,
)
from cesium.origin import tables_bytes_of
from cesium.replay import FileHeader, Link, Place, Replay, journal_name
from cesium.state import TableRecord

if TYPE_CHECKING:
    from typing_extensions import Buffer

FIRST_FILE_BYTES = 1 << 20
LARGEST_FILE_BYTES = 64 << 20
GROWTH = 4

# How much is made writable at once.  When every commit is synced, a step is one page, so that a
# sync writes 4 KiB; otherwise 64 KiB, which halves the cost of a fresh page.
SYNC_STEP_BYTES = PAGE_BYTES
PROCESS_STEP_BYTES = 64 * 1024


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
        after: Place | None = None,
        retention_bytes: int = 0,
    ) -> None:
        self._files = files
        self._store_uuid = store_uuid
        self.tables: Iterable[TableRecord] = ()  # that the next header tells of
        self._names = files.list() if names is None else names
        self._replay = Replay(
            files, self._names, store_uuid,
            flushed_sequence=flushed_sequence, manifest_generation=manifest_generation, after=after,
        )  # fmt: skip
        self.continues = self._replay.continues  # whether it goes on `after`
        self.manifest_generation = manifest_generation
        self.prepare_step_bytes = prepare_step_bytes
        self.epoch = max([minimum_epoch, *(header.epoch for header in self._replay.chain)])
        kept = kept_records(files, self._names)
        self._next_number = 1 + max([*self._replay.numbers, *(file.number for file in kept)] or [0])
        self._first_bytes = self._next_bytes = first_file_bytes
        self._largest_bytes = largest_file_bytes
        self._flushed_sequence = flushed_sequence
        self._replayed: list[JournalRecord] = []
        self._replayed_synced = False
        self._replayed_failed = False
        self._open: list[OpenFile] = []  # oldest first; the last is appended to
        self._failed = False  # a sync of a file that was closed
        self.detached = Detached(files, retention_bytes, kept)
        self._spare = Spare(files)
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
                chain[index + 1].predecessor_end
                if index + 1 < len(chain)
                else (end.position if end else FILE_HEADER_BYTES),
            )
            for index, header in enumerate(chain)
        ]

    @property
    def place(self) -> Place | None:
        """Where the replay ended."""
        return self._replay.place

    @property
    def dropped_bytes(self) -> int:
        """Bytes that opening found behind the last frame that counts, and ignored."""
        return self._replay.dropped_bytes

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
        last = self._open[-1:]  # at once: `prepare_next` asks without a lock
        return last[0].writer if last else None

    @property
    def poisoned(self) -> bool:
        """Whether a sync failed, so that nothing more may be appended."""
        return (
            self._replayed_failed
            or any(file.writer.failed for file in self._open)
            or self._failed
            or self.detached.failed
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
        if status == IO and not writer.failed:
            raise_io(writer.error_number, path)
        if status == IO:
            error = io_error(writer.failed, path)
            raise PoisonedError(f"the journal could not be synced ({error})") from error
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
        if not self._started:
            self._remove_dead()
        needed = FILE_HEADER_BYTES + frame_bytes + FRAME_HEADER_BYTES
        needed = -(-needed // PAGE_BYTES) * PAGE_BYTES
        name = journal_name(self._next_number)
        made = self._spare.take(needed)
        if made is None:
            wanted = max(needed, self._next_bytes)
            made = make_unfinished(self._files, name + UNFINISHED, wanted, needed)
        header = FileHeader(
            self._next_number, epoch, self.manifest_generation,
            self.last_sequence, time.time_ns(),
            link.number if link else 0, link.position if link else 0,
            link.checksum if link else 0, bool(link and synced), made.size,
            tables=tables_bytes_of(self.tables),
        )  # fmt: skip
        data = header.to_bytes(self._store_uuid)
        writer = None
        try:
            self._files.write_all(made.fd, data, 0, self._files.path(name))
            writer = JournalWriter(
                made.fd, made.mapping, self._files.operations, number=header.number, epoch=epoch,
                base_sequence=header.base_sequence, creation_time=header.creation_time,
                header_checksum=int.from_bytes(data[8:12], "little"),
                prepare_step_bytes=self.prepare_step_bytes, previous=None if synced else previous,
            )  # fmt: skip
            self._files.sync_file(made.fd, self._files.path(name))
            if previous is not None:
                previous.seal()
            self._files.rename(made.name, name)
            self._files.sync_directory()
        except BaseException:
            if writer is not None:
                writer.retire(durable=False)
            made.discard(self._files)
            self._files.remove(name)
            raise
        self._next_number += 1
        self._started = True
        self.epoch = epoch
        self._next_bytes = min(self._next_bytes * GROWTH, self._largest_bytes)
        self._open.append(OpenFile(writer, made.mapping, made.fd))
        return writer

    def prepare_next(self) -> bool:
        """Make the next file ahead once the last is half full; whether one is ready.

        Needs no lock, and takes none that a commit waits for: any thread may call it at any time.
        A rotation then has a page to write and two syncs; to make the file took as long again.
        """
        writer = self.writer
        if writer is None or self.poisoned or 2 * writer.position < writer.capacity_bytes:
            return False
        return self._spare.make(self._next_bytes)

    def _link(self) -> Link | None:
        """What the next file continues; None when all before it is flushed and gone."""
        if self._open:
            writer = self._open[-1].writer
            return Link(writer.number, writer.position, writer.last_checksum, writer.last_sequence)
        if self._replayed and self._replay.end and not self._started:
            return self._replay.end
        return None

    def _remove_dead(self) -> None:
        """Remove, durably, what no frame counts of.

        Highest first, and each before the next, for a crash may lose any of the removals: what is
        left is still a chain up to the hole.
        """
        unfinished = [
            name
            for name in self._names
            if name.startswith("journal-") and name.endswith(UNFINISHED)
        ]
        dead = sorted(self._replay.dead, reverse=True)
        for number in dead:
            self._files.unlink(journal_name(number))
            self._files.sync_directory()
        self._replay.dead.clear()
        for name in unfinished:
            self._files.unlink(name)
        self._names = [name for name in self._names if name not in unfinished]

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
            except OSError as error:
                self._replayed_failed = True
                raise PoisonedError(f"the journal could not be synced ({error})") from error
            finally:
                self._files.close(fd)
        self._replayed_synced = True

    # -- dropping and closing

    @property
    def files(self) -> list[JournalRecord]:
        """The files that count, oldest first."""
        return self._replayed + [file.record for file in self._open]

    def detach_through(self, sequence: int, *, including_current: bool = False) -> list[int]:
        """Let go of the files whose sequences are all flushed, durably, up to `sequence`.

        Needs the writer lock, and is brief: `remove_detached`, which must follow, does the work.
        The file being appended to goes too if asked; the next append then makes a new one.  Returns
        the numbers of the files.
        """
        self._flushed_sequence = max(self._flushed_sequence, sequence)
        if not self._started:
            self._remove_dead()  # what follows a hole must not outlive what is before it
        numbers: list[int] = []
        while self._replayed and self._replayed[0].last_sequence <= sequence:
            record = self._replayed.pop(0)
            numbers.append(record.number)
            self.detached.add(record)
        used_bytes = 0
        while (
            self._open
            and not self._replayed
            and self._open[0].writer.last_sequence <= sequence
            and (including_current or len(self._open) > 1)
        ):
            file = self._open.pop(0)
            used_bytes += file.writer.position
            numbers.append(file.writer.number)
            self.detached.add(file.record, file)
        if used_bytes and not self._open:
            # As much again fits one file; it does not grow from checkpoint to checkpoint.
            wanted = -(-used_bytes // PAGE_BYTES) * PAGE_BYTES
            self._next_bytes = min(max(wanted, self._first_bytes), self._largest_bytes)
        return numbers

    def remove_detached(self) -> None:
        """Close and unlink what was detached; what cannot be unlinked now is tried the next time.

        Needs `engine.maintenance`, or another way to be called by one thread at a time, but not the
        writer lock: commits go on meanwhile.
        """
        self.detached.remove()

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
                file.retire(self._files, durable=file.writer.fully_synced)
                self._failed = self._failed or file.writer.failed != 0
            if clean and self._started:  # a store opened for reading changes nothing
                self.detached.remove(pins=False)
            self.detached.close()
            self._spare.close()
