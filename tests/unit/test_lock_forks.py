"""The writer's lock ends with the process that took it, however its children were made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cesium

# Each says how the holder makes a child that outlives it.  The child waits for the end of a pipe
# whose other end the test holds, so it lives until the test lets it go.
FORK = """
if fork() == 0:
    os.write(1, b"child %d\\n" % os.getpid())
    os.read(waiting, 1)
    os._exit(0)
"""
WAYS = {
    "os.fork": "fork = os.fork" + FORK,
    "fork of the C library": "fork = ctypes.CDLL(None).fork" + FORK,
    "fork of the C library, with the GIL": "fork = ctypes.PyDLL(None).fork" + FORK,
    "multiprocessing": """
import multiprocessing
def run():
    os.write(1, b"child %d\\n" % os.getpid())
    os.read(waiting, 1)
multiprocessing.get_context("fork").Process(target=run).start()
""",
    "subprocess with every descriptor": """
import subprocess
child = subprocess.Popen(["cat"], stdin=waiting, close_fds=False)
os.write(1, b"child %d\\n" % child.pid)
""",
    "subprocess before it executes": """
import subprocess, threading
def run():
    os.write(1, b"child %d\\n" % os.getpid())
    os.read(waiting, 1)
threading.Thread(target=lambda: subprocess.Popen(["cat"], preexec_fn=run)).start()
""",
    "posix_spawn": """
actions = [(os.POSIX_SPAWN_DUP2, waiting, 0)]
child = os.posix_spawnp("cat", ["cat"], os.environ, file_actions=actions)
os.write(1, b"child %d\\n" % child)
""",
}
HOLDER = """
import ctypes, os, signal, sys
import cesium
path, waiting = sys.argv[1], int(sys.argv[2])
# No threads: a child of a fork that Python does not see hangs where one had the interpreter.
options = cesium.Options("u8", "u8", durability="process", background=False)
store = cesium.open(path, options=options)
store[1] = 1
%s
signal.pause()
"""


@pytest.mark.crash
@pytest.mark.parametrize("way", WAYS, ids=[way.replace(" ", "-") for way in WAYS])
def test_a_child_that_outlives_a_killed_holder_keeps_no_lock(tmp_path: Path, way: str) -> None:
    path = tmp_path / "store"
    waiting, letting_go = os.pipe()
    holder = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLDER % WAYS[way], str(path), str(waiting)],
        stdout=subprocess.PIPE, pass_fds=[waiting], env=environment(),
    )  # fmt: skip
    os.close(waiting)
    try:
        assert holder.stdout is not None
        child = int(holder.stdout.readline().removeprefix(b"child "))
        with pytest.raises(cesium.LockedError) as caught:
            cesium.open(path)
        assert caught.value.pid == holder.pid, "the child is there, and the lock is the holder's"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.kill(child, 0)  # it lives
        held = [os.path.realpath(entry) for entry in Path(f"/proc/{child}/fd").iterdir()]
        assert str(path / "LOCK") not in held
        with cesium.open(path, flag="w") as store:
            assert list(store.items()) == [(1, 1)]
            store[2] = 2
    finally:
        holder.kill()
        os.close(letting_go)
        assert holder.stdout is not None
        holder.stdout.close()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


NUMBERS = """
import ctypes, os, sys
from cesium.lock import WriterLock
lock = WriterLock(sys.argv[1])
lock.sign()
other = WriterLock(sys.argv[1] + ".other")
other.release()
if ctypes.PyDLL(None).fork() == 0:
    # The number of the lock's descriptor is free, and is given to another file.
    own = os.open(sys.argv[1] + ".own", os.O_RDWR | os.O_CREAT)
    held = lock.held
    lock.release()
    del lock
    os.write(own, b"still open")
    os._exit(held)
_, status = os.wait()
assert os.waitstatus_to_exitcode(status) == 0, status
assert lock.held
try:
    WriterLock(sys.argv[1])
except OSError as error:
    assert error.pid == os.getpid(), error
else:
    raise AssertionError("the child's release unlocked the parent's lock")
print("done")
"""


def test_a_child_neither_unlocks_nor_closes_what_is_not_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", NUMBERS, str(tmp_path / "LOCK")],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr


CHURN = """
import os, signal, sys, threading
from cesium.lock import WriterLock
signal.alarm(60)
stop = threading.Event()
turns = 0
def churn():
    global turns
    while not stop.is_set():
        WriterLock(sys.argv[1]).release()
        turns += 1
thread = threading.Thread(target=churn)
thread.start()
for turn in range(200):
    child = os.fork()
    if child == 0:
        names = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        os._exit(sys.argv[1] in names)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, turn
stop.set()
thread.join()
print(turns)
"""


@pytest.mark.threads
def test_forks_beside_a_thread_that_locks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHURN, str(tmp_path / "LOCK")],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
