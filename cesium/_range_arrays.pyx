"""A range as arrays: see _range_arrays.pxd for the contract."""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from cesium._counters cimport (
    RANGES, RANGE_LATENCY, Counters, clock_nanoseconds, count_more, histogram_record, ticker_tick,
    ticker_weight,
)
from cesium._cursor cimport Bounds, Cursor, Run
from cesium._faults cimport fault_counter, faults_seen, load_lost
from cesium._keys cimport EncodedKeys
from cesium._keys import IntegerCodec
from cesium._layout cimport PAGE_BYTES, STATUS_NOT_FOUND, STATUS_OK
from cesium._native cimport heads_lower_bound_near
from cesium._page cimport Key, Shape, header_of, heads_of
from cesium._ranges cimport LONG_SCAN_ROWS, RangeReader
from cesium._rows cimport Rows, copy_run
from cesium._segment cimport (
    Segment, segment_is_checked, segment_locate, segment_number, segment_page, segment_whole,
)
from cesium._segment_run cimport SegmentRun, run_route
from cesium._values import FixedStringCodec, NumberCodec, StructCodec, TimeCodec

cdef extern from *:
    """
    /* A block made and freed untouched; the compiler may not leave it out. */
    static void make_and_free(size_t bytes) {
        void *volatile block = malloc(bytes);
        free(block);
    }
    """
    void make_and_free(size_t bytes) noexcept

cdef enum:
    KEYS = 1                    # what is wanted alone,
    VALUES = 2                  # of both
    WARM_PAGES = 4              # copied without a cursor
    BUFFER_BYTES = 32768        # stays in L1, and holds most short ranges
    MAPPED_BYTES = 131072       # from here on a block of malloc's may be a mapping of its own
    KEPT_BYTES_MOST = 1 << 24

# Whose values are rows of bytes, as an array of their dtype has them.
cdef frozenset PLAIN_VALUES = frozenset((NumberCodec, TimeCodec, FixedStringCodec, StructCodec))

cdef object empty = np.empty
cdef object HEADS = np.dtype(np.uint64)
cdef const uint64_t *FAULTS = fault_counter()
cdef uint64_t kept_bytes = 0    # the most that heap_keeps was asked for


cdef object range_arrays(View view, EncodedRange interval, bint reverse, object limit,
                         KeyCodec keys, ValueCodec values, int yields, int threads):
    cdef RangeReader reader
    if view.shape.key_width and (yields == KEYS or type(values) in PLAIN_VALUES):
        if view.count == 1 and limit is None and not interval.bounds.unbounded:
            found = warm_arrays(view, interval, reverse, keys, values, yields)
            if found is not None:
                return found
        reader = RangeReader(view, interval, reverse, limit)
        return plain_arrays(reader, keys, values, yields, threads)
    reader = RangeReader(view, interval, reverse, limit)
    encoded_keys, encoded_values = reader.read(keys, values, None, yields != VALUES,
                                               yields != KEYS, threads)
    if yields == KEYS:
        return keys.decode_array(encoded_keys)
    if yields == VALUES:
        return values.decode_array(encoded_values)
    return keys.decode_array(encoded_keys), values.decode_array(encoded_values)


# --- what is handed out --------------------------------------------------------------------------


cdef void *memory_of(object array) except NULL:
    """Where an array of our own, which nobody resizes, has its rows.

    A quarter of what a typed memoryview of it costs.
    """
    cdef Py_buffer buffer
    cdef void *memory
    PyObject_GetBuffer(array, &buffer, PyBUF_WRITABLE)
    memory = buffer.buf
    PyBuffer_Release(&buffer)
    return memory


cdef object decoded(KeyCodec keys, object heads):
    cdef EncodedKeys encoded
    if type(keys) is IntegerCodec and keys.spec == "u8":
        return heads
    encoded = EncodedKeys.__new__(EncodedKeys)
    encoded.count = len(heads)
    encoded.heads = heads
    return keys.decode_array(encoded)


cdef int heap_keeps(uint64_t bytes) except -1:
    """Has malloc keep as much freed memory as the arrays of one range take, for those of the next.

    glibc gives the kernel back what is free at the heap's end from twice the largest mapping on
    that it saw freed: two columns of 8 bytes are just that, and each range had all its pages
    mapped and zeroed anew.  Ranges of 100,000 rows: 50 M rows a second before, 250 M with this.
    """
    global kept_bytes
    if kept_bytes < bytes <= KEPT_BYTES_MOST and bytes >= MAPPED_BYTES:
        make_and_free(bytes)
        kept_bytes = bytes
    return 0


