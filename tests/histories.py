"""Judging histories of concurrent transactions: are they serializable, and if not, what is wrong?

The method is Elle's (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental
Observations", VLDB 2020), for lists that are appended to.  Every value is appended once, so a list
that was read says which appends came before, in which order.  From that follow, for each key, the
order of its versions, and between transactions the dependencies:

- ww: appended right behind what the other appended,
- wr: read the version that the other made,
- rw: read the version that the other appended to next.

With `real time`: ended before the other began.  A cycle of them is an anomaly (Adya, "Weak
Consistency", 1999).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Append(NamedTuple):
    key: int
    value: int


class Read(NamedTuple):
    key: int
    values: tuple[int, ...]


Operation = Append | Read


def of_others(read: Read, own: int) -> tuple[int, ...]:
    """What a read saw without the reader's own appends, so many, at its end."""
    return read.values[: max(len(read.values) - own, 0)]


WW, WR, RW, TIME = "ww", "wr", "rw", "real time"


@dataclass(eq=False)
class Transaction:
    """What one transaction did, in order; began and ended on one clock."""

    operations: list[Operation] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0
    committed: bool = True

    def appended(self, key: int) -> list[int]:
        return [op.value for op in self.operations if isinstance(op, Append) and op.key == key]


def anomalies(history: Iterable[Transaction], final: dict[int, tuple[int, ...]]) -> set[str]:
    """The names of what is wrong with a history; `final` is what was there in the end."""
    transactions = list(history)
    found: set[str] = set()
    writers = {
        (op.key, op.value): transaction
        for transaction in transactions
        for op in transaction.operations
        if isinstance(op, Append)
    }
    done = [transaction for transaction in transactions if transaction.committed]
    for transaction in done:
        found |= wrong_reads(transaction, writers)
    orders, torn = version_orders(done, final)
    found |= torn
    for (key, value), writer in writers.items():
        if writer.committed and value not in orders.get(key, ()):
            found.add("lost update")
        if not writer.committed and value in final.get(key, ()):
            found.add("aborted write")
    return found | cycles(dependencies(done, orders, writers))


def wrong_reads(transaction: Transaction, writers: dict[tuple[int, int], Transaction]) -> set[str]:
    """What a single transaction saw that it must not have seen."""
    found = set()
    own: dict[int, list[int]] = defaultdict(list)
    before: dict[int, tuple[int, ...]] = {}  # read, without its own appends
    for op in transaction.operations:
        if isinstance(op, Append):
            own[op.key].append(op.value)
            continue
        mine = tuple(own[op.key])
        if mine and op.values[-len(mine) :] != mine:
            found.add("own write not read")
        others = of_others(op, len(mine))
        if before.setdefault(op.key, others) != others:
            found.add("non-repeatable read")
        if len(set(op.values)) < len(op.values):
            found.add("value read twice")
        for value in others:
            writer = writers.get((op.key, value))
            if writer is None or not writer.committed:
                found.add("dirty read")  # of what was rolled back, or never written
        last = writers.get((op.key, others[-1])) if others else None
        if last not in (None, transaction) and last.appended(op.key)[-1] != others[-1]:
            found.add("intermediate read")
    return found


def version_orders(
    done: list[Transaction], final: dict[int, tuple[int, ...]]
) -> tuple[dict[int, tuple[int, ...]], set[str]]:
    """For each key its appends in order: the final list, of which every read is a beginning."""
    found = set()
    orders = dict(final)
    for transaction in done:
        own: dict[int, int] = defaultdict(int)
        for op in transaction.operations:
            if isinstance(op, Append):
                own[op.key] += 1
                continue
            others = of_others(op, own[op.key])
            if others != orders.get(op.key, ())[: len(others)]:
                found.add("incompatible order")
    return orders, found


Edges = dict[Transaction, dict[Transaction, set[str]]]


def dependencies(
    done: list[Transaction],
    orders: dict[int, tuple[int, ...]],
    writers: dict[tuple[int, int], Transaction],
) -> Edges:
    """Which transaction must come before which, and why."""
    edges: Edges = {transaction: {} for transaction in done}

    def add(first: Transaction | None, then: Transaction | None, why: str) -> None:
        if first in edges and then in edges and first is not then:
            edges[first].setdefault(then, set()).add(why)

    for key, order in orders.items():
        for value, after in itertools.pairwise(order):
            add(writers.get((key, value)), writers.get((key, after)), WW)
    for transaction in done:
        own: dict[int, int] = defaultdict(int)
        for op in transaction.operations:
            if isinstance(op, Append):
                own[op.key] += 1
                continue
            others = of_others(op, own[op.key])
            order = orders.get(op.key, ())
            if others:
                add(writers.get((op.key, others[-1])), transaction, WR)
            after = [
                value
                for value in order[len(others) :]
                if writers.get((op.key, value)) is not transaction
            ]
            if after:
                add(transaction, writers.get((op.key, after[0])), RW)
    for first in done:
        for then in done:
            if first.ended < then.began:
                add(first, then, TIME)
    return edges


def cycles(edges: Edges) -> set[str]:
    """The names of the worst cycle in each knot of dependencies."""
    found = set()
    for kinds, name in (
        ({WW}, "dirty write"),  # G0
        ({WW, WR}, "circular information flow"),  # G1c
        ({WW, WR, RW}, "anti-dependency cycle"),  # G-single, or G2: read skew, write skew
        ({WW, WR, RW, TIME}, "stale read"),  # serializable, but not in the order of time
    ):
        part = {
            first: [then for then, whys in thens.items() if whys & kinds]
            for first, thens in edges.items()
        }
        if has_cycle(part):
            found.add(name)
            break
    return found


def has_cycle(edges: dict[Any, list[Any]]) -> bool:
    """Whether a graph goes round somewhere: what is left when sources are taken away, again and
    again (Kahn's topological sort)."""
    into = dict.fromkeys(edges, 0)
    for thens in edges.values():
        for then in thens:
            into[then] += 1
    ready = [node for node, count in into.items() if not count]
    gone = 0
    while ready:
        gone += 1
        for then in edges[ready.pop()]:
            into[then] -= 1
            if not into[then]:
                ready.append(then)
    return gone < len(edges)
