"""A real process, killed with SIGKILL in the middle of its writes: nothing acknowledged is lost.

The child prints a line after each commit that was acknowledged; the parent reads so many lines and
kills it, without any clock.  Every operation is a function of its number, so the parent knows what
the store held after each of them, and the two states that the child may have left: that of the last
acknowledged operation, and that of the one under way.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium

pytestmark = pytest.mark.crash

KEYS = 400
OPERATIONS = 400

Model = dict[int, float]


def operation(seed: int, number: int) -> tuple[str, Any]:
    """What operation `number` does: a name and its arguments."""
    rng = random.Random(f"{seed} {number}")
    kind = rng.choices(
        ("put", "delete", "put_many", "delete_range", "bulk_load", "checkpoint", "compact"),
        (10, 3, 6, 1, 1, 0.5, 0.3),
    )[0]
    if kind == "put":
        return kind, (rng.randrange(KEYS), float(number))
    if kind == "delete":
        return kind, (rng.randrange(KEYS),)
    if kind == "delete_range":
        lo = rng.randrange(KEYS)
        return kind, (lo, lo + rng.randrange(60))
    if kind in ("checkpoint", "compact"):
        return kind, ()
    rows = rng.randrange(2, 120)
    keys = [rng.randrange(KEYS) for _ in range(rows)]
    return kind, (np.array(keys, "u8"), np.full(rows, float(number)))


def apply(model: Model, kind: str, arguments: Any) -> None:
    if kind == "put":
        model[arguments[0]] = arguments[1]
    elif kind == "delete":
        model.pop(arguments[0], None)
    elif kind == "delete_range":
        for key in range(*arguments):
            model.pop(key, None)
    elif kind in ("put_many", "bulk_load"):
        model.update(zip(arguments[0].tolist(), arguments[1].tolist()))


def work(path: str, durability: str, seed: int, first: int) -> None:
    """The child: does operations from `first` on, and says each one that was acknowledged."""
    store = cesium.open(path, key="u8", value="f8", durability=durability)
    # A memtable of a few pages, so that the kill also meets flushes and merges.
    store.core.memtable_limit_bytes = 40_000
    print("ready", flush=True)
    for number in range(first, first + OPERATIONS):
        kind, arguments = operation(seed, number)
        getattr(store, kind)(*arguments)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
    sys.stdin.read()  # the parent kills; it never ends by itself


def run_and_kill(path: Path, durability: str, seed: int, first: int, lines: int) -> int:
    """Starts a child, reads `lines` acknowledgements, kills it; returns the last acknowledged."""
    child = subprocess.Popen(
        [sys.executable, __file__, str(path), durability, str(seed), str(first)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stdin is not None
    try:
        assert child.stdout.readline() == "ready\n"
        last = first - 1
        for _ in range(lines):
            last = int(child.stdout.readline())
    finally:
        child.kill()
        rest = child.stdout.read().splitlines()
        child.wait()
        child.stdout.close()
        child.stdin.close()
    # What was in the pipe was acknowledged as well: lines are written whole, by one write each.
    return max([last, *map(int, rest)])


@pytest.mark.parametrize("durability", ["process", "sync"])
@pytest.mark.parametrize("seed", range(2))
def test_sigkill(tmp_path: Path, durability: str, seed: int) -> None:
    path = tmp_path / "store"
    rng = random.Random(seed)
    model: Model = {}
    first = 0
    for lines in (1, rng.randrange(2, 60), rng.randrange(60, 300)):
        last = run_and_kill(path, durability, seed, first, lines)
        for number in range(first, last + 1):
            apply(model, *operation(seed, number))
        # At most the operation after the last acknowledged one may have come through besides.
        under_way = dict(model)
        apply(under_way, *operation(seed, last + 1))
        with cesium.open(path, flag="r") as reader:
            seen = dict(reader.items())
            assert seen in (model, under_way), f"seed {seed}, {lines} lines, last {last}"
        options = cesium.Options(durability=durability, background=False)
        with cesium.open(path, options=options) as store:
            assert dict(store.items()) == seen and len(store) == len(seen)
            keys, values = store.range().arrays()
            assert dict(zip(keys.tolist(), values.tolist())) == seen
            report = store.verify()
            assert report.ok, report.problems
            # The opened store writes on, and files of unfinished work are gone afterwards.
            store[KEYS + 1] = -1.0
            del store[KEYS + 1]
            live = {reader.record.id for reader in store.core.version.segments()}
            found = {int(item.name[8:]) for item in path.glob("segment-*")}
            assert found == live
        model = seen
        first = last + 2  # the one under way is settled, whichever way it went


@pytest.mark.parametrize("durability", ["process", "sync"])
def test_a_batch_is_whole_or_absent(tmp_path: Path, durability: str) -> None:
    """Large batches over the same keys: whichever came last, all rows are of one batch."""
    path = tmp_path / "store"
    code = (
        "import sys, cesium, numpy as np\n"
        "store = cesium.open(sys.argv[1], key='u8', value='f8', durability=sys.argv[2])\n"
        "keys = np.arange(20_000, dtype='u8')\n"
        "for number in range(10**6):\n"
        "    write = store.bulk_load if number % 5 == 4 else store.put_many\n"
        "    write(keys, np.full(len(keys), float(number)))\n"
        "    print(number, flush=True)\n"
    )
    for lines in (1, 5):
        child = subprocess.Popen(
            [sys.executable, "-c", code, path, durability], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        try:
            last = [int(child.stdout.readline()) for _ in range(lines)][-1]
        finally:
            child.kill()
            rest = [int(line) for line in child.stdout.read().split()]
            child.wait()
            child.stdout.close()
        last = max([last, *rest])
        with cesium.open(path, flag="r") as store:
            values = store.range().values().arrays()
            assert len(values) == 20_000 and len(set(values.tolist())) == 1
            assert values[0] in (last, last + 1)
            assert store.verify().ok


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
