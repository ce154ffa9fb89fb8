# One immutable segment file: reading it (SegmentReader).  Building is in _builder.pxd.
#
# A reader is created from what the manifest says and touches nothing; at first use the file is
# mapped as np.memmap (advised random), its footer, fences, range-deletes checked and the first
# fence of every leaf put into an array.  A data page is checked (checksum, form, bounds) at its
# first touch, then remembered in a bitmap of atomics.  Thread safety: every function may be called
# from any thread; mapping is once, under the reader's own lock, with the GIL taken for its time (so
# call with no engine lock held).

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._blobs cimport Blob
from cesium._interval cimport IntervalSet
from cesium._layout cimport SEGMENT_MAGIC, STATUS_OK
from cesium._page cimport Key, PageSource, Position, Shape, TableShape

cdef struct Segment:
    const Shape *shape
    const uint8_t *map          # NULL until first use; then page i lies at map + i * 4096
    uint64_t id
    uint32_t page_count         # from the footer, once mapped
    uint32_t data_pages
    uint64_t entries
    uint64_t delete_markers
    Key lower                   # smallest and largest key, from the manifest: no mapping to route
    Key upper                   # (inclusive, entries and markers both); at most 513 bytes, widened
    bint upper_unbounded        # a range-delete marker without upper end
    const uint32_t *page_numbers    # data ordinal -> page number; NULL when they are equal
    uint64_t *checked           # bitmap over page numbers, atomic
    uint32_t lost               # pages that the drive could not give, counted by the fault handler
    void *region                # of the fault handler; says which
    uint32_t fence_first        # pages of the fences
    uint32_t fence_end
    const uint32_t *filter      # first filter page in the map, NULL when none
    uint64_t filter_blocks
    IntervalSet *markers        # NULL when none
    Blob **blobs                # the blob files that it refers to, by id
    uint32_t blob_count
    int failed_status           # first failure; failed_page and so on describe it
    int failed_claim            # private: whoever sets it first describes the failure
    uint32_t failed_page
    uint32_t failed_expected    # checksum in the page, and of its bytes; equal when the checksum is
    uint32_t failed_found       # right and the content is not
    void *reader                # borrowed SegmentReader, to map from nogil code
    void *fences                # private to _segment.pyx

# Maps and checks the file if that has not been done.  Cheap when it has (two loads).  A segment
# that lost its footer or a page of its fences is not ready again.
cdef int segment_ready(Segment *segment) noexcept nogil
# Checked pointer to the data page with this ordinal; the one place that forms page pointers.
cdef int segment_page(Segment *segment, uint32_t ordinal, const uint8_t **page) noexcept nogil
# The same for any page by its number; `type` is what it must be.
cdef int segment_checked(Segment *segment, uint32_t number, uint8_t type,
                         const uint8_t **page) noexcept nogil
# The ordinal of the only data page that can hold `key` (the last whose fence is <= key, or 0);
# STATUS_NOT_FOUND when the segment has no entries.
cdef int segment_route(Segment *segment, const Key *key, uint32_t *ordinal) noexcept nogil
# The same for one key of the fixed form, with a guess of its slot; what a search will touch of the
# page is being fetched when this returns.
cdef int segment_locate(Segment *segment, uint64_t head, uint32_t *ordinal,
                        uint32_t *guess) noexcept nogil
# Many keys of the fixed form at once, sorted or not; interleaved so that cache misses overlap.
# With `guesses` (else NULL), about which slots they have, those lines of the pages are asked for.
cdef int segment_route_heads(Segment *segment, const uint64_t *heads, uint32_t count,
                             uint32_t *ordinals, uint32_t *guesses) noexcept nogil
