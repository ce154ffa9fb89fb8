"""Value codecs of any length: bytes, text, functions of the user's, and rows too wide for a page.

Owns the variable form of values, at most 4 GiB each: what a blob file takes.

Thread safety: as `_values.pyx`.  The kernels below release the GIL over arrays of the caller's;
who changes such an array meanwhile gets an error or either content, never a write out of bounds.

1. Text in the store is valid UTF-8, by whatever way it came; lone surrogates are refused.
2. A batch's offsets start at 0, never fall, and end at the length of its data.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBuffer_Release
from cpython.buffer cimport PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from ._values cimport EncodedValues, ValueCodec
from .casting import describe, read_sequence, refusal
from .errors import CorruptionError, LimitError, SchemaError

cdef extern from "Python.h":
    bint PyUnicode_Check(object value)
    object PyUnicode_AsUTF8String(object value)
    object PyUnicode_DecodeUTF8(const char *data, Py_ssize_t length, const char *errors)

cdef Py_ssize_t VALUE_LIMIT = <Py_ssize_t>1 << 32        # bytes of a value: BLOB_BYTES_MAX


# Kernels: the lengths and the bytes of numpy's fixed-width strings, and what UTF-8 is.

cdef Py_ssize_t used_bytes(const uint8_t *row, Py_ssize_t width) noexcept nogil:
    """Length of a numpy S value: up to the last byte that is not NUL."""
    while width > 0 and row[width - 1] == 0:
        width -= 1
    return width


cdef Py_ssize_t used_points(const uint32_t *row, Py_ssize_t width) noexcept nogil:
    """Length of a numpy U value: up to the last code point that is not NUL."""
    while width > 0 and row[width - 1] == 0:
        width -= 1
    return width


cdef Py_ssize_t utf8_length(const uint32_t *points, Py_ssize_t count) noexcept nogil:
    """Bytes that UTF-8 takes for the code points, or -1 where one has no encoding."""
    cdef Py_ssize_t i, length = 0
    for i in range(count):
        if points[i] < 0x80:
            length += 1
        elif points[i] < 0x800:
            length += 2
        elif points[i] < 0x10000:
            if 0xD800 <= points[i] < 0xE000:
                return -1
            length += 3
        elif points[i] <= 0x10FFFF:
            length += 4
        else:
            return -1
    return length


cdef uint8_t *write_utf8(uint32_t point, uint8_t *out) noexcept nogil:
    """Write one code point; return the byte after it."""
    if point < 0x80:
        out[0] = <uint8_t> point
        return out + 1
    if point < 0x800:
        out[0] = <uint8_t> (0xC0 | (point >> 6))
        out[1] = <uint8_t> (0x80 | (point & 0x3F))
        return out + 2
    if point < 0x10000:
        out[0] = <uint8_t> (0xE0 | (point >> 12))
        out[1] = <uint8_t> (0x80 | ((point >> 6) & 0x3F))
        out[2] = <uint8_t> (0x80 | (point & 0x3F))
        return out + 3
    out[0] = <uint8_t> (0xF0 | (point >> 18))
    out[1] = <uint8_t> (0x80 | ((point >> 12) & 0x3F))
    out[2] = <uint8_t> (0x80 | ((point >> 6) & 0x3F))
    out[3] = <uint8_t> (0x80 | (point & 0x3F))
    return out + 4


cdef bint is_utf8(const uint8_t *data, Py_ssize_t length) noexcept nogil:
    """Whether the bytes are UTF-8 in Unicode's strict sense (table 3-7 of the standard)."""
    cdef Py_ssize_t i = 0
    cdef int more, step
    cdef uint8_t first, low, high
    cdef uint64_t word
    while i < length:
        if i + 8 <= length:
            memcpy(&word, data + i, 8)
            if word & 0x8080808080808080ULL == 0:
                i += 8
                continue
        first = data[i]
        i += 1
        if first < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= first <= 0xDF:
            more = 1
        elif 0xE0 <= first <= 0xEF:
            more = 2
            if first == 0xE0:
                low = 0xA0          # shorter forms exist
            elif first == 0xED:
                high = 0x9F         # surrogates
        elif 0xF0 <= first <= 0xF4:
            more = 3
            if first == 0xF0:
                low = 0x90          # shorter forms exist
            elif first == 0xF4:
                high = 0x8F         # beyond Unicode
        else:
            return False
        if i + more > length or data[i] < low or data[i] > high:
            return False
        for step in range(1, more):
            if data[i + step] & 0xC0 != 0x80:
                return False
        i += more
    return True


