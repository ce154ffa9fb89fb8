"""What a store is at one moment: its tables, its live segments, what of the journal is flushed.

A `State` is immutable and may be shared between threads; an `Edit` makes the next one.  Their JSON
is drawn in docs/format-manifest.md; what is read from JSON is checked by type before it is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cesium._records import records_at
from cesium.errors import CorruptionError
from cesium.records import (
    BlobShare,
    Json,
    NamedVersion,
    SegmentRecord,
    TableRecord,
    checked_name,
    number,
)

__all__ = [
    "BlobShare",
    "Edit",
    "Json",
    "NamedVersion",
    "SegmentRecord",
    "State",
    "TableRecord",
]

FORMAT_VERSION = 1
DEFAULT_TABLE = 1  # the id of the table that a store is itself


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
    named: dict[str, NamedVersion] = field(default_factory=dict)  # in the order of naming

    def to_json(self) -> Json:
        """The snapshot payload."""
        places: dict[SegmentRecord, int] = {}
        named = {
            name: version.to_json(self.segments, places) for name, version in self.named.items()
        }
        kept = {"named_segments": [record.to_json() for record in places]} if named else {}
        return {
            **{name: getattr(self, name) for name in NUMBERS},
            "options": self.options,
            "named_versions": named,
            **kept,
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
        live = {segment.id: segment for segment in segments}
        check_tables(segments, {table.id: table for table in tables})
        kept = [SegmentRecord.from_json(item) for item in payload.get("named_segments", ())]
        named = payload.get("named_versions", {})
        state = cls(
            store_uuid, generation, format_version, compatible_features, incompatible_features,
            sequence=number(payload["sequence"]),
            flushed_sequence=number(payload["flushed_sequence"]),
            epoch=number(payload["epoch"]),
            next_segment_id=number(payload["next_segment_id"]),
            next_table_id=number(payload["next_table_id"]),
            tables={table.id: table for table in tables},
            segments=live,
            options=payload["options"],
            named={
                name: NamedVersion.from_json(name, members, live, kept)
                for name, members in named.items()
            },
        )  # fmt: skip
        return _in_order(state)


SEGMENTS = b',"segments":['  # the last member of a snapshot's payload, as json_bytes writes it
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
    remove_versions: tuple[str, ...] = ()
    name_version: tuple[str, int] | None = None  # a name and a time for what the edit makes

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
                segment.id: segment
                for segment in state.segments.values()
                if segment.table not in gone
            }
            for segment_id in self.remove_segments:
                if segments.pop(segment_id, None) is None:
                    raise ValueError(f"no segment {segment_id} to remove")
            segments.update((segment.id, segment) for segment in self.put_segments)
            tables = changes.get("tables", state.tables)
            check_tables(self.put_segments, tables)
            changes["segments"] = segments
        for name in NUMBERS:
            value = getattr(self, name)
            if value is not None:
                if value < getattr(state, name):
                    raise ValueError(f"{name} would go down to {value}")
                changes[name] = value
        if self.options is not None:
            changes["options"] = self.options
        if self.remove_versions or self.name_version:
            changes["named"] = self._renamed(replace(state, **changes))
        return _in_order(replace(state, **changes))

    def _renamed(self, state: State) -> dict[str, NamedVersion]:
        """The named versions after the edit, of the state with all else that it changes."""
        named = dict(state.named)
        for name in self.remove_versions:
            if named.pop(name, None) is None:
                raise ValueError(f"no version {name!r} to remove")
        if self.name_version is not None:
            name, time = self.name_version
            if name in named:
                raise ValueError(f"there is a version {name!r} already")
            named[name] = NamedVersion(
                checked_name(name), state.flushed_sequence, time, state.tables, state.segments
            )
        return named

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
        if self.remove_versions:
            payload["remove_versions"] = list(self.remove_versions)
        if self.name_version is not None:
            payload["name_version"] = dict(zip(("name", "time"), self.name_version))
        return payload

    @classmethod
    def from_json(cls, payload: Json) -> Edit:
        """The edit back; unknown members are ignored."""
        changed: Json = payload.get("set", {})
        named: Json | None = payload.get("name_version")
        return cls(
            tuple(number(item) for item in payload.get("remove_tables", ())),
            tuple(TableRecord.from_json(item) for item in payload.get("put_tables", ())),
            tuple(number(item) for item in payload.get("remove_segments", ())),
            tuple(SegmentRecord.from_json(item) for item in payload.get("put_segments", ())),
            **{name: number(changed[name]) for name in NUMBERS if name in changed},
            options=changed.get("options"),
            remove_versions=tuple(map(checked_name, payload.get("remove_versions", ()))),
            name_version=(
                None if named is None else (checked_name(named["name"]), number(named["time"]))
            ),
        )


def check_tables(segments: Iterable[SegmentRecord], tables: Mapping[int, TableRecord]) -> None:
    """ValueError for segments of tables that are not there."""
    for segment in segments:
        if segment.table not in tables:
            raise ValueError(f"segment {segment.id} is of table {segment.table}: there is none")


def _in_order(state: State) -> State:
    """The state; ValueError when more is flushed, or named, than was committed, or tables
    share a name."""
    for version in state.named.values():
        if version.sequence > state.flushed_sequence:
            raise ValueError(
                f"the version {version.name!r} is of sequence {version.sequence}, beyond "
                f"flushed_sequence {state.flushed_sequence}"
            )
    if len({table.name for table in state.tables.values()}) < len(state.tables):
        raise ValueError("two tables have the same name")
    if state.flushed_sequence > state.sequence:
        raise ValueError(
            f"flushed_sequence is {state.flushed_sequence}, beyond sequence {state.sequence}"
        )
    return state


def segments_by_table(state: State) -> dict[int, list[SegmentRecord]]:
    """The segments of each table that has some."""
    found: dict[int, list[SegmentRecord]] = {}
    for record in state.segments.values():
        found.setdefault(record.table, []).append(record)
    return found


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
