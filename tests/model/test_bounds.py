"""Every bound, both ways: five keys, every pair of bounds, every inclusion, direction and limit.

The five keys lie in the memtable, in a tier-0 segment and in the base, with delete markers and
range-delete markers between them, so that the ends of a range fall on every kind of neighbour.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cesium
from cesium.opening import acquire

SLOTS_MAX = 4
LIMITS = (None, 0, 1, 2, 3)


class Form:
    """Five keys in order, and bounds: the keys, their gaps, and what lies outside.

    `gaps` are keys too and serve as decoys, which are stored and deleted again; `bounds` may also
    be values that are no keys: out of the domain, or partial tuples.
    """

    def __init__(
        self,
        spec: Any,
        keys: list[Any],
        gaps: list[Any],
        bounds: list[Any] | None = None,
        order: Callable[[Any], Any] = lambda key: key,
    ) -> None:
        self.spec = spec
        self.keys = keys
        self.gaps = gaps
        self.bounds = [None, *keys, *gaps, *(bounds or [])]
        self.order = order


def float_order(key: float) -> tuple[bool, float]:
    return (True, 0.0) if key != key else (False, key + 0.0)


def composite_order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of ("u1", "-str", "-i4") or its first parts: what follows a shorter text comes before it."""
    parts: list[Any] = list(key[:1])
    if len(key) > 1:
        parts.append((*(-ord(letter) for letter in key[1]), 1))
    if len(key) > 2:
        parts.append(-key[2])
    return tuple(parts)


FORMS = {
    "u8": Form("u8", [10, 20, 30, 40, 50], [5, 15, 25, 35, 45, 55], [-1, 2**64]),
    "u8 edges": Form("u8", [0, 1, 2**63, 2**64 - 2, 2**64 - 1], [2, 2**63 - 1], [-1, 2**64]),
    "i1": Form("i1", [-128, -1, 0, 1, 127], [-127, 2, 126], [-129, 128, -1000]),
    "f8": Form(
        "f8", [-float("inf"), -1.5, 0.0, float("inf"), float("nan")], [-2.0, -1.0, 1e300],
        [-0.0], order=float_order,
    ),
    "str": Form("str", ["", "a", "a\0", "ab", "b\U0010ffff"], ["\0", "a\0\0", "aa", "b", "c"]),
    "bytes": Form(
        "bytes", [b"", b"\0", b"a" * 600, b"\xff", b"\xff\xff"],
        [b"\0\0", b"a" * 599, b"a" * 601, b"\xff\0", b"\xff\xff\xff"],
    ),
    "composite": Form(
        ("u1", "-str", "-i4"),
        [(1, "b", 0), (1, "a", 5), (1, "a", 3), (2, "ab", 0), (2, "", -1)],
        [(0, "z", 0), (1, "a", 4), (1, "", 7), (2, "b", 0), (2, "a", 0), (3, "", 0)],
        [(0,), (1,), (2,), (3,), (1, "b"), (1, "a"), (1, "ab"), (2, "")],
        order=composite_order,
    ),
}  # fmt: skip


def value_of(form: Form, key: Any) -> float:
    return float(next(i for i, k in enumerate(form.keys) if form.order(k) == form.order(key)))


# --- where the rows lie ---------------------------------------------------------------------------


def spread(store: Any, form: Form) -> None:
    """Each tier holds a part of the five; decoys in the base are deleted above, one by one."""
    for index, key in enumerate(form.keys):
        if index % 3 == 0:
            store[key] = float(index)
    for gap in form.gaps:
        store[gap] = -1.0
    store.compact()
    for index, key in enumerate(form.keys):
        if index % 3 == 1:
            store[key] = float(index)
    for gap in form.gaps[::2]:
        store.delete(gap)
    store.checkpoint()
    for index, key in enumerate(form.keys):
        if index % 3 == 2:
            store[key] = float(index)
    for gap in form.gaps[1::2]:
        del store[gap]


def shadowed(store: Any, form: Form) -> None:
    """All are everywhere, and only the newest counts."""
    for wrong, finish in ((-1.0, store.compact), (-2.0, store.checkpoint)):
        for key in form.keys:
            store[key] = wrong
        finish()
    for index, key in enumerate(form.keys):
        store[key] = float(index)


def reborn(store: Any, form: Form) -> None:
    """Range-deletes at two levels over what is below, and keys put again above them."""
    everything = sorted([*form.keys, *form.gaps], key=form.order)
    for key in everything:
        store[key] = -1.0
    store.compact()
    store.delete_range(None, form.keys[2])
    store.delete_range(form.keys[3], None)
    for index, key in enumerate(form.keys[:2]):
        store[key] = float(index)
    store.checkpoint()
    for key in form.gaps:
        store.delete(key)
    store.delete_range(form.keys[2], form.keys[4])
    for index in (2, 3, 4):
        store[form.keys[index]] = float(index)


LAYOUTS = {"spread": spread, "shadowed": shadowed, "reborn": reborn}


def filled(form: Form, layout: str) -> Any:
    options = cesium.Options(form.spec, "f8", durability="process")
    store = cesium.Store(acquire(":memory:", options, SLOTS_MAX), options)
    LAYOUTS[layout](store, form)
    stats = store.stats()
    assert stats.base_segments and stats.newer_sources == 1 and stats.memtable_entries
    return store


# --- what each consumer gives ---------------------------------------------------------------------


def plain_keys(form: Form, keys: Any) -> list[Any]:
    if isinstance(keys, tuple):
        return [form.order(key) for key in zip(*(list(part) for part in keys))]
    return [form.order(key) for key in (keys.tolist() if isinstance(keys, np.ndarray) else keys)]