cdef Py_ssize_t first_not_utf8(
    const uint8_t *data, const int64_t *offsets, Py_ssize_t count
) noexcept nogil:
    """The first value that is not UTF-8 by itself, or -1."""
    cdef Py_ssize_t i
    for i in range(count):
        if not is_utf8(data + offsets[i], offsets[i + 1] - offsets[i]):
            return i
    return -1


cdef int check_length(Py_ssize_t length) except -1:
    if length > VALUE_LIMIT:
        raise LimitError(f"a value of {length:,} bytes is longer than {VALUE_LIMIT:,} bytes")
    return 0


cdef object check_lengths(offsets):
    """Raise LimitError where a value of a batch is too long."""
    lengths = np.diff(offsets)
    if len(lengths) and lengths.max() > VALUE_LIMIT:
        row = int(lengths.argmax())
        raise LimitError(
            f"row {row}: a value of {int(lengths[row]):,} bytes is longer than "
            f"{VALUE_LIMIT:,} bytes"
        )


cdef EncodedValues gather_bytes(object array):
    """A batch from a contiguous array of dtype S."""
    cdef Py_ssize_t i, length, width = array.dtype.itemsize, count = len(array)
    offsets = np.zeros(count + 1, np.int64)
    if count == 0 or width == 0:
        return EncodedValues(count, None, offsets, np.zeros(0, np.uint8))
    cdef const uint8_t[::1] source = array.view(np.uint8)
    cdef int64_t[::1] ends = offsets
    with nogil:
        for i in range(count):
            ends[i + 1] = ends[i] + used_bytes(&source[i * width], width)
    check_lengths(offsets)
    data = np.empty(ends[count] + 1, np.uint8)      # one more, so that &target[0] exists
    cdef uint8_t[::1] target = data
    with nogil:
        for i in range(count):
            length = ends[i + 1] - ends[i]
            memcpy(&target[0] + ends[i], &source[i * width], length)
    return EncodedValues(count, None, offsets, data[:ends[count]])


cdef EncodedValues gather_text(object array):
    """A batch from a contiguous, native array of dtype U."""
    cdef Py_ssize_t i, k, length, width = array.dtype.itemsize // 4, count = len(array)
    offsets = np.zeros(count + 1, np.int64)
    if count == 0 or width == 0:
        return EncodedValues(count, None, offsets, np.zeros(0, np.uint8))
    # A copy where the caller could change it between the two passes would cost more than it
    # guards; the second pass stops at the end that the first one found.
    cdef const uint32_t[::1] source = array.view(np.uint32)
    cdef int64_t[::1] ends = offsets
    cdef Py_ssize_t wrong = -1
    with nogil:
        for i in range(count):
            length = utf8_length(&source[i * width], used_points(&source[i * width], width))
            if length < 0:
                wrong = i
                break
            ends[i + 1] = ends[i] + length
    if wrong >= 0:
        raise SchemaError(f"row {wrong}: expected text that UTF-8 holds, given a lone surrogate")
    check_lengths(offsets)
    data = np.empty(ends[count] + 4, np.uint8)      # room for one code point past the end
    cdef uint8_t[::1] target = data
    cdef uint8_t *out
    cdef uint8_t *end
    with nogil:
        for i in range(count):
            out = &target[0] + ends[i]
            end = &target[0] + ends[i + 1]
            k = 0
            while out < end and k < width:
                out = write_utf8(source[i * width + k], out)
                k += 1
    return EncodedValues(count, None, offsets, data[:ends[count]])


cdef EncodedValues take_column(object column, bint is_text):
    """A batch from a column: its own memory, after every offset and (for text) byte was checked."""
    offsets = np.ascontiguousarray(column.offsets, np.int64)
    data = np.ascontiguousarray(column.data, np.uint8)
    cdef Py_ssize_t count = len(offsets) - 1
    if count < 0 or offsets[0] < 0 or offsets[count] > len(data) or (np.diff(offsets) < 0).any():
        raise SchemaError("expected a column whose offsets rise within its data")
    check_lengths(offsets)
    data = data[offsets[0]:offsets[count]]
    if offsets[0] != 0:
        offsets = offsets - offsets[0]
    if not is_text or len(data) == 0:
        return EncodedValues(count, None, offsets, data)
    cdef const uint8_t[::1] source = data
    cdef const int64_t[::1] ends = offsets
    cdef Py_ssize_t wrong
    with nogil:
        wrong = first_not_utf8(&source[0], &ends[0], count)
    if wrong >= 0:
        raise SchemaError(f"row {wrong}: expected text that UTF-8 holds, given other bytes")
    return EncodedValues(count, None, offsets, data)


