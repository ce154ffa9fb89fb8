"""The kernels whose instructions bench/instructions.py counts: run by it, below callgrind.

    counted_kernels.py MARKS LEVEL

MARKS: bench/callgrind_marks.c, compiled.  LEVEL: of dispatch, which must be the one here.  Each
kernel prepares its data from a fixed seed, runs once so that what is done at first use is done, and
runs again between two marks.  One thread, no background, files in memory or below /dev/shm: nothing
depends on the drive.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import cesium
from cesium import _kernels as kernels
from cesium._builder import SegmentBuilder
from cesium._memtable import Memtable
from cesium._merge import Merge
from cesium._page import TableShape
from cesium._segment import SegmentReader
from cesium._version import Version
from cesium.files import MemoryFiles
from cesium.keys import key_codec

SHAPE = TableShape(8, 8)
UUID = bytes(16)

Work = Callable[[], object]
KERNELS: dict[str, Callable[[], Work]] = {}


def kernel(prepare: Callable[[], Work]) -> Callable[[], Work]:
    """Adds a kernel under its function's name: prepare() gives the work that is counted."""
    KERNELS[prepare.__name__.replace("_", " ")] = prepare
    return prepare


def random_heads(count: int, seed: int = 1) -> Any:
    """Distinct heads, uint64, in random order."""
    keys = np.random.default_rng(seed).permutation(count).astype(np.uint64)
    return keys * np.uint64(11400714819323198485)  # odd: still distinct, all over the range


@kernel
def page_search() -> Work:
    """20,000 searches of a page of 252 heads."""
    heads, keys = np.sort(random_heads(252)), random_heads(20_000, 2)
    return lambda: kernels.lower_bound_chain(heads, keys)


@kernel
def crc32c() -> Work:
    """100 checksums of a page."""
    data = np.random.default_rng(1).bytes(4092)
    return lambda: [kernels.crc32c(data) for _ in range(100)]


@kernel
def bloom_lookup() -> Work:
    """20,000 keys looked up in a filter that has half of them."""
    keys = random_heads(20_000)
    bloom = kernels.bloom_build(keys[:10_000], kernels.bloom_blocks(10_000))
    return lambda: kernels.bloom_lookup(bloom, keys)


@kernel
def radix_sort() -> Work:
    """The sort of a load of 100,000 rows."""
    keys = random_heads(100_000)
    return lambda: kernels.sorted_columns(keys)


@kernel
def string_sort() -> Work:
    """The sort of a load of 20,000 strings of 24 bytes."""
    text = np.random.default_rng(1).integers(97, 101, (20_000, 24), np.uint8)
    offsets = np.arange(0, text.size + 1, 24, dtype=np.int64)
    return lambda: kernels.sorted_strings(offsets, text.ravel())


@kernel
def encode_a_key() -> Work:
    """5,000 single keys of type u8."""
    codec, keys = key_codec("u8"), random_heads(5000).tolist()
    return lambda: [codec.encode_key(key) for key in keys]


@kernel
def encode_floats() -> Work:
    """An array of 50,000 keys of type f8."""
    codec, keys = key_codec("f8"), np.random.default_rng(1).standard_normal(50_000)
    return lambda: codec.encode_array(keys)


@kernel
def encode_composites() -> Work:
    """Arrays of 10,000 keys of type (u4, str)."""
    codec = key_codec(("u4", "str"))
    numbers = random_heads(10_000).astype(np.uint32)
    texts = np.array([f"host-{number % 1000}/path" for number in numbers.tolist()])
    return lambda: codec.encode_array((numbers, texts))


@kernel
def memtable_insert() -> Work:
    """10,000 random rows into a memtable that has 30,000; each time into one of its own."""
    heads = random_heads(40_000)
    rows = heads.view(np.uint8).reshape(-1, 8)
    memtables = [Memtable(SHAPE) for _ in range(2)]
    for memtable in memtables:
        memtable.put_many(heads[:30_000], rows[:30_000])
    return lambda: memtables.pop().put_many(heads[30_000:], rows[30_000:])


