"""Handles in other processes: in forked children, and pickled."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import cesium
from command_line import ENVIRONMENT


def run_script(source: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", source, *map(str, arguments)],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- forked children ------------------------------------------------------------------------------

CHILD = """
import ctypes, gc, os, signal, sys
import numpy as np
import cesium
path, way, durability = sys.argv[1:4]
# No threads: a child of a fork that Python does not see hangs where one had the interpreter.
options = cesium.Options("u8", "u8", "c", durability, "8MiB", background=False)
store = cesium.open(path, options=options)
store.bulk_load(np.arange(5000), np.arange(5000))
store.put_many(np.arange(4000, 6000), np.arange(4000, 6000))
memory = cesium.open(":memory:", key="u8", value="u8")
memory[1] = 1
reader = cesium.open(path, flag="r")
view = store[0:5500]
pairs, keys, batches, backwards = iter(view), iter(store), view.batches(10), reversed(view)
begun = [pairs, keys, batches, backwards, iter(view.values()), iter(memory), iter(reader)]
for iterator in begun:
    next(iterator)

writes = {
    "put": (1, 1), "delete": (1,), "pop": (1,), "setdefault": (1, 1), "update": ({1: 1},),
    "clear": (), "put_many": ([1], [1]), "delete_many": ([1],), "delete_range": (1, 2),
    "bulk_load": ([1], [1]), "checkpoint": (), "compact": (), "__setitem__": (1, 1),
    "__delitem__": (1,), "sync": (), "compare_and_set": (1, 1, 2), "put_if_absent": (1, 1),
    "increment": (1,), "update_many": ([1], np.add, 1), "transaction": (), "drop_table": ("t",),
    "drop_checkpoint": ("a",),
}
reads = {
    "get": (1,), "get_many": ([1],), "contains_many": ([1],), "first": (), "last": (),
    "floor": (1,), "lower": (1,), "ceiling": (1,), "higher": (1,), "range": (1, 2), "prefix": (1,),
    "keys": (), "values": (), "items": (), "verify": (), "stats": (), "__getitem__": (1,),
    "__contains__": (1,), "__len__": (), "__iter__": (), "__reversed__": (), "__bool__": (),
    "__enter__": (), "__reduce__": (), "memory": (), "view": (1,),
    "snapshot": (), "checkpoints": (), "backup": (path + "-copy",),
    "changes": (), "watch": (), "refresh": (),
    "table": ("t", "u8"),
}
properties = ["sequence", "durable_sequence", "tables"]
ranges = {
    "arrays": (), "batches": (), "__len__": (), "__iter__": (), "__reversed__": (), "__bool__": (),
    "__contains__": ((1, 1),), "__getitem__": (1,),
    "to_arrow": (), "to_pandas": (), "to_polars": (), "count": (), "sum": (), "mean": (), "min": (),
    "max": (), "describe": (), "sample": (3,), "downsample": (4,),
}
of_values = {"__getitem__", "count", "sum", "mean", "min", "max", "describe", "downsample"}
# What reads nothing, or only says what the handle is; and what holds the parts of the store.
quiet = {"close", "closed", "path", "options", "read_only", "plot", "arrow_stream", "key", "value"}
quiet |= {"core", "engine", "keys_codec", "values_codec", "counted", "level", "shape", "key_names"}
known = set(writes) | set(reads) | set(properties) | quiet
new = {name for name in dir(cesium.Store) if not name.startswith("_")} - known
new |= {name for name in dir(cesium.Range) if not name.startswith("_")} - set(ranges) - quiet - {
    "keys", "values", "items"}
assert not new, f"say here how these are called, so that a forked child is tried: {sorted(new)}"

def refused(what, call):
    try:
        call()
    except cesium.ClosedError as error:
        assert "fork" in str(error), f"{what}: {error}"
    else:
        raise AssertionError(f"{what} is not refused in a forked child")

def state():
    names = sorted(os.listdir(path))
    return [(name, os.stat(os.path.join(path, name)).st_size,
             open(os.path.join(path, name), "rb").read()) for name in names]

