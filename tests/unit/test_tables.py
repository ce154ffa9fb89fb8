"""Several tables in one store: made, found, written together, dropped; what they share."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium import catalog, maintenance, merging, refreshing
from cesium._segment import SegmentReader
from cesium.engine import StoreEngine
from cesium.keys import Codec
from cesium.repair import repair
from cesium.verify import verify_directory
from command_line import fail, succeed
from killed_stores import killed

MIB = 1 << 20
TRADE = [("price", "f8"), ("size", "i4")]


@pytest.fixture(params=["files", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = ":memory:" if request.param == "memory" else tmp_path / "store"
    with cesium.open(path, key="u8", value="f8") as opened:
        yield opened


def opened(path: Path, **more: Any) -> cesium.Store:
    """One that changes its files in the calls of its user alone."""
    options = {"key": "u8", "value": "u8", "durability": "process", "background": False, **more}
    return cesium.open(path, options=cesium.Options(**options))


def copy_of(store: cesium.Store, tmp_path: Path) -> Path:
    """The directory as a crash now would leave it."""
    return killed(store, tmp_path / f"copy-{len(list(tmp_path.iterdir()))}")


# --- finding and making ---------------------------------------------------------------------------


def test_tables_are_mappings_of_their_own(store: cesium.Store) -> None:
    store[1] = 0.5
    trades = store.table("trades", key=("datetime64[ns]", "str"), value=TRADE)
    moment = np.datetime64("2026-01-01T00:00:00", "ns")
    trades[moment, "ACME"] = (1.0, 5)
    names = store.table("names", key="str", value="str")
    names["ACME"] = "A Company Making Everything"
    assert dict(store.items()) == {1: 0.5}
    assert trades[moment, "ACME"] == (1.0, 5)
    assert list(names) == ["ACME"]
    assert list(store.tables) == ["trades", "names"] and len(store.tables) == 2
    assert store.tables["names"] is names and "names" in store.tables and 7 not in store.tables
    assert store.table("trades") is trades
    assert names.name == "names" and names.key == "str" and names.value == "str"
    assert "names" in repr(names) and "trades" in repr(store.tables)


def test_a_table_is_found_by_its_name_alone(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="f8") as store:
        store.table("t", key="i4", value="u2")[-5] = 7
    with cesium.open(tmp_path / "s") as store:
        assert store.table("t")[-5] == 7
        assert store.table("t", key="i4")[-5] == 7
        with pytest.raises(cesium.SchemaError, match=r"table 't' of .*'i4'.*with key='u8'"):
            store.table("t", key="u8")


def test_what_is_no_table(store: cesium.Store) -> None:
    with pytest.raises(KeyError, match=r"no table 'x'; key=\.\.\. makes one"):
        store.table("x")
    with pytest.raises(KeyError):
        store.tables["x"]
    with pytest.raises(KeyError, match="no table 'x'"):
        store.drop_table("x")
    with pytest.raises(ValueError, match="is not empty"):
        store.table("", key="u8")
    with pytest.raises(ValueError, match="is not empty"):
        store.drop_table("")
    with pytest.raises(TypeError, match="is text, not 5"):
        store.table(5, key="u8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="valid text"):
        store.table("\ud800", key="u8")
    with pytest.raises(cesium.LimitError, match="at most 255 bytes long, not 256"):
        store.table("é" * 128, key="u8")
    with pytest.raises(cesium.SchemaError, match=r"store.table\('x', key=\.\.\.\)"):
        store.table("x", value="u8")
    with pytest.raises(cesium.SchemaError):
        store.table("x", key="nonsense")
    assert not store.tables


def test_a_user_s_codec_is_given_again(tmp_path: Path) -> None:
    turned = Codec("turned", lambda key: key[::-1].encode(), lambda data: data.decode()[::-1])
    with opened(tmp_path / "s", value="bytes") as store:
        store.table("t", key=turned, value="u8")["abc"] = 1
        crashed = copy_of(store, tmp_path)
    for path in (tmp_path / "s", crashed):
        with cesium.open(path) as store:
            store[1] = b"x"  # nothing of the store needs the codec
            assert store.verify().ok and list(store.tables) == ["t"]
            with pytest.raises(cesium.SchemaError, match="turned"):
                store.table("t")
            assert store.table("t", key=turned)["abc"] == 1
            assert store.table("t")["abc"] == 1, "it was given"


def test_read_only_handles_make_and_drop_nothing(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8") as store:
        store.table("t", key="u8", value="u8")[1] = 2
    with cesium.open(tmp_path / "s", flag="r") as reader:
        table = reader.table("t")
        assert table[1] == 2
        for call in (
            lambda: table.put(1, 3),
            lambda: table.bulk_load([1], [2]),
            lambda: reader.table("u", key="u8"),
            lambda: reader.drop_table("t"),
            lambda: table.transaction(),
            lambda: table.compact(),
        ):
            with pytest.raises(cesium.ReadOnlyError):
                call()
        with pytest.raises(KeyError):
            reader.table("u")


def test_tables_close_with_their_store(tmp_path: Path) -> None:
    store = cesium.open(tmp_path / "s", key="u8")
    other = cesium.open(tmp_path / "s")
    table = store.table("t", key="u8", value="u8")
    theirs = other.table("t")
    store.close()
    with pytest.raises(cesium.ClosedError):
        table.get(1)
    assert theirs.get(1) is None, "the other handle of the store is open"
    other.close()
    with pytest.raises(cesium.ClosedError):
        theirs.put(1, 1)


def test_a_table_keeps_its_store_open(tmp_path: Path) -> None:
    table = cesium.open(tmp_path / "s", key="u8").table("t", key="u8", value="u8")
    gc.collect()
    table[1] = 2
    assert table[1] == 2
    del table
    gc.collect()
    with cesium.open(tmp_path / "s", flag="r") as reader:
        assert reader.table("t")[1] == 2


def test_a_pickled_table_reopens_its_store_read_only(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8") as store:
        table = store.table("t", key="u8", value="u8")
        table[1] = 2
        again = pickle.loads(pickle.dumps(table))
        assert again[1] == 2 and again.name == "t" and again.read_only
        again._whole.close()


# --- everything that a table does -----------------------------------------------------------------


def test_batches_ranges_and_revisions_of_a_table(store: cesium.Store) -> None:
    table = store.table("t", key="u8", value="i8")
    table.put_many(np.arange(10), np.arange(10))
    table.bulk_load(np.arange(100, 110), np.arange(10))
    table.delete_many([3, 4])
    del table[5:7]
    assert table.increment(0, 5) == 5 and table.put_if_absent(0, 9) is False
    assert table.compare_and_set(1, 1, 11)
    table.update_many([1, 2], np.add, 100)
    keys, values = table.range(0, 10).arrays()
    assert keys.tolist() == [0, 1, 2, 7, 8, 9] and values.tolist() == [5, 111, 102, 7, 8, 9]
    assert len(table) == 16 and table.last() == (109, 9) and len(store) == 0
    table.compact()
    assert len(table) == 16
    table.clear()
    assert not table and store.verify().ok


def test_values_beside_and_beyond_the_journal(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="bytes") as store:
        table = store.table("t", key="str", value="bytes")
        large = os.urandom(17 * MIB)
        table["large"] = large
        store[1] = b"small"
        assert table["large"] == large
        assert bytes(table.view("large")) == large
    with cesium.open(tmp_path / "s") as store:
        assert store.table("t")["large"] == large and store[1] == b"small"
        store.drop_table("t")
        assert store.stats().blob_files == 0
        assert not [name for name in os.listdir(store.path) if name.startswith("blob-")]


def test_equal_keys_of_two_tables_are_two_keys(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        one, two = (store.table(name, key="u8", value="u8") for name in ("one", "two"))
        for round_ in range(3):
            for number, table in enumerate((store, one, two)):
                keys = np.arange(1000, dtype="u8")
                table.put_many(keys, keys * 10 + number + round_)
            store.checkpoint()
        store.compact()
        for number, table in enumerate((store, one, two)):
            assert table[7] == 72 + number
        assert store.verify().ok


# --- one journal ----------------------------------------------------------------------------------


def test_commits_of_all_tables_share_one_sequence(store: cesium.Store) -> None:
    table = store.table("t", key="u8", value="u8")
    first = store.put(1, 1.0)
    second = table.put(1, 1)
    third = table.bulk_load([5], [6]).sequence
    assert (second, third) == (first + 1, first + 2) and store.sequence == third


def test_recovery_brings_every_table_back(tmp_path: Path) -> None:
    with opened(tmp_path / "s", value="f8") as store:
        strings = store.table("strings", key="str", value="str")
        numbers = store.table("numbers", key="i2", value="i2")
        for number in range(200):
            store[number] = number / 2
            strings[f"key {number % 50}"] = f"value {number}"
            numbers[number - 100] = number
        strings.delete_range("key 3", "key 4")
        numbers.bulk_load(np.arange(200, 300), np.arange(100))
        numbers[250] = -1
        store.delete_many(np.arange(50))
        expected = [dict(table.items()) for table in (store, strings, numbers)]
        crashed = copy_of(store, tmp_path)
        store.checkpoint()
        strings["last"] = "one"
        later = copy_of(store, tmp_path)
    for path, last in ((crashed, False), (later, True)):
        with cesium.open(path) as store:
            if last:
                expected[1]["last"] = "one"
            found = [dict(table.items()) for table in (store, *store.tables.values())]
            assert found == expected
            assert store.verify().ok


def test_an_idle_table_does_not_hold_the_journal(tmp_path: Path) -> None:
    options = cesium.Options(
        key="u8", value="u8", durability="process", memory_limit="4MiB", background=False
    )
    with cesium.open(tmp_path / "s", options=options) as store:
        idle = store.table("idle", key="u8", value="u8")
        idle[1] = 2
        for start in range(0, 400_000, 1000):
            store.put_many(np.arange(start, start + 1000), np.arange(1000))
        assert store.stats().journal_bytes < 8 * MIB
        assert idle[1] == 2
        crashed = copy_of(store, tmp_path)
    with cesium.open(crashed) as store:
        assert store.table("idle")[1] == 2 and len(store) == 400_000


def test_memtables_of_many_tables_share_the_memory(tmp_path: Path) -> None:
    options = cesium.Options(
        key="u8", value="u8", durability="process", memory_limit="8MiB", background=False
    )
    with cesium.open(tmp_path / "s", options=options) as store:
        tables = [store.table(f"t{number}", key="u8", value="u8") for number in range(40)]
        most = 0
        for start in range(0, 40_000, 500):
            for table in tables:
                table.put_many(np.arange(start, start + 500), np.arange(500))
            most = max(most, store.memory().total)
        assert most <= 8 * MIB, most
        assert all(len(table) == 40_000 for table in tables)
    with cesium.open(tmp_path / "s") as store:
        assert all(len(table) == 40_000 for table in store.tables.values())


def test_a_thousand_tables(tmp_path: Path) -> None:
    with opened(tmp_path / "s", value="bytes") as store:
        for number in range(1000):
            store.table(f"table {number}", key="u8", value="u8")
        for number in range(0, 1000, 7):
            store.tables[f"table {number}"][number] = number
        crashed = copy_of(store, tmp_path)
    for path in (tmp_path / "s", crashed):
        with cesium.open(path) as store:
            assert len(store.tables) == 1000
            assert sum(len(table) for table in store.tables.values()) == 143
            assert store.memory().total < 16 * MIB


# --- transactions, snapshots, the feed ------------------------------------------------------------


def test_a_transaction_spans_tables(store: cesium.Store) -> None:
    table = store.table("t", key="str", value="u8")
    before = store.sequence
    with store.transaction() as txn:
        txn[1] = 2.0
        inside = txn.table("t")
        inside["a"] = 1
        assert inside["a"] == 1 and txn.table("t")["a"] == 1
        assert "a" not in table and 1 not in store
        inside.put_many(["b", "c"], [2, 3])
        assert list(inside.range("a", "c").keys()) == ["a", "b"]
    assert txn.committed is not None
    assert store.sequence == before + 1 == txn.committed.sequence and txn.committed.rows == 4
    assert dict(table.items()) == {"a": 1, "b": 2, "c": 3} and store[1] == 2.0
    with pytest.raises(ZeroDivisionError), store.transaction() as txn:
        txn.table("t")["a"] = 9
        txn[1] = 1 / 0
    assert table["a"] == 1 and store[1] == 2.0
    with pytest.raises(cesium.ClosedError):
        inside.get("a")


def test_a_transaction_of_one_table_alone(store: cesium.Store) -> None:
    table = store.table("t", key="str", value="u8")
    with table.transaction() as txn:
        txn.table("t").increment("n", 3)
    assert table["n"] == 3
    with pytest.raises(KeyError), store.transaction() as txn:
        txn.table("none")


def test_a_savepoint_is_of_all_tables(store: cesium.Store) -> None:
    table = store.table("t", key="u8", value="u8")
    other = store.table("u", key="u8", value="u8")
    with store.transaction() as txn:
        txn[1] = 1.0
        txn.table("t")[1] = 1
        mark = txn.savepoint()
        txn[1] = 2.0
        txn.table("t")[1] = 2
        txn.table("u")[1] = 2
        mark.rollback()
        assert txn[1] == 1.0 and txn.table("t")[1] == 1 and 1 not in txn.table("u")
        with txn.savepoint():
            txn.table("u")[5] = 5
    assert (store[1], table[1], dict(other.items())) == (1.0, 1, {5: 5})


def test_an_optimistic_transaction_reads_all_tables_as_of_its_beginning(
    store: cesium.Store,
) -> None:
    table = store.table("t", key="u8", value="u8")
    table[1] = 1
    store[1] = 1.0
    with store.transaction(optimistic=True) as txn:
        assert txn[1] == 1.0
        table[1] = 2
        late = store.table("late", key="u8", value="u8")
        late[1] = 1
        assert txn.table("t")[1] == 1, "as of the beginning"
        assert 1 not in txn.table("late"), "there was none"
        txn[2] = 2.0
        with pytest.raises(cesium.ConflictError):
            txn.commit()
    assert 2 not in store
    with store.transaction(optimistic=True) as txn:
        assert txn.table("t")[1] == 2
        txn[2] = 2.0
    assert store[2] == 2.0


def test_threads_move_money_between_tables(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="i8", durability="process") as store:
        other = store.table("other", key="u8", value="i8")
        store.put_many(np.arange(10), np.full(10, 100))
        other.put_many(np.arange(10), np.full(10, 100))
        wrong = []

        def move(seed: int) -> None:
            random = np.random.default_rng(seed)

            def once() -> None:
                with store.transaction(optimistic=bool(seed % 2)) as txn:
                    there = txn.table("other")
                    source, target = (int(number) for number in random.integers(0, 10, 2))
                    amount = int(random.integers(0, 10))
                    txn[source] = txn[source] - amount
                    there[target] = there[target] + amount

            for _ in range(100):
                cesium.retry(once, 1000)

        def look() -> None:
            for _ in range(200):
                with store.snapshot() as seen:
                    total = seen.range().arrays()[1].sum()
                    total += seen.table("other").range().arrays()[1].sum()
                    if total != 2000:
                        wrong.append(int(total))

        threads = [threading.Thread(target=move, args=(seed,)) for seed in range(4)]
        threads.append(threading.Thread(target=look))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert sum(store.values()) + sum(other.values()) == 2000


def test_a_snapshot_shows_all_tables_at_one_commit(store: cesium.Store) -> None:
    table = store.table("t", key="u8", value="u8")
    with store.transaction() as txn:
        txn[1] = 1.0
        txn.table("t")[1] = 1
    snap = store.snapshot()
    with store.transaction() as txn:
        txn[1] = 2.0
        txn.table("t")[1] = 2
    store.table("late", key="u8")
    store.checkpoint()
    assert snap[1] == 1.0 and snap.table("t")[1] == 1 and snap.tables["t"].get(1) == 1
    assert list(snap.tables) == ["t"] and "t" in repr(snap.table("t"))
    with pytest.raises(KeyError, match="no table 'late'"):
        snap.table("late")
    assert store.stats().snapshots == 1
    seen = snap.table("t")
    snap.close()
    for call in (lambda: seen[1], lambda: snap.table("t"), lambda: snap.tables):
        with pytest.raises(cesium.ClosedError):
            call()
    assert table[1] == 2


def test_changes_name_their_tables(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="f8") as store:
        table = store.table("t", key="str", value="u8")
        begin = store.sequence
        store[1] = 1.0
        table["a"] = 1
        with store.transaction() as txn:
            txn[2] = 2.0
            txn.table("t")["b"] = 2
        table.bulk_load(["c"], [3])
        table.delete_range("a", "b")
        found = [
            [(each.table, each.kind) for each in change.operations]
            for change in store.changes(begin)
        ]
        assert found == [
            [("", "put")],
            [("t", "put")],
            [("", "put"), ("t", "put")],
            [("t", "load")],
            [("t", "delete_range")],
        ]
        own = list(table.changes(begin))
        assert [change.sequence for change in own] == [begin + n for n in (2, 3, 4, 5)]
        assert [each.table for change in own for each in change.operations] == ["t"] * 4
        assert list(own[1].operations[0].keys) == ["b"]
        assert own[2].operations[0].arrays()[1].tolist() == [3]
        assert table.watch("b", since=begin, timeout=0).sequence == begin + 3
        assert store.watch(since=begin + 1, timeout=0).sequence == begin + 3
        store.drop_table("t")
        left = [len(change.operations) for change in store.changes(begin)]
        assert left == [1, 0, 1, 0, 0], "what it did to the dropped table is left out"


# --- dropping -------------------------------------------------------------------------------------


def test_a_dropped_table_is_gone(store: cesium.Store) -> None:
    table = store.table("t", key="u8", value="u8")
    table.bulk_load(np.arange(1000), np.arange(1000))
    table[5000] = 1
    store[1] = 1.0
    view = table.range()
    store.drop_table("t")
    assert not store.tables and dict(store.items()) == {1: 1.0}
    for call in (
        lambda: table[1],
        lambda: table.get_many([1]),
        lambda: table.put(1, 2),
        lambda: table.put_many([1], [2]),
        lambda: table.bulk_load([1], [2]),
        lambda: table.delete_range(None, None),
        lambda: table.increment(1),
        lambda: len(table),
        lambda: list(table),
        lambda: len(view),
        lambda: table.update_many([1], np.add, 1),
    ):
        with pytest.raises((cesium.ClosedError, KeyError)):
            call()
    assert "t" in repr(table)
    again = store.table("t", key="str", value="str")
    assert again is not table and len(again) == 0
    again["a"] = "b"
    store.checkpoint()
    assert store.verify().ok


def test_dropping_gives_the_space_back(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        table = store.table("t", key="u8", value="u8")
        table.bulk_load(np.arange(500_000), np.arange(500_000))
        assert store.stats().directory_bytes > 8 * MIB
        snap = store.snapshot()
        store.drop_table("t")
        assert store.stats().directory_bytes > 8 * MIB, "the snapshot keeps its files"
        assert snap.table("t")[77] == 77 and len(snap.table("t")) == 500_000
        snap.close()
        gc.collect()
        assert store.stats().directory_bytes < 2 * MIB, "of which one is the journal"
        assert store.verify().ok


@pytest.mark.parametrize("when", ["journal", "segments", "both"])
def test_a_crash_after_a_drop(tmp_path: Path, when: str) -> None:
    """What the journal has of a dropped table is left out, a load whose files are gone included."""
    with opened(tmp_path / "s") as store:
        table = store.table("t", key="str", value="u8")
        other = store.table("other", key="u8", value="u8")
        if when != "journal":
            table.bulk_load(["x"], [1])
            other.bulk_load([9], [9])
        if when == "segments":
            store.checkpoint()
        with store.transaction() as txn:
            txn.table("t")["a"] = 1
            txn.table("other")[1] = 1
            txn[1] = 1
        table.delete_range("a", "z")
        store.drop_table("t")
        other[2] = 2
        made = store.table("t", key="u8", value="u8")  # the name again, another table
        made[7] = 7
        crashed = copy_of(store, tmp_path)
    with cesium.open(crashed, flag="r") as store:
        expected = {1: 1, 2: 2} | ({9: 9} if when != "journal" else {})
        assert dict(store.table("other").items()) == expected
        assert dict(store.table("t").items()) == {7: 7} and store[1] == 1
    with cesium.open(crashed) as store:
        assert store.verify().ok
    repair(crashed, tmp_path / "repaired")
    with cesium.open(tmp_path / "repaired") as store:
        assert dict(store.table("other").items()) == expected
        assert dict(store.table("t").items()) == {7: 7} and store[1] == 1


def test_dropping_waits_for_a_transaction(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        store.table("t", key="u8", value="u8")
        dropper = threading.Thread(target=store.drop_table, args=("t",))
        with store.transaction() as txn:
            txn.table("t")[1] = 1
            with pytest.raises(cesium.Error, match="transaction open"):
                store.drop_table("t")
            dropper.start()
            txn.table("t")[2] = 2
            txn[1] = 1
        dropper.join()
        assert not store.tables and store[1] == 1


def test_dropping_waits_for_a_transaction_that_began_since_it_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, proceed, done = threading.Event(), threading.Event(), threading.Event()
    reconcile, guard, sync = catalog.reconcile, catalog.WriteGuard, catalog.sync
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        store.table("t", key="u8", value="u8")

        def commit() -> None:
            with store.transaction() as txn:
                txn.table("t")[1] = 1
                txn[1] = 1
                begun.set()
                proceed.wait(60)
            done.set()

        other = threading.Thread(target=commit)

        def reconciled(engine: Any) -> None:
            if not begun.is_set():  # the drop found nobody at work, and has not looked again
                other.start()
                begun.wait(60)
            reconcile(engine)

        def guarded(*given: Any, **more: Any) -> Any:
            if more.get("commits") and begun.is_set():
                proceed.set()  # it waits once more
            return guard(*given, **more)

        def synced(engine: Any) -> None:
            proceed.set()  # it does not
            sync(engine)

        monkeypatch.setattr(catalog, "reconcile", reconciled)
        monkeypatch.setattr(catalog, "WriteGuard", guarded)
        monkeypatch.setattr(catalog, "sync", synced)
        store.drop_table("t")
        other.join()
        assert done.is_set(), "the commit was not refused"
        assert store[1] == 1 and not store.tables


def test_nothing_is_written_to_a_table_while_it_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged would be gone without a word."""
    sync = catalog.sync
    refused = []
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        table = store.table("t", key="u8", value="u8")

        def synced(engine: Any) -> None:
            with pytest.raises(cesium.ClosedError) as caught:
                table[1] = 1
            refused.append(str(caught.value))
            sync(engine)

        monkeypatch.setattr(catalog, "sync", synced)
        store.drop_table("t")
    assert len(refused) == 1 and "dropped" in refused[0]


