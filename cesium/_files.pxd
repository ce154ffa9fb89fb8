"""The door to the file system for compiled code: cesium/_files.h, and how Python hands one down.

A storage backend gives `Files.operations`, a capsule named "cesium.FileOperations" around a
FileOperations that outlives whatever was opened with it.
"""

from libc.stdint cimport int64_t, uint8_t


cdef extern from "_files.h" nogil:
    ctypedef struct FileOperations:
        void *context
        int64_t (*write_all)(void *context, int fd, const void *buffer, int64_t bytes,
                             int64_t offset) noexcept nogil
        int64_t (*read_all)(void *context, int fd, void *buffer, int64_t bytes,
                            int64_t offset) noexcept nogil
        int (*sync_data)(void *context, int fd) noexcept nogil
        int (*populate)(void *context, int fd, uint8_t *mapping, int64_t offset,
                        int64_t bytes) noexcept nogil
    const FileOperations POSIX_FILE_OPERATIONS


# The struct inside such a capsule; raises ValueError for any other object.
cdef const FileOperations *operations_of(object capsule) except NULL
