"""System calls of the door: mappings, and capsules of FileOperations: the ordinary one, and one
that calls Python, for tests of failures.

Thread safety: neither capsule holds state; those that call Python take the GIL for it.  A Mapping
does not change.
"""

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE, PyBuffer_FillInfo
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.errno cimport EIO
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc

import os

cdef const char *CAPSULE_NAME = "cesium.FileOperations"

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include "_files.h"
    #include <fcntl.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <sys/vfs.h>

    /* The kind of file system that a path lies on, as in linux/magic.h; or minus an errno. */
    static int64_t file_system_magic(const char *path) {
        struct statfs answer;
        if (statfs(path, &answer) != 0) return -(int64_t)errno;
        return (int64_t)(uint32_t)answer.f_type;
    }

    /* Reserves blocks: 0 or an errno.  posix_fallocate would write zeros where nobody reserves. */
    static int reserve(int fd, int64_t bytes) {
        while (fallocate(fd, 0, 0, (off_t)bytes) != 0) {
            if (errno != EINTR) return errno;
        }
        return 0;
    }

    /* Maps a whole file for reading: its size, 0 for an empty one, or minus an errno. */
    static int64_t map_whole(int fd, void **map) {
        struct stat status;
        if (fstat(fd, &status) != 0) return -(int64_t)errno;
        if (status.st_size == 0) return 0;
        *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
        return *map == MAP_FAILED ? -(int64_t)errno : (int64_t)status.st_size;
    }

    /* The alignment that direct I/O on this file needs (Linux 6.1 and later, by the raw call, since
       older headers lack the fields); 0 when the file refuses direct I/O, -1 when nobody knows. */
    static int direct_alignment_bytes(int fd) {
    #ifdef SYS_statx
        const uint32_t STATX_DIOALIGN_BIT = 0x2000;
        uint32_t answer[64]; /* struct statx: 256 bytes; mask at 0, alignments at 152 and 156 */
        memset(answer, 0, sizeof(answer));
        if (syscall(SYS_statx, fd, "", 0x1000 /* AT_EMPTY_PATH */, STATX_DIOALIGN_BIT, answer) == 0
            && (answer[0] & STATX_DIOALIGN_BIT))
            return (int)(answer[38] > answer[39] ? answer[38] : answer[39]);
    #endif
        return -1;
    }
    """
    int direct_alignment_bytes(int fd) nogil
    int posix_populate(void *context, int fd, uint8_t *mapping, int64_t offset,
                       int64_t bytes) noexcept nogil
    int64_t file_system_magic(const char *path) nogil
    int reserve(int fd, int64_t bytes) nogil
    int64_t map_whole(int fd, void **map) nogil
    int munmap(void *address, size_t bytes) nogil


cdef const FileOperations *operations_of(object capsule) except NULL:
    return <const FileOperations *> PyCapsule_GetPointer(capsule, CAPSULE_NAME)


def posix_operations():
    """Return the capsule of the ordinary operations."""
    return PyCapsule_New(<void *> &POSIX_FILE_OPERATIONS, CAPSULE_NAME, NULL)


def direct_alignment(int fd):
    """Return the alignment in bytes for direct I/O, 0 if it is refused, -1 if unknown."""
    return direct_alignment_bytes(fd)


def file_system_type(path):
    """Return the f_type of statfs: which kind of file system a path lies on."""
    cdef bytes name = os.fsencode(path)
    cdef const char *text = name
    cdef int64_t answer
    with nogil:
        answer = file_system_magic(text)
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer), os.fspath(path))
    return answer


def reserve_blocks(int fd, int64_t size):
    """Reserve a file's blocks; OSError (EOPNOTSUPP) where the file system itself cannot."""
    cdef int error
    with nogil:
        error = reserve(fd, size)
    if error:
        raise OSError(error, os.strerror(error))


cdef class Mapping:
    """A whole file, mapped for reading: a read-only buffer of its bytes.

    It needs no descriptor: Python's own mmap keeps one for each mapping, and a store of 100 GB has
    more segments than a process may have descriptors by default.
    """
    cdef void *map
    cdef Py_ssize_t size

    def __cinit__(self, int fd):
        cdef int64_t size
        with nogil:
            size = map_whole(fd, &self.map)
        if size < 0:
            raise OSError(-size, os.strerror(-size))
        if size == 0:
            raise ValueError("an empty file cannot be mapped")
        self.size = size

    def __dealloc__(self):
        if self.size:
            with nogil:         # what was touched of it is let go page by page
                munmap(self.map, <size_t>self.size)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.map, self.size, 1, flags)


def map_file(int fd):
    """Map a whole file and return a read-only memoryview of it; ValueError when it is empty."""
    return memoryview(Mapping(fd))


# --- operations that call Python ------------------------------------------------------------------


cdef int error_of(object error) noexcept:
    """Minus the errno of an exception; whatever is no OSError with one counts as EIO."""
    number = getattr(error, "errno", None)
    return -<int>number if isinstance(number, int) and 0 < number < 4096 else -EIO


cdef int64_t python_write_all(void *context, int fd, const void *buffer, int64_t bytes,
                              int64_t offset) noexcept with gil:
    try:
        (<object>context).write_all(
            fd, PyMemoryView_FromMemory(<char *>buffer, bytes, PyBUF_READ), offset)
    except BaseException as error:
        return error_of(error)
    return bytes


cdef int64_t python_read_all(void *context, int fd, void *buffer, int64_t bytes,
                             int64_t offset) noexcept with gil:
    try:
        return (<object>context).read_into(
            fd, PyMemoryView_FromMemory(<char *>buffer, bytes, PyBUF_WRITE), offset)
    except BaseException as error:
        return error_of(error)


cdef int python_sync_data(void *context, int fd) noexcept with gil:
    try:
        (<object>context).sync_data(fd)
    except BaseException as error:
        return error_of(error)
    return 0


cdef int python_populate(void *context, int fd, uint8_t *mapping, int64_t offset,
                         int64_t bytes) noexcept with gil:
    try:
        (<object>context).populate(fd, offset, bytes)
    except BaseException as error:
        return error_of(error)
    return posix_populate(NULL, fd, mapping, offset, bytes)


cdef void free_operations(object capsule) noexcept:
    free(PyCapsule_GetPointer(capsule, CAPSULE_NAME))


def python_operations(target):
    """Return a capsule whose operations are the methods of `target`, a Files of a test.

    target: write_all(fd, data, offset), read_into(fd, buffer, offset) -> bytes read,
    sync_data(fd), populate(fd, offset, size), which is asked before pages of a mapping are made
    writable.  An OSError that they raise becomes the errno that compiled code sees, any other
    exception EIO.  The capsule does not keep `target` alive: it is an attribute of it.
    """
    cdef FileOperations *operations = <FileOperations *>malloc(sizeof(FileOperations))
    if operations == NULL:
        raise MemoryError
    operations.context = <void *>target
    operations.write_all = python_write_all
    operations.read_all = python_read_all
    operations.sync_data = python_sync_data
    operations.populate = python_populate
    return PyCapsule_New(operations, CAPSULE_NAME, free_operations)
