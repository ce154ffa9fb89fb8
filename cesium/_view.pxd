# One state of a memtable, live or pinned: how it is read.
#
# Thread safety: a pinned view and all that it reaches never change; the live one is read under the
# engine's lock.  Nothing here writes.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._directory cimport Directory, directory_route
from cesium._interval cimport IntervalSet
from cesium._native cimport prefetch_read
from cesium._page cimport Key, PageSource, Position, Shape

cdef struct View:
    const Shape *shape
    Directory *root
    IntervalSet *markers        # NULL when there is none
    uint64_t entries            # slots, delete markers included
    uint64_t delete_markers

cdef struct Place:              # a page in the directory; node == root.count: past the end
    uint32_t node
    uint32_t page

cdef struct ViewTotals:         # what a walk over everything finds
    uint64_t entries
    uint64_t delete_markers
    uint64_t pages
    uint64_t bytes              # pages, directories and overflow chunks


cdef enum:
    # A search of a cold page would wait for header, middle, quarter, ... in turn.  Asking for
    # header and heads at once took a get among 4 M entries from 348 to 171 ns and a put from 718 to
    # 426.
    PREFETCH_BYTES = 1600

cdef inline Directory *node_at(const Directory *root, uint32_t index) noexcept nogil:
    return <Directory *>root.children[index]

cdef inline uint8_t *page_at(const Directory *node, uint32_t index) noexcept nogil:
    return <uint8_t *>node.children[index]

# The page that holds the key if any does; the view must not be empty.
cdef inline Place view_route(const View *view, const Key *key) noexcept nogil:
    cdef Place place
    cdef const uint8_t *page
    cdef const uint8_t *line
    cdef const Directory *node
    place.node = directory_route(view.shape, view.root, key)
    node = node_at(view.root, place.node)
    place.page = directory_route(view.shape, node, key)
    page = page_at(node, place.page)
    line = page
    while line < page + PREFETCH_BYTES:
        prefetch_read(line)
        line += 64
    return place

# To the page behind or before; False, and unchanged, at the end.
cdef bint next_place(const Directory *root, Place *place) noexcept nogil
cdef bint previous_place(const Directory *root, Place *place) noexcept nogil
cdef Place place_of(const View *view, const Position *position) noexcept nogil
# The contracts of PageSource.seek and of memtable_find.
cdef int view_seek(void *context, const Key *key, Position *position) noexcept nogil
cdef int view_find(const View *view, const Key *key, Position *position,
                   bint *masked) noexcept nogil
cdef void view_source(View *view, PageSource *source) noexcept nogil
# Whether [lower, upper) has an entry that is not a delete marker.
cdef bint view_has_values(View *view, const Key *lower, const Key *upper) noexcept nogil
# Walks everything: 0, or the number of a broken invariant (1..6, 5x) of _memtable.pyx.  Nothing may
# have been made after `generation`.
cdef int view_check(const View *view, uint64_t generation, ViewTotals *totals) noexcept nogil
