"""What readers of segments hold in memory besides the mapping of the file."""

from libc.stdint cimport uint64_t

from cesium._fences cimport Fences
from cesium._interval cimport IntervalSet
from cesium._segment cimport Segment, SegmentReader


def segment_memory(SegmentReader reader):
    """(bytes of the fences' arrays, of the bitmap of checked pages, of range-delete markers).

    All zero before the segment's first use.
    """
    cdef const Segment *segment = &reader.segment
    cdef const IntervalSet *markers = segment.markers
    cdef uint64_t leaves = segment.fence_end - segment.fence_first
    cdef uint64_t fences
    if segment.map == NULL:
        return 0, 0, 0
    # As _fences.pyx makes them: two numbers a page and one more, a head, a number per data page.
    fences = sizeof(Fences) + leaves * 4 + (leaves + 1) * 4
    if segment.shape.key_width:
        fences += leaves * 8
    if segment.page_numbers != NULL:
        fences += <uint64_t>segment.data_pages * 4
    return (fences, (<uint64_t>segment.page_count + 63) // 64 * 8,
            markers.bytes if markers != NULL else 0)
