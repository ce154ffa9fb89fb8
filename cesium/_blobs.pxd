# One blob file: large values that lie beside the segments that point to them (docs/format.md, "Blob
# files").
#
# A BlobReader is made from what a segment's record says and touches nothing; at first use the file
# is mapped.  Every read checks the value's whole checksum, each time: that costs less than the copy
# (7.7 GB/s), it needs no bitmap of what was checked, and it also sees the zeros of a page that the
# drive could not give.  Thread safety: every function may be called from any thread; mapping is
# once, under the reader's own lock, with the GIL taken for its time (so call with no engine lock
# held).

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._layout cimport BlobPointer
from cesium._native cimport crc32c

cdef struct Blob:
    uint64_t id
    const uint8_t *map          # NULL until first use
    uint64_t bytes              # of the file, once mapped
    uint32_t lost               # pages that the drive could not give, counted by the fault handler
    int failed_claim            # private: whoever sets it first describes the failure
    int failed_status           # first failure; what follows describes it
    BlobPointer failed          # of the value that could not be read
    uint32_t failed_found       # its checksum as it was read
    void *reader                # borrowed BlobReader, to map from nogil code

# What the checksum of a value begins with, so that a value of another place is seen.
cdef inline uint32_t blob_seed(uint64_t blob_id, uint64_t offset) noexcept nogil:
    cdef uint64_t place[2]
    place[0] = blob_id
    place[1] = offset
    return crc32c(0, place, 16)

# Copies a value and checks it; `destination` NULL: only checks it.
cdef int blob_read(Blob *blob, const BlobPointer *pointer, uint8_t *destination) noexcept nogil
# Where a value lies in the mapping, unchecked but for its bounds.
cdef int blob_locate(Blob *blob, const BlobPointer *pointer, const uint8_t **data) noexcept nogil
# Describes a failure for raise_failure; gives STATUS_CORRUPT.
cdef int blob_damaged(Blob *blob, const BlobPointer *pointer, uint32_t found) noexcept nogil

cdef class BlobReader:
    cdef Blob blob
    cdef object __weakref__
    cdef readonly object name           # of the file, as the door knows it
    cdef readonly object path
    cdef readonly uint64_t file_bytes   # what the records say; 0: not known
    cdef readonly uint32_t checksum     # of all bytes of the file, likewise
    cdef readonly object files                   # the file system door (cesium.files.Files)
    cdef object store_uuid              # 16 bytes that the header must say
    cdef PyObject *memory               # np.memmap over the file, once mapped; owned
    cdef void *region                   # of the fault handler
    cdef object mutex                   # while mapping
    cdef object process                 # the pid that made it
    cdef object pinned                  # a mapping that nothing was read from, or None
    cdef object map_failure             # the exception of the last try to map, or None
    cdef public bint doomed             # unlink the file when the last reference is gone
    cdef int map_file(self) except -1
    cdef int map_locked(self) except -1
    cdef int check_header(self, const uint8_t *page) except -1
    cdef int raise_failure(self) except -1