before = state()
fork = os.fork if way == "os.fork" else ctypes.PyDLL(None).fork
child = fork()
if child == 0:
    signal.alarm(60)
    failed = 1
    try:
        for handle in (store, memory, reader):
            for name, arguments in {**reads, **writes}.items():
                refused(name, lambda: getattr(handle, name)(*arguments))
            for name in properties:
                refused(name, lambda: getattr(handle, name))
        for piece in (view, view.keys()):
            for name, arguments in ranges.items():
                if piece is view or name not in of_values:
                    refused(f"range {name}", lambda: getattr(piece, name)(*arguments))
        for number, iterator in enumerate(begun):
            refused(f"iterator {number}", lambda: next(iterator))
        assert "cesium store" in repr(store) and repr(view)
        for handle in (store, memory, reader):
            handle.close()
            handle.close()
            assert handle.closed
        del handle, iterator, piece, begun, pairs, keys, batches, backwards
        store = memory = view = None
        gc.collect()
        assert state() == before, "the child changed the parent's files"
        with cesium.open(path, flag="r") as beside:
            assert len(beside) == 6000 and beside[5999] == 5999
        try:
            cesium.open(path, flag="w")
        except cesium.LockedError as error:
            assert error.pid == os.getppid()
        else:
            raise AssertionError("two processes write")
        failed = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    sys.stderr.flush()
    if way == "os.fork":
        sys.exit(failed)        # with all that the interpreter does at its end
    os._exit(failed)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert state() == before
