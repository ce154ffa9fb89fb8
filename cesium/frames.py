"""Journal frames and their operations as Python objects, over bytes that were scanned.

The checksums were checked by whoever made the span (replay.py, scan_journal.py); the pieces of an
operation are bounds-checked before an array is formed over them.

Thread safety: pure functions over bytes in private memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from cesium._frames import (
    FRAME_ATTACH,
    FRAME_END,
    FRAME_HEADER_BYTES,
    FrameBase,
    next_frame,
    next_operation,
    skip_through,
)
from cesium.errors import CorruptionError, Error
from cesium.files import Bytes
from cesium.state import parse_json

GROUP_FRAMES = 1 << 16


def corrupt(path: str, what: str, offset: int, expected: object, found: object) -> NoReturn:
    """Raise what damage in a journal file is."""
    raise CorruptionError(
        f"{path} at {offset}: {what} (expected {expected}, found {found})",
        file=path, offset=offset, expected=expected, found=found,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Span:
    """A run of checked frames: `data[start:end]` of one file (uint8), for compiled walking."""

    number: int
    data: Bytes
    start: int
    end: int
    base: FrameBase


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on rows of one table.

    Keys are `heads` (uint64) or `key_lengths` (uint32) and `key_data` (uint8); a delete range has
    two.  Values of a put are `value_data` (uint8), rows of `value_width` or of `value_lengths`.
    """

    table_id: int
    kind: int
    flags: int
    row_count: int
    heads: npt.NDArray[np.uint64] | None
    key_lengths: npt.NDArray[np.uint32] | None
    key_data: Bytes | None
    value_lengths: npt.NDArray[np.uint32] | None
    value_data: Bytes | None
    value_width: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a span: `data[position:end]`, bytes of the file in private memory."""

    path: str
    span: Span
    position: int
    end: int
    type: int
    epoch: int
    sequence: int
    commit_time: int
    synced_position: int
    operation_count: int

    def operations(self) -> Iterator[Operation]:
        """The operations of a commit frame, in order."""
        offset = 0
        for index in range(self.operation_count):
            found = self._next_operation(offset)
            if not isinstance(found, tuple):
                self._corrupt("operations are missing or make no sense", index)
            (offset, table_id, kind, flags, rows, keys, heads, key_lengths, key_data, key_bytes,
             value_lengths, value_data, value_bytes, value_width) = found  # fmt: skip
            yield Operation(
                table_id, kind, flags, rows,
                self._view(heads, keys, np.uint64),
                self._view(key_lengths, keys, np.uint32),
                self._view(key_data, key_bytes, np.uint8),
                self._view(value_lengths, rows, np.uint32),
                self._view(value_data, value_bytes, np.uint8),
                value_width,
            )  # fmt: skip
        if self._next_operation(offset) is not None:
            self._corrupt("there are more operations than counted", self.operation_count)

    def attached(self) -> Any:
        """The JSON of an attach frame."""
        payload = self.span.data[self.position + FRAME_HEADER_BYTES : self.end]
        try:
            (length,) = struct.unpack_from("<Q", payload.data)
            if length > len(payload) - 8:
                raise ValueError("it is cut off")
            return parse_json(payload[8 : 8 + length].tobytes())
        except (ValueError, struct.error) as error:
            self._corrupt(f"an attach frame makes no sense: {error}", 0)

    def _next_operation(self, offset: int) -> tuple[int, ...] | int | None:
        return next_operation(self.span.data, self.position, self.end, self.span.base, offset)

    def _view(self, offset: int, count: int, dtype: Any) -> npt.NDArray[Any] | None:
        if offset < 0:
            return None
        return np.frombuffer(self.span.data, dtype, count, offset)

    def _corrupt(self, what: str, found: object) -> NoReturn:
        corrupt(self.path, what, self.position, self.operation_count, found)


def frames_of(span: Span, path: str) -> Iterator[Frame]:
    """The commit and attach frames of a span; Error for what this version cannot read."""
    position = span.start
    while (found := next_frame(span.data, position, span.end, span.base)) is not None:
        end, kind, epoch, sequence, time, synced, count, codec, key_id = found
        if codec or key_id or not 1 <= kind <= FRAME_END:
            raise Error(f"{path} at {position}: frame type {kind}, codec {codec}, key {key_id}")
        if kind != FRAME_END:
            yield Frame(path, span, position, end, kind, epoch, sequence, time, synced, count)
        position = end


def attach_parts(payload: object) -> list[bytes]:
    """The parts of an attach frame for a JSON-ready payload."""
    data = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
    return [struct.pack("<Q", len(data)) + data]


def groups_of(span: Span, position: int) -> Iterator[list[int]]:
    """The ends of the frames from a position on, by groups; an attach frame is a group of its own,
    for it must not be applied twice."""
    ends: list[int] = []
    while (frame := next_frame(span.data, position, span.end, span.base)) is not None:
        position = frame[0]
        if frame[1] == FRAME_ATTACH:
            if ends:
                yield ends
            yield [position]
            ends = []
            continue
        ends.append(position)
        if len(ends) == GROUP_FRAMES:
            yield ends
            ends = []
    if ends:
        yield ends


def count_frames(span: Span, above: int) -> int:
    """How many frames of a span come after a sequence."""
    count = 0
    position = skip_through(span.data, span.start, span.end, span.base, above)
    while (frame := next_frame(span.data, position, span.end, span.base)) is not None:
        position = frame[0]
        count += 1
    return count
