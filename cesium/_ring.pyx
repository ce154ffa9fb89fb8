"""Reads that a drive is measured with: `_ring.h`, from Python.

Both functions read blocks of `block_bytes` at `offsets` (int64) of the descriptors `files` (int32)
into one buffer that is thrown away, without the GIL, and write how long each took to `latencies`
(uint64, nanoseconds).  With O_DIRECT, offsets and block_bytes are multiples of what it asks for.

Raises OSError: what the kernel said, EIO for a read behind a file's end.

Thread safety: calls share nothing.
"""

import mmap
import os

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "_ring.h" nogil:
    int pread_all(const int32_t *fds, const int64_t *offsets, int64_t count, uint32_t bytes,
                  uint8_t *buffer, uint64_t *latencies)
    int ring_read(const int32_t *fds, const int64_t *offsets, int64_t count, uint32_t bytes,
                  uint32_t depth, uint8_t *buffers, uint64_t *latencies)

DEPTH_MOST = 4096


def read_one_by_one(const int32_t[::1] files, const int64_t[::1] offsets, uint32_t block_bytes,
                    uint64_t[::1] latencies):
    """One read after the other, by pread."""
    _read(files, offsets, block_bytes, 0, latencies)


def read_at_depth(const int32_t[::1] files, const int64_t[::1] offsets, uint32_t block_bytes,
                  uint32_t depth, uint64_t[::1] latencies):
    """`depth` reads at once (1 to DEPTH_MOST), by io_uring; OSError also where there is none."""
    if not 1 <= depth <= DEPTH_MOST:
        raise ValueError(f"depth is 1 to {DEPTH_MOST}, not {depth}")
    _read(files, offsets, block_bytes, depth, latencies)


cdef int _read(const int32_t[::1] files, const int64_t[::1] offsets, uint32_t block_bytes,
               uint32_t depth, uint64_t[::1] latencies) except -1:
    cdef int64_t count = offsets.shape[0]
    cdef int status
    cdef uint8_t[::1] buffers
    if files.shape[0] != count or latencies.shape[0] != count:
        raise ValueError(f"{count} offsets, {files.shape[0]} files, {latencies.shape[0]} latencies")
    if block_bytes == 0:
        raise ValueError("block_bytes is above zero")
    if count == 0:
        return 0
    # Pages of its own: O_DIRECT asks for aligned memory.
    buffers = mmap.mmap(-1, max(depth, 1) * <size_t>block_bytes)
    buffers[:] = 0  # its memory is there before the first read
    with nogil:
        if depth:
            status = ring_read(&files[0], &offsets[0], count, block_bytes, depth, &buffers[0],
                               &latencies[0])
        else:
            status = pread_all(&files[0], &offsets[0], count, block_bytes, &buffers[0],
                               &latencies[0])
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return 0
