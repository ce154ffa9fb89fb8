# Building one segment file: rows in key order in, packed and checksummed pages out.
#
# Pages are filled in one of two alternating buffers of up to 2 MiB; a full buffer is written with
# direct I/O by the builder's own writer thread while the next is filled (a file system that refuses
# O_DIRECT gets buffered writes).  One builder is used by one thread at a time.  Nothing is visible
# until the caller has called `finish` (all written, synced) and published the record.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._blob_writer cimport BlobOutput, BlobSink
from cesium._counters cimport Counters
from cesium._interval cimport Interval, IntervalSet
from cesium._layout cimport SegmentFooter
from cesium._packer cimport Packer
from cesium._page cimport Key, PageSource, Shape, TableShape, Value
from cesium._page_writer cimport PageWriter

cdef struct Builder:                # read only, but for _whole_page.pyx
    const Shape *shape
    Shape fences
    PageWriter writer
    Packer packer                   # of the data pages
    IntervalSet *markers
    uint32_t *filter                # NULL: no filter
    uint64_t filter_blocks
    BlobSink *blobs                 # of variable values
    uint64_t delete_markers
    uint64_t key_bytes
    uint64_t value_bytes
    uint64_t whole_pages            # taken as they are, and what was sealed early for them
    uint64_t early_unused_bytes
    uint64_t first_head
    uint32_t first_key_bytes        # of the whole first key, of which 512 bytes are kept
    uint8_t first_key[512]
    uint8_t *key                    # room for one whole key
    const uint8_t *origin           # footer.origin_bytes of them, the SegmentBuilder's
    int status                      # the first failure
    # what the footer says
    SegmentFooter footer

cdef struct BuilderRoom:        # free slots of the page in the making
    uint8_t *page
    uint64_t *heads             # from the first free slot on
    uint8_t *kinds              # likewise; NULL: the page takes plain values only
    uint32_t slot               # the first free one
    uint32_t count

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
# Fixed keys and fixed rows, put straight into the page in the making: what room there is (one slot
# at least), and that its first `count` slots have been filled, heads, kinds and column runs.
cdef int builder_room(Builder *builder, BuilderRoom *room) noexcept nogil
cdef int builder_filled(Builder *builder, uint32_t slot, uint32_t count) noexcept nogil
# For _whole_page.pyx: keeps the first failure; notes the first key of all; accounts for slots
# [first, last) of a page of fixed keys and rows.
cdef int builder_fail(Builder *builder, int status) noexcept nogil
cdef void builder_note_first(Builder *builder, const Key *key) noexcept nogil
cdef void builder_account(Builder *builder, const uint8_t *page, uint32_t first,
                          uint32_t last) noexcept nogil
# Markers may come in any order, before, between and after the entries; those that touch become one.
cdef int builder_add_marker(Builder *builder, const Interval *interval) noexcept nogil
# Bytes written and in the making, a fourth of those of the blob file among them: the caller splits
# its output by this.
cdef uint64_t builder_bytes(const Builder *builder) noexcept nogil

cdef class SegmentBuilder:
    cdef Builder *builder
    cdef TableShape table_shape
    cdef object files                   # the file system door (cesium.files.Files)
    cdef readonly object name           # of the file, as the door knows it
    cdef readonly object path
    cdef int fd
    cdef bytes origin                   # what builder.origin points to
    cdef readonly BlobOutput blobs      # what builder.blobs points into
    cdef Counters counters              # of the store; None: nobody counts
    cdef uint64_t held                  # counted there of this builder's memory
    cdef void account(self) noexcept
    cdef int check(self, int status) except -1      # the gate: raises what a status means
    cdef int check_open(self) except -1
    cdef int close(self) except -1
    cdef dict describe(self)
    cdef tuple bounds(self)
