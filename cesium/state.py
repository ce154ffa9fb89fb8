"""What a store is at one moment: its tables, its live segments, what of the journal is flushed.

A `State` is immutable and may be shared between threads; an `Edit` makes the next one.  Their JSON
is drawn in docs/format-manifest.md; what is read from JSON is checked by type before it is taken.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from typing import Any

from cesium._records import records_at
from cesium.errors import CorruptionError

FORMAT_VERSION = 1

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BlobShare:
    """What a segment refers to in one blob file.

    file_bytes, checksum: of the whole file; value_bytes: of all values that were written to it,
    live_bytes and rows of those that this segment refers to.
    """

    id: int
    file_bytes: int
    checksum: int
    value_bytes: int
    live_bytes: int
    rows: int

    def to_json(self) -> Json:
        """The share as a segment's record has it."""
        return {
            "id": self.id, "bytes": self.file_bytes, "checksum": self.checksum,
            "values": self.value_bytes, "live": self.live_bytes, "rows": self.rows,
        }  # fmt: skip

    @classmethod
    def from_json(cls, members: Json) -> BlobShare:
        """The share back; unknown members are ignored."""
        names = ("id", "bytes", "checksum", "values", "live", "rows")
        return cls(*(_number(members[name]) for name in names))


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """What the manifest says of one segment: enough to route and count without opening it.

    `lower` and `upper` are the smallest and the largest encoded key that it holds or marks;
    `markers` counts range-delete markers, `checksum` is that of its footer page; `blobs` are the
    blob files that it refers to, by id.  `run`: segments above the last tier with the same run and
    last sequence are one source; they do not overlap, and have no range-delete markers.
    """

    id: int
    table: int
    tier: int
    lower: bytes
    upper: bytes
    rows: int
    markers: int
    delete_markers: int
    first_sequence: int
    last_sequence: int
    bytes: int
    pages: int
    checksum: int
    volume: int = 0
    blobs: tuple[BlobShare, ...] = ()
    run: int = 0  # of a record without one: its id

    def __post_init__(self) -> None:
        if not self.run:
            object.__setattr__(self, "run", self.id)

    def to_json(self) -> Json:
        """The record as the manifest and attach frames write it."""
        members = {name: getattr(self, name) for name in self.__slots__}
        del members["blobs"]
        if self.blobs:
            members["blobs"] = [share.to_json() for share in self.blobs]
        members["lower"] = base64.b64encode(self.lower).decode()
        members["upper"] = base64.b64encode(self.upper).decode()
        return members

    @classmethod
    def from_json(cls, members: Json) -> SegmentRecord:
        """The record back; unknown members are ignored."""
        return cls(
            _number(members["id"]), _number(members["table"]), _number(members["tier"]),
            base64.b64decode(members["lower"], validate=True),
            base64.b64decode(members["upper"], validate=True),
            _number(members["rows"]), _number(members["markers"]),
            _number(members["delete_markers"]), _number(members["first_sequence"]),
            _number(members["last_sequence"]), _number(members["bytes"]),
            _number(members["pages"]), _number(members["checksum"]),
            _number(members.get("volume", 0)),
            tuple(BlobShare.from_json(item) for item in members.get("blobs", ())),
            _number(members.get("run", 0)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One table: its id (never used twice), name, key and value as JSON-ready specifications."""

    id: int
    name: str
    key: Any
    value: Any
    flushed_sequence: int = 0

    def to_json(self) -> Json:
        """The record as the manifest writes it."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, members: Json) -> TableRecord:
        """The record back; unknown members are ignored."""
        name = members["name"]
        if not isinstance(name, str):
            raise ValueError("a table's name is text")
        table_id = _number(members["id"])
        if table_id >= TABLES_END:
            raise ValueError(f"table {table_id} is beyond 32 bits")
        return cls(
            table_id, name, members["key"], members["value"],
            _number(members.get("flushed_sequence", 0)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class State:
    """All that a store is at one generation.

    `sequence` is the last sequence known when it was written; everything up to `flushed_sequence`
    is in segments, so the journal is replayed after it.
    """

    store_uuid: bytes
    generation: int = 0
    format_version: int = FORMAT_VERSION
    compatible_features: int = 0
    incompatible_features: int = 0
    sequence: int = 0
    flushed_sequence: int = 0
    epoch: int = 0
    next_segment_id: int = 1
    next_table_id: int = 1
    tables: dict[int, TableRecord] = field(default_factory=dict)
    segments: dict[int, SegmentRecord] = field(default_factory=dict)
    options: Json = field(default_factory=dict)

    def to_json(self) -> Json:
        """The snapshot payload."""
        return {
            **{name: getattr(self, name) for name in NUMBERS},
            "options": self.options,
            "named_versions": {},
            "tables": [table.to_json() for table in self.tables.values()],
            "segments": [segment.to_json() for segment in self.segments.values()],
        }

    @classmethod
    def from_json(
        cls,
        payload: Json,
        store_uuid: bytes,
        generation: int,
        format_version: int,
        compatible_features: int,
        incompatible_features: int,
    ) -> State:
        """The state that a snapshot payload (see `parse_snapshot`) and its headers say.

        Unknown members are ignored.
        """
        tables = [TableRecord.from_json(item) for item in payload["tables"]]
        segments = [
            item if isinstance(item, SegmentRecord) else SegmentRecord.from_json(item)
            for item in payload["segments"]
        ]
        state = cls(
            store_uuid, generation, format_version, compatible_features, incompatible_features,
            sequence=_number(payload["sequence"]),
            flushed_sequence=_number(payload["flushed_sequence"]),
            epoch=_number(payload["epoch"]),
            next_segment_id=_number(payload["next_segment_id"]),
            next_table_id=_number(payload["next_table_id"]),
            tables={table.id: table for table in tables},
            segments={segment.id: segment for segment in segments},
            options=payload["options"],
        )  # fmt: skip
        return _in_order(state)


SEGMENTS = b',"segments":['  # the last member of a snapshot's payload, as json_bytes writes it
NUMBERS_END = 1 << 63  # of sequences, ids and counts
TABLES_END = 1 << 32
NUMBERS = ("sequence", "flushed_sequence", "epoch", "next_segment_id", "next_table_id")


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of the state; members as in docs/format-manifest.md, applied in this order."""

    remove_tables: tuple[int, ...] = ()
    put_tables: tuple[TableRecord, ...] = ()
    remove_segments: tuple[int, ...] = ()
    put_segments: tuple[SegmentRecord, ...] = ()
    sequence: int | None = None
    flushed_sequence: int | None = None
    epoch: int | None = None
    next_segment_id: int | None = None
    next_table_id: int | None = None
    options: Json | None = None

    def apply(self, state: State) -> State:
        """The state after the edit; ValueError when it does not fit the state."""
        changes: Json = {"generation": state.generation + 1}
        if self.remove_tables or self.put_tables:
            tables = dict(state.tables)
            for table_id in self.remove_tables:
                if tables.pop(table_id, None) is None:
                    raise ValueError(f"no table {table_id} to remove")
            tables.update((table.id, table) for table in self.put_tables)
            changes["tables"] = tables
        if self.remove_segments or self.put_segments or self.remove_tables:
            gone = set(self.remove_tables)
            segments = {
                number: segment
                for number, segment in state.segments.items()
                if segment.table not in gone
            }
            for segment_id in self.remove_segments:
                if segments.pop(segment_id, None) is None:
                    raise ValueError(f"no segment {segment_id} to remove")
            segments.update((segment.id, segment) for segment in self.put_segments)
            changes["segments"] = segments
        for name in NUMBERS:
            value = getattr(self, name)
            if value is not None:
                if value < getattr(state, name):
                    raise ValueError(f"{name} would go down to {value}")
                changes[name] = value
        if self.options is not None:
            changes["options"] = self.options
        return _in_order(replace(state, **changes))

    def to_json(self) -> Json:
        """The edit payload."""
        payload: Json = {}
        if self.remove_tables:
            payload["remove_tables"] = list(self.remove_tables)
        if self.put_tables:
            payload["put_tables"] = [table.to_json() for table in self.put_tables]
        if self.remove_segments:
            payload["remove_segments"] = list(self.remove_segments)
        if self.put_segments:
            payload["put_segments"] = [segment.to_json() for segment in self.put_segments]
        changed = {
            name: value
            for name in (*NUMBERS, "options")
            if (value := getattr(self, name)) is not None
        }
        if changed:
            payload["set"] = changed
        return payload

    @classmethod
    def from_json(cls, payload: Json) -> Edit:
        """The edit back; unknown members are ignored."""
        changed: Json = payload.get("set", {})
        return cls(
            tuple(_number(item) for item in payload.get("remove_tables", ())),
            tuple(TableRecord.from_json(item) for item in payload.get("put_tables", ())),
            tuple(_number(item) for item in payload.get("remove_segments", ())),
            tuple(SegmentRecord.from_json(item) for item in payload.get("put_segments", ())),
            **{name: _number(changed[name]) for name in NUMBERS if name in changed},
            options=changed.get("options"),
        )


def _in_order(state: State) -> State:
    """The state; ValueError when more is flushed than was committed."""
    if state.flushed_sequence > state.sequence:
        raise ValueError(
            f"flushed_sequence is {state.flushed_sequence}, beyond sequence {state.sequence}"
        )
    return state


def json_bytes(payload: Any) -> bytes:
    """JSON for a drive, without blanks; what `parse_json` reads back, lone surrogates included."""
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def parse_json(data: bytes) -> Any:
    """What JSON says that was read from a drive; ValueError when it is none, or nested too deep."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("JSON is nested too deep") from error


def parse_snapshot(data: bytes) -> Any:
    """The same of a snapshot's payload; its segments may be SegmentRecords already.

    They are the most of it, and come last, so where they are as this version writes them, json gets
    the rest alone: an object without that member.
    """
    start = data.find(SEGMENTS)
    if start >= 0:
        records = records_at(data, start + len(SEGMENTS), SegmentRecord, BlobShare)
        if records is not None:
            try:
                payload = parse_json(data[:start] + b"}")
            except ValueError:  # the list belonged to another object inside
                return parse_json(data)
            return {**payload, "segments": records} if isinstance(payload, dict) else payload
    return parse_json(data)


def attach_payload(records: list[SegmentRecord]) -> bytes:
    """What an attach frame says of its segments.

    Where one refers to blob files, the member has another name: a reader that does not know them
    refuses the frame, and does not take the segments without them.
    """
    name = "segments"
    if any(record.blobs for record in records):
        name = "segments_with_blobs"
    return json.dumps({name: [record.to_json() for record in records]}).encode()


def attached_records(payload: bytes) -> list[SegmentRecord]:
    """The records in an attach frame; ValueError and the like when it has something else."""
    members = parse_json(payload)
    items = members.get("segments_with_blobs")
    return [SegmentRecord.from_json(item) for item in items or members["segments"]]


def attached(payload: bytes) -> list[SegmentRecord]:
    """The records in an attach frame, at least one; CorruptionError when it has something else."""
    try:
        records = attached_records(payload)
        if not records:
            raise ValueError("it names no segment")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptionError(f"an attach frame makes no sense: {error!r}") from error
    return records


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < NUMBERS_END:
        raise ValueError(f"{value!r} is not a count")
    return value
