"""The memtable in lock-step with a dict and bisect, on tiny and on real pages, under snapshots.

After every step the memtable checks itself; snapshots are held and released in random order, each
compared with a frozen copy of the model.  At the end the rare events must have happened, and every
byte must have been given back.
"""

import gc
import random
from bisect import bisect_left

import pytest

from cesium._memtable import Memtable, held_bytes
from cesium._page import TableShape

VALUE, DELETE = 0, 1


class Model:
    """What a memtable ought to hold: entries, and range-delete markers as disjoint intervals."""

    def __init__(self) -> None:
        self.entries: dict = {}
        self.markers: list = []

    def copy(self) -> "Model":
        other = Model()
        other.entries = dict(self.entries)
        other.markers = list(self.markers)
        return other

    def delete_range(self, lower, upper) -> None:
        if upper is not None and lower >= upper:
            return
        doomed = [k for k in self.entries if k >= lower and (upper is None or k < upper)]
        for key in doomed:
            del self.entries[key]
        kept = []
        for low, high in self.markers:
            if (high is not None and high < lower) or (upper is not None and low > upper):
                kept.append((low, high))
            else:
                lower = min(lower, low)
                upper = None if upper is None or high is None else max(upper, high)
        self.markers = sorted([*kept, (lower, upper)])

    def items(self) -> list:
        return [(key, *self.entries[key]) for key in sorted(self.entries)]

    def masked(self, key) -> bool:
        return any(low <= key and (high is None or key < high) for low, high in self.markers)


class Keys:
    """Random keys of one form, from pools that make pages, prefixes and ties collide."""

    def __init__(self, rng: random.Random, fixed: bool, tiny: bool) -> None:
        self.rng = rng
        self.fixed = fixed
        self.space = 150 if tiny else 20_000
        self.next = 0
        self.prefixes = [
            b"",
            b"a",
            b"common prefix of a good many bytes / ",
            b"common prefix of a good many bytes / and yet more, so that it grows beyond what "
            b"nodes keep of it, which is a hundred and twenty bytes, to the byte / ",
            b"\0\0\0\0\0\0\0\0",
            b"\xff" * 9,
            bytes(range(256)) * 2 + b"behind the first 512 bytes: ",
        ]

    def make(self):
        rng = self.rng
        if rng.random() < 0.15:  # ascending, so that pages are appended to
            self.next += 1
            number = self.next
        else:
            number = rng.randrange(self.space)
        if self.fixed:
            return number * 0x9E37_79B9_7F4A_7C15 % 2**64 if number % 2 else number << 40
        style = rng.random()
        prefix = rng.choice(self.prefixes)
        if style < 0.5:
            return prefix + b"%08d" % number
        if style < 0.7:
            return prefix + b"\0" * (number % 20)  # prefixes of each other, equal heads
        if style < 0.9:
            return prefix + bytes([number % 3] * (number % 7)) + b"%d" % (number % 50)
        if style < 0.95:
            return prefix + b"x" * (number % 700)  # to either side of what stays in the page
        return prefix


def make_value(rng: random.Random, width: int) -> bytes:
    if width:
        return rng.randbytes(width)
    size = rng.choice([0, 1, 8, 8, 8, 30, 100, 100, 700, 1023, 1024, 1025, 3000])
    return rng.randbytes(size)


def compare(view, model: Model) -> None:
    items = model.items()
    assert view.items() == items
    assert view.items(backward=True) == items[::-1]
    assert view.markers() == model.markers


def compare_points(view, model: Model, keys: Keys, ordered: list) -> None:
    key = keys.make()
    assert view.find(key) == model.entries.get(key, model.masked(key))
    index = bisect_left(ordered, key)
    wanted = (ordered[index], *model.entries[ordered[index]]) if index < len(ordered) else None
    assert view.ceiling(key) == wanted


