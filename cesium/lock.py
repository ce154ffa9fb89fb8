"""The writer's lock: one process at a time opens a store for writing.

The lock is an flock on the file LOCK, so it ends with its process, however that dies, and the file
itself means nothing and stays.  It holds the pid, host and start time of the holder, for the error
that another process gets.  Readers take no lock.  Two openings in one process are one engine, which
is settled above this module.

A forked child would share the parent's lock.  Its descriptor is closed there, without unlocking, so
the lock stays the parent's alone and ends with it: see cesium/_lock.pyx.

Thread safety: a WriterLock is acquired and released by one thread at a time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cesium._lock import LockFile
from cesium.errors import LockedError

if TYPE_CHECKING:
    from cesium.files import Files

RECORD_BYTES = 256


class WriterLock:
    """Holds the lock from construction to `release`; LockedError names who has it.

    The file is made where it is missing, and otherwise not changed before `sign`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file = LockFile(self.path)
        try:
            if not self._file.take():
                raise _locked_error(self.path, _read_record(self._file.fd))
        except BaseException:
            self._file.close()
            raise

    @property
    def held(self) -> bool:
        """Whether this process holds the lock through this object."""
        return self._file.fd >= 0

    def release(self) -> None:
        """Give the lock back; a second call, or one in a forked child, does nothing."""
        self._file.close()

    def sign(self) -> None:
        """Write down who holds the lock, for the error that others get: nothing was written yet."""
        pid = os.getpid()
        record = {"pid": pid, "host": os.uname().nodename, "started": _process_start(pid)}
        data = json.dumps(record).encode()[:RECORD_BYTES].ljust(RECORD_BYTES)
        try:
            os.pwrite(self._file.fd, data, 0)
        except OSError:
            pass  # a full drive does not keep anyone from opening; the record is a courtesy


def is_signed(files: Files) -> bool:
    """Whether a directory's LOCK may be one of ours, by its size."""
    with contextlib.suppress(FileNotFoundError):
        return files.size("LOCK") == RECORD_BYTES
    return False


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


@functools.lru_cache(1)
def _process_start(pid: int) -> str | None:
    """When this process started, in UTC, by the kernel's account.  pid: its own."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/stat", "rb") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith(b"btime"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    seconds = boot + ticks // os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(seconds, UTC).isoformat()
