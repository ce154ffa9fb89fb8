# One node of the two-level directory of a memtable: sorted children and the first head of each.
#
# The children of a leaf node are pages; those of the root are leaf nodes.  `heads` are the first
# keys of the children: whole in the fixed form; in the variable form the 8 bytes behind the prefix
# that all first keys share, ties being settled by the first keys themselves.  Heads are exact:
# equal to the child's first key now, not a bound.
#
# Thread safety: none of its own; the memtable's rules (copy-on-write by generation) hold.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._arena cimport Arena, Block
from cesium._native cimport heads_upper_bound
from cesium._page cimport Key, PageSource, Shape

cdef enum:
    DIRECTORY_PREFIX_BYTES = 120    # of a longer shared prefix the rest is left to the heads

cdef struct Directory:
    Block block                 # must come first
    uint32_t count
    uint32_t capacity
    uint32_t prefix_bytes
    bint root                   # children are leaf nodes
    uint64_t *heads
    void **children
    uint8_t prefix[DIRECTORY_PREFIX_BYTES]

# Reads overflow chunks, whose location is an address: all that comparing keys of live pages needs.
cdef PageSource chunk_source

cdef Directory *directory_new(Arena *arena, uint32_t capacity, bint root) noexcept nogil
cdef Directory *directory_copy(Arena *arena, const Directory *directory,
                               uint32_t capacity) noexcept nogil
cdef const uint8_t *directory_first_page(const Directory *directory, uint32_t index) noexcept nogil
# The last child whose first key is <= key, or 0, in the variable form.
cdef uint32_t directory_route_bytes(const Shape *shape, const Directory *directory,
                                    const Key *key) noexcept nogil
# Puts a child at `index`; there must be room.
cdef void directory_insert(const Shape *shape, Directory *directory, uint32_t index,
                           void *child) noexcept nogil
# The first key of the child at `index` may have changed.
cdef void directory_refresh(const Shape *shape, Directory *directory, uint32_t index) noexcept nogil
# Removes children [first, last) from the vector; they themselves are the caller's.
cdef void directory_remove(Directory *directory, uint32_t first, uint32_t last) noexcept nogil
# Appends children [first, last) of `source`; there must be room.
cdef void directory_append(const Shape *shape, Directory *directory, const Directory *source,
                           uint32_t first, uint32_t last) noexcept nogil
# Bytes that two strings share at their beginning, at most `limit`.
cdef uint32_t shared_bytes(const uint8_t *a, uint32_t a_bytes, const uint8_t *b, uint32_t b_bytes,
                           uint32_t limit) noexcept nogil
# The first `limit` (<= 512) bytes of a key of a page, as far as they lie in the page.
cdef uint32_t copy_key_start(const uint8_t *page, uint32_t slot, uint8_t *destination,
                             uint32_t limit) noexcept nogil
# 0, or an invariant of _directory.pyx that is broken (51..).
cdef int directory_check(const Shape *shape, const Directory *directory) noexcept nogil

cdef inline uint32_t directory_route(const Shape *shape, const Directory *directory,
                                     const Key *key) noexcept nogil:
    cdef uint32_t above
    if shape.key_width == 0:
        return directory_route_bytes(shape, directory, key)
    above = heads_upper_bound(directory.heads, directory.count, key.head)
    return above - 1 if above else 0
