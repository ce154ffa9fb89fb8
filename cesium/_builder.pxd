# Building one segment file: rows in key order in, packed and checksummed pages out.
#
# Pages are filled in one of two alternating buffers of 1 MiB or more; a full buffer is written with
# direct I/O by the builder's own writer thread while the next is filled (a file system that refuses
# O_DIRECT gets buffered writes).  One builder is used by one thread at a time.  Nothing is visible
# until the caller has called `finish` (all written, synced) and published the record.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._interval cimport Interval
from cesium._page cimport Key, PageSource, Shape, Value

cdef struct Builder             # opaque

# Entries must come in strictly ascending key order over all calls.  Any status < 0 is final.
cdef int builder_add(Builder *builder, const Key *key, const Value *value) noexcept nogil
# Slots [first, last) of a page of some source with the same shape; kinds come along; overflowed keys and
# values are read through the source and spilled anew.
cdef int builder_add_slots(Builder *builder, const PageSource *source, const uint8_t *page,
                           uint32_t first, uint32_t last) noexcept nogil
# Fixed keys and fixed rows (packed, `value_width` bytes each), strictly ascending: the bulk path.
cdef int builder_add_columns(Builder *builder, const uint64_t *heads, const uint8_t *rows,
                             uint64_t count) noexcept nogil
# The same from sorted (key, payload) pairs (SortPair[count]) whose payload is the row itself
# (value_width 8), or the index of the row in `rows` (gather with prefetch).
cdef int builder_add_pairs(Builder *builder, const void *pairs, uint64_t count, const uint8_t *rows,
                           bint payload_is_row) noexcept nogil
cdef int builder_add_marker(Builder *builder, const Interval *interval) noexcept nogil
# Bytes written and in the making; the caller splits its output by this.
cdef uint64_t builder_bytes(const Builder *builder) noexcept nogil

cdef class SegmentBuilder:
    cdef Builder *builder
    cdef Shape shape
    # Python: __init__(files, path, segment_id, store_uuid, shape: TableShape, *, filter_keys: int
    # (0 = no filter), first_sequence, last_sequence, table_id=0)
    # finish() -> dict(rows.., see SegmentRecord): flushes, fences, filter, footer, fdatasync, close
    # abort(): closes and unlinks