# 0: surely absent.  The hash is hash_head or hash_bytes of the key.  Before the segment is ready,
# and where the filter is damaged, the answer is 1.
cdef bint segment_may_contain(const Segment *segment, uint64_t hash) noexcept nogil
# STATUS_OK with the entry (any kind), or STATUS_NOT_FOUND (markers are not looked at).
cdef int segment_find(Segment *segment, const Key *key, Position *position) noexcept nogil
# Number of entries (delete markers included) with key < `key`; needs no data page but one.
cdef int segment_rank(Segment *segment, const Key *key, uint64_t *rank) noexcept nogil
# Entries before the data page with this ordinal; the segment must be ready.
cdef uint64_t segment_rank_of_page(Segment *segment, uint32_t ordinal) noexcept nogil
cdef void segment_source(Segment *segment, PageSource *source) noexcept nogil
# An array of the readers' blobs by id, for segment.blobs; to be freed.  NULL when there are none.
cdef Blob **blob_table(tuple readers) except? NULL

cdef extern from *:
    """
    /* Touches the last page, behind all reads before it. */
    static inline uint64_t segment_last_magic(const uint8_t *map, uint32_t page_count) {
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        return *(const volatile uint64_t *)(map + ((uint64_t)page_count - 1) * 4096 + 8);
    }
    static inline int segment_is_checked(const uint64_t *checked, uint32_t number) {
        uint64_t word = __atomic_load_n(checked + (number >> 6), __ATOMIC_ACQUIRE);
        return (int)(word >> (number & 63) & 1);
    }
    """
    uint64_t segment_last_magic(const uint8_t *map, uint32_t page_count) noexcept nogil
    # Whether a page was touched, and found right, since the segment was mapped.
    bint segment_is_checked(const uint64_t *checked, uint32_t number) noexcept nogil

# The page number of a data page; the segment must be ready, the ordinal below data_pages.
cdef inline uint32_t segment_number(const Segment *segment, uint32_t ordinal) noexcept nogil:
    return ordinal if segment.page_numbers == NULL else segment.page_numbers[ordinal]

# Whether the file still goes as far as it did; comes after the last read of a call.  Where a file
# is cut off in the midst of a page, the rest of that page reads as zeros without a fault.
cdef inline int segment_whole(Segment *segment) noexcept nogil:
    if segment.map == NULL or segment_last_magic(segment.map, segment.page_count) == SEGMENT_MAGIC:
        return STATUS_OK
    return segment_cut(segment)

cdef int segment_cut(Segment *segment) noexcept nogil

cdef class SegmentReader:
    cdef object __weakref__
    cdef Segment segment
    cdef TableShape table_shape
    cdef public object record           # the manifest's SegmentRecord; its tier alone may change
    cdef readonly object name           # of the file, as the door knows it
    cdef readonly object files          # the file system door (cesium.files.Files)
    cdef object store_uuid              # 16 bytes that the footer must say, or None
    cdef PyObject *memory               # np.memmap over the file, once mapped; owned
    cdef object mutex                   # while mapping; None before
    cdef int process                    # the pid that made it
    cdef object pinned                  # a mapping that nothing was read from, or None
    cdef readonly tuple blobs           # BlobReaders, which segment.blobs points into
    cdef object map_failure             # the exception of the last try to map, or None
    cdef bytes lower_bytes              # what segment.lower and segment.upper point into
    cdef bytes upper_bytes
    cdef public bint doomed             # unlink the file when the last reference is gone
    cdef Key bound(self, bytes key)
    cdef object own_mutex(self)
    cdef int map_file(self) except -1
    cdef int map_locked(self) except -1
    cdef bint load_mapped(self, const uint8_t *map, uint64_t size, void *region) except -1
    cdef int check_footer(self, Segment *draft, const uint8_t *page, uint64_t size) except -1
    cdef int corrupt(self, object offset, str what, object expected, object found) except -1
    cdef int raise_damage(self, const Segment *segment) except -1
    cdef int gate(self, int status) except -1       # raises for a status < 0, or gives it back
    # The same for what a call read since faults_seen() was `seen`: zeros of lost pages raise.
    cdef int check(self, int status, uint64_t seen) except -1
    cdef int raise_lost(self) except -1
    cdef int raise_lost_page(self, uint64_t number, uint64_t size) except -1
    cdef int raise_failure(self) except -1   # the gate: CorruptionError, OSError
    cdef int raise_blob_failure(self) except -1     # of its blob files, if one failed
