"""Gaps between rows: many delete markers become one range-delete marker, and nobody sees."""

from __future__ import annotations

import random
import shutil
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium.opening import acquire
from cesium.options import Options
from cesium.store import Store

ROWS = 20_000
KEYS = np.arange(ROWS, dtype=np.uint64) * 3
SWEEP_MARKERS = 128  # of cesium/_sweep.pxd


def filled(path: Path | str = ":memory:", **options: Any) -> Store:
    store = cesium.open(path, key="u8", value="f8", **options)
    store.bulk_load(KEYS, KEYS.astype(float))
    return store


def markers(store: Store) -> list[tuple[int, int | None]]:
    """The range-delete markers of the live memtable."""
    live = store.core.pin_live()
    return [] if live is None else live.markers()


def entries(store: Store) -> int:
    return store.stats().memtable_entries


def test_a_batch_of_neighbours_is_swept_at_once() -> None:
    store = filled()
    store.delete_many(KEYS[5000:15000])
    assert entries(store) == 0
    assert markers(store) == [(15000, 45000)]
    assert store.floor(44999) == (14997, 14997.0) and store.ceiling(15000) == (45000, 45000.0)
    assert len(store) == 10000


def test_a_batch_that_leaves_rows_between_is_not() -> None:
    store = filled()
    store.delete_many(KEYS[::2])
    assert entries(store) == 10000 and not markers(store) and len(store) == 10000


def test_single_deletes_are_swept_by_the_read_that_crosses_them() -> None:
    store = filled()
    for key in KEYS[:1000].tolist():
        store.delete(key)
    assert entries(store) == 1000
    assert store.first() == (3000, 3000.0)
    assert entries(store) == 0 and markers(store) == [(0, 3000)]
    assert store.first() == (3000, 3000.0)


def test_many_single_deletes_are_swept_without_a_read() -> None:
    store = filled()
    for key in KEYS[5000:15000].tolist():
        store.delete(key)
    assert entries(store) < 1024 and len(markers(store)) == 1
    for key in KEYS[4000:5000].tolist():
        del store[key]
    assert entries(store) < 2048 and len(markers(store)) <= 2


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_single_deletes_from_an_end_keep_one_marker(backward: bool, whole: bool) -> None:
    store = filled()
    keys = (KEYS if whole else KEYS[-10_000:] if backward else KEYS[:10_000]).tolist()
    for key in keys[::-1] if backward else keys:
        store.delete(key)
        assert len(markers(store)) <= 1
    assert store.stats().counters["gaps_swept"] >= len(keys) // 1024
    assert len(store) == ROWS - len(keys) and len(markers(store)) <= 2


def test_a_narrow_gap_is_left_alone() -> None:
    store = filled()
    for key in KEYS[: SWEEP_MARKERS - 1].tolist():
        store.delete(key)
    store.first()
    assert entries(store) == SWEEP_MARKERS - 1 and not markers(store)


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.last(),
        lambda store: store.range().arrays(),
        lambda store: list(store.range(reverse=True)),
        lambda store: len(store),
        lambda store: list(store.range(3000).batches(7)),
    ],
)
def test_every_way_of_reading_sweeps(read: Any) -> None:
    store = filled()
    for key in KEYS[10_000:].tolist():
        store.delete(key)
    read(store)
    assert entries(store) == 0
    # The deletes themselves have left one marker over most, and the read one over the rest.
    lower, upper = markers(store)[0][0], markers(store)[-1][1]
    assert len(markers(store)) <= 2
    # Behind the last row before the gap, or at the first key in it, as the read came.
    assert lower in (29_998, 30_000)
    assert upper == 3 * ROWS - 2  # no row lies behind: just above the last key that was deleted
    assert store.last() == (29_997, 29_997.0)


def test_a_queue_keeps_one_marker() -> None:
    store = filled()
    for place, key in enumerate(KEYS[:5000].tolist()):
        assert store.first()[0] == key
        store.delete(key)
        assert entries(store) <= SWEEP_MARKERS and len(markers(store)) <= 1, place
    assert markers(store)[0][0] == 0


def test_a_queue_from_the_other_end_too() -> None:
    store = filled()
    for key in KEYS[-5000:].tolist()[::-1]:
        assert store.last()[0] == key
        store.delete(key)
        assert entries(store) <= SWEEP_MARKERS and len(markers(store)) <= 1


def test_what_was_put_since_the_view_stays() -> None:
    store = filled()
    for key in KEYS[:1000].tolist():
        store.delete(key)
    rows = iter(store.range())
    store[1500] = 7.0
    assert next(rows) == (3000, 3000.0)  # as of before the put
    assert entries(store) == 1000 and not markers(store)
    assert store.first() == (1500, 7.0)


def test_what_was_put_elsewhere_hinders_nothing() -> None:
    store = filled()
    for key in KEYS[:1000].tolist():
        store.delete(key)
    rows = iter(store.range())
    store[3001] = 7.0
    assert next(rows) == (3000, 3000.0)
    assert entries(store) == 1 and markers(store) == [(0, 3000)]


def test_another_version_hinders() -> None:
    store = filled()
    for key in KEYS[:1000].tolist():
        store.delete(key)
    rows = iter(store.range())
    store.bulk_load([9], [9.0])
    assert next(rows) == (3000, 3000.0)
    assert not markers(store)
    assert store.first() == (9, 9.0)


def test_views_from_before_see_what_they_saw() -> None:
    store = filled()
    before = store.range().batches(1000)
    next(before)
    store.delete_many(KEYS[:10_000])
    assert markers(store)
    assert sum(len(keys) for keys, _ in before) == ROWS - 1000


