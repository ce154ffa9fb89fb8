"""Several tables of a store in lock-step with dicts: commits, transactions, drops, crashes.

Memtables are a few KiB, so that flushes and merges of all tables happen all the time.  A crash is a
copy of the directory, taken while the store is open; what it holds must be what was there.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import cesium
from cesium.engine import StoreEngine
from cesium.opening import acquire

Rows = dict[Any, Any]
STEPS = 260
SCHEMAS: dict[str, tuple[Any, Any]] = {
    "": ("u8", "f8"),
    "numbers": ("i2", "i8"),
    "texts": ("str", "bytes"),
    "pairs": (("str", "-i4"), "u4"),
}
FUZZING = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
SEEDS = [random.SystemRandom().randrange(1 << 32) for _ in range(40)] if FUZZING else range(6)


class Machine:
    """A store, the dicts that it is compared with, and a reader as in another process."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.directory = directory
        self.copies = 0
        self.seen: Counter[str] = Counter()
        self.model: dict[str, Rows] = {"": {}}
        self.snapshots: list[tuple[cesium.Snapshot, dict[str, Rows]]] = []
        self.open(directory / "store")
        self.reader = self.opened(directory / "store", flag="r")

    def opened(self, path: Path, **options: Any) -> cesium.Store:
        asked = cesium.Options(
            key="u8", value="f8", durability="process", memory_limit="2MiB", background=False,
            blob_threshold="2KiB", **options,
        )  # fmt: skip
        if options:  # an engine of its own, whoever writes
            engine = StoreEngine(str(path), asked, 8)
            engine.handles = 1
            return cesium.Store(engine, asked)
        return cesium.Store(acquire(path, asked, 8), asked)

    def open(self, path: Path) -> None:
        self.store = self.opened(path)
        for core in self.store._engine.cores():
            core.memtable_limit_bytes = 12_000

    # -- what is drawn

    def key(self, name: str) -> Any:
        number = self.rng.randrange(80)
        if name == "texts":
            return "k" * (number % 5) + str(number)
        return (f"p{number % 7}", number - 40) if name == "pairs" else number

    def value(self, name: str) -> Any:
        number = self.rng.randrange(1 << 20)
        if name == "texts":
            return os.urandom(1) * self.rng.choice((0, 1, 9, 300, 3000))
        return float(number) if name == "" else number

    def rows(self, name: str, most: int = 12) -> Rows:
        return {self.key(name): self.value(name) for _ in range(self.rng.randrange(1, most))}

    def table(self, name: str) -> Any:
        """The table, made if it is not there."""
        if not name:
            return self.store
        if name not in self.model:
            self.model[name] = {}
            self.seen["made"] += 1
            key, value = SCHEMAS[name]
            self.store.table(name, key=key, value=value).core.memtable_limit_bytes = 12_000
        return self.store.table(name)

    # -- steps

    def put(self, name: str) -> None:
        key, value = self.key(name), self.value(name)
        self.table(name)[key] = value
        self.model[name][key] = value

    def put_many(self, name: str) -> None:
        rows = self.rows(name, 60)
        self.table(name).update(rows)
        self.model[name].update(rows)

    def load(self, name: str) -> None:
        rows = self.rows(name, 60)
        self.table(name).bulk_load(list(rows), list(rows.values()), threads=1)
        self.model[name].update(rows)

    def delete_range(self, name: str) -> None:
        one, other = sorted([self.key(name), self.key(name)], key=repr)
        table = self.table(name)
        gone = list(table.range(one, other).keys())
        table.delete_range(one, other)
        for key in gone:
            del self.model[name][key]

    def drop(self, name: str) -> None:
        if name in self.model and name:
            self.store.drop_table(name)
            del self.model[name]
            self.seen["dropped"] += 1

    def transaction(self, name: str) -> None:
        names = [name, self.rng.choice(list(SCHEMAS))]
        for each in names:
            self.table(each)
        after = {each: dict(self.model[each]) for each in names}
        optimistic = self.rng.random() < 0.5
        ends = self.rng.random() < 0.8
        with self.store.transaction(optimistic) as txn:
            for step in range(self.rng.randrange(1, 6)):
                each = self.rng.choice(names)
                table = txn.table(each) if each else txn
                rows = self.rows(each)
                if self.rng.random() < 0.3:
                    mark = txn.savepoint()
                    table.update(rows)
                    mark.rollback()
                elif self.rng.random() < 0.3:
                    for key in rows:
                        table.delete(key)
                        after[each].pop(key, None)
                else:
                    table.update(rows)
                    after[each].update(rows)
                assert dict(table.items()) == after[each], step
            if not ends:
                txn.rollback()
        if ends:
            self.model.update(after)

    def crash(self, name: str) -> None:
        self.copies += 1
        copy = self.directory / f"copy-{self.copies}"
        shutil.copytree(self.store.path, copy)
        with self.opened(copy, flag="r") as store:
            self.compare(store, self.model)
        self.store.close()
        for snapshot, _ in self.snapshots:
            snapshot.close()
        self.snapshots.clear()
        self.reader.close()
        shutil.rmtree(self.directory / "store")
        copy.rename(self.directory / "store")
        self.open(self.directory / "store")
        self.reader = self.opened(self.directory / "store", flag="r")

    def reopen(self, name: str) -> None:
        for snapshot, _ in self.snapshots:
            snapshot.close()
        self.snapshots.clear()
        self.store.close()
        self.open(self.directory / "store")

    def checkpoint(self, name: str) -> None:
        self.store.checkpoint()

    def compact(self, name: str) -> None:
        if self.rng.random() < 0.3:
            self.table(name).compact()

    def refresh(self, name: str) -> None:
        assert self.reader.refresh() == self.store.sequence
        self.compare(self.reader, self.model)

    def snapshot(self, name: str) -> None:
        if len(self.snapshots) < 3:
            model = {each: dict(rows) for each, rows in self.model.items()}
            self.snapshots.append((self.store.snapshot(), model))
        else:
            found, model = self.snapshots.pop(0)
            self.compare(found, model)
            found.close()

    # -- comparing

    def compare(self, found: Any, model: dict[str, Rows]) -> None:
        assert sorted(found.tables) == sorted(set(model) - {""})
        for name, rows in model.items():
            table = found.table(name) if name else found
            assert dict(table.items()) == rows, name
            assert len(table) == len(rows)

    def run(self) -> None:
        steps = [self.put] * 4 + [self.put_many] * 4 + [self.transaction] * 4
        steps += [self.load, self.delete_range, self.drop, self.checkpoint, self.compact]
        steps += [self.refresh, self.snapshot, self.snapshot, self.reopen, self.crash]
        try:
            for _ in range(STEPS):
                step = self.rng.choice(steps)
                step(self.rng.choice(list(SCHEMAS)))
                self.seen[step.__name__] += 1
            self.compare(self.store, self.model)
            assert self.store.verify().ok
            counts = self.store.stats().counters
            self.seen["flush"] += counts["flush_bytes"] > 0
            self.seen["merge"] += counts["merge_bytes"] > 0
        finally:
            for snapshot, _ in self.snapshots:
                snapshot.close()
            self.reader.close()
            self.store.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_tables_in_lockstep(tmp_path: Path, seed: int) -> None:
    machine = Machine(tmp_path, seed)
    machine.run()
    assert {"made", "dropped", "crash", "flush", "merge", "refresh"} <= set(machine.seen), (
        machine.seen
    )
