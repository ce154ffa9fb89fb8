"""The records of a manifest: tables, segments, and versions that somebody gave a name.

Each is immutable.  Their JSON is drawn in docs/format-manifest.md; what is read from JSON is
checked by type before it is taken.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cesium.key_names import Names, checked_names, fitting_names

Json = dict[str, Any]

NUMBERS_END = 1 << 63  # of sequences, ids and counts
TABLES_END = 1 << 32
NAME_BYTES_MOST = 255  # of a named version


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
        return cls(*(number(members[name]) for name in names))


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
            number(members["id"]), number(members["table"]), number(members["tier"]),
            base64.b64decode(members["lower"], validate=True),
            base64.b64decode(members["upper"], validate=True),
            number(members["rows"]), number(members["markers"]),
            number(members["delete_markers"]), number(members["first_sequence"]),
            number(members["last_sequence"]), number(members["bytes"]),
            number(members["pages"]), number(members["checksum"]),
            number(members.get("volume", 0)),
            tuple(BlobShare.from_json(item) for item in members.get("blobs", ())),
            number(members.get("run", 0)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One table: its id (never used twice), name, key and value as JSON-ready specifications.

    key_names: of the key's columns; () where they have none.
    """

    id: int
    name: str
    key: Any
    value: Any
    flushed_sequence: int = 0
    key_names: Names = ()

    def to_json(self) -> Json:
        """The record as the manifest writes it."""
        members = {name: getattr(self, name) for name in self.__slots__}
        del members["key_names"]
        if self.key_names:
            members["key_names"] = list(self.key_names)
        return members

    @classmethod
    def from_json(cls, members: Json) -> TableRecord:
        """The record back; unknown members are ignored."""
        name = members["name"]
        if not isinstance(name, str):
            raise ValueError("a table's name is text")
        table_id = number(members["id"])
        if table_id >= TABLES_END:
            raise ValueError(f"table {table_id} is beyond 32 bits")
        key, value = members["key"], members["value"]
        names = fitting_names(checked_names(members.get("key_names", ())), key, value)
        return cls(table_id, name, key, value, number(members.get("flushed_sequence", 0)), names)


@dataclass(frozen=True, slots=True)
class NamedVersion:
    """What a store was when somebody gave that a name: complete by itself.

    sequence: of its last commit; time: when it was named, in microseconds since 1970, UTC.
    """

    name: str
    sequence: int
    time: int
    tables: dict[int, TableRecord]
    segments: dict[int, SegmentRecord]

    def to_json(self, live: Mapping[int, SegmentRecord], places: dict[SegmentRecord, int]) -> Json:
        """The version as a snapshot has it; records that are not in `live` go into `places`."""
        found = self.segments.values()
        kept = [record for record in found if live.get(record.id) != record]
        return {
            "sequence": self.sequence,
            "time": self.time,
            "tables": [table.to_json() for table in self.tables.values()],
            "live": [record.id for record in found if live.get(record.id) == record],
            "kept": [places.setdefault(record, len(places)) for record in kept],
        }

    @classmethod
    def from_json(
        cls, name: str, members: Json, live: Mapping[int, SegmentRecord], kept: list[SegmentRecord]
    ) -> NamedVersion:
        """The version back; unknown members are ignored."""
        tables = [TableRecord.from_json(item) for item in members["tables"]]
        records = [live[number(item)] for item in members["live"]]
        places = dict(enumerate(kept))
        records += [places[number(item)] for item in members["kept"]]
        version = cls(
            checked_name(name),
            number(members["sequence"]),
            number(members["time"]),
            {table.id: table for table in tables},
            {record.id: record for record in records},
        )
        if len(version.segments) != len(records) or len(version.tables) != len(tables):
            raise ValueError(f"the version {name!r} has a segment or a table twice")
        if not version.tables.keys() >= {record.table for record in records}:
            raise ValueError(f"the version {name!r} has a segment of a table that it has not")
        return version


def checked_name(name: object) -> str:
    """A version's name; TypeError or ValueError when it cannot be one."""
    if not isinstance(name, str):
        raise TypeError(f"a checkpoint's name is a str, not {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} is not valid Unicode") from error
    if not 1 <= size <= NAME_BYTES_MOST:
        raise ValueError(
            f"a checkpoint's name has 1 to {NAME_BYTES_MOST} bytes in UTF-8, not {size}"
        )
    if any(ord(sign) < 0x20 or 0x7F <= ord(sign) < 0xA0 for sign in name):
        raise ValueError(f"a checkpoint's name has no control characters, so not {name!r}")
    return name


def number(value: object) -> int:
    """A sequence, an id or a count; ValueError when it is none."""
    if type(value) is not int or not 0 <= value < NUMBERS_END:
        raise ValueError(f"{value!r} is not a count")
    return value
