"""The writer's lock: one process at a time opens a store for writing.

The lock is an flock on the file LOCK, so it ends with its process, however that dies, and the file
itself means nothing and stays.  It holds the pid, host and start time of the holder, for the error
that another process gets.  Readers take no lock.  Two openings in one process are one engine, which
is settled above this module.

A forked child shares the parent's lock.  It closes its descriptor without unlocking, so the lock
stays the parent's alone.

Thread safety: a WriterLock is acquired and released by one thread at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import weakref
from datetime import UTC, datetime

from cesium.errors import LockedError

RECORD_BYTES = 256

_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class WriterLock:
    """Holds the lock from construction to `release`; LockedError names who has it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read_record(self._fd)
            os.close(self._fd)
            self._fd = -1
            if not isinstance(error, BlockingIOError):
                raise
            raise _locked_error(self.path, holder) from None
        _held.add(self)
        self._write_record()

    @property
    def held(self) -> bool:
        """Whether this process holds the lock through this object."""
        return self._fd >= 0

    def release(self) -> None:
        """Give the lock back; a second call, or one in a forked child, does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _held.discard(self)
            # Not left to close: a child forked without Python's hooks may have the descriptor too.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _forget(self) -> None:
        """Close without unlocking: in a child, the lock is the parent's."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.release()

    def _write_record(self) -> None:
        record = {"pid": os.getpid(), "host": os.uname().nodename, "started": _process_start()}
        data = json.dumps(record).encode()[:RECORD_BYTES].ljust(RECORD_BYTES)
        try:
            os.pwrite(self._fd, data, 0)
        except OSError:
            pass  # a full drive does not keep anyone from opening; the record is a courtesy


def _read_record(fd: int) -> dict[str, object]:
    try:
        record = json.loads(os.pread(fd, RECORD_BYTES, 0))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _locked_error(path: str, holder: dict[str, object]) -> LockedError:
    pid, host, started = (holder.get(name) for name in ("pid", "host", "started"))
    pid = pid if isinstance(pid, int) else None
    host = host if isinstance(host, str) else None
    started = started if isinstance(started, str) else None
    if pid is None:
        who = "another process"
    else:
        who = f"process {pid} on {host}, started {started}"
    message = f"{os.path.dirname(path) or path} is open for writing in {who}"
    return LockedError(message, pid=pid, host=host, started=started)


def _process_start() -> str | None:
    """When this process started, in UTC, by the kernel's account."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/stat", "rb") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith(b"btime"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    seconds = boot + ticks // os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _forget_in_child() -> None:
    for lock in list(_held):
        lock._forget()
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
