"""A directory of its own to try things in: the door to the file system, with what a test needs.

Made below the directory that is examined, and removed with all that is in it, whatever happens.

Thread safety: used by one thread.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

from cesium._files import reserve_blocks
from cesium.files import Files
from cesium.io_errors import naming

PREFIX = ".cesium-doctor-"
MADV_POPULATE_WRITE = 23  # Linux 5.14; the mmap module does not name it
FICLONE = 0x40049409  # _IOW(0x94, 9, int)

# Exits with 0 when it gets the lock, with 3 when somebody has it.
_TRY_LOCK = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "r+b"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""


class Space(NamedTuple):
    """Of a file system; inodes are None where it has no fixed number."""

    free_bytes: int
    total_bytes: int
    free_inodes: int | None


class Workbench(Files):
    """The files of an examination."""

    @classmethod
    @contextmanager
    def below(cls, directory: str) -> Iterator[Self]:
        """A new directory for the time of a with statement."""
        with naming(directory):
            try:
                path = tempfile.mkdtemp(prefix=PREFIX, dir=directory)
            except OSError as error:
                error.filename = directory  # not the name that was to be
                raise
        try:
            yield cls(path)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def space(self) -> Space:
        """What is free for this user."""
        found = os.statvfs(self.directory)
        return Space(
            found.f_bavail * found.f_frsize,
            found.f_blocks * found.f_frsize,
            found.f_favail if found.f_files else None,
        )

    def device(self) -> int:
        """The device number of the file system."""
        return os.stat(self.directory).st_dev

    def flock(self, fd: int) -> bool:
        """Lock a file; False when another descriptor has the lock."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def flock_elsewhere(self, name: str) -> bool | None:
        """The same in another process; None when none can be started."""
        if not sys.executable:
            return None
        command = [sys.executable, "-I", "-S", "-c", _TRY_LOCK, self.path(name)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return {0: True, 3: False}.get(done.returncode)

    def reserve(self, fd: int, size: int) -> None:
        """Reserve blocks, without the C library's emulation."""
        with naming(self.directory):
            reserve_blocks(fd, size)

    def populate_writable(self, mapping: mmap.mmap) -> None:
        """Make all pages of a mapping writable at once."""
        mapping.madvise(MADV_POPULATE_WRITE)

    def link(self, old: str, new: str) -> None:
        """Give a file another name."""
        os.link(self.path(old), self.path(new))

    def clone(self, old: str, new: str) -> None:
        """Make a copy that shares its blocks."""
        source, copy = self.open(old), self.create(new)
        try:
            fcntl.ioctl(copy, FICLONE, source)
        finally:
            self.close(copy)
            self.close(source)
