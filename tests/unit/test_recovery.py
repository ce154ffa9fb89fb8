"""Opening again: what each ending leaves, what opening writes, what the first write removes.

A copy of the directory taken while the store is open is what a killed process leaves: the journal
is mapped, so what was written to it is in the file.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium.opening import acquire
from killed_stores import killed

pytestmark = pytest.mark.usefixtures("foreground")


def opened(path: Path, slots_max: int = 4, **more: Any) -> Any:
    options = cesium.Options(**{"durability": "process", **more})
    return cesium.Store(acquire(path, options, slots_max), options)


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file of a directory but the lock, which means nothing."""
    return {item.name: item.read_bytes() for item in path.iterdir() if item.name != "LOCK"}


def names(path: Path, start: str) -> list[str]:
    return sorted(name for name in os.listdir(path) if name.startswith(start))


HISTORY = {
    "put": lambda s: s.put(1, 1.0),
    "put_many": lambda s: s.put_many(np.arange(30), np.arange(30.0)),
    "delete": lambda s: s.delete(3),
    "load": lambda s: s.bulk_load(np.arange(20, 60), np.full(40, 2.0)),
    "put over the load": lambda s: s.put(25, -1.0),
    "delete_range": lambda s: s.delete_range(40, None),
    "put again": lambda s: s.put(50, -2.0),
    "load again": lambda s: s.bulk_load([50, 70], [5.0, 7.0]),
    "checkpoint": lambda s: s.checkpoint(),
    "put after the checkpoint": lambda s: s.put(2, 9.0),
    "delete_many": lambda s: s.delete_many([70, 1]),
    "compact": lambda s: s.compact(),
    "delete_range below": lambda s: s.delete_range(None, 10),
    "load below": lambda s: s.bulk_load([0, 1], [8.0, 8.0]),
    "clear": lambda s: s.clear(),
    "put at last": lambda s: s.put(5, 5.0),
}


def test_every_step_survives_a_kill_and_a_close(tmp_path: Path) -> None:
    store = opened(tmp_path / "s", key="u8", value="f8")
    for number, (name, step) in enumerate(HISTORY.items()):
        step(store)
        expected, sequence = list(store.items()), store.sequence
        copy = killed(store, tmp_path / f"killed-{number}")
        before = snapshot(copy)
        for _ in range(2):  # opening and closing alone writes nothing, however often
            with opened(copy, flag="r") as again:
                assert list(again.items()) == expected and again.sequence == sequence, name
        assert snapshot(copy) == before, name
        with opened(copy) as again:
            assert list(again.items()) == expected and again.sequence == sequence, name
            assert len(again) == len(expected) and again.verify().ok
        with opened(copy) as again:
            assert list(again.items()) == expected and again.sequence == sequence, name
            assert again.put(99, 1.0) == sequence + 1
        with opened(copy) as again:
            assert list(again.items()) == [*expected, (99, 1.0)]
    store.close()
    with opened(tmp_path / "s") as again:
        assert list(again.items()) == expected and again.sequence == sequence


def test_opening_alone_writes_nothing_but_the_lock(tmp_path: Path) -> None:
    store = opened(tmp_path / "s", key="u8", value="f8")
    store.bulk_load([1, 2], [1.0, 2.0])
    store[3] = 3.0
    copy = killed(store, tmp_path / "copy")
    store.close()
    (copy / "LOCK").unlink()
    before = snapshot(copy)
    again = opened(copy)
    assert snapshot(copy) == before, "replayed, yet not written to"
    assert sorted(os.listdir(copy)) == sorted([*before, "LOCK"])
    assert again[3] == 3.0 and len(again) == 3 and list(again) == [1, 2, 3]
    assert snapshot(copy) == before, "nor do reads write"
    again.close()


def test_a_clean_close_flushes_everything(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path, key="u8", value="f8") as store:
        store.put_many(np.arange(100), np.zeros(100))
    with opened(path) as store:
        stats = store.stats()
        assert stats.memtable_entries == 0 and stats.segments and len(store) == 100
        assert store.durable_sequence == store.sequence == 1
    before = snapshot(path)
    opened(path).close()
    assert snapshot(path) == before, "nothing happened, nothing is written"


