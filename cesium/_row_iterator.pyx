"""Row by row: see _row_iterator.pxd for the contract."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Pack
from libc.stdint cimport int64_t, uint64_t

from cesium._counters cimport count_more, portion_of
from cesium._engine cimport engine_is_shut
from cesium._keys import IntegerCodec
from cesium._layout cimport STATUS_OK
from cesium._rows cimport rows_free, rows_reserve, rows_trim
from cesium._values import FixedStringCodec, NumberCodec

cdef extern from *:
    """
    /* The pair of a key and a value, whose references it takes: the one kept, if nobody else holds
     * it, as zip and dict.items do; else a new one.  NULL: no memory.  Making and dropping a tuple
     * for each row takes 20 ns of 60. */
    static PyObject *next_pair(PyObject *kept, PyObject *key, PyObject *value, int coded) {
        PyObject *pair;
    #if PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED)
        /* Later versions keep a tuple's hash in it. */
        if (Py_REFCNT(kept) == 1) {
            PyObject *old_key = PyTuple_GET_ITEM(kept, 0);
            PyObject *old_value = PyTuple_GET_ITEM(kept, 1);
            Py_INCREF(kept);
            PyTuple_SET_ITEM(kept, 0, key);
            PyTuple_SET_ITEM(kept, 1, value);
            /* The collector forgets tuples of what cannot refer to them; numbers and bytes cannot,
             * what a codec decodes may. */
            if (coded && !PyObject_GC_IsTracked(kept)) PyObject_GC_Track(kept);
            Py_DECREF(old_key);     /* may run anything, which sees the new pair */
            Py_DECREF(old_value);
            return kept;
        }
    #endif
        pair = PyTuple_New(2);
        if (pair == NULL) {
            Py_DECREF(key);
            Py_DECREF(value);
            return NULL;
        }
        PyTuple_SET_ITEM(pair, 0, key);
        PyTuple_SET_ITEM(pair, 1, value);
        return pair;
    }
    static PyObject *pair_of(PyObject *kept, PyObject *key, PyObject *value, int coded) {
        Py_INCREF(key);
        Py_INCREF(value);
        return next_pair(kept, key, value, coded);
    }
    """
    object pair_of(PyObject *kept, object key, object value, bint coded)

cdef enum:
    FIRST_BUFFER_ROWS = 32      # the first rows of an iteration come fast,
    BUFFER_ROWS = 1024          # later ones in buffers that stay in L2

cdef dict NUMBERS = {"u8": UNSIGNED, "i8": SIGNED, "f8": DOUBLE}


cdef Form form_of_keys(KeyCodec keys):
    return UNSIGNED if type(keys) is IntegerCodec and keys.spec == "u8" else CODED


cdef Form form_of_values(ValueCodec values):
    if type(values) is NumberCodec:
        return NUMBERS.get(values.spec, CODED)
    return RAW if type(values) is FixedStringCodec and values.dtype.kind == "V" else CODED


@cython.no_gc_clear         # what it holds is taken off the counters in the end
cdef class RowIterator:
    """RowIterator(reader, keys, values, yields): yields pairs (0), keys (1) or values (2)."""

    def __cinit__(self, RangeReader reader, KeyCodec keys, ValueCodec values, int yields):
        cdef int status
        self.reader = reader
        self.engine = reader.view.core.engine
        self.keys = keys
        self.values = values
        self.key_form = form_of_keys(keys)
        self.value_form = form_of_values(values)
        self.value_width = reader.view.shape.value_width
        self.yields = yields
        self.pair = PyTuple_Pack(2, <PyObject *>None, <PyObject *>None)     # no constant's
        self.rows.skip_values = yields == 1
        self.rows.data_bytes_most = portion_of(self.engine.counters)
        self.buffer_rows = FIRST_BUFFER_ROWS
        status = rows_reserve(reader.view.shape, &self.rows, self.buffer_rows)
        if status != STATUS_OK:
            raise MemoryError

    def __dealloc__(self):
        if self.accounted:
            count_more(&self.engine.counters.iterator_bytes, -self.accounted)
        rows_free(&self.rows)

    def __iter__(self):
        return self

    cdef int refill(self) except -1:
        cdef uint64_t held
        cdef uint64_t most
        cdef int status
        if self.reader.exhausted or self.reader.left == 0:
            return 0
        self.reader.view.core.engine.check_open()
        most = self.rows.data_bytes_most // (16 + self.value_width)
        most = min(most, <uint64_t>BUFFER_ROWS)
        if self.next_row and self.buffer_rows < most:
            self.buffer_rows = min(4 * self.buffer_rows, most)
            status = rows_reserve(self.reader.view.shape, &self.rows, self.buffer_rows)
            if status != STATUS_OK:
                raise MemoryError
        self.rows.count = 0
        self.next_row = 0
        rows_trim(&self.rows)
        self.reader.fill(&self.rows, self.rows.capacity)
        held = self.rows.capacity * (16 + self.value_width)
        held += self.rows.key_data_bytes + self.rows.value_data_bytes
        count_more(&self.engine.counters.iterator_bytes, held - self.accounted)
        self.accounted = held
        return 0

    cdef object key_at(self, uint64_t row):
        cdef int64_t start
        if self.rows.heads != NULL:
            return self.keys.decode_head(self.rows.heads[row])
        start = self.rows.key_offsets[row]
        return self.keys.decode(self.rows.key_data + start, self.rows.key_offsets[row + 1] - start)

    cdef object value_at(self, uint64_t row):
        cdef int64_t start
        if self.rows.rows != NULL:
            return self.values.decode_row(self.rows.rows + row * self.value_width)
        start = self.rows.value_offsets[row]
        return self.values.decode(self.rows.value_data + start,
                                  self.rows.value_offsets[row + 1] - start)

    def __next__(self):
        cdef uint64_t row
        if engine_is_shut(self.engine):     # rows in the buffer are refused as well
            self.engine.check_open()
        if self.next_row == self.rows.count:
            self.refill()
            if self.next_row == self.rows.count:
                raise StopIteration
        row = self.next_row
        self.next_row = row + 1
        if self.yields == 1:
            return key_of(self, row)
        if self.yields == 2:
            return value_of(self, row)
        key = key_of(self, row)
        return pair_of(<PyObject *>self.pair, key, value_of(self, row),
                       self.key_form == CODED or self.value_form == CODED)


cdef inline object key_of(RowIterator rows, uint64_t row):
    if rows.key_form == UNSIGNED:
        return rows.rows.heads[row]
    return rows.key_at(row)


cdef inline object value_of(RowIterator rows, uint64_t row):
    if rows.value_form == UNSIGNED:
        return (<uint64_t *>rows.rows.rows)[row]
    if rows.value_form == RAW:
        return PyBytes_FromStringAndSize(
            <const char *>rows.rows.rows + row * rows.value_width, rows.value_width)
    if rows.value_form == DOUBLE:
        return (<double *>rows.rows.rows)[row]
    if rows.value_form == SIGNED:
        return (<int64_t *>rows.rows.rows)[row]
    return rows.value_at(row)
