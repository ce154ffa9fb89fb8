"""A store that threads may pull at from all sides, and the operations that do so.

Every value but a stamp is a function of its key, so a read can be judged whoever wrote last.  The
keys:

- singles: put, deleted and popped one at a time; each may be there or not;
- a block: written, deleted and range-deleted whole, so a read of one moment sees all of it or
  nothing;
- stamps: written together by batches, so a read of one moment sees one and the same stamp in all;
- fixtures: never changed once they are there, so every read must see them.

An operation is called once a round, by one thread; it checks what it sees and raises
AssertionError.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import cesium
from cesium.opening import acquire
from cesium.options import Options
from cesium.store import Store

SINGLES = range(0, 64)
BLOCK = range(100, 148)
STAMPS = range(200, 216)
FIXTURES = range(300, 364)
TWINS = ("one", "other")  # tables
MEMTABLE_BYTES = 48 << 10
JOIN_SECONDS = 120

Row = tuple[int, Any]
stamps = itertools.count(1)


class Fixed:
    """Keys of 8 bytes, values of 8 bytes: the fixed form."""

    options = {"key": "u8", "value": "u8"}

    @staticmethod
    def key(number: int) -> Any:
        return number

    @staticmethod
    def number(key: Any) -> int:
        return int(key)

    @staticmethod
    def value(number: int) -> Any:
        return number * 1_000_003

    @staticmethod
    def stamp(number: int) -> Any:
        return number

    @staticmethod
    def column(values: list[Any]) -> Any:
        return np.array(values, np.uint64)

    @staticmethod
    def listed(column: Any) -> list[Any]:
        return column.tolist()


class Variable:
    """str keys, some of which share a head; bytes, some of which are too long for a page."""

    options = {"key": "str", "value": "bytes"}

    @staticmethod
    def key(number: int) -> Any:
        return f"row-number-{number:05d}"

    @staticmethod
    def number(key: Any) -> int:
        return int(key[-5:])

    @staticmethod
    def value(number: int) -> Any:
        return b"%d," % number * (1 + number % 37 * (20 if number % 8 == 0 else 1))

    @staticmethod
    def stamp(number: int) -> Any:
        return b"%d" % number

    @staticmethod
    def column(values: list[Any]) -> Any:
        return values

    @staticmethod
    def listed(column: Any) -> list[Any]:
        return list(column)


class Subject:
    """One store of one form; the operations are its methods."""

    def __init__(self, path: Any, form: Any) -> None:
        self.path = path
        self.form = form
        self.store = self.open()
        numbers = [*FIXTURES, *STAMPS]
        self.write(numbers, [form.value(n) for n in FIXTURES] + [form.stamp(0)] * len(STAMPS))

    def open(self) -> Store:
        options = Options(**self.form.options, durability="process")
        store = Store(acquire(self.path, options, 6), options)
        store.core.memtable_limit_bytes = MEMTABLE_BYTES
        for name in TWINS:
            store.table(name, key="u8", value="u8")
        return store

    def write(self, numbers: Iterable[int], values: list[Any], load: bool = False) -> None:
        keys = self.form.column([self.form.key(number) for number in numbers])
        operation = self.store.bulk_load if load else self.store.put_many
        commit = operation(keys, self.form.column(values))
        assert commit.rows == len(values)

    # -- what a read may see

    def check_value(self, number: int, value: Any) -> None:
        if number not in STAMPS:
            assert value == self.form.value(number), (number, value)

    def check_moment(self, rows: list[Row]) -> None:
        """All rows, in order, of one moment."""
        numbers = [number for number, _ in rows]
        assert numbers == sorted(set(numbers))
        for number, value in rows:
            self.check_value(number, value)
        found = dict(rows)
        assert set(found) <= {*SINGLES, *BLOCK, *STAMPS, *FIXTURES}
        assert len({found.get(number) for number in STAMPS}) == 1, "a batch was seen in part"
        present = sum(number in found for number in BLOCK)
        assert present in (0, len(BLOCK)), f"{present} of {len(BLOCK)} rows of a batch were seen"
        missing = [number for number in FIXTURES if number not in found]
        assert not missing, missing

    def rows(self, keys: Any, values: Any) -> list[Row]:
        numbers = [self.form.number(key) for key in self.form.listed(keys)]
        return list(zip(numbers, self.form.listed(values), strict=True))

    # -- writes

    def put(self, chance: random.Random) -> None:
        number = chance.choice(SINGLES)
        self.store.put(self.form.key(number), self.form.value(number))

    def delete(self, chance: random.Random) -> None:
        self.store.delete(self.form.key(chance.choice(SINGLES)))

    def pop(self, chance: random.Random) -> None:
        number = chance.choice(SINGLES)
        value = self.store.pop(self.form.key(number), None)
        if value is not None:
            self.check_value(number, value)

    def setdefault(self, chance: random.Random) -> None:
        number = chance.choice(SINGLES)
        value = self.form.value(number)
        assert self.store.setdefault(self.form.key(number), value) == value

    def compare_and_set(self, chance: random.Random) -> None:
        number = chance.choice(SINGLES)
        key, value = self.form.key(number), self.form.value(number)
        if not self.store.put_if_absent(key, value):
            self.store.compare_and_set(key, value, cesium.MISSING)

    def put_many(self, chance: random.Random, load: bool = False) -> None:
        stamp = self.form.stamp(next(stamps))
        values = [self.form.value(number) for number in BLOCK] + [stamp] * len(STAMPS)
        self.write([*BLOCK, *STAMPS], values, load)

    def bulk_load(self, chance: random.Random) -> None:
        self.put_many(chance, load=True)

    def delete_many(self, chance: random.Random) -> None:
        self.store.delete_many(self.form.column([self.form.key(number) for number in BLOCK]))

    def delete_range(self, chance: random.Random) -> None:
        self.store.delete_range(self.form.key(BLOCK.start), self.form.key(BLOCK.stop))

    def transaction(self, chance: random.Random, optimistic: bool = False) -> None:
        """Stamps and block together, or nothing; and what was read still holds at the commit."""
        stamp = self.form.stamp(next(stamps))
        single = self.form.key(chance.choice(SINGLES))
        with self.store.transaction(optimistic) as transaction:
            rows = self.rows(*transaction.range().arrays())
            self.check_moment(rows)
            if any(number in BLOCK for number, _ in rows):
                transaction.delete_range(self.form.key(BLOCK.start), self.form.key(BLOCK.stop))
            else:
                for number in BLOCK:
                    transaction[self.form.key(number)] = self.form.value(number)
            transaction.pop(single, None)
            keys = self.form.column([self.form.key(number) for number in STAMPS])
            transaction.put_many(keys, self.form.column([stamp] * len(STAMPS)))
            self.check_moment(
                [(self.form.number(key), value) for key, value in transaction.items()]
            )

    def optimistic(self, chance: random.Random) -> None:
        def attempt() -> None:
            self.transaction(chance, optimistic=True)

        with contextlib.suppress(cesium.ConflictError):  # the other one may never rest
            cesium.retry(attempt, attempts=3)

    # -- reads

    def across(self, chance: random.Random) -> None:
        """One commit in two tables, which are the same at every moment."""
        stamp = next(stamps)
        with self.store.transaction(chance.random() < 0.5) as txn:
            for name in TWINS:
                txn.table(name).put_many(np.arange(8), np.full(8, stamp))
        with self.store.snapshot() as snapshot:
            one, other = (list(snapshot.table(name).items()) for name in TWINS)
            assert one == other and len({value for _, value in one}) <= 1, (one, other)

    def scratch(self, chance: random.Random) -> None:
        """A table that is made, written to and dropped."""
        name = f"scratch {threading.get_ident()}"
        table = self.store.table(name, key="u8", value="u8")
        table.put_many(np.arange(100), np.arange(100))
        table.bulk_load(np.arange(50, 80), np.zeros(30))
        assert table.range().arrays()[1].sum() == sum(range(50)) + sum(range(80, 100))
        self.store.drop_table(name)
        assert name not in self.store.tables

    def get(self, chance: random.Random) -> None:
        for numbers in (SINGLES, BLOCK, FIXTURES):
            number = chance.choice(numbers)
            value = self.store.get(self.form.key(number))
            if value is not None or numbers is FIXTURES:
                self.check_value(number, value)

    def get_many(self, chance: random.Random) -> None:
        numbers = [*SINGLES, *BLOCK, *STAMPS, *FIXTURES]
        keys = self.form.column([self.form.key(number) for number in numbers])
        values, found = self.store.get_many(keys)
        listed = zip(numbers, self.form.listed(values), found.tolist(), strict=True)
        self.check_moment([(number, value) for number, value, there in listed if there])

    def contains_many(self, chance: random.Random) -> None:
        keys = self.form.column([self.form.key(number) for number in [*BLOCK, *FIXTURES]])
        found = self.store.contains_many(keys)
        assert found[: len(BLOCK)].sum() in (0, len(BLOCK))
        assert found[len(BLOCK) :].all()

    def iterate(self, chance: random.Random) -> None:
        self.check_moment([(self.form.number(key), value) for key, value in self.store.range()])

    def iterate_back(self, chance: random.Random) -> None:
        rows = [(self.form.number(key), value) for key, value in self.store.range(reverse=True)]
        self.check_moment(rows[::-1])

    def arrays(self, chance: random.Random) -> None:
        self.check_moment(self.rows(*self.store.range().arrays()))

    def batches(self, chance: random.Random) -> None:
        pieces = [self.rows(*batch) for batch in self.store.range().batches(50)]
        assert all(len(piece) <= 50 for piece in pieces)
        self.check_moment([row for piece in pieces for row in piece])

    def length(self, chance: random.Random) -> None:
        least = len(FIXTURES) + len(STAMPS)
        assert least <= len(self.store) <= least + len(SINGLES) + len(BLOCK)
        between = self.store.range(self.form.key(BLOCK.start), self.form.key(BLOCK.stop))
        assert len(between) in (0, len(BLOCK))

    def nearest(self, chance: random.Random) -> None:
        form, store = self.form, self.store
        at = chance.choice(FIXTURES)
        assert store.floor(form.key(at)) == (form.key(at), form.value(at))
        assert store.ceiling(form.key(at)) == (form.key(at), form.value(at))
        below = max(at - 1, FIXTURES.start)
        assert form.number(store.lower(form.key(below + 1))[0]) == below
        assert form.number(store.higher(form.key(FIXTURES.start - 1))[0]) == FIXTURES.start
        assert store.higher(form.key(FIXTURES[-1])) is None

    def snapshot(self, chance: random.Random) -> None:
        with self.store.snapshot() as snapshot:
            rows = self.rows(*snapshot.range().arrays())
            self.check_moment(rows)
            assert [(self.form.number(key), value) for key, value in snapshot.items()] == rows
            assert len(snapshot) == len(rows)
            for number, value in chance.sample(rows, 4):
                assert snapshot[self.form.key(number)] == value

    def edges(self, chance: random.Random) -> None:
        assert self.form.number(self.store.last()[0]) == FIXTURES[-1]
        number, value = self.store.first()
        self.check_value(self.form.number(number), value)

    # -- keeping

    def checkpoint(self, chance: random.Random) -> None:
        self.store.checkpoint()

    def compact(self, chance: random.Random) -> None:
        self.store.compact()

    def sync(self, chance: random.Random) -> None:
        before = self.store.sequence
        self.store.sync()
        assert before <= self.store.durable_sequence <= self.store.sequence

    def verify(self, chance: random.Random) -> None:
        report = self.store.verify()
        assert report.ok, report.problems

    def stats(self, chance: random.Random) -> None:
        stats = self.store.stats()
        assert stats.estimated_rows >= 0
        assert stats.durable_sequence <= stats.sequence or stats.sequence <= self.store.sequence

    # -- the whole

    def settle(self) -> None:
        """What must hold when no thread is at work, now and after opening again."""
        rows = list(self.store.items())
        self.check_moment([(self.form.number(key), value) for key, value in rows])
        assert len(self.store) == len(rows)
        self.iterate_back(random.Random(0))
        assert [self.store.get(key) for key, _ in rows] == [value for _, value in rows]
        self.verify(random.Random(0))

    def reopen(self) -> None:
        before = list(self.store.items())
        sequence = self.store.sequence
        self.store.close()
        self.store = self.open()
        assert list(self.store.items()) == before
        assert self.store.sequence == sequence


# name: rounds.  What syncs or writes files is worth fewer of them.
OPERATIONS = {
    "put": 60,
    "delete": 60,
    "pop": 60,
    "setdefault": 60,
    "compare_and_set": 60,
    "put_many": 20,
    "bulk_load": 3,
    "delete_many": 20,
    "delete_range": 20,
    "transaction": 8,
    "optimistic": 8,
    "across": 8,
    "scratch": 2,
    "get": 60,
    "get_many": 20,
    "contains_many": 20,
    "iterate": 10,
    "iterate_back": 10,
    "arrays": 20,
    "batches": 10,
    "length": 20,
    "nearest": 20,
    "snapshot": 10,
    "edges": 20,
    "checkpoint": 4,
    "compact": 4,
    "sync": 10,
    "verify": 4,
    "stats": 20,
}


def run_together(*bodies: Callable[[], None]) -> None:
    """Runs each body in a thread of its own, all from one moment on; raises the first failure."""
    barrier = threading.Barrier(len(bodies))
    failures: list[BaseException] = []

    def run(body: Callable[[], None]) -> None:
        barrier.wait()
        try:
            body()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(body,), daemon=True) for body in bodies]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(JOIN_SECONDS)
    finally:
        sys.setswitchinterval(interval)
    if any(thread.is_alive() for thread in threads):
        import faulthandler

        faulthandler.dump_traceback(sys.__stderr__)
        raise AssertionError("threads wait for one another")
    if failures:
        raise failures[0]
