"""What comes in the midst of a call: codecs, signals, the collector, forks; what close leaves."""

from __future__ import annotations

import faulthandler
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium import checkpoint as checkpoints
from cesium import sharing
from cesium.errors import ClosedError, ConflictError, Error
from threads.operations import run_together

HANG_SECONDS = 120


@pytest.fixture(autouse=True)
def end_a_hang() -> Iterator[None]:
    faulthandler.dump_traceback_later(2 * HANG_SECONDS, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[cesium.Store]:
    with cesium.open(tmp_path / "store", key="u8", value="u8", durability="process") as opened:
        opened.put_many(np.arange(2000, dtype=np.uint64), np.arange(2000, dtype=np.uint64))
        yield opened


# --- locks -----------------------------------------------------------------------------------


def test_a_writer_waits_for_maintenance_and_maintenance_not_for_it(store: cesium.Store) -> None:
    store.core.memtable_limit_bytes = 1  # every write asks for room
    with store._engine.maintenance:
        writer = threading.Thread(target=store.put, args=(5000, 1), daemon=True)
        writer.start()
        while store.get(5000) is None:  # visible before the room is made
            pass
        # The writer waits for this thread, but without the writer lock.
        checkpoints.checkpoint_held(store._engine)
        assert store.delete_many([5001]).rows == 1
    writer.join(30)
    assert not writer.is_alive()
    assert store.stats().memtable_entries == 0


def test_readers_do_not_wait_for_maintenance(store: cesium.Store) -> None:
    with store._engine.maintenance:
        run_together(
            lambda: store.get(7),
            lambda: store.range().arrays(),
            lambda: len(store),
            lambda: store.stats(),
        )


def test_the_count_is_that_of_a_moment(store: cesium.Store) -> None:
    """A commit beside len() must not make it remember an older count for the newer state."""

    def write() -> None:
        for key in range(10_000, 10_400):
            store.put_many(np.array([key], np.uint64), np.array([1], np.uint64))

    def count() -> None:
        while len(store) < 2400:
            pass

    run_together(write, count, count)  # a count that sticks never ends
    assert len(store) == 2400


# --- codecs ----------------------------------------------------------------------------------


def test_a_codec_that_writes_to_its_own_store(tmp_path: Path) -> None:
    box: list[cesium.Store] = []
    nested = True

    def encode(value: Any) -> bytes:
        return str(value).encode()

    def decode(data: bytes) -> Any:
        nonlocal nested
        if box and nested:
            nested = False
            box[0].put("from the codec", 1)
        return int(data)

    codec = cesium.ValueCodec("number", encode, decode)
    with cesium.open(tmp_path / "store", key="str", value=codec) as opened:
        opened["a"] = 1
        opened["b"] = 2
        box.append(opened)
        with pytest.raises(Error, match="a write inside a write"):
            opened.pop("a")  # decodes under the writer lock
        nested = True
        assert opened["a"] == 1  # outside of it there is nothing to wait for
        assert opened["from the codec"] == 1
        nested = True
        assert [key for key, _ in opened.range()] == ["a", "b", "from the codec"]
        box.clear()
        opened["c"] = 3  # no lock was left behind
        assert opened.pop("c") == 3


def test_a_codec_that_closes_its_own_store(tmp_path: Path) -> None:
    box: list[cesium.Store] = []

    def decode(data: bytes) -> Any:
        if box:
            box[0].close()
        return int(data)

    codec = cesium.ValueCodec("number", lambda value: str(value).encode(), decode)
    opened = cesium.open(tmp_path / "store", key="str", value=codec)
    opened["a"] = 1
    box.append(opened)
    with pytest.raises(Error, match="inside a write"):
        opened.pop("a")
    box.clear()
    assert opened["a"] == 1
    opened.close()


# --- signals and the collector ---------------------------------------------------------------


def run_script(source: str, *arguments: str) -> str:
    """Runs a script in a process of its own; what it prints."""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", source, *arguments],
        capture_output=True, text=True, check=False, timeout=HANG_SECONDS,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


SIGNALS = """
import signal, sys
import numpy as np
import cesium
store = cesium.open(sys.argv[1], key="u8", value="u8", durability="process")
store.core.memtable_limit_bytes = 1 << 16
handled = refused = 0

def handler(number, frame):
    global handled, refused
    handled += 1
    try:
        store.put(1_000_000 + handled, handled)
        store.get(handled)
        len(store.range(0, 10))
        if handled % 5 == 0:
            store.checkpoint()
    except cesium.Error:
        refused += 1

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
turn = 0
while handled < 300:
    turn += 1
    keys = np.arange(turn * 100, turn * 100 + 100, dtype=np.uint64)
    store.put_many(keys, keys)
    if turn % 10 == 0:
        store.compact()
    if turn % 7 == 0:
        store.bulk_load(keys, keys)
signal.setitimer(signal.ITIMER_REAL, 0)
store.checkpoint()
expected = turn * 100 + sum(key >= 1_000_000 for key in store.keys())
assert len(store) == expected, (len(store), expected)
assert store.verify().ok
before = list(store.items())
store.close()
with cesium.open(sys.argv[1]) as again:
    assert list(again.items()) == before
print(handled)
"""


def test_a_signal_handler_that_uses_the_store(tmp_path: Path) -> None:
    assert int(run_script(SIGNALS, str(tmp_path / "store"))) >= 300


INTERRUPTS = """
import signal, sys
import numpy as np
import cesium
acknowledged = {}
turn = 0

def handler(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)
interrupts = 0
store = cesium.open(sys.argv[1], key="u8", value="u8", durability="process")
store.core.memtable_limit_bytes = 1 << 16
while interrupts < 150:
    turn += 1
    keys = np.arange(turn % 50 * 100, turn % 50 * 100 + 100, dtype=np.uint64)
    values = np.full(100, turn, np.uint64)
    kind = (store.put_many, store.bulk_load)[turn % 4 == 0]
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + (turn * 7919 % 40) * 0.0001)
            kind(keys, values)
            done = True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupts += 1
        done = False
    first = store.get(int(keys[0]))
    seen = store.get_many(keys)[0]
    assert len(set(seen.tolist())) == 1, "a batch in part"
    if done:
        assert first == turn, (first, turn)
    acknowledged[int(keys[0])] = first
    if interrupts % 40 == 39 and not done:
        store.close()
        store = cesium.open(sys.argv[1])
        store.core.memtable_limit_bytes = 1 << 16
        for key, value in acknowledged.items():
            assert store.get(key) == value, (key, value, store.get(key))
assert store.verify().ok
before = list(store.items())
store.close()
with cesium.open(sys.argv[1]) as again:
    assert list(again.items()) == before
print(interrupts)
"""


def test_an_interrupt_leaves_a_batch_whole_and_the_store_openable(tmp_path: Path) -> None:
    assert int(run_script(INTERRUPTS, str(tmp_path / "store"))) >= 150


def test_a_collected_handle_inside_every_call(tmp_path: Path) -> None:
    """The collector may close a dropped store in the midst of anything, also of opening one."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for turn in range(30):
            dropped: Any = cesium.open(tmp_path / f"{turn % 3}", key="u8", value="u8")
            dropped[turn] = turn
            cycle = [dropped]
            cycle.append(cycle)  # type: ignore[arg-type]
            del dropped, cycle
            with cesium.open(tmp_path / f"{(turn + 1) % 3}", key="u8", value="u8") as other:
                other.put_many([1, 2], [3, 4])
                assert other.range(1, 3).arrays()[1].tolist() == [3, 4]
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    # One that a thread of its own collected, in the midst of maintenance, another thread closes.
    end = time.monotonic() + HANG_SECONDS
    while any(str(tmp_path) in str(engine.path) for engine in list(sharing.registry.values())):
        assert time.monotonic() < end, "a collected handle was not closed"


def test_a_handle_collected_in_the_midst_of_maintenance_is_closed(tmp_path: Path) -> None:
    opened: Any = cesium.open(tmp_path / "s", key="u8", value="u8")
    opened[1] = 1
    engine = opened._engine
    with engine.maintained():
        del opened  # here, in the thread that maintains: closing would wait for itself
        gc.collect()
        assert not engine.ended.is_set()
    assert engine.ended.wait(HANG_SECONDS)
    with cesium.open(tmp_path / "s", flag="w") as again:
        assert dict(again.items()) == {1: 1}


def test_a_finalizer_that_reads_while_the_lock_is_held(store: cesium.Store) -> None:
    """Making a view allocates; a finalizer run by that must find no lock of its own thread."""
    seen = []

    class Reader:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            seen.append(store.get(3))
            store.put(3, 3)

    thresholds = gc.get_threshold()
    try:
        for _ in range(200):
            Reader()
            gc.set_threshold(1)
            store.range(1, 3).arrays()
            store.get_many(np.array([1], np.uint64))
            gc.set_threshold(*thresholds)
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert seen == [3] * 200


# --- close -----------------------------------------------------------------------------------


def test_iterators_across_close(tmp_path: Path) -> None:
    opened = cesium.open(tmp_path / "store", key="u8", value="u8", durability="process")
    opened.put_many(np.arange(5000, dtype=np.uint64), np.arange(5000, dtype=np.uint64))
    rows = [iter(opened.range()), iter(opened), reversed(opened), opened.range().batches(100)]
    for iterator in rows:
        next(iterator)
    opened.close()
    for iterator in rows:
        with pytest.raises(ClosedError):
            next(iterator)
    with pytest.raises(ClosedError):
        opened.range()
    opened.close()  # a second time does nothing


def test_one_handle_closed_another_goes_on(tmp_path: Path) -> None:
    first = cesium.open(tmp_path / "store", key="u8", value="u8")
    second = cesium.open(tmp_path / "store")
    first[1] = 1
    first.close()
    with pytest.raises(ClosedError):
        first.get(1)
    assert second[1] == 1
    second.close()


def test_a_read_only_store_closes(tmp_path: Path) -> None:
    cesium.open(tmp_path / "store", key="u8", value="u8").close()
    opened = cesium.open(tmp_path / "store", flag="r")
    opened.close()
    assert opened.closed
    assert not sharing.registry


def test_opening_while_the_last_handle_closes(tmp_path: Path) -> None:
    path = tmp_path / "store"

    def body(first: int) -> None:
        for key in range(first, first + 25):
            with cesium.open(path, key="u8", value="u8", durability="process") as opened:
                opened[key] = key

    run_together(lambda: body(0), lambda: body(100), lambda: body(200))
    with cesium.open(path) as opened:
        assert len(opened) == 75


def test_closing_inside_opening_of_the_same_path_raises(tmp_path: Path) -> None:
    opened = cesium.open(tmp_path / "store", key="u8", value="u8")
    engine = opened._engine
    assert engine.leave()
    with pytest.raises(ConflictError, match="further up in this thread"):
        cesium.open(tmp_path / "store")
    engine.ending_thread = 0
    assert engine.join()
    opened.close()


def test_a_dropped_store_gives_its_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "store"
    opened: Any = cesium.open(path, key="u8", value="u8")
    opened[1] = 1
    rows = iter(opened.range())
    del opened
    gc.collect()
    with pytest.raises(ClosedError):
        next(rows)
    script = "import cesium, sys; print(cesium.open(sys.argv[1])[1])"
    assert run_script(script, str(path)).strip() == "1"


def test_a_store_that_was_poisoned_closes(tmp_path: Path) -> None:
    opened = cesium.open(tmp_path / "store", key="u8", value="u8")
    opened[1] = 1
    opened._engine.core_engine.poisoned = OSError(5, "the drive failed")
    with pytest.raises(cesium.PoisonedError):
        opened[2] = 2
    opened.close()
    with cesium.open(tmp_path / "store") as again:
        assert list(again.keys()) == [1]


def test_a_failure_to_sync_at_the_end_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    opened = cesium.open(tmp_path / "store", key="u8", value="u8", durability="process")
    opened[1] = 1
    engine = opened._engine
    monkeypatch.setattr("cesium.checkpoint.checkpoint_held", lambda engine: None)

    def fail(*, clean: bool = True) -> None:
        raise OSError(5, "the drive failed")

    monkeypatch.setattr(engine.journal, "close", fail)
    with pytest.raises(OSError, match="the drive failed"):
        opened.close()
    assert opened.closed
    assert not engine.lock.held  # all the same
    assert not sharing.registry


# --- files -----------------------------------------------------------------------------------


def test_sync_reaches_what_another_process_left(tmp_path: Path, monkeypatch: Any) -> None:
    script = textwrap.dedent("""
        import os, sys, cesium
        store = cesium.open(sys.argv[1], key="u8", value="u8", durability="process")
        store[1] = 1
        os._exit(0)
    """)
    run_script(script, str(tmp_path / "store"))
    with cesium.open(tmp_path / "store") as opened:
        synced = []
        monkeypatch.setattr(
            opened._engine.files, "sync_data", lambda fd, path=None: synced.append(path)
        )
        assert opened.durable_sequence < opened.sequence
        opened.sync()
        assert opened.durable_sequence == opened.sequence
        assert [Path(path).name for path in synced] == ["journal-000001"]


def test_a_pinned_segment_outlives_the_first_write(tmp_path: Path) -> None:
    """What is merged away while a reader has it pinned is no orphan of a crash."""
    with cesium.open(tmp_path / "store", key="u8", value="u8") as made:
        for part in range(3):
            made.bulk_load(np.arange(part, 3000, 3, np.uint64), np.arange(1000, dtype=np.uint64))
    with cesium.open(tmp_path / "store") as opened:
        view = engines_view(opened)
        opened.compact()
        opened[5000] = 1
        assert view.row_count() == 3000
        del view


def engines_view(store: cesium.Store) -> Any:
    from cesium._ranges import View

    return View(store.core)


def test_a_new_store_in_place_of_an_old_one_is_safe_at_every_step(tmp_path: Path) -> None:
    """flag='n': whatever unlink a crash comes before, the path opens, with the old rows or none."""
    from cesium.files import Files

    def make(path: Path) -> None:
        with cesium.open(path, key="u8", value="u8", durability="process") as made:
            made.bulk_load(np.arange(10, dtype=np.uint64), np.arange(10, dtype=np.uint64))
            made.checkpoint()
            made.put_many(np.arange(20, 30, dtype=np.uint64), np.arange(10, dtype=np.uint64))
            crash(made, path)

    def crash(made: cesium.Store, path: Path) -> None:
        import shutil

        shutil.copytree(path, path.with_name(path.name + "-crashed"))

    class Stop(Exception):
        pass

    step = 0
    while True:
        step += 1
        make(tmp_path / f"{step}")
        path = tmp_path / f"{step}-crashed"
        calls = 0

        def unlink(self: Files, name: str, step: int = step, real: Any = Files.unlink) -> None:
            nonlocal calls
            calls += 1
            if calls == step:
                raise Stop
            real(self, name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Files, "unlink", unlink)
            try:
                cesium.open(path, key="u8", value="u8", flag="n").close()
            except Stop:
                pass
            else:
                break
        with cesium.open(path) as opened:
            rows = list(opened.keys())
            assert rows in ([], [*range(10)], [*range(10), *range(20, 30)]), rows
    assert step > 3


def test_reading_beside_a_writer_that_checkpoints(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, cesium, numpy as np
        with cesium.open(sys.argv[1], key="u8", value="u8", durability="process") as store:
            print("ready", flush=True)
            for turn in range(1, 40):
                keys = np.arange(turn, turn * 50, dtype=np.uint64)
                store.put_many(keys, keys)
                store.checkpoint()
                if turn % 3 == 0:
                    store.compact()
    """)
    path = str(tmp_path / "store")
    cesium.open(path, key="u8", value="u8").close()
    writer = subprocess.Popen(
        [sys.executable, "-P", "-c", script, path], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    openings = 0
    while writer.poll() is None:
        with cesium.open(path, flag="r") as opened:
            keys, values = opened.range().arrays()
            assert (keys == values).all()
        openings += 1
    writer.stdout.close()
    assert writer.returncode == 0
    assert openings


# --- forks -----------------------------------------------------------------------------------

FORK = """
import os, signal, sys, threading
import numpy as np
import cesium
path = sys.argv[1]
store = cesium.open(path, key="u8", value="u8", durability=sys.argv[2])
store.core.memtable_limit_bytes = 1 << 16
stop = threading.Event()
written = 0

def write():
    global written
    while not stop.is_set():
        keys = np.arange(written * 64, written * 64 + 64, dtype=np.uint64)
        store.put_many(keys, keys)
        written += 1

writers = [threading.Thread(target=write)]
for writer in writers:
    writer.start()
for turn in range(30):
    rows = iter(store.range())
    child = os.fork()
    if child == 0:
        signal.alarm(30)    # a hang ends the child; faulthandler's own lock does not stand a fork
        calls = [
            lambda: store.put(1, 1), lambda: store.get(1), lambda: store[0:3].arrays(),
            lambda: len(store), lambda: store.checkpoint(), lambda: store.sync(),
            lambda: store.stats(), lambda: store.durable_sequence, lambda: next(rows),
            lambda: store.bulk_load([1], [1]), lambda: store.compact(), lambda: store.verify(),
        ]
        for place, call in enumerate(calls):
            try:
                call()
            except cesium.ClosedError:
                continue
            os._exit(100 + place)
        try:
            cesium.open(path)
        except cesium.LockedError:
            pass
        else:
            os._exit(99)
        del rows, call, calls
        store.close()
        sys.exit(7)     # with all that the interpreter does at its end
    while True:
        ended, status = os.waitpid(child, 0)
        break
    assert os.waitstatus_to_exitcode(status) == 7, os.waitstatus_to_exitcode(status)
    next(rows, None)
stop.set()
for writer in writers:
    writer.join()
assert len(store) == written * 64
store.close()
with cesium.open(path) as again:
    assert len(again) == written * 64
    assert again.verify().ok
print(written)
"""


# A lock of its allocator that another thread holds stays locked in the child: its allocator stands
# forks from LLVM 18 on (llvm-project 75290), gcc 12's does not.  One child of some hundred hung.
@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer does not stand forks"
)
@pytest.mark.parametrize("durability", ["process", "sync"])
def test_a_fork_beside_a_writer(tmp_path: Path, durability: str) -> None:
    assert int(run_script(FORK, str(tmp_path / "store"), durability)) > 0


