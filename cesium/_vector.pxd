# The sorted vector of a memtable as its one writer changes it: pages, directory, copy-on-write.
#
# Every function belongs to the writer (the engine's exclusive lock).  Each allocates all it needs
# before it changes any contents: STATUS_NO_MEMORY means that nothing but ownership has changed.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._arena cimport Arena
from cesium._draft cimport DraftEntry
from cesium._layout cimport OverflowReference
from cesium._page cimport Shape
from cesium._view cimport Place, View

cdef struct Vector:
    Arena arena
    View live
    uint32_t node_capacity
    uint64_t pages
    uint64_t splits
    uint64_t joins
    uint64_t page_copies
    uint64_t rebuilds

# `shape` is borrowed for the vector's life.
cdef int vector_open(Vector *vector, const Shape *shape) noexcept nogil
cdef void vector_close(Vector *vector) noexcept nogil
# Copies a long key or value to a chunk of its own; lets go of one.
cdef int vector_spill(Vector *vector, const uint8_t *data, uint64_t bytes,
                      OverflowReference *reference) noexcept nogil
cdef void vector_drop_chunk(Vector *vector, uint64_t location) noexcept nogil
# Puts the first entry of an empty vector; puts an entry at a slot of a page, over the entry there
# if `exact`.  Counting it is the caller's.
cdef int vector_put_first(Vector *vector, const DraftEntry *entry) noexcept nogil
cdef int vector_put(Vector *vector, Place place, uint32_t slot, bint exact,
                    const DraftEntry *entry) noexcept nogil
# Removes everything from one slot up to another, which lies behind it or past the end, in two
# steps: the first may fail, the second may not.
cdef int vector_own_edges(Vector *vector, Place first, uint32_t first_slot, Place last,
                          uint32_t last_slot) noexcept nogil
cdef void vector_cut_out(Vector *vector, Place first, uint32_t first_slot, Place last,
                         uint32_t last_slot) noexcept nogil
