# Gaps: stretches of keys between two visible rows in which a cursor passed nothing but delete
# markers, and what they hide.
#
# A cursor counts the markers of the gap that it is in and keeps the widest it has crossed, so that
# its owner may leave one range-delete marker over it (_sweep.pyx): the next read jumps.
#
# Thread safety: a Gaps belongs to its cursor.  The places point into pages that the cursor's owner
# has pinned.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._page cimport PageSource, heads_of

cdef struct GapEdge:
    const uint8_t *page         # NULL: no such place
    const PageSource *source
    uint32_t slot

cdef struct Gap:
    uint64_t markers            # passed in it
    GapEdge before              # the visible row that came last; none at the cursor's start
    GapEdge first               # the marker that was passed first, and the last one
    GapEdge last
    GapEdge after               # the visible row behind it; none at the cursor's end

cdef struct Gaps:
    Gap current
    Gap widest                  # of those that ended
    GapEdge row                 # the last visible one so far

cdef inline void set_edge(GapEdge *edge, const uint8_t *page, uint32_t slot,
                          const PageSource *source) noexcept nogil:
    edge.page = page
    edge.slot = slot
    edge.source = source

# Markers at slots `from_slot` to `to_slot` of a page, in the order passed, both included.
cdef void gap_pass(Gaps *gaps, const uint8_t *page, uint32_t from_slot, uint32_t to_slot,
                   const PageSource *source) noexcept nogil
# The gap ends at a visible row (page NULL: at the cursor's end).
cdef void gap_end(Gaps *gaps, const uint8_t *page, uint32_t slot,
                  const PageSource *source) noexcept nogil

# How many entries in a row, from a slot each and in one direction, have equal heads in two pages:
# one at least, for the caller has compared those.  (A page may get lost, and be zeros, at any
# moment: an answer of none would stop the caller for ever, and so would more than the pages have.)
cdef inline uint32_t equal_heads(const uint8_t *a, uint32_t a_slot, uint32_t a_count,
                                 const uint8_t *b, uint32_t b_slot, uint32_t b_count,
                                 int direction) noexcept nogil:
    cdef const uint64_t *a_heads = heads_of(a) + a_slot
    cdef const uint64_t *b_heads = heads_of(b) + b_slot
    cdef uint32_t most = 1
    cdef uint32_t equal = 1
    if direction > 0:
        if a_slot < a_count and b_slot < b_count:
            most = min(a_count - a_slot, b_count - b_slot)
        while equal < most and a_heads[equal] == b_heads[equal]:
            equal += 1
        return equal
    most = min(a_slot, b_slot) + 1
    while equal < most and (a_heads - equal)[0] == (b_heads - equal)[0]:
        equal += 1
    return equal
