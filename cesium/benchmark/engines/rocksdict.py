"""RocksDB through rocksdict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rocksdict

from cesium.benchmark.engines.base import WRITE_BUFFER_BYTES, BytesEngine, Settings

BLOOM_BITS = 10
BACKGROUND_JOBS = 2


class RocksDict(BytesEngine):
    """A log-structured merge tree.

    rocksdict opens an existing store with its own defaults (a cache of 8 MiB, no filter) unless it
    is given the options again: they are, at every opening.
    """

    name = "rocksdb"
    distribution = "rocksdict"
    durabilities = ("sync", "process", "none")

    @classmethod
    def version(cls) -> str:
        return f"rocksdict {super().version()}"

    @classmethod
    def describe(cls, settings: Settings) -> str:
        return (
            f"block cache {settings.cache_bytes >> 20} MiB, Bloom filter of {BLOOM_BITS} bits, "
            f"write buffer {WRITE_BUFFER_BYTES >> 20} MiB, {BACKGROUND_JOBS} background jobs, no "
            "compression, raw bytes; `process` is the log without syncs, `none` no log; loads by "
            "one file of sorted rows that is ingested; options given again at every opening"
        )

    def _options(self) -> Any:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_max_background_jobs(BACKGROUND_JOBS)
        options.set_compression_type(rocksdict.DBCompressionType.none())
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(rocksdict.Cache(self.settings.cache_bytes))
        table.set_bloom_filter(BLOOM_BITS, False)
        options.set_block_based_table_factory(table)
        return options

    def open(self) -> None:
        self.database: Any = rocksdict.Rdict(str(self.path), self._options())
        self.writes: Any = rocksdict.WriteOptions()
        setattr(self.writes, "sync", self.settings.durability == "sync")  # noqa: B010
        self.database.set_write_options(self.writes)
        self.get = self.database.get
        self.put = self.database.put
        self.delete = self.database.delete

    def close(self) -> None:
        if self.settings.durability == "none":
            self.database.flush(True)
        self.database.close()

    def load(self, rows: Any, ordered: bool, threads: int = 1) -> None:
        file = str(self.path) + ".sst"
        writer = rocksdict.SstFileWriter(self._options())
        writer.open(file)
        for key, value in zip(*self.sorted_rows(rows, ordered)):
            writer[key] = value
        writer.finish()
        ingest = rocksdict.IngestExternalFileOptions()
        ingest.set_move_files(True)
        self.database.ingest_external_file([file], ingest)

    def put_many(self, rows: Any) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in zip(*self.sorted_rows(rows, False)):
            put(key, value)
        self.database.write(batch, self.writes)

    def get_many(self, batch: Any) -> Any:
        return self.value_array(self.database.get(batch))

    def range(self, lower: Any, upper: Any, reverse: bool = False) -> tuple[Any, Any]:
        keys: list[bytes] = []
        values: list[bytes] = []
        start = upper if reverse else lower
        for key, value in self.database.items(backwards=reverse, from_key=start):
            if reverse:
                if upper is not None and key >= upper:
                    continue  # the seek takes upper itself
                if lower is not None and key < lower:
                    break
            elif upper is not None and key >= upper:
                break
            keys.append(key)
            values.append(value)
        return self.key_array(keys), self.value_array(values)

    def iterate(self) -> Iterable[tuple[Any, Any]]:
        found: Iterable[tuple[Any, Any]] = self.database.items()
        return found

    def delete_range(self, lower: Any, upper: Any) -> None:
        self.database.delete_range(lower, upper)
