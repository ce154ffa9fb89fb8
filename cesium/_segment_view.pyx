"""One segment seen from Python, entry by entry: for repair, tools and tests; not for speed.

Keys are heads (int) in the fixed form and encoded bytes in the variable form.  A value is the
packed row or the bytes, None for a delete marker.  Safe from any thread; a view keeps its reader
alive.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._faults cimport fault_counter, faults_seen
from cesium._interval cimport Interval
from cesium._layout cimport KEY_BYTES_MAX, KIND_DELETE, KIND_MASK, STATUS_NOT_FOUND, STATUS_OK
from cesium._native cimport hash_bytes, hash_head, load_head
from cesium._page cimport (
    Key, PageSource, Position, Shape, header_of, heads_of, kind_of, page_copy_key, page_copy_row,
    page_copy_value, page_key_bytes, page_value_bytes,
)
from cesium._segment cimport (
    SegmentReader, segment_find, segment_may_contain, segment_rank, segment_ready,
    segment_route, segment_route_heads, segment_source,
)

from cesium.errors import LimitError

cdef const uint64_t *FAULTS = fault_counter()


cdef class SegmentView:
    """SegmentView(reader): look-ups and iteration over the entries of one segment."""

    cdef SegmentReader reader

    def __init__(self, SegmentReader reader not None):
        self.reader = reader

    # A trace would show the key to Python, and take its bytes for a string that ends.
    @cython.linetrace(False)
    @cython.profile(False)
    cdef Key key(self, object key):
        cdef Key result
        if self.reader.segment.shape.key_width:
            result.head = key
            result.data = NULL
            result.bytes = 0
            return result
        if len(<bytes?>key) > KEY_BYTES_MAX + 1:
            raise LimitError(f"a key has at most {KEY_BYTES_MAX} encoded bytes, not {len(key)}")
        result.data = <uint8_t *>PyBytes_AS_STRING(key)
        result.bytes = <uint32_t>len(key)
        result.head = load_head(result.data, result.bytes)
        return result

    cdef object key_at(self, const Position *position, uint64_t seen):
        cdef const Shape *shape = self.reader.segment.shape
        cdef PageSource source
        cdef uint64_t head
        if shape.key_width:
            head = heads_of(position.page)[position.slot]
            self.reader.check(STATUS_OK, seen)
            return head
        segment_source(&self.reader.segment, &source)
        key = PyBytes_FromStringAndSize(
            NULL, <Py_ssize_t>page_key_bytes(shape, position.page, position.slot))
        self.reader.check(page_copy_key(shape, position.page, position.slot, &source,
                                        <uint8_t *>PyBytes_AS_STRING(key)), seen)
        return key

    cdef object value_at(self, const Position *position, uint64_t seen):
        cdef const Shape *shape = self.reader.segment.shape
        cdef PageSource source
        cdef uint64_t count = shape.value_width
        cdef int status = STATUS_OK
        if kind_of(position.page, position.slot) & KIND_MASK == KIND_DELETE:
            self.reader.check(STATUS_OK, seen)
            return None
        if count == 0:
            count = page_value_bytes(position.page, position.slot)
        value = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>count)
        if shape.value_width:
            page_copy_row(shape, position.page, position.slot, <uint8_t *>PyBytes_AS_STRING(value))
        else:
            segment_source(&self.reader.segment, &source)
            status = page_copy_value(position.page, position.slot, &source, 0,
                                     <uint8_t *>PyBytes_AS_STRING(value), count)
        self.reader.check(status, seen)
        return value

    def find(self, key):
        """The entry of a key as (key, value), or None when the segment does not know it."""
        cdef Key c_key = self.key(key)
        cdef Position position
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef int status
        with nogil:
            status = segment_find(&self.reader.segment, &c_key, &position)
        if self.reader.check(status, seen) == STATUS_NOT_FOUND:
            return None
        return self.key_at(&position, seen), self.value_at(&position, seen)

    def may_contain(self, key):
        """Whether the filter lets the key through; True when there is no filter."""
        cdef Key c_key = self.key(key)
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef bint may
        self.reader.gate(segment_ready(&self.reader.segment))
        may = segment_may_contain(
            &self.reader.segment, hash_head(c_key.head) if self.reader.segment.shape.key_width
            else hash_bytes(c_key.data, c_key.bytes))
        self.reader.check(STATUS_OK, seen)
        return bool(may)

    def rank(self, key):
        """The number of entries below a key."""
        cdef Key c_key = self.key(key)
        cdef uint64_t rank = 0
        cdef uint64_t seen = faults_seen(FAULTS)
        self.reader.check(segment_rank(&self.reader.segment, &c_key, &rank), seen)
        return rank

    def route(self, key):
        """The ordinal of the data page that would hold the key; None without entries."""
        cdef Key c_key = self.key(key)
        cdef uint32_t ordinal = 0
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef int status = segment_route(&self.reader.segment, &c_key, &ordinal)
        if self.reader.check(status, seen) != STATUS_OK:
            return None
        return ordinal

    def route_heads(self, const uint64_t[::1] heads, uint32_t[::1] ordinals):
        """The same for many heads: uint64[n] into uint32[n]; the fixed form only."""
        cdef int status
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef uint32_t count = <uint32_t>heads.shape[0]
        if self.reader.segment.shape.key_width == 0 or ordinals.shape[0] != heads.shape[0]:
            raise ValueError("heads of the fixed form, and as many ordinals")
        if count:
            with nogil:
                status = segment_route_heads(&self.reader.segment, &heads[0], count, &ordinals[0],
                                             NULL)
            self.reader.check(status, seen)

    def find_heads(self, const uint64_t[::1] heads):
        """How many of the heads are found, each looked up by itself; the fixed form only."""
        cdef Position position
        cdef Key key
        cdef int status = STATUS_OK
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef uint64_t found = 0
        cdef Py_ssize_t i
        if self.reader.segment.shape.key_width == 0:
            raise ValueError("heads are of the fixed form")
        key.data = NULL
        key.bytes = 0
        with nogil:
            for i in range(heads.shape[0]):
                key.head = heads[i]
                status = segment_find(&self.reader.segment, &key, &position)
                if status < 0:
                    break
                found += status == STATUS_OK
        self.reader.check(status, seen)
        return found

    def entries(self, start=None, *, bint reverse=False):
        """Yield (key, value) from the first entry >= start, or backwards from the last below it."""
        cdef PageSource source
        cdef Position position
        cdef Key key
        cdef int status
        cdef uint64_t seen = faults_seen(FAULTS)        # the page in hand stays in hand
        cdef int direction = -1 if reverse else 1
        segment_source(&self.reader.segment, &source)
        if start is None:
            status = source.edge(source.context, &position, direction)
        else:
            key = self.key(start)
            status = source.seek(source.context, &key, &position)
            if status == STATUS_OK and reverse:
                if position.page == NULL:
                    status = source.edge(source.context, &position, -1)
                elif position.slot:
                    position.slot -= 1
                else:
                    status = source.step(source.context, &position, -1)
        self.reader.check(status, seen)
        while position.page != NULL:
            yield self.key_at(&position, seen), self.value_at(&position, seen)
            if reverse:
                if position.slot:
                    position.slot -= 1
                    continue
            else:
                position.slot += 1
                if position.slot < header_of(position.page).count:
                    continue
            self.reader.check(source.step(source.context, &position, direction), seen)

    def markers(self):
        """The range-delete markers: a list of (lower, upper), upper None without end."""
        cdef Interval *interval
        cdef uint32_t i
        self.reader.gate(segment_ready(&self.reader.segment))
        if self.reader.segment.markers == NULL:
            return []
        result = []
        for i in range(self.reader.segment.markers.count):
            interval = self.reader.segment.markers.items + i
            result.append((self.bound(&interval.lower),
                           None if interval.unbounded else self.bound(&interval.upper)))
        return result

    cdef object bound(self, const Key *key):
        if self.reader.segment.shape.key_width:
            return key.head
        return PyBytes_FromStringAndSize(<const char *>key.data, key.bytes)
