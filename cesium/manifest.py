"""The manifest: the newest State of a store on the drive, as a log of one snapshot and edits.

The bytes are drawn in docs/format-manifest.md.

Thread safety: a Manifest is written by one thread at a time (the engine's manifest mutex); `state`
may be read by any thread at any time.

1. `append` returns only when the edit is on stable storage; until then `state` is the old one.
2. After a failed write or sync nobody knows what the file says, so the manifest is poisoned.  Two
   failures are no such doubt: a full drive refuses an edit, of which at most the beginning is there
   (a torn tail), and a new file that has not got its name yet is thrown away.
3. A file with a torn tail is never appended to: the next edit goes to a new file.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

from cesium.checksum import crc32c
from cesium.errors import CorruptionError, Error, PoisonedError, StorageFullError
from cesium.features import check_readable, features_of
from cesium.files import UNFINISHED, Files
from cesium.state import (
    Edit,
    Json,
    SegmentRecord,
    State,
    TableRecord,
    json_bytes,
    parse_json,
    parse_snapshot,
)

__all__ = ["Edit", "Manifest", "SegmentRecord", "State", "TableRecord"]

MAGIC = b"cesiumM\0"
FILE_HEADER = struct.Struct("<8sIIQQ16sQ8x")
FRAME_HEADER = struct.Struct("<IIBBBBIQIIII")
SNAPSHOT, EDIT = 1, 2
SECTOR_BYTES = 512
REWRITE_BYTES = 64 * 1024


def manifest_name(number: int) -> str:
    """The file name of a manifest."""
    return f"manifest-{number:06d}"


def numbers_of(names: list[str], prefix: str) -> list[int]:
    """The numbers in the names `prefix-000001` and so on, ascending; other names do not count."""
    prefix += "-"
    start = len(prefix)
    numbers = [
        int(name[start:]) for name in names if name.startswith(prefix) and name[start:].isdecimal()
    ]
    return sorted(number for number in numbers if f"{prefix}{number:06d}" in names)


def _frame(position: int, kind: int, generation: int, previous: int, payload: Json) -> bytes:
    data = json_bytes(payload)
    padded = data + bytes(-len(data) % 8)
    length = FRAME_HEADER.size + len(padded)
    rest = FRAME_HEADER.pack(
        0, length, kind, 0, 0, 0, 0, generation, previous, crc32c(padded), len(data), 0
    )[4:]
    return struct.pack("<I", crc32c(rest, position)) + rest + padded


class Manifest:
    """The log.  Made by `create` or `load`; `state` is what it says now."""

    def __init__(self, files: Files, number: int, state: State) -> None:
        self.state = state
        self.number = number
        self._files = files
        self._fd = -1
        self._position = 0
        self._previous = 0
        self._snapshot_bytes = 0
        self._torn = False
        self.poisoned: OSError | None = None  # what left the file in doubt
        self.grown = False  # whether edits were appended here, behind the snapshot

    @property
    def name(self) -> str:
        """The name of the current file."""
        return manifest_name(self.number)

    @property
    def path(self) -> str:
        """The path of the current file."""
        return self._files.path(self.name)

    @property
    def torn(self) -> bool:
        """Whether the file ends in an edit that was cut off, and so does not count."""
        return self._torn

    # -- reading

    @classmethod
    def load(
        cls, files: Files, names: list[str] | None = None, *, durably: bool = False
    ) -> Manifest | None:
        """The newest manifest of the directory, or None if it has none.  Writes nothing.

        `names` is the directory's listing where the caller has it; durably: what it says is synced.
        CorruptionError says where the damage is; Error names what this version cannot read.
        """
        numbers = numbers_of(files.list() if names is None else names, "manifest")
        if not numbers:
            return None
        data = files.read_all(manifest_name(numbers[-1]))
        manifest = cls(files, numbers[-1], State(b""))
        manifest._read(data)
        if durably:
            manifest._sync()
        return manifest

    def _read(self, data: bytes) -> None:
        if len(data) < FILE_HEADER.size:
            self._corrupt("the file is cut off", 0, FILE_HEADER.size, len(data))
        magic, checksum, version, compatible, incompatible, uuid, number = FILE_HEADER.unpack_from(
            data
        )
        if magic != MAGIC:
            self._corrupt("not a manifest", 0, MAGIC, magic)
        found = crc32c(data[12 : FILE_HEADER.size])
        if found != checksum:
            self._corrupt("the file header's checksum is wrong", 8, checksum, found)
        check_readable(self.path, version, incompatible)
        if number != self.number:
            self._corrupt("the file has another's name", 48, self.number, number)
        self._previous = checksum
        self._position = FILE_HEADER.size
        state: State | None = None
        while self._position < len(data):
            frame = self._read_frame(data)
            if frame is None:
                self._torn = True
                break
            kind, generation, payload, length = frame
            try:
                if kind == SNAPSHOT and state is None:
                    state = State.from_json(
                        payload, uuid, generation, version, compatible, incompatible
                    )
                    self._snapshot_bytes = length
                elif kind == EDIT and state is not None:
                    if generation != state.generation + 1:
                        self._corrupt(
                            "a generation is missing",
                            self._position, state.generation + 1, generation,
                        )  # fmt: skip
                    state = Edit.from_json(payload).apply(state)
                else:
                    self._corrupt("a frame of the wrong type", self._position, "edit", kind)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                self._corrupt(f"a frame makes no sense: {error!r}", self._position, None, None)
            self._position += length
        if state is None:
            self._corrupt("there is no snapshot", FILE_HEADER.size, "a snapshot", "nothing")
        self.state = state

    def _is_torn(self, data: bytes) -> bool:
        """Whether what begins here is the incomplete end of an append."""
        start = self._position
        header = data[start : start + FRAME_HEADER.size]
        if start == FILE_HEADER.size:
            return False
        if len(header) < FRAME_HEADER.size:
            return True
        checksum, length = struct.unpack_from("<II", header)
        if crc32c(header[4:], start) == checksum:
            end: int = start + length
            if end > len(data):
                return True
            (payload_checksum,) = struct.unpack_from("<I", header, 28)
            if crc32c(data[start + FRAME_HEADER.size : end]) == payload_checksum or end < len(data):
                return False
            return self._lost_sector(data, end)
        return self._lost_sector(data, start + FRAME_HEADER.size) and not self._goes_on(data)

    def _lost_sector(self, data: bytes, end: int) -> bool:
        """Whether a sector of the frame, up to `end`, was never written; a whole frame has none.

        Sectors reach the drive in any order.  The last word of a frame holds a byte of JSON.
        """
        start = self._position
        while start < end:
            boundary = start // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES
            if not any(data[start:boundary]):
                return True
            start = boundary
        return False

    def _goes_on(self, data: bytes) -> bool:
        """Whether the header of a later frame is there, before which all had been synced."""
        for at in range(self._position + 8, len(data) - FRAME_HEADER.size, 8):
            (checksum,) = struct.unpack_from("<I", data, at)
            if checksum == crc32c(data[at + 4 : at + FRAME_HEADER.size], at):
                return True
        return False

    def _read_frame(self, data: bytes) -> tuple[int, int, Json, int] | None:
        """The frame at the position: type, generation, payload, length; None for a torn tail."""
        start = self._position
        if self._is_torn(data):
            return None
        if len(data) - start < FRAME_HEADER.size:
            self._corrupt("the file is cut off", start, FRAME_HEADER.size, len(data) - start)
        header = data[start : start + FRAME_HEADER.size]
        (checksum, length, kind, flags, codec, _, key_id, generation, previous, payload_checksum,
         payload_bytes, _) = FRAME_HEADER.unpack(header)  # fmt: skip
        found = crc32c(header[4:], start)
        if found != checksum:
            self._corrupt("a frame header's checksum is wrong", start, checksum, found)
        if previous != self._previous:
            self._corrupt("a frame is out of its chain", start + 24, self._previous, previous)
        if codec or key_id or flags:
            raise Error(f"{self.path} at {start}: codec {codec}, key {key_id}, flags {flags}")
        if length != FRAME_HEADER.size + payload_bytes + -payload_bytes % 8:
            self._corrupt("a frame's length is wrong", start + 4, payload_bytes, length)
        padded = data[start + FRAME_HEADER.size : start + length]
        found = crc32c(padded)
        if len(padded) != length - FRAME_HEADER.size or found != payload_checksum:
            self._corrupt("a frame's checksum is wrong", start, payload_checksum, found)
        self._previous = checksum
        try:
            payload = (parse_snapshot if kind == SNAPSHOT else parse_json)(padded[:payload_bytes])
        except ValueError as error:
            self._corrupt(f"a frame is no JSON: {error}", start, None, None)
        if not isinstance(payload, dict):
            self._corrupt("a frame is no JSON object", start, "object", type(payload).__name__)
        return kind, generation, payload, length

    def _corrupt(self, what: str, offset: int, expected: object, found: object) -> NoReturn:
        raise CorruptionError(
            f"{self.path} at {offset}: {what} (expected {expected}, found {found})",
            file=self.path, offset=offset, expected=expected, found=found,
        )  # fmt: skip

    # -- writing

    @classmethod
    def create(cls, files: Files, state: State) -> Manifest:
        """Write the first manifest of a store (or of a new, empty one in its place), durably."""
        numbers = numbers_of(files.list(), "manifest")
        manifest = cls(files, numbers[-1] if numbers else 0, state)
        try:
            manifest._write_snapshot(state)
        except BaseException:  # an interrupt, with the file open already
            manifest.close()
            raise
        return manifest

    def append(self, edit: Edit) -> State:
        """Make an edit durable, then current; return the new state.

        ValueError, with nothing changed, when the edit does not fit the state.
        """
        self._check_sound()
        state = edit.apply(self.state)
        frame = _frame(self._position, EDIT, state.generation, self._previous, edit.to_json())
        grown = self._position + len(frame) - FILE_HEADER.size - self._snapshot_bytes
        # The header says what a reader must know of, and is written with the file.
        needs_flag = features_of(state) & ~self.state.incompatible_features
        if self._torn or needs_flag or grown > max(self._snapshot_bytes, REWRITE_BYTES):
            self._write_snapshot(state)
            return self.state
        if self._fd < 0:
            self._fd = self._files.open(manifest_name(self.number), writable=True)
        self._torn = True
        with self._doubtful(StorageFullError):
            self._files.write_all(self._fd, frame, self._position, self.path)
        with self._doubtful():
            self._files.sync_data(self._fd, self.path)
        self._position += len(frame)
        self._previous = struct.unpack_from("<I", frame)[0]
        self.state = state
        self._torn = False
        self.grown = True
        return state

    def _sync(self) -> None:
        """Make durable what was read, before anything is removed, or called durable, on its word.

        Who wrote it may have been killed before its sync: then it is in the system's memory alone,
        and what it does not name may be all that a power cut leaves.
        """
        fd = self._files.open(self.name)
        try:
            self._files.sync_data(fd, self.path)
        finally:
            self._files.close(fd)
        self._files.sync_directory()

    def _check_sound(self) -> None:
        if self.poisoned is not None:
            raise PoisonedError(
                f"an earlier write of {self.path} failed ({self.poisoned})"
            ) from self.poisoned

    @contextlib.contextmanager
    def _doubtful(self, harmless: type[OSError] | tuple[()] = ()) -> Iterator[None]:
        """While this is open, nobody knows what is on the drive: a failure poisons the manifest.

        A mere interrupt (Ctrl-C) does not, nor does a failure that is `harmless`: what they leave
        is a torn tail, or a new file that is not counted yet, and the next edit replaces both by a
        file of its own.
        """
        self._torn = True  # the caller sets it back when all is noted
        try:
            yield
        except harmless:
            raise
        except OSError as error:
            self.poisoned = error
            raise PoisonedError(f"{self.path} may be damaged ({error})") from error

    def rewrite(self) -> None:
        """Write the state as the snapshot of a new file."""
        self._check_sound()
        self._write_snapshot(replace(self.state, generation=self.state.generation + 1))

    def _write_snapshot(self, state: State) -> None:
        state = replace(state, incompatible_features=features_of(state))
        old = self.number
        number = old + 1
        name = manifest_name(number)
        rest = FILE_HEADER.pack(
            MAGIC, 0, state.format_version, state.compatible_features,
            state.incompatible_features, state.store_uuid, number,
        )[12:]  # fmt: skip
        header_checksum = crc32c(rest)
        header = MAGIC + struct.pack("<I", header_checksum) + rest
        frame = _frame(
            FILE_HEADER.size, SNAPSHOT, state.generation, header_checksum, state.to_json()
        )
        # Before the rename a failure leaves the old file as it was; in it, nobody knows.
        fd = self._files.create(name + UNFINISHED)
        try:
            self._files.write_all(fd, header + frame, 0, self._files.path(name + UNFINISHED))
            self._files.sync_file(fd, self._files.path(name))
            with self._doubtful():
                self._files.publish(name)
        except BaseException:
            self._files.close(fd)
            self._files.remove(name + UNFINISHED)
            raise
        self.close()
        self._fd = fd
        self.number = number
        self._snapshot_bytes = len(frame)
        self._position = FILE_HEADER.size + len(frame)
        self._previous = struct.unpack_from("<I", frame)[0]
        self.state = state
        self._torn = False
        self.grown = False
        with contextlib.suppress(OSError):  # the newest counts; the next opening removes the others
            for stale in numbers_of(self._files.list(), "manifest"):
                if stale < number:
                    self._files.unlink(manifest_name(stale))

    def close(self) -> None:
        """Close the descriptor; a later edit opens the file again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close(fd)