def test_it_outlives_flush_and_crash(tmp_path: Path) -> None:
    with filled(tmp_path / "store", durability="process") as store:
        store.delete_many(KEYS[:10_000])
        shutil.copytree(tmp_path / "store", tmp_path / "killed")
        store.checkpoint()
        assert store.first() == (30_000, 30_000.0) and len(store) == 10_000
    for name in ("store", "killed"):
        with cesium.open(tmp_path / name) as store:
            assert store.first() == (30_000, 30_000.0) and len(store) == 10_000
            store.compact()
            assert store.first() == (30_000, 30_000.0) and len(store) == 10_000
            assert store.stats().estimated_rows == 10_000


def test_a_reader_beside_the_writer_changes_nothing(tmp_path: Path) -> None:
    with filled(tmp_path / "store", durability="process") as store:
        for key in KEYS[:1000].tolist():
            store.delete(key)
        shutil.copytree(tmp_path / "store", tmp_path / "killed")
    with cesium.open(tmp_path / "killed", flag="r") as reader:
        assert reader.first() == (3000, 3000.0)
        assert entries(reader) == 1000 and not markers(reader)


def test_keys_of_any_length() -> None:
    store = cesium.open(":memory:", key="str", value="str")
    keys = [f"{'k' * (number % 90)}{number:08}" for number in range(3000)]
    keys.sort()
    store.put_many(keys, keys)
    store.delete_many(keys[100:2900])
    assert entries(store) == 200 and len(markers(store)) == 1
    assert store.higher(keys[99]) == (keys[2900], keys[2900])
    assert store.lower(keys[2900]) == (keys[99], keys[99])
    store[keys[150] + "\0"] = "between"
    assert store.higher(keys[99]) == (keys[150] + "\0", "between")


def test_keys_too_long_for_a_marker_are_crossed_each_time() -> None:
    store = cesium.open(":memory:", key="bytes", value="bytes")
    keys = [b"%08d" % number + b"x" * 600 for number in range(1500)]
    store.put_many(keys, [b"v"] * 1500)
    store.delete_many(keys[:1400])
    assert store.first() == (keys[1400], b"v") and not markers(store)


def test_the_largest_key() -> None:
    store = cesium.open(":memory:", key="u8", value="f8")
    keys = np.arange(2**64 - 2000, 2**64, dtype=np.uint64)
    store.put_many(keys, keys.astype(float))
    store.put(1, 1.0)
    store.delete_many(keys)
    assert store.last() == (1, 1.0) and len(store) == 1
    assert store.ceiling(2) is None


# --- against a model: stretches are deleted, rows put and loaded among them, read from anywhere

SPACE = 3000
CHANCES = {"delete": 4, "put": 3, "load": 1, "read": 6, "checkpoint": 1, "compact": 0.3}
LONGEST = {"delete": 1200, "put": 40, "load": 40, "read": 1500}


def steps_of(chance: random.Random, count: int) -> list[tuple[str, int, int, bool]]:
    names = chance.choices(list(CHANCES), list(CHANCES.values()), k=count)
    return [
        (
            name,
            chance.randrange(SPACE + 1),
            chance.randint(1, LONGEST.get(name, 1)),
            chance.random() < 0.5,
        )
        for name in names
    ]


def run_model(kind: str, slots_max: int, steps: list[Any], seen: dict[str, int]) -> None:
    def key_of(number: int) -> Any:
        return number if kind == "u8" else f"key{number:06}"

    options = Options(kind, "u4")
    store = Store(acquire(":memory:", options, slots_max), options)
    numbers = list(range(SPACE))
    store.put_many([key_of(number) for number in numbers], numbers)
    store.checkpoint()
    model = {number: number for number in numbers}
    for what, place, count, flag in steps:
        chosen = list(range(place, min(place + count, SPACE)))
        if what == "delete" and chosen:
            if flag:
                store.delete_many([key_of(number) for number in chosen])
            else:
                for number in chosen:
                    store.delete(key_of(number))
            for number in chosen:
                model.pop(number, None)
        elif what in ("put", "load") and chosen:
            write = store.put_many if what == "put" else store.bulk_load
            write([key_of(number) for number in chosen], [n + count for n in chosen])
            model.update((number, number + count) for number in chosen)
        elif what == "read":
            present = sorted(model)
            at = bisect_left(present, place)
            if flag:
                rows = list(store.range(None, key_of(place), reverse=True, limit=count))
                expected = present[:at][::-1][:count]
            else:
                rows = list(store.range(key_of(place), None, limit=count))
                expected = present[at:][:count]
            assert rows == [(key_of(number), model[number]) for number in expected]
        elif what == "checkpoint":
            store.checkpoint()
        elif what == "compact":
            store.compact()
        seen["markers"] += bool(markers(store))
        seen["steps"] += 1
    assert list(store) == [key_of(number) for number in sorted(model)]
    assert len(store) == len(model)
    store.close()


@pytest.mark.parametrize("kind", ["u8", "str"])
@pytest.mark.parametrize("slots_max", [5, 0])
@pytest.mark.parametrize("seed", range(8))
def test_against_a_model(kind: str, slots_max: int, seed: int) -> None:
    chance = random.Random(seed)
    seen = {"markers": 0, "steps": 0}
    run_model(kind, slots_max, steps_of(chance, 60), seen)
    assert seen["steps"] == 60 and seen["markers"] > 10
