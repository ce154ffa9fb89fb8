"""The tables of a store: finding, making and dropping them.

A table is there, or gone, by one edit of the manifest.  Its id is never used twice, so what the
journal has of a dropped one is left out by whoever replays it.

Thread safety: any thread; `engine.tables` is replaced, never changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cesium._engine import WriteGuard
from cesium._version import Version
from cesium.budget import adapt
from cesium.checkpoint import checkpoint_held, retire
from cesium.durability import sync
from cesium.engine import StoreEngine
from cesium.errors import ClosedError, LimitError, ReadOnlyError
from cesium.reclaim import let_go
from cesium.records import TABLES_END
from cesium.schema import new_table
from cesium.state import Edit, TableRecord
from cesium.table_engine import TableEngine

NAME_BYTES_MOST = 255


def check_name(name: Any) -> str:
    """A table's name; TypeError, ValueError or LimitError for what is none."""
    if not isinstance(name, str):
        raise TypeError(f"a table's name is text, not {name!r}")
    if not name:
        raise ValueError("a table's name is not empty: the store itself is its default table")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"a table's name is valid text, not {name!r}") from None
    if length > NAME_BYTES_MOST:
        raise LimitError(f"a table's name is at most {NAME_BYTES_MOST} bytes long, not {length}")
    return name


def find(engine: StoreEngine, name: str) -> TableEngine | None:
    """The table of that name, but for the default one."""
    return engine.tables_by_name().get(name) if name else None


def schemas(engine: StoreEngine) -> list[TableRecord]:
    """The records of the tables but for the default one."""
    return [table.record for table in engine.tables.values() if table is not engine.main]


def open_table(
    engine: StoreEngine, name: Any, key: Any, value: Any, read_only: bool
) -> TableEngine:
    """The table of that name, made if it is not there and a key type is given.

    KeyError where it is not there and none is given, ReadOnlyError where it may not be made,
    SchemaError for another schema than the stored one.
    """
    check_name(name)
    found = find(engine, name)
    if found is not None and found.core.dropped:  # interrupted in the midst of it
        with engine.exclusive_maintenance("a table is looked for"):
            reconcile(engine)
        found = find(engine, name)
    if found is None and key is None and value is None:
        raise KeyError(f"there is no table {name!r}; key=... makes one")
    if found is None:
        record = new_table(name, key, value, f"store.table({name!r}")
        if read_only:
            raise ReadOnlyError(f"there is no table {name!r}, and flag='r' makes none")
        with engine.exclusive_maintenance("a table is made"):
            if engine.core_engine.closed:
                raise ClosedError("the store is closed")
            reconcile(engine)
            found = find(engine, name)  # another thread may have been here first
            if found is None:
                found = _make(engine, record)
    found.agree(key, value)
    return found


def _make(engine: StoreEngine, record: TableRecord) -> TableEngine:
    number = engine.manifest.state.next_table_id
    if number >= TABLES_END:
        raise LimitError(f"a store makes {TABLES_END:,} tables in all, and has made them")
    record = replace(record, id=number)
    with WriteGuard(engine.core_engine):
        pass  # closed, read-only and poisoned stores refuse
    try:
        engine.append_edit(Edit(put_tables=(record,), next_table_id=number + 1))
    finally:  # interrupted, but perhaps not before the manifest had it
        reconcile(engine)
    return engine.tables[number]


def reconcile(engine: StoreEngine) -> None:
    """Makes the tables those of the manifest; `maintenance` is held.

    A KeyboardInterrupt may come anywhere in it: who calls it next goes on from there.
    """
    records = engine.manifest.state.tables
    for number, record in records.items():
        if number in engine.tables:
            engine.tables[number].core.dropped = False
        else:
            _add(engine, engine.table_engine(record))
    for number, table in engine.tables.items():
        if number not in records:
            _forget(engine, table)


def _add(engine: StoreEngine, table: TableEngine) -> None:
    with WriteGuard(engine.core_engine, closing=True):
        # A new mapping: others go over the old one.
        engine.tables = {**engine.tables, table.record.id: table}
    if len(engine.tables) == 2:  # further ones, empty, change nothing
        adapt(engine)


def drop(engine: StoreEngine, name: Any) -> None:
    """Removes a table with all its rows; KeyError without it."""
    check_name(name)
    inner = engine.core_engine
    while True:
        # A transaction that has the commits to itself may use the table.  Waited for with no lock:
        # its commit may need room, and so maintenance.
        with WriteGuard(inner, commits=True):
            pass
        # A merge of its segments would put them back.
        with engine.exclusive_merging("a table is dropped"), engine.maintained():
            reconcile(engine)
            table = find(engine, name)
            if table is None:
                raise KeyError(f"there is no table {name!r}")
            try:
                with WriteGuard(inner):
                    if inner.reserved:
                        continue  # by another one, since
                    table.core.dropped = True
                # Or a power cut would lose commits from before, and not the drop.
                if inner.unjournaled:
                    checkpoint_held(engine)
                else:
                    sync(engine)
                engine.append_edit(Edit(remove_tables=(table.record.id,)))
            finally:  # failed, or interrupted, but perhaps not before the manifest was without it
                table.core.dropped = table.record.id not in engine.manifest.state.tables
                reconcile(engine)
            return


def _forget(engine: StoreEngine, table: TableEngine) -> None:
    """Lets go of a table that the manifest does not have any more, and of its files."""
    readers = table.segments()
    table.core.dropped = True
    # Merged away, and not yet recorded as gone, some may be, too.
    retire(engine, readers)
    gone = [
        reader.record
        for reader in engine.retired.values()
        if reader.record.table == table.record.id
    ]
    with WriteGuard(engine.core_engine, closing=True):
        table.core.freeze()
        table.core.publish(Version(table.shape, [], False))
    # Whoever reads them holds them: they are unlinked after the last pin.
    readers.clear()
    let_go(engine, gone)
    with WriteGuard(engine.core_engine, closing=True):
        number = table.record.id
        engine.tables = {key: each for key, each in engine.tables.items() if key != number}
