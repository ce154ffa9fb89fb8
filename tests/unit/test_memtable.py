"""What a memtable promises, case by case; the lock-step test against a model is in tests/model."""

import gc
import threading

import numpy as np
import pytest

from cesium._memtable import Memtable, held_bytes
from cesium._page import TableShape

DELETE = 1
FIXED = (8, 8)
VARIABLE = (0, 0)


def row(number: int) -> bytes:
    return number.to_bytes(8, "little")


def keys_of(memtable_or_snapshot) -> list:
    return [key for key, _, _ in memtable_or_snapshot.items()]


@pytest.fixture(autouse=True)
def nothing_leaks():
    gc.collect()
    held = held_bytes()
    yield
    gc.collect()
    assert held_bytes() == held


def test_an_empty_memtable():
    memtable = Memtable(TableShape(*FIXED))
    assert memtable.items() == memtable.items(backward=True) == []
    assert memtable.find(1) is False
    assert memtable.ceiling(0) is None
    assert memtable.markers() == []
    assert memtable.check() == 0
    snapshot = memtable.snapshot()
    memtable.put(5, row(1))
    assert snapshot.items() == []
    assert snapshot.ceiling(0) is None
    snapshot.close()
    snapshot.close()
    with pytest.raises(ValueError, match="closed"):
        snapshot.items()
    assert memtable.check() == 0


def test_overwriting_and_delete_markers_are_counted():
    memtable = Memtable(TableShape(*FIXED))
    memtable.put(7, row(1))
    memtable.put(7, row(2))
    assert memtable.find(7) == (0, row(2))
    memtable.put(7, b"", DELETE)
    assert memtable.find(7) == (DELETE, b"")
    memtable.put(7, b"", DELETE)
    memtable.put(8, b"", DELETE)
    counters = memtable.counters()
    assert (counters["entries"], counters["delete_markers"], counters["changes"]) == (2, 2, 5)
    memtable.put(7, row(3))
    assert memtable.counters()["delete_markers"] == 1
    assert memtable.check() == 0


def test_a_marker_masks_what_is_older_and_a_later_put_stands():
    memtable = Memtable(TableShape(*FIXED))
    memtable.put(5, row(1))
    memtable.delete_range(3, 9)
    assert memtable.find(5) is True  # masked: gone, and older sources must not be asked
    assert memtable.find(9) is False
    memtable.put(5, row(2))
    assert memtable.find(5) == (0, row(2))
    assert memtable.markers() == [(3, 9)]
    memtable.delete_range(9, 9)
    memtable.delete_range(9, 4)
    assert memtable.markers() == [(3, 9)]
    assert memtable.counters()["changes"] == 3


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("form", ["fixed", "variable"])
def test_sequential_puts_leave_full_pages(step, form):
    memtable = Memtable(TableShape(*(FIXED if form == "fixed" else (0, 8))))
    for number in range(30_000)[::step]:
        key = number if form == "fixed" else b"a common prefix/%09d" % number
        memtable.put(key, row(number))
    counters = memtable.counters()
    assert memtable.check() == 0
    assert len(memtable.items()) == 30_000
    # 252 rows of 16 bytes; 4032 bytes over heads, entries, rows and little of the key behind them.
    assert counters["entries"] / counters["pages"] > (245 if form == "fixed" else 150)


def test_the_common_prefix_is_stored_once_a_page():
    memtable = Memtable(TableShape(0, 8))
    prefix = b"https://example.com/a/rather/long/path/that/all/keys/share/and/then/some/"
    numbers = np.random.default_rng(1).permutation(20_000)
    for number in numbers.tolist():
        memtable.put(prefix + b"%08d" % number, row(number))
    assert memtable.check() == 0
    counters = memtable.counters()
    assert counters["bytes"] / counters["entries"] < 42  # the keys alone have 81 bytes


