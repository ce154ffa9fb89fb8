# cython: auto_pickle=False, wraparound=True
"""Codecs of keys that are bytes: fixed and variable bytes, text, uuids, and user codecs.

See `_keys.pxd` for the contract.  All but the narrow fixed bytes take the variable form; in arrays
they are columns, or numpy's own 'S' and 'V' arrays where the width is fixed.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import uuid

import numpy

from cesium import _key_arrays as kernels
from cesium._key_arrays cimport get_head, put_head
from cesium._keys cimport (
    KEY_BETWEEN, KEY_BYTES_MAX, KEY_INSIDE, EncodedKeys, HeadCodec, KeyCodec, check_form,
    check_lengths, corrupt, head_of_prefix, read_array, successor, wrong_dtype, wrong_type,
)
from cesium.columns import Column
from cesium.errors import LimitError, SchemaError

__all__ = [
    "BytesCodec", "FixedBytesCodec", "StrCodec", "UserCodec", "UuidCodec", "WideBytesCodec",
]


cdef bytes bytes_of(object key, object spec):
    if PyBytes_CheckExact(key):
        return <bytes> key
    if isinstance(key, (bytes, bytearray, memoryview)):
        return bytes(key)
    raise wrong_type(key, spec)


cdef object longer_than(object array, Py_ssize_t width):
    """The rows of an 'S' array whose value is longer than `width` bytes, or None."""
    if array.dtype.itemsize <= width:
        return None
    return array.astype(f"S{width}") != array


cdef class FixedBytesCodec(HeadCodec):
    """numpy 'S1' to 'S8': trailing zero bytes are padding, neither stored apart nor given back."""

    def __init__(self, uint32_t width):
        self.width = self.part_width = width
        self.spec = f"S{width}"

    cdef int encode_head(self, object key, uint64_t *head) except -1:
        cdef bytes raw = bytes_of(key, self.spec)
        cdef uint8_t padded[8]
        cdef Py_ssize_t length = PyBytes_GET_SIZE(raw)
        memset(padded, 0, 8)
        memcpy(padded, PyBytes_AS_STRING(raw), min(length, self.width))
        head[0] = get_head(padded, 8)
        if length > self.width and raw[self.width:].strip(b"\0"):
            return KEY_BETWEEN
        return KEY_INSIDE

    cdef object decode_head(self, uint64_t head):
        cdef uint8_t padded[8]
        cdef Py_ssize_t length = self.width
        put_head(padded, head, 8)
        while length > 0 and padded[length - 1] == 0:
            length -= 1
        return PyBytes_FromStringAndSize(<char *> padded, length)

    def prefix_bounds(self, prefix, bint partial=False):
        cdef bytes raw = bytes_of(prefix, self.spec)
        if raw[self.width:].strip(b"\0"):
            return None, None
        raw = raw[:self.width]
        return head_of_prefix(raw), head_of_prefix(successor(raw))

    cdef tuple read_heads(self, object array):
        if array.dtype.kind != "S":
            raise wrong_dtype(array, self.spec)
        narrow = array.astype(self.spec).astype("S8")
        return narrow.view(">u8").astype(numpy.uint64), longer_than(array, self.width)

    def decode_array(self, EncodedKeys encoded not None):
        check_form(self, encoded)
        return encoded.heads.astype(">u8").view("S8").astype(self.spec)


# Keys of the variable form

cdef class WideBytesCodec(KeyCodec):
    """numpy 'S9' and wider: as many bytes, padded with zeros, which are not given back."""

    def __init__(self, uint32_t width):
        if width > KEY_BYTES_MAX:
            raise LimitError(f"a key of {width} bytes: at most {KEY_BYTES_MAX} fit")
        self.part_width = width
        self.spec = f"S{width}"

    cdef bytes locate(self, object key, int *status):
        cdef bytes raw = bytes_of(key, self.spec)
        status[0] = KEY_BETWEEN if raw[self.part_width:].strip(b"\0") else KEY_INSIDE
        return raw[:self.part_width].ljust(self.part_width, b"\0")

    cdef bytes encode(self, object key):
        cdef bytes encoded = self.encode_lookup(key)
        if encoded is None:
            raise self.domain_error(key)
        return encoded

    cdef bytes encode_lookup(self, object key):
        cdef int status
        cdef bytes encoded = self.locate(key, &status)
        return encoded if status == KEY_INSIDE else None

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        if length != self.part_width:
            raise corrupt(self.spec)
        while length > 0 and data[length - 1] == 0:
            length -= 1
        return PyBytes_FromStringAndSize(<const char *> data, length)

    def prefix_bounds(self, prefix, bint partial=False):
        cdef bytes raw = bytes_of(prefix, self.spec)
        if raw[self.part_width:].strip(b"\0"):
            return None, None
        raw = raw[:self.part_width]
        return raw, successor(raw)

    def encode_array(self, keys, bint lookup=False):
        cdef int status
        if not isinstance(keys, (list, tuple)):
            keys = read_array(keys, self.spec)
            if keys.dtype.kind == "O":
                keys = keys.tolist()
        if isinstance(keys, (list, tuple)):
            rows, marks = [], []
            for key in keys:
                rows.append(self.locate(key, &status))
                marks.append(status != KEY_INSIDE)
            outside = numpy.array(marks, numpy.bool_)
            data = numpy.frombuffer(b"".join(rows), numpy.uint8)
        elif keys.dtype.kind == "S":
            outside = longer_than(keys, self.part_width)
            data = numpy.ascontiguousarray(keys.astype(self.spec, copy=False)).view(numpy.uint8)
        else:
            raise wrong_dtype(keys, self.spec)
        if outside is not None and not outside.any():
            outside = None
        if outside is not None and not lookup:
            raise self.domain_error(keys[outside.argmax()])
        return blocks(len(keys), self.part_width, data, outside)

    def decode_array(self, EncodedKeys encoded not None):
        check_form(self, encoded)
        return encoded.data.view(self.spec)


cdef EncodedKeys blocks(Py_ssize_t count, Py_ssize_t width, object data, object outside):
    offsets = numpy.arange(count + 1, dtype=numpy.int64) * width
    return EncodedKeys(count, offsets=offsets, data=data, outside=outside)


cdef class UuidCodec(KeyCodec):
    """`uuid.UUID`, in the order of its 16 bytes; in arrays, numpy's 'V16'."""

    def __cinit__(self):
        self.part_width = 16
        self.spec = "uuid"

    cdef bytes encode(self, object key):
        if not isinstance(key, uuid.UUID):
            raise wrong_type(key, self.spec)
        return key.bytes

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        if length != 16:
            raise corrupt(self.spec)
        return uuid.UUID(bytes=data[:length])

    def encode_array(self, keys, bint lookup=False):
        if not isinstance(keys, (list, tuple)):
            keys = read_array(keys, self.spec)
            if keys.dtype.kind == "V" and keys.dtype.itemsize == 16 and keys.dtype.names is None:
                data = numpy.ascontiguousarray(keys).view(numpy.uint8)
                return blocks(len(keys), 16, data, None)
            if keys.dtype.kind != "O":
                raise wrong_dtype(keys, self.spec)
        joined = b"".join([self.encode(key) for key in keys])
        return blocks(len(keys), 16, numpy.frombuffer(joined, numpy.uint8), None)

    def decode_array(self, EncodedKeys encoded not None):
        check_form(self, encoded)
        return encoded.data.view("V16")


