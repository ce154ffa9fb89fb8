"""Reading beside a writer in another process: opening without its lock, and following its commits.

A read-only engine stands at a commit.  `refresh` builds what it moves to on the side, in memtables
and readers that nobody reads, and publishes it at once, so that no read sees a part of it; a
failure leaves the engine where it was.  Views, snapshots and iterators keep what they pinned.

1. The manifest is as it was: the frames behind the place where the last replay ended go into a
   memtable of their own, on top of what there was.
2. It is not: the version is made anew from manifest and journal, of the readers that there are
   (their mappings, and which pages were checked) as far as their files stay.

The names of files are listed before any is read: a commit that returned before is in a file listed.
Whatever the writer removes meanwhile is missed, and all is read again, as at opening.

Thread safety: `refresh` holds `engine.maintenance`; its end, as that of a commit, the writer lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cesium._engine import Engine, TableCore, WriteGuard, freeze_tables
from cesium._segment import SegmentReader
from cesium._version import Version
from cesium.collector import collector_paused
from cesium.directory import fingerprint
from cesium.errors import ClosedError, CorruptionError, Error
from cesium.files import Files
from cesium.host import EngineHost
from cesium.journal import Journal
from cesium.manifest import FILE_HEADER, Manifest, manifest_name, numbers_of
from cesium.recovery import Side, apply_journal, journal_of
from cesium.replay import ZEROS_BYTES, Place, journal_name
from cesium.state import DEFAULT_TABLE, SegmentRecord, segments_by_table
from cesium.table_engine import TableEngine

if TYPE_CHECKING:
    from cesium.engine import StoreEngine

Names = list[tuple[str, int]]  # a directory's files, with the sizes of manifests

# Beside a writer in another process, each in vain only where that removed files meanwhile.  With
# one that checkpoints every few ms, on a machine with more to do than it can, two in a row were.
ATTEMPTS = 100
# Below this, replaying a memtable's frames again costs less than reading through one more.
SMALL_BYTES = 16 * 1024


class Mark(NamedTuple):
    """What another edit changes of the newest manifest; no name: there is none."""

    name: str
    size: int


class Delta(NamedTuple):
    """The topmost memtables of some tables, as a refresh made them: from which frames."""

    after: Place | None
    bytes: int
    tables: frozenset[int]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a read-only engine has come, and from what.

    versions: their numbers, by table.  mark: as it was before the manifest was read.  place: where
    the journal ended.  deltas: the topmost sources, oldest first.
    """

    versions: dict[int, int]
    mark: Mark
    sequence: int
    place: Place | None
    deltas: tuple[Delta, ...] = ()


# --- opening -----------------------------------------------------------------


def open_beside_writer(engine: StoreEngine, open_files: Callable[[], None]) -> None:
    """Opens without the lock: again, while another process changes the files meanwhile."""
    for last in [*[False] * (ATTEMPTS - 1), True]:
        before = fingerprint(engine.files)
        try:
            open_files()
            _pin_opened(engine, None if last else before)
            break
        except (FileNotFoundError, CorruptionError):
            if last or fingerprint(engine.files) == before:
                raise
    if engine.options.at is not None:
        return  # it does not follow
    sequence = engine.core_engine.sequence
    engine.standing = Standing(_versions(engine), _mark(before), sequence, engine.journal.place)


def _versions(engine: StoreEngine) -> dict[int, int]:
    return {number: table.core.version.number for number, table in engine.tables.items()}


def _pin_opened(engine: StoreEngine, before: Names | None) -> None:
    """What the other process merges away later must stay readable: a mapping keeps it.

    FileNotFoundError for what was merged away just now; other damage is told when it is read.
    """
    for reader in engine.segments():
        try:
            _pin(reader)
        except (OSError, ValueError) as error:
            if isinstance(error, FileNotFoundError) and before not in (
                None,
                fingerprint(engine.files),
            ):
                raise


def _pin(reader: SegmentReader) -> None:
    reader.pin()
    for blob in reader.blobs:
        blob.pin()


def _mark(found: Names) -> Mark:
    numbers = numbers_of([name for name, _ in found], "manifest")
    if not numbers:
        return Mark("", 0)
    name = manifest_name(numbers[-1])
    return Mark(name, dict(found)[name])


# --- following ---------------------------------------------------------------