def test_a_drop_leaves_what_merges_of_others_could_not_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise cesium.StorageFullError("no room")

    with opened(tmp_path / "s") as store:
        kept = store.table("kept", key="u8", value="u8")
        store.table("gone", key="u8", value="u8")[1] = 1
        for value in (1, 2):
            kept.put_many(np.arange(1000), np.full(1000, value))
            store.checkpoint()
        with monkeypatch.context() as patch:
            patch.setattr(merging, "record_segments", full)
            with pytest.raises(cesium.StorageFullError):
                store.compact()
        store.drop_table("gone")
        copy = copy_of(store, tmp_path)
    with cesium.open(copy) as found:
        assert found.table("kept")[7] == 2 and found.verify().ok


def test_an_optimistic_transaction_of_a_dropped_table_fails_whole(store: cesium.Store) -> None:
    store.table("t", key="u8", value="u8")
    with pytest.raises(cesium.ClosedError, match="dropped"), store.transaction(True) as txn:
        txn[1] = 1.0
        txn.table("t")[1] = 1
        store.drop_table("t")
    assert 1 not in store


def test_a_drop_that_cannot_be_written_leaves_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        table = store.table("t", key="u8", value="u8")
        table[1] = 1

        def full(edit: object) -> None:
            raise cesium.StorageFullError("the drive is full")

        with monkeypatch.context() as patched:
            patched.setattr(store._engine, "append_edit", full)
            with pytest.raises(cesium.StorageFullError):
                store.drop_table("t")
            with pytest.raises(cesium.StorageFullError):
                store.table("u", key="u8")
        assert table[1] == 1 and list(store.tables) == ["t"]
        table[2] = 2
    with cesium.open(tmp_path / "s") as store:
        assert dict(store.table("t").items()) == {1: 1, 2: 2}


