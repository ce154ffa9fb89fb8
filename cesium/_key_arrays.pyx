"""The array kernels of the key codecs: one pass over contiguous arrays, GIL released.

Owns nothing: every function reads arrays and fills arrays that its caller made, of lengths that
its caller vouches for (these are private to `_keys`).  Safe from any thread.

A batch of variable-length keys is built part by part: sizes are summed, offsets made of them, and
each part is then written at `positions`, which moves on past it; reading back goes the same way.
What reads encoded bytes never trusts them: it stops at the end of each row and returns the number
of the first row that is malformed, or -1.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cesium._key_arrays cimport float_bits, float_head, get_head, put_head, top_bytes


def heads_of_floats(const uint8_t[::1] raw, uint32_t width, uint64_t[::1] heads):
    """Fill `heads` from native IEEE floats of `width` bytes, given as their raw bytes."""
    cdef Py_ssize_t row, count = heads.shape[0]
    cdef const uint8_t *source = &raw[0] if count else NULL
    with nogil:
        if width == 8:
            for row in range(count):
                heads[row] = float_head((<const uint64_t *> source)[row], 8)
        elif width == 4:
            for row in range(count):
                heads[row] = float_head((<const uint32_t *> source)[row], 4)
        else:
            for row in range(count):
                heads[row] = float_head((<const uint16_t *> source)[row], 2)


def floats_of_heads(const uint64_t[::1] heads, uint32_t width, uint8_t[::1] raw):
    """Fill `raw` with native IEEE floats of `width` bytes."""
    cdef Py_ssize_t row, count = heads.shape[0]
    cdef uint8_t *target = &raw[0] if count else NULL
    with nogil:
        if width == 8:
            for row in range(count):
                (<uint64_t *> target)[row] = float_bits(heads[row], 8)
        elif width == 4:
            for row in range(count):
                (<uint32_t *> target)[row] = <uint32_t> float_bits(heads[row], 4)
        else:
            for row in range(count):
                (<uint16_t *> target)[row] = <uint16_t> float_bits(heads[row], 2)


# Parts of one width

def put_heads(const uint64_t[::1] heads, uint32_t width, bint descending,
              int64_t[::1] positions, uint8_t[::1] data):
    """Write the first `width` bytes of each head at its row's position."""
    cdef Py_ssize_t row, count = heads.shape[0]
    cdef uint64_t flip = <uint64_t> -1 if descending else 0
    cdef uint8_t *target = &data[0] if count else NULL
    with nogil:
        if width == 8:      # the constant lets the compiler drop the switch from the loop
            for row in range(count):
                put_head(target + positions[row], heads[row] ^ flip, 8)
                positions[row] += 8
        else:
            for row in range(count):
                put_head(target + positions[row], heads[row] ^ flip, width)
                positions[row] += width


cpdef Py_ssize_t take_heads(const uint8_t[::1] data, const int64_t[::1] ends, uint32_t width,
                            bint descending, int64_t[::1] positions, uint64_t[::1] heads) except -2:
    """Read what `put_heads` wrote; returns the first row that is too short, or -1."""
    cdef Py_ssize_t row, count = heads.shape[0]
    cdef uint64_t flip = top_bytes(width) if descending else 0
    cdef const uint8_t *source = &data[0] if data.shape[0] else NULL
    with nogil:
        for row in range(count):
            if ends[row] - positions[row] < width:
                return row
            heads[row] = get_head(source + positions[row], width) ^ flip
            positions[row] += width
    return -1


def put_blocks(const uint8_t[::1] blocks, Py_ssize_t width, bint descending,
               int64_t[::1] positions, uint8_t[::1] data):
    """Write row `i` of `blocks` (rows of `width` bytes each, any width) at its position."""
    cdef Py_ssize_t row, index, count = positions.shape[0]
    cdef uint8_t *target
    cdef const uint8_t *source
    with nogil:
        for row in range(count):
            target = &data[positions[row]]
            source = &blocks[row * width]
            if descending:
                for index in range(width):
                    target[index] = ~source[index]
            else:
                memcpy(target, source, width)
            positions[row] += width


cpdef Py_ssize_t take_blocks(const uint8_t[::1] data, const int64_t[::1] ends, Py_ssize_t width,
                bint descending, int64_t[::1] positions, uint8_t[::1] blocks) except -2:
    """Read what `put_blocks` wrote; returns the first row that is too short, or -1."""
    cdef Py_ssize_t row, index, count = positions.shape[0]
    cdef uint8_t *target
    cdef const uint8_t *source
    with nogil:
        for row in range(count):
            if ends[row] - positions[row] < width:
                return row
            target = &blocks[row * width]
            source = &data[positions[row]]
            if descending:
                for index in range(width):
                    target[index] = ~source[index]
            else:
                memcpy(target, source, width)
            positions[row] += width
    return -1


# Escaped parts: 00 becomes 00 FF, the end is 00 00, a descending part complements every byte

def add_escaped_sizes(const int64_t[::1] offsets, const uint8_t[::1] data, int64_t[::1] sizes):
    """Add to each row's size the bytes of its escaped part."""
    cdef Py_ssize_t row, index, count = sizes.shape[0]
    cdef int64_t zeros
    with nogil:
        for row in range(count):
            zeros = 0
            for index in range(offsets[row], offsets[row + 1]):
                zeros += data[index] == 0
            sizes[row] += offsets[row + 1] - offsets[row] + zeros + 2


