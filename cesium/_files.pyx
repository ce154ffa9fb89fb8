"""Capsules of FileOperations: the ordinary one, and one that fails the Nth call.

Thread safety: the ordinary operations hold no state.  FaultyOperations counts without locks; it is
for tests, where one count too few does not matter.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t

cdef const char *CAPSULE_NAME = "cesium.FileOperations"

cdef extern from *:
    """
    #include "_files.h"
    #include <fcntl.h>
    #include <string.h>
    #include <sys/syscall.h>

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

    typedef struct FaultCounters {
        int64_t sync_count, write_count, read_count;
        int64_t fail_sync_at, fail_write_at, fail_read_at;   /* counted from 1; 0 is never */
        int error;
    } FaultCounters;

    static int64_t faulty_write_all(void *context, int fd, const void *buffer, int64_t bytes,
                                    int64_t offset) {
        FaultCounters *counters = (FaultCounters *)context;
        if (++counters->write_count == counters->fail_write_at) return -(int64_t)counters->error;
        return posix_write_all(NULL, fd, buffer, bytes, offset);
    }

    static int64_t faulty_read_all(void *context, int fd, void *buffer, int64_t bytes,
                                   int64_t offset) {
        FaultCounters *counters = (FaultCounters *)context;
        if (++counters->read_count == counters->fail_read_at) return -(int64_t)counters->error;
        return posix_read_all(NULL, fd, buffer, bytes, offset);
    }

    static int faulty_sync_data(void *context, int fd) {
        FaultCounters *counters = (FaultCounters *)context;
        if (++counters->sync_count == counters->fail_sync_at) return -counters->error;
        return posix_sync_data(NULL, fd);
    }
    """
    int direct_alignment_bytes(int fd) nogil
    ctypedef struct FaultCounters:
        int64_t sync_count
        int64_t write_count
        int64_t read_count
        int64_t fail_sync_at
        int64_t fail_write_at
        int64_t fail_read_at
        int error
    int64_t faulty_write_all(void *context, int fd, const void *buffer, int64_t bytes,
                             int64_t offset) noexcept nogil
    int64_t faulty_read_all(void *context, int fd, void *buffer, int64_t bytes,
                            int64_t offset) noexcept nogil
    int faulty_sync_data(void *context, int fd) noexcept nogil


cdef const FileOperations *operations_of(object capsule) except NULL:
    return <const FileOperations *> PyCapsule_GetPointer(capsule, CAPSULE_NAME)


def posix_operations():
    """Return the capsule of the ordinary operations."""
    return PyCapsule_New(<void *> &POSIX_FILE_OPERATIONS, CAPSULE_NAME, NULL)


def direct_alignment(int fd):
    """Return the alignment in bytes for direct I/O, 0 if it is refused, -1 if unknown."""
    return direct_alignment_bytes(fd)


cdef class FaultyOperations:
    """File operations whose Nth sync, write or read fails with `errno`; for tests of failures.

    `fail_sync_at = 3` lets the third sync since construction fail; 0 (the default) is never.  The
    object must outlive whatever was opened with its capsule.
    """

    cdef FileOperations operations
    cdef FaultCounters counters

    def __cinit__(self):
        self.operations.context = &self.counters
        self.operations.write_all = faulty_write_all
        self.operations.read_all = faulty_read_all
        self.operations.sync_data = faulty_sync_data
        self.counters.error = 5

    @property
    def capsule(self):
        return PyCapsule_New(&self.operations, CAPSULE_NAME, NULL)

    @property
    def sync_count(self):
        return self.counters.sync_count

    @sync_count.setter
    def sync_count(self, int64_t value):
        self.counters.sync_count = value

    @property
    def write_count(self):
        return self.counters.write_count

    @write_count.setter
    def write_count(self, int64_t value):
        self.counters.write_count = value

    @property
    def read_count(self):
        return self.counters.read_count

    @read_count.setter
    def read_count(self, int64_t value):
        self.counters.read_count = value

    @property
    def fail_sync_at(self):
        return self.counters.fail_sync_at

    @fail_sync_at.setter
    def fail_sync_at(self, int64_t value):
        self.counters.fail_sync_at = value

    @property
    def fail_write_at(self):
        return self.counters.fail_write_at

    @fail_write_at.setter
    def fail_write_at(self, int64_t value):
        self.counters.fail_write_at = value

    @property
    def fail_read_at(self):
        return self.counters.fail_read_at

    @fail_read_at.setter
    def fail_read_at(self, int64_t value):
        self.counters.fail_read_at = value

    @property
    def errno(self):
        return self.counters.error

    @errno.setter
    def errno(self, int value):
        self.counters.error = value
