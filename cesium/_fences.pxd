# The fence tree of one mapped segment: checked whole when the segment is mapped, then searched in
# place.
#
# Fixed keys are routed in two steps whatever the size: among the first heads of all leaves (an
# array of 8 bytes per 63,000 rows of 16 bytes), then inside the leaf.  Variable keys walk the tree.
# Immutable after `fences_load`; any thread may search.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._layout cimport SegmentFooter
from cesium._page cimport Key, PageSource, Shape

cdef struct Fences:
    Shape shape                     # keys as the table's, rows of two u32: child page, rank
    const uint8_t *map
    PageSource source               # to read separators that overflowed
    uint32_t leaf_count
    uint32_t root
    uint32_t levels
    uint64_t *leaf_heads            # fixed keys: first head of each leaf; [0] is 0
    uint32_t *leaf_numbers          # page numbers of the leaves, ascending
    uint32_t *leaf_ordinals         # [leaf_count + 1]: ordinal of each leaf's first data page
    uint32_t *page_numbers          # data ordinal -> page number; NULL when they are equal

# Reads a page that must be of this type; the fences ask for each of their pages once.
ctypedef int (*CheckedPage)(void *context, uint32_t number, uint8_t type,
                            const uint8_t **page) noexcept nogil

# The shape of a table's fence pages.
cdef void fence_shape(const Shape *shape, Shape *fences) noexcept nogil
# Checks every fence page and fills *fences; its footer has been checked.  *failed is the page of
# the first failure.  fences_free also after a failure.
cdef int fences_load(Fences *fences, const Shape *shape, const SegmentFooter *footer,
                     const uint8_t *map, const PageSource *source, CheckedPage checked,
                     uint32_t *failed) noexcept nogil
cdef void fences_free(Fences *fences) noexcept nogil
# The last data page whose fence is <= key.
# The same for a head of the fixed key form, and about which of `slots` slots it has in its page, if
# keys are spread evenly there.
cdef void fences_locate(const Fences *fences, uint64_t head, uint32_t slots, uint32_t *ordinal,
                        uint32_t *guess) noexcept nogil
cdef int fences_route(const Fences *fences, const Key *key, uint32_t *ordinal) noexcept nogil
# Many at once; guesses may be NULL.
cdef void fences_route_heads(const Fences *fences, const uint64_t *heads, uint32_t count,
                             uint32_t slots, uint32_t *ordinals,
                             uint32_t *guesses) noexcept nogil
# Entries of the segment before a data page.
cdef uint32_t fences_rank(const Fences *fences, uint32_t ordinal) noexcept nogil
