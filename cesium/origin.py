"""Whence a segment came, as its footer says it: for the day when the manifest is lost.

A manifest names the schema of a table, the tier of a segment and what was merged into what.  The
footer of each segment says so once more, in JSON (docs/format-segment.md, "Origin"), the header of
each journal file the schemas.  Nothing reads that but repair; what does not fit is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cesium.state import Json, TableRecord, json_bytes, parse_json

BYTES_MAX = 2048  # FOOTER_ORIGIN_BYTES_MAX
IDS_MOST = 1 << 20  # inputs of a merge
TABLES_BYTES_MAX = 3968  # what the header of a journal file leaves
FLUSH, LOAD, RUN, MERGE = "flush", "load", "run", "merge"


@dataclass(frozen=True, slots=True)
class Origin:
    """made: "flush", "load", "merge", or "run" for a part of a load that is merged before it ends.

    tier: the one it was made for.  inputs: ids of the segments that a merge replaces.  table: None
    where the schema does not fit.  journaled: not at durability "none".
    """

    made: str
    tier: int
    table: TableRecord | None = None
    inputs: frozenset[int] = frozenset()
    journaled: bool = True

    def to_bytes(self) -> bytes:
        """The JSON, at most 2048 bytes: without the inputs, the key's names, or the table, if it
        were longer."""
        members: Json = {"made": self.made, "tier": self.tier}
        if self.table is not None:
            members["table"] = self.table.to_json()
            del members["table"]["flushed_sequence"]
        if self.inputs:
            members["inputs"] = runs_of(self.inputs)
        if not self.journaled:
            members["journaled"] = False
        for left_out in ("", "inputs", "key_names", "table"):
            members.pop(left_out, None)
            if left_out == "key_names" and "table" in members:
                members["table"].pop(left_out, None)
            data = json_bytes(members)
            if len(data) <= BYTES_MAX:
                return data
        raise AssertionError("the rest is short")

    @classmethod
    def from_bytes(cls, data: bytes) -> Origin | None:
        """The origin back; None when there is none, or none that makes sense."""
        if not data:
            return None
        try:
            members = parse_json(data)
            table = members.get("table")
            return cls(
                str(members["made"]),
                int(members["tier"]),
                None if table is None else TableRecord.from_json(table),
                frozenset(_ids_of(members.get("inputs", []))),
                bool(members.get("journaled", True)),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return None


def runs_of(ids: Iterable[int]) -> list[list[int]]:
    """Ids as [first, last] of consecutive ones."""
    runs: list[list[int]] = []
    for number in sorted(ids):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return runs


def _ids_of(runs: Any) -> Iterable[int]:
    count = 0
    for first, last in runs:
        count += last + 1 - first
        if not (0 <= first <= last and count <= IDS_MOST):
            raise ValueError("no run of segment ids, or too many")
        yield from range(first, last + 1)


def tables_bytes_of(tables: Iterable[TableRecord]) -> bytes:
    """Schemas as the header of a journal file says them: the first ones, as many as fit."""
    pieces: list[bytes] = []
    left = TABLES_BYTES_MAX - len(b"[]")
    for table in tables:
        piece = json_bytes(table.to_json())
        if len(piece) + bool(pieces) > left:  # its types matter more than the names
            piece = json_bytes(replace(table, key_names=()).to_json())
        left -= len(piece) + bool(pieces)
        if left < 0:
            break
        pieces.append(piece)
    return b"[" + b",".join(pieces) + b"]" if pieces else b""


def tables_of(data: bytes) -> list[TableRecord]:
    """The schemas back; none when they make no sense."""
    try:
        return [TableRecord.from_json(item) for item in parse_json(data)] if data else []
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
