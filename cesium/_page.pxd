# One page: 4096 bytes of sorted entries, as docs/format.md draws them (section "Data pages").
#
# The same form serves the memtable (mutable: capacity >= count, a heap with dead bytes) and
# segments (packed, immutable).  Pure functions over memory that the caller owns and has locked or
# pinned; no Python objects, no allocation, no I/O.  Pages from the drive must have passed
# `page_check` first.
#
# Invariants of a page with `count` entries:
#   1. heads are sorted ascending; among equal heads keys are sorted by remainder, then length
#   2. every entry's bytes lie inside the heap; no two overlap
#   3. variable keys: every key starts with the page's prefix
#   4. kinds_offset == 0 means that every entry is a plain, inline value

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cesium._blobs cimport Blob
from cesium._layout cimport BlobPointer, Entry, OverflowReference, PageHeader

cdef struct Shape:              # how one table's keys and values are stored; immutable, the table's
    uint32_t key_width          # 1..8: the head is the whole key; 0: variable form
    uint32_t value_width        # bytes of a packed row, or 0: variable form
    uint32_t field_count        # column runs of a fixed value (0 in the variable form)
    uint16_t field_widths[255]
    uint16_t field_starts[255]  # offset of each field in a packed row
    uint32_t slots_max          # tests make pages tiny with this; 0 = as many as fit

cdef struct Key:                # one encoded key; `data` is borrowed
    uint64_t head               # fixed form: the key; variable form: its first 8 bytes, big-endian
    const uint8_t *data         # variable form only
    uint32_t bytes

# One value; `data` is borrowed.  Fixed form: a packed row.  Only where a segment is built it may be
# of KIND_BLOB, and `data` a BlobPointer.
cdef struct Value:
    const uint8_t *data
    uint64_t bytes
    uint8_t kind                # KIND_VALUE or KIND_DELETE (no overflow bits)

# Reads bytes of an overflowed key or value: `skip` bytes into the object at `location`.
ctypedef int (*ReadOverflow)(void *context, uint64_t location, uint64_t skip, uint8_t *destination,
                             uint64_t bytes) noexcept nogil

cdef struct Position:           # a place in a PageSource
    const uint8_t *page         # NULL: before the first or after the last entry
    uint64_t ordinal            # which page, in the source's own terms
    uint32_t slot

# An ordered, immutable sequence of checked pages: a memtable snapshot or a segment.  `seek` finds
# the first entry >= key (page NULL when there is none); `step` goes to the next (+1) or previous
# (-1) page, slot set to its first or last entry, page NULL past either end; `edge` goes to the
# first (+1) or last (-1) page of the source, slot likewise.  No page is empty.
cdef struct PageSource:
    void *context
    int (*seek)(void *context, const Key *key, Position *position) noexcept nogil
    int (*step)(void *context, Position *position, int direction) noexcept nogil
    int (*edge)(void *context, Position *position, int direction) noexcept nogil
    ReadOverflow read_overflow
    int (*whole)(void *context) noexcept nogil      # segment_whole; NULL: nothing to lose
    # The blob file with an id, NULL when the source knows none; NULL itself where none may be.
    Blob *(*blob_of)(void *context, uint64_t blob_id) noexcept nogil

cdef inline PageHeader *header_of(const uint8_t *page) noexcept nogil:
    return <PageHeader *>page

cdef inline uint64_t *heads_of(const uint8_t *page) noexcept nogil:
    return <uint64_t *>(page + (<PageHeader *>page).heads_offset)

cdef inline Entry *entries_of(const uint8_t *page) noexcept nogil:
    return <Entry *>(page + (<PageHeader *>page).entries_offset)

cdef inline uint8_t kind_of(const uint8_t *page, uint32_t slot) noexcept nogil:
    cdef PageHeader *header = <PageHeader *>page
    return page[header.kinds_offset + slot] if header.kinds_offset else 0

# Start of column run `field` of fixed values; its element i lies at + i * field_widths[field].
cdef inline uint8_t *run_of(const Shape *shape, const uint8_t *page, uint32_t field) noexcept nogil:
    cdef PageHeader *header = <PageHeader *>page
    return <uint8_t *>page + header.values_offset + (
        <uint32_t>header.capacity * shape.field_starts[field])

# --- reading ---------------------------------------------------------------------------------

# Everything a reader relies on, checked before any pointer is formed; not the checksum.
cdef int page_check(const Shape *shape, const uint8_t *page, uint8_t type) noexcept nogil
# First slot whose key is >= key; *exact says whether it is equal.  Status may be an I/O error.
cdef int page_find(const Shape *shape, const uint8_t *page, const Key *key,
                   const PageSource *source, uint32_t *slot, bint *exact) noexcept nogil
