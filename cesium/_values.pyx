"""Value codecs: between Python values or numpy arrays and the bytes that the engine keeps.

Owns the base class and the packed little-endian rows of numpy dtypes; `_variable_values.pyx` has
the values of any length.  The host must be little-endian.

Thread safety: every function needs the GIL; codecs do not change after construction, except for
the one-cell scratch of `TimeCodec`, which is written and read without giving the GIL up between.

1. `encode_array` of a list gives exactly the rows that `encode_row` gives one by one: it calls it.
2. A refusal raises SchemaError before anything but the destination row was written.
3. `decode` of what `encode` gave equals the value given, but for what the dtype rounds (floats).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check, PyFloat_CheckExact, PyFloat_FromDouble
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

import collections
import collections.abc

import numpy as np

from .casting import cast, read_sequence, read_time, refusal
from .errors import CorruptionError, SchemaError

cdef extern from "Python.h":
    object PyLong_FromLongLong(long long value)
    object PyLong_FromUnsignedLongLong(unsigned long long value)
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object value) except? 0xFFFFFFFFFFFFFFFF
    bint PyLong_Check(object value)
    object PyNumber_Float(object value)
    bint PyIndex_Check(object value)
    int PyFloat_Pack2(double value, char *data, int little_endian) except -1
    double PyFloat_Unpack2(const char *data, int little_endian) except? -1.0
    object PyUnicode_DecodeUTF32(
        const char *data, Py_ssize_t length, const char *errors, int *byte_order
    )

cdef enum:
    FIELD_LIMIT = 255               # column runs of a page

cdef enum Kind:
    BOOLEAN, SIGNED, UNSIGNED, HALF, SINGLE, DOUBLE, COMPLEX_SINGLE, COMPLEX_DOUBLE

cdef tuple NUMBERS = (np.floating, np.integer, np.bool_)
cdef object new_tuple = tuple.__new__
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
        except SchemaError as error:
            raise SchemaError(f"row {row}: {error}") from error
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
        if not PyLong_Check(value) and not isinstance(value, NUMBERS):
            raise refusal(self.expects, value)
        try:
            return PyNumber_Float(value)
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
        if isinstance(value, np.bool_):
            return int(value)
        if PyIndex_Check(value) and not isinstance(value, np.ndarray):
            return value.__index__()
        if isinstance(value, (float, np.floating)) and value.is_integer():
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
        singles[0] = self._single(value, parts[0])
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


cdef class TimeCodec(ValueCodec):
    """Moments and durations: the int64 that numpy keeps, NaT included."""

    cdef object cell                # one element of `dtype`, whose int64 is `memory[0]`
    cdef int64_t[::1] memory

    def __init__(self, dtype):
        self.dtype = dtype
        self.spec = spec_of(dtype)
        self.row_width = self.width = 8
        self.field_widths = (8,)
        self.expects = f"a value that {self.spec} holds exactly"
        counts = np.zeros(1, np.int64)
        self.memory = counts
        self.cell = counts.view(dtype)

    cdef int encode_row(self, object value, uint8_t *row) except -1:
        if type(value) is not self.dtype.type or value.dtype != self.dtype:
            value = read_time(value, self.dtype, self.expects)
        self.cell[0] = value
        memcpy(row, &self.memory[0], 8)
        return 0

    cdef object decode_row(self, const uint8_t *row):
        memcpy(&self.memory[0], row, 8)
        return self.cell[0]


cdef class FixedStringCodec(ValueCodec):
    """Bytes (S), text as UTF-32 (U) or raw bytes (V) of a fixed width, filled up with NUL.

    S and U lose NULs at the end, as numpy does; so a value that ends in one is refused.
    """

    cdef bint is_text
    cdef bint is_raw

    def __init__(self, dtype):
        self.dtype = dtype
        self.spec = spec_of(dtype)
        self.row_width = dtype.itemsize
        self.width = dtype.itemsize
        self.field_widths = (dtype.itemsize,)
        self.is_text = dtype.kind == "U"
        self.is_raw = dtype.kind == "V"
        unit = "characters" if self.is_text else "bytes"
        size = dtype.itemsize // 4 if self.is_text else dtype.itemsize
        name = "str" if self.is_text else "bytes"
        self.expects = (
            f"bytes of exactly {size} bytes" if self.is_raw
            else f"{name} of at most {size} {unit} that does not end in NUL"
        )

    cdef int encode_row(self, object value, uint8_t *row) except -1:
        cdef bytes data = self._data(value)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(data)
        if length > self.row_width or (self.is_raw and length != self.row_width):
            raise refusal(self.expects, value)
        memcpy(row, PyBytes_AS_STRING(data), length)
        memset(row + length, 0, self.row_width - length)
        if not self.is_raw and length > 0 and length != self._used(row, length):
            raise refusal(self.expects, value)
        return 0

    cdef bytes _data(self, object value):
        if self.is_text:
            if isinstance(value, str):
                return value.encode("utf-32-le", "surrogatepass")
        elif isinstance(value, (bytes, bytearray)) or (self.is_raw and isinstance(value, np.void)):
            return bytes(value)
        elif isinstance(value, memoryview) and value.itemsize == 1:
            return value.tobytes()
        raise refusal(self.expects, value)

    cdef Py_ssize_t _used(self, const uint8_t *row, Py_ssize_t length) noexcept:
        """Bytes up to the last character that is not NUL."""
        while length > 0 and row[length - 1] == 0:
            length -= 1
        return (length + 3) & ~3 if self.is_text else length

    cdef object decode_row(self, const uint8_t *row):
        cdef Py_ssize_t length = self.row_width
        cdef int little_endian = -1
        if not self.is_raw:
            length = self._used(row, length)
        if not self.is_text:
            return PyBytes_FromStringAndSize(<const char *> row, length)
        try:
            return PyUnicode_DecodeUTF32(
                <const char *> row, length, "surrogatepass", &little_endian
            )
        except UnicodeDecodeError as error:
            raise CorruptionError(f"a value of {self.spec} is not Unicode") from error


cdef class StructCodec(ValueCodec):
    """Several named fields; a row is a named tuple, a batch a structured array."""

    cdef tuple names
    cdef tuple fields               # a ValueCodec each
    cdef tuple starts               # byte offset of each in the packed row
    cdef object row_type

    def __init__(self, dtype, fields):
        self.dtype = dtype
        self.names = dtype.names
        self.fields = tuple(fields)
        self.starts = tuple([dtype.fields[name][1] for name in dtype.names])
        self.spec = [[name, field.spec] for name, field in zip(dtype.names, fields)]
        self.row_width = self.width = dtype.itemsize
        self.expects = f"the fields {', '.join(dtype.names)}"
        self.field_widths = tuple([dtype.fields[name][0].itemsize for name in dtype.names])
        if len(fields) > FIELD_LIMIT:
            self.field_widths = (dtype.itemsize,)
        self.row_type = collections.namedtuple("Row", dtype.names, rename=True)
        # The class cannot be imported by name, so a row travels to other processes as a tuple.
        self.row_type.__reduce__ = _reduce_row

    cdef int encode_row(self, object value, uint8_t *row) except -1:
        cdef tuple parts = self._parts(value)
        cdef Py_ssize_t i
        if len(parts) != len(self.fields):
            raise refusal(self.expects, value)
        for i in range(len(parts)):
            try:
                (<ValueCodec> self.fields[i]).encode_row(
                    parts[i], row + <Py_ssize_t> self.starts[i]
                )
            except SchemaError as error:
                raise SchemaError(f"field {self.names[i]!r}: {error}") from error
        return 0

    cdef tuple _parts(self, object value):
        if isinstance(value, tuple):
            return tuple(value)
        if isinstance(value, np.void) and value.dtype.names is not None:
            self._check_names(value.dtype.names, value)
        elif isinstance(value, collections.abc.Mapping):
            self._check_names(value, value)
        else:
            raise refusal(self.expects, value)
        return tuple([value[name] for name in self.names])

    cdef int _check_names(self, object given, object value) except -1:
        if set(given) != set(self.names):
            raise refusal(self.expects, value)
        return 0

    cdef object decode_row(self, const uint8_t *row):
        cdef Py_ssize_t i
        cdef list parts = [
            (<ValueCodec> self.fields[i]).decode_row(row + <Py_ssize_t> self.starts[i])
            for i in range(len(self.fields))
        ]
        return new_tuple(self.row_type, parts)  # skips the class's own slower __new__

    def _encode_array(self, values):
        """Takes a structured array, a tuple or mapping of field arrays, a frame, or rows."""
        if isinstance(values, tuple):
            if len(values) != len(self.names):
                raise SchemaError(
                    f"expected one array for each of {self.expects}, given {len(values)} arrays"
                )
            return self._encode_fields(values)
        if isinstance(values, collections.abc.Mapping) or hasattr(values, "columns"):
            self._check_names(getattr(values, "columns", values), values)
            return self._encode_fields([values[name] for name in self.names])
        values = read_sequence(values, self.expects)
        if isinstance(values, tuple):
            return self.encode_sequence(values)
        if values.dtype.names is None:
            raise refusal(self.expects, values)
        if values.dtype == self.dtype:
            return self._pack(values)
        self._check_names(values.dtype.names, values)
        return self._encode_fields([values[name] for name in self.names])

    cdef EncodedValues _encode_fields(self, object arrays):
        cdef ValueCodec field
        cdef EncodedValues part
        parts = []
        for name, field, array in zip(self.names, self.fields, arrays):
            try:
                parts.append(field.encode_array(array))
            except SchemaError as error:
                raise SchemaError(f"field {name!r}: {error}") from error
        counts = [part.count for part in parts]
        if len(set(counts)) > 1:
            given = ", ".join([f"{name}: {size}" for name, size in zip(self.names, counts)])
            raise SchemaError(f"expected fields of one length, given {given}")
        rows = np.empty(counts[0], self.dtype)
        for name, field, part in zip(self.names, self.fields, parts):
            rows[name] = field.decode_array(part)
        return self._pack(rows)


def _reduce_row(row):
    return tuple, (list(row),)


cdef class SubarrayCodec(ValueCodec):
    """An array of one shape in every row, kept in C order; a row is an array of its own."""

    cdef ValueCodec items
    cdef tuple shape
    cdef Py_ssize_t size            # items in a row

    def __init__(self, dtype, ValueCodec items not None):
        self.dtype = dtype
        self.items = items
        self.shape = dtype.shape
        self.size = dtype.itemsize // items.dtype.itemsize
        self.spec = {"items": items.spec, "shape": list(dtype.shape)}
        self.row_width = self.width = dtype.itemsize
        self.field_widths = (dtype.itemsize,)
        self.expects = f"an array of shape {self.shape} of {items.spec}"

    cdef int encode_row(self, object value, uint8_t *row) except -1:
        self._fill(value, 0, row, self.row_width)
        return 0

    cdef int _fill(self, object value, Py_ssize_t axis, uint8_t *row, Py_ssize_t width) except -1:
        cdef Py_ssize_t i, length
        if axis == len(self.shape):
            return self.items.encode_row(value, row)
        length = self.shape[axis]
        if isinstance(value, (list, np.ndarray)):
            value = tuple(value)
        if not isinstance(value, tuple) or len(value) != length:
            raise refusal(self.expects, value)
        for i in range(length):
            self._fill(value[i], axis + 1, row + i * (width // length), width // length)
        return 0

    cdef object decode_row(self, const uint8_t *row):
        rows = np.empty((1, self.row_width), np.uint8)
        cdef uint8_t[:, ::1] memory = rows
        memcpy(&memory[0, 0], row, self.row_width)
        return self.decode_array(EncodedValues(1, rows))[0]

    def _encode_array(self, values):
        values = read_sequence(values, self.expects, 1 + len(self.shape))
        if isinstance(values, tuple):
            return self.encode_sequence(values)
        if values.shape[1:] != self.shape:
            raise refusal(self.expects + " in every row", values)
        items = self.items.encode_array(values.reshape(-1))
        return EncodedValues(len(values), items.rows.reshape(len(values), self.row_width))

    def decode_array(self, EncodedValues encoded not None, found=None):
        rows = np.ascontiguousarray(encoded.rows)
        items = rows.reshape(encoded.count * self.size, self.items.row_width)
        array = self.items.decode_array(EncodedValues(len(items), items))
        return array.reshape((encoded.count,) + self.shape)


def spec_of(dtype):
    """What the manifest stores of a plain dtype: numpy's own short name, without the byte order."""
    if dtype.kind in "bMm":
        return dtype.name
    return dtype.str[1:]
