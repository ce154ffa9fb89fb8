# A run: segments of one source, in key order, none overlapping another.
#
# Immutable; the readers must outlive it.  Any thread may read it.

from libc.stdint cimport uint32_t

from cesium._interval cimport key_compare
from cesium._page cimport Key, PageSource, Shape
from cesium._segment cimport Segment

cdef struct SegmentRun:
    Segment **segments
    PageSource *sources
    uint32_t count
    bint marked                 # one segment that has range-delete markers

# A run of these SegmentReaders; Error when it has several, and one of them range-deletes.
cdef SegmentRun *segment_run_new(list readers) except NULL
cdef void segment_run_free(SegmentRun *run) noexcept nogil
# A run of several segments as one page source.
cdef void segment_run_source(SegmentRun *run, PageSource *source) noexcept nogil

# The first segment whose upper bound is >= key, or count.
cdef inline uint32_t run_route(const SegmentRun *run, const Key *key) noexcept nogil:
    cdef uint32_t low = 0
    cdef uint32_t high = run.count
    cdef uint32_t middle
    cdef const Segment *segment
    while low < high:
        middle = (low + high) >> 1
        segment = run.segments[middle]
        if not segment.upper_unbounded and key_compare(
                segment.shape.key_width != 0, &segment.upper, key) < 0:
            low = middle + 1
        else:
            high = middle
    return low

# The one segment of a run whose bounds include the key, or NULL.
cdef inline Segment *run_holder(const Shape *shape, const SegmentRun *run, const Key *key,
                                uint32_t *index) noexcept nogil:
    cdef Segment *segment
    index[0] = run_route(run, key)
    if index[0] == run.count:
        return NULL
    segment = run.segments[index[0]]
    if key_compare(shape.key_width != 0, key, &segment.lower) < 0:
        return NULL
    return segment
