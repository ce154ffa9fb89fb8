"""The bytes of a key: big-endian stores and the order-keeping form of floats, shared by the scalar
codecs and the array kernels.  Pure functions, no GIL."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    static inline uint64_t cesium_key_big_endian(uint64_t value) {
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        return __builtin_bswap64(value);
    #else
        return value;
    #endif
    }

    /* Constant sizes become single stores; a memcpy of a variable size is a call. */
    static inline void cesium_key_put(uint8_t *target, uint64_t head, uint32_t width) {
        uint64_t bytes = cesium_key_big_endian(head);
        switch (width) {
            case 8: memcpy(target, &bytes, 8); break;
            case 4: memcpy(target, &bytes, 4); break;
            case 2: memcpy(target, &bytes, 2); break;
            case 1: memcpy(target, &bytes, 1); break;
            default: memcpy(target, &bytes, width & 7); break;
        }
    }

    static inline uint64_t cesium_key_get(const uint8_t *source, uint32_t width) {
        uint64_t bytes = 0;
        switch (width) {
            case 8: memcpy(&bytes, source, 8); break;
            case 4: memcpy(&bytes, source, 4); break;
            case 2: memcpy(&bytes, source, 2); break;
            case 1: memcpy(&bytes, source, 1); break;
            default: memcpy(&bytes, source, width & 7); break;
        }
        return cesium_key_big_endian(bytes);
    }
    """
    # The top `width` bytes (1..8) of a head, big-endian, to or from unaligned memory.
    void put_head "cesium_key_put"(uint8_t *target, uint64_t head, uint32_t width) noexcept nogil
    uint64_t get_head "cesium_key_get"(const uint8_t *source, uint32_t width) noexcept nogil


cdef inline uint64_t top_bytes(uint32_t width) noexcept nogil:
    """A mask of the first `width` bytes (1..8) of a head."""
    return (<uint64_t> -1) << (64 - 8 * width)


cdef inline uint64_t float_head(uint64_t bits, uint32_t width) noexcept nogil:
    """The head of an IEEE float of 2, 4 or 8 bytes: negatives complemented, one zero, one NaN."""
    cdef uint64_t sign = (<uint64_t> 1) << (8 * width - 1)
    cdef uint64_t infinity, quiet
    cdef uint64_t magnitude = bits & (sign - 1)
    if width == 8:
        infinity, quiet = <uint64_t> 0x7FF0000000000000, <uint64_t> 0x7FF8000000000000
    elif width == 4:
        infinity, quiet = <uint64_t> 0x7F800000, <uint64_t> 0x7FC00000
    else:
        infinity, quiet = <uint64_t> 0x7C00, <uint64_t> 0x7E00
    if magnitude > infinity:
        bits = quiet
    elif magnitude == 0:
        bits = 0
    bits = ~bits if bits & sign else bits | sign
    return bits << (64 - 8 * width)


cdef inline uint64_t float_bits(uint64_t head, uint32_t width) noexcept nogil:
    """What `float_head` was given, up to the sign of zero and the payload of NaN."""
    cdef uint64_t sign = (<uint64_t> 1) << (8 * width - 1)
    cdef uint64_t bits = head >> (64 - 8 * width)
    return bits ^ sign if bits & sign else ~bits & ((sign << 1) - 1)
