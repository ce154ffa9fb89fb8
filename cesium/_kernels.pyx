# cython: autotestdict=False
"""The kernels of _native.h as Python functions, for tests and benchmarks.

Thread safety: every function may run in any thread; the GIL is released around the work.  Arguments
are contiguous arrays of exactly the dtype named; anything else is a ValueError or a TypeError.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cesium._native cimport (
    HeadsSearch,
    SortPair,
    bloom_blocks_for,
    bloom_contains,
    bloom_insert,
    heads_lower_bound_group,
    is_sorted_strings,
    is_sorted_u64,
    parallel_for,
    prefetch_read,
    sort_columns,
    sort_strings,
    store_head,
)
from cesium cimport _native

import numpy as np


def level() -> str:
    """Which bodies run: "avx512", "avx2", "sse4.2" or "portable"."""
    return _native.native_level().decode("ascii")


def crc32c(const uint8_t[::1] data, uint32_t seed=0) -> int:
    """CRC32C (Castagnoli) of the bytes, chained after `seed`."""
    cdef size_t count = data.shape[0]
    cdef uint32_t crc
    with nogil:
        crc = _native.crc32c(seed, &data[0] if count else NULL, count)
    return crc


def lower_bound(const uint64_t[::1] heads, uint64_t key) -> int:
    """How many of the sorted heads are below the key."""
    cdef uint32_t count = heads.shape[0]
    return _native.heads_lower_bound(&heads[0] if count else NULL, count, key)


def upper_bound(const uint64_t[::1] heads, uint64_t key) -> int:
    """How many of the sorted heads are at most the key."""
    cdef uint32_t count = heads.shape[0]
    return _native.heads_upper_bound(&heads[0] if count else NULL, count, key)


def lower_bound_chain(const uint64_t[::1] heads, const uint64_t[::1] keys) -> int:
    """The sum of the lower bounds of the keys, each search waiting for the one before (latency)."""
    cdef uint32_t count = heads.shape[0]
    cdef uint64_t total = 0
    cdef Py_ssize_t i
    with nogil:
        for i in range(keys.shape[0]):
            total += _native.heads_lower_bound(&heads[0], count, keys[i] + (total & 1))
    return total


def lower_bounds(const uint64_t[:, ::1] pages, const int64_t[::1] rows, const uint64_t[::1] keys,
                 bint group=True):
    """uint32 lower bounds of keys[i] in pages[rows[i]], in groups or one after another."""
    cdef Py_ssize_t i, done = 0, some
    cdef Py_ssize_t count = keys.shape[0]
    cdef uint32_t width = pages.shape[1]
    cdef HeadsSearch jobs[64]
    if rows.shape[0] != count:
        raise ValueError(f"expected {count} rows, one a key, found {rows.shape[0]}")
    if count and (np.min(rows) < 0 or np.max(rows) >= pages.shape[0]):
        raise ValueError(f"expected rows below {pages.shape[0]}")
    result = np.empty(count, dtype=np.uint32)
    cdef uint32_t[::1] positions = result
    with nogil:
        while done < count:
            some = min(count - done, 64)
            for i in range(some):
                jobs[i].heads = &pages[rows[done + i], 0] if width else NULL
                jobs[i].count = width
                jobs[i].key = keys[done + i]
                if not group:
                    positions[done + i] = _native.heads_lower_bound(
                        jobs[i].heads, width, jobs[i].key)
            if group:
                heads_lower_bound_group(jobs, <uint32_t>some)
                for i in range(some):
                    positions[done + i] = jobs[i].position
            done += some
    return result


def compare_bytes(const uint8_t[::1] a, const uint8_t[::1] b) -> int:
    """-1, 0 or 1: the order of two byte strings."""
    return _native.compare_bytes(&a[0] if a.shape[0] else NULL, a.shape[0],
                                 &b[0] if b.shape[0] else NULL, b.shape[0])


def head_of(const uint8_t[::1] data) -> int:
    """The first 8 bytes as a big-endian integer, zeros after the end."""
    prefetch_read(&data[0] if data.shape[0] else NULL)
    return _native.load_head(&data[0] if data.shape[0] else NULL, data.shape[0])


def head_bytes(uint64_t head) -> bytes:
    """The 8 bytes whose head this is."""
    cdef uint8_t stored[8]
    store_head(stored, head)
    return stored[:8]


def hash_head(uint64_t head) -> int:
    """XXH64, seed 0, of the 8 little-endian bytes of the head."""
    return _native.hash_head(head)


def hash_bytes(const uint8_t[::1] data) -> int:
    """XXH64, seed 0."""
    return _native.hash_bytes(&data[0] if data.shape[0] else NULL, data.shape[0])


def bloom_blocks(uint64_t keys) -> int:
    """Blocks of 32 bytes of a filter for that many keys."""
    return bloom_blocks_for(keys)


def bloom_build(const uint64_t[::1] heads, uint64_t block_count):
    """A filter of the heads: uint32 array of shape (block_count, 8)."""
    if not 0 < block_count < 1 << 32:
        raise ValueError(f"expected 1 to 2**32 - 1 blocks, found {block_count}")
    cdef Py_ssize_t i
    blocks = np.zeros((block_count, 8), dtype=np.uint32)
    cdef uint32_t[:, ::1] view = blocks
    with nogil:
        for i in range(heads.shape[0]):
            bloom_insert(&view[0, 0], block_count, _native.hash_head(heads[i]))
    return blocks


def bloom_lookup(const uint32_t[:, ::1] blocks, const uint64_t[::1] heads):
    """For each head whether the filter may hold it: bool array."""
    if blocks.shape[0] < 1 or blocks.shape[1] != 8:
        raise ValueError("expected blocks of shape (n, 8), n at least 1")
    cdef Py_ssize_t i
    result = np.empty(heads.shape[0], dtype=np.uint8)
    cdef uint8_t[::1] found = result
    with nogil:
        for i in range(heads.shape[0]):
            found[i] = bloom_contains(&blocks[0, 0], blocks.shape[0],
                                      _native.hash_head(heads[i]))
    return result.view(np.bool_)


def sortedness(const uint64_t[::1] keys) -> int:
    """0 unsorted, 1 sorted with duplicates, 2 strictly increasing."""
    cdef int answer
    with nogil:
        answer = is_sorted_u64(&keys[0] if keys.shape[0] else NULL, keys.shape[0])
    return answer


def sorted_columns(const uint64_t[::1] keys, const uint64_t[::1] payloads=None, int threads=1,
                   SortPair[::1] out=None):
    """The pairs (key, payload or index) in stable key order: array of fields `key`, `payload`."""
    cdef size_t count = keys.shape[0]
    cdef const uint64_t *given = NULL
    cdef int status = 0
    if payloads is not None:
        if <size_t>payloads.shape[0] != count:
            raise ValueError(f"expected {count} payloads, one a key, found {payloads.shape[0]}")
        if count:
            given = &payloads[0]
    if out is None:
        out = np.empty(count, dtype=[("key", np.uint64), ("payload", np.uint64)])
    elif <size_t>out.shape[0] != count:
        raise ValueError(f"expected room for {count} pairs, found {out.shape[0]}")
    if count:
        with nogil:
            status = sort_columns(&keys[0], given, count, &out[0], threads)
    if status:
        raise MemoryError
    return np.asarray(out)


def _strings(const int64_t[::1] offsets, const uint8_t[::1] data):
    """Raise ValueError unless the offsets rise within the data."""
    if offsets.shape[0] < 1 or offsets[0] < 0 or offsets[offsets.shape[0] - 1] > data.shape[0]:
        raise ValueError("expected offsets within the data, one more than strings")
    if np.any(np.diff(offsets) < 0):
        raise ValueError("expected offsets that do not fall")


def strings_sortedness(const int64_t[::1] offsets, const uint8_t[::1] data) -> int:
    """0 unsorted, 1 sorted with duplicates, 2 strictly increasing."""
    _strings(offsets, data)
    cdef int answer
    with nogil:
        answer = is_sorted_strings(&offsets[0], &data[0] if data.shape[0] else NULL,
                                   offsets.shape[0] - 1)
    return answer


def sorted_strings(const int64_t[::1] offsets, const uint8_t[::1] data, int threads=1):
    """uint64 indexes of the strings data[offsets[i]:offsets[i + 1]] in stable byte order."""
    _strings(offsets, data)
    cdef size_t count = offsets.shape[0] - 1
    cdef int status = 0
    order = np.empty(count, dtype=np.uint64)
    cdef uint64_t[::1] view = order
    if count:
        with nogil:
            status = sort_strings(&offsets[0], &data[0] if data.shape[0] else NULL, count,
                                  &view[0], threads)
    if status:
        raise MemoryError
    return order


cdef void _mark(void *context, size_t task) noexcept nogil:
    (<uint64_t *>context)[task] += task + 1


def parallel_marks(size_t tasks, int threads):
    """uint64 array of task + 1, each written by the task of a parallel_for."""
    result = np.zeros(tasks, dtype=np.uint64)
    cdef uint64_t[::1] marks = result
    if tasks:
        with nogil:
            parallel_for(tasks, threads, _mark, &marks[0])
    return result
