"""Transactions: all or nothing, their own writes, savepoints, conflicts, and who waits for whom."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium

BOTH = pytest.mark.parametrize("optimistic", [False, True], ids=["turn", "optimistic"])


@pytest.fixture(params=["files", "memory"])
def store(request: Any, tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "s" if request.param == "files" else ":memory:"
    with cesium.open(path, key="u8", value="i8", durability="process") as store:
        store.put_many(np.arange(0, 100, 2, dtype="u8"), np.arange(0, 100, 2))
        yield store


def in_thread(call: Any) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


# --- all or nothing -------------------------------------------------------------------------------


@BOTH
def test_a_transaction_is_seen_whole_and_after_it(store: Any, optimistic: bool) -> None:
    sequence = store.sequence
    with store.transaction(optimistic) as txn:
        txn[1] = 10
        txn.put(3, 30)
        del txn[2]
        txn.delete(4)
        txn.put_many([5, 7], [50, 70])
        txn.delete_many([6, 8])
        txn.delete_range(20, 30)
        txn.update({9: 90})
        assert txn.pop(10) == 10 and txn.setdefault(10, 100) == 100
        assert txn.increment(12, 5) == 17 and txn.compare_and_set(14, 14, 140)
        assert txn.put_if_absent(11, 110) and not txn.put_if_absent(16, 0)
        assert len(store) == 50 and store[2] == 2 and store.sequence == sequence
        assert txn.first() == (0, 0) and txn.floor(2) == (1, 10)
        inside = dict(txn)
        assert list(txn.items()) == sorted(inside.items())
        assert [key for key, _ in reversed(txn.range())] == sorted(inside, reverse=True)
        keys, values = txn.range(0, 15).arrays()
        assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == {
            key: value for key, value in inside.items() if key < 15
        }
        found = txn.contains_many([1, 2, 3, 4])
        assert found.tolist() == [True, False, True, False]
        values, found = txn.get_many([5, 6, 7], default=-1)
        assert values.tolist() == [50, -1, 70]
        assert len(txn) == len(inside) == len(txn.range())
        assert len(txn.range(20, 30)) == 0 and bool(txn)
    assert dict(store) == inside
    assert store.sequence == sequence + 1
    assert txn.committed == (sequence + 1, "process", txn.committed.rows)
    assert "committed" in repr(txn)


@BOTH
def test_an_exception_rolls_back(store: Any, optimistic: bool) -> None:
    before, sequence = dict(store), store.sequence
    for error in (KeyError, KeyboardInterrupt):
        with pytest.raises(error), store.transaction(optimistic) as txn:
            txn.clear()
            txn[1] = 1
            raise error
        assert dict(store) == before and store.sequence == sequence
        assert txn.committed is None
    store[1] = 1  # nobody has the turn


@BOTH
def test_rollback_and_commit_end_it(store: Any, optimistic: bool) -> None:
    before = dict(store)
    with store.transaction(optimistic) as txn:
        txn[1] = 1
        txn.rollback()
        with pytest.raises(cesium.ClosedError, match="with statement"):
            txn[1] = 2
        store[77] = 7  # in the midst of the with statement, but the transaction is over
    assert dict(store) == before | {77: 7}
    with store.transaction(optimistic) as txn:
        txn[1] = 1
        commit = txn.commit()
        assert store[1] == 1 and commit == (store.sequence, "process", 1)
        for call in (lambda: txn[1], lambda: len(txn), txn.commit, lambda: txn.delete(1)):
            with pytest.raises(cesium.ClosedError):
                call()
    with pytest.raises(cesium.Error, match="used once"), txn:
        pass
    txn.rollback()  # again is no error
    assert store[1] == 1


@BOTH
def test_before_its_with_statement_it_does_nothing(store: Any, optimistic: bool) -> None:
    txn = store.transaction(optimistic)
    for call in (lambda: txn[2], lambda: txn.put(2, 2), txn.savepoint, lambda: list(txn)):
        with pytest.raises(cesium.ClosedError, match="not open"):
            call()
    store[2] = 3


@BOTH
def test_one_that_wrote_nothing_commits_nothing(store: Any, optimistic: bool) -> None:
    sequence = store.sequence
    with store.transaction(optimistic) as txn:
        assert txn[2] == 2
        txn[5] = 5
        mark = txn.savepoint()
        mark.rollback()
        del txn[5]
    assert store.sequence == sequence + 1  # the delete of 5 is a write
    with store.transaction(optimistic) as txn:
        assert len(txn) == 50
    assert store.sequence == sequence + 1 and txn.committed == (sequence + 1, "process", 0)


@BOTH
def test_writing_while_iterating(store: Any, optimistic: bool) -> None:
    with store.transaction(optimistic) as txn:
        rows = iter(txn.range(0, 10))
        assert next(rows) == (0, 0)
        txn[3] = 3
        del txn[4]
        assert list(rows) == [(2, 2), (4, 4), (6, 6), (8, 8)]
        assert [key for key, _ in txn.range(0, 10)] == [0, 2, 3, 6, 8]


@BOTH
def test_every_key_and_value_form(optimistic: bool) -> None:
    rng = random.Random(4)
    for key, value, keys, values in (
        ("str", "bytes", [f"k{n % 40}" * (1 + n % 50) for n in range(200)],
         [bytes(n % 7000) for n in range(200)]),
        (("u4", "str"), [("a", "f8"), ("b", "i4")], [(n % 30, "x" * (n % 5)) for n in range(200)],
         [(n / 2, n) for n in range(200)]),
        ("i4", "json", list(range(-100, 100)), [{"n": n} for n in range(200)]),
        ("bytes", "str", [bytes([n % 50]) * 600 for n in range(200)],
         ["ß" * n for n in range(200)]),
    ):  # fmt: skip
        store = cesium.open(":memory:", key=key, value=value)
        model: dict[Any, Any] = {}
        for _ in range(20):
            with store.transaction(optimistic) as txn:
                for _ in range(10):
                    number = rng.randrange(200)
                    if rng.random() < 0.3:
                        txn.delete(keys[number])
                        model.pop(keys[number], None)
                    else:
                        txn[keys[number]] = values[number]
                        model[keys[number]] = values[number]
                    assert txn.get(keys[number]) == model.get(keys[number])
                assert dict(txn.items()) == model
            assert dict(store.items()) == model


def test_it_survives_reopening(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="str", value="bytes") as store:
        store.update({f"{n:03}": b"old" for n in range(100)})
        with store.transaction() as txn:
            txn.delete_range("010", "020")
            txn.delete_range("090", None)
            txn["015"] = b"new"
            with txn.savepoint():
                txn.delete_many(["000", "001"])
                txn["000"] = b"x" * 5000
        expected = dict(store.items())
        store._engine.core_engine.poisoned = OSError("killed")  # no checkpoint at the end
    with cesium.open(tmp_path / "s") as store:
        assert dict(store.items()) == expected and len(expected) == 100 - 10 + 1 - 10 - 1
        assert store.verify().ok


# --- savepoints -----------------------------------------------------------------------------------


@BOTH
def test_savepoints(store: Any, optimistic: bool) -> None:
    with store.transaction(optimistic) as txn:
        txn[1] = 1
        first = txn.savepoint()
        txn[1] = 11
        txn.delete_range(0, 50)
        second = txn.savepoint()
        txn[1] = 111
        assert txn[1] == 111 and len(txn) == 26
        second.rollback()
        assert 1 not in txn and len(txn) == 25
        txn[1] = 5
        second.rollback()
        assert 1 not in txn
        first.rollback()
        assert txn[1] == 1 and len(txn) == 51
        with pytest.raises(cesium.Error, match="earlier savepoint"):
            second.rollback()
        with pytest.raises(ZeroDivisionError), txn.savepoint():
            txn.clear()
            raise ZeroDivisionError
        with txn.savepoint():
            txn[3] = 3
        assert len(txn) == 52
    assert len(store) == 52 and store[1] == 1 and store[3] == 3
    with pytest.raises(cesium.ClosedError):
        first.rollback()


def test_many_savepoints_leave_one_draft(store: Any) -> None:
    with store.transaction() as txn:
        for number in range(3000):
            with txn.savepoint():
                txn[number] = number
                if number % 3 == 0:
                    txn.delete_range(number, number + 1)
            assert txn.get(number, -1) == (-1 if number % 3 == 0 else number)
        assert store.memory().memtable + store.memory().pinned < 8 << 20  # 60 MiB, not joined
    assert [store.get(n, -1) for n in range(3000)] == [-1 if n % 3 == 0 else n for n in range(3000)]


def test_a_savepoint_rolled_back_further_lets_the_error_through(store: Any) -> None:
    with store.transaction() as txn:
        txn[1] = 1
        outer = txn.savepoint()
        txn[3] = 3
        with pytest.raises(ZeroDivisionError), txn.savepoint():
            txn[5] = 5
            outer.rollback()
            raise ZeroDivisionError
    assert store[1] == 1 and 3 not in store and 5 not in store


def test_a_savepoint_before_any_write(store: Any) -> None:
    with store.transaction() as txn:
        outer, inner = txn.savepoint(), txn.savepoint()
        txn.clear()
        inner.rollback()
        txn[1] = 1
        outer.rollback()
        inner.rollback()
        txn[3] = 3
    assert len(store) == 51 and 1 not in store


# --- conflicts, by the names of the anomalies -----------------------------------------------------


def test_dirty_write_and_dirty_read(store: Any) -> None:
    with store.transaction(True) as one, store.transaction(True) as other:
        one[2], one[4] = 100, 100
        other[2], other[4] = 200, 200
        assert one[2] == 100 and other[2] == 200 and store[2] == 2
    assert (store[2], store[4]) in ((100, 100), (200, 200))


def test_lost_update(store: Any) -> None:
    with pytest.raises(cesium.ConflictError, match="has read"), store.transaction(True) as one:
        with store.transaction(True) as other:
            one[2], other[2] = one[2] + 1, other[2] + 10
    assert store[2] == 12


def test_read_skew(store: Any) -> None:
    """A reader sees one moment; if it writes by what it saw, that must still be so."""
    with pytest.raises(cesium.ConflictError), store.transaction(True) as txn:
        assert txn[2] == 2
        store.put_many([2, 4], [20, 40])
        assert txn[4] == 4
        txn[99] = txn[2] + txn[4]
    with store.transaction(True) as txn:
        assert txn[2] == 20
        store.put_many([2, 4], [2, 4])
        assert txn[4] == 40  # reads alone never conflict: they are of the moment of its beginning
    assert 99 not in store


def test_write_skew(store: Any) -> None:
    with pytest.raises(cesium.ConflictError), store.transaction(True) as one:
        with store.transaction(True) as other:
            one[2] = other[4] = one[2] + one[4] + other[2] + other[4]
    assert (store[2], store[4]) == (2, 12)


PHANTOMS = {
    "range": lambda txn: list(txn.range(0, 20)),
    "keys": lambda txn: list(txn.range(0, 20).keys()),
    "arrays": lambda txn: txn.range(0, 20).arrays(),
    "batches": lambda txn: list(txn.range(0, 20).batches(3)),
    "len": len,
    "len of a range": lambda txn: len(txn.range(0, 20)),
    "iterate": list,
    "backwards": lambda txn: list(reversed(txn)),
    "floor": lambda txn: txn.floor(9),
    "lower": lambda txn: txn.lower(10),
    "ceiling": lambda txn: txn.ceiling(9),
    "higher": lambda txn: txn.higher(8),
    "get": lambda txn: txn.get(9),
    "in": lambda txn: 9 in txn,
    "get_many": lambda txn: txn.get_many([8, 9]),
    "contains_many": lambda txn: txn.contains_many([8, 9]),
    "setdefault": lambda txn: txn.setdefault(9, 1),
    "prefix": lambda txn: list(txn[0:10]),
    "increment": lambda txn: txn.increment(9),
    "pop": lambda txn: txn.pop(9, None),
}


@pytest.mark.parametrize("read", PHANTOMS)
def test_phantom(store: Any, read: str) -> None:
    """What was not there when it was read, and is when the transaction commits."""
    with pytest.raises(cesium.ConflictError), store.transaction(True) as txn:
        PHANTOMS[read](txn)
        store[9] = 9
        txn[99] = 1
    assert 99 not in store and store[9] == 9


@pytest.mark.parametrize("read", ["get", "range", "get_many", "arrays"])
def test_a_value_that_changed(store: Any, read: str) -> None:
    with pytest.raises(cesium.ConflictError), store.transaction(True) as txn:
        PHANTOMS[read](txn)
        assert txn[8] == 8
        store[8] = 80
        txn[99] = 1
    assert 99 not in store


@pytest.mark.parametrize("read", PHANTOMS)
def test_no_conflict_elsewhere(store: Any, read: str) -> None:
    if read in ("len", "iterate", "backwards"):
        pytest.skip("it reads everything")
    with store.transaction(True) as txn:
        PHANTOMS[read](txn)
        store[51] = 1
        store[8] = 8  # the same again is no change
        store.checkpoint()
        store.compact()
        txn[99] = 1
    assert store[99] == 1 and store[51] == 1


def test_values_are_not_read_by_those_who_count(store: Any) -> None:
    with store.transaction(True) as txn:
        len(txn.range(0, 20))
        list(txn.range(0, 20).keys())
        txn.contains_many([8, 10])
        store[8] = 80
        txn[99] = 1
    assert store[99] == 1


def test_blind_writes_and_own_reads_never_conflict(store: Any) -> None:
    with store.transaction(True) as txn:
        txn[8] = 1
        txn.delete_range(20, 30)
        assert txn[8] == 1 and txn.get(22) is None
        store[8] = 2
        store[22] = 2
    assert store[8] == 1 and 22 not in store


def test_first_is_of_the_first_key_alone(store: Any) -> None:
    with store.transaction(True) as txn:
        assert txn.first() == (0, 0)
        store[50] = 1
        txn[99] = 1
    with pytest.raises(cesium.ConflictError), store.transaction(True) as txn:
        assert txn.last() == (99, 1)
        store[1000] = 1
        txn[99] = 2
    assert store[99] == 1


HIDDEN = {
    "ceiling": (lambda txn: txn.pop(2), lambda txn: txn.ceiling(2), 4),
    "first": (lambda txn: txn.delete_range(None, 10), lambda txn: txn.first(), 10),
    "last": (lambda txn: txn.delete_many([96, 98]), lambda txn: txn.last(), 94),
    "floor": (lambda txn: txn.delete(20), lambda txn: txn.floor(20), 18),
    "limit": (lambda txn: txn.delete_range(0, 10), lambda txn: list(txn.range(limit=2)), 12),
    "arrays": (lambda txn: txn.delete_range(0, 10), lambda txn: txn.range(limit=2).arrays(), 12),
    "reverse": (
        lambda txn: txn.delete_range(90, None),
        lambda txn: list(txn.range(limit=2, reverse=True)), 86,
    ),
}  # fmt: skip


@pytest.mark.parametrize("read", HIDDEN)
def test_a_limited_read_over_own_deletes(store: Any, read: str) -> None:
    """The row that was given counts, though rows that the transaction has deleted lie before it."""
    hide, look, row = HIDDEN[read]
    for change in (lambda: store.put(row, -1), lambda: store.delete(row)):
        with pytest.raises(cesium.ConflictError), store.transaction(True) as txn:
            hide(txn)
            look(txn)
            change()
    with store.transaction(True) as txn:
        hide(txn)
        look(txn)
        store[50] = 1  # beyond what was read
    assert txn.committed


def test_presence_counts_without_the_value(store: Any) -> None:
    with store.transaction(True) as txn:
        assert 8 in txn and 9 not in txn
        store[8] = 80
        txn[99] = 1
    with pytest.raises(cesium.ConflictError), store.transaction(True) as txn:
        assert 8 in txn and txn[8] == 80
        store[8] = 8
        txn[99] = 2
    with pytest.raises(cesium.ConflictError), store.transaction(True) as txn:
        assert 8 in txn
        del store[8]
        txn[99] = 3
    assert store[99] == 1


def test_retry(store: Any) -> None:
    tries = []

    def attempt() -> str:
        with store.transaction(optimistic=True) as txn:
            txn[2] += 1
            if len(tries) < 3:
                store[2] = 100 + len(tries)
            tries.append(1)
        return "done"

    assert cesium.retry(attempt) == "done"
    assert len(tries) == 4 and store[2] == 103
    tries.clear()
    with pytest.raises(cesium.ConflictError):
        cesium.retry(attempt, attempts=3)
    with pytest.raises(ValueError, match="attempts is at least 1, not 0"):
        cesium.retry(attempt, attempts=0)
    with pytest.raises(ZeroDivisionError):
        cesium.retry(lambda: 1 // 0)


# --- who waits ------------------------------------------------------------------------------------


def test_writers_wait_for_the_turn(store: Any) -> None:
    writes = [
        lambda: store.put(101, 1), lambda: store.put_many([103], [1]),
        lambda: store.bulk_load([105], [1]), lambda: store.delete_range(200, 300),
        lambda: store.setdefault(107, 1), lambda: store.increment(109),
        lambda: store.delete(500), lambda: store.clear,
    ]  # fmt: skip
    began, done = threading.Semaphore(0), threading.Semaphore(0)

    def write(call: Any) -> None:
        began.release()
        call()
        done.release()

    with store.transaction() as txn:
        threads = [in_thread(lambda call=call: write(call)) for call in writes[:-1]]
        for _ in threads:
            began.acquire()
        assert txn.get(101) is None and len(txn) == 50
        store.checkpoint()  # no commit: it need not wait
        txn[101] = txn.get(101, 0) + 10
        assert not done.acquire(blocking=False)
        assert len(store) == 50
    for thread in threads:
        thread.join()
    assert store[103] == store[105] == store[107] == store[109] == 1
    assert store[101] in (1, 10)


def test_a_write_past_ones_own_transaction_is_refused(store: Any) -> None:
    with store.transaction() as txn:
        for call in (
            lambda: store.put(1, 1), lambda: store.bulk_load([1], [1]), store.clear,
            lambda: store.increment(1), lambda: store.transaction().__enter__(),
        ):  # fmt: skip
            with pytest.raises(cesium.Error, match="write through the transaction"):
                call()
        assert store[2] == 2 and store.get(1) is None  # reads are welcome
        with store.transaction(optimistic=True) as other:
            assert other[2] == 2
        txn[1] = 1
    assert store[1] == 1


def test_one_that_is_dropped_gives_its_turn_back(store: Any) -> None:
    def begun() -> Iterator[None]:
        with store.transaction() as txn:
            txn[1] = 1
            yield

    rows = begun()
    next(rows)
    del rows
    txn = store.transaction().__enter__()
    txn[1] = 1
    del txn
    gc.collect()
    store[3] = 3
    assert 1 not in store


INTERRUPTED = """
import random, signal, sys, threading, time, cesium
store = cesium.open(":memory:", key="u8", value="i8")
rng = random.Random(int(sys.argv[1]))
txn = None
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
rounds = interrupted = 0
while interrupted < 1500:
    rounds += 1
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 60e-6))
        while True:
            with store.transaction(rng.random() < 0.3) as txn:  # a name that keeps it
                txn[rng.randrange(9)] = rounds
                txn.get(rng.randrange(9))
    except KeyboardInterrupt:
        interrupted += 1
    except cesium.ConflictError:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    store.put(100, rounds)  # Error if the turn is still taken by this thread
    with store.transaction() as other:
        other[101] = rounds
