"""Key codecs: order-preserving encodings of keys, one at a time and by the array.

A codec belongs to one table and never changes after construction, so any thread may use it; every
method needs the GIL (the array kernels release it inside).

Invariants:
1. For any two keys, the order of the encodings (unsigned heads, or plain byte strings) is the
   order of the keys, and equal keys have one encoding (-0.0 is 0.0, every NaN is one NaN).
2. Fixed form (`width` 1..8): a key is its head, the encoded bytes as a big-endian integer,
   left-aligned in 64 bits.  Variable form (`width` 0): a byte string of at most 65,536 bytes.
3. As a part of a tuple a key is either `part_width` bytes, or (0) escaped and terminated, so no
   encoded tuple is a prefix of another and a partial tuple is a prefix of all its extensions.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef enum:
    KEY_INSIDE = 0      # the key is in the domain, the head is its own
    KEY_BELOW = 1       # below every key of the domain
    KEY_ABOVE = 2       # above every key of the domain
    KEY_BETWEEN = 3     # between two keys: the head is of the lower one (0.1 as a float32)
    KEY_BYTES_MAX = 65536


cdef class EncodedKeys:
    cdef readonly Py_ssize_t count
    cdef readonly object heads      # uint64[count], C-contiguous, fixed form; else None
    cdef readonly object offsets    # int64[count + 1] from 0, C-contiguous, variable form, or None
    cdef readonly object data       # uint8[offsets[count]], C-contiguous, variable form; else None
    cdef readonly object outside    # bool[count]: a lookup key that no key can equal; or None


cdef class KeyCodec:
    cdef readonly uint32_t width        # 1..8 fixed form; 0 variable form
    cdef readonly uint32_t part_width   # bytes as a part of a tuple; 0 when escaped and terminated
    cdef readonly object spec           # canonical and JSON-able: "u8", ["datetime64[ns]", "-i4"]

    # Fixed form: returns one of KEY_* above.  Whatever is not KEY_INSIDE finds nothing; writers
    # raise what `domain_error` returns.  SchemaError when the key's type does not belong.
    cdef int encode_head(self, object key, uint64_t *head) except -1
    cdef object decode_head(self, uint64_t head)

    # Variable form: SchemaError when the key does not fit, LimitError over 65,536 bytes.
    cdef bytes encode(self, object key)
    # The same for a lookup: None when no key can equal it, where `encode` raises SchemaError.
    cdef bytes encode_lookup(self, object key)
    # CorruptionError when the bytes are none that `encode` gives.
    cdef object decode(self, const uint8_t *data, Py_ssize_t length)

    # The SchemaError for a key outside the domain, to be raised by a writer.
    cpdef object domain_error(self, object key)

    # The encoded bytes of a single key and where it lies (KEY_*); for KEY_BETWEEN they are those
    # of the key below.  Not for tuples.
    cdef bytes locate(self, object key, int *status)

    # Where a range begins or ends beside `key`, just before it or just after it and all its
    # extensions: the smallest encoding past the cut (int head or bytes), None at the very end.
    cdef object cut(self, object key, bint after)


cdef class HeadCodec(KeyCodec):     # the base of the fixed form
    cdef object encode_rows(self, object keys, bint lookup)
    cdef tuple read_heads(self, object array)


cdef bytes successor(bytes prefix)          # the least byte string above all that begin so, or None
cdef object head_of_prefix(bytes prefix)    # the least head that begins so; None of None
cdef object read_array(object keys, object spec)
cdef object check_lengths(object offsets)   # LimitError when a row is longer than a key may be
cdef object wrong_type(object key, object spec)         # the errors to raise
cdef object wrong_dtype(object array, object spec)
cdef object corrupt(object spec)
cdef int check_form(KeyCodec codec, EncodedKeys encoded) except -1
