"""Uses of cesium as a type checker sees them: mypy --strict and pyright's strict mode read this.

What `assert_type` says is checked by both; where a mistake must be found, the comment that silences
it is itself an error when there is nothing to silence.  tests/unit/test_typing.py runs it as well.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, assert_type

import cesium

Prices = cesium.Store[int, float]  # at run time, too
Names = cesium.Range[str, bytes]


def plain(store: cesium.Store) -> None:
    """A store without parameters holds anything."""
    assert_type(store, "cesium.Store[Any, Any]")
    store["x"] = b"anything"
    assert_type(store.first(), tuple[Any, Any])


def mapping(store: cesium.Store[int, float]) -> None:
    store[1] = 2.5
    assert_type(store[1], float)
    assert_type(store.get(1), float | None)
    assert_type(store.get(1, 0.0), float)
    assert_type(store.get(1, "none"), float | str)
    assert_type(store.pop(1), float)
    assert_type(store.pop(1, None), float | None)
    assert_type(store.setdefault(1, 2.0), float)
    assert_type(list(store), list[int])
    assert_type(1 in store, bool)
    assert_type(len(store), int)
    assert_type(dict(store.items()), dict[int, float])
    store.update({3: 4.5})
    store.update([(3, 4.5)])
    del store[1]
    del store[1:2]
    store["one"] = 2.5  # type: ignore[index]
    store[1] = "two"  # type: ignore[assignment]


def order(store: cesium.Store[str, bytes]) -> None:
    assert_type(store.first(), tuple[str, bytes])
    assert_type(store.floor("a"), tuple[str, bytes] | None)
    assert_type(store["a":"b"], cesium.Range[str, bytes])
    assert_type(store.prefix("a").keys(), cesium.Range[str, bytes, str])
    for key, value in store["a":"b"]:
        assert_type(key, str)
        assert_type(value, bytes)
    assert_type(list(store.values()), list[bytes])
    assert_type(list(reversed(store.keys())), list[str])
    assert_type(store["a":"b"]["aa"], bytes)


def writes(store: cesium.Store[int, float]) -> None:
    assert_type(store.put(1, 2.0), int)
    assert_type(store.put_many([1], [2.0]), cesium.Commit)
    assert_type(store.bulk_load([1], [2.0], progress=print).rows, int)
    assert_type(store.compare_and_set(1, cesium.MISSING, 3.0), bool)
    assert_type(store.put_if_absent(1, 3.0), bool)
    assert_type(store.increment(1), float)


def moments(store: cesium.Store[int, float]) -> None:
    with store.snapshot() as snapshot:
        assert_type(snapshot, cesium.Snapshot[int, float])
        assert_type(snapshot[1], float)
    with store.transaction() as txn:
        assert_type(txn, cesium.Transaction[int, float])
        assert_type(txn.pop(1, None), float | None)
        txn[1] = 2.0
    table: cesium.Table[str, int] = store.table("names", key="str", value="i8")
    assert_type(table["a"], int)


def reports(store: cesium.Store[int, float]) -> None:
    assert_type(store.stats().estimated_rows, int)
    assert_type(store.verify().ok, bool)
    assert_type(store.path, str)


def opened() -> Iterator[cesium.Store[int, float]]:
    """What is opened is of any types, so it may be said once of which."""
    store: cesium.Store[int, float] = cesium.open(":memory:", key="i8", value="f8")
    with store as same:
        assert_type(same, cesium.Store[int, float])
        yield same


def total(prices: Mapping[str, float]) -> float:
    return sum(prices.values())


class Named(cesium.Store[str, float]):
    """A subclass says what it holds."""

    def best(self) -> str:
        return max(self, key=self.__getitem__)