def test_kill_upon_kill(tmp_path: Path) -> None:
    """Each opening replays what the one before left unflushed, and adds to it."""
    path = tmp_path / "0"
    opened(path, key="u8", value="f8").close()
    for number in range(6):
        store = opened(path)
        assert list(store.items()) == [(key, float(key)) for key in range(number)]
        store.put(number, float(number))
        path = killed(store, tmp_path / str(number + 1))
        store.close()
    with opened(path) as store:
        assert len(store) == 6 and store.sequence == 6


def test_the_first_write_removes_orphans(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path, key="u8", value="f8") as store:
        store.bulk_load([1, 2], [1.0, 2.0])
    (live,) = names(path, "segment-")
    orphans = ["segment-0000000077", "segment-0000000078"]
    shutil.copy(path / live, path / orphans[0])
    (path / orphans[1]).write_bytes(b"half a load")
    (path / "manifest-000099.new").write_bytes(b"half a manifest")
    store = opened(path)
    assert list(store.items()) == [(1, 1.0), (2, 2.0)]
    assert names(path, "segment-") == [live, *orphans], "reading removes nothing"
    store[3] = 3.0
    assert names(path, "segment-") == [live] and not (path / "manifest-000099.new").exists()
    store.bulk_load([3], [4.0])
    assert not set(names(path, "segment-")) & set(orphans), "no id is used again"
    store.close()
    with opened(path) as store:
        assert list(store.items()) == [(1, 1.0), (2, 2.0), (3, 4.0)]


def test_a_loads_orphans_go_with_the_first_load(tmp_path: Path) -> None:
    path = tmp_path / "s"
    opened(path, key="u8", value="f8").close()
    (path / "segment-0000000009").write_bytes(b"half a load")
    with opened(path) as store:
        store.bulk_load([1], [1.0])
        (name,) = names(path, "segment-")
        assert name > "segment-0000000009"
    with opened(path) as store:
        assert list(store.items()) == [(1, 1.0)]


