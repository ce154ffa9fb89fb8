"""Every frame of a store's journal, past damage too: what counts, what is damaged, what follows.

The rules are those of replay (docs/format-journal.md, "Which frames count"); replay stops at the
first hole and refuses damage, this names both and goes on.  What follows a break is known to be
sound in itself (its checksum says which file and which place it belongs to), but not to be the next
commit.

Thread safety: pure functions over bytes in private memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cesium._frames import (
    FILE_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    check_frames,
    find_frame,
    highest_vouched,
    next_frame,
    scan_frames,
)
from cesium.checksum import crc32c
from cesium.errors import CorruptionError
from cesium.files import Bytes, Files
from cesium.frames import Span
from cesium.manifest import numbers_of
from cesium.origin import tables_of
from cesium.replay import FileHeader, journal_name, parse_header
from cesium.state import TableRecord


@dataclass(frozen=True, slots=True)
class Break:
    """Where the frames stop to follow one another: bytes [offset, end) of a file.

    damage: what was synced is not there any more, or a file; else it is the ordinary end of what
    reached the drive (and what lies behind it was never acknowledged as synced).
    """

    number: int
    offset: int
    end: int
    damage: bool
    message: str


@dataclass(slots=True)
class JournalFile:
    """One file of the chain.  pieces: runs of sound frames and the breaks between, in order."""

    number: int
    name: str
    size: int
    header: FileHeader | None
    pieces: list[Span | Break] = field(default_factory=list)
    frames: int = 0


@dataclass(slots=True)
class JournalScan:
    """The chain of files, oldest first, and those that are in none.  notes: of no consequence."""

    files: list[JournalFile] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    generation: int = 0  # of the manifest that the newest sound header needs
    epoch: int = 0
    uuids: list[bytes] = field(default_factory=list)
    tables: list[TableRecord] = field(default_factory=list)  # as sound headers say them

    def pieces(self) -> list[Span | Break]:
        """All of the chain, in order."""
        return [piece for file in self.files for piece in file.pieces]

    def damaged(self) -> bool:
        """Whether there is damage, and not only an ordinary end."""
        return any(isinstance(piece, Break) and piece.damage for piece in self.pieces())


def sequences(span: Span) -> tuple[int, int]:
    """The sequences of the first and the last frame of a span."""
    first = last = 0
    position = span.start
    while (found := next_frame(span.data, position, span.end, span.base)) is not None:
        last = found[3]
        first = first or last
        position = found[0]
    return first, last


def scan_journal(
    files: Files,
    names: list[str],
    store_uuid: bytes | None,
    flushed_sequence: int | None,
    paced: Callable[[int], None],
) -> JournalScan:
    """Walks the journal.  flushed_sequence: None when the manifest is lost: all files count then.

    store_uuid: None takes that of the newest file.  Error names what this version cannot read.
    """
    result = JournalScan()
    numbers = numbers_of(names, "journal")
    headers: dict[int, FileHeader | str] = {}
    for number in reversed(numbers):
        data = files.read_all(journal_name(number), FILE_HEADER_BYTES)
        uuid = store_uuid if store_uuid is not None else data[32:48]
        try:
            headers[number] = parse_header(files, number, uuid)
        except CorruptionError as error:
            headers[number] = str(error)
            continue
        store_uuid = uuid
        result.uuids.append(uuid)
    chain = _find_chain(files, numbers, headers, flushed_sequence)
    for place, (number, missing) in enumerate(chain):
        following = chain[place + 1] if place + 1 < len(chain) else None
        successor = headers[following[0]] if following is not None else None
        if following is not None and following[1]:
            successor = None  # it continues a file that is not there
        later = [headers[after] for after, _ in chain[place + 1 :]]
        found = headers[number]
        scanned = _scan_file(
            files,
            number,
            found,
            successor if isinstance(successor, FileHeader) else None,
            following is not None,
            [header for header in later if isinstance(header, FileHeader)],
        )
        if missing:
            scanned.pieces.insert(0, Break(number, 0, 0, True, missing))
        result.files.append(scanned)
        paced(scanned.size)
        if isinstance(found, FileHeader):
            result.generation = max(result.generation, found.manifest_generation)
            result.epoch = max(result.epoch, found.epoch)
            result.tables += tables_of(found.tables)
    live = {number for number, _ in chain}
    result.dead = [number for number in numbers if number not in live]
    return result


def _find_chain(
    files: Files,
    numbers: list[int],
    headers: dict[int, FileHeader | str],
    flushed_sequence: int | None,
) -> list[tuple[int, str]]:
    """The files that count, oldest first, each with what is missing right before it ("")."""
    chain: list[tuple[int, str]] = []
    number = numbers[-1] if numbers else 0
    while number:
        header = headers[number]
        older = [other for other in numbers if other < number]
        missing = ""
        if not isinstance(header, FileHeader):
            predecessor = older[-1] if older else 0
        elif flushed_sequence is not None and header.base_sequence <= flushed_sequence:
            predecessor = 0
        else:
            predecessor = header.predecessor
            if predecessor and predecessor not in older:
                if older or flushed_sequence is not None:
                    missing = f"{files.path(journal_name(predecessor))}: the file is missing"
                predecessor = older[-1] if older else 0
            elif not predecessor and flushed_sequence is not None:
                missing = (
                    f"{files.path(journal_name(number))}: commits {flushed_sequence + 1} to "
                    f"{header.base_sequence} are neither in it nor in segments"
                )
        chain.insert(0, (number, missing))
        number = predecessor
    return chain


def _recovered_header(data: Bytes, number: int) -> FileHeader | None:
    """A header good enough to check frames with, from the first frame; None when there is none.

    The first frame is always a full one, and written right after the file was created.
    """
    if len(data) < FILE_HEADER_BYTES + FRAME_HEADER_BYTES:
        return None
    (stored,) = struct.unpack_from("<I", data.data, 8)
    epoch, sequence, created = struct.unpack_from("<QQQ", data.data, FILE_HEADER_BYTES + 16)
    (previous,) = struct.unpack_from("<I", data.data, FILE_HEADER_BYTES + 48)
    last = max(sequence - 1, 0)
    for checksum in (previous, stored, crc32c(data[12:FILE_HEADER_BYTES])):
        header = FileHeader(number, epoch, 0, last, created, 0, 0, 0, False, checksum=checksum)
        position, _, _, _ = scan_frames(
            data, FILE_HEADER_BYTES, len(data), header.base, previous, last
        )
        if position > FILE_HEADER_BYTES:
            return header
    return None


def _scan_file(
    files: Files,
    number: int,
    found: FileHeader | str,
    successor: FileHeader | None,
    followed: bool,
    later: list[FileHeader],
) -> JournalFile:
    result = _walk_file(files, number, found, successor, followed, later)
    wanted = result.header.file_bytes if result.header is not None else 0
    if result.size < wanted:
        path = files.path(result.name)
        message = f"{path} at {result.size}: the file is cut off, it had {wanted} bytes"
        result.pieces.append(Break(number, result.size, wanted, True, message))
    return result


def _walk_file(
    files: Files,
    number: int,
    found: FileHeader | str,
    successor: FileHeader | None,
    followed: bool,
    later: list[FileHeader],
) -> JournalFile:
    name = journal_name(number)
    data, data_end = files.read_sparse(name)
    header = found if isinstance(found, FileHeader) else _recovered_header(data, number)
    result = JournalFile(number, name, len(data), header)
    if not isinstance(found, FileHeader):
        result.pieces.append(Break(number, 0, FILE_HEADER_BYTES, True, found))
        if header is None:
            return result
    assert header is not None
    limit = min(successor.predecessor_end, len(data)) if successor is not None else data_end
    position, checksum, last = FILE_HEADER_BYTES, header.checksum, header.base_sequence
    while True:
        start = position
        position, checksum, last, ended = scan_frames(
            data, position, limit, header.base, checksum, last
        )
        if position > start:
            _add_span(result, Span(number, data, start, position, header.base))
        if successor is not None:
            if position == successor.predecessor_end and checksum == (
                successor.predecessor_checksum
            ):
                return result
        elif position >= limit or (ended and not followed):
            return result
        vouched = highest_vouched(data, position, data_end, header.base, position)
        if vouched <= position and successor is not None and _vouched_by_later(files, later):
            vouched = max(limit, position + 1)
        damage = vouched > position
        behind = find_frame(data, position + 8, limit, header.base, last)
        end = behind[0] if behind is not None else max(limit, position)
        path = files.path(name)
        if damage:
            message = f"{path} at {position}: damage below {vouched}, which was synced"
        elif behind is None and successor is None:
            if data[position:limit].any():
                result.pieces.append(
                    Break(number, position, end, False, f"{path} at {position}: a frame cut off")
                )
            return result
        else:
            message = f"{path} at {position}: a hole; what lies behind it was never synced"
        result.pieces.append(Break(number, position, end, damage, message))
        if behind is None:
            return result
        position, checksum, last = behind[0], behind[1], max(behind[2], 1) - 1


def _add_span(result: JournalFile, span: Span) -> None:
    """Adds a run of sound frames, up to the first whose content makes no sense."""
    while span.start < span.end:
        frames, senseless = check_frames(span.data, span.start, span.end, span.base)
        result.frames += frames
        if senseless is None:
            result.pieces.append(span)
            return
        if senseless > span.start:
            result.pieces.append(replace(span, end=senseless))
        frame = next_frame(span.data, senseless, span.end, span.base)
        end = frame[0] if frame is not None else span.end
        what = f"{result.name} at {senseless}: a frame holds what is no operation"
        result.pieces.append(Break(span.number, senseless, end, True, what))
        span = replace(span, start=end)


def _vouched_by_later(files: Files, later: list[FileHeader]) -> bool:
    """Whether a later file shows that everything before it was synced."""
    for header in later:
        if header.predecessor_synced:
            return True
        data, end = files.read_sparse(journal_name(header.number))
        above = FILE_HEADER_BYTES
        if highest_vouched(data, above, end, header.base, above) > above:
            return True
    return False
