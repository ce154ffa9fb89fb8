# What one or two pages are to hold when they are laid out anew: slots of old pages and one new
# entry.
#
# A memtable page that is full, or whose prefix is too long for a new key, is never changed by
# force: its slots and the new entry make a draft, the draft is measured, and its items are written
# to one or two fresh pages.  A draft borrows everything that it names.  Pure functions; no locks.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._layout cimport OverflowReference
from cesium._page cimport Key, Shape

cdef struct DraftEntry:         # arguments of page_insert
    Key key
    uint8_t kind                # with overflow bits
    OverflowReference key_reference
    const uint8_t *value
    uint64_t value_bytes

cdef struct DraftPiece:         # slots [first, last) of a page; page NULL: the new entry
    const uint8_t *page
    uint32_t first
    uint32_t last

cdef struct Draft:
    const Shape *shape
    const DraftEntry *entry
    DraftPiece pieces[3]
    uint32_t piece_count
    uint32_t count              # items
    uint32_t lone_prefix_bytes  # what a page of one item takes as its prefix: a guess of what comes

cdef struct Measure:            # of some items of a draft, packed into one page
    uint8_t prefix[512]
    uint32_t prefix_bytes
    uint32_t count
    uint32_t heap_bytes
    uint32_t bytes              # header and prefix included; may be more than a page has
    bint kinds                  # some item is no plain value

cdef void draft_begin(Draft *draft, const Shape *shape, const DraftEntry *entry) noexcept nogil
cdef void draft_add_slots(Draft *draft, const uint8_t *page, uint32_t first,
                          uint32_t last) noexcept nogil
cdef void draft_add_entry(Draft *draft) noexcept nogil
cdef void draft_measure(const Draft *draft, uint32_t first, uint32_t last,
                        Measure *measure) noexcept nogil
# Whether the items fit into one page with `spare` bytes left over.
cdef bint measure_fits(const Shape *shape, const Measure *measure, uint32_t spare) noexcept nogil
# Where to cut a draft of two items or more, so that the larger half is smallest in bytes.
cdef uint32_t draft_middle(const Draft *draft) noexcept nogil
# Writes items [first, last), which must fit, to a page, with room for as many more of their kind.
cdef void draft_write(const Draft *draft, uint32_t first, uint32_t last, uint8_t *page,
                      uint64_t generation) noexcept nogil
