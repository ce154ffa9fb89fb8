"""A reader that follows a writer in another process: `Store.refresh` beside it, and after its end.

The writer does what it is told, a line of Python each, and answers with its sequence; so nothing
here waits for time to pass.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cesium
from command_line import ENVIRONMENT

pytestmark = pytest.mark.threads

WRITER = """
import sys
import numpy as np
import cesium

def opened(flag="c"):
    options = cesium.Options("u8", "i8", flag, sys.argv[2], memory_limit="32MiB")
    return cesium.open(sys.argv[1], options=options)

def at_full_speed(commits):
    # Every commit is whole: all keys of a round have its value.
    for value in range(1, commits + 1):
        store.put_many(keys, np.full(len(keys), value))
        if value % 50 == 0:
            store.checkpoint()
        if value % 130 == 0:
            store.compact()

store = opened()
keys = np.arange(200, dtype=np.uint64)
print(store.sequence, flush=True)
for line in sys.stdin:
    exec(line)
    print(store.sequence, flush=True)
"""


class Writer:
    """The process that writes."""

    def __init__(self, path: Path, durability: str = "process") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", WRITER, path, durability],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )  # fmt: skip
        self.sequence = self.answer()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the writer has ended"
        return int(line)

    def do(self, line: str) -> int:
        """Returns the sequence that the writer is at when it has done it."""
        self.tell(line)
        self.sequence = self.answer()
        return self.sequence

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    process = Writer(tmp_path / "s")
    yield process
    process.kill()


STEPS = ("put", "put_many", "delete", "delete_range", "bulk_load", "checkpoint", "compact", "again")


def step(dice: random.Random, model: dict[int, int]) -> str:
    """Something to do; the model is what the store holds afterwards."""
    kind = dice.choices(STEPS, (8, 8, 4, 3, 2, 2, 1, 1))[0]
    low, value = dice.randrange(3000), dice.randrange(1 << 40)
    rows = range(low, low + dice.randrange(1, 300))
    if kind == "put":
        model[low] = value
        return f"store.put({low}, {value})"
    if kind in ("put_many", "bulk_load"):
        model.update(dict.fromkeys(rows, value))
        return f"store.{kind}(np.array({rows}, 'u8'), np.full({len(rows)}, {value}))"
    if kind == "delete":
        model.pop(low, None)
        return f"store.delete({low})"
    if kind == "delete_range":
        for key in rows:
            model.pop(key, None)
        return f"store.delete_range({rows.start}, {rows.stop})"
    if kind == "again":
        return "store.close(); store = opened()"
    return f"store.{kind}()"


@pytest.mark.parametrize("durability", ["process", "sync", "interval"])
def test_the_reader_equals_the_model_after_each_step(tmp_path: Path, durability: str) -> None:
    dice = random.Random(durability)
    model: dict[int, int] = {}
    writer = Writer(tmp_path / "s", durability)
    with cesium.open(tmp_path / "s", flag="r") as reader:
        for number in range(100):
            sequence = writer.do(step(dice, model))
            assert reader.refresh() == sequence == reader.sequence
            if number % 5 == 0:
                assert dict(reader.items()) == dict(sorted(model.items()))
            assert len(reader) == len(model)
            if number % 33 == 32:
                writer.kill()
                assert reader.refresh() == sequence and dict(reader.items()) == model
                writer = Writer(tmp_path / "s", durability)
                assert writer.sequence == sequence
        assert dict(reader.items()) == model
        assert reader.verify().ok
        writer.do("store.close()")
        writer.end()
        assert reader.refresh() == sequence and dict(reader.items()) == model


@pytest.mark.crash
def test_a_writer_killed_in_the_midst(tmp_path: Path) -> None:
    """What it had begun is there whole, or not; the next writer goes on from there."""
    with cesium.open(tmp_path / "s", key="u8", value="i8") as store:
        store.put_many(np.arange(200, dtype="u8"), np.zeros(200, "i8"))
    with cesium.open(tmp_path / "s", flag="r") as reader:
        for turn in range(5):
            writer = Writer(tmp_path / "s")
            before = reader.refresh()
            writer.tell("at_full_speed(1_000_000)")
            while reader.refresh() < before + 40 * turn + 1:  # until it is well under way
                assert writer.process.poll() is None
            writer.kill()
            sequence = reader.refresh()
            (value,) = set(reader.range().arrays()[1].tolist())
            assert sequence == before + value and reader.refresh() == sequence
            with cesium.open(tmp_path / "s", flag="r") as again:
                assert again.sequence == sequence and list(again.items()) == list(reader.items())
        writer = Writer(tmp_path / "s")
        assert writer.sequence == reader.refresh()
        sequence = writer.do("store.put(1, -1)")
        assert reader.refresh() == sequence and reader[1] == -1
        writer.kill()
        assert reader.verify().ok


def test_refreshes_beside_a_writer_at_full_speed(tmp_path: Path, writer: Writer) -> None:
    """Each is a commit that was whole, none goes back, and none needs to be tried by the caller."""
    commits = 1500
    writer.do("store.put_many(keys, np.zeros(200, 'i8'))")
    keys = np.arange(200, dtype="u8")
    moved = 0
    with cesium.open(tmp_path / "s", flag="r") as reader:
        first = last = reader.sequence
        writer.tell(f"at_full_speed({commits})")
        while last < first + commits:
            sequence = reader.refresh()
            assert last <= sequence <= first + commits
            values, found = reader.get_many(keys)
            assert found.all() and set(values.tolist()) == {sequence - first}
            moved += sequence > last
            last = sequence
            assert writer.process.poll() is None
        assert writer.answer() == first + commits and moved
        assert reader.refresh() == first + commits


def test_what_was_begun_outlives_the_files(tmp_path: Path, writer: Writer) -> None:
    """Iterators, and snapshots, of files that the writer merges away meanwhile."""
    path = tmp_path / "s"
    writer.do("store.bulk_load(np.arange(30_000), np.arange(30_000))")
    writer.do("store.put_many(np.arange(0, 30_000, 7), np.full(4286, -1)); store.checkpoint()")
    with cesium.open(path, flag="r") as reader:
        before = {name for name in os.listdir(path) if name.startswith("segment-")}
        rows = iter(reader.items())
        begun = [next(rows) for _ in range(10)]
        snapshot, threads = reader.snapshot(), []
        expected = [(key, key if key % 7 else -1) for key in range(30_000)]
        found: list[bool] = []
        for _ in range(2):
            work = threading.Thread(target=lambda: found.append(list(snapshot.items()) == expected))
            threads.append(work)
            work.start()
        writer.do("store.delete_range(5, 29_000); store.compact()")
        assert not before & set(os.listdir(path)), "all of it was merged away"
        assert len(reader) == 30_000 and reader.verify().ok
        assert reader.refresh() == writer.sequence and len(reader) == 1005
        assert begun + list(rows) == expected and len(snapshot) == 30_000
        for work in threads:
            work.join()
        assert found == [True, True]
        assert reader.verify().ok


def test_names_beside_a_writer_that_merges(tmp_path: Path, writer: Writer) -> None:
    """Checkpoints of another process, each opened while that goes on, merges, drops and is killed.

    All keys of a round have its value, so a checkpoint of a commit that was whole shows one.
    """
    path = tmp_path / "s"
    writer.do("store.put_many(keys, np.zeros(200, 'i8'))")
    held: dict[str, int] = {}
    handles: list[tuple[cesium.Store, int]] = []
    for turn in range(6):
        value = turn + 1
        writer.do(f"store.put_many(keys, np.full(200, {value})); store.checkpoint('n{turn}')")
        held[f"n{turn}"] = value
        writer.tell("at_full_speed(150)")
        for name, expected in held.items():
            handles.append((cesium.open(path, at=name), expected))
            assert set(handles[-1][0].values()) == {expected}
        writer.answer()
        if turn % 2:
            gone = next(iter(held))
            writer.do(f"store.drop_checkpoint('{gone}'); store.compact()")
            del held[gone]
            with pytest.raises(KeyError, match=gone):
                cesium.open(path, at=gone)
        if turn == 3:
            writer.kill()
            writer = Writer(path)
    for handle, expected in handles:  # of dropped checkpoints, too: what is mapped stays
        assert set(handle.range().arrays()[1].tolist()) == {expected} and len(handle) == 200
        handle.close()
    with cesium.open(path, flag="r") as reader:
        assert [each.name for each in reader.checkpoints()] == list(held)
        assert reader.verify().ok
    writer.do("store.close()")
    writer.end()


def test_a_store_made_anew_under_the_reader(tmp_path: Path, writer: Writer) -> None:
    writer.do("store.put(1, 1)")
    with cesium.open(tmp_path / "s", flag="r") as reader:
        writer.do("store.close(); store = opened('n'); store.put(2, 2); store.put(3, 3)")
        with pytest.raises(cesium.Error, match="another store by now"):
            reader.refresh()
        assert dict(reader.items()) == {1: 1} and reader.sequence == 1
    with cesium.open(tmp_path / "s", flag="r") as reader:
        assert dict(reader.items()) == {2: 2, 3: 3}
