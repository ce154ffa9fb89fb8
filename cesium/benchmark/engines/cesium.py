"""cesium, as this package is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import cesium
from cesium.benchmark.engines.base import WRITE_BUFFER_BYTES, Engine, Settings
from cesium.benchmark.shapes import FIXED_VALUE_BYTES_MOST, Keys, Rows, value_singles

KEY_SCHEMAS: dict[str, Any] = {"u64": "u8", "composite": ("u8", "u8"), "url": "str"}


class Cesium(Engine):
    """A table of the shape's own types."""

    name = "cesium"
    distribution = "cesiumdb"
    durabilities = ("sync", "interval", "process", "none")

    @classmethod
    def version(cls) -> str:
        return cesium.__version__

    @classmethod
    def describe(cls, settings: Settings) -> str:
        return (
            f"memory_limit {memory_limit(settings) >> 20} MiB (memtable "
            f"{WRITE_BUFFER_BYTES >> 20} MiB), pages in the system's cache, two threads of "
            "maintenance"
        )

    def open(self) -> None:
        size = self.shape.value_bytes
        fixed = f"V{size}" if size <= FIXED_VALUE_BYTES_MOST else "bytes"
        self.store = cesium.open(
            self.path,
            key=KEY_SCHEMAS[self.shape.key],
            value="u8" if self.shape.numeric_values else fixed,
            durability=self.settings.durability,
            memory_limit=memory_limit(self.settings),
        )
        self.get = self.store.get
        self.put = self.store.put
        self.delete = self.store.delete

    def close(self) -> None:
        self.store.close()

    def session(self) -> Engine:
        return Cesium(self.path, self.shape, self.settings)  # the same engine, counted

    def keys(self, keys: Keys) -> list[Any]:
        return keys.singles()

    def values(self, values: Any) -> list[Any]:
        return value_singles(values)

    def rows(self, rows: Rows) -> Any:
        return self.batch(rows.keys), self._values(rows.values)

    def batch(self, keys: Keys) -> Any:
        return keys.arrays()

    def _values(self, values: Any) -> Any:
        return values if self.shape.value_bytes <= FIXED_VALUE_BYTES_MOST else values.tolist()

    def load(self, rows: Any, ordered: bool, threads: int = 1) -> None:
        keys, values = rows
        self.store.bulk_load(keys, values, progress=False, threads=threads)

    def put_many(self, rows: Any) -> None:
        self.store.put_many(*rows)

    def get_many(self, batch: Any) -> Any:
        return self.store.get_many(batch)[0]

    def range(self, lower: Any, upper: Any, reverse: bool = False) -> tuple[Any, Any]:
        keys, values = self.store.range(lower, upper, reverse=reverse).arrays()
        return keys, values

    def iterate(self) -> Iterable[tuple[Any, Any]]:
        return iter(self.store.range())

    def delete_range(self, lower: Any, upper: Any) -> None:
        self.store.delete_range(lower, upper)

    def answer(self, key: Any) -> Any:
        found = self.get(key)
        return found.tobytes() if isinstance(found, np.void) else found


def memory_limit(settings: Settings) -> int:
    """So much that the memtable has its full size."""
    return max(settings.cache_bytes, 8 * WRITE_BUFFER_BYTES)
