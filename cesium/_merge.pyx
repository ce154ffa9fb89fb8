"""Writing what a cursor yields into segments: flush and merge.

A Merge pins its sources through a Version of its own; one thread uses it.  The GIL is released while
rows move.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from cesium._builder cimport (
    SegmentBuilder, builder_add_marker, builder_add_slots, builder_bytes,
)
from cesium._cursor cimport Cursor, Run, cursor_free, cursor_new, cursor_next
from cesium._interval cimport IntervalSet
from cesium._layout cimport STATUS_NOT_FOUND, STATUS_OK
from cesium._version cimport Version, version_fill_inputs


cdef class Merge:
    """Merge(version, keep_markers): all rows of a version's sources, in key order.

    keep_markers: delete and range-delete markers go into the output, because older sources lie below
    it; otherwise they have done their work and are dropped.
    """

    cdef Version version
    cdef Cursor *cursor
    cdef Run pending
    cdef bint keep_markers

    def __cinit__(self, Version version, bint keep_markers):
        cdef int status
        self.version = version
        self.keep_markers = keep_markers
        self.cursor = cursor_new(&version.shape.shape, version.count, 1, keep_markers)
        if self.cursor == NULL:
            raise MemoryError
        with nogil:
            status = version_fill_inputs(version.items, version.count, self.cursor, 0)
        version.raise_status(status)

    def __dealloc__(self):
        cursor_free(self.cursor)

    def write_markers(self, SegmentBuilder builder):
        """Copies every source's range-deletes into the output."""
        cdef uint32_t source
        cdef uint32_t index
        cdef const IntervalSet *markers
        for source in range(self.cursor.count):
            markers = self.cursor.inputs[source].markers
            if markers != NULL:
                for index in range(markers.count):
                    builder.check(builder_add_marker(builder.builder, &markers.items[index]))

    def write(self, SegmentBuilder builder, uint64_t most_bytes):
        """Moves rows until the sources end (False) or the output has `most_bytes` (True)."""
        cdef Run run
        cdef int status = STATUS_OK
        cdef int written = STATUS_OK
        builder.check_open()
        with nogil:
            while builder_bytes(builder.builder) < most_bytes:
                status = cursor_next(self.cursor, &self.pending, &run)
                if status != STATUS_OK:
                    break
                written = builder_add_slots(builder.builder, run.source, run.page, run.first,
                                            run.last)
                if written != STATUS_OK:
                    break
        builder.check(written)
        if status == STATUS_NOT_FOUND:
            return False
        self.version.raise_status(status)
        return True
