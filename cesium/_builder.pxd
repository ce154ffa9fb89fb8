# Building one segment file: rows in key order in, packed and checksummed pages out.
#
# Pages are filled in one of two alternating buffers of 2 MiB; a full buffer is written with
# direct I/O by the builder's own writer thread while the next is filled (a file system that refuses
# O_DIRECT gets buffered writes).  One builder is used by one thread at a time.  Nothing is visible
# until the caller has called `finish` (all written, synced) and published the record.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._interval cimport Interval
from cesium._page cimport Key, PageSource, Shape, TableShape, Value

cdef struct Builder             # opaque

# Entries must come in strictly ascending key order over all calls.  Any status < 0 is final.
cdef int builder_add(Builder *builder, const Key *key, const Value *value) noexcept nogil
# Slots [first, last) of a page of some source with the same shape; kinds come along; overflowed
# keys and values are read through the source and spilled anew.
cdef int builder_add_slots(Builder *builder, const PageSource *source, const uint8_t *page,
                           uint32_t first, uint32_t last) noexcept nogil
# Fixed keys and fixed rows (packed, `value_width` bytes each), strictly ascending: the bulk path.
cdef int builder_add_columns(Builder *builder, const uint64_t *heads, const uint8_t *rows,
                             uint64_t count) noexcept nogil
# The same from sorted (key, payload) pairs (SortPair[count]) whose payload is the row itself
# (value_width 8 or less: its first bytes), or the index of the row in `rows` (gather with
# prefetch).
cdef int builder_add_pairs(Builder *builder, const void *pairs, uint64_t count, const uint8_t *rows,
                           bint payload_is_row) noexcept nogil
# Markers may come in any order, before, between and after the entries; those that touch become one.
cdef int builder_add_marker(Builder *builder, const Interval *interval) noexcept nogil
# Bytes written and in the making; the caller splits its output by this.
cdef uint64_t builder_bytes(const Builder *builder) noexcept nogil

cdef class SegmentBuilder:
    cdef Builder *builder
    cdef TableShape table_shape
    cdef object files                   # the file system door (cesium.files.Files)
    cdef readonly object name           # of the file, as the door knows it
    cdef readonly object path
    cdef int fd
    cdef bytes origin                   # what builder.origin points to
    cdef int check(self, int status) except -1      # the gate: raises what a status means
    cdef int check_open(self) except -1
    cdef int close(self) except -1
    cdef dict describe(self)
    cdef tuple bounds(self)
