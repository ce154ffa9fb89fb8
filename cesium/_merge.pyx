"""Writing what a cursor yields into segments: flush and merge.

A Merge pins its sources through a Version of its own; one thread uses it.  The GIL is released
while rows move.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._builder cimport (
    SegmentBuilder, builder_add_marker, builder_add_slots, builder_bytes,
)
from cesium._cursor cimport Cursor, Run, cursor_free, cursor_new, cursor_next, cursor_whole
from cesium._faults cimport fault_counter, faults_seen
from cesium._interval cimport Interval, IntervalSet
from cesium._layout cimport STATUS_NOT_FOUND, STATUS_OK
from cesium._memtable cimport (
    MemtableSnapshot, memtable_root_markers, memtable_root_source,
)
from cesium._page cimport (
    Key, PageSource, Position, Shape, heads_of, page_copy_key, page_key_bytes,
)
from cesium._version cimport Version, version_fill_inputs

cdef extern from *:
    uint64_t __builtin_bswap64(uint64_t word) noexcept nogil

cdef const uint64_t *FAULTS = fault_counter()


cdef class Merge:
    """Merge(version, keep_markers): all rows of a version's sources, in key order.

    keep_markers: delete and range-delete markers go into the output, because older sources lie
    below it; otherwise they have done their work and are dropped.
    """

    cdef Version version
    cdef Cursor *cursor
    cdef Run pending
    cdef bint keep_markers
    cdef uint64_t seen          # faults_seen() before the first read

    def __cinit__(self, Version version, bint keep_markers):
        cdef int status
        self.version = version
        self.seen = faults_seen(FAULTS)
        self.keep_markers = keep_markers
        self.cursor = cursor_new(&version.shape.shape, version.count, 1, keep_markers)
        if self.cursor == NULL:
            raise MemoryError
        with nogil:
            status = version_fill_inputs(version.items, version.count, self.cursor, 0)
        version.check(status, self.seen)

    def __dealloc__(self):
        cursor_free(self.cursor)

    def write_markers(self, SegmentBuilder builder):
        """Copies every source's range-deletes into the output."""
        cdef uint32_t source
        cdef uint32_t index
        cdef const IntervalSet *markers
        builder.check_open()
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
        cdef int whole
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
            whole = cursor_whole(self.cursor)
        # First of all: zeros in place of rows may be what the builder refused.
        self.version.check(whole, self.seen)
        builder.check(written)
        self.version.check(status, self.seen)
        return status != STATUS_NOT_FOUND


def memtable_bounds(MemtableSnapshot snapshot):
    """(lower, upper) encoded keys, both inclusive, of all that a frozen memtable holds or marks.

    As bytes, 8 big-endian ones in the fixed form; upper None when a range-delete has no upper end.
    None when the memtable is empty.
    """
    cdef const Shape *shape = &snapshot.memtable.shape
    cdef PageSource source
    cdef Position first
    cdef Position last
    cdef const IntervalSet *markers = memtable_root_markers(snapshot.root)
    cdef const Interval *interval
    lowers = []
    uppers = []
    memtable_root_source(snapshot.root, &source)
    if source.edge(source.context, &first, 1) or source.edge(source.context, &last, -1):
        raise MemoryError
    if first.page != NULL:
        lowers.append(key_bytes_at(shape, &source, &first))
        uppers.append(key_bytes_at(shape, &source, &last))
    if markers != NULL and markers.count:
        lowers.append(key_bytes(shape, &markers.items[0].lower))
        interval = &markers.items[markers.count - 1]
        if interval.unbounded:
            return min(lowers), None
        uppers.append(key_bytes(shape, &interval.upper))
    return (min(lowers), max(uppers)) if lowers else None


cdef bytes key_bytes(const Shape *shape, const Key *key):
    cdef uint64_t head
    if shape.key_width == 0:
        return PyBytes_FromStringAndSize(<const char *>key.data, key.bytes)
    head = __builtin_bswap64(key.head)
    return PyBytes_FromStringAndSize(<const char *>&head, 8)


cdef bytes key_bytes_at(const Shape *shape, const PageSource *source, const Position *position):
    cdef Key key
    cdef bytes data
    if shape.key_width:
        key.head = heads_of(position.page)[position.slot]
        return key_bytes(shape, &key)
    data = PyBytes_FromStringAndSize(
        NULL, <Py_ssize_t>page_key_bytes(shape, position.page, position.slot))
    if page_copy_key(shape, position.page, position.slot, source,
                     <uint8_t *>PyBytes_AS_STRING(data)) != STATUS_OK:
        raise MemoryError
    return data