@pytest.mark.parametrize("where", ["append_edit", "retire", "let_go", "sync", "reconcile"])
def test_an_interrupt_in_the_midst_of_a_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Dropped or not dropped, and the store goes on, is closed and opens again."""
    with opened(tmp_path / "s") as store:
        table = store.table("t", key="u8", value="u8")
        table.bulk_load([1, 2], [3, 4])
        table[3] = 5
        store[1] = 1
        engine = store._engine
        append_edit = engine.append_edit

        def edit_and_stop(edit: Any) -> None:
            append_edit(edit)
            raise KeyboardInterrupt

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            if where == "append_edit":
                patched.setattr(engine, "append_edit", edit_and_stop)
            else:
                patched.setattr(catalog, where, stop)
            with contextlib.suppress(KeyboardInterrupt):
                store.drop_table("t")
        store[2] = 2
        store.checkpoint()
        assert store.verify().ok
        if where in ("sync", "reconcile"):  # before the manifest was written
            assert store.table("t")[3] == 5 and table[2] == 4
            store.drop_table("t")
        with pytest.raises(KeyError):
            store.table("t")
        assert list(store.tables) == []
        store.table("t", key="str", value="u8")["new"] = 1
        crashed = copy_of(store, tmp_path)
    for path in (tmp_path / "s", crashed):
        with cesium.open(path) as store:
            assert dict(store.items()) == {1: 1, 2: 2} and store.verify().ok
            assert dict(store.table("t").items()) == {"new": 1}
            store[9] = 9
            live = {reader.record.id for reader in store._engine.segments()}
            found = {int(name[8:]) for name in os.listdir(path) if name.startswith("segment-")}
            assert found == live, "what the interrupt left was removed by the first write"


def test_an_interrupt_in_the_midst_of_making_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "s") as store:
        append_edit = store._engine.append_edit

        def edit_and_stop(edit: Any) -> None:
            append_edit(edit)
            raise KeyboardInterrupt

        for patched_reconcile in (False, True):
            name = f"t{patched_reconcile}"
            with monkeypatch.context() as patched:
                patched.setattr(store._engine, "append_edit", edit_and_stop)
                if patched_reconcile:
                    patched.setattr(catalog, "_add", lambda *_: None)
                with pytest.raises(KeyboardInterrupt):
                    store.table(name, key="u8", value="u8")
            store.table(name, key="u8", value="u8")[1] = 1
        assert list(store.tables) == ["tFalse", "tTrue"]
    with cesium.open(tmp_path / "s") as store:
        assert [dict(table.items()) for table in store.tables.values()] == [{1: 1}] * 2


def test_tables_of_a_store_without_a_journal(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8", durability="none") as store:
        store.table("t", key="u8", value="u8")[1] = 1
        store.table("kept", key="u8", value="u8")[2] = 2
        store[3] = 3
        store.drop_table("t")
        crashed = copy_of(store, tmp_path)
    with cesium.open(crashed) as store:
        assert list(store.tables) == ["kept"] and store.table("kept")[2] == 2 and store[3] == 3


def test_an_optimistic_transaction_looks_for_tables_between_two_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that is made, and written to, before it begins would count as empty."""
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        engine = store._engine
        cores = engine.cores
        alone = []

        def seen() -> Any:
            alone.append(engine.core_engine.is_writing_here)
            return cores()

        monkeypatch.setattr(engine, "cores", seen)
        with store.transaction(optimistic=True) as txn:
            txn[1] = 1
        assert alone[:1] == [True]