# Order of the key at `slot` against `key`: -1, 0, 1 in *order.
cdef int page_compare(const Shape *shape, const uint8_t *page, uint32_t slot, const Key *key,
                      const PageSource *source, int *order) noexcept nogil
# Length of the whole key (overflow included), and its bytes copied to `destination`.
cdef uint64_t page_key_bytes(const Shape *shape, const uint8_t *page, uint32_t slot) noexcept nogil
cdef int page_copy_key(const Shape *shape, const uint8_t *page, uint32_t slot,
                       const PageSource *source, uint8_t *destination) noexcept nogil
# Gathers a packed row of fixed values; scatters one into the column runs.
cdef void page_copy_row(const Shape *shape, const uint8_t *page, uint32_t slot,
                        uint8_t *row) noexcept nogil
cdef void page_store_row(const Shape *shape, uint8_t *page, uint32_t slot,
                         const uint8_t *row) noexcept nogil
# Variable form: length of the whole value, its inline bytes (NULL when it lies elsewhere), and a
# copy.  A value in a blob file is copied whole or not at all: its checksum covers all of it.
cdef uint64_t page_value_bytes(const uint8_t *page, uint32_t slot) noexcept nogil
cdef const uint8_t *page_value_inline(const uint8_t *page, uint32_t slot) noexcept nogil
cdef int page_copy_value(const uint8_t *page, uint32_t slot, const PageSource *source,
                         uint64_t skip, uint8_t *destination, uint64_t bytes) noexcept nogil
# The pointer of an entry of KIND_BLOB.
cdef void page_blob_pointer(const uint8_t *page, uint32_t slot,
                            BlobPointer *pointer) noexcept nogil
# The reference of an overflowed key or value; meaningful only when the kind byte says so.
cdef OverflowReference *page_key_reference(const uint8_t *page, uint32_t slot) noexcept nogil
cdef OverflowReference *page_value_reference(const uint8_t *page, uint32_t slot) noexcept nogil
# Inline key bytes behind prefix and head, and how many (no overflow reference included).
cdef const uint8_t *page_key_remainder(const uint8_t *page, uint32_t slot,
                                       uint32_t *bytes) noexcept nogil

# --- writing (memtable pages and the builder's page in the making) ------------------------------

# Lays out an empty page: columns for `capacity` slots, a prefix (variable keys), kinds or not.
cdef void page_format(const Shape *shape, uint8_t *page, uint8_t type, uint32_t capacity,
                      const uint8_t *prefix, uint32_t prefix_bytes, bint kinds) noexcept nogil
# Largest capacity of a page whose keys and values are both fixed.
cdef uint32_t page_fixed_capacity(const Shape *shape, bint kinds) noexcept nogil
# Inserts at `slot` (others shift up).  `kind` carries the overflow bits; with KIND_KEY_OVERFLOW
# `key` holds the first 512 bytes and `key_reference` is stored; with KIND_VALUE_OVERFLOW `value` is
# the 16-byte reference.  STATUS_FULL when there is no slot or no heap (nothing changed), or the key
# does not start with the page's prefix.  The page must have a kinds column unless kind is 0.
cdef int page_insert(const Shape *shape, uint8_t *page, uint32_t slot, const Key *key, uint8_t kind,
                     const OverflowReference *key_reference, const uint8_t *value,
                     uint64_t value_bytes) noexcept nogil
# Replaces kind and value of an existing slot, its key (and key reference) staying.
cdef int page_replace(const Shape *shape, uint8_t *page, uint32_t slot, uint8_t kind,
                      const uint8_t *value, uint64_t value_bytes) noexcept nogil
# Removes slots [first, last).
cdef void page_remove(const Shape *shape, uint8_t *page, uint32_t first,
                      uint32_t last) noexcept nogil
# Copies slots [first, last) of `source_page` behind the last entry of `page`, references as they
# are.  The caller keeps the order.  STATUS_FULL: *copied says how many went in.
cdef int page_append_slots(const Shape *shape, uint8_t *page, const uint8_t *source_page,
                           uint32_t first, uint32_t last, uint32_t *copied) noexcept nogil
# Bytes that page header, prefix and columns take for `capacity` slots: where the heap may begin.
cdef uint32_t page_columns_bytes(const Shape *shape, uint32_t capacity, uint32_t prefix_bytes,
                                 bint kinds) noexcept nogil

cdef class TableShape:          # a Shape that Python can hold: TableShape(key_width, value_width,
    cdef Shape shape            # field_widths=(), slots_max=0)