cdef class VariableCodec(ValueCodec):
    """The base of what is kept as a string of bytes of any length."""

    def zero_value(self):
        return None

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

    def __cinit__(self):
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
                PyObject_GetBuffer(value, &view, PyBUF_ND | PyBUF_FORMAT)
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

    def _encode_array(self, values):
        if is_column(values):
            if values.kind != self.spec:
                raise SchemaError(f"expected a column of {self.spec}, given one of {values.kind}")
            return take_column(values, False)
        values = read_sequence(values, self.expects)
        if isinstance(values, tuple):
            return self.encode_sequence(values)
        if values.dtype.kind != "S":
            raise refusal(self.expects, values)
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        return gather_bytes(values)

    def decode_array(self, EncodedValues encoded not None, found=None):
        from .columns import Column

        return Column(encoded.offsets, encoded.data, "bytes")


cdef class StrCodec(VariableCodec):
    """Text as UTF-8."""

    def __cinit__(self):
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

    def _encode_array(self, values):
        if is_column(values):
            if values.kind != self.spec:
                raise SchemaError(f"expected a column of {self.spec}, given one of {values.kind}")
            return take_column(values, True)
        values = read_sequence(values, self.expects)
        if isinstance(values, tuple):
            return self.encode_sequence(values)
        if values.dtype.kind != "U":
            raise refusal(self.expects, values)
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        return gather_text(values)

    def decode_array(self, EncodedValues encoded not None, found=None):
        from .columns import Column

        return Column(encoded.offsets, encoded.data, "str")


cdef class FunctionCodec(VariableCodec):
    """Two functions: from a value to bytes and back."""

    cdef object encoder
    cdef object decoder
    cdef str name

    def __init__(self, spec, str name, encoder, decoder):
        self.spec = spec
        self.name = name
        self.encoder = encoder
        self.decoder = decoder
        self.expects = f"a value that the codec {name!r} encodes"

    cdef bytes encode(self, object value):
        data = self.encoder(value)
        if not PyBytes_CheckExact(data):
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise SchemaError(
                    f"expected bytes from the codec {self.name!r}, given {describe(data)}"
                )
            data = bytes(data)
        check_length(PyBytes_GET_SIZE(data))
        return data

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        return self.decoder(PyBytes_FromStringAndSize(<const char *> data, length))

    def _encode_array(self, values):
        if not is_column(values):
            values = read_sequence(values, self.expects)
        return self.encode_sequence(tuple(values.tolist() if hasattr(values, "tolist") else values))

    def decode_array(self, EncodedValues encoded not None, found=None):
        cdef Py_ssize_t i
        cdef const int64_t[::1] offsets = encoded.offsets
        cdef bytes data = encoded.data.tobytes()
        result = np.empty(encoded.count, object)
        for i in range(encoded.count):
            if found is None or found[i]:
                result[i] = self.decoder(data[offsets[i]:offsets[i + 1]])
        return result


cdef class WideCodec(VariableCodec):
    """Rows of a dtype too wide for a page's column runs, each kept as one string of bytes."""

    cdef ValueCodec rows

    def __init__(self, ValueCodec rows not None):
        check_length(rows.row_width)
        self.rows = rows
        self.spec = rows.spec
        self.dtype = rows.dtype
        self.expects = rows.expects

    def zero_value(self):
        return self.rows.zero_value()

    cdef bytes encode(self, object value):
        return self.rows.encode(value)

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        return self.rows.decode(data, length)

    def _encode_array(self, values):
        cdef EncodedValues encoded = self.rows.encode_array(values)
        cdef int64_t row_width = self.rows.row_width
        offsets = np.arange(encoded.count + 1, dtype=np.int64) * row_width
        return EncodedValues(encoded.count, None, offsets, encoded.rows.reshape(-1))

    def decode_array(self, EncodedValues encoded not None, found=None):
        """As the base class; empty values, which no row encodes to, are misses: rows of zeros."""
        cdef int64_t row_width = self.rows.row_width
        lengths = np.diff(encoded.offsets)
        present = lengths == row_width
        if not (present | (lengths == 0)).all():
            wrong = int(lengths[~present].max())
            raise CorruptionError(
                f"a value of {self.spec} has {wrong} bytes instead of {row_width}",
                expected=row_width, found=wrong,
            )
        rows = np.ascontiguousarray(encoded.data).reshape(-1, row_width)
        if len(rows) != encoded.count:
            filled = np.zeros((encoded.count, row_width), np.uint8)
            filled[present] = rows
            rows = filled
        return self.rows.decode_array(EncodedValues(encoded.count, rows))


cdef bint is_column(object values) except -1:
    """Whether the values are a `cesium.Column`; imported late, for columns know of codecs."""
    from .columns import Column

    return isinstance(values, Column)