def test_keys_that_begin_with_each_other_and_embedded_zeros():
    memtable = Memtable(TableShape(*VARIABLE, slots_max=3))
    keys = [b"", b"\0", b"\0" * 7, b"\0" * 8, b"\0" * 9, b"a", b"a\0", b"a" * 8, b"a" * 8 + b"\0"]
    keys += [b"p" * n for n in (255, 503, 504, 505, 511, 512, 513, 520, 2000, 65_536)]
    keys += [b"p" * 511 + b"\0", b"p" * 512 + b"\0", b"p" * 512 + b"\0" * 9, b"p" * 512 + b"q"]
    for number, key in enumerate(keys[::-1] + keys):
        memtable.put(key, b"%d" % number)
        assert memtable.check() == 0
    assert keys_of(memtable) == sorted(keys)
    for number, key in enumerate(keys):
        assert memtable.find(key) == (0, b"%d" % (len(keys) + number))
        assert memtable.ceiling(key)[0] == key
    with pytest.raises(TypeError):
        memtable.put(b"x" * 65_537, b"")


@pytest.mark.parametrize("size", [1023, 1024, 1025, 100_000])
def test_long_values_are_chunks_of_their_own_and_are_given_back(size):
    memtable = Memtable(TableShape(*VARIABLE))
    memtable.put(b"k", b"short")
    before = memtable.counters()["bytes"]
    memtable.put(b"k", b"v" * size)
    grown = memtable.counters()["bytes"] - before
    assert grown == 0 if size <= 1024 else size <= grown <= size + 64
    snapshot = memtable.snapshot()
    memtable.put(b"k", b"w" * size)
    assert snapshot.find(b"k") == (0, b"v" * size)
    snapshot.close()
    memtable.put(b"k", b"short")
    assert memtable.counters()["bytes"] == before
    assert memtable.check() == 0


def test_a_value_beyond_the_limit_is_refused():
    memtable = Memtable(TableShape(*VARIABLE))
    with pytest.raises(ValueError):
        memtable.put(b"k", bytes(64 * 2**20 + 1))
    assert memtable.items() == []
    memtable.put(b"k", bytes(64 * 2**20))
    assert len(memtable.find(b"k")[1]) == 64 * 2**20


def test_every_range_over_few_keys():
    """Every pair of bounds, on pages so small that every case of edges and nodes occurs."""
    for slots_max in (1, 2, 4):
        for lower in range(26):
            for upper in [*range(lower, 26), None]:
                memtable = Memtable(TableShape(*FIXED, slots_max=slots_max))
                for number in range(12):
                    memtable.put(2 * number + 1, row(number))
                snapshot = memtable.snapshot()
                memtable.delete_range(lower, upper)
                end = 26 if upper is None else upper
                left = [k for k in range(1, 25, 2) if not lower <= k < end]
                assert keys_of(memtable) == left
                assert memtable.check() == 0
                assert keys_of(snapshot) == list(range(1, 25, 2))
                snapshot.close()
                assert memtable.check() == 0


def test_nothing_is_copied_without_a_snapshot_and_a_page_once_for_each():
    memtable = Memtable(TableShape(*FIXED))
    for number in range(100):
        memtable.put(number * 10, row(number))
    assert memtable.counters()["page_copies"] == 0
    snapshot = memtable.snapshot()
    bytes_before = memtable.counters()["bytes"]
    for number in range(1, 6):
        memtable.put(number, row(number))
    assert memtable.counters()["page_copies"] == 1
    assert memtable.counters()["bytes"] > bytes_before
    assert memtable.counters()["retired"] == 3  # the page, its node, the root
    snapshot.close()
    assert memtable.counters()["retired"] == 0
    assert memtable.counters()["bytes"] == bytes_before
    memtable.put(7, row(7))
    assert memtable.counters()["page_copies"] == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
