# Pages on their way into one new file: made in place in a buffer, checksummed, written behind the
# back of whoever makes them.
#
# Two buffers take turns: while the writer thread writes one (with direct I/O where the file takes
# it), the next pages are made in the other.  The thread starts with the first full buffer, so a
# small file costs none.  A PageWriter is used by one thread at a time; its own thread touches only
# the buffer that was handed to it.  After the first failure every function returns that failure.
# A forked child does not have the buffers; all that it may do is close.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cesium._counters cimport Counters
from cesium._files cimport FileOperations
from cesium._layout cimport PAGE_BYTES
from cesium._native cimport crc32c

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass

cdef struct PageWriter:
    int fd
    const FileOperations *operations
    uint64_t segment_id
    uint32_t page_count             # sealed pages: the number of the page in the making
    uint32_t used                   # sealed pages in the buffer in the making
    uint32_t making                 # which buffer that is
    uint64_t forks                  # of the process when it was opened
    uint8_t *buffers[2]
    uint64_t buffer_bytes           # of each
    uint64_t *account               # atomic: adds up what all writers of its owner hold
    bint threaded
    pthread_t thread
    pthread_mutex_t mutex           # guards what follows
    pthread_cond_t changed
    const uint8_t *pending          # what the thread shall write, NULL when it has nothing to do
    int64_t pending_bytes
    int64_t pending_offset
    bint stop
    int error                       # errno of the first failed write, or 0

# The checksum of a page: bytes 4..4095, seeded with the segment and the page number, so that a page
# written to another place is seen.
cdef inline uint32_t page_checksum(uint64_t segment_id, uint64_t number,
                                   const uint8_t *page) noexcept nogil:
    cdef uint64_t seed[2]
    seed[0] = segment_id
    seed[1] = number
    return crc32c(crc32c(0, seed, 16), page + 4, PAGE_BYTES - 4)

# STATUS_OK, or STATUS_NO_MEMORY (nothing to close then).  The file is not owned.  counters: of the
# store, None where nobody counts; they set the size of the buffers and must outlive the writer.
cdef int page_writer_open(PageWriter *writer, int fd, const FileOperations *operations,
                          uint64_t segment_id, Counters counters) noexcept nogil
# Memory of the page in the making: 4096 bytes of rubbish; the same until it is sealed.
cdef inline uint8_t *page_writer_page(PageWriter *writer) noexcept nogil:
    return writer.buffers[writer.making] + <uint64_t>writer.used * PAGE_BYTES
# Stores the checksum and goes on to the next page.  STATUS_OK, STATUS_IO or STATUS_LIMIT.
cdef int page_writer_seal(PageWriter *writer) noexcept nogil
# The same for 4096 bytes that carry no checksum: it is the caller's to know what they are.
cdef int page_writer_pass(PageWriter *writer) noexcept nogil
# Whether this process is a forked child of the one that opened it: only `page_writer_close` may be
# called then.
cdef bint page_writer_is_inherited(const PageWriter *writer) noexcept nogil
# Writes what is left and waits until all is written; syncs when asked.
cdef int page_writer_flush(PageWriter *writer, bint sync) noexcept nogil
# Ends the thread (its last write included) and frees the buffers; pages not flushed are dropped.
cdef void page_writer_close(PageWriter *writer) noexcept nogil
