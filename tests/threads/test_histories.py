"""Random concurrent transactions, and the judge of their history.

Threads append to lists and read them, in transactions that take the turn, in optimistic ones, and
by single atomic calls beside them, while memtables are flushed and merged.  Every history must be
serializable, in an order that agrees with time.  CESIUM_THREAD_ROUNDS scales.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cesium
from histories import Append, Read, Transaction, anomalies
from threads.operations import run_together

SCALE = float(os.environ.get("CESIUM_THREAD_ROUNDS", "1"))
KEYS = 6
THREADS = 4
ROUNDS = max(5, int(60 * SCALE))
KINDS = {"turn": (False,), "optimistic": (True,), "mixed": (False, True)}


class RolledBack(Exception):
    pass


def attempt(store: Any, rng: random.Random, numbers: Any, optimistic: bool) -> Transaction:
    """One transaction, as it turned out."""
    done = Transaction(began=time.perf_counter(), committed=False)
    try:
        with store.transaction(optimistic) as transaction:
            for _ in range(rng.randrange(1, 6)):
                one_step(transaction, rng, numbers, done)
            if rng.random() < 0.1:
                raise RolledBack
        done.committed = True
    except (cesium.ConflictError, RolledBack):
        pass
    done.ended = time.perf_counter()
    return done


def one_step(transaction: Any, rng: random.Random, numbers: Any, done: Transaction) -> None:
    key = rng.randrange(KEYS)
    kind = rng.randrange(4)
    if kind == 0:  # a range counts as read as each of its keys
        rows = dict(transaction.range(0, key + 1))
        done.operations += [Read(n, tuple(rows.get(n, ()))) for n in range(key + 1)]
    elif kind == 1:
        values, found = transaction.get_many([key, (key + 1) % KEYS])
        for n, value, there in zip((key, (key + 1) % KEYS), values, found, strict=True):
            done.operations.append(Read(n, tuple(value) if there else ()))
    else:
        before = transaction.get(key, [])
        done.operations.append(Read(key, tuple(before)))
        if kind == 2:
            number = next(numbers)
            transaction[key] = [*before, number]
            done.operations.append(Append(key, number))


def single(store: Any, rng: random.Random, numbers: Any) -> Transaction:
    """An atomic call without a transaction: of a known value, or of nothing."""
    done = Transaction(began=time.perf_counter())
    key, number = rng.randrange(KEYS), next(numbers)
    before = store.get(key, cesium.MISSING)
    values = [] if before is cesium.MISSING else before
    done.committed = store.compare_and_set(key, before, [*values, number])
    done.operations = [Read(key, tuple(values)), Append(key, number)]
    done.ended = time.perf_counter()
    return done


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_histories_are_serializable(tmp_path: Path, kind: str, seed: int) -> None:
    store = cesium.open(tmp_path / "s", key="u8", value="json", durability="process")
    store.core.memtable_limit_bytes = 20_000
    numbers = itertools.count(1)
    history: list[Transaction] = []
    lock = threading.Lock()

    def body(thread: int) -> None:
        rng = random.Random(f"{seed} {thread}")
        for _ in range(ROUNDS):
            if rng.random() < 0.15:
                done = single(store, rng, numbers)
            else:
                done = attempt(store, rng, numbers, rng.choice(KINDS[kind]))
            with lock:
                history.append(done)
            if rng.random() < 0.02:
                store.checkpoint()

    run_together(*[lambda thread=thread: body(thread) for thread in range(THREADS)])
    final = {key: tuple(value) for key, value in store.items()}
    assert anomalies(history, final) == set()
    assert sum(done.committed for done in history) > len(history) // 4
    if kind == "turn":  # it never fails for the sake of others
        assert not [done for done in history if not done.committed and len(done.operations) > 30]
    store.close()
    with cesium.open(tmp_path / "s") as again:
        assert {key: tuple(value) for key, value in again.items()} == final
        assert again.verify().ok


def test_the_judge_would_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps with a commit that has nothing to look at."""
    monkeypatch.setattr(
        "cesium.transactions.Transaction.get",
        lambda self, key, default: dict(store.items()).get(key, default),
        raising=False,
    )
    store = cesium.open(":memory:", key="u8", value="json")
    numbers = itertools.count(1)
    found: set[str] = set()
    for seed in range(50):
        store.clear()
        first = store.transaction(optimistic=True)
        rng = random.Random(seed)
        with first as outer:
            done = Transaction(began=0.0, ended=1.0)
            before = outer.get(0, [])
            inner = attempt(store, rng, numbers, True)
            number = next(numbers)
            outer[0] = [*before, number]
            done.operations = [Read(0, tuple(before)), Append(0, number)]
        inner.began, inner.ended = 0.0, 1.0
        final = {key: tuple(value) for key, value in store.items()}
        found |= anomalies([done, inner], final)
    assert "lost update" in found
