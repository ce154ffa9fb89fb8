"""Row by row: the pair that an iterator fills again is nobody else's."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import numpy as np
import pytest

import cesium

COUNT = 3000


@pytest.fixture
def store() -> Any:
    store = cesium.open(":memory:", key="u8", value="V3")
    values = np.array([b"%03d" % (number % 1000) for number in range(COUNT)]).view("V3")
    store.bulk_load(np.arange(COUNT, dtype="u8") << np.uint64(50), values)
    return store


def expected() -> list[tuple[int, bytes]]:
    return [(number << 50, b"%03d" % (number % 1000)) for number in range(COUNT)]


def test_pairs_that_are_kept_stay_what_they_were(store: Any) -> None:
    assert list(store.items()) == expected()
    assert [pair for pair in store.items()] == expected()  # noqa: C416
    every = [pair for index, pair in enumerate(store.items()) if index % 3 == 1]
    assert every == expected()[1::3]
    rows = iter(store.items())
    first = next(rows)
    rest = list(itertools.islice(rows, 5))
    assert [first, *rest] == expected()[:6]
    for before, after in itertools.pairwise(store.items()):
        assert before[0] < after[0]


def test_a_pair_that_nobody_keeps_is_filled_again(store: Any) -> None:
    """As zip does it: the promise behind the speed."""
    assert len({id(pair) for pair in store.items()}) < 5


def test_two_iterators_have_pairs_of_their_own(store: Any) -> None:
    for one, other in zip(store.items(), store.range(reverse=True), strict=True):
        assert one[0] + other[0] == (COUNT - 1) << 50


def test_what_codecs_decode_is_seen_by_the_collector() -> None:
    """A pair whose value leads back to its iterator is garbage that is found."""
    store: Any = cesium.open(":memory:", key="u8", value="json")
    store.put_many([1, 2, 3], [1, [1], [2]])
    rows = iter(store.items())
    for _ in range(2):
        next(rows)
        gc.collect()
    key, value = next(rows)
    value.append(rows)
    assert key == 3
    found = [held for held in gc.get_referrers(value) if type(held) is tuple]
    assert found == [(3, value)] or not found
    del found, rows, value
    before = gc.collect()
    assert before >= 1
    assert not [held for held in gc.get_objects() if type(held).__name__ == "RowIterator"]


@pytest.mark.parametrize("value", ["u8", "i8", "f8", "i4"])
def test_numbers_of_every_form(value: str) -> None:
    values = np.array([0, 1, 2**31 - 1, -1 if value != "u8" else 7, 5], "f8").astype(value)
    if value in ("u8", "i8"):
        values[4] = np.iinfo(value).max
        values[0] = np.iinfo(value).min
    keys = np.array([0, 1, 2**30, 2**63, 2**64 - 1], "u8")
    store = cesium.open(":memory:", key="u8", value=value)
    store.bulk_load(keys, values)
    assert list(store.items()) == list(zip(keys.tolist(), values.tolist(), strict=True))
    assert list(store.keys()) == keys.tolist() and list(store.values()) == values.tolist()
    assert {type(found) for found in store.values()} == {float if value == "f8" else int}
