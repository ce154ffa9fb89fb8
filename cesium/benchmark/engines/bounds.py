"""Bounds: what memory alone gives, without files, commits or keyed writes.

A dict and a sorted list of Python objects, and numpy on mapped files of sorted columns.  They are
no stores, so no engine is compared with them as with a peer.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from typing import Any

import numpy as np

from cesium.benchmark.engines.base import Engine, NotOffered, Settings
from cesium.benchmark.shapes import Keys, Rows, key_array, value_array, value_singles


class _InMemory(Engine):
    """Python objects: whatever the durability, nothing is durable."""

    bound = True
    on_disk = False
    durabilities = ("none",)

    def close(self) -> None:
        pass

    def keys(self, keys: Keys) -> list[Any]:
        return keys.singles()

    def values(self, values: Any) -> list[Any]:
        return value_singles(values)

    def rows(self, rows: Rows) -> Any:
        return self.keys(rows.keys), self.values(rows.values)

    def _use(self, mapping: Any) -> None:
        self.dict = mapping
        self.get = mapping.get
        self.put = mapping.__setitem__
        self.delete = mapping.__delitem__

    def load(self, rows: Any, ordered: bool, threads: int = 1) -> None:
        self.put_many(rows)

    def put_many(self, rows: Any) -> None:
        self.dict.update(zip(*rows))

    def get_many(self, batch: Any) -> Any:
        return value_array(self.shape, [self.dict[key] for key in batch])


class Dict(_InMemory):
    """A dict: no order."""

    name = "dict"
    ranged = False

    @classmethod
    def version(cls) -> str:
        return f"Python {platform.python_version()}"

    @classmethod
    def describe(cls, settings: Settings) -> str:
        return "Python objects in memory; no order, no files"

    def open(self) -> None:
        self._use({})


class SortedDict(_InMemory):
    """sortedcontainers.SortedDict."""

    name = "sorteddict"
    distribution = "sortedcontainers"

    @classmethod
    def version(cls) -> str:
        return f"sortedcontainers {super().version()}"

    @classmethod
    def describe(cls, settings: Settings) -> str:
        return "Python objects in memory, in order; no files"

    def open(self) -> None:
        import sortedcontainers

        self._use(sortedcontainers.SortedDict())

    def range(self, lower: Any, upper: Any, reverse: bool = False) -> tuple[Any, Any]:
        keys = list(self.dict.irange(lower, upper, (True, False), reverse))
        return key_array(self.shape, keys), self.get_many(keys)

    def iterate(self) -> Iterable[tuple[Any, Any]]:
        found: Iterable[tuple[Any, Any]] = iter(self.dict.items())
        return found

    def delete_range(self, lower: Any, upper: Any) -> None:
        for key in list(self.dict.irange(lower, upper, (True, False))):
            del self.dict[key]


class Numpy(Engine):
    """np.save of sorted columns, np.load(mmap_mode="r"), searchsorted."""

    name = "numpy"
    bound = True
    durabilities = ("sync",)
    keys_taken = ("u64",)

    @classmethod
    def version(cls) -> str:
        return f"numpy {np.__version__}"

    @classmethod
    def describe(cls, settings: Settings) -> str:
        return "two mapped .npy files of sorted columns; loads sort, save and sync; no keyed writes"

    def open(self) -> None:
        self.path.mkdir(exist_ok=True)
        self.get, self.put, self.delete = self._get, self._refuse, self._refuse
        if (self.path / "keys.npy").exists():
            self._map()

    def _map(self) -> None:
        self.key_column = np.load(self.path / "keys.npy", "r")
        self.value_column = np.load(self.path / "values.npy", "r")

    @staticmethod
    def _refuse(*_: Any) -> Any:
        raise NotOffered("no keyed writes")

    def close(self) -> None:
        pass  # a mapping goes with its array

    def keys(self, keys: Keys) -> list[Any]:
        return list(keys.columns[0])

    def values(self, values: Any) -> list[Any]:
        raise NotOffered("no keyed writes")

    def rows(self, rows: Rows) -> Any:
        return rows

    def batch(self, keys: Keys) -> Any:
        return keys.columns[0]

    def load(self, rows: Any, ordered: bool, threads: int = 1) -> None:
        if not ordered:
            rows = rows.take(rows.keys.order())
        for name, column in (("keys", rows.keys.columns[0]), ("values", rows.values)):
            with open(self.path / f"{name}.npy", "wb") as file:
                np.save(file, column)
                file.flush()
                os.fsync(file.fileno())
        self._map()

    def put_many(self, rows: Any) -> None:
        self._refuse()

    def _get(self, key: Any) -> Any:
        place = self.key_column.searchsorted(key)
        if place < len(self.key_column) and self.key_column[place] == key:
            return self.value_column[place]
        return None

    def get_many(self, batch: Any) -> Any:
        return self.value_column[self.key_column.searchsorted(batch)]

    def _slice(self, lower: Any, upper: Any) -> slice:
        first = 0 if lower is None else int(self.key_column.searchsorted(lower))
        end = len(self.key_column) if upper is None else int(self.key_column.searchsorted(upper))
        return slice(first, end)

    def range(self, lower: Any, upper: Any, reverse: bool = False) -> tuple[Any, Any]:
        place = self._slice(lower, upper)
        columns = self.key_column[place], self.value_column[place]
        keys, values = (np.array(column[::-1] if reverse else column) for column in columns)
        return keys, values

    def iterate(self) -> Iterable[tuple[Any, Any]]:
        return zip(self.key_column.tolist(), self.value_column.tolist())

    def delete_range(self, lower: Any, upper: Any) -> None:
        self._refuse()

    def answer(self, key: Any) -> Any:
        found = self.get(key)
        return found if found is None else found.item()
