"""Opens a crash image with the ordinary engine and says what it holds.

Every image is read whole and verified.  By a number drawn for each, some are opened read-only
first, and some are written to, closed and opened again.  An image must not make the engine fail: an
error of any kind is `Wrong`.
"""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cesium
from cesium.checksum import crc32c
from cesium.directory import blob_numbers, segment_numbers
from cesium.files import Files, MemoryFiles
from cesium.manifest import numbers_of
from cesium.named import named_records
from cesium.opening import acquire
from cesium.replay import journal_name
from crash.history import TABLES, Found, History, Wrong, rows_of
from crash.recording_files import Content
from journal_frames import length_at

SLOTS_MAX = 8
WRITTEN_OF = 6  # one image in so many is written to,
READ_ONLY_OF = 5  # one in so many opened read-only first,
NAMED_OF = 4  # and one in so many at each of its named checkpoints


def put_into(files: Files, content: Content) -> Files:
    """The files of an image, in memory or in a directory; zeros at the end are a hole."""
    for name, data in content.items():
        fd = files.create(name)
        used = data.rstrip(b"\0")
        files.allocate(fd, len(data))
        files.write_all(fd, used, 0)
        files.close(fd)
    return files


def open_store(files: Files, options: cesium.Options) -> cesium.Store:
    """A store of tiny pages on these files."""
    return cesium.Store(acquire("image", options, SLOTS_MAX, files), options)


@contextlib.contextmanager
def open_at(files: Files, options: cesium.Options, name: str) -> Iterator[cesium.Store]:
    """A checkpoint of a store that is open on the same files, and stays so."""
    try:
        with open_store(files, replace(options, flag="r", at=name)) as then:
            yield then
    finally:
        files.ended = False  # a store of the user's has files of its own


class Checker:
    """Examines the images of one run; `seen` counts the rare corners that images had."""

    def __init__(self, history: History, options: cesium.Options) -> None:
        self.history = history
        self.options = options
        self.seen: Counter[str] = Counter()

    def examine(self, content: Content, drawn: int, files: Files | None = None) -> Found:
        """What the image holds; Wrong if that never was, or something else is not in order."""
        writes = drawn % WRITTEN_OF == 0
        files = put_into(MemoryFiles() if files is None else files, content)
        try:
            found = None
            if drawn % READ_ONLY_OF == 0 and numbers_of(list(content), "manifest"):
                self.seen["opened read-only"] += 1
                with open_store(files, replace(self.options, flag="r")) as store:
                    found = self._read(store)
            with open_store(files, self.options) as store:
                if found not in (None, again := self._read(store)):
                    raise Wrong(f"read-only it holds {found}, for writing {again}")
                report = store.verify()
                if not report.ok:
                    raise Wrong(f"it does not verify: {report.problems}")
                if drawn % NAMED_OF == 0:
                    self._read_named(store, files)
                self._note_journal(store)
                self._go_through(store)
                if writes:
                    self._write(store)
            if writes:
                self._read_back(files)
            return again
        except Wrong:
            raise
        except Exception as error:
            raise Wrong(f"{type(error).__name__}: {error}") from error

    def _read(self, store: Any) -> Found:
        rows = sorted(rows_of(store).items())
        length = sum(map(len, [store, *store.tables.values()]))
        if len(rows) != length:
            raise Wrong(f"{len(rows)} rows, len says {length}")
        uuid = store._engine.manifest.state.store_uuid
        found = self.history.recognise(uuid, store.sequence, rows)
        named = frozenset((each.name, each.sequence) for each in store.checkpoints())
        return found._replace(named=named)

    def _read_named(self, store: Any, files: Files) -> None:
        """Every checkpoint holds what was there when it was named."""
        uuid = store._engine.manifest.state.store_uuid
        for each in store.checkpoints():
            with open_at(files, self.options, each.name) as then:
                rows = list(then.items())
                if (then.sequence, len(then)) != (each.sequence, len(rows)):
                    raise Wrong(f"{each}, but it is of {then.sequence} with {len(then)} rows")
                self.history.recognise_named(uuid, each.name, each.sequence, rows)
            self.seen["opened at a checkpoint"] += 1
            self.seen["checkpoint of its own files"] += each.own_bytes > 0

    # -- writing on

    def _write(self, store: Any) -> None:
        self.seen["written to"] += 1
        orphans = bool(store._engine._orphans)
        self._expected = rows = rows_of(store)
        self._sequence = store.sequence
        keys = sorted(store)[:7] + [self._new_key(number) for number in range(3)]
        value = next(iter(rows.values()), None)
        if value is None:
            value = b"value" if self.options.value == "bytes" else 1.0
        for key in keys[::2]:
            store.put(key, value)
            rows[key] = value
        store.put_many(keys, [value] * len(keys))
        rows.update(dict.fromkeys(keys, value))
        store.delete(keys[0])
        del rows[keys[0]]
        self._sequence += len(keys[::2]) + 2
        for name, table in store.tables.items():
            table.put(7, 1.5)
            rows[TABLES[name] + 7] = 1.5
            self._sequence += 1
        if self.options.durability == "none":
            store.checkpoint()  # the first that writes
        names = store._engine.files.list()
        records = [reader.record for reader in store._engine.segments()]
        records += named_records(store._engine.manifest.state)
        live = {record.id for record in records}
        blobs = {share.id for record in records for share in record.blobs}
        left = [name for name in names if name.endswith(".new")]
        left += [name for name in names if set(segment_numbers([name])) - live]
        left += [name for name in names if set(blob_numbers([name])) - blobs]
        if left:
            raise Wrong(f"left behind after a write: {left}")
        self.seen["orphan removed"] += orphans

    def _new_key(self, number: int) -> Any:
        return f"new {number}" if self.options.key == "str" else 10**6 + number

    def _read_back(self, files: Files) -> None:
        with open_store(files, self.options) as store:
            rows = sorted(rows_of(store).items())
            if rows != sorted(self._expected.items()) or store.sequence != self._sequence:
                raise Wrong(f"what was written afterwards is gone: {rows}, {self._expected}")
            if not store.verify().ok:
                raise Wrong("it does not verify after it was written to")
            self._read_named(store, files)
            self._go_through(store)

    def _go_through(self, store: Any) -> None:
        """The change feed has every commit from some sequence on, and is nowhere damaged."""
        if self.options.durability == "none":
            return
        since = store.stats().changes_since
        found = [change.sequence for change in store.changes()]
        if found != list(range(since + 1, store.sequence + 1)):
            raise Wrong(f"changes after {since} through {store.sequence}: {found}")
        self.seen["changes of kept files"] += bool(store._engine.journal.detached.records)

    # -- corners

    def _note_journal(self, store: Any) -> None:
        """Counts images whose journal has a hole with a sound frame behind it."""
        engine = store._engine
        end = engine.journal._replay.end
        if end is None:
            return
        self.seen["journal replayed"] += 1
        data = engine.files.read_all(journal_name(end.number)).rstrip(b"\0")
        if len(data) <= end.position:
            return
        self.seen["hole in the journal"] += 1
        if engine.journal._replay.dead:
            self.seen["dead journal file behind a hole"] += 1
        if self.seen["hole with a frame after it"] < 25:
            (seed,) = struct.unpack_from("<I", data, 8)
            data += bytes(16)
            for start in range(end.position + 8, len(data) - 16, 8):
                length = length_at(data, start)
                if 16 <= length <= len(data) - start and struct.unpack_from("<I", data, start) == (
                    crc32c(data[start + 4 : start + length], start ^ seed),
                ):
                    self.seen["hole with a frame after it"] += 1
                    break
