"""Faults under the engine's mappings: contract in _faults.pxd, the handler in _faults.h."""

from libc.stdint cimport uint32_t, uint64_t

import os

cdef extern from "_faults.h":
    ctypedef struct FaultRegion:
        uint64_t *pages
    FaultRegion *fault_add(const void *base, uint64_t bytes, int writable, uint32_t *lost,
                           int *error)
    void fault_remove(FaultRegion *region) noexcept nogil
    const uint64_t fault_total

cdef extern from *:
    uint64_t __atomic_load_n(const uint64_t *word, int order) noexcept nogil
    int __ATOMIC_ACQUIRE


cdef void *fault_register(const void *base, uint64_t bytes, bint writable,
                          uint32_t *lost) except NULL:
    cdef int error = 0
    cdef FaultRegion *region = fault_add(base, bytes, writable, lost, &error)
    if region == NULL:
        raise OSError(error, f"SIGBUS cannot be handled: {os.strerror(error)}")
    return region


cdef void fault_unregister(void *region) noexcept:
    if region != NULL:
        fault_remove(<FaultRegion *>region)


cdef const uint64_t *fault_counter() noexcept nogil:
    return &fault_total


cdef bint fault_lost(const void *region, uint64_t page) noexcept nogil:
    if region == NULL:
        return False
    return (__atomic_load_n((<const FaultRegion *>region).pages + (page >> 6), __ATOMIC_ACQUIRE)
            >> (page & 63)) & 1


cdef bint fault_find(const void *region, uint64_t first, uint64_t end,
                     uint64_t *page) noexcept nogil:
    for page[0] in range(first, end):
        if fault_lost(region, page[0]):
            return True
    return False


def faults():
    """How many pages of mapped files could not be read in this process so far."""
    return __atomic_load_n(&fault_total, __ATOMIC_ACQUIRE)
