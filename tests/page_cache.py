"""What the page cache holds of a store's segments, and how to take it out."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

PAGE_BYTES = 4096
MADV_DONTNEED = 4

libc = ctypes.CDLL(None, use_errno=True)


def segments_of(store: Path) -> list[Path]:
    """The segment files of a store."""
    return sorted(store.glob("segment-*"))


def drop(store: Path) -> None:
    """Take all pages of a store's segments out of memory, mapped ones too; skip where that fails.

    A file system in memory keeps them, and so may a container's.
    """
    names = {str(path.resolve()) for path in segments_of(store)}
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, *_, name = line.split(maxsplit=5)
        if name in names:
            start, end = (int(number, 16) for number in place.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)
    for path in segments_of(store):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    if any(resident(path).any() for path in segments_of(store)):
        pytest.skip("pages of this file system cannot be taken out of memory")


def resident(path: Path) -> NDArray[np.bool_]:
    """For each page of a file, whether it is in memory."""
    with open(path, "rb") as file:
        view = np.frombuffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), np.uint8)
    there = np.zeros(-(-len(view) // PAGE_BYTES), np.uint8)
    libc.mincore(
        ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view)),
        there.ctypes.data_as(ctypes.c_void_p),
    )  # fmt: skip
    return (there & 1).astype(np.bool_)


def resident_pages(store: Path) -> int:
    """How many pages of a store's segments are in memory."""
    return sum(int(resident(path).sum()) for path in segments_of(store))


def read_bytes() -> int:
    """Bytes that the drive was asked for by this process so far."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel does not say read_bytes in /proc/self/io")