print("done", flush=True)
"""


def test_interrupts_at_any_moment_leave_the_turn_free() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "5"], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "done\n", done.stderr[-2000:]
    assert "Exception ignored" not in done.stderr


def test_an_interrupt_ends_the_wait_for_the_turn(store: Any) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: Any) -> None:
        raise Interrupted

    waiting, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction():
            waiting.set()
            go_on.wait()

    thread = in_thread(hold)
    waiting.wait()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for call in (lambda: store.transaction().__enter__(), lambda: store.put(1, 1)):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            with pytest.raises(Interrupted):
                call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        go_on.set()
    thread.join()
    with store.transaction() as txn:
        txn[1] = 1
    assert store[1] == 1


class Ends:
    """A key, or a value, that ends the transaction while it is encoded."""

    def __init__(self, end: Any) -> None:
        self.end = end

    def __index__(self) -> int:
        self.end()
        return 5


@BOTH
def test_calls_that_it_ends_in_the_midst_of(store: Any, optimistic: bool) -> None:
    for call in (
        lambda txn, key: txn.get(key), lambda txn, key: key in txn,
        lambda txn, key: txn.put(key, 1), lambda txn, key: txn.put(1, key),
        lambda txn, key: txn.delete(key),
        lambda txn, key: txn.range(key, None).arrays(), lambda txn, key: txn.floor(key),
        lambda txn, key: txn.delete_range(key, None),
    ):  # fmt: skip
        for end in ("rollback", "commit"):
            with store.transaction(optimistic) as txn:
                txn[4] = 4
                with pytest.raises(cesium.ClosedError):
                    call(txn, Ends(getattr(txn, end)))
    store[1] = 1


@BOTH
def test_a_thread_that_writes_while_it_is_committed(store: Any, optimistic: bool) -> None:
    """What `put` has taken is committed, or refused."""
    for number in range(200):
        taken: list[int] = []
        with store.transaction(optimistic) as txn:
            txn[1000] = number

            def write(txn: Any = txn, taken: list[int] = taken) -> None:
                for key in range(2000, 100000):
                    try:
                        txn[key] = 1
                    except cesium.ClosedError:
                        return
                    taken.append(key)

            thread = in_thread(write)
            while len(taken) < number % 20:
                pass
            txn.commit()
            thread.join()
        assert store.range(2000, None).keys().arrays().tolist() == taken
        store.delete_range(2000, None)


def test_a_transaction_is_used_once() -> None:
    store = cesium.open(":memory:", key="u8", value="i8")
    with (txn := store.transaction()):
        txn[1] = 1
    with pytest.raises(cesium.Error, match="used once"), txn:
        pass
    assert txn.closed and dict(store) == {1: 1}


def test_transactions_take_turns(store: Any) -> None:
    def add() -> None:
        for _ in range(50):
            with store.transaction() as txn:
                txn[2] += 1

    def add_optimistically() -> None:
        def once() -> None:
            with store.transaction(optimistic=True) as txn:
                txn[2] += 1

        for _ in range(50):
            cesium.retry(once, attempts=100_000)

    threads = [in_thread(add) for _ in range(2)] + [in_thread(add_optimistically) for _ in range(2)]
    for thread in threads:
        thread.join()
    assert store[2] == 2 + 200


@BOTH
def test_closing_the_store_ends_it(tmp_path: Path, optimistic: bool) -> None:
    store = cesium.open(tmp_path / "s", key="u8", value="i8")
    with pytest.raises(cesium.ClosedError), store.transaction(optimistic) as txn:
        txn[1] = 1
        store.close()
        txn[2] = 2
    with cesium.open(tmp_path / "s") as store:
        assert len(store) == 0
        with pytest.raises(cesium.ClosedError), store.transaction(optimistic) as txn:
            txn[1] = 1
            store.close()
    with cesium.open(tmp_path / "s") as store:
        assert len(store) == 0
        store[1] = 1


# --- update_many ----------------------------------------------------------------------------------


def test_update_many(store: Any) -> None:
    commit = store.update_many(np.arange(0, 6, dtype="u8"), np.add, 100)
    assert commit == (store.sequence, "process", 6)
    assert [store[key] for key in range(6)] == [100, 100, 102, 100, 104, 100]
    store.update_many([0, 2], lambda values: values * 2)
    store.update_many([200, 202], np.multiply, 3, default=7, durability="sync")
    assert (store[0], store[2], store[200]) == (200, 204, 21)
    with store.transaction() as txn:
        txn.update_many([0], np.negative)
        assert txn[0] == -200 and store[0] == 200
    before = dict(store)
    with pytest.raises(ValueError, match="each key once; that of row 2 came before"):
        store.update_many([1, 2, 1], np.add, 1)
    with pytest.raises(TypeError, match="a function or a ufunc, not 5"):
        store.update_many([1], 5)
    with pytest.raises(ZeroDivisionError):
        store.update_many([1], lambda values: 1 // 0)
    with pytest.raises(cesium.SchemaError):
        store.update_many([1, 2], lambda values: values[:1])
    assert dict(store) == before
    store[1] = 1  # nobody has the turn


def test_update_many_of_texts() -> None:
    store = cesium.open(":memory:", key="str", value="bytes")
    store.update({"a": b"1", "b": b"2"})
    store.update_many(["a", "b", "c"], lambda values: [value + b"!" for value in values])
    assert dict(store.items()) == {"a": b"1!", "b": b"2!", "c": b"!"}
    with pytest.raises(ValueError, match="row 1 came before"):
        store.update_many(["a", "a"], list)


# --- refusals -------------------------------------------------------------------------------------


def test_wrong_input_changes_nothing(store: Any) -> None:
    before = dict(store)
    with store.transaction() as txn:
        for call, error in (
            (lambda: txn.put("x", 1), cesium.SchemaError),
            (lambda: txn.put(1, "x"), cesium.SchemaError),
            (lambda: txn.put(-1, 1), cesium.SchemaError),
            (lambda: txn.put_many([1, 2], [1]), cesium.SchemaError),
            (lambda: txn.put_many([-1], [1]), cesium.SchemaError),
            (lambda: txn.__setitem__(slice(1, 2), 1), TypeError),
            (lambda: txn.__delitem__(slice(1, 2, 3)), TypeError),
            (lambda: txn.__delitem__(1), KeyError),
            (lambda: txn.pop(1), KeyError),
            (lambda: txn.pop(1, 2, 3), TypeError),
            (lambda: txn[1], KeyError),
            (lambda: txn.view(2), TypeError),
            (lambda: txn.delete_range("x", None), cesium.SchemaError),
        ):
            with pytest.raises(error):
                call()
        del txn[50:None]
        txn.rollback()
    assert dict(store) == before
    for durability in ("soon", 3):
        with pytest.raises(ValueError, match="durability is one of"):
            store.transaction(durability=durability)


def test_values_that_are_too_large() -> None:
    store = cesium.open(":memory:", key="u8", value="bytes")
    with store.transaction() as txn:
        for call in (lambda: txn.put(1, bytes(17 << 20)),
                     lambda: txn.put_many([1], [bytes(17 << 20)])):  # fmt: skip
            with pytest.raises(cesium.LimitError, match="17,825,792"):
                call()
        txn[2] = bytes(16 << 20)
        assert len(txn.view(2)) == 16 << 20
    assert list(store) == [2]


def test_a_read_only_store_has_none(tmp_path: Path) -> None:
    cesium.open(tmp_path / "s", key="u8", value="i8").close()
    with cesium.open(tmp_path / "s", flag="r") as store, pytest.raises(cesium.ReadOnlyError):
        store.transaction()


def test_durability_of_a_commit(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="i8", durability="process") as store:
        with store.transaction(durability="sync") as txn:
            txn[1] = 1
        assert txn.committed == (1, "sync", 1) and store.durable_sequence == 1
        with store.transaction() as txn:
            txn[1] = 2
        assert txn.committed == (2, "process", 1) and store.durable_sequence == 1
        with store.transaction(durability="sync") as txn:
            assert txn[1] == 2
        assert txn.committed == (2, "sync", 0) and store.durable_sequence == 2


def test_a_poisoned_store_refuses_the_commit(tmp_path: Path) -> None:
    store = cesium.open(tmp_path / "s", key="u8", value="i8")
    with pytest.raises(cesium.PoisonedError), store.transaction() as txn:
        txn[1] = 1
        store._engine.core_engine.poisoned = OSError("the drive failed")
    assert 1 not in store
    with pytest.raises(cesium.PoisonedError), store.transaction():
        pass
    store.close()


def test_deletes_inside_leave_the_store_below_alone(tmp_path: Path) -> None:
    """A scan over a gap that only the transaction made must not sweep it for everybody."""
    with cesium.open(tmp_path / "s", key="u8", value="i8", durability="process") as store:
        store.bulk_load(np.arange(20_000, dtype="u8"), np.arange(20_000))
        for optimistic in (False, True):
            with store.transaction(optimistic) as txn:
                txn.delete_many(np.arange(100, 19_900, dtype="u8"))
                assert len(txn) == 200
                assert len(list(txn)) == 200 and txn.higher(99) == (19_900, 19_900)
                assert len(txn.range().arrays()[0]) == 200
                txn.rollback()
            assert len(store) == 20_000
            assert len(store.range().arrays()[0]) == 20_000


CHILD = """
import sys, threading, cesium
store = cesium.open(sys.argv[1], durability="process")
lock = threading.Lock()
def work(thread):
    optimistic = thread % 2 == 0
    for number in range(100000):
        def transfer():
            with store.transaction(optimistic) as txn:
                a, b = (thread * 7 + number) % 20, (thread * 3 + number * 5) % 20
                txn[a] -= 1
                txn[b] += 1
                txn[1000 + thread * 1000000 + number] = 1
        cesium.retry(transfer, attempts=100000)
        with lock:
            sys.stdout.write(f"{thread} {number}\\n")  # at once: a kill leaves whole lines
            sys.stdout.flush()
