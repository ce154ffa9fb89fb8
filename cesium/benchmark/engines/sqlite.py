"""SQLite through Python's own sqlite3."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import numpy as np

from cesium.benchmark.engines.base import Engine, NotOffered, Settings
from cesium.benchmark.shapes import Keys, Rows, value_array, value_singles

COLUMNS = {"u64": ("a",), "composite": ("a", "b"), "url": ("a",)}
TABLES = {
    "u64": "CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, v {})",
    "composite": "CREATE TABLE IF NOT EXISTS t (a INTEGER, b INTEGER, v {}, PRIMARY KEY (a, b)) "
    "WITHOUT ROWID",
    "url": "CREATE TABLE IF NOT EXISTS t (a TEXT PRIMARY KEY, v {}) WITHOUT ROWID",
}


class Sqlite(Engine):
    """One table whose B-tree is its primary key."""

    name = "sqlite"
    durabilities = ("sync", "process")

    @classmethod
    def version(cls) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    @classmethod
    def describe(cls, settings: Settings) -> str:
        return (
            f"cache_size {settings.cache_bytes >> 20} MiB, WAL, `sync` by synchronous=FULL, "
            "`process` by OFF; integer keys are the rowid, other tables WITHOUT ROWID; prepared "
            "statements; loads in key order by executemany in one transaction; reads of a store "
            "that is not written in one transaction"
        )

    def open(self) -> None:
        self.columns = ", ".join(COLUMNS[self.shape.key])
        self.connection = sqlite3.connect(
            self.path, isolation_level=None, cached_statements=64, check_same_thread=False
        )
        execute = self.connection.execute
        execute(f"PRAGMA cache_size = {-self.settings.cache_bytes // 1024}")
        execute("PRAGMA journal_mode = WAL")
        execute(f"PRAGMA synchronous = {'FULL' if self.settings.durability == 'sync' else 'OFF'}")
        execute(TABLES[self.shape.key].format("INTEGER" if self.shape.numeric_values else "BLOB"))
        parts = COLUMNS[self.shape.key]
        marks = ", ".join("?" * len(parts))
        where = f"({self.columns}) = ({marks})" if len(parts) > 1 else "a = ?"
        self.select = f"SELECT v FROM t WHERE {where}"
        self.replace = f"INSERT OR REPLACE INTO t VALUES ({marks}, ?)"
        self.remove = f"DELETE FROM t WHERE {where}"
        self.lower = f"({self.columns}) >= ({marks})"
        self.upper = f"({self.columns}) < ({marks})"
        self.execute = execute

    def close(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")
        self.connection.close()

    def session(self) -> Engine:
        return Sqlite(self.path, self.shape, self.settings)

    def only_reads(self) -> None:
        self.execute("BEGIN")

    def keys(self, keys: Keys) -> list[Any]:
        if self.shape.key == "composite":
            return keys.singles()
        return [(key,) for key in keys.singles()]

    def values(self, values: Any) -> list[Any]:
        return value_singles(values)

    def rows(self, rows: Rows) -> Any:
        singles = zip(self.keys(rows.keys), self.values(rows.values))
        return rows.keys, [(*key, value) for key, value in singles]

    @staticmethod
    def _sorted(rows: Any, ordered: bool) -> Any:
        keys, tuples = rows
        return tuples if ordered else [tuples[place] for place in keys.order().tolist()]

    def load(self, rows: Any, ordered: bool, threads: int = 1) -> None:
        self.put_many(rows, ordered)
        self.execute("PRAGMA synchronous = FULL")
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def begin(self) -> None:
        self.execute("BEGIN")

    def commit(self) -> None:
        self.execute("COMMIT")

    def get(self, key: Any) -> Any:
        found = self.execute(self.select, key).fetchone()
        return None if found is None else found[0]

    def put(self, key: Any, value: Any) -> Any:
        self.execute(self.replace, (*key, value))

    def delete(self, key: Any) -> Any:
        self.execute(self.remove, key)

    def put_many(self, rows: Any, ordered: bool = False) -> None:
        self.execute("BEGIN")
        self.connection.executemany(self.replace, self._sorted(rows, ordered))
        self.execute("COMMIT")

    def batch(self, keys: Keys) -> Any:
        if self.shape.key == "composite":
            raise NotOffered("no list of pairs as one parameter")
        return keys.singles()

    def get_many(self, batch: Any) -> Any:
        # One statement for each run of keys: a parameter for each, up to SQLite's own limit.
        found: dict[Any, Any] = {}
        for start in range(0, len(batch), 10_000):
            keys = batch[start : start + 10_000]
            marks = ",".join("?" * len(keys))
            found.update(self.execute(f"SELECT a, v FROM t WHERE a IN ({marks})", keys))
        return value_array(self.shape, [found[key] for key in batch])

    def range(self, lower: Any, upper: Any, reverse: bool = False) -> tuple[Any, Any]:
        bounds = [(lower, self.lower), (upper, self.upper)]
        where = " AND ".join(text for key, text in bounds if key is not None)
        direction = "DESC" if reverse else "ASC"
        order = ", ".join(f"{name} {direction}" for name in COLUMNS[self.shape.key])
        rows = self.execute(
            f"SELECT {self.columns}, v FROM t {'WHERE ' + where if where else ''} ORDER BY {order}",
            [part for key, _ in bounds if key is not None for part in key],
        ).fetchall()
        columns = list(zip(*rows)) or [()] * (len(COLUMNS[self.shape.key]) + 1)
        values = value_array(self.shape, list(columns.pop()))
        if self.shape.key == "url":
            return list(columns[0]), values
        keys = [np.array(column, np.uint64) for column in columns]
        return (keys[0] if self.shape.key == "u64" else tuple(keys)), values

    def iterate(self) -> Iterable[tuple[Any, Any]]:
        return iter(self.execute(f"SELECT {self.columns}, v FROM t ORDER BY {self.columns}"))

    def delete_range(self, lower: Any, upper: Any) -> None:
        self.execute(f"DELETE FROM t WHERE {self.lower} AND {self.upper}", (*lower, *upper))
