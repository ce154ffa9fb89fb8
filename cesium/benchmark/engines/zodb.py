"""ZODB with BTrees: persistent Python objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import BTrees.LLBTree
import BTrees.LOBTree
import BTrees.OLBTree
import BTrees.OOBTree
import transaction
import ZODB
import ZODB.FileStorage

from cesium.benchmark.engines.base import Engine, Settings
from cesium.benchmark.shapes import Keys, Rows, key_array, value_array, value_singles

OBJECTS = 10_000_000  # of the cache: its bytes are the limit that counts


class Zodb(Engine):
    """One BTree below the root: integers in it where keys or values are integers."""

    name = "zodb"
    distribution = "ZODB"
    durabilities = ("sync",)
    threads = False

    @classmethod
    def version(cls) -> str:
        return f"ZODB {super().version()}"

    @classmethod
    def describe(cls, settings: Settings) -> str:
        return (
            f"FileStorage, object cache {settings.cache_bytes >> 20} MiB, BTrees of 64-bit "
            "integers where keys or values are; every commit is synced, it has no other "
            "durability; loads in key order in one transaction; reads find live objects"
        )

    def open(self) -> None:
        self.path.mkdir(exist_ok=True)
        self.database = ZODB.DB(
            ZODB.FileStorage.FileStorage(str(self.path / "data.fs")),
            cache_size=OBJECTS,
            cache_size_bytes=self.settings.cache_bytes,
        )
        self.connection = self.database.open()
        root = self.connection.root()
        if "tree" not in root:
            root["tree"] = self._new_tree()
            transaction.commit()
        self.tree = root["tree"]
        self.get: Callable[[Any], Any] = self.tree.get
        self.put, self.delete = self._put, self._delete

    def _new_tree(self) -> Any:
        numbers = self.shape.numeric_values
        if self.shape.key == "u64":
            return BTrees.LLBTree.LLBTree() if numbers else BTrees.LOBTree.LOBTree()
        return BTrees.OLBTree.OLBTree() if numbers else BTrees.OOBTree.OOBTree()

    def close(self) -> None:
        transaction.abort()
        self.connection.close()
        self.database.close()

    def keys(self, keys: Keys) -> list[Any]:
        return keys.singles()

    def values(self, values: Any) -> list[Any]:
        return value_singles(values)

    def rows(self, rows: Rows) -> Any:
        return rows.keys, self.keys(rows.keys), self.values(rows.values)

    def load(self, rows: Any, ordered: bool, threads: int = 1) -> None:
        keys, singles, values = rows
        if ordered:
            self.tree.update(list(zip(singles, values)))
        else:
            order = keys.order().tolist()
            self.tree.update([(singles[place], values[place]) for place in order])
        transaction.commit()

    def begin(self) -> None:
        self.put = self.tree.__setitem__

    def commit(self) -> None:
        transaction.commit()
        self.put = self._put

    def _put(self, key: Any, value: Any) -> Any:
        self.tree[key] = value
        transaction.commit()

    def _delete(self, key: Any) -> Any:
        del self.tree[key]
        transaction.commit()

    def put_many(self, rows: Any) -> None:
        self.load(rows, False)

    def get_many(self, batch: Any) -> Any:
        tree = self.tree
        return value_array(self.shape, [tree[key] for key in batch])

    def range(self, lower: Any, upper: Any, reverse: bool = False) -> tuple[Any, Any]:
        keys = list(self.tree.keys(lower, upper, excludemax=upper is not None))
        found = list(self.tree.values(lower, upper, excludemax=upper is not None))
        if reverse:  # a BTree has no order but its own
            keys.reverse()
            found.reverse()
        return key_array(self.shape, keys), value_array(self.shape, found)

    def iterate(self) -> Iterable[tuple[Any, Any]]:
        found: Iterable[tuple[Any, Any]] = iter(self.tree.items())
        return found

    def delete_range(self, lower: Any, upper: Any) -> None:
        for key in list(self.tree.keys(lower, upper, excludemax=True)):
            del self.tree[key]
        transaction.commit()
