"""Value codecs: between Python values or numpy arrays and the bytes that the engine keeps.

Owns the encodings of values: a packed little-endian row for a numpy dtype of at most 512 bytes
(fixed form), a string of bytes for all else (variable form).  The host must be little-endian.

Thread safety: every function needs the GIL; codecs do not change after construction, except for
the one-cell scratch of `TimeCodec`, which is written and read without giving the GIL up between.

1. `encode_array` of a list gives exactly the rows that `encode_row` gives one by one: it calls it.
2. A refusal raises SchemaError (or LimitError) before anything but scratch memory was written.
3. `decode` of what `encode` gave equals the value given, save what numpy's dtype itself forgets.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check, PyFloat_CheckExact, PyFloat_FromDouble
from cpython.buffer cimport PyBUF_CONTIG_RO, PyBUF_FORMAT, PyBUF_ND, PyBuffer_Release
from cpython.buffer cimport PyObject_CheckBuffer, PyObject_GetBuffer
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import collections

import numpy as np

from .casting import cast, describe, read_sequence, read_time, refusal
from .errors import CorruptionError, LimitError, SchemaError

cdef extern from "Python.h":
    object PyLong_FromLongLong(long long value)
    object PyLong_FromUnsignedLongLong(unsigned long long value)
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object value) except? 0xFFFFFFFFFFFFFFFF
    bint PyLong_Check(object value)
    bint PyIndex_Check(object value)
    bint PyUnicode_Check(object value)
    int PyFloat_Pack2(double value, char *data, int little_endian) except -1
    double PyFloat_Unpack2(const char *data, int little_endian) except? -1.0
    object PyUnicode_AsUTF8String(object value)
    object PyUnicode_DecodeUTF8(const char *data, Py_ssize_t length, const char *errors)
    object PyUnicode_FromKindAndData(int kind, const void *data, Py_ssize_t length)
    uint32_t *PyUnicode_AsUCS4(object value, uint32_t *data, Py_ssize_t room, int ends) except NULL
    Py_ssize_t PyUnicode_GET_LENGTH(object value)

cdef enum:
    ROW_LIMIT = 512                 # bytes of a row that a page keeps in column runs
    FIELD_LIMIT = 255               # column runs of a page
    VALUE_LIMIT = 64 << 20          # bytes of a variable-length value
    CODE_POINT_LIMIT = 0x10FFFF

cdef enum Kind:
    BOOLEAN, SIGNED, UNSIGNED, HALF, SINGLE, DOUBLE, COMPLEX_SINGLE, COMPLEX_DOUBLE

cdef dict KINDS = {
    "b1": BOOLEAN, "f2": HALF, "f4": SINGLE, "f8": DOUBLE,
    "c8": COMPLEX_SINGLE, "c16": COMPLEX_DOUBLE,
}


cdef class EncodedValues:
    """A batch of encoded values.

    Fixed form: `rows` is uint8[count, width], C-contiguous, a view of the caller's array where its
    memory already had that form.  Variable form: value i is `data[offsets[i]:offsets[i + 1]]`.
    """

    def __init__(self, Py_ssize_t count, rows=None, offsets=None, data=None):
        self.count = count
        self.rows = rows
        self.offsets = offsets
        self.data = data

    def __len__(self):
        return self.count


cdef class ValueCodec:
    """The base of all value codecs; `cesium.values.value_codec` makes them."""

    def __cinit__(self):
        self.field_widths = ()

    cdef int encode_row(self, object value, uint8_t *row) except -1:
        raise TypeError("this codec has no fixed form")

    cdef object decode_row(self, const uint8_t *row):
        raise TypeError("this codec has no fixed form")

    cdef bytes encode(self, object value):
        """The bytes of one value; of fixed codecs too, for journals and tests."""
        cdef bytes data = PyBytes_FromStringAndSize(NULL, self.row_width)
        self.encode_row(value, <uint8_t *> PyBytes_AS_STRING(data))
        return data

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        if length != self.row_width:
            raise CorruptionError(
                f"a value of {self.spec} has {length} bytes instead of {self.row_width}",
                expected=self.row_width, found=length,
            )
        return self.decode_row(data)

    cdef EncodedValues encode_sequence(self, object values):
        """A tuple of Python values, row by row."""
        cdef Py_ssize_t row = 0, count = len(values), width = self.row_width
        rows = np.empty((count, width), np.uint8)
        cdef uint8_t[:, ::1] memory = rows
        try:
            for value in values:
                self.encode_row(value, &memory[row, 0])
                row += 1
        except (SchemaError, LimitError) as error:
            raise type(error)(f"row {row}: {error}") from error
        return EncodedValues(count, rows)

    def __repr__(self):
        return f"{type(self).__name__}({self.spec!r})"

    def encode_value(self, value):
        """The bytes of one value."""
        return self.encode(value)

    def decode_value(self, bytes data not None):
        """The value of what `encode_value` gave."""
        return self.decode(<const uint8_t *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def zero_value(self):
        """What a miss holds in `get_many` without a default: the value of a row of zero bytes."""
        return self.decode_value(bytes(self.row_width))

    def encode_array(self, values, count=None):
        """A batch from anything that numpy reads as an array, or a list.

        `count`, when given, is the number of keys, which must be that of the values.  Raises
        SchemaError for what does not fit, without a trace.
        """
        encoded = self._encode_array(values)
        if count is not None and encoded.count != count:
            raise SchemaError(
                f"expected as many values as keys, given {count} keys and {encoded.count} values"
            )
        return encoded

    def _encode_array(self, values):
        values = read_sequence(values, self.expects)
        if isinstance(values, tuple):
            return self.encode_sequence(values)
        return self._pack(cast(values, self.dtype, self.expects))

    def _pack(self, array):
        """An array of exactly this dtype as rows, without a copy where it is contiguous."""
        count = len(array)
        array = np.ascontiguousarray(array)
        return EncodedValues(count, array.view(np.uint8).reshape(count, self.row_width))

    def decode_array(self, EncodedValues encoded not None, found=None):
        """All values of a batch: an array of this dtype, which shares the memory of `rows`.

        Variable forms give a `cesium.Column` (str, bytes) or an array of objects; `found`, bool of
        shape (count,), marks the rows that are values, the others give `zero_value`.
        """
        return np.ascontiguousarray(encoded.rows).reshape(-1).view(self.dtype)

    def empty_array(self, Py_ssize_t count):
        """An uninitialised array of this dtype and shape (count,), to be filled with packed rows."""
        return np.empty(count, self.dtype)


cdef class NumberCodec(ValueCodec):
    """Booleans, integers, floats and complex numbers of any width up to 16 bytes."""

    cdef Kind kind
    cdef int64_t lowest
    cdef int64_t highest            # of integers other than u8, which is checked by itself

    def __init__(self, dtype):
        self.dtype = dtype
        self.spec = spec_of(dtype)
        self.row_width = self.width = dtype.itemsize
        self.field_widths = (dtype.itemsize,)
        self.expects = f"a value that {self.spec} holds"
        if dtype.kind in "iu":
            self.kind = SIGNED if dtype.kind == "i" else UNSIGNED
            self.lowest = np.iinfo(dtype).min
            self.highest = min(np.iinfo(dtype).max, np.iinfo(np.int64).max)
        else:
            self.kind = KINDS[dtype.str[1:]]

    cdef int encode_row(self, object value, uint8_t *row) except -1:
        cdef double number
        if self.kind == DOUBLE:
            # The commonest path: no call into numpy, 1.5 ns for an exact float.
            number = PyFloat_AS_DOUBLE(value) if PyFloat_CheckExact(value) else self._real(value)
            memcpy(row, &number, 8)
            return 0
        if self.kind == SIGNED or self.kind == UNSIGNED:
            return self._encode_integer(value, row)
        if self.kind == BOOLEAN:
            if value is True or value is False:
                row[0] = value is True
            elif isinstance(value, np.bool_):
                row[0] = bool(value)
            else:
                raise refusal(self.expects, value)
            return 0
        if self.kind == SINGLE or self.kind == HALF:
            return self._encode_short_float(value, row)
        return self._encode_complex(value, row)

    cdef double _real(self, object value) except? -1.0:
        if PyFloat_Check(value):
            return PyFloat_AS_DOUBLE(value)
        if not isinstance(value, (int, np.floating, np.integer, np.bool_)):
            raise refusal(self.expects, value)
        try:
            return float(value)
        except OverflowError as error:
            raise refusal(self.expects, value) from error

    cdef int _encode_integer(self, object value, uint8_t *row) except -1:
        cdef int overflow = 0
        cdef long long number
        cdef unsigned long long large
        given = value
        if not PyLong_Check(value):
            value = self._integral(value)
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow > 0 and self.kind == UNSIGNED and self.row_width == 8:
            if value > 0xFFFFFFFFFFFFFFFF:
                raise refusal(self.expects, given)
            large = PyLong_AsUnsignedLongLong(value)
            memcpy(row, &large, 8)
            return 0
        if overflow != 0 or number < self.lowest or number > self.highest:
            raise refusal(self.expects, given)
        memcpy(row, &number, self.row_width)  # the low bytes come first
        return 0

    cdef object _integral(self, object value):
        if PyIndex_Check(value) and not isinstance(value, np.ndarray):
            return int(value)
        if isinstance(value, np.bool_):
            return int(value)
        if isinstance(value, (float, np.floating)) and value == value // 1:
            return int(value)
        raise refusal(self.expects, value)

    cdef int _encode_short_float(self, object value, uint8_t *row) except -1:
        cdef double number = self._real(value)
        cdef float single
        if self.kind == SINGLE:
            # Integers are rounded once, as numpy rounds them, not by way of a double.
            single = self._single(value, number)
            if isfinite(number) and not isfinite(single):
                raise refusal(self.expects, value)
            memcpy(row, &single, 4)
            return 0
        try:
            PyFloat_Pack2(number, <char *> row, 1)
        except OverflowError as error:
            raise refusal(self.expects, value) from error
        return 0

    cdef float _single(self, object value, double number):
        cdef int overflow = 0
        cdef long long whole
        if not PyFloat_CheckExact(value) and isinstance(value, (int, np.integer)):
            value = int(value)
            whole = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow == 0:
                return <float> whole
            if 0 < value <= 0xFFFFFFFFFFFFFFFF:
                return <float> PyLong_AsUnsignedLongLong(value)
        return <float> number

    cdef int _encode_complex(self, object value, uint8_t *row) except -1:
        cdef double parts[2]
        cdef float singles[2]
        if isinstance(value, (complex, np.complexfloating)):
            parts[0] = value.real
            parts[1] = value.imag
        else:
            parts[0] = self._real(value)
            parts[1] = 0.0
        if self.kind == COMPLEX_DOUBLE:
            memcpy(row, parts, 16)
            return 0
        singles[0] = <float> parts[0] if isinstance(value, complex) else self._single(value, parts[0])
        singles[1] = <float> parts[1]
        if isfinite(parts[0]) and isfinite(parts[1]):
            if not (isfinite(singles[0]) and isfinite(singles[1])):
                raise refusal(self.expects, value)
        memcpy(row, singles, 8)
        return 0

    cdef object decode_row(self, const uint8_t *row):
        cdef double number
        cdef float single
        cdef double parts[2]
        cdef float singles[2]
        if self.kind == DOUBLE:
            memcpy(&number, row, 8)
            return PyFloat_FromDouble(number)
        if self.kind == SIGNED or self.kind == UNSIGNED:
            return self._decode_integer(row)
        if self.kind == BOOLEAN:
            return row[0] != 0
        if self.kind == SINGLE:
            memcpy(&single, row, 4)
            return PyFloat_FromDouble(single)
        if self.kind == HALF:
            return PyFloat_FromDouble(PyFloat_Unpack2(<const char *> row, 1))
        if self.kind == COMPLEX_DOUBLE:
            memcpy(parts, row, 16)
            return complex(parts[0], parts[1])
        memcpy(singles, row, 8)
        return complex(singles[0], singles[1])

    cdef object _decode_integer(self, const uint8_t *row):
        cdef uint64_t number = 0
        cdef int unused = 64 - 8 * <int> self.row_width
        memcpy(&number, row, self.row_width)
        if self.kind == UNSIGNED:
            return PyLong_FromUnsignedLongLong(number)
        # Shifted to the top and back, the sign fills what the row did not have.
        return PyLong_FromLongLong(<int64_t> (number << unused) >> unused)


cdef class VariableCodec(ValueCodec):
    """The base of what is kept as a string of bytes of any length."""

    def zero_value(self):
        return None

    def empty_array(self, Py_ssize_t count):
        raise TypeError(f"values of {self.spec} are of variable length: no array holds their rows")

    cdef EncodedValues encode_sequence(self, object values):
        cdef Py_ssize_t row = 0, count = len(values)
        cdef int64_t position = 0
        cdef list pieces = []
        cdef bytes piece
        offsets = np.zeros(count + 1, np.int64)
        cdef int64_t[::1] memory = offsets
        try:
            for value in values:
                piece = self.encode(value)
                position += PyBytes_GET_SIZE(piece)
                row += 1
                memory[row] = position
                pieces.append(piece)
        except (SchemaError, LimitError) as error:
            raise type(error)(f"row {row}: {error}") from error
        return EncodedValues(count, None, offsets, np.frombuffer(b"".join(pieces), np.uint8))


cdef class BytesCodec(VariableCodec):
    """Bytes as they are."""

    def __init__(self):
        self.spec = "bytes"
        self.expects = "bytes"

    def zero_value(self):
        return b""

    cdef bytes encode(self, object value):
        cdef Py_buffer view
        cdef bytes data
        if PyBytes_CheckExact(value):
            data = value
        else:
            if not PyObject_CheckBuffer(value):
                raise refusal(self.expects, value)
            try:
                PyObject_GetBuffer(value, &view, PyBUF_CONTIG_RO | PyBUF_ND | PyBUF_FORMAT)
            except (BufferError, ValueError) as error:
                raise refusal(self.expects, value) from error
            try:
                # Numpy's scalars and arrays of numbers have a buffer too, but are not bytes.
                if view.itemsize != 1 or view.ndim != 1:
                    raise refusal(self.expects, value)
                check_length(view.len)
                data = PyBytes_FromStringAndSize(<char *> view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        check_length(PyBytes_GET_SIZE(data))
        return data

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        return PyBytes_FromStringAndSize(<const char *> data, length)


cdef class StrCodec(VariableCodec):
    """Text as UTF-8."""

    def __init__(self):
        self.spec = "str"
        self.expects = "str"

    def zero_value(self):
        return ""

    cdef bytes encode(self, object value):
        cdef bytes data
        if not PyUnicode_Check(value):
            raise refusal(self.expects, value)
        try:
            data = PyUnicode_AsUTF8String(value)
        except UnicodeEncodeError as error:
            raise SchemaError(f"expected text that UTF-8 holds, given {describe(value)}") from error
        check_length(PyBytes_GET_SIZE(data))
        return data

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        try:
            return PyUnicode_DecodeUTF8(<const char *> data, length, NULL)
        except UnicodeDecodeError as error:
            raise CorruptionError("a value of a str table is not UTF-8") from error


cdef int check_length(Py_ssize_t length) except -1:
    if length > VALUE_LIMIT:
        raise LimitError(f"a value of {length:,} bytes is longer than {VALUE_LIMIT:,} bytes")
    return 0


def spec_of(dtype):
    """What the manifest stores of a plain dtype: numpy's own short name, without the byte order."""
    return "bool" if dtype.kind == "b" else dtype.str[1:]
