"""The writer's lock, across processes and forks."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cesium
from cesium.errors import LockedError
from cesium.lock import RECORD_BYTES, WriterLock

HOLDER = """
import sys
from cesium.lock import WriterLock
lock = WriterLock(sys.argv[1])
lock.sign()
print("held", flush=True)
sys.stdin.read()
"""


def start_holder(path: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_a_lock_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """Closing any descriptor of a file gives up the POSIX locks that its process has on it."""
    theirs = tmp_path / "LOCK"
    (tmp_path / "CURRENT").write_text("a database of another kind")
    probe = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with theirs.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        with pytest.raises(FileExistsError, match="CURRENT"):
            cesium.open(tmp_path, key="u8", value="u8")
        done = subprocess.run([sys.executable, "-c", probe, str(theirs)], capture_output=True)
        assert b"BlockingIOError" in done.stderr


def test_another_process_is_named(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    holder = start_holder(path)
    try:
        with pytest.raises(LockedError) as caught:
            WriterLock(path)
        error = caught.value
        assert error.pid == holder.pid
        assert error.host == os.uname().nodename
        assert error.started is not None and error.started[:2] == "20"
        assert str(holder.pid) in str(error) and error.started in str(error)
    finally:
        holder.communicate("")


def test_a_killed_holder_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    holder = start_holder(path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    lock = WriterLock(path)
    assert lock.held
    lock.release()


def test_release_and_take_again(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    lock = WriterLock(path)
    assert path.read_bytes() == b"", "it may be another program's"
    lock.sign()
    assert str(os.getpid()).encode() in path.read_bytes()
    assert path.stat().st_size == RECORD_BYTES
    lock.release()
    lock.release()
    assert not lock.held
    holder = start_holder(path)
    holder.communicate("")
    assert path.exists()
    WriterLock(path).release()


def test_a_damaged_record_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    path.write_bytes(b"\xff not JSON")
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="another process") as caught:
            WriterLock(path)
        assert caught.value.pid is None
    WriterLock(path).release()


def in_child(work: object) -> int:
    """Run `work()` in a forked child; its return value is the exit status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work()  # type: ignore[operator]
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_neither_holds_nor_releases(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    lock = WriterLock(path)
    lock.sign()
    descriptors = len(os.listdir("/proc/self/fd"))

    def child() -> int:
        if lock.held or len(os.listdir("/proc/self/fd")) != descriptors - 1:
            return 1
        lock.release()
        try:
            WriterLock(path)
        except LockedError:
            return 0
        return 2

    assert in_child(child) == 0
    assert lock.held

    def other() -> int:
        try:
            WriterLock(path)
        except LockedError as error:
            return 0 if error.pid == os.getppid() else 3
        return 2

    assert in_child(other) == 0, "the parent's lock outlived the child's release"
    lock.release()
    assert in_child(other) == 2, "and ends when the parent releases it"


def test_the_lock_ends_with_the_parent_though_a_child_lives(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    reading, writing = os.pipe()
    lock = WriterLock(path)
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    lock.release()
    WriterLock(path).release()
    os.close(writing)
    os.waitpid(pid, 0)