def test_a_torn_last_frame_is_not_a_commit(tmp_path: Path) -> None:
    store = opened(tmp_path / "s", key="u8", value="f8")
    store.put(1, 1.0)
    store.put_many([2, 3], [2.0, 3.0])
    whole = killed(store, tmp_path / "whole")
    store.put_many([2, 3, 4], [9.0, 9.0, 9.0])
    torn = killed(store, tmp_path / "torn")
    store.close()
    (name,) = names(whole, "journal-")
    short, long = (whole / name).read_bytes(), (torn / name).read_bytes()
    end = max(i for i in range(len(long)) if long[i] != short[i]) + 1
    start = next(i for i in range(len(long)) if long[i] != short[i])
    for cut in {start + 1, (start + end) // 2, end - 1}:
        copy = tmp_path / f"cut-{cut}"
        shutil.copytree(torn, copy)
        (copy / name).write_bytes(long[:cut] + bytes(len(long) - cut))
        with opened(copy) as again:
            assert list(again.items()) == [(1, 1.0), (2, 2.0), (3, 3.0)] and again.sequence == 2
            again.put(4, 4.0)
        with opened(copy) as again:
            assert len(again) == 4 and again.sequence == 3


def test_a_missing_segment_or_manifest_is_corruption(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path, key="u8", value="f8") as store:
        store.bulk_load([1, 2], [1.0, 2.0])
        copy = killed(store, tmp_path / "copy")
    (path / names(path, "segment-")[0]).unlink()
    with pytest.raises((cesium.CorruptionError, FileNotFoundError)), opened(path) as store:
        list(store.items())
    for name in names(copy, "manifest-"):
        (copy / name).unlink()
    with pytest.raises(cesium.CorruptionError):
        opened(copy, key="u8", value="f8")
    assert names(copy, "segment-"), "nothing was removed"


def test_a_flipped_bit_in_a_segment_is_seen_and_named(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path, 0, key="u8", value="f8") as store:
        store.bulk_load(np.arange(5000), np.arange(5000.0))
    (name,) = names(path, "segment-")
    data = bytearray((path / name).read_bytes())
    data[4096 + 100] ^= 1
    (path / name).write_bytes(data)
    with opened(path, 0, flag="r") as store:
        report = store.verify()
        assert not report.ok and report.problems[0].page == 1 and name in report.problems[0].file
        with pytest.raises(cesium.CorruptionError) as caught:
            list(store.items())
        assert name in str(caught.value)
        assert store[0] == 0.0, "other pages are read as before"


@pytest.mark.parametrize("durability", ["sync", "process"])
def test_durable_sequence(tmp_path: Path, durability: str) -> None:
    with opened(tmp_path / "s", key="u8", value="f8", durability=durability) as store:
        store[1] = 1.0
        if durability == "sync":
            assert store.durable_sequence == 1
        store.put(2, 2.0, durability="sync")
        assert store.durable_sequence == 2
        store[3] = 3.0
        store.sync()
        assert store.durable_sequence == 3
        store.bulk_load([4], [4.0])
        assert store.durable_sequence == 4


def test_variable_forms_are_replayed(tmp_path: Path) -> None:
    """Long keys and values, empty ones, range-deletes with variable bounds, from the journal."""
    store = opened(tmp_path / "s", key="str", value="bytes")
    for key, value in (("", b""), ("a" * 5000, b"x" * 9000), ("a\0", b"\0"), ("语", b"v")):
        store[key] = value
    store.put_many(["b", "c" * 600, "b"], [b"1", b"2" * 2000, b"3"])
    store.delete_range("b", "c")
    store.delete_range("d", "d")
    store.delete_many(["a\0", "nothing"])
    expected = list(store.items())
    assert [key for key, _ in expected] == ["", "a" * 5000, "c" * 600, "语"]
    copy = killed(store, tmp_path / "copy")
    store.delete_range("a", None)
    shorter = killed(store, tmp_path / "shorter")
    store.close()
    with opened(copy) as again:
        assert list(again.items()) == expected
    with opened(shorter) as again:
        assert list(again.items()) == [("", b"")]


@pytest.mark.parametrize("key, value", [("u8", "f8"), ("str", "bytes"), (("u4", "str"), "str")])
def test_commits_replayed_together_keep_their_order(tmp_path: Path, key: Any, value: Any) -> None:
    """Small commits are gathered and sorted; what breaks the row of them must not reorder them."""
    rng = np.random.default_rng(7)

    def key_of(number: int) -> Any:
        return {"u8": number, "str": "k" * (number % 70) + str(number)}.get(
            str(key), (number % 3, str(number))
        )

    def value_of(number: int) -> Any:
        return {"f8": float(number), "bytes": bytes([number % 256]) * (number % 300)}.get(
            value, "é" * (number % 40)
        )

    store = opened(tmp_path / "s", slots_max=0, key=key, value=value)
    expected: dict[Any, Any] = {}
    for step in range(3_000):
        kind = rng.integers(0, 100)
        numbers = rng.integers(0, 400, 100 if kind == 1 else 3 if kind < 10 else 1).tolist()
        if kind == 0:
            low, high = sorted(key_of(number) for number in rng.integers(0, 400, 2).tolist())
            store.delete_range(low, high)
            expected = {k: v for k, v in expected.items() if not low <= k < high}
        elif kind < 70:
            rows = {key_of(number): value_of(step + number) for number in numbers}
            store.update(rows) if len(rows) > 1 else store.put(*next(iter(rows.items())))
            expected.update(rows)
        else:
            store.delete(key_of(numbers[0]))
            expected.pop(key_of(numbers[0]), None)
    copy = killed(store, tmp_path / "copy")
    assert dict(store.items()) == expected and len(expected) > 50
    with opened(copy, slots_max=0, flag="r") as again:
        assert dict(again.items()) == expected and again.sequence == store.sequence == 3_000
        assert list(again) == sorted(expected)
    store.close()
