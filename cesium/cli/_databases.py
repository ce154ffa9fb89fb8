"""Other key-value stores, and tables of SQLite, as sources of rows.

Each is opened for reading alone, as far as its library can: LevelDB replays its log when it is
opened.  Packages are imported where they are used.
"""

from __future__ import annotations

import dbm
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click

from cesium.cli._formats import needed
from cesium.cli._infer import Column
from cesium.cli._json_lines import cell_of
from cesium.cli._text import text_of_bytes

PIECE_ROWS = 8192
LMDB, LEVELDB, ROCKSDB, SQLITE, DBM = KINDS = ("lmdb", "leveldb", "rocksdb", "sqlite", "dbm")
Pairs = Iterator[tuple[bytes, bytes]]


class PairSource:
    """Keys and values as they are stored: two columns of bytes.  rows_total: about, 0: unknown."""

    def __init__(self, pairs: Pairs, rows_total: int) -> None:
        self.header = ["key", "value"]
        self.bytes_total = rows_total
        self._pairs = pairs
        self._done = 0

    def position(self) -> int:
        """How many rows were read."""
        return self._done

    def pieces(self) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """The rows, a piece at a time, and their numbers, from 1."""
        while piece := list(itertools.islice(self._pairs, PIECE_ROWS)):
            first = self._done + 1
            self._done += len(piece)
            keys, values = zip(*piece)
            yield range(first, self._done + 1), [list(keys), list(values)]


@contextmanager
def open_pairs(kind: str, path: Path, database: str | None) -> Iterator[PairSource]:
    """Opens a key-value store.  database: the name of one of several, where it has such."""
    opener: dict[str, Callable[[Path, str | None], Any]] = {
        LMDB: _open_lmdb, LEVELDB: _open_leveldb, ROCKSDB: _open_rocksdb, DBM: _open_dbm,
    }  # fmt: skip
    with opener[kind](path, database) as (pairs, total):
        yield PairSource(iter(pairs), total)


@contextmanager
def _open_lmdb(path: Path, database: str | None) -> Iterator[tuple[Any, int]]:
    lmdb = needed("lmdb", "lmdb")
    try:
        environment = lmdb.open(
            str(path), readonly=True, create=False, subdir=path.is_dir(), max_dbs=1
        )
        with environment, environment.begin() as transaction:
            chosen = None
            if database is not None:
                try:
                    chosen = environment.open_db(database.encode(), transaction, create=False)
                except lmdb.NotFoundError:
                    raise click.ClickException(f"no database is called {database}") from None
            with transaction.cursor(chosen) as cursor:
                yield (
                    cursor,
                    transaction.stat(chosen)["entries"]
                    if chosen
                    else (transaction.stat(environment.open_db(txn=transaction))["entries"]),
                )
    except lmdb.Error as error:
        raise click.ClickException(f"{path}: {error}") from None


@contextmanager
def _open_leveldb(path: Path, database: str | None) -> Iterator[tuple[Any, int]]:
    plyvel = needed("plyvel", "leveldb")
    _has_none(database, "LevelDB")
    try:
        with closing(plyvel.DB(str(path), create_if_missing=False)) as opened:
            with opened.iterator(fill_cache=False) as pairs:
                yield pairs, 0
    except plyvel.Error as error:
        raise click.ClickException(f"{path}: {error}") from None


@contextmanager
def _open_rocksdb(path: Path, database: str | None) -> Iterator[tuple[Any, int]]:
    rocksdict = needed("rocksdict", "rocksdb")
    if not (path / "CURRENT").exists():  # or one would be made
        raise click.ClickException(f"no RocksDB database at {path}")
    try:
        options = rocksdict.Options(raw_mode=True)
        families = dict.fromkeys(rocksdict.Rdict.list_cf(str(path)), options)
        opened = rocksdict.Rdict(str(path), options, families, rocksdict.AccessType.read_only())
        with closing(opened):
            if database is not None and database not in families:
                raise click.ClickException(
                    f"no column family is called {database}: there are {', '.join(families)}"
                )
            chosen = opened if database is None else opened.get_column_family(database)
            total = chosen.property_int_value("rocksdb.estimate-num-keys") or 0
            yield chosen.items(), total
    except Exception as error:
        if isinstance(error, click.ClickException) or not _is_of(error, "rocksdict"):
            raise
        raise click.ClickException(f"{path}: {error}") from None