cdef object new_arrays(Rows *rows, uint64_t capacity, ValueCodec values, int yields):
    """[heads, values], either None when it is not wanted; `rows` copies into them."""
    cdef object heads = None
    cdef object cells = None
    if not rows.skip_keys:
        heads = empty(capacity, HEADS)
        rows.heads = <uint64_t *>memory_of(heads)
    if yields != KEYS:
        cells = empty(capacity, values.dtype)
        rows.rows = <uint8_t *>memory_of(cells)
    rows.skip_values = yields == KEYS
    rows.capacity = capacity
    return [heads, cells]


cdef object picked(KeyCodec keys, list arrays, int yields):
    if yields == VALUES:
        return arrays[1]
    heads = decoded(keys, arrays[0])
    return heads if yields == KEYS else (heads, arrays[1])


# --- any range -----------------------------------------------------------------------------------


cdef object plain_arrays(RangeReader reader, KeyCodec keys, ValueCodec values, int yields,
                         int threads):
    """Through a buffer, at most once full: what fits in there needs no arrays that are larger than
    what comes, however many rows the memtable has; and is not looked up twice."""
    cdef Rows first
    cdef Rows rows
    cdef const Shape *shape = reader.view.shape
    cdef bint whole = reader.left == <uint64_t>-1
    cdef uint64_t capacity
    cdef uint8_t *buffer
    memset(&first, 0, sizeof(Rows))
    memset(&rows, 0, sizeof(Rows))
    rows.skip_keys = first.skip_keys = yields == VALUES and threads == 1
    first.skip_values = yields == KEYS
    buffer = <uint8_t *>malloc(BUFFER_BYTES)
    if buffer == NULL:
        raise MemoryError
    try:
        first.capacity = BUFFER_BYTES // (8 + shape.value_width)
        first.heads = <uint64_t *>buffer
        first.rows = buffer + 8 * first.capacity
        if threads == 1:
            reader.plan_scan(whole, False)
            reader.fill(&first, first.capacity)
        if reader.exhausted or reader.left == 0:
            arrays = new_arrays(&rows, first.count, values, yields)
            take(&rows, &first, shape)
            return picked(keys, arrays, yields)
        reader.room(None)
        capacity = reader.rows_most - min(first.count, reader.rows_most)
        capacity = first.count + min(capacity, reader.left)
        reader.plan_scan(whole, capacity > LONG_SCAN_ROWS)
        heap_keeps(capacity * (8 + shape.value_width))
        arrays = new_arrays(&rows, capacity, values, yields)
        take(&rows, &first, shape)
    finally:
        free(buffer)
    if not (threads > 1 and reader.fill_in_threads(&rows, capacity, threads)):
        reader.fill(&rows, capacity - rows.count)
    return picked(keys, [trimmed(array, rows.count) for array in arrays], yields)


cdef void take(Rows *rows, const Rows *first, const Shape *shape) noexcept:
    """Copies what the buffer has to the front of the arrays."""
    if rows.heads != NULL:
        memcpy(rows.heads, first.heads, first.count * 8)
    if rows.rows != NULL:
        memcpy(rows.rows, first.rows, first.count * shape.value_width)
    rows.count = first.count


cdef object trimmed(object array, uint64_t count):
    """The rows that came; a copy where more than an eighth of the room would be kept for nothing"""
    cdef uint64_t room
    if array is None:
        return None
    room = len(array)
    if count == room:
        return array
    return array[:count].copy() if count < room - room // 8 else array[:count]


# --- a short one out of warm pages ---------------------------------------------------------------