def test_merging_keeps_what_lies_between(tmp_path: Path) -> None:
    """Sources that lie apart must not become one segment around a third of the last tier."""
    with cesium.open(tmp_path / "store", key="u8", value="u8", durability="process") as opened:
        for keys in (range(10), range(40, 60), range(100, 110), range(10), range(100, 110)):
            opened.put_many(list(keys), list(keys))
            opened.checkpoint()
        before = list(opened.items())
        opened.compact()
        assert [opened.get(key) for key, _ in before] == [value for _, value in before]
        assert list(opened.items()) == before


def test_a_load_between_the_keys_of_a_merge_under_way(tmp_path: Path, monkeypatch: Any) -> None:
    with cesium.open(tmp_path / "store", key="u8", value="u8", durability="process") as opened:
        for keys in (range(10), range(100, 110)):
            opened.put_many(list(keys), list(keys))
            opened.checkpoint()
        real = checkpoints.SegmentOutput.write_merge

        def load_first(output: Any, *arguments: Any, **options: Any) -> None:
            real(output, *arguments, **options)
            if 50 not in opened:
                opened.bulk_load([50], [50])

        monkeypatch.setattr(checkpoints.SegmentOutput, "write_merge", load_first)
        opened.compact()
        for key in (5, 50, 105):
            assert opened.get(key) == key
        opened.compact()
        assert list(opened.keys()) == [*range(10), 50, *range(100, 110)]