def test_snapshots_released_in_any_order_keep_what_they_saw(order):
    memtable = Memtable(TableShape(*VARIABLE, slots_max=4))
    snapshots = []
    frozen = []
    for generation in range(3):
        for number in range(generation, 60, 3):
            memtable.put(b"%03d" % number, b"%d/" % generation * 500)
        memtable.delete_range(b"%03d" % (10 * generation), b"%03d" % (10 * generation + 7))
        snapshots.append(memtable.snapshot())
        frozen.append((memtable.items(), memtable.markers()))
    for number in range(60):
        memtable.put(b"%03d" % number, b"last")
    for index in order:
        for other in (i for i in range(3) if snapshots[i] is not None):
            assert (snapshots[other].items(), snapshots[other].markers()) == frozen[other]
        snapshots[index].close()
        snapshots[index] = None
        assert memtable.check() == 0
        # What no snapshot sees any more may change in place again.
        memtable.put(b"%03d" % index, b"in between" * 200)
        assert memtable.check() == 0
    assert memtable.counters()["retired"] == 0


def test_a_snapshot_keeps_its_memtable():
    snapshot = Memtable(TableShape(*FIXED)).snapshot()
    gc.collect()
    assert snapshot.items() == []
    assert snapshot.memtable.check() == 0


def test_readers_of_snapshots_run_beside_the_writer():
    """Puts release the GIL; snapshots are taken under a lock, read and closed without."""
    memtable = Memtable(TableShape(*FIXED))
    lock = threading.Lock()
    done = threading.Event()
    problems: list[str] = []
    reads: list[int] = []

    def read() -> None:
        while not done.is_set():
            with lock:
                snapshot = memtable.snapshot()
            first = snapshot.items()
            if snapshot.items(backward=True) != first[::-1] or len(first) != snapshot.entries:
                problems.append("a snapshot changed")
            snapshot.close()
            reads.append(len(first))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    rng = np.random.default_rng(5)
    while len(reads) < 60 or memtable.counters()["page_copies"] == 0:
        keys = rng.integers(0, 4000, 2000).astype(np.uint64)
        with lock:
            memtable.put_many(keys, keys.view(np.uint8).reshape(-1, 8))
            memtable.delete_range(int(keys[0]), int(keys[0]) + 300)
    done.set()
    for reader in readers:
        reader.join()
    assert not problems
    assert memtable.check() == 0
    assert memtable.counters()["retired"] == 0


def build(shape: TableShape, entries: int, value: bytes) -> Memtable:
    memtable = Memtable(shape)
    for number in range(entries):
        memtable.put(b"%05d" % (2 * number), value)
    return memtable


ACTIONS = {
    "first": (0, lambda m: m.put(b"k", b"v")),
    "insert": (90, lambda m: m.put(b"00051", b"v")),
    "insert a long key": (90, lambda m: m.put(b"00051" * 200, b"v" * 5000)),
    "overwrite": (90, lambda m: m.put(b"00050", b"v" * 5000)),
    "delete marker": (90, lambda m: m.put(b"00050", b"", DELETE)),
    "append": (64, lambda m: m.put(b"9", b"v")),
    "prepend": (64, lambda m: m.put(b"0", b"v")),
    "delete a range": (90, lambda m: m.delete_range(b"00021", b"00151")),
    "delete all": (90, lambda m: m.delete_range(b"", None)),
}


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("slots_max", [4, 0])
@pytest.mark.parametrize("action", ACTIONS)
def test_whichever_allocation_fails_nothing_has_changed(action, slots_max, pinned):
    entries, act = ACTIONS[action]
    failures = 0
    for allocations in range(50):
        memtable = build(TableShape(*VARIABLE, slots_max=slots_max), entries, b"x" * 90)
        snapshot = memtable.snapshot() if pinned else None
        before = (memtable.items(), memtable.markers(), memtable.counters()["changes"])
        memtable.allow(allocations)
        try:
            act(memtable)
        except MemoryError:
            failures += 1
            assert memtable.check() == 0
            after = (memtable.items(), memtable.markers(), memtable.counters()["changes"])
            assert after == before
            memtable.allow(None)
            act(memtable)
            succeeded = False
        else:
            succeeded = True
        assert memtable.check() == 0
        assert memtable.items() != before[0]
        if pinned:
            assert snapshot.items() == before[0]
            snapshot.close()
        assert memtable.check() == 0
        if succeeded:
            break
    else:
        pytest.fail("the action never had enough")
    if pinned:
        assert failures >= (2 if entries else 1)