cdef object warm_arrays(View view, EncodedRange interval, bint reverse, KeyCodec keys,
                        ValueCodec values, int yields):
    """A range within a few pages of one segment that were read before and hold nothing but values,
    where the segment is all that the view has there; None for any other."""
    cdef uint8_t buffer[WARM_PAGES * PAGE_BYTES]
    cdef Rows rows
    cdef Rows taken
    cdef Counters counters = view.core.engine.counters
    cdef uint64_t seen = faults_seen(FAULTS)
    cdef uint64_t start
    cdef int status
    cdef bint timed
    if view.items[0].run == NULL:
        return None
    timed = ticker_tick(&counters.fills)
    start = clock_nanoseconds() if timed else 0
    memset(&taken, 0, sizeof(Rows))
    taken.skip_keys = yields == VALUES
    taken.skip_values = yields == KEYS
    with nogil:
        status = copy_warm(view.items[0].run, &interval.bounds, reverse, buffer, &taken)
    if status == STATUS_NOT_FOUND:
        counters.fills.count -= 1       # a cursor will count it
        return None
    view.check(status, seen)
    count_more(&counters.totals[RANGES], 1)
    if timed:
        histogram_record(&counters.latencies[RANGE_LATENCY], clock_nanoseconds() - start,
                         ticker_weight(&counters.fills))
    memset(&rows, 0, sizeof(Rows))
    rows.skip_keys = taken.skip_keys
    arrays = new_arrays(&rows, taken.count, values, yields)
    take(&rows, &taken, view.shape)
    return picked(keys, arrays, yields)


cdef int copy_warm(const SegmentRun *run, const Bounds *bounds, bint reverse, uint8_t *buffer,
                   Rows *rows) noexcept nogil:
    """Points the rows into the buffer and fills them; STATUS_NOT_FOUND for a range of another kind,
    and for what fails here, which is left to a cursor: it says why."""
    cdef Run runs[WARM_PAGES]
    cdef Cursor cursor
    cdef Segment *segment = NULL
    cdef uint64_t count = 0
    cdef uint32_t index
    cdef uint32_t pages = find_warm(run, &bounds.lower, &bounds.upper, runs, &segment)
    if pages == 0:
        return STATUS_NOT_FOUND
    for index in range(pages):
        count += runs[index].last - runs[index].first
    if count * (8 + segment.shape.value_width) > WARM_PAGES * PAGE_BYTES:
        return STATUS_NOT_FOUND         # no pages of this shape have so many
    rows.capacity = count
    rows.heads = <uint64_t *>buffer
    rows.rows = buffer + 8 * count
    cursor.shape = segment.shape        # what the copying of a run asks of a cursor
    cursor.direction = -1 if reverse else 1
    for index in range(pages):
        copy_run(&cursor, &runs[pages - 1 - index if reverse else index], rows)
    return segment_whole(segment)


cdef uint32_t find_warm(const SegmentRun *run, const Key *lower, const Key *upper, Run *runs,
                        Segment **found) noexcept nogil:
    """The runs of slots between the bounds, in key order; their number, 0 where there are none of
    that kind.  What fails here is left to a cursor, which says why."""
    cdef Segment *segment
    cdef uint32_t place = run_route(run, lower)
    cdef uint32_t first
    cdef uint32_t last
    cdef uint32_t guess
    cdef uint32_t upper_guess
    cdef uint32_t ordinal
    cdef uint32_t number
    cdef Run *part
    if run.marked or place == run.count or lower.head >= upper.head:
        return 0
    if place + 1 < run.count and run.segments[place + 1].lower.head < upper.head:
        return 0
    segment = run.segments[place]
    found[0] = segment
    if segment.map == NULL or segment.delete_markers or load_lost(&segment.lost):
        return 0
    if (segment_locate(segment, lower.head, &first, &guess) != STATUS_OK
            or segment_locate(segment, upper.head, &last, &upper_guess) != STATUS_OK
            or last < first or last - first >= WARM_PAGES):
        return 0
    for ordinal in range(first, last + 1):
        if not segment_is_checked(segment.checked, segment_number(segment, ordinal)):
            return 0
    for ordinal in range(first, last + 1):
        part = &runs[ordinal - first]
        if segment_page(segment, ordinal, &part.page) != STATUS_OK:
            return 0
        if header_of(part.page).kinds_offset:
            return 0
        number = header_of(part.page).count
        part.source = &run.sources[place]
        part.first = 0
        part.last = number
        if ordinal == first:
            part.first = heads_lower_bound_near(heads_of(part.page), number, lower.head, guess)
        if ordinal == last:
            part.last = heads_lower_bound_near(heads_of(part.page), number, upper.head, upper_guess)
        if part.last < part.first:      # an unsorted page, or one that was lost just now
            return 0
    return last - first + 1
