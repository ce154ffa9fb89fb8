"""Every allocation of the compiled core fails, once and from then on: never a crash of the process.

A child process with tests/crash/failing_malloc.c before libc runs one workload again and again.
Each call raises MemoryError or does what it is asked.  A commit that was journaled and could not be
applied poisons the handle; what it shows of that commit until then is not looked at, but the store
is right again when it is opened.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash

STEP = 1 if os.environ.get("CESIUM_FAILURES") == "long" else 6

CHILD = """
import ctypes, errno, logging, shutil, sys
import cesium

library = ctypes.CDLL(None)
logging.getLogger("cesium").setLevel(logging.CRITICAL)
path, step = sys.argv[1], int(sys.argv[2])


def text(number, size=40):
    return f"{number:08d}".encode() * (size // 8)


def is_memory(error):
    number = getattr(error, "errno", None)
    return isinstance(error, (MemoryError, cesium.PoisonedError)) or number == errno.ENOMEM


def run(nth, forever):
    shutil.rmtree(path, ignore_errors=True)
    model, pending, store = {}, [], None
    library.failing_malloc_set(nth, forever)

    def poisoned():
        return store._engine.core_engine.poisoned is not None

    def attempt(call):
        try:
            call()
        except (MemoryError, OSError) as error:
            assert is_memory(error), error
            return error
        return None

    def write(call, change):
        before, was_poisoned = store.sequence, poisoned()
        error = attempt(call)
        if error is None or store.sequence != before:
            assert not was_poisoned
            change(model)
        elif poisoned() and not was_poisoned:
            pending.append(change)  # in the journal, if it was a commit

    def read():
        def look():
            assert dict(store.items()) == model
            found = store.get_many(list(range(0, 300, 7)))[1]
            assert found.tolist() == [key in model for key in range(0, 300, 7)]
            keys = store.range(10, 200).arrays()[0]
            assert keys.tolist() == sorted(key for key in model if 10 <= key < 200)

        if not poisoned():
            attempt(look)

    def cut(model):
        for key in [key for key in model if 20 <= key < 60]:
            del model[key]

    while store is None:
        try:
            store = cesium.open(path, "u8", "bytes", memory_limit="1MiB", durability="process")
        except (MemoryError, OSError) as error:
            assert is_memory(error), error
            if forever:
                library.failing_malloc_set(0, 0)
    for number in range(30):
        row = {number * 7 % 101: text(number)}
        write(lambda: store.update(row), lambda model, row=row: model.update(row))
        write(lambda: store.delete(number), lambda model, key=number: model.pop(key, None))
    long = {key: text(key + 1, 2048) for key in range(50, 90)}
    write(lambda: store.update(long), lambda model: model.update(long))
    write(lambda: store.delete_range(20, 60), cut)
    read()
    attempt(lambda: store.checkpoint())
    for turn in range(3):
        rows = {key: text(key + turn) for key in range(turn, 250, 5)}
        write(lambda: store.update(rows), lambda model, rows=rows: model.update(rows))
        attempt(lambda: store.checkpoint())
    keys = list(range(300, 100, -1))
    values = [text(key, 1600) for key in keys]
    write(
        lambda: store.bulk_load(keys, values, threads=2),
        lambda model: model.update(zip(keys, values)),
    )
    read()
    attempt(lambda: store.compact())
    attempt(lambda: store.verify())
    read()
    counted = library.failing_malloc_counted()
    library.failing_malloc_set(0, 0)
    read()
    result = poisoned()
    store.close()
    with cesium.open(path) as store:
        rows = dict(store.items())
        assert store.verify().ok
    if rows != model:
        for change in pending:
            change(model)
    assert rows == model
    return counted, result


count, _ = run(0, 0)
assert count > 100, count
tried = poisonings = 0
for forever in (0, 1):
    for nth in range(1 + forever, count + 1, step):
        try:
            poisonings += run(nth, forever)[1]
        except BaseException as error:
            error.add_note(f"allocation {nth}, {'forever' if forever else 'once'}")
            raise
        tried += 1
print(f"{count} allocations, {tried} failures tried, {poisonings} poisoned")
"""


def test_every_allocation_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    if os.environ.get("CESIUM_DEBUG"):
        pytest.skip("the self-check of a debug build allocates as well")
    if "san" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("a sanitizer has the allocator")
    library = tmp_path / "failing_malloc.so"
    source = Path(__file__).with_name("failing_malloc.c")
    command = [compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    memory = Path("/dev/shm")
    store = (memory if os.access(memory, os.W_OK) else tmp_path) / f"cesium-memory-{os.getpid()}"
    try:
        child = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", CHILD, str(store), str(STEP)],
            env={**os.environ, "LD_PRELOAD": str(library)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        shutil.rmtree(store, ignore_errors=True)
    assert child.returncode == 0, child.stderr[-4000:]
    with capsys.disabled():
        print("\n" + child.stdout.strip(), end=" ")
