"""Interval sets against a model that is a set of small keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cesium._interval import Intervals, held_bytes

DOMAIN = 24
END = DOMAIN + 4  # beyond every key that is asked for; stands for "unbounded" in the model

# Both forms of the same small domain.  The variable form keeps its order: common prefixes, heads that
# are equal (embedded zeros), keys longer than a head.
FIXED = [i * 0x0101_0101_0101_0101 for i in range(END)]
VARIABLE = sorted(
    {b"", b"\0", b"\0\0", b"a", b"a\0", b"a\0\0", b"ab"}
    | {b"prefix--" + bytes([i // 4]) * (i % 4) for i in range(12)}
    | {b"z" * n for n in range(1, 30)}
)[:END]

ranges = st.lists(
    st.tuples(
        st.integers(0, DOMAIN - 1), st.one_of(st.integers(0, DOMAIN - 1), st.none())
    ),
    max_size=25,
)


def expected_items(covered: set[int], keys: list) -> list:
    """Runs of covered indices as (lower, upper or None): adjacent ones coalesce."""
    items = []
    index = 0
    while index < END:
        if index not in covered:
            index += 1
            continue
        start = index
        while index in covered:
            index += 1
        items.append((keys[start], None if index == END else keys[index]))
    return items


@pytest.mark.parametrize("keys", [FIXED, VARIABLE], ids=["fixed", "variable"])
@given(ranges)
def test_against_a_set_of_keys(keys, added):
    intervals = Intervals(keys is FIXED)
    covered: set[int] = set()
    for lower, upper in added:
        intervals.add(keys[lower], None if upper is None else keys[upper])
        covered |= set(range(lower, END if upper is None else upper))
        items = expected_items(covered, keys)
        assert intervals.items() == items
    for index in range(END):
        key = keys[index]
        holding = [i for i in intervals.items() if i[0] <= key and before(key, i[1])]
        assert intervals.find(key) == (holding[0] if holding else None)
        assert (intervals.find(key) is not None) == (index in covered)
        after = [i for i in intervals.items() if before(key, i[1])]
        assert intervals.at_or_after(key) == (after[0] if after else None)
        at = [i for i in intervals.items() if i[0] <= key]
        assert intervals.at_or_before(key) == (at[-1] if at else None)


def before(key, upper) -> bool:
    return upper is None or key < upper


@pytest.mark.parametrize("keys", [FIXED, VARIABLE], ids=["fixed", "variable"])
@given(ranges, ranges)
def test_a_copy_is_independent_and_nothing_leaks(keys, first, second):
    held = held_bytes()
    intervals = Intervals(keys is FIXED)
    for lower, upper in first:
        intervals.add(keys[lower], None if upper is None else keys[upper])
    frozen = intervals.items()
    copy = intervals.copy()
    assert copy.items() == frozen
    for lower, upper in second:
        copy.add(keys[lower], None if upper is None else keys[upper])
    assert intervals.items() == frozen
    assert held_bytes() - held == intervals.bytes + copy.bytes
    del intervals, copy
    assert held_bytes() == held


def test_an_empty_or_inverted_interval_changes_nothing():
    intervals = Intervals(False)
    intervals.add(b"b", b"b")
    intervals.add(b"c", b"b")
    intervals.add(b"", b"")
    assert intervals.items() == []
    assert intervals.find(b"b") is None
    assert intervals.at_or_after(b"") is None
    assert intervals.at_or_before(b"z") is None


def test_touching_intervals_coalesce_and_gaps_stay():
    intervals = Intervals(True)
    intervals.add(10, 20)
    intervals.add(30, 40)
    intervals.add(20, 29)
    assert intervals.items() == [(10, 29), (30, 40)]
    intervals.add(29, 30)
    assert intervals.items() == [(10, 40)]
    intervals.add(5, None)
    assert intervals.items() == [(5, None)]
    assert intervals.find(2**64 - 1) == (5, None)


def test_a_wrong_key_is_refused():
    with pytest.raises(TypeError):
        Intervals(False).add("text", None)
    with pytest.raises(OverflowError):
        Intervals(True).add(-1, None)
