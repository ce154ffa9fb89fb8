"""The drive's own read rates, past the page cache: what cold reads are compared with.

`DirectReader(paths)` reads aligned blocks of files with O_DIRECT, so many at once, through io_uring
where the kernel has it (the raw calls: no library is needed), else from threads.  As a program,
`drive_rates.py FILE...` prints the rates of files, to be laid beside those of fio.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

PAGE_BYTES = 4096
DEPTH_MOST = 128

SETUP, ENTER = 425, 426  # io_uring_setup and io_uring_enter: the same numbers on all architectures
ENTER_GETEVENTS = 1
OFFSET_SUBMISSIONS = 0x10000000
OPERATION_READ = 22

libc = ctypes.CDLL(None, use_errno=True)

SUBMISSION = np.dtype(
    {
        "names": ["opcode", "fd", "offset", "address", "bytes", "user_data"],
        "formats": ["u1", "<i4", "<u8", "<u8", "<u4", "<u8"],
        "offsets": [0, 4, 8, 16, 24, 32],
        "itemsize": 64,
    }
)
COMPLETION = np.dtype([("user_data", "<u8"), ("result", "<i4"), ("flags", "<u4")])


class Ring:
    """One io_uring: numpy views of the queues that it shares with the kernel."""

    def __init__(self, entries: int) -> None:
        parameters = np.zeros(30, np.uint32)
        self.fd = libc.syscall(SETUP, entries, parameters.ctypes.data_as(ctypes.c_void_p))
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        # struct io_uring_params: 10 words, then the offsets of both queues, 10 words each.
        submission, completion = parameters[10:20], parameters[20:30]
        entries, completions = int(parameters[0]), int(parameters[1])
        size = max(
            int(submission[6]) + entries * 4, int(completion[5]) + completions * COMPLETION.itemsize
        )
        self._queues = mmap.mmap(self.fd, size, mmap.MAP_SHARED)
        self._entries = mmap.mmap(self.fd, entries * 64, mmap.MAP_SHARED, offset=OFFSET_SUBMISSIONS)
        words = np.frombuffer(self._queues, np.uint32)
        self.submission_tail = words[int(submission[1]) // 4 :][:1]
        words[int(submission[6]) // 4 :][:entries] = np.arange(entries)  # entry i in place i
        self.completion_head = words[int(completion[0]) // 4 :][:1]
        self.completion_tail = words[int(completion[1]) // 4 :][:1]
        self.entries = np.frombuffer(self._entries, SUBMISSION)
        self.completions = np.frombuffer(self._queues, COMPLETION, completions, int(completion[5]))

    def submit_and_wait(self, submissions: Any, at_least: int) -> Any:
        """Hands submissions to the kernel; returns the completions, at least so many."""
        tail = int(self.submission_tail[0])
        places = (tail + np.arange(len(submissions))) % len(self.entries)
        self.entries[places] = submissions
        self.submission_tail[0] = (tail + len(submissions)) & 0xFFFFFFFF
        done = libc.syscall(
            ENTER, self.fd, len(submissions), at_least, ENTER_GETEVENTS, None, ctypes.c_size_t(0)
        )
        if done != len(submissions):
            raise OSError(ctypes.get_errno(), "io_uring_enter")
        head, end = int(self.completion_head[0]), int(self.completion_tail[0])
        found = self.completions[np.arange(head, end) % len(self.completions)].copy()
        self.completion_head[0] = end
        return found

    def close(self) -> None:
        del self.entries, self.completions
        del self.submission_tail, self.completion_head, self.completion_tail
        self._queues.close()
        self._entries.close()
        os.close(self.fd)


class DirectReader:
    """Reads blocks of some files past the page cache, and says how fast."""

    def __init__(self, paths: list[Path]) -> None:
        self.files = [os.open(path, os.O_RDONLY | os.O_DIRECT) for path in paths]
        self.sizes = [path.stat().st_size // PAGE_BYTES * PAGE_BYTES for path in paths]
        self.random = np.random.default_rng(17)
        try:
            self.ring: Ring | None = Ring(DEPTH_MOST)
        except OSError:  # a kernel, or a container, without it
            self.ring = None

    def close(self) -> None:
        if self.ring is not None:
            self.ring.close()
        for fd in self.files:
            os.close(fd)

    @property
    def method(self) -> str:
        return "threads" if self.ring is None else "io_uring"

    def random_rate(self, reads: int, depth: int) -> float:
        """Reads of 4 KiB a second at random places, no place twice, so many at once."""
        pages = np.cumsum([0] + [size // PAGE_BYTES for size in self.sizes])
        chosen = self.random.choice(int(pages[-1]), min(reads, int(pages[-1])), replace=False)
        files = np.searchsorted(pages, chosen, side="right") - 1
        offsets = (chosen - pages[files]) * PAGE_BYTES
        return len(chosen) / self._seconds(files, offsets, PAGE_BYTES, depth)

    def sequential_rate(self, most_bytes: int, block_bytes: int = 1 << 20, depth: int = 4) -> float:
        """Bytes a second, of the files one after another."""
        files, offsets, left = [], [], most_bytes
        for number, size in enumerate(self.sizes):
            blocks = min(size, left) // block_bytes
            files += [number] * blocks
            offsets += [block * block_bytes for block in range(blocks)]
            left -= blocks * block_bytes
        seconds = self._seconds(np.array(files), np.array(offsets), block_bytes, depth)
        return len(files) * block_bytes / seconds

    def _seconds(self, files: Any, offsets: Any, block_bytes: int, depth: int) -> float:
        descriptors = np.array(self.files)[files]
        buffers = mmap.mmap(-1, depth * block_bytes)
        buffers.write(bytes(len(buffers)))  # its memory is there before the time counts
        start = time.perf_counter()
        if self.ring is None:
            self._read_in_threads(descriptors, offsets, buffers, block_bytes, depth)
        else:
            self._read_in_ring(self.ring, descriptors, offsets, buffers, block_bytes, depth)
        return time.perf_counter() - start

    @staticmethod
    def _read_in_ring(
        ring: Ring, descriptors: Any, offsets: Any, buffers: mmap.mmap, bytes_: int, depth: int
    ) -> None:
        jobs = np.zeros(len(offsets), SUBMISSION)
        jobs["opcode"], jobs["bytes"] = OPERATION_READ, bytes_
        jobs["fd"], jobs["offset"] = descriptors, offsets
        base = np.frombuffer(buffers, np.uint8).ctypes.data
        free = np.arange(depth)  # buffers that no read goes to
        sent = 0
        while sent < len(jobs) or len(free) < depth:
            count = min(len(free), len(jobs) - sent)
            batch, taken = jobs[sent : sent + count], free[:count]
            batch["address"], batch["user_data"] = base + taken * bytes_, taken
            sent += count
            in_flight = depth - len(free) + count
            done = ring.submit_and_wait(batch, max(1, min(in_flight, depth // 4)))
            if (done["result"] != bytes_).any():
                raise OSError(f"a read gave {done['result'].min()} of {bytes_} bytes")
            free = np.concatenate([free[count:], done["user_data"].astype(np.int64)])

    @staticmethod
    def _read_in_threads(
        descriptors: Any, offsets: Any, buffers: mmap.mmap, bytes_: int, depth: int
    ) -> None:
        view = memoryview(buffers)

        def read(lane: int) -> None:
            own = [view[lane * bytes_ : (lane + 1) * bytes_]]
            for fd, offset in zip(descriptors[lane::depth], offsets[lane::depth], strict=True):
                os.preadv(int(fd), own, int(offset))

        with ThreadPoolExecutor(depth) as pool:
            list(pool.map(read, range(depth)))


def main(paths: list[Path]) -> None:
    reader = DirectReader(paths)
    print(f"reads by {reader.method}")
    for depth, reads in ((1, 5_000), (32, 50_000), (128, 100_000)):
        print(f"random 4 KiB, depth {depth}: {reader.random_rate(reads, depth):,.0f} a second")
    for depth in (1, 4):
        rate = reader.sequential_rate(1 << 31, depth=depth)
        print(f"sequential 1 MiB, depth {depth}: {rate / 1e6:,.0f} MB/s")
    reader.close()


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
