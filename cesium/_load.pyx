"""The order of a bulk load, and its rows into segments: the compiled half of cesium.loader.

A LoadRows holds one batch of encoded rows and the order in which they go out: strictly ascending
keys, of equal keys the last given.  It is read-only after construction, so several threads may
write parts of it at once, each into builders of its own.  The GIL is released while rows move.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cesium._builder cimport (
    SegmentBuilder, builder_add, builder_add_columns, builder_add_pairs, builder_bytes,
)
from cesium._counters cimport Counters, count_more
from cesium._engine cimport Batch, key_of_row, value_of_row
from cesium._keys cimport EncodedKeys
from cesium._layout cimport STATUS_OK
from cesium._native cimport (
    SortPair, compare_bytes, is_sorted_strings, is_sorted_u64, sort_columns, sort_strings,
)
from cesium._operations cimport fill_batch
from cesium._page cimport Key, Shape, TableShape, Value
from cesium._values cimport EncodedValues

cdef enum:
    STRICTLY_ASCENDING = 2
    CHUNK_ROWS = 16384          # rows between two looks at the size of the output
    FIXED_ROW_BYTES = 16        # what sorting takes for each row: a pair,
    VARIABLE_ROW_BYTES = 40     # or a pair, as much scratch at worst, and 8 bytes of the order


@cython.no_gc_clear         # what it holds is taken off the counters in the end
cdef class LoadRows:
    """LoadRows(shape, keys, values, threads, counters=None): sorts what is not strictly ascending.

    counters: of the store, which count the memory that sorting and the order take.
    """

    cdef TableShape table_shape
    cdef object holders
    cdef Batch batch
    cdef SortPair *pairs        # fixed keys, sorted; the payload is the row itself or its index
    cdef bint payload_is_row
    cdef uint64_t *order        # variable keys, sorted: indices of rows
    cdef readonly uint64_t count        # rows that go out
    cdef Counters counters
    cdef uint64_t held

    def __cinit__(self, TableShape shape, EncodedKeys keys, EncodedValues values, int threads,
                  Counters counters=None):
        cdef int failed = 0
        self.counters = counters
        self.table_shape = shape
        fill_batch(&shape.shape, keys, values, &self.batch)
        self.holders = (keys, values)
        self.count = self.batch.count
        with nogil:
            if self.batch.heads != NULL:
                failed = self.sort_heads(threads)
            else:
                failed = self.sort_keys(threads)
        if failed:
            raise MemoryError

    def __dealloc__(self):
        free(self.pairs)
        free(self.order)
        self.account(0)

    cdef void account(self, uint64_t held) noexcept nogil:
        if self.counters is not None:
            count_more(&self.counters.buffer_bytes, held - self.held)
        self.held = held

    cdef int sort_heads(self, int threads) noexcept nogil:
        cdef uint64_t count = self.batch.count
        cdef uint64_t index
        cdef uint64_t kept = 0
        cdef const uint64_t *payloads = NULL
        if is_sorted_u64(self.batch.heads, count) == STRICTLY_ASCENDING:
            return 0
        self.account(count * FIXED_ROW_BYTES)
        self.pairs = <SortPair *>malloc(count * sizeof(SortPair))
        if self.pairs == NULL:
            return 1
        # An 8-byte row travels with its key: no gather from all over memory afterwards.
        if self.batch.rows != NULL and self.table_shape.shape.value_width == 8 \
                and <uint64_t>self.batch.rows % 8 == 0:
            self.payload_is_row = True
            payloads = <const uint64_t *>self.batch.rows
        if sort_columns(self.batch.heads, payloads, count, self.pairs, threads):
            return 1
        for index in range(count):
            if index + 1 == count or self.pairs[index].key != self.pairs[index + 1].key:
                if kept != index:
                    self.pairs[kept] = self.pairs[index]
                kept += 1
        self.count = kept
        return 0

    cdef int sort_keys(self, int threads) noexcept nogil:
        cdef uint64_t count = self.batch.count
        cdef uint64_t index
        cdef uint64_t kept = 0
        if is_sorted_strings(self.batch.key_offsets, self.batch.key_data,
                             count) == STRICTLY_ASCENDING:
            return 0
        self.account(count * VARIABLE_ROW_BYTES)
        self.order = <uint64_t *>malloc(count * 8)
        if self.order == NULL:
            return 1
        if sort_strings(self.batch.key_offsets, self.batch.key_data, count, self.order, threads):
            return 1
        self.account(count * 8)
        for index in range(count):
            if index + 1 == count or not self.same_key(self.order[index], self.order[index + 1]):
                self.order[kept] = self.order[index]
                kept += 1
        self.count = kept
        return 0

    cdef bint same_key(self, uint64_t a, uint64_t b) noexcept nogil:
        cdef const int64_t *offsets = self.batch.key_offsets
        return compare_bytes(self.batch.key_data + offsets[a], offsets[a + 1] - offsets[a],
                             self.batch.key_data + offsets[b], offsets[b + 1] - offsets[b]) == 0

    cdef void key_at(self, uint64_t place, Key *key) noexcept nogil:
        """The key that goes out as number `place`."""
        if self.pairs != NULL:
            memset(key, 0, sizeof(Key))
            key.head = self.pairs[place].key
        else:
            key_of_row(self.batch.heads, self.batch.key_offsets, self.batch.key_data,
                       self.order[place] if self.order != NULL else place, key)

    def key(self, uint64_t place):
        """The encoded key (int head or bytes) that goes out as number `place`."""
        cdef Key key
        self.key_at(place, &key)
        if self.batch.heads != NULL:
            return key.head
        return PyBytes_FromStringAndSize(<const char *>key.data, key.bytes)

    def write(self, SegmentBuilder builder, uint64_t first, uint64_t last, uint64_t most_bytes):
        """Moves rows [first, last) until the output has `most_bytes`; gives the first row left."""
        cdef uint64_t place = first
        cdef uint64_t step
        # Of long values a few fill an output: look at its size after each.
        cdef uint64_t chunk = CHUNK_ROWS if self.table_shape.shape.value_width else 1
        cdef int status = STATUS_OK
        builder.check_open()
        if not first <= last <= self.count:
            raise IndexError(f"rows {first} to {last} of {self.count}")
        with nogil:
            while place < last and builder_bytes(builder.builder) < most_bytes:
                step = min(last - place, chunk)
                status = self.write_some(builder, place, step)
                if status != STATUS_OK:
                    break
                place += step
        builder.check(status)
        return place

    cdef int write_some(self, SegmentBuilder builder, uint64_t place, uint64_t step) noexcept nogil:
        cdef const Shape *shape = &self.table_shape.shape
        cdef uint64_t index
        cdef int status
        if shape.key_width and shape.value_width:
            if self.pairs != NULL:
                return builder_add_pairs(builder.builder, self.pairs + place, step,
                                         self.batch.rows, self.payload_is_row)
            return builder_add_columns(builder.builder, self.batch.heads + place,
                                       self.batch.rows + place * shape.value_width, step)
        for index in range(place, place + step):
            status = self.write_one(builder, index)
            if status != STATUS_OK:
                return status
        return STATUS_OK

    cdef int write_one(self, SegmentBuilder builder, uint64_t place) noexcept nogil:
        cdef Key key
        cdef Value value
        cdef uint64_t row = place
        if self.order != NULL:
            row = self.order[place]
        elif self.pairs != NULL:
            row = self.pairs[place].payload
        self.key_at(place, &key)
        value_of_row(&self.batch, self.table_shape.shape.value_width, row, &value)
        return builder_add(builder.builder, &key, &value)


def sorted_row_bytes(TableShape shape):
    """What sorting takes for each row, at most, in bytes."""
    return FIXED_ROW_BYTES if shape.shape.key_width else VARIABLE_ROW_BYTES


def is_ascending(TableShape shape, EncodedKeys keys):
    """Whether the keys rise strictly, so that nothing is to be sorted."""
    cdef const uint64_t[::1] heads
    cdef const int64_t[::1] offsets
    cdef const uint8_t[::1] data
    cdef const uint8_t *first = NULL
    cdef uint64_t count = keys.count
    cdef bint ascending
    if count == 0:
        return True
    if shape.shape.key_width:
        heads = keys.heads
        with nogil:
            ascending = is_sorted_u64(&heads[0], count) == STRICTLY_ASCENDING
        return ascending
    offsets = keys.offsets
    data = keys.data
    if data.shape[0]:
        first = &data[0]
    with nogil:
        ascending = is_sorted_strings(&offsets[0], first, count) == STRICTLY_ASCENDING
    return ascending


def keys_part(EncodedKeys keys, Py_ssize_t first, Py_ssize_t last):
    """Rows [first, last) of a batch of keys, as a batch of its own; arrays are shared."""
    cdef EncodedKeys part = EncodedKeys.__new__(EncodedKeys)
    last = min(last, keys.count)
    part.count = last - first
    if keys.heads is not None:
        part.heads = keys.heads[first:last]
    else:
        part.offsets, part.data = rebased(keys.offsets, keys.data, first, last)
    return part


def values_part(EncodedValues values, Py_ssize_t first, Py_ssize_t last):
    """Rows [first, last) of a batch of values, likewise."""
    cdef EncodedValues part = EncodedValues.__new__(EncodedValues)
    last = min(last, values.count)
    part.count = last - first
    if values.rows is not None:
        part.rows = values.rows[first:last]
    else:
        part.offsets, part.data = rebased(values.offsets, values.data, first, last)
    return part


cdef tuple rebased(object offsets, object data, Py_ssize_t first, Py_ssize_t last):
    begin = offsets[first]
    return offsets[first:last + 1] - begin, data[begin:offsets[last]]
