"""What readers of segments hold in memory besides the mapping of the file."""

from libc.stdint cimport uint32_t, uint64_t

from cesium._fences cimport Fences
from cesium._interval cimport IntervalSet
from cesium._segment cimport Segment
from cesium._segment_run cimport SegmentRun
from cesium._version cimport Version


def segments_memory(Version version):
    """(bytes of the fences' arrays, of the bitmaps of checked pages, of range-delete markers).

    Of all segments of a version; one has none before its first use.  A few nanoseconds for each.
    """
    cdef const SegmentRun *run
    cdef uint64_t fences = 0
    cdef uint64_t checked = 0
    cdef uint64_t markers = 0
    cdef uint32_t source
    cdef uint32_t index
    for source in range(version.count):
        run = version.items[source].run
        for index in range(run.count if run != NULL else 0):
            add_segment(run.segments[index], &fences, &checked, &markers)
    return fences, checked, markers


cdef void add_segment(const Segment *segment, uint64_t *fences, uint64_t *checked,
                      uint64_t *markers) noexcept nogil:
    cdef const IntervalSet *intervals = segment.markers
    cdef uint64_t leaves = segment.fence_end - segment.fence_first
    if segment.map == NULL:
        return
    # As _fences.pyx makes them: two numbers a page and one more, a head, a number per data page.
    fences[0] += sizeof(Fences) + leaves * 4 + (leaves + 1) * 4
    if segment.shape.key_width:
        fences[0] += leaves * 8
    if segment.page_numbers != NULL:
        fences[0] += <uint64_t>segment.data_pages * 4
    checked[0] += (<uint64_t>segment.page_count + 63) // 64 * 8
    if intervals != NULL:
        markers[0] += intervals.bytes
