"""LMDB through py-lmdb."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import lmdb

from cesium.benchmark.engines.base import BytesEngine, Engine, Settings

MAP_BYTES = 1 << 40  # of address space: the file grows as it is written


class Lmdb(BytesEngine):
    """One B-tree of pages in one file, mapped."""

    name = "lmdb"
    distribution = "lmdb"

    @classmethod
    def version(cls) -> str:
        return f"py-lmdb {lmdb.__version__}, LMDB {'.'.join(map(str, lmdb.version()))}"

    @classmethod
    def describe(cls, settings: Settings) -> str:
        return (
            "no cache of its own (mapped file); subdir, writemap off; a commit per put, `process` "
            "by sync=False; loads by putmulti in key order, append=True, in one transaction; reads "
            "of a store that is not written share one transaction; readahead off where reads are "
            "cold"
        )

    def open(self) -> None:
        self.environment = lmdb.open(
            str(self.path),
            map_size=MAP_BYTES,
            sync=self.settings.durability == "sync",
            readahead=not self.settings.cold,
            max_spare_txns=8,
        )
        self.reader: Any = None
        self.get, self.put = self._get, self._put

    def close(self) -> None:
        self._end_reads()
        self.environment.close()

    def _end_reads(self) -> None:
        if self.reader is not None:
            self.reader.abort()

    def session(self) -> Engine:
        return _Session(self)

    def only_reads(self) -> None:
        self.reader = self.environment.begin()
        self.get = self.reader.get

    def _get(self, key: Any) -> Any:
        with self.environment.begin() as transaction:  # a spare one, renewed
            return transaction.get(key)

    def _put(self, key: Any, value: Any) -> Any:
        with self.environment.begin(write=True) as transaction:
            return transaction.put(key, value)

    def delete(self, key: Any) -> Any:
        with self.environment.begin(write=True) as transaction:
            return transaction.delete(key)

    def load(self, rows: Any, ordered: bool, threads: int = 1) -> None:
        keys, values = self.sorted_rows(rows, ordered)
        with self.environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(zip(keys, values), append=True)
        self.environment.sync(True)

    def begin(self) -> None:
        self.writer = self.environment.begin(write=True)
        self.put = self.writer.put

    def commit(self) -> None:
        self.writer.commit()
        self.put = self._put

    def put_many(self, rows: Any) -> None:
        keys, values = self.sorted_rows(rows, False)
        with self.environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(zip(keys, values))

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        if self.reader is not None:
            with self.reader.cursor() as cursor:
                yield cursor
        else:
            with self.environment.begin() as transaction, transaction.cursor() as cursor:
                yield cursor

    def get_many(self, batch: Any) -> Any:
        # In key order neighbours are found in the page that is at hand.
        order = sorted(range(len(batch)), key=batch.__getitem__)
        with self._cursor() as cursor:
            pairs = cursor.getmulti([batch[place] for place in order])
        found = self.value_array([value for _, value in pairs])
        values = found.copy()
        values[order] = found
        return values

    def range(self, lower: Any, upper: Any, reverse: bool = False) -> tuple[Any, Any]:
        keys: list[bytes] = []
        values: list[bytes] = []
        with self._cursor() as cursor:
            if reverse:
                there = cursor.set_range(upper) if upper is not None else False
                there = cursor.prev() if there else cursor.last()
                for key, value in cursor.iterprev() if there else ():
                    if lower is not None and key < lower:
                        break
                    keys.append(key)
                    values.append(value)
            elif cursor.set_range(lower) if lower is not None else cursor.first():
                for key, value in cursor:
                    if upper is not None and key >= upper:
                        break
                    keys.append(key)
                    values.append(value)
        return self.key_array(keys), self.value_array(values)

    def iterate(self) -> Iterable[tuple[Any, Any]]:
        with self._cursor() as cursor:
            yield from cursor

    def delete_range(self, lower: Any, upper: Any) -> None:
        with self.environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            there = cursor.set_range(lower)
            while there and cursor.key() < upper:
                there = cursor.delete()


class _Session(Lmdb):
    """Transactions of another thread, in the same environment."""

    def __init__(self, owner: Lmdb) -> None:
        self.path, self.shape, self.settings = owner.path, owner.shape, owner.settings
        self.environment = owner.environment
        self.reader = None
        self.get = self._get

    def close(self) -> None:
        self._end_reads()