def refresh(engine: StoreEngine) -> int:
    """Moves a read-only engine to the newest commit in its files; returns its sequence.

    One that writes is at its newest commit always.  CorruptionError for damage, Error when another
    store is there by now, FileNotFoundError when none is: the engine stays where it is.
    """
    if engine.standing is None:
        return engine.sequence
    with engine.exclusive_maintenance("the store is refreshed"):
        if engine.core_engine.closed:
            raise ClosedError("the store is closed")
        for last in [*[False] * (ATTEMPTS - 1), True]:
            before = fingerprint(engine.files)
            try:
                return _move(engine, engine.standing, before)
            except (FileNotFoundError, CorruptionError):
                if last or fingerprint(engine.files) == before:
                    raise
    raise AssertionError("the last attempt returns or raises")


def _move(engine: StoreEngine, standing: Standing, found: Names) -> int:
    names = [name for name, _ in found]
    mark = _mark(found)
    if (
        mark == standing.mark
        # A refresh that was interrupted may have noted what it did not publish.
        and standing.versions == _versions(engine)
        and _is_of_store(engine, mark.name)
    ):
        moved = _follow(engine, standing, names)
        if moved is not None:
            return moved
    return _rebuild(engine, standing, names, mark)


def _is_of_store(engine: StoreEngine, name: str) -> bool:
    """Whether a manifest is still that of the store, and not of another in its place."""
    header = engine.files.read_all(name, FILE_HEADER.size)
    uuid = engine.manifest.state.store_uuid
    return len(header) == FILE_HEADER.size and FILE_HEADER.unpack(header)[5] == uuid


def _follow(engine: StoreEngine, standing: Standing, names: list[str]) -> int | None:
    """Applies what the journal has more; None where it does not go on from where it was left."""
    if _is_idle(engine.files, standing.place, numbers_of(names, "journal")):
        return standing.sequence
    state = engine.manifest.state
    journal = journal_of(engine, state, names, standing.place)
    if not journal.continues:
        return None
    spans = list(journal.replay_spans())
    if not spans and journal.place == standing.place:
        return standing.sequence  # what is behind it does not count
    # Memtables of earlier refreshes that are no longer than the new one become one with it: a
    # frame is applied again at most each time that its memtable doubles, and the memtables stay as
    # few as the logarithm of the journal's length.
    size = sum(span.end - span.start for span in spans)
    deltas = list(standing.deltas)
    after = standing.place
    while deltas and deltas[-1].bytes <= max(size, SMALL_BYTES):
        last = deltas.pop()
        after = last.after
        size += last.bytes
    joined = standing.deltas[len(deltas) :]
    if joined:
        journal = journal_of(engine, state, names, after)
        if not journal.continues:
            return None
        spans = list(journal.replay_spans())
    if len(engine.tables) > 1 and _mark(fingerprint(engine.files)) != standing.mark:
        # A table may be dropped meanwhile, and what was read of the journal come after that.
        raise FileNotFoundError(f"{engine.path}: the manifest was changed meanwhile")
    side = _side_of(engine)
    for number, table in engine.tables.items():
        now = table.core.version
        live = table.core.pin_live()  # what opening replayed
        above = sum(number in delta.tables for delta in joined)
        sources = [*([live] if live else []), *now.sources[above:]]
        below = Version(table.shape, sources, now.last_run_is_base)
        side.cores[number] = _side_core(side.inner, table, below)
    loaded = apply_journal(engine, state, engine.tables, spans, side)
    _pin_all(loaded)
    made = {core.table_id for core in side.cores.values() if not core.live_is_empty()}
    if loaded:
        deltas = []
    elif made:
        size = sum(span.end - span.start for span in spans)
        deltas.append(Delta(after, size, frozenset(made)))
    return _publish(engine, side, standing.mark, journal, tuple(deltas))


def _is_idle(files: Files, place: Place | None, numbers: list[int]) -> bool:
    """Whether nothing follows the place where the journal was left; numbers: of its files now.

    A refresh takes 70 us with it; replaying nothing, and making sure that it is nothing, makes it
    several times as long.
    """
    if place is None or not numbers:
        return place is None and not numbers
    if numbers[-1] != place.header.number:
        return False
    beginning = bytearray(12)
    ahead = bytearray(ZEROS_BYTES)
    fd = files.open(journal_name(numbers[-1]))
    try:
        files.read_into(fd, beginning, 0)
        files.read_into(fd, ahead, place.link.position)
    finally:
        files.close(fd)
    same = int.from_bytes(beginning[8:], "little") == place.header.checksum
    return same and ahead == bytes(ZEROS_BYTES)


