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
3. A forked child changes nothing through its copy: what creates, writes, renames or removes is
   ClosedError there.  A call of the parent may go on in the child, when a signal handler forks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cesium._files import direct_alignment, file_system_type, map_file, posix_operations
from cesium.errors import ClosedError
from cesium.file_system import MEMORY, FileSystem, file_system_of
from cesium.io_errors import naming
from cesium.lock import WriterLock

if TYPE_CHECKING:
    from typing_extensions import Buffer

Bytes = npt.NDArray[np.uint8]

UNFINISHED = ".new"
DIRECT_ALIGNMENT_BYTES = 4096
FICLONE = 0x40049409
NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})
NO_CLONES = NO_LINKS | {errno.EINVAL, errno.ENOTTY, errno.EBADF}


class DirectFile(NamedTuple):
    """A file open for bulk writes: aligned buffers, offsets and lengths if `direct`."""

    fd: int
    alignment_bytes: int
    direct: bool


class Files:
    """The files of one store: a directory of a POSIX file system."""

    has_paths = True  # whether others reach the files by their names

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.path.abspath(os.fspath(directory))
        self.operations = posix_operations()
        self.ended = False  # the store was closed, its lock given back
        self._process = os.getpid()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ClosedError(
                f"{self.directory} was opened before this process was forked: open it again"
            )

    # -- names

    def path(self, name: str) -> str:
        """The path of a file, for errors and for mapping."""
        return os.path.join(self.directory, name)

    def lock(self) -> WriterLock | None:
        """Lock the store for writing; LockedError names who has it.  None: nobody else could."""
        with naming(self.path("LOCK")):
            return WriterLock(self.path("LOCK"))

    def exists(self, name: str = "") -> bool:
        """Whether the directory, or a file of it, is there."""
        return os.path.exists(self.path(name)) if name else os.path.isdir(self.directory)

    def file_system(self) -> FileSystem:
        """The file system that the directory lies, or would lie, on."""
        path = self.directory if self.exists() else os.path.dirname(self.directory)
        return file_system_of(file_system_type(path), path)

    def make_directory(self) -> None:
        """Make the directory, durably, unless it is there."""
        with naming(self.directory):
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
        self._check_process()
        with naming(self.path(new)):
            os.rename(self.path(old), self.path(new))

    def unlink(self, name: str) -> None:
        """Remove a name; a missing one is no error."""
        self._check_process()
        with naming(self.path(name)), contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))

    def link_from(self, source: Files, old: str, name: str) -> bool:
        """Give a file of another directory a new name here, too; False where that cannot be."""
        self._check_process()
        if not (self.has_paths and source.has_paths):
            return False
        with naming(self.path(name)):
            try:
                os.link(source.path(old), self.path(name))
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return False
        return True

    def sync_directory(self) -> None:
        """Make names made, changed and removed so far durable."""
        with naming(self.directory):
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
        self._check_process()
        path = self.path(name)
        with naming(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                self.allocate(fd, allocate_bytes)
            except BaseException:
                os.close(fd)
                self.remove(name)
                raise
            return fd

    def open(self, name: str, *, writable: bool = False) -> int:
        """Open an existing file."""
        return os.open(self.path(name), os.O_RDWR if writable else os.O_RDONLY)

    def open_direct(self, name: str, allocate_bytes: int) -> DirectFile:
        """Create a file for bulk writes, with direct I/O where the file system has it."""
        self._check_process()
        path = self.path(name)
        with naming(path):
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
                self.remove(name)
                raise
            return DirectFile(fd, max(alignment, DIRECT_ALIGNMENT_BYTES), direct)

    def close(self, fd: int) -> None:
        """Close a descriptor that came from here."""
        os.close(fd)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve blocks and set the size of a file being created."""
        if size:
            os.posix_fallocate(fd, 0, size)

    def share_blocks(self, fd: int, source_fd: int, path: str) -> bool:
        """Give an empty file the blocks of another, to share; False where that cannot be."""
        self._check_process()
        with naming(path):
            try:
                fcntl.ioctl(fd, FICLONE, source_fd)
            except OSError as error:
                if error.errno not in NO_CLONES:
                    raise
                return False
        return True

    def write_all(self, fd: int, data: Buffer, offset: int, path: str | None = None) -> None:
        """Write all of `data` (a buffer of bytes) at an offset."""
        self._check_process()
        view = memoryview(data).cast("B")
        with naming(path or self.directory):
            while view:
                done = self.write_some(fd, view, offset)
                if done == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                offset += done
                view = view[done:]

    def write_some(self, fd: int, data: Buffer, offset: int) -> int:
        """Write as much as the system takes at once; return the bytes written."""
        return os.pwrite(fd, data, offset)

    def read_into(self, fd: int, buffer: Buffer, offset: int) -> int:
        """Read at an offset until the buffer is full or the file ends; return the bytes read."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and (step := os.preadv(fd, [view[done:]], offset + done)):
            done += step
        return done

    def sync_data(self, fd: int, path: str | None = None) -> None:
        """Return when the file's bytes, and its size, are on stable storage."""
        with naming(path or self.directory):
            os.fdatasync(fd)

    def sync_file(self, fd: int, path: str) -> None:
        """Return when all of a new file, its metadata too, is on stable storage."""
        with naming(path):
            os.fsync(fd)

    def populate(self, fd: int, offset: int, size: int) -> None:
        """Asked before pages of a mapping are made writable, if `operations` call Python."""

    # -- whole files

    def read_all(self, name: str, limit_bytes: int | None = None) -> bytes:
        """The content of a small file, or its first bytes."""
        with self._reading(name) as fd:
            size = os.fstat(fd).st_size
            content = bytearray(size if limit_bytes is None else min(size, limit_bytes))
            return bytes(memoryview(content)[: self.read_into(fd, content, 0)])

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[int]:
        fd = self.open(name)
        try:
            with naming(self.path(name)):
                yield fd
        finally:
            self.close(fd)

    def read_sparse(self, name: str, start: int = 0, limit: int = 1 << 62) -> tuple[Bytes, int]:
        """The content of a preallocated file and where its data end; holes are not read.

        Returns (uint8 array of the file's size, at most `limit`, zeros from the second value on and
        below `start`).
        """
        with self._reading(name) as fd:
            size = min(os.fstat(fd).st_size, limit)
            content = np.zeros(size, np.uint8)
            view = content.data
            offset = end = start
            while offset < size:
                try:
                    first = os.lseek(fd, offset, os.SEEK_DATA)
                    stop = min(os.lseek(fd, first, os.SEEK_HOLE), size)
                except OSError as error:
                    if error.errno == errno.ENXIO:
                        break
                    if error.errno != errno.EINVAL:
                        raise
                    first, stop = offset, size
                if first >= size:
                    break
                offset = first
                offset += self.read_into(fd, view[offset:stop], offset)
                if offset < stop:
                    break
                end = stop
            return content, end

    def publish(self, name: str) -> None:
        """Give a file made and synced as `name + ".new"` its name; in doubt when this fails."""
        self.rename(name + UNFINISHED, name)
        self.sync_directory()

    def remove(self, *names: str) -> None:
        """Unlink what nothing needs, as far as that goes; an opening finds the rest.

        Once the store is closed, not even that: by now the directory may be another store's.
        """
        for name in () if self.ended else names:
            with contextlib.suppress(OSError):
                self.unlink(name)

    def free_bytes(self) -> int:
        """Bytes that may still be written to the file system."""
        with naming(self.directory):
            space = os.statvfs(self.directory)
            return space.f_bavail * space.f_frsize

    def free_memory(self) -> int:
        """Bytes of memory that the system could give to the page cache now."""
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return 0

    # -- mapping

    def map_readonly(self, name: str) -> Bytes:
        """Map a whole file as np.memmap (uint8), without a descriptor; ValueError: it is empty."""
        fd = self.open(name)
        try:
            return np.frombuffer(map_file(fd), np.uint8).view(np.memmap)
        except OSError:
            with naming(self.path(name)):
                raise
        finally:
            self.close(fd)

    def map_writable(self, fd: int, size: int) -> mmap.mmap:
        """Map the first `size` bytes of a file for reading and writing, shared."""
        return mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


class MemoryFiles(Files):
    """The same files in memory, for `:memory:`; gone with the last reference."""

    has_paths = False

    def __init__(self) -> None:
        super().__init__("/")
        self.directory = ":memory:"
        self._names: dict[str, int] = {}
        self._mutex = threading.Lock()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # `close` is kept: at the interpreter's end the module may have lost it.  Nor is there
        # anything to take away from a construction that failed, or from a descriptor gone already.
        for fd in getattr(self, "_names", {}).values():
            try:
                close(fd)
            except OSError:
                pass

    def _descriptor(self, name: str) -> int:
        try:
            return self._names[name]
        except KeyError:
            raise FileNotFoundError(
                errno.ENOENT, os.strerror(errno.ENOENT), self.path(name)
            ) from None

    def lock(self) -> WriterLock | None:
        return None

    def exists(self, name: str = "") -> bool:
        return not name or name in self.list()

    def file_system(self) -> FileSystem:
        return FileSystem("memory", MEMORY)

    def free_bytes(self) -> int:
        return self.free_memory()

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
        with naming(self.path(name)):
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
