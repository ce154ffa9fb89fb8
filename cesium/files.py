"""The one door to the file system, and the interface of storage backends.

A `Files` is one store's directory; files go by their names in it.  `MemoryFiles` is the same
interface without a directory.  Compiled code gets descriptors from here and does its reads, writes
and syncs through `operations` (cesium/_files.h), so a fault is a subclass or an argument, and not a
patch.

Thread safety: all methods may be called from any thread at once.  Descriptors belong to the caller,
who closes them with `close`.  A full drive, quota or file size limit is `StorageFullError`; every
other failure is the plain `OSError`, with the path.

1. Nothing is truncated but a file being created.
2. What `publish` names is whole and durable: written and synced under another name before.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from cesium._files import direct_alignment, posix_operations
from cesium.errors import StorageFullError

if TYPE_CHECKING:
    from typing_extensions import Buffer

Bytes = npt.NDArray[np.uint8]

UNFINISHED = ".new"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DIRECT_ALIGNMENT_BYTES = 4096


class DirectFile(NamedTuple):
    """A file open for bulk writes: aligned buffers, offsets and lengths if `direct`."""

    fd: int
    alignment_bytes: int
    direct: bool


def io_error(error_number: int, path: str | None = None) -> OSError:
    """The exception that an errno (positive, or negated as kernels return it) means."""
    number = abs(error_number)
    kind = StorageFullError if number in FULL else OSError
    return kind(number, os.strerror(number), path)


def raise_io(error_number: int, path: str | None = None) -> NoReturn:
    """Raise what an errno means."""
    raise io_error(error_number, path)


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Let a failure inside name the path, and be StorageFullError when the drive is full."""
    try:
        yield
    except StorageFullError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise StorageFullError(error.errno, error.strerror, path) from error
        if error.filename is None:
            error.filename = path
        raise


