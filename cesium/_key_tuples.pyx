# cython: auto_pickle=False, wraparound=True
"""Codecs of tuple keys: parts one after another, each its own bytes, a descending one complemented.

A part is `part_width` bytes, or escaped and terminated (00 becomes 00 FF, the end is 00 00), so
encodings order as tuples do and a partial tuple encodes to a prefix of all its extensions: bounds
and prefixes are cuts of that prefix.  Tuples of at most 8 bytes in all take the fixed form.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.tuple cimport PyTuple_CheckExact
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

import numpy

from cesium import _key_arrays as kernels
from cesium._key_arrays cimport get_head, put_head, top_bytes
from cesium._keys cimport (
    KEY_ABOVE, KEY_BELOW, KEY_BETWEEN, KEY_BYTES_MAX, KEY_INSIDE, EncodedKeys, KeyCodec,
    check_form, check_lengths, head_of_prefix, read_array, successor,
)
from cesium.errors import CorruptionError, LimitError, SchemaError

__all__ = ["TupleCodec"]

cdef enum:
    PARTS_MAX = 32
    LOCAL_BYTES = 256


cdef struct Writer:
    uint8_t *data           # `local`, or from malloc once that is full
    Py_ssize_t size
    Py_ssize_t capacity
    uint8_t local[LOCAL_BYTES]


cdef inline void start(Writer *writer) noexcept nogil:
    writer.data = writer.local
    writer.size = 0
    writer.capacity = LOCAL_BYTES


cdef inline void finish(Writer *writer) noexcept nogil:
    if writer.data != writer.local:
        free(writer.data)


cdef int reserve(Writer *writer, Py_ssize_t more) except -1:
    cdef Py_ssize_t capacity = 2 * (writer.size + more)
    cdef uint8_t *data
    if writer.size + more <= writer.capacity:
        return 0
    if writer.data == writer.local:
        data = <uint8_t *> malloc(capacity)
        if data != NULL:
            memcpy(data, writer.local, writer.size)
    else:
        data = <uint8_t *> realloc(writer.data, capacity)
    if data == NULL:
        raise MemoryError()
    writer.data = data
    writer.capacity = capacity
    return 0


cdef int append(Writer *writer, bytes raw, bint escaped, bint terminated, uint8_t flip) except -1:
    cdef const uint8_t *source = <const uint8_t *> PyBytes_AS_STRING(raw)
    cdef Py_ssize_t index, length = PyBytes_GET_SIZE(raw)
    cdef uint8_t *target
    reserve(writer, 2 * length + 2)
    target = writer.data + writer.size
    for index in range(length):
        target[0] = source[index] ^ flip
        target += 1
        if escaped and source[index] == 0:
            target[0] = <uint8_t> 0xFF ^ flip
            target += 1
    if terminated:
        target[0] = flip
        target[1] = flip
        target += 2
    writer.size = target - writer.data
    return 0


cdef class TupleCodec(KeyCodec):
    """Tuples of the keys of `parts`; those marked in `descending` sort from high to low."""

    cdef tuple parts
    cdef Py_ssize_t count
    cdef bint down[PARTS_MAX]
    cdef uint32_t shifts[PARTS_MAX]     # fixed form: where in the head each part begins, in bits

    def __init__(self, parts, descending):
        if not 0 < len(parts) <= PARTS_MAX:
            raise SchemaError(f"a tuple key has 1 to {PARTS_MAX} parts, given {len(parts)}")
        self.parts = tuple(parts)
        self.count = len(parts)
        spec = []
        total = 0
        cdef Py_ssize_t index
        cdef KeyCodec part
        for index in range(self.count):
            part = self.parts[index]
            self.down[index] = descending[index]
            self.shifts[index] = min(8 * total, 64)
            total += part.part_width or 9       # an escaped part makes it the variable form
            spec.append("-" + part.spec if self.down[index] else part.spec)
        self.width = total if total <= 8 else 0
        self.spec = spec

    cdef inline KeyCodec part(self, Py_ssize_t index):
        return <KeyCodec> self.parts[index]

    cdef tuple check(self, object key, bint whole):
        """`key` as a tuple of the right length; a partial one is shorter."""
        cdef tuple values
        if PyTuple_CheckExact(key):
            values = <tuple> key
        elif isinstance(key, (tuple, numpy.void)):
            values = tuple(key)
        else:
            raise SchemaError(f"expected a tuple key {self.spec}, "
                              f"given {type(key).__name__}: {repr(key)[:80]}")
        if len(values) > self.count or whole and len(values) != self.count:
            wanted = self.count if whole else f"at most {self.count}"
            raise SchemaError(f"expected a tuple of {wanted} parts {self.spec}, "
                              f"given {len(values)}: {repr(key)[:80]}")
        return values

    cdef int write(self, Writer *writer, tuple values) except -1:
        """Append the parts of `values` until one is not KEY_INSIDE; returns the last status."""
        cdef Py_ssize_t index
        cdef int status
        for index in range(len(values)):
            status = self.write_part(writer, index, values[index])
            if status:
                return status
        return KEY_INSIDE

    cdef int write_part(self, Writer *writer, Py_ssize_t index, object value) except -1:
        """Append one part; below and above the domain nothing, between two keys the lower."""
        cdef KeyCodec part = self.part(index)
        cdef bint down = self.down[index]
        cdef int status
        cdef uint64_t head
        cdef bytes raw
        if part.width:
            status = part.encode_head(value, &head)
            if status == KEY_BELOW or status == KEY_ABOVE:
                return status
            reserve(writer, 8)
            put_head(writer.data + writer.size, ~head if down else head, part.width)
            writer.size += part.width
            return status
        raw = part.locate(value, &status)
        append(writer, raw, part.part_width == 0, part.part_width == 0, 0xFF if down else 0)
        return status

    cdef bytes pack(self, object key, int *status):
        cdef Writer writer
        cdef bytes encoded
        start(&writer)
        try:
            status[0] = self.write(&writer, self.check(key, True))
            encoded = PyBytes_FromStringAndSize(<char *> writer.data, writer.size)
        finally:
            finish(&writer)
        if PyBytes_GET_SIZE(encoded) > KEY_BYTES_MAX:
            raise LimitError(
                f"a key of {len(encoded)} encoded bytes: at most {KEY_BYTES_MAX} fit")
        return encoded

    cdef bytes encode(self, object key):
        cdef int status
        cdef bytes encoded = self.pack(key, &status)
        if status:
            raise self.domain_error(key)
        return encoded

    cdef bytes encode_lookup(self, object key):
        cdef int status
        cdef bytes encoded = self.pack(key, &status)
        return None if status else encoded

    cdef int encode_head(self, object key, uint64_t *head) except -1:
        cdef tuple values = self.check(key, True)
        cdef Py_ssize_t index
        cdef KeyCodec part
        cdef uint64_t part_head, whole = 0
        cdef int status
        for index in range(self.count):
            part = self.part(index)
            status = part.encode_head(values[index], &part_head)
            if status:
                return status       # no key equals it; bounds go through `cut`
            if self.down[index]:
                part_head ^= top_bytes(part.width)
            whole |= part_head >> self.shifts[index]
        head[0] = whole
        return KEY_INSIDE

    cdef object decode_head(self, uint64_t head):
        cdef Py_ssize_t index
        cdef KeyCodec part
        cdef uint64_t part_head
        keys = []
        for index in range(self.count):
            part = self.part(index)
            part_head = head << self.shifts[index]
            if self.down[index]:
                part_head = ~part_head
            keys.append(part.decode_head(part_head & top_bytes(part.width)))
        return tuple(keys)

    cdef object decode(self, const uint8_t *data, Py_ssize_t length):
        cdef Py_ssize_t index, place = 0
        cdef KeyCodec part
        cdef uint64_t head
        cdef bytes raw
        keys = []
        for index in range(self.count):
            part = self.part(index)
            if part.width:
                if length - place < part.width:
                    raise self.malformed()
                head = get_head(data + place, part.width)
                if self.down[index]:
                    head ^= top_bytes(part.width)
                keys.append(part.decode_head(head))
                place += part.width
                continue
            raw, place = self.read_part(index, data, place, length)
            keys.append(part.decode(<const uint8_t *> PyBytes_AS_STRING(raw),
                                    PyBytes_GET_SIZE(raw)))
        if place != length:
            raise self.malformed()
        return tuple(keys)

    cdef tuple read_part(self, Py_ssize_t index, const uint8_t *data, Py_ssize_t place,
                         Py_ssize_t length):
        """(the plain bytes of a wide or escaped part, the place past it)."""
        cdef uint8_t flip = 0xFF if self.down[index] else 0
        cdef Py_ssize_t end = place, size = 0, width = self.part(index).part_width
        cdef bytes raw
        cdef uint8_t *target
        if width:
            size = width
            if length - place < width:
                raise self.malformed()
        else:
            while True:
                if length - end < 2 and (end >= length or data[end] == flip):
                    raise self.malformed()
                if data[end] == flip:
                    if data[end + 1] == flip:
                        break
                    if data[end + 1] != 0xFF - flip:
                        raise self.malformed()
                    end += 1
                end += 1
                size += 1
        raw = PyBytes_FromStringAndSize(NULL, size)
        target = <uint8_t *> PyBytes_AS_STRING(raw)
        for index in range(size):
            target[index] = data[place] ^ flip
            place += 1
            if not width and target[index] == 0:
                place += 1
        return raw, place if width else place + 2

    cdef object malformed(self):
        return CorruptionError(f"an encoded {self.spec} key is malformed")

    # Bounds

    cdef object bound(self, bytes prefix):
        return head_of_prefix(prefix) if self.width else prefix

    cdef object cut(self, object key, bint after):
        cdef tuple values = self.check(key, False)
        cdef Writer writer
        cdef Py_ssize_t index
        cdef int status
        cdef bytes prefix
        start(&writer)
        try:
            for index in range(len(values)):
                status = self.write_part(&writer, index, values[index])
                if status:      # decided here: what follows in the tuple no longer matters
                    after = (status == KEY_BELOW) == self.down[index]
                    break
            prefix = PyBytes_FromStringAndSize(<char *> writer.data, writer.size)
        finally:
            finish(&writer)
        return self.bound(successor(prefix) if after else prefix)

    def prefix_bounds(self, prefix, bint partial=False):
        """As declared; with `partial` the last part is a leading piece of a str or bytes."""
        cdef tuple values = self.check(prefix, False)
        cdef Writer writer
        cdef int status
        cdef bytes encoded
        partial = partial and len(values) > 0
        start(&writer)
        try:
            status = self.write(&writer, values[:-1] if partial else values)
            if status == KEY_INSIDE and partial:
                status = self.write_piece(&writer, len(values) - 1, values[-1])
            encoded = PyBytes_FromStringAndSize(<char *> writer.data, writer.size)
        finally:
            finish(&writer)
        if status:
            return None, None
        return self.bound(encoded), self.bound(successor(encoded))

    cdef int write_piece(self, Writer *writer, Py_ssize_t index, object value) except -1:
        """Append the leading piece of a string part: escaped, not terminated."""
        cdef KeyCodec part = self.part(index)
        cdef bytes raw
        if part.spec != "str" and part.spec != "bytes" and not str(part.spec).startswith("S"):
            raise SchemaError(f"a partial prefix ends in a piece of str or bytes, "
                              f"part {index} is {part.spec}")
        if part.part_width == 0:
            append(writer, part.encode(value), True, False, 0xFF if self.down[index] else 0)
            return KEY_INSIDE
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise SchemaError(f"expected a piece of {part.spec}, given {type(value).__name__}")
        raw = bytes(value)
        append(writer, raw[:part.part_width], False, False, 0xFF if self.down[index] else 0)
        return KEY_BETWEEN if raw[part.part_width:].strip(b"\0") else KEY_INSIDE

    # Arrays

    cdef list columns(self, object keys):
        """The keys as one array or list a part: a tuple holds columns, a list holds rows."""
        if isinstance(keys, tuple):
            if len(keys) != self.count:
                raise SchemaError(f"expected a tuple of {self.count} arrays {self.spec}, "
                                  f"given {len(keys)}")
            return list(keys)
        if not isinstance(keys, list):
            array = read_array(keys, self.spec)
            if array.dtype.names is not None:
                if len(array.dtype.names) != self.count:
                    raise SchemaError(f"expected {self.count} fields {self.spec}, "
                                      f"given dtype {array.dtype}")
                return [array[name] for name in array.dtype.names]
            if array.dtype.kind != "O":
                raise SchemaError(f"expected a tuple of {self.count} arrays {self.spec}, "
                                  f"given one array of {array.dtype}")
            keys = array.tolist()
        columns = list(zip(*[self.check(key, True) for key in keys], strict=True))
        return [list(column) for column in columns] or [[] for _ in range(self.count)]

    def encode_array(self, keys, bint lookup=False):
        """Encode a tuple of arrays (one a part), a structured array or a list of tuples."""
        cdef EncodedKeys part
        cdef Py_ssize_t index
        encoded = []
        outside = None
        for index, column in enumerate(self.columns(keys)):
            try:
                part = (<KeyCodec> self.parts[index]).encode_array(column, lookup)
            except SchemaError as error:
                raise SchemaError(f"part {index} of the key: {error}") from None
            if encoded and part.count != encoded[0].count:
                raise SchemaError(f"the parts of the keys differ in length: "
                                  f"{encoded[0].count} and {part.count}")
            if part.outside is not None:
                outside = part.outside if outside is None else outside | part.outside
            encoded.append(part)
        if self.width:
            return EncodedKeys(encoded[0].count, self.join_heads(encoded), outside=outside)
        offsets, data = self.join(encoded)
        return EncodedKeys(encoded[0].count, offsets=offsets, data=data, outside=outside)

    cdef object join_heads(self, list encoded):
        cdef Py_ssize_t index
        cdef KeyCodec codec
        heads = numpy.zeros(encoded[0].count, numpy.uint64)
        for index in range(self.count):
            codec = self.part(index)
            part = encoded[index].heads
            if self.down[index]:
                part = part ^ numpy.uint64(top_bytes(codec.width))
            heads |= part >> numpy.uint64(self.shifts[index])
        return heads

    cdef tuple join(self, list encoded):
        """(offsets, data) of whole keys: sizes first, then part by part at moving positions."""
        cdef Py_ssize_t index, count = encoded[0].count
        cdef EncodedKeys part
        offsets = numpy.zeros(count + 1, numpy.int64)
        sizes = offsets[1:]
        sizes += sum([(<KeyCodec> codec).part_width for codec in self.parts])
        for index in range(self.count):
            part = encoded[index]
            if self.part(index).part_width == 0:
                kernels.add_escaped_sizes(part.offsets, part.data, sizes)
        numpy.cumsum(sizes, out=sizes)
        check_lengths(offsets)
        data = numpy.empty(offsets[count], numpy.uint8)
        positions = offsets[:count].copy()
        for index in range(self.count):
            part = encoded[index]
            width = self.part(index).part_width
            if part.heads is not None:
                kernels.put_heads(part.heads, width, self.down[index], positions, data)
            elif width:
                kernels.put_blocks(part.data, width, self.down[index], positions, data)
            else:
                kernels.put_escaped(part.offsets, part.data, self.down[index], positions, data)
        return offsets, data

    def decode_array(self, EncodedKeys encoded not None):
        cdef Py_ssize_t index
        check_form(self, encoded)
        if self.width:
            parts = [self.split_heads(index, encoded) for index in range(self.count)]
        else:
            positions = encoded.offsets[:encoded.count].copy()
            parts = [self.split(index, encoded, positions) for index in range(self.count)]
            if not numpy.array_equal(positions, encoded.offsets[1:]):
                raise self.malformed()
        return tuple([(<KeyCodec> self.parts[index]).decode_array(parts[index])
                      for index in range(self.count)])

    cdef EncodedKeys split_heads(self, Py_ssize_t index, EncodedKeys encoded):
        cdef uint64_t mask = top_bytes(self.part(index).width)
        heads = encoded.heads << numpy.uint64(self.shifts[index])
        if self.down[index]:
            heads = ~heads
        heads &= numpy.uint64(mask)
        return EncodedKeys(encoded.count, heads)

    cdef EncodedKeys split(self, Py_ssize_t index, EncodedKeys encoded, object positions):
        """The encodings of one part, read at `positions`, which move past it."""
        cdef Py_ssize_t count = encoded.count, width = self.part(index).part_width
        cdef bint down = self.down[index]
        ends = encoded.offsets[1:]
        offsets = None
        if self.part(index).width:
            heads = numpy.empty(count, numpy.uint64)
            if kernels.take_heads(encoded.data, ends, width, down, positions, heads) >= 0:
                raise self.malformed()
            return EncodedKeys(count, heads)
        if width:
            data = numpy.empty(count * width, numpy.uint8)
            if kernels.take_blocks(encoded.data, ends, width, down, positions, data) >= 0:
                raise self.malformed()
            return EncodedKeys(count, offsets=numpy.arange(count + 1) * width, data=data)
        offsets = numpy.zeros(count + 1, numpy.int64)
        if kernels.unescaped_sizes(encoded.data, ends, down, positions, offsets[1:]) >= 0:
            raise self.malformed()
        numpy.cumsum(offsets, out=offsets)
        data = numpy.empty(offsets[count], numpy.uint8)
        kernels.take_escaped(encoded.data, down, positions, offsets, data)
        return EncodedKeys(count, offsets=offsets, data=data)
