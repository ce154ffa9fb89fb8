"""The change feed: a store's commits as objects, in order, and waiting for the next one.

What is yielded is decoded from the journal (cesium/journal_reader.py), in the forms that
`Range.arrays` gives; all arrays are copies.
"""

from __future__ import annotations

import contextlib
import math
import operator
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cesium._frames import (
    DELETE,
    DELETE_RANGE,
    FRAME_ATTACH,
    FRAME_HEADER_BYTES,
    HIGH_UNBOUNDED,
    PUT,
)
from cesium._keys import EncodedKeys
from cesium._values import EncodedValues
from cesium.frames import Frame, corrupt
from cesium.frames import Operation as FrameOperation
from cesium.journal_reader import HeldJournal, Place, check_journaled, held
from cesium.loaded_rows import LoadedRows
from cesium.ordered import decoded_bound
from cesium.state import attached

if TYPE_CHECKING:
    from cesium.table_engine import TableEngine
    from cesium.tables import TableHandle

KINDS = {PUT: "put", DELETE: "delete", DELETE_RANGE: "delete_range"}
TIME_END = 1 << 63  # nanoseconds that a datetime64 holds
PAUSE_FIRST = 0.0005  # seconds between two looks of a watcher,
PAUSE_MOST = 0.02  # after which it finds a commit at the latest
Encoded = int | bytes


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One thing that a commit did to a table.

    table: its name, "" for the store's default one.
    kind: "put" (keys and values, in the order given: of equal keys the last one wins), "delete"
    (keys, whether or not they were there), "delete_range" (all keys from `lower` to below `upper`;
    None: no bound), or "load" (see `arrays`).  keys, values: in the forms that `Range.arrays`
    gives.  lower, upper: keys; where a bound is no whole key, such as a tuple with some parts
    only, the bytes by which the store orders it.  rows: of a put, a delete or a load; 0 of a
    delete_range.
    """

    table: str
    kind: str
    rows: int
    keys: Any = None
    values: Any = None
    lower: Any = None
    upper: Any = None
    _handle: TableHandle | None = field(default=None, repr=False)
    _loaded: LoadedRows | None = field(default=None, repr=False)

    def arrays(self) -> tuple[Any, Any]:
        """(keys, values) of a put or a load.

        A load of rows in bulk, which a very large batch is too, is not in the journal: its rows are
        read, all at once and in key order, from the segments that it wrote.  NotKeptError once a
        merge has put them together with others; the store has them still, unless they were written
        anew or removed since.  TypeError for a delete or a delete_range.
        """
        if self._loaded is not None and self._handle is not None:
            self._handle._check_open()
            return self._loaded.arrays()
        if self.kind != "put":
            raise TypeError(f"a {self.kind} has no keys with values")
        return self.keys, self.values


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One commit: its sequence, the time (numpy datetime64[ns], UTC) and what it did, in order.

    What it did to tables that were dropped since is left out.
    """

    sequence: int
    time: np.datetime64
    operations: tuple[Operation, ...]


# -- from frames to objects


class Interval:
    """An interval of encoded keys, half-open; upper None: no end, lower None: nothing in it."""

    def __init__(self, lower: Encoded | None, upper: Encoded | None) -> None:
        self._lower = lower
        self._upper = upper

    def holds_any(self, keys: EncodedKeys) -> bool:
        """Whether one of the keys lies in it."""
        lower, upper = self._lower, self._upper
        if lower is None:
            return False
        if keys.heads is not None:
            assert isinstance(lower, int) and not isinstance(upper, bytes)
            inside = keys.heads >= lower
            if upper is not None:
                inside &= keys.heads < upper
            return bool(inside.any())
        assert isinstance(lower, bytes) and not isinstance(upper, int)
        return any(lower <= key and (upper is None or key < upper) for key in _strings(keys))

    def overlaps(self, lower: Encoded, upper: Encoded | None) -> bool:
        """Whether another one has keys in common with it."""
        if self._lower is None:
            return False
        mine, theirs = self._upper, upper
        return (theirs is None or self._lower < theirs) and (  # type: ignore[operator]
            mine is None or lower < mine  # type: ignore[operator]
        )

    def touched_by(self, loaded: LoadedRows) -> bool:
        """Whether a load has a row in it."""
        return self._lower is not None and loaded.touches(self._lower, self._upper)