def test_the_handle_of_a_dropped_table_is_closed(store: cesium.Store) -> None:
    table = store.table("t", key="u8", value="u8")
    table[1] = 1
    with store.snapshot() as snapshot:
        seen = snapshot.table("t")
        store.drop_table("t")
        assert table.closed and repr(table).startswith("<closed")
        assert not seen.closed and seen[1] == 1 and not store.closed


def test_a_reader_never_shows_a_dropped_table_beside_later_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "s") as writer:
        writer.table("t", key="u8", value="u8")[1] = 1
        engine = StoreEngine(str(tmp_path / "s"), cesium.Options(flag="r"))
        engine.handles = 1
        with cesium.Store(engine, cesium.Options(flag="r")) as reader:
            found = refreshing.fingerprint

            def later(files: Any) -> Any:
                names = found(files)
                if "t" in writer.tables:  # as soon as the reader has looked at the manifest
                    writer.drop_table("t")
                    writer[2] = 2
                return names

            monkeypatch.setattr(refreshing, "fingerprint", later)
            assert reader.refresh() == writer.sequence
            assert dict(reader.items()) == {2: 2} and not reader.tables


def test_a_lost_manifest_does_not_cost_the_default_table_s_commits(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        store[1] = 1
        late = store.table("late", key="u8", value="u8")
        late[1] = 1
        store[2] = 2
        late[7] = 7
        crashed = copy_of(store, tmp_path)
    for name in crashed.glob("manifest-*"):
        name.unlink()
    report = repair(crashed, tmp_path / "repaired")
    assert any("schema nothing says" in note for note in report.notes), report.notes
    with cesium.open(tmp_path / "repaired") as store:
        assert dict(store.items()) == {1: 1, 2: 2} and not store.tables


def test_a_dropped_table_does_not_come_back_with_a_damaged_manifest(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        store[1] = 1
        store.table("gone", key="u8", value="u8")[7] = 7
        store.checkpoint()
        store[2] = 2  # into a journal file whose header tells of the table
        store.drop_table("gone")
        crashed = copy_of(store, tmp_path)
    (manifest,) = crashed.glob("manifest-*")
    content = bytearray(manifest.read_bytes())
    content[70] ^= 1  # in the first frame; the later ones are sound
    manifest.write_bytes(content)
    with pytest.raises(cesium.CorruptionError):
        cesium.open(crashed)
    repair(crashed, tmp_path / "repaired")
    with cesium.open(tmp_path / "repaired") as store:
        assert dict(store.items()) == {1: 1, 2: 2} and not store.tables


# --- other processes ------------------------------------------------------------------------------


def test_a_reader_follows_tables(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8") as writer:
        table = writer.table("t", key="u8", value="u8")
        table[1] = 1
        # As in another process: an engine of its own.
        engine = StoreEngine(str(tmp_path / "s"), cesium.Options(flag="r"))
        engine.handles = 1
        with cesium.Store(engine, cesium.Options(flag="r")) as reader:
            mirror = reader.table("t")
            for number in range(2, 40):
                table[number] = number
                writer[number] = number
                if number % 3 == 0:
                    table.bulk_load([1000 + number], [number])
                if number % 10 == 0:
                    writer.checkpoint()
                if number == 20:
                    writer.table("late", key="str", value="str")["a"] = "b"
                assert reader.refresh() == writer.sequence
                assert dict(mirror.items()) == dict(table.items())
                assert dict(reader.items()) == dict(writer.items())
            assert reader.table("late")["a"] == "b"
            writer.drop_table("t")
            writer[5000] = 1
            reader.refresh()
            assert list(reader.tables) == ["late"] and reader[5000] == 1
            with pytest.raises(cesium.ClosedError, match="dropped"):
                mirror.get(1)


# --- keeping --------------------------------------------------------------------------------------


def test_statistics_are_of_all_tables(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        table = store.table("t", key="u8", value="u8")
        table.bulk_load(np.arange(1000), np.arange(1000))
        store[1] = 1
        found = store.stats()
        assert found.tables == 1 and found.estimated_rows == 1001 and found.segments == 1


def test_merges_are_of_each_table(tmp_path: Path) -> None:
    options = cesium.Options(key="u8", value="u8", background=False)
    with cesium.open(tmp_path / "s", options=options) as store:
        table = store.table("t", key="u8", value="u8")
        for round_ in range(30):
            table.put_many(np.arange(round_, 2000, 7), np.full(len(range(round_, 2000, 7)), round_))
            store.put_many(np.arange(round_, 2000, 11), np.zeros(len(range(round_, 2000, 11))))
            store.checkpoint()
        assert store.stats().read_amplification < 12
        assert maintenance.sources_most(store._engine) < 12
        rows = dict(table.items())
        table.compact()
        assert dict(table.items()) == rows
        assert table.core.version.segments() and store.verify().ok


def test_a_lost_manifest_is_made_again_with_all_tables(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        table = store.table("t", key="str", value="f8")
        gone = store.table("gone", key="u8", value="u8")
        for round_ in range(3):
            table.put_many([f"{round_}-{number}" for number in range(50)], np.arange(50.0))
            store.put_many(np.arange(50), np.full(50, round_))
            gone[round_] = round_
            store.checkpoint()
        table.bulk_load(["loaded"], [1.5])
        store.drop_table("gone")
        table["journal"] = 2.5
        expected = dict(store.items()), dict(table.items())
        crashed = copy_of(store, tmp_path)
    for name in os.listdir(crashed):
        if name.startswith("manifest-"):
            data = bytearray((crashed / name).read_bytes())
            data[100:140] = bytes(40)  # the snapshot frame; edits behind it are hints
            (crashed / name).write_bytes(data)
    repair(crashed, tmp_path / "repaired")
    with cesium.open(tmp_path / "repaired") as store:
        assert (dict(store.items()), dict(store.table("t").items())) == expected
        assert store.verify().ok


def test_damage_in_a_table_is_told_and_repaired(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        table = store.table("t", key=("str", "i4"), value="u8")
        keys = [(f"name {number % 10}", number) for number in range(3000)]
        table.put_many(keys, np.arange(3000))
        store[1] = 1
    (name,) = (
        each
        for each in os.listdir(tmp_path / "s")
        if each.startswith("segment-") and os.path.getsize(tmp_path / "s" / each) > 20_000
    )
    with open(tmp_path / "s" / name, "r+b") as file:
        file.seek(2 * 4096 + 100)
        file.write(b"\xff" * 20)
    with cesium.open(tmp_path / "s", flag="r") as store:
        report = store.verify()
        assert not report.ok and isinstance(report.problems[0].keys[0], tuple)
    assert not verify_directory(tmp_path / "s").ok
    repaired = repair(tmp_path / "s", tmp_path / "repaired")
    assert isinstance(repaired.doubts[0].keys[0], tuple)
    with cesium.open(tmp_path / "repaired") as store:
        assert 2000 < len(store.table("t")) < 3000 and store[1] == 1 and store.verify().ok
        assert all(isinstance(each, SegmentReader) for each in store._engine.segments())


# --- the command line -----------------------------------------------------------------------------


def test_commands_take_a_table(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with cesium.open(path, key="u8", value="u8") as store:
        store.table("pairs", key=("str", "i4"), value=TRADE)["a", 1] = (1.5, 2)
    assert succeed("get", path, "a,1", "--table", "pairs").split() == ["price", "1.5", "size", "2"]
    succeed("put", path, "b,-7", "[2.5, 3]", "--table", "pairs")
    found = succeed("range", path, "--table", "pairs", "--from", "b")
    assert found.split() == ["b", "-7", "2.5", "3"]
    succeed("delete", path, "a,1", "--table", "pairs")
    assert "no key a,1 in table 'pairs' of" in fail(3, "get", path, "a,1", "--table", "pairs")
    assert "no table 'x' in" in fail(3, "range", path, "--table", "x")
    assert "there are: 'pairs'" in fail(3, "put", path, "1", "2", "--table", "x")
    assert "table pairs" in succeed("info", path)
    tables = json.loads(succeed("info", path, "--json"))["tables"]
    assert [table["name"] for table in tables] == ["pairs"] and tables[0]["key"] == ["str", "i4"]
    assert succeed("range", path) == ""