for thread in range(4):
    threading.Thread(target=work, args=(thread,)).start()
"""


@pytest.mark.crash
def test_killed_in_the_midst_of_concurrent_commits(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="i8") as store:
        store.put_many(np.arange(20, dtype="u8"), np.full(20, 100))
    for lines in (50, 400):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, tmp_path / "s"], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        said = [tuple(map(int, child.stdout.readline().split())) for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        said += [tuple(map(int, line.split())) for line in child.stdout.read().splitlines()]
        child.wait()
        with cesium.open(tmp_path / "s") as store:
            assert store.range(0, 20).arrays()[1].sum() == 2000
            rows = set(store.range(1000, None).keys())
            assert {1000 + thread * 1000000 + number for thread, number in said} <= rows
            for thread in range(4):  # each thread's commits, without a gap
                low = 1000 + thread * 1000000
                mine = [key - low for key in rows if low <= key < low + 1000000]
                assert sorted(mine) == list(range(len(mine)))
            assert store.verify().ok
            store.delete_range(1000, None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_refuses(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="i8") as store:
        with store.transaction() as txn:
            txn[1] = 1
            child = os.fork()
            if child == 0:
                try:
                    txn.commit()
                except cesium.ClosedError:
                    os._exit(7)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert store[1] == 1
