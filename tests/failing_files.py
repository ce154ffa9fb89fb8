"""Files whose Nth call of a kind fails: faults put in at the one door to the file system.

`FailingFiles(directory)` and `FailingMemoryFiles()` count every call that could fail, by kind, from
Python and from compiled code alike.  `fail("sync", 3)` lets the third sync from now on fail, once,
or from then on with `forever=True`; `log` says of each call so far what it was and on which file.
An error has the class, and the path, that the door itself would give it: calls by name have one,
calls by descriptor only where the caller handed one down.

`BudgetFiles(directory, bytes)` is a small drive: what would make the files larger than the budget
fails with ENOSPC, until something is removed.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections import Counter
from typing import Any, NamedTuple, NoReturn

from cesium._files import python_operations
from cesium.files import Bytes, DirectFile, Files, MemoryFiles
from cesium.io_errors import io_error

KINDS = (
    "open", "create", "allocate", "read", "write", "sync", "sync_file", "rename", "unlink", "list",
    "size", "sync_directory", "link", "share", "map", "populate", "lock", "free_bytes",
    "free_memory", "make_directory",
)  # fmt: skip


class Call(NamedTuple):
    """One call: its kind, and the name of the file that it was about."""

    kind: str
    name: str


class _Failing(Files):
    def _begin(self) -> None:
        self.calls: Counter[str] = Counter()
        self.total = 0
        self.failed = 0  # how often a call was let fail
        self.failures: list[Call] = []
        self.log: list[Call] | None = None  # a list to fill in
        self.after_rename = ""  # what was renamed last
        self.error_number = errno.EIO
        self._kind: str | None = None  # None: of any kind
        self._at = 0  # never
        self._forever = False
        self._mutex_of_calls = threading.RLock()  # a finalizer in the midst may unlink
        self.operations = python_operations(self)

    def fail(
        self, kind: str | None, nth: int, error_number: int = errno.EIO, *, forever: bool = False
    ) -> None:
        """Let the Nth call of a kind (None: any) fail, counted from now; 0 for none."""
        assert kind is None or kind in KINDS
        self._kind, self.error_number, self._forever = kind, error_number, forever
        self._at = nth and self._count(kind) + nth

    def heal(self) -> None:
        """Let nothing fail from now on."""
        self._at = 0

    def _count(self, kind: str | None) -> int:
        return self.total if kind is None else self.calls[kind]

    def _called(self, kind: str, path: str | None = None, fd: int = -1) -> None:
        with self._mutex_of_calls:
            self.calls[kind] += 1
            self.total += 1
            count = self._count(self._kind)
            fails = self._at > 0 and self._kind in (None, kind) and (
                count == self._at or (self._forever and count > self._at)
            )  # fmt: skip
            if fails or self.log is not None:
                name = path if path or fd < 0 else os.readlink(f"/proc/self/fd/{fd}")
                call = Call(kind, os.path.basename(name or ""))
                if self.log is not None:
                    self.log.append(call)
                if fails:
                    self.failed += 1
                    self.failures.append(call)
        if fails:
            self._raise(kind, path)

    def _raise(self, kind: str, path: str | None) -> NoReturn:
        if path is None:
            raise OSError(self.error_number, os.strerror(self.error_number))
        raise io_error(self.error_number, path)

    # Each method of the door that makes a system call which can fail.

    def lock(self) -> Any:
        self._called("lock", self.path("LOCK"))
        return super().lock()

    def make_directory(self) -> None:
        self._called("make_directory", self.directory)
        super().make_directory()

    def list(self) -> list[str]:
        self._called("list", self.directory)
        return super().list()

    def size(self, name: str) -> int:
        self._called("size", self.path(name))
        return super().size(name)

    def rename(self, old: str, new: str) -> None:
        self._called("rename", self.path(new))
        super().rename(old, new)
        self.after_rename = new

    def unlink(self, name: str) -> None:
        self._called("unlink", self.path(name))
        super().unlink(name)

    def link_from(self, source: Files, old: str, name: str) -> bool:
        self._called("link", self.path(name))
        return super().link_from(source, old, name)

    def share_blocks(self, fd: int, source_fd: int, path: str) -> bool:
        self._called("share", path)
        return super().share_blocks(fd, source_fd, path)

    def sync_directory(self) -> None:
        self._called("sync_directory", self.directory)
        super().sync_directory()
        self.after_rename = ""

    def create(self, name: str, allocate_bytes: int = 0) -> int:
        self._called("create", self.path(name))
        return super().create(name, allocate_bytes)

    def open(self, name: str, *, writable: bool = False) -> int:
        self._called("open", self.path(name))
        return super().open(name, writable=writable)

    def open_direct(self, name: str, allocate_bytes: int) -> DirectFile:
        self._called("create", self.path(name))
        return super().open_direct(name, allocate_bytes)

    def allocate(self, fd: int, size: int) -> None:
        if size:
            self._called("allocate", fd=fd)
        super().allocate(fd, size)

    def write_all(self, fd: int, data: Any, offset: int, path: str | None = None) -> None:
        self._called("write", path, fd)
        super().write_all(fd, data, offset, path)

    def read_into(self, fd: int, buffer: Any, offset: int) -> int:
        self._called("read", fd=fd)
        return super().read_into(fd, buffer, offset)

    def sync_data(self, fd: int, path: str | None = None) -> None:
        self._called("sync", path, fd)
        super().sync_data(fd, path)

    def sync_file(self, fd: int, path: str) -> None:
        self._called("sync_file", path)
        super().sync_file(fd, path)

    def populate(self, fd: int, offset: int, size: int) -> None:
        self._called("populate", fd=fd)

    def map_readonly(self, name: str) -> Bytes:
        self._called("map", self.path(name))
        return super().map_readonly(name)

    def map_writable(self, fd: int, size: int) -> mmap.mmap:
        self._called("map", fd=fd)
        return super().map_writable(fd, size)

    def free_bytes(self) -> int:
        self._called("free_bytes", self.directory)
        return super().free_bytes()

    def free_memory(self) -> int:
        self._called("free_memory", "/proc/meminfo")
        return super().free_memory()


class FailingFiles(_Failing):
    """In a directory."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__(directory)
        self._begin()


class FailingMemoryFiles(_Failing, MemoryFiles):
    """In memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[call-arg]
        self._begin()


class BudgetFiles(Files):
    """In a directory that may hold so many bytes, as if on a drive of that size."""

    def __init__(self, directory: str | os.PathLike[str], budget_bytes: int) -> None:
        super().__init__(directory)
        self.budget_bytes = budget_bytes
        self.refused = 0  # how often there was no room
        self.operations = python_operations(self)

    def used_bytes(self) -> int:
        """The bytes of all files there."""
        used = 0
        for name in self.list():
            try:
                used += self.size(name)
            except FileNotFoundError:
                pass
        return used

    def free_bytes(self) -> int:
        return max(self.budget_bytes - self.used_bytes(), 0)

    def _grow(self, fd: int, end: int) -> None:
        grown = end - os.fstat(fd).st_size
        if grown > 0 and self.used_bytes() + grown > self.budget_bytes:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def allocate(self, fd: int, size: int) -> None:
        if size:
            self._grow(fd, size)
        super().allocate(fd, size)

    def write_all(self, fd: int, data: Any, offset: int, path: str | None = None) -> None:
        try:
            self._grow(fd, offset + memoryview(data).nbytes)
        except OSError as error:
            raise io_error(errno.ENOSPC, path or self.directory) from error
        super().write_all(fd, data, offset, path)
