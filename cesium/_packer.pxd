# Sorted entries in, packed pages out: what the data pages and each fence level of a segment have in
# common.
#
# Fixed keys with fixed rows are packed in place, in the writer's own buffer.  In every other shape
# a page's layout (its prefix, its capacity) is known only when it is full, so entries are staged
# first; what spills goes straight into the overflow run that precedes the page.  Each page packed
# is listed, so that the level above can be packed from the list.  One thread at a time; statuses as
# in _builder.pxd.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._layout cimport OverflowReference
from cesium._page cimport Key, PageSource, Shape, Value
from cesium._page_writer cimport PageWriter

cdef struct PageList:               # the pages of one level, in key order
    uint64_t count
    uint64_t capacity
    uint64_t *heads                 # fixed keys: the separators
    uint64_t *ends                  # variable keys: separator i is keys[ends[i - 1]:ends[i]]
    uint32_t *numbers               # page numbers
    uint32_t *ranks                 # entries of the segment before the page
    uint8_t *keys
    uint64_t keys_capacity

cdef struct StagedEntry:
    OverflowReference key_reference
    uint32_t key_start              # inline key and inline value lie one behind the other
    uint32_t key_bytes              # inline bytes, at most 512
    uint32_t value_bytes            # inline bytes, reference included
    uint8_t kind
    uint64_t head                   # fixed keys

cdef struct ValueOrigin:            # where to read a value that is not in memory
    const PageSource *source
    const uint8_t *page
    uint32_t slot

cdef struct Packer:
    const Shape *shape
    PageWriter *writer
    uint8_t type
    uint8_t level
    bint in_place
    uint64_t rank                   # entries of the segment before the next one; fences are told
    PageList pages
    uint32_t overflow_pages
    # the page in the making
    uint64_t page_rank
    uint32_t count                  # entries in it
    uint8_t *page                   # in place: in the writer's buffer, NULL when none is begun
    uint32_t capacity
    # staged
    StagedEntry *staged
    uint32_t staged_max
    uint8_t *arena
    uint32_t arena_used
    uint32_t prefix_bytes
    uint32_t heap_bytes
    bint kinds
    uint8_t *overflow               # the overflow page in the making, NULL when none
    uint64_t separator_start        # of the page in the making, in pages.keys
    uint8_t *last_key               # variable keys: the whole last key
    uint32_t last_key_bytes
    uint64_t last_head              # fixed keys

cdef int packer_open(Packer *packer, const Shape *shape, PageWriter *writer, uint8_t type,
                     uint8_t level) noexcept nogil
cdef void packer_close(Packer *packer) noexcept nogil
cdef void page_list_free(PageList *pages) noexcept nogil
cdef uint64_t page_list_bytes(const PageList *pages) noexcept nogil     # memory it holds
# Adds one entry behind all others.  The value is in memory, or (`origin` not NULL) overflowed in
# the page it comes from; its bytes and kind are in `value` in both cases.
cdef int packer_add(Packer *packer, const Key *key, const Value *value,
                    const ValueOrigin *origin) noexcept nogil
# In place only: memory for up to `wanted` plain entries in one page.  *slot is the first of *count
# slots; fill heads and runs, then packer_filled.
cdef int packer_room(Packer *packer, uint64_t wanted, uint32_t *slot,
                     uint32_t *count) noexcept nogil
cdef int packer_filled(Packer *packer, uint32_t count) noexcept nogil
# Finishes the page in the making, if any.
cdef int packer_seal(Packer *packer) noexcept nogil
# Bytes in use of the page in the making, its header and columns included.
cdef uint32_t packer_bytes(const Packer *packer) noexcept nogil
# A packed page without overflows, as it is, in two steps, after the page in the making is finished:
# copies it to where it will be written, for the caller to look at the copy; and lists and seals it.
# Its first key (variable keys: with its bytes) lies above all before it.
cdef int packer_begin_copy(Packer *packer, const uint8_t *page, uint8_t **copy) noexcept nogil
cdef int packer_end_copy(Packer *packer, const Key *first) noexcept nogil
