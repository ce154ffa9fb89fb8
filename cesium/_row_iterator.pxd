# Row by row: a range as Python objects.
#
# Rows are copied into a small buffer without the GIL and decoded one at a time, so that a row's
# objects come from memory that the last row's have just left.
#
# Thread safety: any thread may ask for the next row, one at a time under the GIL; while one thread
# has the buffer filled no other asks.

from libc.stdint cimport uint64_t

from cesium._engine cimport Engine
from cesium._keys cimport KeyCodec
from cesium._ranges cimport RangeReader
from cesium._rows cimport Rows
from cesium._values cimport ValueCodec

cdef enum Form:                         # what of a row is decoded without asking the codec
    CODED                               # nothing: the codec does it
    UNSIGNED                            # 8 bytes that are a Python int,
    SIGNED
    DOUBLE                              # a float,
    RAW                                 # or bytes of the table's width

cdef class RowIterator:
    cdef RangeReader reader
    cdef Engine engine
    cdef KeyCodec keys
    cdef ValueCodec values
    cdef Form key_form
    cdef Form value_form
    cdef uint64_t value_width
    cdef int yields                     # 0 pairs, 1 keys, 2 values
    cdef tuple pair                     # the last one, used again when nobody else has it
    cdef Rows rows
    cdef uint64_t next_row
    cdef uint64_t buffer_rows
    cdef uint64_t accounted             # of its memory, in Counters.iterator_bytes

    cdef int refill(self) except -1
    cdef object key_at(self, uint64_t row)
    cdef object value_at(self, uint64_t row)
