"""DuckDB: columns, with an index on the key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import duckdb
import numpy as np

from cesium.benchmark.engines.base import Engine, Settings
from cesium.benchmark.shapes import Keys, Rows, value_singles

COLUMNS = {"u64": ("a",), "composite": ("a", "b"), "url": ("a",)}
CHUNK_ROWS = 10_000


class DuckDb(Engine):
    """One table whose primary key is the key; a batch is an array that a statement reads."""

    name = "duckdb"
    distribution = "duckdb"
    durabilities = ("sync",)

    @classmethod
    def version(cls) -> str:
        return f"DuckDB {duckdb.__version__}"

    @classmethod
    def describe(cls, settings: Settings) -> str:
        return (
            f"memory_limit {memory_limit(settings) >> 20} MiB, one thread, primary key (an ART "
            "index); every commit is synced, it has no other durability; loads by INSERT ... "
            "SELECT from numpy arrays, in key order, then CHECKPOINT; ranges by fetchnumpy"
        )

    def open(self) -> None:
        self.connection = duckdb.connect(
            str(self.path),
            config={
                "memory_limit": f"{memory_limit(self.settings) >> 20}MiB",
                "threads": 1,
                "preserve_insertion_order": False,
            },
        )
        self._prepare()
        kind = "VARCHAR" if self.shape.key == "url" else "UBIGINT"
        columns = ", ".join(f"{name} {kind}" for name in self.names)
        value = "UBIGINT" if self.shape.numeric_values else "BLOB"
        self.connection.execute(
            f"CREATE TABLE IF NOT EXISTS t ({columns}, v {value}, PRIMARY KEY ({self.columns}))"
        )

    def _prepare(self) -> None:
        self.names = COLUMNS[self.shape.key]
        self.columns = ", ".join(self.names)
        marks = ", ".join("?" * len(self.names))
        self.same = " AND ".join(f"{name} = ?" for name in self.names)
        self.select = f"SELECT v FROM t WHERE {self.same}"
        self.replace = f"INSERT OR REPLACE INTO t VALUES ({marks}, ?)"
        self.remove = f"DELETE FROM t WHERE {self.same}"
        if len(self.names) == 1:
            self.bounds = ("a >= ?", "a < ?")
        else:
            # A row of two columns is not compared with parameters; this the zone maps know, too.
            self.bounds = ("a >= ? AND (a > ? OR b >= ?)", "a <= ? AND (a < ? OR b < ?)")
        self.get, self.put, self.delete = self._get, self._put, self._delete

    def close(self) -> None:
        self.connection.close()

    def session(self) -> Engine:
        return _Session(self)

    def keys(self, keys: Keys) -> list[Any]:
        return keys.singles() if self.shape.key == "composite" else [(k,) for k in keys.singles()]

    def values(self, values: Any) -> list[Any]:
        return value_singles(values)

    def rows(self, rows: Rows) -> Any:
        return rows.keys, self._values(rows.values)

    def batch(self, keys: Keys) -> Any:
        return keys

    def _values(self, values: Any) -> Any:
        if self.shape.numeric_values:
            return values
        column = np.empty(len(values), object)
        column[:] = values.tolist()
        return column

    def _columns(self, keys: Keys) -> dict[str, Any]:
        return dict(zip(self.names, keys.columns))

    def load(self, rows: Any, ordered: bool, threads: int = 1) -> None:
        self._insert(rows, ordered)
        self.connection.execute("CHECKPOINT")

    def _insert(self, rows: Any, ordered: bool) -> None:
        keys, values = rows
        if not ordered:
            order = keys.order()
            keys, values = keys.take(order), values[order]
        self.connection.register("given", self._columns(keys) | {"v": values})
        self.connection.execute(f"INSERT OR REPLACE INTO t SELECT {self.columns}, v FROM given")

    def begin(self) -> None:
        self.connection.execute("BEGIN")

    def commit(self) -> None:
        self.connection.execute("COMMIT")

    def _get(self, key: Any) -> Any:
        found = self.connection.execute(self.select, key).fetchone()
        return None if found is None else found[0]

    def _put(self, key: Any, value: Any) -> Any:
        self.connection.execute(self.replace, (*key, value))

    def _delete(self, key: Any) -> Any:
        self.connection.execute(self.remove, key)

    def put_many(self, rows: Any) -> None:
        self._insert(rows, False)

    def get_many(self, batch: Any) -> Any:
        self.connection.register("asked", self._columns(batch) | {"place": np.arange(len(batch))})
        found = self.connection.execute(
            f"SELECT v FROM asked JOIN t USING ({self.columns}) ORDER BY place"
        ).fetchnumpy()
        return self._value_array(found["v"])

    def _value_array(self, column: Any) -> Any:
        if self.shape.numeric_values:
            return np.asarray(column)
        return np.frombuffer(b"".join(column.tolist()), f"V{self.shape.value_bytes}")

    def range(self, lower: Any, upper: Any, reverse: bool = False) -> tuple[Any, Any]:
        given = [(key, text) for key, text in zip((lower, upper), self.bounds) if key is not None]
        where = " AND ".join(text for _, text in given)
        direction = "DESC" if reverse else "ASC"
        found = self.connection.execute(
            f"SELECT {self.columns}, v FROM t {'WHERE ' + where if where else ''} "
            f"ORDER BY {', '.join(f'{name} {direction}' for name in self.names)}",
            [part for key, _ in given for part in self._bound(key)],
        ).fetchnumpy()
        keys = [np.asarray(found[name]) for name in self.names]
        values = self._value_array(found["v"])
        if self.shape.key == "url":
            return keys[0].tolist(), values
        return (keys[0] if self.shape.key == "u64" else tuple(keys)), values

    def iterate(self) -> Iterable[tuple[Any, Any]]:
        found = self.connection.execute(f"SELECT {self.columns}, v FROM t ORDER BY {self.columns}")
        while rows := found.fetchmany(CHUNK_ROWS):
            yield from rows

    def delete_range(self, lower: Any, upper: Any) -> None:
        where = " AND ".join(self.bounds)
        self.connection.execute(
            f"DELETE FROM t WHERE {where}", (*self._bound(lower), *self._bound(upper))
        )

    @staticmethod
    def _bound(key: tuple[Any, ...]) -> tuple[Any, ...]:
        return key if len(key) == 1 else (key[0], *key)


class _Session(DuckDb):
    """A cursor of another thread, on the same database."""

    def __init__(self, owner: DuckDb) -> None:
        self.path, self.shape, self.settings = owner.path, owner.shape, owner.settings
        self.connection = owner.connection.cursor()
        self._prepare()


def memory_limit(settings: Settings) -> int:
    """Its cache, and what its sorts and indexes need beside it."""
    return settings.cache_bytes + (256 << 20)
