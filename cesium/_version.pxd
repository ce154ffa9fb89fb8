# A version: the immutable list of sources that make a table's contents below the live memtable.
#
# Sources stand newest first: frozen memtables, and runs of segments that do not overlap one another
# (a flush, a load, the last tier).  A reader holds a Python reference to the version, which pins
# all that it lists; nothing in a version changes after construction, so readers take no lock.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._counters cimport FilterCounts
from cesium._cursor cimport Cursor
from cesium._interval cimport IntervalSet
from cesium._layout cimport STATUS_OK
from cesium._memtable cimport MemtableRoot
from cesium._native cimport SortPair
from cesium._page cimport Key, PageSource, Position, Shape, TableShape
from cesium._segment cimport Segment, segment_whole
from cesium._segment_run cimport SegmentRun

cdef struct VersionSource:
    PageSource source
    const IntervalSet *markers  # of a memtable; a run's are its only segment's, once mapped
    SegmentRun *run             # NULL for a memtable

cdef struct Found:
    Position position
    const PageSource *source
    Segment *segment            # NULL when a memtable answered
    FilterCounts filters        # of this lookup, whatever it found

cdef class Version:
    cdef readonly TableShape shape
    cdef readonly uint64_t number       # unique per process
    cdef readonly list sources          # MemtableSnapshot, or a list of SegmentReader, newest first
    cdef readonly bint last_run_is_base # the last source is the last tier's run
    cdef VersionSource *items
    cdef uint32_t count
    cdef public object row_count        # exact visible rows, once counted (None before)

    # The gate of a call that read since faults_seen() was `seen`: raises for zeros in place of lost
    # pages, and what a kernel's status below 0 stands for.
    cdef int check(self, int status, uint64_t seen) except -1
    # Raises what a kernel's status below 0 stands for, naming the segment that failed.
    cdef int raise_status(self, int status) except -1

cdef int raise_plain(int status) except -1      # the gate for a status that carries no place

# The newest entry of a key (of any kind): STATUS_OK, or STATUS_NOT_FOUND (absent, or hidden by a
# range-delete).  Who copies from a segment's entry asks found_whole behind that.  `warm_only`:
# STATUS_FULL instead of touching a page that is unmapped or unchecked, that is, of waiting for the
# drive; so a caller may hold the GIL.
cdef int version_find(const Shape *shape, VersionSource *items, uint32_t count, const Key *key,
                      bint warm_only, Found *found) noexcept nogil
cdef inline int found_whole(const Found *found) noexcept nogil:
    return STATUS_OK if found.segment == NULL else segment_whole(found.segment)

# Maps the segments whose range-deletes a cursor needs, and fills its inputs from `first_input` on;
# those of segments read ahead.
cdef int version_fill_inputs(VersionSource *items, uint32_t count, Cursor *cursor,
                             uint32_t first_input) noexcept nogil

# Batch lookup of fixed keys with fixed values: pairs (key, output index), sorted by key.  Rows are
# copied to rows + index * value_width (rows NULL: not wanted), found[index] set to 1.  `pairs` is
# overwritten, `filters` added to.
cdef int version_find_pairs(const Shape *shape, VersionSource *items, uint32_t count,
                            SortPair *pairs, uint64_t pair_count, uint8_t *rows,
                            uint8_t *found, FilterCounts *filters) noexcept nogil