def plain_arrays(form: Form, arrays: Any) -> list[tuple[Any, float]]:
    return list(zip(plain_keys(form, arrays[0]), arrays[1].tolist(), strict=True))


def compare(form: Form, view: Any, expected: list[tuple[Any, float]], limited: bool) -> None:
    orders = [order for order, _ in expected]
    values = [value for _, value in expected]
    assert [(form.order(key), value) for key, value in view] == expected
    assert [(form.order(key), value) for key, value in reversed(view)] == expected[::-1]
    assert len(view) == len(expected)
    assert bool(view) == bool(expected)
    assert plain_arrays(form, view.arrays()) == expected
    pieces = [plain_arrays(form, piece) for piece in view.batches(2)]
    assert [pair for piece in pieces for pair in piece] == expected
    assert all(len(piece) == 2 for piece in pieces[:-1])
    if limited:
        return
    assert [form.order(key) for key in view.keys()] == orders
    assert list(view.values()) == values
    assert [form.order(key) for key in reversed(view.keys())] == orders[::-1]
    assert plain_keys(form, view.keys().arrays()) == orders
    assert view.values().arrays().tolist() == values


def is_above(form: Form, order: Any, bound: Any, inclusive: bool) -> bool:
    """Whether a key lies above a lower bound; a partial tuple stands for all its extensions."""
    if bound is None:
        return True
    limit = form.order(bound)
    if isinstance(order, tuple) and isinstance(bound, tuple):
        order = order[: len(limit)]
    return order >= limit if inclusive else order > limit


def is_below(form: Form, order: Any, bound: Any, inclusive: bool) -> bool:
    return bound is None or not is_above(form, order, bound, not inclusive)


def wanted(form: Form, lo: Any, hi: Any, inclusive: tuple[bool, bool]) -> list[tuple[Any, float]]:
    return [
        (form.order(key), float(index))
        for index, key in enumerate(form.keys)
        if is_above(form, form.order(key), lo, inclusive[0])
        and is_below(form, form.order(key), hi, inclusive[1])
    ]


CASES = [
    *itertools.product(["u8", "str"], LAYOUTS),
    *itertools.product(["u8 edges", "i1", "f8", "bytes"], ["spread"]),
    *itertools.product(["composite"], ["spread", "reborn"]),
]


@pytest.mark.parametrize(("name", "layout"), CASES, ids=map("-".join, CASES))
def test_every_range(name: str, layout: str) -> None:
    form = FORMS[name]
    store = filled(form, layout)
    for lo, hi in itertools.product(form.bounds, repeat=2):
        for inclusive in itertools.product((False, True), repeat=2):
            rows = wanted(form, lo, hi, inclusive)
            for reverse, limit in itertools.product((False, True), LIMITS):
                view = store.range(lo, hi, inclusive, reverse, limit)
                compare(form, view, (rows[::-1] if reverse else rows)[:limit], limit is not None)
        compare(form, store[lo:hi], wanted(form, lo, hi, (True, False)), True)


@pytest.mark.parametrize(("name", "layout"), CASES, ids=map("-".join, CASES))
def test_every_neighbour(name: str, layout: str) -> None:
    form = FORMS[name]
    store = filled(form, layout)

    def plain(pair: Any) -> Any:
        return None if pair is None else (form.order(pair[0]), pair[1])

    for bound in form.bounds[1:]:
        up_to = wanted(form, None, bound, (True, True))
        below = wanted(form, None, bound, (True, False))
        from_here = wanted(form, bound, None, (True, True))
        above = wanted(form, bound, None, (False, True))
        assert plain(store.floor(bound)) == (up_to[-1] if up_to else None)
        assert plain(store.lower(bound)) == (below[-1] if below else None)
        assert plain(store.ceiling(bound)) == (from_here[0] if from_here else None)
        assert plain(store.higher(bound)) == (above[0] if above else None)
    assert plain(store.first()) == wanted(form, None, None, (True, True))[0]
    assert plain(store.last()) == wanted(form, None, None, (True, True))[-1]
    assert [form.order(key) for key in store] == [form.order(key) for key in form.keys]
    assert [form.order(key) for key in reversed(store)] == [
        form.order(key) for key in form.keys[::-1]
    ]
    assert len(store) == 5


@pytest.mark.parametrize("name", FORMS)
def test_every_range_delete(name: str) -> None:
    """delete_range takes what the same range shows, wherever it lies."""
    form = FORMS[name]
    for lo, hi in itertools.product(form.bounds, repeat=2):
        store = filled(form, "spread")
        gone = wanted(form, lo, hi, (True, False))
        rows = [row for row in wanted(form, None, None, (True, True)) if row not in gone]
        store.delete_range(lo, hi)
        compare(form, store.range(), rows, True)
        store.compact()
        compare(form, store.range(), rows, True)


@pytest.mark.parametrize("text", ["", "a", "a\0", "ab", "b", "z"])
def test_every_prefix(text: str) -> None:
    form = FORMS["str"]
    store = filled(form, "spread")
    rows = [row for row in wanted(form, None, None, (True, True)) if row[0].startswith(text)]
    compare(form, store.prefix(text), rows, False)


def test_every_prefix_of_tuples() -> None:
    form = FORMS["composite"]
    store = filled(form, "spread")
    for bound in form.bounds[1:]:
        order = form.order(bound)
        rows = [
            row for row in wanted(form, None, None, (True, True)) if row[0][: len(order)] == order
        ]
        compare(form, store.prefix(bound), rows, False)
    for first, piece in itertools.product((1, 2, 3), ("", "a", "ab", "b", "c")):
        rows = [
            (form.order(key), float(index))
            for index, key in enumerate(form.keys)
            if key[0] == first and key[1].startswith(piece)
        ]
        compare(form, store.prefix((first, piece), partial=True), rows, False)