def put_escaped(const int64_t[::1] offsets, const uint8_t[::1] source, bint descending,
                int64_t[::1] positions, uint8_t[::1] data):
    """Write each row of `source` escaped and terminated at its position."""
    cdef Py_ssize_t row, index, count = positions.shape[0]
    cdef uint8_t flip = 0xFF if descending else 0
    cdef uint8_t *target
    with nogil:
        for row in range(count):
            target = &data[positions[row]]
            for index in range(offsets[row], offsets[row + 1]):
                target[0] = source[index] ^ flip
                target += 1
                if source[index] == 0:
                    target[0] = <uint8_t> 0xFF ^ flip
                    target += 1
            target[0] = flip
            target[1] = flip
            positions[row] = target + 2 - &data[0]


cpdef Py_ssize_t unescaped_sizes(const uint8_t[::1] data, const int64_t[::1] ends, bint descending,
                    const int64_t[::1] positions, int64_t[::1] sizes) except -2:
    """Fill `sizes` with the lengths of the escaped parts at `positions`; returns the first row
    whose part is not terminated, or -1."""
    cdef Py_ssize_t row, count = sizes.shape[0]
    cdef int64_t position, size
    cdef uint8_t zero = 0xFF if descending else 0
    cdef uint8_t escape = 0 if descending else 0xFF
    with nogil:
        for row in range(count):
            position = positions[row]
            size = 0
            while True:
                if position >= ends[row]:
                    return row
                if data[position] == zero:
                    if position + 1 >= ends[row]:
                        return row
                    if data[position + 1] == zero:
                        break
                    if data[position + 1] != escape:
                        return row
                    position += 1
                position += 1
                size += 1
            sizes[row] = size
    return -1


def take_escaped(const uint8_t[::1] data, bint descending, int64_t[::1] positions,
                 const int64_t[::1] offsets, uint8_t[::1] target):
    """Read the parts that `unescaped_sizes` measured."""
    cdef Py_ssize_t row, index, count = positions.shape[0]
    cdef int64_t position
    cdef uint8_t flip = 0xFF if descending else 0
    with nogil:
        for row in range(count):
            position = positions[row]
            for index in range(offsets[row], offsets[row + 1]):
                target[index] = data[position] ^ flip
                position += 1 + (target[index] == 0)
            positions[row] = position + 2


# Text

cpdef Py_ssize_t add_utf8_sizes(const uint32_t[::1] points, Py_ssize_t width,
                                int64_t[::1] sizes) except -2:
    """Add the UTF-8 length of each row of `width` UCS-4 code points, NUL padding aside; returns
    the first row with a lone surrogate or no code point, or -1."""
    cdef Py_ssize_t row, index, used, count = sizes.shape[0]
    cdef uint32_t point
    with nogil:
        for row in range(count):
            used = width
            while used > 0 and points[row * width + used - 1] == 0:
                used -= 1
            for index in range(row * width, row * width + used):
                point = points[index]
                if point > 0x10FFFF or 0xD800 <= point < 0xE000:
                    return row
                sizes[row] += 1 + (point >= 0x80) + (point >= 0x800) + (point >= 0x10000)
    return -1


def put_utf8(const uint32_t[::1] points, Py_ssize_t width, const int64_t[::1] offsets,
             uint8_t[::1] data):
    """Write the rows that `add_utf8_sizes` measured."""
    cdef Py_ssize_t row, index, count = offsets.shape[0] - 1
    cdef int64_t position
    cdef uint32_t point
    with nogil:
        for row in range(count):
            position = offsets[row]
            index = row * width
            while position < offsets[row + 1]:
                point = points[index]
                index += 1
                if point < 0x80:
                    data[position] = <uint8_t> point
                    position += 1
                    continue
                if point < 0x800:
                    data[position] = <uint8_t> (0xC0 | point >> 6)
                    position += 1
                else:
                    if point < 0x10000:
                        data[position] = <uint8_t> (0xE0 | point >> 12)
                        position += 1
                    else:
                        data[position] = <uint8_t> (0xF0 | point >> 18)
                        data[position + 1] = <uint8_t> (0x80 | point >> 12 & 0x3F)
                        position += 2
                    data[position] = <uint8_t> (0x80 | point >> 6 & 0x3F)
                    position += 1
                data[position] = <uint8_t> (0x80 | point & 0x3F)
                position += 1


cdef inline Py_ssize_t utf8_step(const uint8_t *text, Py_ssize_t length) noexcept nogil:
    """The bytes of the one well-formed code point that `text` begins with, or 0."""
    cdef uint8_t lead = text[0]
    cdef uint8_t least = 0x80, most = 0xBF      # of the second byte: no overlong form, no surrogate
    cdef Py_ssize_t size, index
    if lead < 0x80:
        return 1
    if lead < 0xC2 or lead > 0xF4:
        return 0
    size = 2 + (lead >= 0xE0) + (lead >= 0xF0)
    if lead == 0xE0:
        least = 0xA0
    elif lead == 0xED:
        most = 0x9F
    elif lead == 0xF0:
        least = 0x90
    elif lead == 0xF4:
        most = 0x8F
    if length < size or not least <= text[1] <= most:
        return 0
    for index in range(2, size):
        if text[index] & 0xC0 != 0x80:
            return 0
    return size


cpdef Py_ssize_t check_utf8(const int64_t[::1] offsets, const uint8_t[::1] data) except -2:
    """The first row that is not valid UTF-8 by itself, or -1."""
    cdef Py_ssize_t row, count = offsets.shape[0] - 1
    cdef int64_t position, end
    cdef Py_ssize_t step
    cdef uint64_t eight
    with nogil:
        for row in range(count):
            position, end = offsets[row], offsets[row + 1]
            while position < end:
                if end - position >= 8:     # eight ASCII bytes at a time
                    memcpy(&eight, &data[position], 8)
                    if eight & <uint64_t> 0x8080808080808080 == 0:
                        position += 8
                        continue
                step = utf8_step(&data[position], end - position)
                if step == 0:
                    return row
                position += step
    return -1