def _rebuild(engine: StoreEngine, standing: Standing, names: list[str], mark: Mark) -> int:
    """Makes the version anew, of the segment readers that there are."""
    with collector_paused():
        manifest = Manifest.load(engine.files, names)
    if manifest is None:
        raise FileNotFoundError(f"there is no store at {engine.path} any more")
    state = manifest.state
    if state.store_uuid != engine.manifest.state.store_uuid or (DEFAULT_TABLE not in state.tables):
        raise Error(f"{engine.path} is another store by now, made anew: open it again")
    known = {reader.record.id: reader for reader in engine.segments()}
    placed: list[tuple[SegmentReader, SegmentRecord]] = []  # elsewhere in the store than before
    tables = {
        number: engine.tables.get(number) or engine.table_engine(record)
        for number, record in state.tables.items()
    }
    records = segments_by_table(state)

    def kept(table: TableEngine, record: SegmentRecord) -> SegmentReader:
        found = known.get(record.id)
        if found is None or replace(found.record, tier=record.tier, run=record.run) != record:
            return table.reader(record)
        placed.append((found, record))
        return found

    def kept_as_it_is(table: TableEngine, record: SegmentRecord) -> SegmentReader:
        found = known.get(record.id)
        return found if found is not None and found.record == record else table.reader(record)

    side = _side_of(engine, kept_as_it_is)
    with collector_paused():
        for number, table in tables.items():
            version = table.stored_version(records.get(number, ()), partial(kept, table))
            side.cores[number] = _side_core(side.inner, table, version)
    _pin_all(reader for core in side.cores.values() for reader in core.version.segments())
    journal = journal_of(engine, state, names)
    spans = list(journal.replay_spans())  # all read before any is applied: files go meanwhile
    _pin_all(apply_journal(engine, state, tables, spans, side))
    return _publish(engine, side, mark, journal, (), manifest, tables, placed)


def _side_of(
    engine: StoreEngine,
    reader: Callable[[TableEngine, SegmentRecord], SegmentReader] = TableEngine.reader,
) -> Side:
    if engine.replica is None:
        limit = engine.options.memory_limit_bytes
        engine.replica = Engine(EngineHost(engine), False, False, 0, limit)
    return Side(engine.replica, {}, reader)


def _side_core(inner: Engine, table: TableEngine, version: Version) -> TableCore:
    """A core that nobody reads, with the version and an empty memtable."""
    core = TableCore(inner, table.record.id, table.shape, table.core.memtable_limit_bytes)
    core.publish(version)
    return core


def _pin_all(readers: Iterable[SegmentReader]) -> None:
    """Pins segments, before anybody reads them; CorruptionError for one that cannot be mapped."""
    for reader in readers:
        try:
            _pin(reader)
        except (FileNotFoundError, ValueError) as error:
            raise CorruptionError(f"{reader.path}: {error}", file=reader.path) from error


def _publish(
    engine: StoreEngine,
    side: Side,
    mark: Mark,
    journal: Journal,
    deltas: tuple[Delta, ...],
    manifest: Manifest | None = None,
    tables: dict[int, TableEngine] | None = None,
    placed: Iterable[tuple[SegmentReader, SegmentRecord]] = (),
) -> int:
    """Shows readers what was made on the side, with what it was made of; returns its sequence."""
    manifest = manifest or engine.manifest
    tables = tables or engine.tables
    place = journal.place
    sequence = max(manifest.state.sequence, place.link.sequence if place else 0)
    before = engine.sequence
    if sequence < before:
        raise Error(
            f"{engine.path} ends at sequence {sequence}, before {before}, which this handle has "
            "read: open it again"
        )
    freeze_tables(side.inner, list(side.cores.values()))
    versions = {number: core.version for number, core in side.cores.items()}
    numbers = {number: version.number for number, version in versions.items()}
    dropped = [table for number, table in engine.tables.items() if number not in tables]
    with WriteGuard(engine.core_engine, closing=True):
        for reader, record in placed:
            reader.record = record
        engine.manifest = manifest
        engine.journal = journal
        engine.standing = Standing(numbers, mark, sequence, place, deltas)
        engine.freeze()  # empties what opening replayed into, which the versions have
        for number, table in tables.items():
            table.core.publish(versions[number])
        engine.tables = tables
        for table in dropped:
            table.core.dropped = True
    return sequence