cdef class TextCodec(KeyCodec):
    """What `str` and `bytes` share: raw alone, escaped in tuples, columns as arrays."""

    def prefix_bounds(self, prefix, bint partial=False):
        cdef bytes raw = self.encode(prefix)
        return raw, successor(raw)

    def encode_array(self, keys, bint lookup=False):
        column = self.read_column(keys)
        first, last = int(column.offsets[0]), int(column.offsets[-1])
        offsets = column.offsets - first if first else column.offsets
        check_lengths(offsets)
        return EncodedKeys(len(column), offsets=offsets, data=column.data[first:last])

    cdef object read_column(self, object keys):
        if isinstance(keys, Column):
            if keys.kind != self.spec:
                raise SchemaError(f"expected {self.spec} keys, given a column of {keys.kind}")
            return self.checked(keys)
        if isinstance(keys, (list, tuple)):
            return Column.from_values(keys, self.spec)
        array = read_array(keys, self.spec)
        if array.dtype.kind in "OT":        # T: numpy's StringDType
            return Column.from_values(array.tolist(), self.spec)
        return self.column_of(array)

    cdef object checked(self, object column):
        return column

    cdef object column_of(self, object array):
        raise NotImplementedError

    def decode_array(self, EncodedKeys encoded not None):
        check_form(self, encoded)
        return Column(encoded.offsets, encoded.data, self.spec)