def choose_range(rng: random.Random, ordered: list, keys: Keys) -> tuple:
    """Mostly some entries of what is there; now and then anything, or no upper end."""
    width = rng.random()
    if width < 0.04 or not ordered:
        return keys.make(), keys.make()
    start = rng.randrange(len(ordered))
    stop = start + rng.randrange(12 if width < 0.7 else 2 + len(ordered) // 8)
    if stop >= len(ordered):
        return ordered[start], None if width < 0.3 else ordered[-1]
    return ordered[start], ordered[stop]


SHAPES = {
    "fixed-fixed": (8, 12, (8, 4)),
    "fixed-variable": (8, 0, ()),
    "variable-fixed": (0, 8, ()),
    "variable-variable": (0, 0, ()),
}


def run(name: str, slots_max: int, steps: int, seed: int, check_every: int) -> dict[str, int]:
    key_width, value_width, fields = SHAPES[name]
    rng = random.Random(seed)
    gc.collect()  # what earlier tests left to the collector
    held = held_bytes()
    memtable = Memtable(TableShape(key_width, value_width, fields, slots_max))
    model = Model()
    keys = Keys(rng, key_width > 0, slots_max > 0)
    snapshots: list = []
    seen: dict[str, int] = {}
    spell = 200 if slots_max else 3000  # steps of growth, twice, then of shrinking
    for step in range(steps):
        growing = step // spell % 3 != 2
        choice = rng.random()
        changes = memtable.counters()["changes"]
        if choice < (0.90 if growing else 0.55):
            key, value = keys.make(), make_value(rng, value_width)
            kind = DELETE if rng.random() < 0.12 else VALUE
            memtable.put(key, value, kind)
            model.entries[key] = (kind, b"" if kind == DELETE else value)
            assert memtable.counters()["changes"] == changes + 1
        elif choice < (0.905 if growing else 0.85):
            lower, upper = choose_range(rng, sorted(model.entries), keys)
            memtable.delete_range(lower, upper)
            model.delete_range(lower, upper)
        elif choice < 0.96 and len(snapshots) < 6:
            snapshots.append((memtable.snapshot(), model.copy()))
        elif snapshots:
            snapshot, frozen = snapshots.pop(rng.randrange(len(snapshots)))
            compare(snapshot, frozen)
            snapshot.close()
        if step % check_every == 0:
            assert memtable.check() == 0
            ordered = sorted(model.entries)
            for _ in range(3):
                compare_points(memtable, model, keys, ordered)
            if step % (5 * check_every) == 0:
                compare(memtable, model)
                for snapshot, frozen in snapshots:
                    compare(snapshot, frozen)
                    assert snapshot.entries == len(frozen.entries)
                    assert snapshot.delete_markers == sum(
                        kind == DELETE for kind, _ in frozen.entries.values()
                    )
        counters = memtable.counters()
        assert counters["entries"] == len(model.entries)
        seen["retired"] = max(seen.get("retired", 0), counters["retired"])
    assert memtable.check() == 0
    compare(memtable, model)
    rng.shuffle(snapshots)
    for snapshot, frozen in snapshots:
        compare(snapshot, frozen)
        snapshot.close()
        assert memtable.check() == 0
    seen |= {k: memtable.counters()[k] for k in ("splits", "joins", "page_copies", "rebuilds")}
    assert memtable.counters()["retired"] == 0
    lowest = 0 if key_width else b""
    memtable.delete_range(lowest, None)
    counters = memtable.counters()
    assert memtable.check() == 0
    assert memtable.items() == []
    assert counters["entries"] == counters["delete_markers"] == counters["pages"] == 0
    assert counters["bytes"] < 40_000  # the root, as large as it has grown, and one marker
    del memtable, snapshots, snapshot
    gc.collect()
    assert held_bytes() == held
    return seen


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", [1, 2])
def test_tiny_pages(name: str, seed: int) -> None:
    seen = run(name, slots_max=4, steps=3000, seed=seed, check_every=1)
    for event in ("splits", "joins", "page_copies", "retired"):
        assert seen[event] > 0, event


@pytest.mark.parametrize("name", SHAPES)
def test_real_pages(name: str) -> None:
    seen = run(name, slots_max=0, steps=20_000, seed=3, check_every=100)
    for event in ("splits", "joins", "page_copies", "rebuilds", "retired"):
        assert seen[event] > 0, event