def _is_of(error: Exception, package: str) -> bool:
    """Whether a library raised it; rocksdict raises plain exceptions, and its own."""
    return type(error) is Exception or type(error).__module__.startswith(package)


@contextmanager
def _open_dbm(path: Path, database: str | None) -> Iterator[tuple[Any, int]]:
    _has_none(database, "dbm")
    kind = dbm.whichdb(str(path))
    if not kind:  # by the name of a file, where the library puts an ending to the name
        path = path.with_suffix("") if path.suffix in (".db", ".dat", ".dir", ".pag") else path
        kind = dbm.whichdb(str(path))
    if not kind:
        raise click.ClickException(f"no dbm database at {path}")
    try:
        with dbm.open(str(path), "r") as opened:
            keys = list(opened.keys())
            yield ((key, opened[key]) for key in keys), len(keys)
    except (*dbm.error, ImportError) as error:
        raise click.ClickException(f"{path}: {error}") from None


def _has_none(database: str | None, kind: str) -> None:
    if database is not None:
        raise click.UsageError(f"{kind} has one database in a directory or file, so no --database")


class BlobColumn(Column):
    """A column with blobs in it."""

    @property
    def type(self) -> str:
        return "bytes"

    @property
    def dtype(self) -> str | None:
        return None


class SqliteSource:
    """A table of SQLite: numbers as JSON has them, text as it is, blobs as text of bytes."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self._connection = connection
        self._from = f"FROM {_quoted(table)}"
        self.table = table
        described = connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
        self.header = [row[1] for row in described]
        by_place = sorted((row[5], row[1]) for row in described if row[5])
        self.key = [name for _, name in by_place]
        (self.bytes_total,) = connection.execute(f"SELECT count(*) {self._from}").fetchone()
        self._done = 0

    def position(self) -> int:
        """How many rows were read."""
        return self._done

    def blobs(self) -> set[str]:
        """The columns that have blobs."""
        tests = ", ".join(f"max(typeof({_quoted(name)}) = 'blob')" for name in self.header)
        (found,) = self._connection.execute(f"SELECT {tests} {self._from}").fetchall()
        return {name for name, has in zip(self.header, found) if has}

    def pieces(self) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """The rows as columns of cells, a piece at a time, and their numbers, from 1."""
        order = f" ORDER BY {', '.join(map(_quoted, self.key))}" if self.key else ""
        cursor = self._connection.execute(f"SELECT * {self._from}{order}")
        self._done = 0
        while rows := cursor.fetchmany(PIECE_ROWS):
            first = self._done + 1
            self._done += len(rows)
            columns = [[_cell(value) for value in column] for column in zip(*rows)]
            yield range(first, self._done + 1), columns


def _cell(value: Any) -> str:
    return text_of_bytes(value) if isinstance(value, bytes) else cell_of(value)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def open_sqlite(path: Path, table: str | None) -> Iterator[SqliteSource]:
    """Opens a table of a SQLite file; the only one, where no name is given."""
    try:
        uri = path.absolute().as_uri() + "?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("BEGIN")  # all passes see one moment
            found = connection.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
                "AND name NOT LIKE 'sqlite_%' ORDER BY name"
            )
            names = [name for (name,) in found]
            if table is None and len(names) != 1:
                raise click.UsageError(
                    f"--table names one of {', '.join(names)}" if names else f"{path} has no table"
                )
            if table is not None and table not in names:
                raise click.UsageError(f"no table is called {table}: there are {', '.join(names)}")
            yield SqliteSource(connection, table if table is not None else names[0])
    except sqlite3.Error as error:
        raise click.ClickException(f"{path}: {error}") from None
