"""Kernels and the store beside references of the same run, at fixed sizes: what `make bench`
compares with bench/baseline.json.

    make bench BENCH=bench/bench_baseline.py    # a minute
    make bench-record                           # records what it finds

Each test names the kernel and its reference.  One thread, no background, nothing that waits for a
drive: the store of these tests is in memory where the system has /dev/shm.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cesium
from cesium import _kernels as kernels
from cesium._builder import SegmentBuilder
from cesium._memtable import Memtable
from cesium._merge import DONE, Merge
from cesium._page import TableShape
from cesium._segment import SegmentReader
from cesium._version import Version
from cesium.files import MemoryFiles
from cesium.keys import key_codec

ROWS = 1_000_000
SINGLE = 50_000
SHAPE = TableShape(8, 8)
UUID = bytes(16)

Work = Callable[[], object]
Beside = Callable[..., None]


def random_heads(count: int, seed: int = 1) -> Any:
    """Distinct heads, uint64, in random order."""
    keys = np.random.default_rng(seed).permutation(count).astype(np.uint64)
    return keys * np.uint64(11400714819323198485)  # odd: still distinct, all over the range


# --- kernels --------------------------------------------------------------------------------------


def test_page_search(beside: Beside) -> None:
    heads, keys = np.sort(random_heads(252)), random_heads(200_000, 2)
    beside(
        "search of a page / np.searchsorted",
        lambda: kernels.lower_bound_chain(heads, keys),
        lambda: np.searchsorted(heads, keys),
    )


def test_crc32c(beside: Beside) -> None:
    data = np.random.default_rng(1).bytes(4092)
    beside(
        "CRC32C of pages / zlib.crc32",
        lambda: [kernels.crc32c(data) for _ in range(20_000)],
        lambda: [zlib.crc32(data) for _ in range(20_000)],
    )


def test_bloom_lookup(beside: Beside) -> None:
    keys = random_heads(ROWS)
    bloom, heads = kernels.bloom_build(keys, kernels.bloom_blocks(ROWS)), np.sort(keys)
    asked = keys[:200_000]
    beside(
        "look-up in a filter / np.searchsorted",
        lambda: kernels.bloom_lookup(bloom, asked),
        lambda: np.searchsorted(heads, asked),
    )


def test_radix_sort(beside: Beside) -> None:
    keys = random_heads(ROWS)
    out = np.ones(ROWS, dtype=[("key", np.uint64), ("payload", np.uint64)])
    beside(
        "radix sort of a load / np.argsort",
        lambda: kernels.sorted_columns(keys, None, 1, out),
        lambda: np.argsort(keys, kind="stable"),
    )


def test_string_sort(beside: Beside) -> None:
    text = np.random.default_rng(1).integers(97, 101, (100_000, 24), np.uint8)
    offsets = np.arange(0, text.size + 1, 24, dtype=np.int64)
    beside(
        "sort of strings / np.argsort",
        lambda: kernels.sorted_strings(offsets, text.ravel()),
        lambda: np.argsort(text.view("S24").ravel(), kind="stable"),
    )


def test_encode_floats(beside: Beside) -> None:
    codec, keys = key_codec("f8"), np.random.default_rng(1).standard_normal(ROWS)

    def ordered_bits() -> object:
        bits = keys.view(np.int64)
        return np.where(bits < 0, ~bits, bits ^ np.int64(-(2**63)))

    beside("encoding of f8 keys / in numpy", lambda: codec.encode_array(keys), ordered_bits)


def test_encode_composites(beside: Beside) -> None:
    codec, numbers = key_codec(("u4", "str")), random_heads(100_000).astype(np.uint32)
    texts = np.array([f"host-{number % 1000}/path" for number in numbers.tolist()])
    beside(
        "encoding of (u4, str) keys / astype('S')",
        lambda: codec.encode_array((numbers, texts)),
        lambda: texts.astype("S"),
    )


def test_memtable_insert(beside: Beside) -> None:
    heads = random_heads(300_000)
    rows = heads.view(np.uint8).reshape(-1, 8)
    memtables: list[Memtable] = []

    def fill() -> None:
        memtables[:] = [Memtable(SHAPE)]
        memtables[0].put_many(heads[:200_000], rows[:200_000])

    beside(
        "inserts into a memtable / np.sort",
        lambda: memtables[0].put_many(heads[200_000:], rows[200_000:]),
        lambda: np.sort(heads, kind="stable"),
        prepare=fill,
    )


def test_merge(beside: Beside) -> None:
    files, heads = MemoryFiles(), random_heads(ROWS)
    runs = []
    for number in range(4):
        builder = SegmentBuilder(files, f"input-{number}", number + 1, UUID, SHAPE)
        part = np.sort(heads[number::4])
        builder.add_columns(part, part.view(np.uint8))
        record: Any = SimpleNamespace(**builder.finish(), markers=0)
        reader = SegmentReader(record, files, f"input-{number}", SHAPE, UUID)
        reader.read_ahead(check=True)
        runs.append([reader])

    def merge() -> None:
        merging = Merge(Version(SHAPE, runs, False), False)
        builder = SegmentBuilder(files, "output", 9, UUID, SHAPE)
        assert merging.write(builder, 1 << 30) == DONE
        builder.finish()
        files.unlink("output")

    beside("merge of 4 segments / np.argsort", merge, lambda: np.argsort(heads, kind="stable"))


# --- the store ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys() -> Any:
    return random_heads(ROWS)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as path:
        yield Path(path)


def opened(path: Path) -> cesium.Store:
    settings = cesium.Options("u8", "f8", durability="process", background=False)
    return cesium.open(path, options=settings)


@pytest.fixture(scope="module")
def store(directory: Path, keys: Any) -> Iterator[cesium.Store]:
    """A loaded store, all of whose pages are checked and mapped."""
    with opened(directory / "loaded") as found:
        found.bulk_load(keys, keys.view(np.float64), threads=1)
        found.range().arrays(threads=1)
        yield found


def each(work: Callable[[Any], object], arguments: list[Any]) -> Work:
    def loop() -> None:
        for argument in arguments:
            work(argument)

    return loop


def test_get(beside: Beside, store: Any, keys: Any) -> None:
    asked = keys[:SINGLE].tolist()
    rows = dict(zip(keys.tolist(), keys.view(np.float64).tolist()))
    beside("single gets / of a dict", each(store.get, asked), each(rows.get, asked))


def test_get_a_miss(beside: Beside, store: Any, keys: Any) -> None:
    asked = (keys[:SINGLE] + np.uint64(1)).tolist()
    rows = dict.fromkeys(keys.tolist())
    beside("single misses / of a dict", each(store.get, asked), each(rows.get, asked))


def test_get_many(beside: Beside, store: Any, keys: Any) -> None:
    heads, asked = np.sort(keys), keys[:200_000]
    values = heads.view(np.float64)
    beside(
        "get_many / np.searchsorted and a gather",
        lambda: store.get_many(asked, threads=1),
        lambda: values[np.searchsorted(heads, asked)],
    )


def test_short_ranges(beside: Beside, store: Any, keys: Any) -> None:
    heads = np.sort(keys)
    starts = np.random.default_rng(4).integers(0, ROWS - 100, 5000)
    bounds = list(zip(heads[starts].tolist(), heads[starts + 100].tolist()))

    def slices() -> None:
        for low, high in np.searchsorted(heads, bounds).tolist():
            heads[low:high].copy(), heads[low:high].copy()

    beside(
        "ranges of 100 rows / of a sorted array",
        each(lambda ends: store.range(*ends).arrays(threads=1), bounds),
        slices,
    )


def test_scan(beside: Beside, store: Any, keys: Any) -> None:
    beside(
        "scan to arrays / two copies",
        lambda: store.range().arrays(threads=1),
        lambda: (keys.copy(), keys.copy()),
    )


def test_iteration(beside: Beside, store: Any, keys: Any) -> None:
    rows = dict(zip(keys.tolist(), keys.tolist()))

    def iterate(pairs: Any) -> None:
        for _key, _value in pairs:
            pass

    beside(
        "iteration / of a dict",
        lambda: iterate(store.range()),
        lambda: iterate(rows.items()),
    )


def test_load(beside: Beside, directory: Path, keys: Any) -> None:
    numbers = iter(range(1000))
    stores: list[cesium.Store] = []

    def fresh() -> None:
        while stores:
            stores.pop().close()
        stores.append(opened(directory / f"load-{next(numbers)}"))

    values = keys.view(np.float64)
    beside(
        "load of shuffled rows / np.argsort",
        lambda: stores[0].bulk_load(keys, values, threads=1),
        lambda: np.argsort(keys, kind="stable"),
        prepare=fresh,
    )
    stores.pop().close()


def test_put(beside: Beside, directory: Path) -> None:
    parts = iter(np.split(random_heads(SINGLE * 20, 9), 20))
    batch: list[int] = []
    rows: dict[int, float] = {}

    def put(target: Any) -> None:
        for key in batch:
            target[key] = 1.5

    with opened(directory / "put") as store:
        store.bulk_load(random_heads(ROWS, 8) + np.uint64(1), np.ones(ROWS), threads=1)
        beside(
            "single puts / into a dict",
            lambda: put(store),
            lambda: put(rows),
            prepare=lambda: batch.__setitem__(slice(None), next(parts).tolist()),
        )


def test_put_many(beside: Beside, directory: Path) -> None:
    parts = iter(np.split(random_heads(100_000 * 20, 9), 20))
    batches: list[Any] = []
    values = np.ones(1000)
    rows: dict[int, float] = {}
    with opened(directory / "put_many") as store:
        beside(
            "batches of 1,000 rows / into a dict",
            each(lambda keys: store.put_many(keys, values), batches),
            each(lambda keys: rows.update(zip(keys.tolist(), values.tolist())), batches),
            prepare=lambda: batches.__setitem__(slice(None), np.split(next(parts), 100)),
        )
