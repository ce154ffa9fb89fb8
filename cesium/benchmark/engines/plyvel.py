"""LevelDB through plyvel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import plyvel

from cesium.benchmark.engines.base import WRITE_BUFFER_BYTES, BytesEngine, Settings

BLOOM_BITS = 10
LOAD_BATCH_ROWS = 10_000


class LevelDb(BytesEngine):
    """A log-structured merge tree with one thread of compaction."""

    name = "leveldb"
    distribution = "plyvel"

    @classmethod
    def version(cls) -> str:
        return f"plyvel {super().version()}"

    @classmethod
    def describe(cls, settings: Settings) -> str:
        return (
            f"block cache {settings.cache_bytes >> 20} MiB, Bloom filter of {BLOOM_BITS} bits, "
            f"write buffer {WRITE_BUFFER_BYTES >> 20} MiB, no compression; `process` is the log "
            f"without syncs; loads in key order by batches of {LOAD_BATCH_ROWS:,}, the last synced"
        )

    def open(self) -> None:
        self.database = plyvel.DB(
            str(self.path),
            create_if_missing=True,
            write_buffer_size=WRITE_BUFFER_BYTES,
            lru_cache_size=self.settings.cache_bytes,
            bloom_filter_bits=BLOOM_BITS,
            compression=None,
        )
        self.synced = self.settings.durability == "sync"
        if self.synced:
            self.put, self.delete = self._put_synced, self._delete_synced
        else:
            self.put, self.delete = self.database.put, self.database.delete
        self.get = self.database.get

    def close(self) -> None:
        self.database.close()

    def _put_synced(self, key: Any, value: Any) -> Any:
        self.database.put(key, value, sync=True)

    def _delete_synced(self, key: Any) -> Any:
        self.database.delete(key, sync=True)

    def load(self, rows: Any, ordered: bool, threads: int = 1) -> None:
        keys, values = self.sorted_rows(rows, ordered)
        for first in range(0, len(keys), LOAD_BATCH_ROWS):
            end = first + LOAD_BATCH_ROWS
            with self.database.write_batch(sync=end >= len(keys)) as batch:
                put = batch.put
                for key, value in zip(keys[first:end], values[first:end]):
                    put(key, value)

    def settle(self) -> None:
        self.database.compact_range()

    def put_many(self, rows: Any) -> None:
        with self.database.write_batch(transaction=True, sync=self.synced) as batch:
            put = batch.put
            for key, value in zip(*self.sorted_rows(rows, False)):
                put(key, value)

    def get_many(self, batch: Any) -> Any:
        get = self.database.get
        return self.value_array([get(key) for key in batch])

    def range(self, lower: Any, upper: Any, reverse: bool = False) -> tuple[Any, Any]:
        keys: list[bytes] = []
        values: list[bytes] = []
        with self.database.iterator(start=lower, stop=upper, reverse=reverse) as found:
            for key, value in found:
                keys.append(key)
                values.append(value)
        return self.key_array(keys), self.value_array(values)

    def iterate(self) -> Iterable[tuple[Any, Any]]:
        found: Iterable[tuple[Any, Any]] = self.database.iterator()
        return found

    def delete_range(self, lower: Any, upper: Any) -> None:
        with self.database.write_batch(transaction=True, sync=self.synced) as batch:
            for key in self.database.iterator(start=lower, stop=upper, include_value=False):
                batch.delete(key)
