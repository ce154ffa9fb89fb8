"""Runs of segments as sources of pages: see _segment_run.pxd for the contract.

The ordinals of a run are (segment index << 32) | page ordinal.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from cesium._layout cimport STATUS_CORRUPT, STATUS_OK
from cesium._page cimport Key, PageSource, Position
from cesium._segment cimport Segment, SegmentReader, segment_source, segment_whole
from cesium.errors import Error


cdef inline int adopt(SegmentRun *run, uint32_t index, Position *position) noexcept nogil:
    position.ordinal |= <uint64_t>index << 32
    return STATUS_OK


cdef int run_edge_from(SegmentRun *run, int64_t index, int direction,
                       Position *position) noexcept nogil:
    """The first (or last) entry of segment `index` or of the nearest one behind it that has any."""
    cdef int status
    while 0 <= index < run.count:
        status = run.sources[index].edge(run.sources[index].context, position, direction)
        if status != STATUS_OK:
            return status
        if position.page != NULL:
            return adopt(run, <uint32_t>index, position)
        index += direction
    position.page = NULL
    return STATUS_OK


cdef int run_onward(SegmentRun *run, uint32_t index, int direction,
                    Position *position) noexcept nogil:
    """What was found in segment `index`, or else the nearest entry behind it."""
    cdef int status
    if position.page != NULL:
        return adopt(run, index, position)
    # A cursor asks the segments that it stops in, not one that it only passes through.
    status = segment_whole(run.segments[index])
    if status != STATUS_OK:
        return status
    return run_edge_from(run, <int64_t>index + direction, direction, position)


cdef int run_seek(void *context, const Key *key, Position *position) noexcept nogil:
    cdef SegmentRun *run = <SegmentRun *>context
    cdef uint32_t index = run_route(run, key)
    cdef int status
    position.page = NULL
    if index == run.count:
        return STATUS_OK
    status = run.sources[index].seek(run.sources[index].context, key, position)
    if status != STATUS_OK:
        return status
    return run_onward(run, index, 1, position)


cdef int run_step(void *context, Position *position, int direction) noexcept nogil:
    cdef SegmentRun *run = <SegmentRun *>context
    cdef uint32_t index = <uint32_t>(position.ordinal >> 32)
    cdef int status
    position.ordinal &= <uint64_t>0xFFFFFFFF
    status = run.sources[index].step(run.sources[index].context, position, direction)
    if status != STATUS_OK:
        return status
    return run_onward(run, index, direction, position)


cdef int run_edge(void *context, Position *position, int direction) noexcept nogil:
    cdef SegmentRun *run = <SegmentRun *>context
    return run_edge_from(run, 0 if direction > 0 else <int64_t>run.count - 1, direction, position)


cdef int run_read_overflow(void *context, uint64_t location, uint64_t skip, uint8_t *destination,
                           uint64_t bytes) noexcept nogil:
    return STATUS_CORRUPT       # never called: a cursor goes to the segment's own source


cdef void segment_run_source(SegmentRun *run, PageSource *source) noexcept nogil:
    source.context = run
    source.seek = run_seek
    source.step = run_step
    source.edge = run_edge
    source.read_overflow = run_read_overflow
    source.whole = NULL         # a cursor asks the segments that it looked at
    source.blob_of = NULL       # never called, as read_overflow


cdef SegmentRun *segment_run_new(list readers) except NULL:
    cdef SegmentRun *run = <SegmentRun *>calloc(1, sizeof(SegmentRun))
    cdef SegmentReader reader
    cdef Py_ssize_t index
    if run == NULL:
        raise MemoryError
    run.segments = <Segment **>calloc(len(readers), sizeof(Segment *))
    run.sources = <PageSource *>calloc(len(readers), sizeof(PageSource))
    if run.segments == NULL or run.sources == NULL:
        segment_run_free(run)
        raise MemoryError
    run.count = <uint32_t>len(readers)
    for index, reader in enumerate(readers):
        run.segments[index] = &reader.segment
        segment_source(&reader.segment, &run.sources[index])
        if reader.record.markers:
            run.marked = True
    if run.marked and run.count > 1:
        segment_run_free(run)
        raise Error("a source of several segments cannot carry range-deletes")
    return run


cdef void segment_run_free(SegmentRun *run) noexcept nogil:
    if run != NULL:
        free(run.segments)
        free(run.sources)
        free(run)
