# What the kernel is told about mapped pages of files, and what it tells.
#
# Advice: none of it changes what is read, and all of it may be ignored, so none of it fails.  Page
# numbers count from `map`.  Thread safety: any thread at once.  No Python objects.

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef enum:
    # A touch of a page, or of a few, that takes longer than this has waited for the drive: a fault
    # on a page that is in memory takes 1 to 2 us, a read of a fast drive 20 to 80.
    WAIT_NANOSECONDS = 10000

# Starts reading pages that are not in memory; does not wait for them.
cdef void advise_need(const uint8_t *map, uint64_t first, uint64_t pages) noexcept nogil
# Lets pages go that nobody will need soon; those mapped by other processes stay.
cdef void advise_release(const uint8_t *map, uint64_t first, uint64_t pages) noexcept nogil
# there[i] & 1: page first + i is in memory.  Where the kernel does not say, all are.
cdef void pages_resident(const uint8_t *map, uint64_t first, uint64_t pages,
                         uint8_t *there) noexcept nogil
cdef int64_t monotonic_nanoseconds() noexcept nogil