@kernel
def memtable_find() -> Work:
    """20,000 finds in a memtable of 20,000 rows."""
    memtable, heads = Memtable(SHAPE), random_heads(20_000)
    memtable.put_many(heads, heads.view(np.uint8).reshape(-1, 8))
    return lambda: memtable.find_many(heads)


@kernel
def merge() -> Work:
    """Four segments of 20,000 rows each, interleaved, into one."""
    files, heads = MemoryFiles(), random_heads(80_000)
    readers = []
    for number in range(4):
        builder = SegmentBuilder(files, f"input-{number}", number + 1, UUID, SHAPE)
        part = np.sort(heads[number::4])
        builder.add_columns(part, part.view(np.uint8))
        record: Any = SimpleNamespace(**builder.finish(), markers=0)
        reader = SegmentReader(record, files, f"input-{number}", SHAPE, UUID)
        reader.read_ahead(check=True)
        readers.append([reader])

    def work() -> None:
        merging = Merge(Version(SHAPE, readers, False), False)
        builder = SegmentBuilder(files, "output", 9, UUID, SHAPE)
        merging.write(builder, 64 << 20)
        builder.finish()
        files.unlink("output")

    return work


class Stores:
    """One loaded store for the kernels that read, and one that takes writes."""

    def __init__(self) -> None:
        shared = Path("/dev/shm")
        self.directory = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
        self.keys = random_heads(50_000)
        self.read, self.written = (self.open(name) for name in ("read", "written"))
        self.read.bulk_load(self.keys, self.keys.view(np.float64), threads=1)

    def open(self, name: str) -> cesium.Store:
        path = Path(self.directory.name) / name
        settings = cesium.Options("u8", "f8", durability="process", background=False)
        return cesium.open(path, options=settings)

    def close(self) -> None:
        self.read.close()
        self.written.close()
        self.directory.cleanup()


@functools.cache
def stores() -> Stores:
    """The same two for all kernels."""
    return Stores()


@kernel
def get() -> Work:
    """5,000 single gets of rows in a segment."""
    keys, store = stores().keys[:5000].tolist(), stores().read
    return lambda: [store[key] for key in keys]


@kernel
def get_a_miss() -> Work:
    """5,000 single gets of keys that are not there."""
    keys, store = (stores().keys[:5000] + np.uint64(1)).tolist(), stores().read
    return lambda: [store.get(key) for key in keys]


@kernel
def get_many() -> Work:
    """20,000 rows in two calls."""
    keys, store = stores().keys[:20_000], stores().read
    return lambda: [store.get_many(part, threads=1) for part in np.split(keys, 2)]


@kernel
def scan() -> Work:
    """All 50,000 rows to arrays."""
    store = stores().read
    return lambda: store.range().arrays(threads=1)


@kernel
def short_ranges() -> Work:
    """1,000 ranges of 100 rows each, to arrays."""
    keys, store = np.sort(stores().keys).tolist(), stores().read
    bounds = [(keys[first], keys[first + 100]) for first in range(0, 45_000, 45)]
    return lambda: [store.range(lower, upper).arrays() for lower, upper in bounds]


@kernel
def iterate() -> Work:
    """All 50,000 rows as Python objects."""
    store = stores().read

    def work() -> None:
        for _key, _value in store.items():
            pass

    return work


@kernel
def put() -> Work:
    """5,000 single puts of random keys that are new."""
    store, parts = stores().written, [part.tolist() for part in np.split(stores().keys[:10_000], 2)]

    def work() -> None:
        for key in parts.pop():
            store[key] = 1.5

    return work


def main(marks: str, level: str) -> None:
    if kernels.level() != level:
        sys.exit(f"the level is {kernels.level()}, not {level}")
    library = ctypes.CDLL(marks)
    for name, prepare in KERNELS.items():
        work = prepare()
        work()
        library.begin()
        work()
        library.end(name.encode())
    stores().close()


if __name__ == "__main__":
    main(*sys.argv[1:])
