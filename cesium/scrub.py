"""One look at the files of a store as they lie in the directory, whoever may be writing there.

Manifest and journal are read together, again and again while another process changes them, until
what was read belongs together.  Nothing is written and no lock is taken.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from cesium._frames import FRAME_ATTACH, FRAME_HEADER_BYTES, next_frame
from cesium.directory import BACKUP_MARK, fingerprint, segment_name, segment_numbers
from cesium.files import Files
from cesium.frames import Span
from cesium.named import every_record
from cesium.origin import Origin
from cesium.scan_journal import Break, JournalScan, scan_journal, sequences
from cesium.scan_manifest import ManifestScan, Place, scan_manifest
from cesium.scan_segment import find_footer, read_pages
from cesium.state import SegmentRecord, State, attached_records

ATTEMPTS = 20


@dataclass(slots=True)
class Logs:
    """Manifest and journal, read at one moment.  flushed: None when the manifest is lost."""

    names: list[str]
    manifest: ManifestScan
    journal: JournalScan
    flushed: int | None


def scan_logs(files: Files, paced: Callable[[int], None]) -> Logs:
    """Reads manifest and journal.  Damage that a second reading does not find was another process
    writing; FileNotFoundError when files come and go without end."""
    silent: Callable[[int], None] = lambda done: None  # noqa: E731
    seen: list[object] | None = None
    for attempt in range(ATTEMPTS):
        before = fingerprint(files)
        try:
            logs = _scan_logs(files, [name for name, _ in before], paced if not attempt else silent)
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1 or fingerprint(files) == before:
                raise
            continue
        found = _damage_of(logs)
        if not found or (found == seen and fingerprint(files) == before):
            return logs
        seen = found
    return logs


def _damage_of(logs: Logs) -> list[object]:
    return [
        *logs.manifest.problems,
        *(piece for piece in logs.journal.pieces() if isinstance(piece, Break) and piece.damage),
    ]


def _scan_logs(files: Files, names: list[str], paced: Callable[[int], None]) -> Logs:
    manifest = scan_manifest(files, names)
    paced(manifest.bytes)
    state = manifest.state
    uuid = state.store_uuid if state is not None else manifest.hints.uuid
    flushed = state.flushed_sequence if state is not None else None
    journal = scan_journal(files, names, uuid, flushed, paced)
    behind: str | None = None
    if state is not None and journal.generation > state.generation:
        behind = (
            f"the manifest is of generation {state.generation}, but the journal needs "
            f"{journal.generation}: a newer one is lost"
        )
    elif state is not None:
        behind = _behind(files, names, state, journal)
    if behind is not None:
        manifest.problems.append(Place(None, behind))
        manifest.state = None
        flushed = None
        journal = scan_journal(files, names, uuid, None, lambda done: None)
    return Logs(names, manifest, journal, flushed)


def _behind(files: Files, names: list[str], state: State, journal: JournalScan) -> str | None:
    """What shows that edits of the manifest are lost, though what there is of it is sound: a
    segment that it does not name and that no crash explains, nor a backup in the making."""
    if BACKUP_MARK in names:
        return None
    named = {record.id for record in every_record(state)}
    known = state.sequence
    for piece in journal.pieces():
        if isinstance(piece, Span):
            known = max(known, sequences(piece)[1])
            for _, records in attached(piece, 0):
                named |= {record.id for record in records}
    header = journal.files[0].header if journal.files else None
    begins_later = header is not None and header.base_sequence > state.flushed_sequence
    there = set(segment_numbers(names))
    for number in sorted(there - named):
        name = segment_name(number)
        try:
            footer = find_footer(read_pages(files, name, lambda done: None), number)
        except FileNotFoundError:
            continue
        if footer is None or footer["store_uuid"] != state.store_uuid:
            continue
        since = footer["last_sequence"] or footer["first_sequence"]
        origin = Origin.from_bytes(footer["origin"])
        # A crash leaves a flush that the manifest does not know yet, and may take the end of the
        # journal that it came from.  That journal begins where the manifest ends, if there is one.
        unjournaled = origin is not None and not origin.journaled
        ordinary = unjournaled if header is None else not begins_later
        if since > known and not ordinary:
            return f"it does not know {name}, which holds commits after {known}, its last"
        inputs = origin.inputs if origin is not None else frozenset()
        # Not those of an earlier merge: what came of that one, merged again, may not be gone yet.
        if inputs & (set(state.segments) - there):
            return f"it does not know {name}, into which what it knows was merged"
        if begins_later:
            return f"it does not know {name}, and the journal begins later than it ends"
    return None


def attached(span: Span, after: int) -> list[tuple[int, list[SegmentRecord]]]:
    """The loads in a span: the sequence above `after` and the records of each attach frame."""
    found = []
    position = span.start
    while (frame := next_frame(span.data, position, span.end, span.base)) is not None:
        end, kind, _, sequence = frame[:4]
        if kind == FRAME_ATTACH and sequence > after:
            payload = span.data[position + FRAME_HEADER_BYTES : end].tobytes()
            try:
                (length,) = struct.unpack_from("<Q", payload)
                records = attached_records(payload[8 : 8 + length])
            except (ValueError, KeyError, TypeError, AttributeError, struct.error):
                records = []
            found.append((sequence, records))
        position = end
    return found


def counting_spans(journal: JournalScan) -> list[Span]:
    """The spans up to the first break: those that opening would replay."""
    spans: list[Span] = []
    for piece in journal.pieces():
        if isinstance(piece, Break):
            break
        spans.append(piece)
    return spans
