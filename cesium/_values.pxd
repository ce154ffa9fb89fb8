"""Value codecs: between Python values or numpy arrays and the bytes that the engine keeps.

Every function here needs the GIL.  A codec never changes after construction, so that one codec
serves any number of threads.  On failure a Python exception is set and nothing outside the
destination was touched; the destination of a failed `encode_row` holds nothing useful.
"""

from libc.stdint cimport uint8_t, uint32_t


cdef class EncodedValues:
    """A batch of encoded values in one of two forms; the other form's attributes are None."""

    cdef readonly Py_ssize_t count
    cdef readonly object rows       # fixed form: uint8[count, width], C-contiguous packed rows
    cdef readonly object offsets    # variable form: int64[count + 1], from 0, never falling
    cdef readonly object data       # variable form: uint8[offsets[count]]


cdef class ValueCodec:
    """One table's value form; the subclasses in `_values.pyx` say how."""

    cdef readonly uint32_t width        # fixed form: bytes of a packed row, 1..512; else 0
    cdef readonly object spec           # what the manifest stores; value_codec(spec) reads it
    cdef readonly object dtype          # packed little-endian numpy dtype of a row, or None
    cdef readonly tuple field_widths    # fixed form: bytes of each column run, 1..255 runs; else ()
    cdef uint32_t row_width             # bytes of a packed row, also where it exceeds 512; or 0
    cdef object expects                 # what a value must be, for messages

    # Fixed form.  `row` has `width` bytes, any alignment.
    cdef int encode_row(self, object value, uint8_t *row) except -1
    cdef object decode_row(self, const uint8_t *row)

    # Variable form.  `encode` gives at most 64 MiB, else LimitError; `decode` copies.
    cdef bytes encode(self, object value)
    cdef object decode(self, const uint8_t *data, Py_ssize_t length)

    cdef EncodedValues encode_sequence(self, object values)