assert [next(pairs), next(keys), memory[1]] == [(1, 1), 1, 1]
store[7000] = 7000
reader.close()          # it shares the engine, and so the lock, of its process's writer
store.close()
child = os.fork()
if child == 0:
    with cesium.open(path, flag="w") as own:        # what the parent closed, a child may have
        own[8000] = 8000
    os._exit(0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
with cesium.open(path) as again:
    assert again.verify().ok
    print(len(again), again[7000], again[8000])
"""


@pytest.mark.crash
@pytest.mark.parametrize("durability", ["process", "interval"])
@pytest.mark.parametrize("way", ["os.fork", "libc"])
def test_a_forked_child_is_refused_everything_and_changes_nothing(
    tmp_path: Path, way: str, durability: str
) -> None:
    done = run_script(CHILD, tmp_path / "store", way, durability)
    assert done.split() == ["6002", "7000", "8000"]


DROPPED = """
import gc, os, signal, sys, threading
import cesium
store = cesium.open(sys.argv[1], key="u8", value="u8", durability="interval")
store[1] = 1
for number in range(20):
    store[number] = 1       # the sync thread wakes up, waits, syncs
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        store.close()
        del store
        gc.collect()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
store.close()
print("ended")
"""


@pytest.mark.threads
def test_a_child_drops_a_store_whose_sync_thread_was_busy(tmp_path: Path) -> None:
    assert run_script(DROPPED, tmp_path / "store") == "ended\n"


INSIDE = """
import os, signal, sys
import numpy as np
import cesium
from cesium import loader
from cesium.files import Files
path = sys.argv[1]
store = cesium.open(path, key="u8", value="u8", durability="process")
real = loader.load

class Forker(Files):
    # A signal handler forks in the midst of the load, when `turn` calls have been made.
    child = None
    def sync_data(self, *arguments):
        fork_here()
        return super().sync_data(*arguments)
    def sync_directory(self):
        fork_here()
        return super().sync_directory()

def fork_here(*_):
    if Forker.child is None:
        Forker.child = os.fork()

def load(engine, keys, values, threads, durability, report):
    seen = []
    def forking(done):
        seen.append(done)
        if len(seen) == int(sys.argv[2]):
            fork_here()
        if report is not None:
            report(done)
    return real(engine, keys, values, threads, durability, forking)

loader.load = load
engine = store._engine
engine.files.__class__ = Forker if sys.argv[2] == "sync" else Files
if sys.argv[2] == "sync":
    sys.argv[2] = "-1"
count = 3_000_000
try:
    store.bulk_load(np.arange(count), np.arange(count), threads=1)
except cesium.ClosedError:
    assert Forker.child == 0
    store.close()
    sys.exit(5)
assert Forker.child, "nothing forked"
_, status = os.waitpid(Forker.child, 0)
assert os.waitstatus_to_exitcode(status) == 5, status
assert len(store) == count
assert store.verify().ok
store.close()
with cesium.open(path) as again:
    assert len(again) == count and again.verify().ok
print("whole")
"""


@pytest.mark.crash
@pytest.mark.parametrize("moment", ["1", "sync"])
def test_a_fork_in_the_midst_of_a_load(tmp_path: Path, moment: str) -> None:
    """The child comes back from fork inside the parent's call; the files are the parent's."""
    assert run_script(INSIDE, tmp_path / "store", moment) == "whole\n"


BUFFERS = """
import os, sys
from cesium._builder import SegmentBuilder
from cesium._page import TableShape
from cesium.errors import ClosedError
from cesium.files import Files
import numpy as np

def unshared():
    # Mappings of 2 MiB that the kernel does not give to a child ("dc": do not copy).
    found, size = 0, 0
    for line in open("/proc/self/smaps"):
        if line.startswith("Size:"):
            size = int(line.split()[1])
        if line.startswith("VmFlags:") and " dc" in line:
            found += size // 2048
    return found

files = Files(sys.argv[1])
builder = SegmentBuilder(files, "segment-1", 1, bytes(16), TableShape(8, 8, (8,)))
rows = np.arange(1_000_000, dtype=np.uint64)
before = unshared()
builder.add_columns(rows[:500_000], rows[:500_000].view(np.uint8))
assert (before, unshared()) == (1, 2), (before, unshared())
child = os.fork()
if child == 0:
    try:
        for call in (lambda: builder.add(2**40, bytes(8)), builder.finish):
            try:
                call()
            except ClosedError:
                continue
            os._exit(1)
        assert unshared() == 0
        builder.abort()
        del builder
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(2)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
builder.add_columns(rows[500_000:], rows[500_000:].view(np.uint8))
record = builder.finish()
assert unshared() == 0, "the buffers are freed"
print(record["rows"], os.path.getsize(files.path("segment-1")) == record["bytes"])
"""


def test_buffers_of_direct_writes_are_not_shared_with_a_child(tmp_path: Path) -> None:
    assert run_script(BUFFERS, tmp_path) == "1000000 True\n"


# --- pickled handles ------------------------------------------------------------------------------


def reversed_bytes(key: str) -> bytes:
    return key[::-1].encode()


def reversed_text(data: bytes) -> str:
    return data.decode()[::-1]


class Named(cesium.Store):
    """A subclass of someone's own."""

    def title(self) -> str:
        return f"{len(self)} rows"


def test_what_a_pickled_handle_becomes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    options = cesium.Options(
        cesium.KeyCodec("reversed", reversed_bytes, reversed_text), "str",
        durability="process", memory_limit="16MiB",
    )  # fmt: skip
    with cesium.open(path, options=options) as store:
        store.update({"abc": "1", "xyz": "2"})
        data = pickle.dumps(store)
        view = pickle.dumps(store["c":"d"])
        second = copy.copy(store)
    second.close()
    with pickle.loads(data) as again:
        assert again.read_only and again.path == str(path)
        assert again.options.durability == "process" and again.options.memory_limit == "16MiB"
        assert dict(again.items()) == {"abc": "1", "xyz": "2"}
        with pytest.raises(cesium.ReadOnlyError):
            again["new"] = "3"
    assert list(pickle.loads(view)) == [("abc", "1")], "a range has a handle of its own"
    with pytest.raises(cesium.ClosedError, match="closed"):
        pickle.dumps(store)


def test_a_subclass_stays_one(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        store[1] = 1
        named = Named(store._engine, store.options)
        store._engine.join()
        data = pickle.dumps(named)
        named.close()
    with pickle.loads(data) as again:
        assert type(again) is Named and again.title() == "1 rows"


def test_what_cannot_be_pickled_says_so(tmp_path: Path) -> None:
    with cesium.open(":memory:", key="u8", value="u8") as store:
        store[1] = 1
        for what in (store, store[0:1]):
            with pytest.raises(TypeError, match="in memory cannot be pickled"):
                pickle.dumps(what)
        with pytest.raises(TypeError, match="no default __reduce__"):
            pickle.dumps(iter(store))


WORKERS = """
import multiprocessing, sys
import numpy as np
import cesium

def look_up(task):
    store, keys = task
    values, found = store.get_many(keys)
    assert store.read_only and found.all()
    return int(values.sum())

def count(view):
    return len(view)

if __name__ == "__main__":
    method, path = sys.argv[1:3]
    store = cesium.open(path, key="u8", value="u8", durability="process")
    store.bulk_load(np.arange(10_000), np.arange(10_000))
    store[10_000] = 10_000
    parts = np.array_split(np.arange(10_001, dtype=np.uint64), 7)
    with multiprocessing.get_context(method).Pool(2) as pool:
        sums = pool.map(look_up, [(store, part) for part in parts], chunksize=1)
        store[10_001] = 10_001      # the writer writes on beside them
        more = pool.map(look_up, [(store, np.array([10_001], np.uint64))])
        counts = pool.map(count, [store[0:100], store[9_999:None]], chunksize=1)
        pool.close()
        pool.join()
    print(sum(sums), *more, *counts)
    store.close()
    with cesium.open(path) as again:
        assert len(again) == 10_002 and again.verify().ok
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_read_beside_the_writer(tmp_path: Path, method: str) -> None:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, "-P", script, method, tmp_path / "store"],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(sum(range(10_001))), "10001", "100", "3"]