cdef class StrCodec(TextCodec):
    """`str` as UTF-8, whose byte order is the order of code points."""

    def __cinit__(self):
        self.spec = "str"

    cdef bytes encode(self, object key):
        cdef bytes encoded
        if not PyUnicode_Check(key):
            raise wrong_type(key, self.spec)
        try:
            encoded = PyUnicode_AsUTF8String(key)
        except UnicodeEncodeError:
            raise SchemaError(f"{key!r:.80} has a lone surrogate, which is not UTF-8") from None
        if PyBytes_GET_SIZE(encoded) > KEY_BYTES_MAX:
            raise too_long(encoded)
        return encoded

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        try:
            return PyUnicode_DecodeUTF8(<const char *> data, length, NULL)
        except UnicodeDecodeError:
            raise corrupt(self.spec) from None

    cdef object checked(self, object column):
        cdef Py_ssize_t row = kernels.check_utf8(column.offsets, column.data)
        if row >= 0:
            raise SchemaError(f"row {row} of the column is not valid UTF-8")
        return column

    cdef object column_of(self, object array):
        if array.dtype.kind != "U":
            raise wrong_dtype(array, self.spec)
        width = array.dtype.itemsize // 4
        points = numpy.ascontiguousarray(array, array.dtype.newbyteorder("="))
        points = points.view(numpy.uint32) if width else numpy.zeros(0, numpy.uint32)
        offsets = numpy.zeros(len(array) + 1, numpy.int64)
        row = kernels.add_utf8_sizes(points, width, offsets[1:])
        if row >= 0:
            raise SchemaError(f"row {row}: text with a lone surrogate is not UTF-8")
        numpy.cumsum(offsets, out=offsets)
        data = numpy.empty(offsets[-1], numpy.uint8)
        kernels.put_utf8(points, width, offsets, data)
        return Column(offsets, data, "str")


cdef class BytesCodec(TextCodec):
    """`bytes`, bytearray and memoryview; in arrays 'S' (padding stripped), 'V' (whole)."""

    def __cinit__(self):
        self.spec = "bytes"

    cdef bytes encode(self, object key):
        cdef bytes encoded = bytes_of(key, self.spec)
        if PyBytes_GET_SIZE(encoded) > KEY_BYTES_MAX:
            raise too_long(encoded)
        return encoded

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        return PyBytes_FromStringAndSize(<const char *> data, length)

    cdef object column_of(self, object array):
        dtype = array.dtype
        if dtype.kind not in "SV" or dtype.names is not None or dtype.itemsize == 0:
            raise wrong_dtype(array, self.spec)
        raw = numpy.ascontiguousarray(array).view(numpy.uint8).reshape(len(array), dtype.itemsize)
        offsets = numpy.zeros(len(array) + 1, numpy.int64)
        if dtype.kind == "V":
            offsets[1:] = dtype.itemsize
        else:
            offsets[1:] = numpy.char.str_len(array)
            raw = raw[numpy.arange(dtype.itemsize) < offsets[1:, None]]
        numpy.cumsum(offsets, out=offsets)
        return Column(offsets, raw.reshape(-1), "bytes")


cdef object too_long(bytes encoded):
    return LimitError(f"a key of {len(encoded)} encoded bytes: at most {KEY_BYTES_MAX} fit")


cdef class UserCodec(KeyCodec):
    """A user's pair of functions, to order-keeping bytes and back; `keys.Codec` carries them."""

    cdef readonly object codec

    def __init__(self, codec):
        self.codec = codec
        self.spec = {"codec": codec.name}

    cdef bytes encode(self, object key):
        encoded = self.codec.encode(key)
        if not isinstance(encoded, bytes):
            raise SchemaError(f"the key codec {self.codec.name!r} must encode to bytes, "
                              f"it gave {type(encoded).__name__}")
        if PyBytes_GET_SIZE(encoded) > KEY_BYTES_MAX:
            raise too_long(encoded)
        return bytes_of(encoded, self.spec)

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        return self.codec.decode(PyBytes_FromStringAndSize(<const char *> data, length))

    def encode_array(self, keys, bint lookup=False):
        if not isinstance(keys, (list, tuple)):
            keys = read_array(keys, self.codec.name).tolist()
        column = Column.from_values([self.encode(key) for key in keys], "bytes")
        return EncodedKeys(len(keys), offsets=column.offsets, data=column.data)

    def decode_array(self, EncodedKeys encoded not None):
        check_form(self, encoded)
        keys = numpy.empty(encoded.count, numpy.object_)
        for row, raw in enumerate(Column(encoded.offsets, encoded.data, "bytes")):
            keys[row] = self.codec.decode(raw)
        return keys
