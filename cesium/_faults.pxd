# Faults under mappings: a page of a mapped file that the drive cannot give.
#
# Whoever maps a file registers the mapping before its first touch and unregisters it before it is
# unmapped, both under the GIL.  A touch of a page that cannot be read then reads zeros instead of
# ending the process (_faults.h).  From then on the owner's `lost` is not 0, and the page's bit says
# which; both are set before the first zero can be read.
#
# A call that reads mappings notes faults_seen() before its first read.  If it is another number
# behind its last read, the call may have read zeros, also those of a fault that another thread
# took: it asks the owners of what it read, and raises.  Who finds it unchanged read no zeros.

from libc.stdint cimport uint32_t, uint64_t

# Registers `bytes` at `base`; *lost must live as long as the region.  MemoryError, OSError.
cdef void *fault_register(const void *base, uint64_t bytes, bint writable,
                          uint32_t *lost) except NULL
cdef void fault_unregister(void *region) noexcept
# How many faults there were in this process, in all mappings; the place never moves.
cdef const uint64_t *fault_counter() noexcept nogil
# Whether a page of 4096 bytes is lost; the first lost one at or behind `first` and before `end`.
cdef bint fault_lost(const void *region, uint64_t page) noexcept nogil
cdef bint fault_find(const void *region, uint64_t first, uint64_t end,
                     uint64_t *page) noexcept nogil

cdef extern from *:
    """
    /* A load that stays behind the reads before it. */
    static inline uint64_t faults_seen(const uint64_t *counter) {
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
    }
    static inline uint32_t load_lost(const uint32_t *lost) {
        return __atomic_load_n(lost, __ATOMIC_ACQUIRE);
    }
    """
    uint64_t faults_seen(const uint64_t *counter) noexcept nogil
    uint32_t load_lost(const uint32_t *lost) noexcept nogil
