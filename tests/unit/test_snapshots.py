"""Snapshots: one moment, whatever is written; what they keep, and until when."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with opened(tmp_path / "s") as store:
        yield store


def opened(path: Path, **more: Any) -> cesium.Store:
    options = {"key": "u8", "value": "i8", "durability": "process", "background": False}
    return cesium.open(path, options=cesium.Options(**(options | more)))


def test_all_reads_are_of_the_moment(store: cesium.Store) -> None:
    store.put_many(np.arange(0, 1000, 2, dtype="u8"), np.arange(0, 1000, 2))
    store.checkpoint()
    store[500] = -1  # in the live memtable
    sequence = store.sequence
    with store.snapshot() as snapshot:
        store.put_many(np.arange(1000, dtype="u8"), np.full(1000, 7))
        store.delete_range(100, 900)
        store.checkpoint()
        store.compact()
        assert snapshot.sequence == sequence < store.sequence
        assert len(snapshot) == 500 and len(store) == 200
        assert snapshot[500] == -1 and snapshot.get(501) is None and 502 in snapshot
        assert snapshot.first() == (0, 0) and snapshot.last() == (998, 998)
        assert snapshot.floor(501) == (500, -1) and snapshot.higher(500) == (502, 502)
        assert snapshot.ceiling(999) is None and snapshot.lower(0) is None
        assert bool(snapshot)
        keys, values = snapshot[490:505].arrays()
        assert keys.tolist() == [490, 492, 494, 496, 498, 500, 502, 504]
        assert values.tolist() == [490, 492, 494, 496, 498, -1, 502, 504]
        assert list(snapshot.range(0, 6, reverse=True).items()) == [(4, 4), (2, 2), (0, 0)]
        assert list(snapshot)[:3] == [0, 2, 4] and list(reversed(snapshot))[0] == 998
        assert dict(snapshot.items())[500] == -1 and sum(snapshot.keys()) == sum(range(0, 1000, 2))
        values, found = snapshot.get_many(np.array([500, 501], "u8"), default=9)
        assert values.tolist() == [-1, 9] and found.tolist() == [True, False]
        assert snapshot.contains_many(np.array([2, 3], "u8")).tolist() == [True, False]
        view = snapshot.range(490, 505)
        assert len(view) == len(view) == 8 and view[500] == -1 and (500, -1) in view
        title = repr(snapshot).splitlines()[0]
        assert title == f"<snapshot of {store.path!r} at sequence {sequence}>"
    assert store.get(500) is None


def test_a_snapshot_is_for_reading_only(store: cesium.Store) -> None:
    snapshot = store.snapshot()
    for name in ("put", "delete", "put_many", "bulk_load", "delete_range", "checkpoint", "pop"):
        assert not hasattr(snapshot, name)
    with pytest.raises(TypeError):
        snapshot[1] = 2  # type: ignore[index]
    with pytest.raises(TypeError):
        pickle.dumps(snapshot)
    assert store.snapshot() != snapshot == snapshot


def test_closing(store: cesium.Store) -> None:
    store[1] = 1
    snapshot = store.snapshot()
    rows, view = iter(snapshot.items()), snapshot.range()
    snapshot.close()
    snapshot.close()
    assert snapshot.closed and repr(snapshot).startswith("<closed snapshot of ")
    for read in (
        lambda: snapshot[1], lambda: snapshot.get("no key"), lambda: len(snapshot),
        lambda: snapshot.first(), lambda: snapshot.range(), lambda: snapshot.get_many([1]),
        lambda: list(snapshot), view.arrays, snapshot.__enter__,
    ):  # fmt: skip
        with pytest.raises(cesium.ClosedError, match="the snapshot is closed"):
            read()
    assert list(rows) == [(1, 1)], "an iteration holds its own"


def test_the_store_closes_beneath_it(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    store[1] = 1
    snapshot = store.snapshot()
    other = opened(tmp_path / "s")
    store.close()
    assert snapshot[1] == 1, "another handle keeps the store open"
    other.close()
    with pytest.raises(cesium.ClosedError, match="the store is closed"):
        snapshot.get(1)
    with pytest.raises(cesium.ClosedError):
        store.snapshot()


def test_files_go_with_the_last_snapshot_that_reads_them(store: cesium.Store) -> None:
    store.bulk_load(np.arange(10_000, dtype="u8"), np.arange(10_000))
    before = {name for name in os.listdir(store.path) if name.startswith("segment-")}
    first, second = store.snapshot(), store.snapshot()
    assert store.stats().snapshots == 2 and store.stats().snapshot_bytes == 0
    store.put_many(np.arange(10_000, dtype="u8"), np.zeros(10_000, "i8"))
    store.compact()
    assert before <= set(os.listdir(store.path))
    assert store.stats().snapshot_bytes > 10_000 * 16
    first.close()
    assert before <= set(os.listdir(store.path)) and store.stats().snapshots == 1
    assert second.range().values().arrays().tolist() == list(range(10_000))
    del second  # collected: closed
    assert not before & set(os.listdir(store.path))
    stats = store.stats()
    assert stats.snapshots == 0 and stats.snapshot_bytes == 0


def test_memory_is_held_while_it_lives(store: cesium.Store) -> None:
    store.put_many(np.arange(20_000, dtype="u8"), np.arange(20_000))
    snapshot = store.snapshot()
    store.checkpoint()
    assert store.memory().pinned > 20_000 * 16
    assert snapshot[19_999] == 19_999
    snapshot.close()
    assert store.memory().pinned == 0


def test_of_read_only_and_in_memory_stores(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        store[1] = 1
    with cesium.open(tmp_path / "s", flag="r") as store, store.snapshot() as snapshot:
        assert snapshot[1] == 1 and snapshot.sequence == 1
    with cesium.open(":memory:", key="str", value="bytes") as store:
        store["a"] = b"1"
        with store.snapshot() as snapshot:
            store.clear()
            assert dict(snapshot.items()) == {"a": b"1"} and not store
            assert snapshot.view("a") == b"1"


def test_large_values(tmp_path: Path) -> None:
    large = os.urandom(3 << 20)
    with opened(tmp_path / "s", key="str", value="bytes") as store:
        store["a"] = large
        store.checkpoint()
        snapshot = store.snapshot()
        store["a"] = b"small"
        store.compact()
        assert snapshot["a"] == large and snapshot.view("a") == large
        assert snapshot.range().values().arrays()[0] == large


def test_not_in_the_midst_of_a_write(tmp_path: Path) -> None:
    refused: list[str] = []

    def encode(value: Any) -> bytes:
        if value == "inside":  # encoded before the lock is taken, and under it
            try:
                store.snapshot().close()
            except cesium.Error as error:
                refused.append(str(error))
        return str(value).encode()

    codec = cesium.ValueCodec("text", encode, lambda data: data.decode())
    with opened(tmp_path / "s", value=codec) as store:
        assert store.compare_and_set(1, cesium.MISSING, "inside")
        assert store[1] == "inside"
    assert refused and all("same thread" in text for text in refused)


def test_writers_never_show_a_part(store: cesium.Store) -> None:
    """Batches move amounts between rows; every snapshot sees the same sum."""
    keys = np.arange(64, dtype="u8")
    store.put_many(keys, np.full(64, 100))
    store.core.memtable_limit_bytes = 20_000
    done = threading.Event()
    seen: list[int] = []

    def move() -> None:
        chance = np.random.default_rng(1)
        while not done.is_set():
            moved = chance.integers(-50, 50, 64)
            values, _ = store.get_many(keys)
            store.put_many(keys, values + moved - np.roll(moved, 1))

    writer = threading.Thread(target=move)
    writer.start()
    try:
        for _ in range(200):
            with store.snapshot() as snapshot:
                first = snapshot.range().values().arrays()
                assert first.sum() == 6400
                assert (snapshot.get_many(keys)[0] == first).all()
                seen.append(snapshot.sequence)
    finally:
        done.set()
        writer.join()
    assert seen == sorted(seen)
