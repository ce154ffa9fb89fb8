"""The judge of histories finds each anomaly by its name, and nothing where nothing is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from histories import Append, Read, Transaction, anomalies


def transaction(*operations: Any, committed: bool = True, at: float = 0.0) -> Transaction:
    """By default all at one time; `at` puts them behind one another."""
    return Transaction(list(operations), at, at + 0.5, committed)


X, Y = 1, 2
CASES: dict[str, tuple[list[Transaction], dict[int, tuple[int, ...]]]] = {
    "dirty write": (
        [transaction(Append(X, 1), Append(Y, 1)), transaction(Append(X, 2), Append(Y, 2))],
        {X: (1, 2), Y: (2, 1)},
    ),
    "dirty read": (
        [transaction(Append(X, 1), committed=False), transaction(Read(X, (1,)))],
        {},
    ),
    "aborted write": ([transaction(Append(X, 1), committed=False)], {X: (1,)}),
    "intermediate read": (
        [transaction(Append(X, 1), Append(X, 2)), transaction(Read(X, (1,)))],
        {X: (1, 2)},
    ),
    "circular information flow": (
        [transaction(Append(X, 1), Read(Y, (2,))), transaction(Append(Y, 2), Read(X, (1,)))],
        {X: (1,), Y: (2,)},
    ),
    "lost update": (
        [transaction(Read(X, ()), Append(X, 1)), transaction(Read(X, ()), Append(X, 2))],
        {X: (2,)},
    ),
    "non-repeatable read": (
        [transaction(Append(X, 1)), transaction(Read(X, ()), Read(X, (1,)))],
        {X: (1,)},
    ),
    "own write not read": ([transaction(Append(X, 1), Read(X, ()))], {X: (1,)}),
    "value read twice": ([transaction(Append(X, 1)), transaction(Read(X, (1, 1)))], {X: (1,)}),
    "incompatible order": (
        [transaction(Append(X, 1)), transaction(Append(X, 2)), transaction(Read(X, (2,)))],
        {X: (1, 2)},
    ),
    # Read skew: one of them before the other's commit, one after.
    "anti-dependency cycle": (
        [transaction(Append(X, 1), Append(Y, 1)), transaction(Read(X, (1,)), Read(Y, ()))],
        {X: (1,), Y: (1,)},
    ),
    "stale read": (
        [transaction(Append(X, 1), at=1.0), transaction(Read(X, ()), at=2.0)],
        {X: (1,)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_anomaly_is_found(name: str) -> None:
    assert name in anomalies(*CASES[name])


def test_write_skew_is_found() -> None:
    skew = [
        transaction(Read(X, ()), Read(Y, ()), Append(X, 1)),
        transaction(Read(X, ()), Read(Y, ()), Append(Y, 2)),
    ]
    assert anomalies(skew, {X: (1,), Y: (2,)}) == {"anti-dependency cycle"}


def test_a_long_cycle_is_found() -> None:
    ring = [transaction(Read(key, ()), Append((key + 1) % 9, 1)) for key in range(9)]
    assert anomalies(ring, dict.fromkeys(range(9), (1,))) == {"anti-dependency cycle"}


def test_a_serial_history_is_right() -> None:
    history = []
    lists: dict[int, tuple[int, ...]] = {}
    for number in range(200):
        key, other = number % 7, number * 3 % 5
        reads = [Read(key, lists.get(key, ())), Read(other, lists.get(other, ()))]
        if number % 11 == 5:
            history.append(transaction(*reads, Append(key, number), committed=False, at=number))
            continue
        lists[key] = (*lists.get(key, ()), number)
        history.append(
            transaction(*reads, Append(key, number), Read(key, lists[key]), at=float(number))
        )
    assert anomalies(history, lists) == set()
