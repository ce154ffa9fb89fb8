"""Versions of a store that have a name: which one is meant, and what opening it means.

Pure functions of a State; what makes and drops versions is in naming.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from cesium.directory import journals_of
from cesium.options import At
from cesium.records import NamedVersion, SegmentRecord, TableRecord
from cesium.state import State

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SHOWN_MOST = 5  # names in an error


def opened_at(state: State, names: list[str], at: At, path: str | None) -> tuple[State, list[str]]:
    """What a store was at a named version, and the files that count for it: no journal does.

    KeyError when there is no such version.
    """
    version = version_at(state, at, path)
    then = replace(
        state,
        sequence=version.sequence,
        flushed_sequence=version.sequence,
        tables=version.tables,
        segments=version.segments,
    )
    journals = set(journals_of(names))
    return then, [name for name in names if name not in journals]


def version_at(state: State, at: At, path: str | None) -> NamedVersion:
    """The version with a name, or the last one that was named at or before a time; KeyError."""
    if isinstance(at, str):
        if at in state.named:
            return state.named[at]
        known = [repr(name) for name in reversed(state.named)]
        more = [f"and {len(known) - SHOWN_MOST} more"] if len(known) > SHOWN_MOST else []
        there = ", ".join(known[:SHOWN_MOST] + more) or "none"
        raise KeyError(f"{path} has no checkpoint named {at!r} (there are: {there})")
    moment = microseconds_of(at)
    for version in reversed(state.named.values()):
        if version.time <= moment:
            return version
    raise KeyError(f"{path} has no checkpoint that was named at or before {at}")


def microseconds_of(at: datetime | np.datetime64) -> int:
    """A time in microseconds since 1970, UTC; a datetime without a time zone is local time."""
    if isinstance(at, np.datetime64):
        if np.isnat(at):
            raise ValueError("a store is opened at a time, not at NaT")
        return int(at.astype("datetime64[us]").astype(np.int64))
    return (at.astimezone(UTC) - EPOCH) // MICROSECOND


def named_records(state: State) -> Iterator[SegmentRecord]:
    """The segments of all named versions; one that several have comes several times."""
    for version in state.named.values():
        yield from version.segments.values()


def every_record(state: State) -> list[SegmentRecord]:
    """The segments of a store and of its named versions, each once, rather as the former has it."""
    return [*({record.id: record for record in named_records(state)} | state.segments).values()]


def tables_of(state: State) -> dict[int, TableRecord]:
    """All tables, those that named versions alone still have included; no id is used twice."""
    tables = dict(state.tables)
    for version in state.named.values():
        tables |= version.tables
    return tables


def sizes_of(records: Iterable[SegmentRecord]) -> dict[tuple[str, int], int]:
    """The bytes of segments and of the blob files that they refer to, by kind and id."""
    sizes: dict[tuple[str, int], int] = {}
    for record in records:
        sizes["segment", record.id] = record.bytes
        sizes |= {("blob", share.id): share.file_bytes for share in record.blobs}
    return sizes


def checkpoint_bytes(state: State) -> int:
    """The bytes of files that named versions alone need."""
    sizes = sizes_of(named_records(state))
    live = sizes_of(state.segments.values())
    return sum(size for file, size in sizes.items() if file not in live)
