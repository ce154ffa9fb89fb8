# One immutable segment file: reading it (SegmentReader).  Building is in _builder.pxd.
#
# A reader is created from what the manifest says and touches nothing; at first use the file is mapped
# as np.memmap (advised random), its footer, fences, range-deletes checked and the upper fence levels
# ready.  A data page is checked (checksum, form, bounds) at its first touch, then remembered in a
# bitmap of atomics.  Thread safety: every function may be called from any thread; mapping is once,
# under the reader's own lock, with the GIL taken for its time (so call with no engine lock held).

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._interval cimport IntervalSet
from cesium._layout cimport SegmentFooter
from cesium._page cimport Key, PageSource, Position, Shape

cdef struct Segment:
    const Shape *shape
    const uint8_t *map          # NULL until first use; then page i lies at map + i * 4096
    uint64_t id
    uint32_t page_count         # from the footer, once mapped
    uint32_t data_pages
    uint64_t entries
    uint64_t delete_markers
    Key lower                   # smallest and largest key, from the manifest: routing without mapping
    Key upper                   # (inclusive, entries and markers both); at most 513 bytes, widened
    bint upper_unbounded        # a range-delete marker without upper end
    const uint32_t *page_numbers    # data ordinal -> page number; NULL when they are equal
    uint64_t *checked           # bitmap over page numbers, atomic
    const uint32_t *filter      # split blocks, NULL when none
    uint64_t filter_blocks
    IntervalSet *markers        # NULL when none
    int failed_status           # first failure; failed_page, failed_expected, failed_found for the error
    uint32_t failed_page
    uint32_t failed_expected
    uint32_t failed_found
    void *reader                # borrowed SegmentReader, to map from nogil code
    void *fences                # private to _segment.pyx

# Maps and checks the file if that has not been done.  Cheap when it has (one load).
cdef int segment_ready(Segment *segment) noexcept nogil
# Checked pointer to the data page with this ordinal; the one place that forms page pointers.
cdef int segment_page(Segment *segment, uint32_t ordinal, const uint8_t **page) noexcept nogil
# The ordinal of the only data page that can hold `key` (the last whose fence is <= key, or 0).
cdef int segment_route(Segment *segment, const Key *key, uint32_t *ordinal) noexcept nogil
# Many keys of the fixed form at once, sorted or not; interleaved so that cache misses overlap.
cdef int segment_route_heads(Segment *segment, const uint64_t *heads, uint32_t count,
                             uint32_t *ordinals) noexcept nogil
# 0: surely absent.  The hash is hash_head or hash_bytes of the key.
cdef bint segment_may_contain(const Segment *segment, uint64_t hash) noexcept nogil
# STATUS_OK with the entry (any kind), or STATUS_NOT_FOUND (markers are not looked at).
cdef int segment_find(Segment *segment, const Key *key, Position *position) noexcept nogil
# Number of entries (delete markers included) with key < `key`; needs no data page but one.
cdef int segment_rank(Segment *segment, const Key *key, uint64_t *rank) noexcept nogil
cdef void segment_source(Segment *segment, PageSource *source) noexcept nogil

cdef class SegmentReader:
    cdef Segment segment
    cdef Shape shape
    cdef readonly object record         # the manifest's SegmentRecord
    cdef readonly object path
    cdef object files                   # the file system door (cesium.files.Files)
    cdef object memory                  # np.memmap over the file, once mapped
    cdef public bint doomed             # unlink the file when the last reference is gone
    # Python methods: map(), verify() -> iterator of (page, message), read_ahead(), footer() -> dict,
    # page(i) -> bytes copy (tests), raise_failure()
    cdef int raise_failure(self) except -1   # the gate: CorruptionError or OSError with path, offset
