"""Advice to the kernel about mapped pages: see _advice.pxd for the contract.

Why madvise and not io_uring: docs/decisions/ has the measurement.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from cesium._layout cimport PAGE_BYTES

cdef extern from *:
    """
    #include <sys/mman.h>
    #ifndef MADV_PAGEOUT
    #define MADV_PAGEOUT 21
    #endif

    static uint64_t advice_needed_pages = 0;
    static uint64_t advice_released_pages = 0;

    static inline void advice_count(uint64_t *counter, uint64_t pages) {
        __atomic_fetch_add(counter, pages, __ATOMIC_RELAXED);
    }
    static inline uint64_t advice_counted(const uint64_t *counter) {
        return __atomic_load_n(counter, __ATOMIC_RELAXED);
    }
    """
    int madvise(void *address, size_t bytes, int advice) noexcept nogil
    int mincore(void *address, size_t bytes, unsigned char *answer) noexcept nogil
    const int MADV_WILLNEED
    const int MADV_PAGEOUT
    uint64_t advice_needed_pages
    uint64_t advice_released_pages
    void advice_count(uint64_t *counter, uint64_t pages) noexcept nogil
    uint64_t advice_counted(const uint64_t *counter) noexcept nogil


cdef void advise_need(const uint8_t *map, uint64_t first, uint64_t pages) noexcept nogil:
    advice_count(&advice_needed_pages, pages)
    madvise(<void *>(map + first * PAGE_BYTES), pages * PAGE_BYTES, MADV_WILLNEED)


cdef void advise_release(const uint8_t *map, uint64_t first, uint64_t pages) noexcept nogil:
    # MADV_COLD is not enough: pages that were only ever read through mappings are as old as those
    # of a scan, and with it a scan of 2 GB in a cgroup of 384 MB evicted a working set of 192 MB
    # to the last page, as without; with MADV_PAGEOUT all of it stayed.
    advice_count(&advice_released_pages, pages)
    madvise(<void *>(map + first * PAGE_BYTES), pages * PAGE_BYTES, MADV_PAGEOUT)


cdef void pages_resident(const uint8_t *map, uint64_t first, uint64_t pages,
                         uint8_t *there) noexcept nogil:
    if mincore(<void *>(map + first * PAGE_BYTES), pages * PAGE_BYTES, there):
        memset(there, 1, pages)


cdef int64_t monotonic_nanoseconds() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <int64_t>moment.tv_sec * 1000000000 + moment.tv_nsec


def advised_pages():
    """Return (needed, released): pages of which the kernel was told so, in this process so far."""
    return advice_counted(&advice_needed_pages), advice_counted(&advice_released_pages)