class Files:
    """The files of one store: a directory of a POSIX file system."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.path.abspath(os.fspath(directory))
        self.operations = posix_operations()

    # -- names

    def path(self, name: str) -> str:
        """The path of a file, for errors and for mapping."""
        return os.path.join(self.directory, name)

    def exists(self) -> bool:
        """Whether the directory is there."""
        return os.path.isdir(self.directory)

    def make_directory(self) -> None:
        """Make the directory, durably, unless it is there."""
        with _named(self.directory):
            try:
                os.mkdir(self.directory)
            except FileExistsError:
                if not os.path.isdir(self.directory):
                    raise NotADirectoryError(
                        errno.ENOTDIR, "a store is a directory, this is a file", self.directory
                    ) from None
                return
            self._sync_path(os.path.dirname(self.directory))

    def list(self) -> list[str]:
        """The names of all files, sorted."""
        return sorted(os.listdir(self.directory))

    def size(self, name: str) -> int:
        """The size of a file in bytes."""
        return os.stat(self.path(name)).st_size

    def allocated(self, name: str) -> int:
        """The bytes that a file takes on the drive."""
        return os.stat(self.path(name)).st_blocks * 512

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing; durable after `sync_directory`."""
        with _named(self.path(new)):
            os.rename(self.path(old), self.path(new))

    def unlink(self, name: str) -> None:
        """Remove a name; a missing one is no error."""
        with _named(self.path(name)), contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))

    def sync_directory(self) -> None:
        """Make names made, changed and removed so far durable."""
        with _named(self.directory):
            self._sync_path(self.directory)

    def _sync_path(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # -- descriptors

    def create(self, name: str, allocate_bytes: int = 0) -> int:
        """Create a file, empty or of a size with its blocks reserved; replace what is there.

        Nothing is left behind when there is no room.
        """
        path = self.path(name)
        with _named(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                self.allocate(fd, allocate_bytes)
            except BaseException:
                os.close(fd)
                self.unlink(name)
                raise
            return fd

    def open(self, name: str, *, writable: bool = False) -> int:
        """Open an existing file."""
        return os.open(self.path(name), os.O_RDWR if writable else os.O_RDONLY)

    def open_direct(self, name: str, allocate_bytes: int) -> DirectFile:
        """Create a file for bulk writes, with direct I/O where the file system has it."""
        path = self.path(name)
        with _named(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
            try:
                fd, direct = os.open(path, flags | os.O_DIRECT, 0o666), True
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                fd, direct = os.open(path, flags, 0o666), False
            try:
                alignment = direct_alignment(fd) if direct else 0
                if direct and alignment == 0:
                    os.close(fd)
                    fd, direct = os.open(path, flags, 0o666), False
                self.allocate(fd, allocate_bytes)
            except BaseException:
                os.close(fd)
                self.unlink(name)
                raise
            return DirectFile(fd, max(alignment, DIRECT_ALIGNMENT_BYTES), direct)

    def close(self, fd: int) -> None:
        """Close a descriptor that came from here."""
        os.close(fd)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve blocks and set the size of a file being created."""
        if size:
            os.posix_fallocate(fd, 0, size)

    def write_all(self, fd: int, data: Buffer, offset: int, path: str | None = None) -> None:
        """Write all of `data` (a buffer of bytes) at an offset."""
        view = memoryview(data).cast("B")
        with _named(path or self.directory):
            while view:
                done = os.pwrite(fd, view, offset)
                offset += done
                view = view[done:]

    def sync_data(self, fd: int, path: str | None = None) -> None:
        """Return when the file's bytes, and its size, are on stable storage."""
        with _named(path or self.directory):
            os.fdatasync(fd)

    # -- whole files

    def read_all(self, name: str, limit_bytes: int | None = None) -> bytes:
        """The content of a small file, or its first bytes."""
        fd = self.open(name)
        try:
            size = os.fstat(fd).st_size
            return self._read(fd, size if limit_bytes is None else min(size, limit_bytes))
        finally:
            self.close(fd)

    def _read(self, fd: int, size: int) -> bytes:
        pieces = []
        offset = 0
        while offset < size and (piece := os.pread(fd, size - offset, offset)):
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_sparse(self, name: str) -> tuple[Bytes, int]:
        """The content of a preallocated file and where its data end; holes are not read.

        Returns (uint8 array of the file's size, zeros from the second value on).
        """
        fd = self.open(name)
        try:
            size = os.fstat(fd).st_size
            content = np.zeros(size, np.uint8)
            view = content.data
            offset = end = 0
            while offset < size:
                try:
                    start = os.lseek(fd, offset, os.SEEK_DATA)
                    stop = min(os.lseek(fd, start, os.SEEK_HOLE), size)
                except OSError as error:
                    if error.errno == errno.ENXIO:
                        break
                    if error.errno != errno.EINVAL:
                        raise
                    start, stop = offset, size
                if start >= size:
                    break
                offset = start
                while offset < stop and (done := os.preadv(fd, [view[offset:stop]], offset)):
                    offset += done
                if offset < stop:
                    break
                end = stop
            return content, end
        finally:
            self.close(fd)

    def publish(self, name: str, fd: int) -> None:
        """Sync a file that was created as `name + ".new"` and give it its name, durably."""
        with _named(self.path(name)):
            os.fsync(fd)
        self.rename(name + UNFINISHED, name)
        self.sync_directory()

    def free_memory(self) -> int:
        """Bytes of memory that the system could give to the page cache now."""
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return 0

    # -- mapping

    def map_readonly(self, name: str) -> Bytes:
        """Map a whole file as np.memmap (uint8); empty files cannot be mapped."""
        with os.fdopen(self.open(name), "rb") as file:
            return np.memmap(file, np.uint8, "r")

    def map_writable(self, fd: int, size: int) -> mmap.mmap:
        """Map the first `size` bytes of a file for reading and writing, shared."""
        return mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


class MemoryFiles(Files):
    """The same files in memory, for `:memory:`; gone with the last reference."""

    def __init__(self) -> None:
        super().__init__("/")
        self.directory = ":memory:"
        self._names: dict[str, int] = {}
        self._mutex = threading.Lock()

    def __del__(self) -> None:
        for fd in self._names.values():
            os.close(fd)

    def _descriptor(self, name: str) -> int:
        try:
            return self._names[name]
        except KeyError:
            raise FileNotFoundError(
                errno.ENOENT, os.strerror(errno.ENOENT), self.path(name)
            ) from None

    def exists(self) -> bool:
        return True

    def make_directory(self) -> None:
        pass

    def list(self) -> list[str]:
        with self._mutex:
            return sorted(self._names)

    def size(self, name: str) -> int:
        with self._mutex:
            return os.fstat(self._descriptor(name)).st_size

    def allocated(self, name: str) -> int:
        with self._mutex:
            return os.fstat(self._descriptor(name)).st_blocks * 512

    def rename(self, old: str, new: str) -> None:
        with self._mutex:
            fd = self._descriptor(old)
            replaced = self._names.pop(new, None) if new != old else None
            del self._names[old]
            self._names[new] = fd
        if replaced is not None:
            os.close(replaced)

    def unlink(self, name: str) -> None:
        with self._mutex:
            fd = self._names.pop(name, None)
        if fd is not None:
            os.close(fd)

    def sync_directory(self) -> None:
        pass

    def create(self, name: str, allocate_bytes: int = 0) -> int:
        with _named(self.path(name)):
            fd = os.memfd_create(name, os.MFD_CLOEXEC)
            try:
                self.allocate(fd, allocate_bytes)
                own = os.dup(fd)
            except BaseException:
                os.close(fd)
                raise
        self.unlink(name)
        with self._mutex:
            self._names[name] = own
        return fd

    def open(self, name: str, *, writable: bool = False) -> int:
        with self._mutex:
            return os.dup(self._descriptor(name))

    def open_direct(self, name: str, allocate_bytes: int) -> DirectFile:
        return DirectFile(self.create(name, allocate_bytes), DIRECT_ALIGNMENT_BYTES, False)

    def allocate(self, fd: int, size: int) -> None:
        """Set the size; memory is taken when a page is first written."""
        if size:
            os.ftruncate(fd, size)