def _strings(keys: EncodedKeys) -> Iterator[bytes]:
    assert keys.offsets is not None and keys.data is not None
    data, ends = keys.data.tobytes(), keys.offsets.tolist()
    return (data[ends[row] : ends[row + 1]] for row in range(keys.count))


def _offsets(lengths: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


class Decoder:
    """Makes changes of the frames of a store: of all its tables, or of one."""

    def __init__(self, handle: TableHandle, table: TableEngine | None) -> None:
        self._handle = handle
        self._engine = handle._engine
        self._only = table

    def change(self, frame: Frame) -> Change:
        """The commit; CorruptionError for what cannot be one of this store."""
        when = frame.commit_time
        if when >= TIME_END:
            corrupt(frame.path, "an impossible commit time", frame.position, "before 2262", when)
        operations: list[Operation] = []
        if frame.type == FRAME_ATTACH:
            loaded = self._loaded(frame)
            if loaded is not None:
                name = loaded.table.record.name
                operations.append(
                    Operation(name, "load", loaded.count, _handle=self._handle, _loaded=loaded)
                )
        else:
            for found in frame.operations():
                table = self._table(frame, found.table_id)
                if table is not None:
                    operations.append(operation_of(table, frame, found))
        return Change(frame.sequence, np.datetime64(when, "ns"), tuple(operations))

    def touches(self, frame: Frame, interval: Interval | None) -> bool:
        """Whether the commit wrote, or removed, a key of the interval; None: any key."""
        if frame.type == FRAME_ATTACH:
            loaded = self._loaded(frame)
            return loaded is not None and (interval is None or interval.touched_by(loaded))
        for found in frame.operations():
            table = self._table(frame, found.table_id)
            if table is None:
                continue
            if interval is None:
                return True
            keys = encoded_keys(table, frame, found)
            if found.kind != DELETE_RANGE:
                if interval.holds_any(keys):
                    return True
                continue
            lower, upper = _bounds(keys)
            if interval.overlaps(lower, None if found.flags & HIGH_UNBOUNDED else upper):
                return True
        return False

    def _table(self, frame: Frame, number: int) -> TableEngine | None:
        """The table of an operation; None where it is not asked for, or was dropped since."""
        table = self._engine.tables.get(number)
        if table is None and number >= self._engine.manifest.state.next_table_id:
            corrupt(frame.path, "rows of a table that is not there", frame.position, None, number)
        return table if self._only is None or table is self._only else None

    def _loaded(self, frame: Frame) -> LoadedRows | None:
        frame.attached()  # checks its length
        data = frame.span.data[frame.position + FRAME_HEADER_BYTES : frame.end].tobytes()
        records = attached(data[8 : 8 + int.from_bytes(data[:8], "little")])
        table = self._table(frame, records[0].table)
        return None if table is None else LoadedRows(table, frame.sequence, records)


def encoded_keys(table: TableEngine, frame: Frame, found: FrameOperation) -> EncodedKeys:
    """The keys of an operation; CorruptionError for those that are not the table's."""
    if (found.heads is not None) != (table.shape.key_width != 0):
        corrupt(frame.path, "keys of another form", frame.position, table.record.key, None)
    if found.heads is not None:
        return EncodedKeys(len(found.heads), found.heads.copy())
    assert found.key_lengths is not None and found.key_data is not None
    lengths = found.key_lengths
    return EncodedKeys(len(lengths), offsets=_offsets(lengths), data=found.key_data.copy())


def encoded_values(table: TableEngine, frame: Frame, found: FrameOperation) -> EncodedValues:
    """The values of a put; CorruptionError for those that are not the table's."""
    data, width = found.value_data, table.shape.value_width
    assert data is not None
    found_width = 0 if found.value_lengths is not None else found.value_width
    if found_width != width:
        corrupt(frame.path, "values of another width", frame.position, width, found_width)
    if found.value_lengths is None:
        return EncodedValues(found.row_count, data.copy().reshape(-1, width))
    offsets = _offsets(found.value_lengths)
    return EncodedValues(found.row_count, offsets=offsets, data=data.copy())


def operation_of(table: TableEngine, frame: Frame, found: FrameOperation) -> Operation:
    """One operation of a frame; SchemaError for a table whose codec is a user's, not given here."""
    keys = encoded_keys(table, frame, found)
    name, kind = table.record.name, KINDS[found.kind]
    key_codec, value_codec = table.codecs
    if found.kind == DELETE_RANGE:
        lower, upper = _bounds(keys)
        lowest = 0 if key_codec.width else b""
        return Operation(
            name, kind, 0,
            lower=decoded_bound(key_codec, lower) if lower != lowest else None,
            upper=None if found.flags & HIGH_UNBOUNDED else decoded_bound(key_codec, upper),
        )  # fmt: skip
    values = None
    if found.kind == PUT:
        values = value_codec.decode_array(encoded_values(table, frame, found))
    return Operation(name, kind, found.row_count, key_codec.decode_array(keys), values)


def _bounds(keys: EncodedKeys) -> tuple[Encoded, Encoded]:
    if keys.heads is not None:
        return int(keys.heads[0]), int(keys.heads[1])
    lower, upper = _strings(keys)
    return lower, upper


# -- what a store offers


def sequence_of(since: Any) -> int | None:
    """A sequence from an argument; TypeError or ValueError for what is none."""
    if since is None:
        return None
    number = operator.index(since)
    if number < 0:
        raise ValueError(f"since is a sequence, 0 or more, not {number}")
    return number


def changes(handle: TableHandle, table: TableEngine | None, since: Any) -> Iterator[Change]:
    """See `Store.changes`; table: commits that touch it alone, and what they did to it."""
    journal = held(handle._engine, sequence_of(since))
    place = Place(journal.kept if since is None else operator.index(since))
    return _changes(handle, Decoder(handle, table), table is None, journal, place)


def _changes(
    handle: TableHandle, decoder: Decoder, every: bool, journal: HeldJournal, place: Place
) -> Iterator[Change]:
    for frame, _ in journal.frames(place):
        handle._check_open()
        if every or decoder.touches(frame, None):
            yield decoder.change(frame)
    handle._check_open()


class Watch:
    """Looks for the next commit that touches a table under a prefix; used in a with statement.

    While it is, the journal is kept from where it has looked on.  prefix, since: see `Store.watch`.
    """

    def __init__(self, handle: TableHandle, table: TableEngine, prefix: Any, since: Any) -> None:
        check_journaled(handle._engine)
        self._handle = handle
        self._engine = handle._engine
        self._since = sequence_of(since)
        self._interval = (
            None if prefix is None else Interval(*handle.keys_codec.prefix_bounds(prefix, False))
        )
        self._decoder = Decoder(handle, table)
        self._pinned = contextlib.ExitStack()
        self.pause = PAUSE_FIRST  # seconds until it is worth to look again

    def __enter__(self) -> Watch:
        begin = self._since
        with contextlib.ExitStack() as undone:
            # Pinned first, and only then looked: so no commit after that is missed.
            pinned = self._engine.journal.detached.pinned(begin or 0)
            self._pin = undone.enter_context(pinned)
            if begin is None:
                self._pin.sequence = begin = self._engine.sequence
            held(self._engine, begin)  # refuses what is not kept, and what is yet to come
            self._place = Place(begin)
            self._pinned = undone.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._pinned.close()

    def look(self) -> Change | None:
        """The commit, if it is there."""
        self._handle._check_open()
        if self._engine.sequence > self._place.sequence:
            for frame, after in held(self._engine, self._place.sequence).frames(self._place):
                if self._decoder.touches(frame, self._interval):
                    return self._decoder.change(frame)
                self._place = after
                self._pin.sequence = frame.sequence
            self.pause = PAUSE_FIRST
        else:
            self.pause = min(2 * self.pause, PAUSE_MOST)
        return None


def deadline_of(timeout: Any) -> float:
    """When, on the monotonic clock, a timeout ends; ValueError for what is none."""
    if timeout is None:
        return math.inf
    if not timeout >= 0:
        raise ValueError(f"a timeout is 0 seconds or more, or None, not {timeout!r}")
    return time.monotonic() + float(timeout)


def watch(
    handle: TableHandle, table: TableEngine, prefix: Any, since: Any, timeout: float | None
) -> Change | None:
    """See `Store.watch`."""
    deadline = deadline_of(timeout)
    with Watch(handle, table, prefix, since) as watching:
        while True:
            found = watching.look()
            left = deadline - time.monotonic()
            if found is not None or left <= 0:
                return found
            time.sleep(min(watching.pause, left))
