# cython: auto_pickle=False, wraparound=True
"""The base of all key codecs, and those of numbers: integers, bool and floats.

See `_keys.pxd` for the contract and the invariants; `_key_times` and `_key_texts` have the other
single keys, `_key_tuples` composes them, `keys.key_codec` makes them from a schema.  The point
operations of the engine call `encode_head` or `encode` once a key, so the exact Python types come
first there and cost a few nanoseconds.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_Clear
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

import numpy

from cesium import _key_arrays as kernels
from cesium._key_arrays cimport float_bits, float_head, put_head
from cesium.errors import CorruptionError, LimitError, SchemaError

cdef extern from "Python.h":
    int PyFloat_Pack2(double value, char *target, int little_endian) except -1
    double PyFloat_Unpack2(const char *source, int little_endian) except? -1.0
    unsigned long long read_unsigned "PyLong_AsUnsignedLongLong"(object value) noexcept
    PyObject *PyErr_Occurred()

__all__ = ["EncodedKeys", "FloatCodec", "IntegerCodec", "KeyCodec"]

# What the codecs share

cdef bytes successor(bytes prefix):
    """The least byte string above every one that begins with `prefix`; None when there is none."""
    cdef bytes stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


cdef object head_of_prefix(bytes prefix):
    return None if prefix is None else int.from_bytes(prefix.ljust(8, b"\0"), "big")


cdef object read_array(object keys, object spec):
    """`keys` as a 1-dimensional array; SchemaError when numpy cannot read it as one."""
    if isinstance(keys, (str, bytes, bytearray)):
        raise SchemaError(f"expected an array or list of {spec} keys, "
                          f"given a single {type(keys).__name__}")
    try:
        array = numpy.asarray(keys)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"expected an array of {spec} keys: {error}") from None
    if isinstance(keys, numpy.ma.MaskedArray) and keys.mask.any():
        raise SchemaError(f"expected an array of {spec} keys, given one with masked rows")
    if array.ndim != 1:
        raise SchemaError(f"expected a 1-dimensional array of {spec} keys, "
                          f"given {array.ndim} dimensions of {array.dtype} ({type(keys).__name__})")
    return array


cdef object check_lengths(object offsets):
    """LimitError when a row of `offsets` is longer than a key may be."""
    if len(offsets) > 1:
        longest = int((offsets[1:] - offsets[:-1]).max())
        if longest > KEY_BYTES_MAX:
            raise LimitError(f"a key of {longest} encoded bytes: at most {KEY_BYTES_MAX} fit")


cdef object wrong_type(object key, object spec):
    return SchemaError(f"expected a {spec} key, given {type(key).__name__}: {repr(key)[:80]}")


cdef object wrong_dtype(object array, object spec):
    return SchemaError(f"expected an array of {spec} keys, given dtype {array.dtype}")


cdef object corrupt(object spec):
    return CorruptionError(f"an encoded {spec} key is malformed")


cdef int check_form(KeyCodec codec, EncodedKeys encoded) except -1:
    """TypeError when a batch is not of the form that `codec` makes."""
    if codec.width:
        fits = encoded.heads is not None and len(encoded.heads) == encoded.count
    else:
        fits = (
            encoded.offsets is not None and len(encoded.offsets) == encoded.count + 1
            and encoded.offsets[0] == 0 and encoded.offsets[-1] == len(encoded.data)
        )
    if not fits:
        raise TypeError(f"not a batch of encoded {codec.spec} keys")
    return 0


cdef class EncodedKeys:
    """A batch of encoded keys: `heads` in the fixed form, `offsets` and `data` in the variable."""

    def __init__(self, Py_ssize_t count, heads=None, offsets=None, data=None, outside=None):
        self.count = count
        self.heads = heads
        self.offsets = offsets
        self.data = data
        self.outside = outside

    def __len__(self):
        return self.count


cdef class KeyCodec:
    """Encodes the keys of one table; made by `cesium.keys.key_codec`."""

    cdef int encode_head(self, object key, uint64_t *head) except -1:
        raise TypeError(f"{self.spec} keys have no fixed form")

    cdef object decode_head(self, uint64_t head):
        raise TypeError(f"{self.spec} keys have no fixed form")

    cdef bytes encode(self, object key):
        raise TypeError(f"{self.spec} keys have no variable form")

    cdef bytes encode_lookup(self, object key):
        return self.encode(key)

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        raise TypeError(f"{self.spec} keys have no variable form")

    cdef bytes locate(self, object key, int *status):
        status[0] = KEY_INSIDE
        return self.encode(key)

    cdef object cut(self, object key, bint after):
        cdef int status
        cdef bytes encoded = self.locate(key, &status)
        return encoded + b"\0" if after or status == KEY_BETWEEN else encoded

    cpdef object domain_error(self, object key):
        """The SchemaError for a key that is outside the domain of this codec."""
        return SchemaError(f"{repr(key)[:80]} does not fit a {self.spec} key")

    def encode_key(self, key):
        """The encoding of one key: an int head or bytes."""
        cdef uint64_t head
        if self.width == 0:
            return self.encode(key)
        if self.encode_head(key, &head):
            raise self.domain_error(key)
        return head

    def lookup_key(self, key):
        """As `encode_key`, but None for a key outside the domain, which no stored key equals."""
        cdef uint64_t head
        if self.width == 0:
            return self.encode_lookup(key)
        return None if self.encode_head(key, &head) else head

    def decode_key(self, encoded):
        """The key of one encoding: an int head or bytes."""
        if self.width:
            return self.decode_head(encoded)
        if not isinstance(encoded, bytes):
            raise TypeError(f"an encoded {self.spec} key is bytes, not {type(encoded).__name__}")
        return self.decode(<const uint8_t *> PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))

    def lower_bound(self, key, bint inclusive=True):
        """The smallest encoding of a range that begins at `key`; None when none can follow."""
        return self.cut(key, not inclusive)

    def upper_bound(self, key, bint inclusive=False):
        """The exclusive end of a range that ends at `key`; None when it is unbounded."""
        return self.cut(key, inclusive)

    def prefix_bounds(self, prefix, bint partial=False):
        """The half-open bounds of what begins with `prefix`: (lower, upper), as above."""
        raise SchemaError(f"a prefix needs str, bytes or tuple keys, these are {self.spec}")

    def encode_array(self, keys, bint lookup=False):
        """Encode a 1-dimensional array, list or column of keys.

        With `lookup`, keys that no key can equal are marked in `outside` instead of raising.
        """
        raise NotImplementedError

    def decode_array(self, EncodedKeys encoded not None):
        """The keys of a batch: an ndarray, a Column, or for tuples a tuple of those."""
        raise NotImplementedError


# Keys of a fixed width up to 8 bytes

cdef class HeadCodec(KeyCodec):
    """What the codecs of the fixed form share."""

    cdef bytes locate(self, object key, int *status):
        cdef uint8_t encoded[8]
        cdef uint64_t head = 0
        status[0] = self.encode_head(key, &head)
        put_head(encoded, head, self.width)
        return PyBytes_FromStringAndSize(<char *> encoded, self.width)

    cdef object cut(self, object key, bint after):
        cdef uint64_t head = 0
        cdef int status = self.encode_head(key, &head)
        if status == KEY_BELOW:
            return 0
        if status == KEY_ABOVE:
            return None
        if after or status == KEY_BETWEEN:
            head += (<uint64_t> 1) << (64 - 8 * self.width)
            return head if head else None
        return head

    def encode_array(self, keys, bint lookup=False):
        if isinstance(keys, (list, tuple)):
            return self.encode_rows(keys, lookup)
        array = read_array(keys, self.spec)
        if array.dtype.kind == "O":
            return self.encode_rows(array.tolist(), lookup)
        heads, outside = self.read_heads(array)
        if outside is not None and not outside.any():
            outside = None
        if outside is not None:
            if not lookup:
                key = array[outside.argmax()]
                raise self.domain_error(key.item() if array.dtype.kind in "iuf" else key)
            heads[outside] = 0
        return EncodedKeys(len(array), heads, outside=outside)

    cdef object encode_rows(self, object keys, bint lookup):
        """Row by row, for what is no array of numbers; faster than numpy reads a list."""
        cdef Py_ssize_t row = 0
        cdef Py_ssize_t count = len(keys)
        cdef int status
        heads = numpy.zeros(count, numpy.uint64)
        outside = None
        cdef uint64_t[::1] target = heads
        for row, key in enumerate(keys):
            status = self.encode_head(key, &target[row])
            if status:
                if not lookup:
                    raise self.domain_error(key)
                if outside is None:
                    outside = numpy.zeros(count, numpy.bool_)
                outside[row] = True
                target[row] = 0
        return EncodedKeys(count, heads, outside=outside)

    cdef tuple read_heads(self, object array):
        """(heads, bool array of the rows outside the domain or None) of a 1-dimensional array."""
        raise NotImplementedError


cdef class IntegerCodec(HeadCodec):
    """Integers of 1, 2, 4 or 8 bytes, and bool; `kind` is "i", "u" or "b"."""

    cdef readonly object lowest, highest
    cdef object dtype
    cdef int64_t low, high
    cdef uint64_t bias
    cdef uint32_t shift
    cdef bint whole, boolean     # whole: every 64-bit unsigned integer is a key

    def __init__(self, str kind, uint32_t width):
        self.width = self.part_width = width
        self.shift = 64 - 8 * width
        self.boolean = kind == "b"
        self.spec = "bool" if self.boolean else f"{kind}{width}"
        self.dtype = numpy.dtype(self.spec)
        bits = 1 if self.boolean else 8 * width
        self.lowest = -(1 << bits - 1) if kind == "i" else 0
        self.highest = (1 << bits - 1) - 1 if kind == "i" else (1 << bits) - 1
        self.whole = kind == "u" and width == 8
        self.low, self.high = self.lowest, min(self.highest, (1 << 63) - 1)
        self.bias = (<uint64_t> 1) << (8 * width - 1) if kind == "i" else 0

    cdef int encode_head(self, object key, uint64_t *head) except -1:
        cdef int overflow = 0
        cdef long long value
        if not PyLong_Check(key):
            key = self.integer_of(key)
        value = PyLong_AsLongLongAndOverflow(key, &overflow)
        if overflow == 0:
            if value < self.low:
                return KEY_BELOW
            if value > self.high:
                return KEY_ABOVE
            head[0] = (<uint64_t> value + self.bias) << self.shift
            return KEY_INSIDE
        if overflow < 0:
            return KEY_BELOW
        if not self.whole:
            return KEY_ABOVE
        head[0] = read_unsigned(key)
        if head[0] == <uint64_t> -1 and PyErr_Occurred() != NULL:
            PyErr_Clear()
            return KEY_ABOVE
        return KEY_INSIDE

    cdef object integer_of(self, object key):
        if isinstance(key, numpy.bool_):
            return int(key)
        try:
            return PyNumber_Index(key)
        except TypeError:
            raise wrong_type(key, self.spec) from None

    cdef object decode_head(self, uint64_t head):
        if self.boolean:
            return head != 0
        head = (head >> self.shift) - self.bias
        return <int64_t> head if self.bias else head

    cpdef object domain_error(self, object key):
        return SchemaError(f"{repr(key)[:80]} does not fit a {self.spec} key, "
                           f"which is from {self.lowest} to {self.highest}")

    cdef tuple read_heads(self, object array):
        source = array.dtype
        if source.kind not in "biu":
            raise wrong_dtype(array, self.spec)
        outside = None
        if source.kind != "b":
            limits = numpy.iinfo(source)
            if limits.min < self.lowest:
                outside = array < self.lowest
            if limits.max > self.highest:
                above = array > self.highest
                outside = above if outside is None else outside | above
        wide = numpy.uint64 if source.kind == "u" else numpy.int64
        heads = numpy.ascontiguousarray(array, wide).view(numpy.uint64)
        if self.bias:
            heads = heads + numpy.uint64(self.bias)
        if self.shift:
            heads = heads << numpy.uint64(self.shift)
        if outside is not None and numpy.may_share_memory(heads, array):
            heads = heads.copy()    # rows outside are cleared
        return heads, outside

    def decode_array(self, EncodedKeys encoded not None):
        check_form(self, encoded)
        values = encoded.heads
        if self.shift:
            values = values >> numpy.uint64(self.shift)
        if self.bias:
            values = values - numpy.uint64(self.bias)
        return values.astype(self.dtype, copy=False)


cdef class FloatCodec(HeadCodec):
    """Floats of 2, 4 or 8 bytes.  A value between two of them is no key: 0.1 is no float32."""

    cdef object dtype
    cdef object whole_limit      # integers up to this magnitude are exact

    def __init__(self, uint32_t width):
        self.width = self.part_width = width
        self.spec = f"f{width}"
        self.dtype = numpy.dtype(self.spec)
        self.whole_limit = 1 << numpy.finfo(self.dtype).nmant + 1

    cdef int encode_head(self, object key, uint64_t *head) except -1:
        cdef double value, nearest
        cdef bint exact = True
        if PyFloat_Check(key):
            value = PyFloat_AS_DOUBLE(key)
        else:
            value = self.nearest_double(key, &exact)
        nearest = self.narrow(value, head)
        if exact:
            if nearest == value or value != value:
                return KEY_INSIDE
            if nearest < value:
                return KEY_BETWEEN
        else:       # Python compares an int or a long double with a float exactly
            if nearest == key:
                return KEY_INSIDE
            if nearest < key:
                return KEY_BETWEEN
        head[0] -= (<uint64_t> 1) << (64 - 8 * self.width)
        return KEY_BETWEEN

    cdef double narrow(self, double value, uint64_t *head) except? -1.0:
        """The nearest float of this width, as a double, and its head."""
        cdef uint64_t bits = 0
        cdef uint32_t single_bits
        cdef uint16_t half_bits
        cdef float single
        if self.width == 8:
            memcpy(&bits, &value, 8)
            head[0] = float_head(bits, 8)
            return value
        if self.width == 4:
            single = <float> value
            memcpy(&single_bits, &single, 4)
            head[0] = float_head(single_bits, 4)
            return single
        try:
            PyFloat_Pack2(value, <char *> &half_bits, 1)
        except OverflowError:
            half_bits = 0xFC00 if value < 0 else 0x7C00
        head[0] = float_head(half_bits, 2)
        return PyFloat_Unpack2(<char *> &half_bits, 1)

    cdef double nearest_double(self, object key, bint *exact) except? -1.0:
        if isinstance(key, numpy.floating):
            exact[0] = not isinstance(key, numpy.longdouble)
            return float(key)
        if isinstance(key, numpy.bool_):
            return float(key)
        try:
            whole = PyNumber_Index(key)
        except TypeError:
            raise wrong_type(key, self.spec) from None
        exact[0] = -(1 << 53) <= whole <= 1 << 53
        try:
            return float(whole)
        except OverflowError:
            return INFINITY if whole > 0 else -INFINITY

    cdef object decode_head(self, uint64_t head):
        cdef uint64_t bits = float_bits(head, self.width)
        cdef uint32_t single_bits = <uint32_t> bits
        cdef uint16_t half_bits = <uint16_t> bits
        cdef float single
        cdef double value
        if self.width == 8:
            memcpy(&value, &bits, 8)
            return value
        if self.width == 4:
            memcpy(&single, &single_bits, 4)
            return single
        return PyFloat_Unpack2(<char *> &half_bits, 1)

    cpdef object domain_error(self, object key):
        return SchemaError(f"{repr(key)[:80]} is no {self.spec}: round it first")

    cdef tuple read_heads(self, object array):
        source = array.dtype
        if source.kind not in "fiub":
            raise wrong_dtype(array, self.spec)
        count = len(array)
        if source.kind in "iu" and count:
            if array.max() > self.whole_limit or array.min() < -self.whole_limit:
                found = <EncodedKeys> self.encode_rows(array.tolist(), True)
                return found.heads, found.outside
        outside = None
        with numpy.errstate(all="ignore"):
            values = numpy.ascontiguousarray(array, self.dtype)
            if source.kind == "f" and source.itemsize > self.width:
                outside = (values.astype(source) != array) & ~numpy.isnan(array)
        heads = numpy.empty(count, numpy.uint64)
        kernels.heads_of_floats(values.view(numpy.uint8), self.width, heads)
        return heads, outside

    def decode_array(self, EncodedKeys encoded not None):
        check_form(self, encoded)
        values = numpy.empty(encoded.count, self.dtype)
        kernels.floats_of_heads(encoded.heads, self.width, values.view(numpy.uint8))
        return values
