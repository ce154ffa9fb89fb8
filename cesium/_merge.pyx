"""Writing what a cursor yields into segments: flush and merge.

A Merge pins its sources through a Version of its own; one thread uses it.  The GIL is released
while rows move.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._builder cimport (
    Builder, SegmentBuilder, builder_add_marker, builder_add_slots, builder_bytes,
)
from cesium._cursor cimport Cursor, Run, cursor_free, cursor_new, cursor_next, cursor_whole
from cesium._faults cimport fault_counter, faults_seen
from cesium._interval cimport Interval, IntervalSet, key_compare
from cesium._layout cimport (
    KEY_BYTES_MAX, KIND_DELETE, KIND_MASK, STATUS_CORRUPT, STATUS_FULL, STATUS_IO, STATUS_NOT_FOUND,
    STATUS_OK,
)
from cesium._memtable cimport (
    MemtableSnapshot, memtable_root_markers, memtable_root_source,
)
from cesium._merge_fixed cimport (
    FixedMerge, REASON_DONE, REASON_FULL, REASON_MORE, REASON_STOPPED, Reason, fixed_merge_free,
    fixed_merge_head, fixed_merge_move, fixed_merge_new,
)
from cesium._native cimport load_head
from cesium._page cimport (
    Key, PageSource, Position, Shape, header_of, heads_of, kind_of, page_copy_key, page_find,
    page_key_bytes,
)
from cesium._scan_ahead cimport scan_ahead_set
from cesium._version cimport Version, version_fill_inputs
from cesium._whole_page cimport builder_take_page

cdef extern from *:
    uint64_t __builtin_bswap64(uint64_t word) noexcept nogil

cdef const uint64_t *FAULTS = fault_counter()


# What Merge.write returns: why it came back.
DONE = REASON_DONE          # the sources ended
FULL = REASON_FULL          # the output has its bytes
STOPPED = REASON_STOPPED    # the next row is at or above `stop`
MORE = REASON_MORE          # the slice is over; go on with the same output

cdef enum:
    ROW_BYTES = 16  # what a row counts for that leaves no bytes in the output


cdef class Merge:
    """Merge(version, keep_markers): all rows of a version's sources, in key order.

    keep_markers: delete markers go into the output, because older sources lie below it; otherwise
    they have done their work and are dropped.
    """

    cdef Version version
    cdef Cursor *cursor
    cdef Run pending
    cdef Run rest               # rows of the last stretch that are still to be written
    cdef FixedMerge *fixed      # fixed keys with fixed rows: moves them in place of the cursor
    cdef bint keep_markers
    cdef uint64_t rows          # moved or dropped
    cdef uint64_t whole_rows_moved
    cdef uint64_t whole_pages_moved
    cdef uint64_t seen          # faults_seen() before the first read

    def __cinit__(self, Version version, bint keep_markers):
        cdef int status
        self.version = version
        self.seen = faults_seen(FAULTS)
        self.keep_markers = keep_markers
        # Delete markers come out of the cursor in any case and are dropped here, so that a call
        # that finds nothing else comes back as well.
        self.cursor = cursor_new(&version.shape.shape, version.count, 1, True)
        if self.cursor == NULL:
            raise MemoryError
        if version.shape.shape.key_width and version.shape.shape.value_width:
            self.fixed = fixed_merge_new(self.cursor, keep_markers)
            if self.fixed == NULL:
                raise MemoryError
        with nogil:
            status = version_fill_inputs(version.items, version.count, self.cursor, 0)
        # What it reads it reads to the end, and nobody will read again.
        scan_ahead_set(self.cursor, True, 0)
        version.check(status, self.seen)

    def __dealloc__(self):
        fixed_merge_free(self.fixed)
        cursor_free(self.cursor)

    def write_markers(self, SegmentBuilder builder, bytes lower=None, bytes upper=None):
        """Copies every source's range-deletes, cut to [lower, upper), into the output.

        lower, upper: encoded keys (8 big-endian bytes in the fixed form); None: no bound.
        """
        cdef uint32_t source
        cdef uint32_t index
        cdef const IntervalSet *markers
        cdef Key low
        cdef Key high
        cdef Interval interval
        cdef bint fixed = self.version.shape.shape.key_width != 0
        builder.check_open()
        if lower is not None:
            key_from_bytes(fixed, lower, &low)
        if upper is not None:
            key_from_bytes(fixed, upper, &high)
        for source in range(self.cursor.count):
            markers = self.cursor.inputs[source].markers
            if markers == NULL:
                continue
            for index in range(markers.count):
                interval = markers.items[index]
                if lower is not None and key_compare(fixed, &interval.lower, &low) < 0:
                    interval.lower = low
                if upper is not None and (
                        interval.unbounded or key_compare(fixed, &interval.upper, &high) > 0):
                    interval.upper = high
                    interval.unbounded = False
                builder.check(builder_add_marker(builder.builder, &interval))

    def write(self, SegmentBuilder builder, uint64_t most_bytes, *, bytes stop=None,
              uint64_t slice_bytes=0):
        """Moves rows, in key order, until there is a reason to come back, which it returns.

        DONE (which alone is false): the sources ended.  FULL: the output has `most_bytes`.
        STOPPED: the next row's key is at or above `stop` (encoded; 8 big-endian bytes in the fixed
        form).  MORE: about `slice_bytes` were moved or dropped (0: no limit, MORE is never
        returned); whoever wants the call to be short gives some, and calls again with the same
        builder.  A page of entries is moved as a whole, its largest values included.
        """
        cdef Key stop_key
        cdef Key *stop_before = NULL
        cdef Reason reason = REASON_DONE
        cdef int status
        cdef int written = STATUS_OK
        cdef int whole
        builder.check_open()
        if stop is not None:
            key_from_bytes(self.version.shape.shape.key_width != 0, stop, &stop_key)
            stop_before = &stop_key
        with nogil:
            if self.fixed != NULL:
                status = fixed_merge_move(
                    self.fixed, builder.builder, most_bytes,
                    &stop_key.head if stop_before != NULL else NULL, slice_bytes, &reason,
                    &written)
            else:
                status = self.move(builder.builder, most_bytes, stop_before, slice_bytes, &reason,
                                   &written)
            whole = cursor_whole(self.cursor)
        # First of all: zeros in place of rows may be what the builder refused.
        self.version.check(whole, self.seen)
        # A value that was to be moved: says where it lies, and why it cannot be read.
        if written == STATUS_CORRUPT or (written == STATUS_IO and not builder.builder.writer.error
                                         and builder.blobs.is_sound()):
            self.version.raise_status(written)
        builder.check(written)
        self.version.check(status, self.seen)
        return <int>reason

    @property
    def rows_read(self):
        """Rows moved into outputs so far, and those dropped for a newer row of their key."""
        return self.fixed.rows if self.fixed != NULL else self.rows

    @property
    def whole_pages(self):
        """Pages taken into outputs as they are, because their keys interleave with no other's."""
        return self.fixed.whole_pages if self.fixed != NULL else self.whole_pages_moved

    @property
    def whole_rows(self):
        """Rows in those pages."""
        return self.fixed.whole_rows if self.fixed != NULL else self.whole_rows_moved

    def next_key(self):
        """The encoded key of the next row to be moved (it may be dropped then), None at the end."""
        cdef int status
        cdef int whole
        cdef bytes key = None
        cdef Key head
        with nogil:
            status = fixed_merge_head(self.fixed, &head.head) if self.fixed != NULL else self.peek()
        if status == STATUS_OK and self.fixed != NULL:
            key = key_bytes(&self.version.shape.shape, &head)
        elif status == STATUS_OK:
            key = copy_key(&self.version.shape.shape, self.rest.source, self.rest.page,
                           self.rest.first, &status)
        with nogil:
            whole = cursor_whole(self.cursor)
        self.version.check(whole, self.seen)
        self.version.check(status, self.seen)
        return key

    cdef int peek(self) noexcept nogil:
        """Sees to it that `rest` has a row: STATUS_OK, or STATUS_NOT_FOUND at the end."""
        cdef int status
        if self.rest.first < self.rest.last:
            return STATUS_OK
        status = cursor_next(self.cursor, &self.pending, &self.rest)
        if status != STATUS_OK:
            self.rest.last = self.rest.first
        return status

    cdef int move(self, Builder *builder, uint64_t most_bytes, const Key *stop,
                  uint64_t slice_bytes, Reason *reason, int *written) noexcept nogil:
        """Returns the sources' status; the builder's is *written."""
        cdef uint64_t slice_end = builder_bytes(builder) + slice_bytes
        cdef uint64_t rows_before = self.rows
        cdef Run run
        cdef int status
        while True:
            if builder_bytes(builder) >= most_bytes:
                reason[0] = REASON_FULL
                return STATUS_OK
            if slice_bytes and (builder_bytes(builder) >= slice_end
                                or (self.rows - rows_before) * ROW_BYTES >= slice_bytes):
                reason[0] = REASON_MORE
                return STATUS_OK
            status = self.peek()
            if status != STATUS_OK:
                reason[0] = REASON_DONE
                return STATUS_OK if status == STATUS_NOT_FOUND else status
            run = self.rest
            if stop != NULL:
                status = self.cut_at(stop, &run)
                if status != STATUS_OK:
                    return status
                if run.first == run.last:
                    reason[0] = REASON_STOPPED
                    return STATUS_OK
            self.rows += run.last - run.first
            written[0] = self.write_run(builder, &run)
            if written[0] != STATUS_OK:
                return STATUS_OK
            self.rest.first = run.last

    cdef int cut_at(self, const Key *stop, Run *run) noexcept nogil:
        """Takes off the slots whose keys are not below `stop`."""
        cdef uint32_t slot
        cdef bint exact
        cdef int status = page_find(&self.version.shape.shape, run.page, stop, run.source, &slot,
                                    &exact)
        if status == STATUS_OK:
            run.last = max(run.first, min(run.last, slot))
        return status

    cdef int write_run(self, Builder *builder, const Run *run) noexcept nogil:
        """All slots of the run, delete markers only if they are kept."""
        cdef uint32_t first = run.first
        cdef uint32_t last
        cdef int status = STATUS_OK
        if self.keep_markers or header_of(run.page).kinds_offset == 0:
            if first == 0 and run.last == header_of(run.page).count:
                status = builder_take_page(builder, run.page)
                if status == STATUS_OK:
                    self.whole_pages_moved += 1
                    self.whole_rows_moved += run.last
                if status != STATUS_FULL:
                    return status
            return builder_add_slots(builder, run.source, run.page, first, run.last)
        while first < run.last and status == STATUS_OK:
            last = first
            while last < run.last and kind_of(run.page, last) & KIND_MASK != KIND_DELETE:
                last += 1
            status = builder_add_slots(builder, run.source, run.page, first, last)
            first = last + 1        # the delete marker
        return status


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
    """Of a memtable's entry: even a key that overflowed is in memory."""
    cdef int status
    cdef bytes key = copy_key(shape, source, position.page, position.slot, &status)
    if status != STATUS_OK:
        raise MemoryError
    return key


cdef bytes copy_key(const Shape *shape, const PageSource *source, const uint8_t *page,
                    uint32_t slot, int *status):
    """The encoded key of a slot; worth nothing unless *status is STATUS_OK."""
    cdef Key key
    cdef bytes data
    status[0] = STATUS_OK
    if shape.key_width:
        key.head = heads_of(page)[slot]
        return key_bytes(shape, &key)
    data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>page_key_bytes(shape, page, slot))
    status[0] = page_copy_key(shape, page, slot, source, <uint8_t *>PyBytes_AS_STRING(data))
    return data


cdef int key_from_bytes(bint fixed, bytes data, Key *key) except -1:
    """Borrows an encoded key, which has 8 bytes in the fixed form."""
    if fixed and len(data) != 8:
        raise ValueError(f"an encoded key of this table has 8 bytes, not {len(data)}")
    if len(data) > KEY_BYTES_MAX + 1:
        raise ValueError(f"an encoded key has at most {KEY_BYTES_MAX} bytes, not {len(data)}")
    key.data = <const uint8_t *>PyBytes_AS_STRING(data)
    key.bytes = <uint32_t>len(data)
    key.head = load_head(key.data, key.bytes)
    return 0
