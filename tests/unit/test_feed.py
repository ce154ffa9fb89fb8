"""The change feed: every commit, in order, as it was made; and waiting for the next one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium.files import Files
from cesium.journal_files import Pin
from cesium.opening import acquire
from cesium.repair import repair

PATIENCE = 60.0  # seconds, for what another thread does on a busy machine


def opened(path: Path, key: Any = "u8", value: Any = "i8", **more: Any) -> cesium.Store:
    options: dict[str, Any] = {"durability": "process", "background": False}
    return cesium.open(path, options=cesium.Options(key, value, **(options | more)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[cesium.Store]:
    with opened(tmp_path / "s") as store:
        yield store


@pytest.fixture
def kept(store: cesium.Store) -> Iterator[cesium.Store]:
    """A store whose journal stays whole: a load of rows may make a checkpoint."""
    with store._engine.journal.detached.pinned(0):
        yield store


def plain(values: Any) -> Any:
    """Arrays and columns as lists, so that they can be compared."""
    if values is None:
        return None
    if isinstance(values, tuple):
        return [tuple(row) for row in zip(*(plain(part) for part in values), strict=True)]
    return values.to_list() if isinstance(values, cesium.Column) else values.tolist()


def told(operation: cesium.Operation) -> tuple[Any, ...]:
    if operation.kind == "delete_range":
        return "delete_range", operation.lower, operation.upper
    if operation.kind == "delete":
        return "delete", plain(operation.keys)
    keys, values = operation.arrays()
    return operation.kind, plain(keys), plain(values)


def beside(path: Path) -> cesium.Store:
    """A handle for reading that shares nothing with the one that writes."""
    options = cesium.Options(flag="r")
    return cesium.Store(acquire(path, options, files=Files(path)), options)


def history(store: cesium.Store, since: int | None = None) -> list[tuple[int, list[Any]]]:
    return [
        (change.sequence, [told(operation) for operation in change.operations])
        for change in store.changes(since)
    ]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextlib.contextmanager
def started(*calls: Callable[[], Any]) -> Iterator[list[Any]]:
    """Runs the calls in threads; what they return, or raise, is there after the block."""
    results: list[Any] = [None] * len(calls)

    def run(number: int, call: Callable[[], Any]) -> None:
        try:
            results[number] = call()
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    try:
        yield results
    finally:
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)


def pins(store: cesium.Store) -> list[Pin]:
    """Those who watch, once they wait."""
    return list(store._engine.journal.detached._pins.values())


def until_watched(store: cesium.Store, count: int = 1) -> None:
    sequence = store.sequence
    until(lambda: sum(pin.sequence == sequence for pin in pins(store)) == count)


# --- what is yielded ------------------------------------------------------------------------------


def test_every_kind_of_write(kept: cesium.Store) -> None:
    store = kept
    before = np.datetime64(time.time_ns(), "ns")
    expected: list[tuple[int, list[Any]]] = []

    def done(*operations: tuple[Any, ...]) -> None:
        expected.append((store.sequence, list(operations)))

    store[7] = -1
    done(("put", [7], [-1]))
    store.put_many([3, 1, 3], [30, 10, 31])
    done(("put", [3, 1, 3], [30, 10, 31]))
    store.delete(7)
    done(("delete", [7]))
    store.delete_many([8, 9])
    done(("delete", [8, 9]))
    store.delete_range(2, 5)
    done(("delete_range", 2, 5))
    store.delete_range(None, 1)
    done(("delete_range", None, 1))
    store.clear()
    done(("delete_range", None, None))
    store.bulk_load([20, 10, 20], [2, 1, 3])
    done(("load", [10, 20], [1, 3]))
    store.increment(10, 5)
    done(("put", [10], [6]))
    store.put_if_absent(11, 1)
    done(("put", [11], [1]))
    assert not store.put_if_absent(11, 2)
    store.update_many([10, 11], np.add, 1)
    done(("put", [10, 11], [7, 2]))
    assert store.pop(11) == 2
    done(("delete", [11]))
    after = np.datetime64(time.time_ns(), "ns")

    assert history(store) == expected
    assert [sequence for sequence, _ in expected] == list(range(1, store.sequence + 1))
    for since in range(store.sequence + 1):
        assert history(store, since) == expected[since:]
    unit = np.timedelta64(65_536, "ns")  # of the commit time of a single row
    for change in store.changes():
        assert change.time.dtype == np.dtype("datetime64[ns]")
        assert before - unit <= change.time <= after


def test_a_transaction_is_one_change(store: cesium.Store) -> None:
    store.put_many([1, 2, 3], [1, 2, 3])
    with store.transaction() as transaction:
        transaction.delete_range(0, 2)
        transaction[9] = 9
        transaction.delete(3)
        transaction[8] = 8
    ((sequence, operations),) = history(store, 1)
    assert sequence == store.sequence == 2
    copy: dict[int, int] = {1: 1, 2: 2, 3: 3}
    for kind, *what in operations:
        if kind == "put":
            copy.update(zip(*what, strict=True))
        elif kind == "delete":
            for key in what[0]:
                copy.pop(key, None)
        else:
            copy = {key: row for key, row in copy.items() if not (what[0] or 0) <= key < what[1]}
    assert copy == dict(store.items()) == {2: 2, 8: 8, 9: 9}
    assert len(operations) > 1


FORMS: list[tuple[Any, list[Any]]] = [
    ("u1", [1, 200]),
    ("i4", [-5, 5]),
    ("f8", [-1.5, 2.0]),
    ("bool", [False, True]),
    ("datetime64[ms]", [np.datetime64(5, "ms"), np.datetime64(6, "ms")]),
    ("S4", [b"a", b"bc"]),
    ("S20", [b"a", b"bcd" * 5]),
    ("str", ["", "\N{SNOWMAN}"]),
    ("bytes", [b"", b"\xff\x00"]),
    ("uuid", [uuid.UUID(int=1), uuid.UUID(int=2**90)]),
    (("u4", "str"), [(1, "a"), (2, "bc")]),
    (("-i8", "bytes"), [(7, b"\x00"), (-7, b"")]),
]


@pytest.mark.parametrize(("spec", "keys"), FORMS, ids=lambda form: str(form)[:20])
def test_every_form_of_keys(tmp_path: Path, spec: Any, keys: list[Any]) -> None:
    with opened(tmp_path / "s", key=spec) as store:
        for row, key in enumerate(keys):
            store[key] = row
        store.put_many(*store.range().arrays())
        whole = store.range().arrays()
        store.delete(keys[0])
        store.delete_range(keys[0], keys[1])
        single, other, batch, delete, deleted = (change.operations[0] for change in store.changes())
        assert [operation.rows for operation in (single, other, batch, delete)] == [1, 1, 2, 1]
        assert str(plain(batch.keys)) == str(plain(whole[0]))  # types, too
        assert type(batch.keys) is type(whole[0])
        assert plain(batch.values) == plain(whole[1])
        assert sorted(map(str, plain(single.keys) + plain(other.keys))) == sorted(
            map(str, plain(whole[0]))
        )
        assert str(plain(delete.keys)) == str(plain(single.keys))
        found = [None if key is None else store.keys_codec.encode_key(key)
                 for key in (deleted.lower, deleted.upper)]  # fmt: skip
        lowest = store.keys_codec.encode_key(keys[0])
        assert found[0] in (lowest, None) and found[1] == store.keys_codec.encode_key(keys[1])


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("f4", [0.5, -1.0]),
        ([("a", "i4"), ("b", "S3")], [(1, b"x"), (2, b"yz")]),
        (np.dtype(("f8", 3)), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        (np.dtype(("u1", 600)), [[1] * 600, [2] * 600]),  # too wide for columns
        ("bytes", [b"", b"x" * 5000]),
        ("str", ["", "\N{SNOWMAN}"]),
        ("json", [{"a": [1]}, None]),
        ("msgpack", [[1, "b"], 2.5]),
    ],
    ids=str,
)
def test_every_form_of_values(tmp_path: Path, spec: Any, values: list[Any]) -> None:
    with opened(tmp_path / "s", value=spec) as store, store._engine.journal.detached.pinned(0):
        for row, value in enumerate(values):
            store[row] = value
        store.put_many([0, 1], values)
        keys, whole = store.range().arrays()
        store.bulk_load(keys + np.uint64(10), whole)
        *singles, batch, load = (change.operations[0] for change in store.changes())
        loaded = load.arrays()
        assert loaded[0].tolist() == [10, 11] and batch.keys.tolist() == [0, 1]
        for found in (batch.values, loaded[1]):
            assert type(found) is type(whole) and plain(found) == plain(whole)
        assert [plain(each.values)[0] for each in singles] == plain(whole)


def test_what_is_yielded_is_a_copy(store: cesium.Store) -> None:
    store.put_many([1, 2], [3, 4])
    (change,) = store.changes()
    change.operations[0].values[:] = 0
    assert history(store) == [(1, [("put", [1, 2], [3, 4])])]
    with pytest.raises(AttributeError):
        change.sequence = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="a delete has no keys with values"):
        store.delete(1)
        list(store.changes(1))[0].operations[0].arrays()


def test_a_load_that_was_merged_away(kept: cesium.Store) -> None:
    store = kept
    store.bulk_load(np.arange(100), np.arange(100))
    store[200] = 1
    changes = list(store.changes())
    (load,) = changes[0].operations
    assert load.kind == "load" and load.rows == 100 and load.keys is None is load.values
    assert plain(load.arrays()[1]) == list(range(100))
    store.bulk_load(np.arange(0, 100, 2), np.arange(50))
    store.compact()
    assert load.rows == 100
    with pytest.raises(cesium.NotKeptError, match="the load with sequence 1 were merged"):
        load.arrays()


# --- how far it reaches ---------------------------------------------------------------------------


def test_what_is_not_kept(store: cesium.Store) -> None:
    for key in range(5):
        store[key] = key
    store.checkpoint()
    assert history(store) == history(store, 5) == []
    store[9] = 9
    assert [sequence for sequence, _ in history(store)] == [6]
    with pytest.raises(cesium.NotKeptError, match=r"after sequence 3 .* those after 5") as caught:
        store.changes(3)
    assert (caught.value.since, caught.value.kept) == (3, 5)
    assert isinstance(caught.value, LookupError)
    with pytest.raises(ValueError, match="at most the store's last sequence, 6, not 7"):
        store.changes(7)
    with pytest.raises(ValueError, match="not -1"):
        store.changes(-1)
    with pytest.raises(TypeError):
        store.changes("yesterday")  # type: ignore[arg-type]


def test_stores_without_a_journal(tmp_path: Path) -> None:
    memory = cesium.open(":memory:", key="u8", value="i8")
    none = opened(tmp_path / "s", durability="none")
    for store, why in ((memory, "in memory"), (none, "durability='none'")):
        with store:
            store[1] = 1
            for call in (store.changes, store.watch):
                with pytest.raises(cesium.NotKeptError, match=why):
                    call()


def test_commits_without_a_journal_in_between(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path) as store:
        store[1] = 1
        shutil.copytree(path, tmp_path / "killed")
    with opened(tmp_path / "killed", durability="none") as store:
        store[2] = 2
    with opened(tmp_path / "killed") as store:
        store[3] = 3
        assert history(store) == [(3, [("put", [3], [3])])]
        with pytest.raises(cesium.NotKeptError):
            store.changes(1)


def test_across_files_of_the_journal(store: cesium.Store) -> None:
    rng = np.random.default_rng(1)
    expected = []
    for sequence in range(1, 60):
        keys = rng.integers(0, 1 << 40, 3000).astype("u8")
        store.put_many(keys, keys.astype("i8"))
        expected.append((sequence, [("put", keys.tolist(), keys.tolist())]))
    assert len(store._engine.journal.files) > 1
    assert history(store) == expected
    assert history(store, 30) == expected[30:]


def test_a_frame_longer_than_a_piece(tmp_path: Path) -> None:
    with opened(tmp_path / "s", value="bytes") as store:
        store[1] = b"small"
        store[2] = b"L" * 5_000_000
        store[3] = b"small"
        assert history(store) == [
            (1, [("put", [1], [b"small"])]),
            (2, [("put", [2], [b"L" * 5_000_000])]),
            (3, [("put", [3], [b"small"])]),
        ]


def test_after_a_kill_and_on_handles_for_reading(tmp_path: Path) -> None:
    path, copy = tmp_path / "s", tmp_path / "killed"
    with opened(path) as store:
        store[1] = 1
        store.checkpoint()
        for key in range(2, 50):
            store[key] = key
        expected = history(store)
        assert len(expected) == 48
        shutil.copytree(path, copy)  # as a kill leaves it
        with beside(path) as reader:
            store[60] = 60
            assert history(reader) == expected
            store.checkpoint()  # unlinks what the reader saw
            with pytest.raises(cesium.NotKeptError):
                reader.changes(1)
    with opened(copy, flag="r") as reader:
        assert history(reader) == expected
    with opened(copy) as store:
        assert history(store) == expected
        store[50] = 50
        assert history(store)[:-1] == expected
        assert history(store, 49) == [(50, [("put", [50], [50])])]
        store.checkpoint()
        assert history(store) == []
    with opened(path) as store:
        assert history(store) == []  # closing made a checkpoint


def test_an_iterator_outlives_a_checkpoint(store: cesium.Store) -> None:
    for key in range(100):
        store[key] = key
    begun, unbegun = store.changes(), store.changes(50)
    assert next(begun).sequence == 1
    store[200] = 1
    store.checkpoint()
    store[201] = 1
    assert [change.sequence for change in begun] == list(range(2, 101))
    assert [change.sequence for change in unbegun] == list(range(51, 101))


def test_an_iterator_ends_with_the_store(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    store.put_many([1], [1])
    store.put_many([2], [2])
    changes = store.changes()
    next(changes)
    store.close()
    with pytest.raises(cesium.ClosedError):
        next(changes)
    for call in (store.changes, store.watch):
        with pytest.raises(cesium.ClosedError):
            call()


def test_no_descriptor_is_lost(store: cesium.Store) -> None:
    store[1] = 1

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    for _ in range(3):
        unbegun, begun = store.changes(), store.changes()
        next(begun)
        del unbegun, begun
        list(store.changes())
        store.watch(since=0)
        with pytest.raises(ValueError):
            store.changes(9)
    assert open_files() == before


def test_while_others_write(store: cesium.Store) -> None:
    count = 3000

    def write() -> None:
        for key in range(1, count + 1):
            store[key] = key
            if key % 1000 == 0:
                store.put_many(np.arange(key), np.arange(key))

    seen: list[int] = []
    with started(write) as results:
        last, deadline = 0, time.monotonic() + PATIENCE
        while last < count + 3:
            assert time.monotonic() < deadline
            for change in store.changes(last):
                assert change.sequence == last + 1
                last = change.sequence
                (operation,) = change.operations
                assert plain(operation.keys) == plain(operation.values)
                if operation.rows == 1:
                    seen += operation.keys.tolist()
    assert results == [None]
    assert seen == list(range(1, count + 1))


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path) as store:
        for key in range(1, 200):
            store.put_many([key, key], [key, key])
        (name,) = path.glob("journal-0*")
        size = store._engine.journal.files[0].end
        for place in range(4096, size, 997):
            with name.open("r+b") as file:
                file.seek(place)
                byte = file.read(1)
                file.seek(place)
                file.write(bytes([byte[0] ^ 0x10]))
            with pytest.raises(cesium.CorruptionError, match="journal-") as caught:
                list(store.changes())
            assert caught.value.file == str(name)
            with name.open("r+b") as file:
                file.seek(place)
                file.write(byte)
        assert len(list(store.changes())) == 199
        with name.open("r+b") as file:
            file.seek(100)
            file.write(b"damage")
        with pytest.raises(cesium.CorruptionError, match="file header's checksum"):
            list(store.changes())
        whole = name.stat().st_size
        os.truncate(name, 8192)
        with pytest.raises(cesium.CorruptionError):
            list(store.changes())
        os.truncate(name, whole)


# --- watching -------------------------------------------------------------------------------------


def test_watching_what_is_there_already(tmp_path: Path) -> None:
    with opened(tmp_path / "s", key="str") as store, store._engine.journal.detached.pinned(0):
        store["user/1"] = 1
        store.put_many(["item/7", "user/2"], [7, 2])
        store.delete("item/7")
        store.delete_range("j", "user/1")
        store.bulk_load(["x/1", "z/1"], [1, 2])
        store.clear()

        def first(prefix: str | None, since: int) -> int | None:
            change = store.watch(prefix, since=since, timeout=0)
            return None if change is None else change.sequence

        assert [first(None, since) for since in range(7)] == [1, 2, 3, 4, 5, 6, None]
        assert [first("user/", since) for since in range(6)] == [1, 2, 4, 4, 6, 6]
        assert [first("user/2", since) for since in range(6)] == [2, 2, 6, 6, 6, 6]
        assert [first("item", since) for since in range(6)] == [2, 2, 3, 6, 6, 6]
        assert first("x/", 2) == 5 and first("y/", 2) == 6  # within the load's bounds
        assert first("", 0) == 1
        change = store.watch("item", since=0)
        assert change is not None and told(change.operations[0]) == (
            "put", ["item/7", "user/2"], [7, 2],
        )  # fmt: skip


def test_watching_keys_of_fixed_width(tmp_path: Path) -> None:
    with opened(tmp_path / "s", key=("u2", "u4")) as store:
        for key in ((1, 5), (2, 6), (3, 0)):
            store[key] = 0
        store.delete_range((2,), (3,))
        found = [store.watch((part,), since=0, timeout=0) for part in range(5)]
        assert [change and change.sequence for change in found] == [None, 1, 2, 3, None]
        change = store.watch((2,), since=2, timeout=0)
        assert change is not None and change.sequence == 4
        with pytest.raises(cesium.SchemaError):
            store.watch("text")
    with opened(tmp_path / "t") as store, pytest.raises(cesium.SchemaError, match="prefix"):
        store.watch(5)


def test_watching_for_what_comes(tmp_path: Path) -> None:
    with opened(tmp_path / "s", key="str") as store:
        store["a"] = 0
        with started(lambda: store.watch("b"), lambda: store.watch()) as results:
            until_watched(store, 2)
            store["c"] = 1
            store["b1"] = 2
        assert [change.sequence for change in results] == [3, 2]
        assert store.watch(timeout=0) is store.watch(timeout=0.01) is None
        with pytest.raises(ValueError, match="timeout"):
            store.watch(timeout=-1)
        with pytest.raises(ValueError, match="last sequence"):
            store.watch(since=99)


def test_many_watchers(tmp_path: Path) -> None:
    with opened(tmp_path / "s", key="str") as store:
        store["first"] = 0
        calls = [lambda prefix=f"{number}/": store.watch(prefix) for number in range(20)]
        with started(*calls) as results:
            until_watched(store, 20)
            for number in range(20):
                store[f"{number}/x"] = number
                store.checkpoint()
        assert [change.sequence for change in results] == list(range(2, 22))
        assert not pins(store)


def test_a_watcher_misses_nothing_for_a_checkpoint(store: cesium.Store) -> None:
    count, seen = 300, []

    def follow() -> None:
        last = 0
        while last < count:
            change = store.watch(since=last)
            assert change is not None
            seen.append(change.sequence)
            last = change.sequence

    # Pinned from outside, for between two watches nothing keeps the journal.
    with store._engine.journal.detached.pinned(0), started(follow) as results:
        for key in range(count):
            store[key] = key
            if key % 50 == 0:
                store.checkpoint()
    assert results == [None] and seen == list(range(1, count + 1))


def test_a_waiting_watcher_keeps_the_journal(tmp_path: Path) -> None:
    with opened(tmp_path / "s", key="str") as store:
        journal = store._engine.journal
        with journal.detached.pinned(0) as pin:
            store["a"] = 1
            store.checkpoint()
            store["b"] = 2
            store.checkpoint()
            assert [sequence for sequence, _ in history(store)] == [1, 2]
            pin.sequence = 1
            store["c"] = 3
            store.checkpoint()
            assert [sequence for sequence, _ in history(store)] == [2, 3]
        store["d"] = 4
        store.checkpoint()
        assert history(store) == []
        assert not list((tmp_path / "s").glob("journal-*[0-9]"))


def test_what_was_pinned_goes_with_the_store(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    store[1] = 1
    with store._engine.journal.detached.pinned(0):
        store.checkpoint()
        assert list((tmp_path / "s").glob("journal-kept-*"))
        store.close()
    assert not list((tmp_path / "s").glob("journal-*"))


def test_closing_ends_a_watch(tmp_path: Path) -> None:
    store, other = opened(tmp_path / "s"), opened(tmp_path / "s")
    with started(store.watch) as results:
        until_watched(store)
        store.close()  # the other handle keeps the engine
    assert isinstance(results[0], cesium.ClosedError)
    with started(other.watch) as results:
        until_watched(other)
        other.close()
    assert isinstance(results[0], cesium.ClosedError)


def test_an_interrupt_ends_a_watch(store: cesium.Store) -> None:
    def interrupt() -> None:
        until_watched(store)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with started(interrupt):
        with pytest.raises(KeyboardInterrupt):
            store.watch()
    assert not pins(store)
    store[1] = 1


# --- journal files that are kept ------------------------------------------------------------------


def retained(path: Path, size: int | str = "64MiB", **more: Any) -> cesium.Store:
    return opened(path, journal_retention=size, **more)


def kept_files(path: Path) -> list[Path]:
    return sorted(path.glob("journal-kept-*"))


def fill(store: cesium.Store, commits: int = 10) -> None:
    for _ in range(commits):
        store.put_many([store.sequence, 1], [store.sequence, 1])


def test_what_is_retained_reaches_over_checkpoints_and_openings(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for opening in range(3):
        with retained(path) as store:
            assert store.sequence == 30 * opening
            for _ in range(3):
                fill(store)
                store.checkpoint()
            stats = store.stats()
            assert stats.changes_since == 0 and stats.journal_kept_bytes == sum(
                file.stat().st_size for file in kept_files(path)
            )
            assert [change.sequence for change in store.changes()] == list(
                range(1, store.sequence + 1)
            )
            assert [change.sequence for change in store.changes(25)] == list(
                range(26, store.sequence + 1)
            )
    assert len(kept_files(path)) == 9
    for _ in range(2):  # the first has changed nothing
        with beside(path) as reader:
            assert len(list(reader.changes())) == 90
            change = reader.watch(since=41, timeout=0)
            assert change is not None and change.sequence == 42
    with opened(path) as store:  # without retention: they go with the next checkpoint
        assert store.stats().changes_since == 0
        fill(store)
        store.checkpoint()
        assert not kept_files(path) and store.stats().changes_since == store.sequence


def test_the_oldest_go_first(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with retained(path, 3 << 20) as store:
        for number in range(1, 8):
            fill(store)
            store.checkpoint()
            files = kept_files(path)
            assert len(files) == min(number, 3)
            assert sum(file.stat().st_size for file in files) <= 3 << 20
            since = store.stats().changes_since
            assert since == 10 * max(number - 3, 0)
            assert len(list(store.changes())) == store.sequence - since
        with pytest.raises(cesium.NotKeptError, match=r"after sequence 39 .* those after 40"):
            store.changes(39)
    with retained(path, 1 << 20) as store:
        fill(store)
        store.checkpoint()
        assert len(kept_files(path)) == 1 and store.stats().changes_since == 70


def test_kept_files_are_not_needed(tmp_path: Path) -> None:
    """Opening looks at none of them: whatever becomes of them, the rows are there."""
    path = tmp_path / "s"
    with retained(path) as store:
        for _ in range(3):
            fill(store)
            store.checkpoint()
        rows = dict(store.items())
    first, second, third = kept_files(path)
    with second.open("r+b") as file:
        file.seek(4096 + 200)
        file.write(b"damage")
    with retained(path) as store:
        assert dict(store.items()) == rows
        assert len(list(store.changes(20))) == 10
        with pytest.raises(cesium.CorruptionError, match=second.name):
            list(store.changes())
        (problem,) = store.verify().problems
        assert problem.file == str(second) and "a committed frame is damaged" in problem.message
    second.unlink()
    with retained(path) as store:
        assert dict(store.items()) == rows and store.verify().ok
        assert store.stats().changes_since == 20
    os.truncate(third, 5000)
    (path / "journal-kept-000009-1-0-0").write_bytes(b"")
    with retained(path) as store:
        assert dict(store.items()) == rows
        with pytest.raises(cesium.CorruptionError, match="cut off"):
            list(store.changes(20))
        fill(store)
        store.checkpoint()
        fill(store)
        assert len(list(store.changes(30))) == 20
    first.unlink()
    third.unlink()
    with cesium.open(path, options=cesium.Options(flag="n", key="u8", value="i8")) as store:
        assert not kept_files(path) and len(store) == 0


def test_repair_leaves_kept_files_behind(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with retained(path) as store:
        for _ in range(2):
            fill(store)
            store.checkpoint()
        rows = dict(store.items())
    with kept_files(path)[0].open("r+b") as file:
        file.seek(4300)
        file.write(b"damage")
    with pytest.raises(cesium.CorruptionError, match="journal-kept-000001"):
        repair(path, tmp_path / "strict", mode="strict")
    report = repair(path, in_place=True)
    assert len(report.problems) == 1 and not kept_files(path)
    assert len(kept_files(Path(report.backup or ""))) == 2
    with retained(path) as store:
        assert dict(store.items()) == rows and store.verify().ok
        assert store.stats().changes_since == store.sequence == 20


def test_a_kill_between_letting_go_and_renaming(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with retained(path) as store:
        fill(store)
        store._engine.journal.detached.remove = lambda **_: None  # type: ignore[method-assign]
        store.checkpoint()
        fill(store)
        store._engine.files.sync_directory()
        shutil.copytree(path, tmp_path / "killed")
        rows = dict(store.items())
    with retained(tmp_path / "killed") as store:
        assert dict(store.items()) == rows and store.verify().ok
        assert store.stats().changes_since == 10 and len(list(store.changes())) == 10
        fill(store)
        store.checkpoint()
        assert len(list(store.changes(10))) == 20
    assert [file.name.count("-") for file in kept_files(tmp_path / "killed")] == [5, 5]


def test_a_drive_that_refuses_the_new_name(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with retained(path) as store:
        fill(store)
        files = store._engine.files
        rename = files.rename

        def refuse(old: str, new: str) -> None:
            if "kept" in new:
                raise OSError(5, "the drive refuses")
            rename(old, new)

        files.rename = refuse  # type: ignore[method-assign]
        store.checkpoint()
        assert not kept_files(path) and len(list(store.changes())) == 10
        fill(store)
        files.rename = rename  # type: ignore[method-assign]
        store.checkpoint()
        assert len(kept_files(path)) == 2 and len(list(store.changes())) == 20


def test_an_open_store_has_one_retention(tmp_path: Path) -> None:
    with retained(tmp_path / "s"):
        with pytest.raises(cesium.ConflictError, match="journal_retention_bytes"):
            opened(tmp_path / "s")
    for wrong in (-1, "much", 1.5):
        with pytest.raises(ValueError):
            cesium.Options(journal_retention=wrong)  # type: ignore[arg-type]
