"""The kernels of cesium/_native.h against numpy, bisect and published vectors.

The last test runs this file again in processes of their own with CESIUM_PORTABLE set, so that the
portable bodies (and those between) pass the same tests on a machine that would never choose them.
"""

import os
import subprocess
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cesium import _kernels as kernels

CAPPED = os.environ.get("CESIUM_PORTABLE", "")
SANITIZED = "san.so" in Path("/proc/self/maps").read_text()
TOP = 2**64 - 1
u64 = st.integers(0, TOP)
edge_u64 = st.one_of(u64, st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**63 + 1, TOP - 1, TOP]))


def array(values: Sequence[int]) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def test_level_obeys_the_environment() -> None:
    levels = ["portable", "sse4.2", "avx2", "avx512"]
    cap = {"": "avx512", "1": "portable"}.get(CAPPED, CAPPED)
    assert levels.index(kernels.level()) <= levels.index(cap)


# ---- CRC32C


def crc32c_by_bits(data: bytes, seed: int = 0) -> int:
    crc = seed ^ 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # this and the next three: RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_vectors(data: bytes, expected: int) -> None:
    assert kernels.crc32c(data) == expected


@pytest.mark.parametrize("size", [1, 7, 8, 191, 192, 193, 4092, 4096, 6143, 6144, 6145, 13_001])
@pytest.mark.parametrize("start", [0, 1, 4])
def test_crc32c_of_every_path(size: int, start: int) -> None:
    data = np.random.default_rng(size).bytes(start + size)[start:]
    assert kernels.crc32c(data) == crc32c_by_bits(data)


@given(st.binary(max_size=600), st.integers(0, 600), st.integers(0, 2**32 - 1))
def test_crc32c_chains(data: bytes, cut: int, seed: int) -> None:
    whole = kernels.crc32c(data, seed)
    assert kernels.crc32c(data[cut:], kernels.crc32c(data[:cut], seed)) == whole
    assert whole == crc32c_by_bits(data, seed)


# ---- search


@given(st.lists(edge_u64, max_size=80), edge_u64)
def test_bounds_are_bisect(values: list[int], key: int) -> None:
    values.sort()
    for wanted in (key, *values[:3], *values[-3:]):
        assert kernels.lower_bound(array(values), wanted) == bisect_left(values, wanted)
        assert kernels.upper_bound(array(values), wanted) == bisect_right(values, wanted)


@pytest.mark.parametrize("distinct", [1, 3, 10_000])
def test_bounds_of_every_count_and_position(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    for count in range(601):
        heads = np.sort(random.integers(0, distinct, count, dtype=np.uint64) * np.uint64(2**50))
        keys = np.concatenate([heads, heads + np.uint64(1), array([0, TOP])])
        lower = [kernels.lower_bound(heads, int(key)) for key in keys[:: 1 + count // 40]]
        upper = [kernels.upper_bound(heads, int(key)) for key in keys[:: 1 + count // 40]]
        assert lower == np.searchsorted(heads, keys[:: 1 + count // 40]).tolist()
        assert upper == np.searchsorted(heads, keys[:: 1 + count // 40], side="right").tolist()


@pytest.mark.parametrize("width", [0, 1, 7, 8, 9, 31, 33, 252, 511])
def test_groups_are_single_searches(width: int) -> None:
    random = np.random.default_rng(width)
    pages = np.sort(random.integers(0, TOP, (50, width), dtype=np.uint64), axis=1)
    rows = random.integers(0, 50, 1001, dtype=np.int64)
    keys = random.integers(0, TOP, 1001, dtype=np.uint64)
    if width:
        keys[::2] = pages[rows[::2], random.integers(0, width, len(rows[::2]))]
    expected = [int(np.searchsorted(pages[row], key)) for row, key in zip(rows, keys, strict=True)]
    assert kernels.lower_bounds(pages, rows, keys).tolist() == expected
    assert kernels.lower_bounds(pages, rows, keys, group=False).tolist() == expected


# ---- heads, comparison, hashes


@given(st.binary(max_size=12))
def test_head_is_the_padded_prefix(data: bytes) -> None:
    head = int.from_bytes(data[:8].ljust(8, b"\0"), "big")
    assert kernels.head_of(data) == head
    assert kernels.head_bytes(head) == data[:8].ljust(8, b"\0")


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_compare_bytes_is_the_order_of_bytes(a: bytes, b: bytes) -> None:
    for left, right in ((a, b), (a, a), (a, a + b), (a + b, a)):
        assert kernels.compare_bytes(left, right) == (left > right) - (left < right)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_xxh64_vectors(data: bytes, expected: int) -> None:
    assert kernels.hash_bytes(data) == expected


def xxh64(data: bytes) -> int:
    """The published algorithm, word for word."""
    one, two, three = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
    four, five = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5

    def rotate(value: int, bits: int) -> int:
        return (value << bits | (value & TOP) >> (64 - bits)) & TOP

    def turn(lane: int, word: int) -> int:
        return rotate((lane + word * two) & TOP, 31) * one & TOP

    def word_at(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    at, result = 0, five
    if len(data) >= 32:
        lanes = [(one + two) & TOP, two, 0, -one & TOP]
        while at + 32 <= len(data):
            lanes = [turn(lane, word_at(at + 8 * i, 8)) for i, lane in enumerate(lanes)]
            at += 32
        result = sum(rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            result = ((result & TOP) ^ turn(0, lane)) * one + four
    result = (result + len(data)) & TOP
    while at + 8 <= len(data):
        result = (rotate(result ^ turn(0, word_at(at, 8)), 27) * one + four) & TOP
        at += 8
    if at + 4 <= len(data):
        result = (rotate(result ^ word_at(at, 4) * one & TOP, 23) * two + three) & TOP
        at += 4
    while at < len(data):
        result = rotate(result ^ data[at] * five & TOP, 11) * one & TOP
        at += 1
    result = (result ^ result >> 33) * two & TOP
    result = (result ^ result >> 29) * three & TOP
    return result ^ result >> 32


@given(st.binary(max_size=100))
def test_xxh64_of_every_length(data: bytes) -> None:
    assert kernels.hash_bytes(data) == xxh64(data)


@given(edge_u64)
def test_hash_of_a_head_is_the_hash_of_its_little_endian_bytes(head: int) -> None:
    assert kernels.hash_head(head) == xxh64(head.to_bytes(8, "little"))


# ---- Bloom filter


def test_bloom_bits_are_those_of_the_specification() -> None:
    salts = (
        *(0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D),
        *(0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31),
    )
    expected = np.zeros((7, 8), dtype=np.uint32)
    heads = [0, 1, 5, TOP, 12345]
    for head in heads:
        hashed = xxh64(head.to_bytes(8, "little"))
        block = (hashed >> 32) * 7 >> 32
        for word, salt in enumerate(salts):
            expected[block, word] |= 1 << ((hashed & 0xFFFFFFFF) * salt % 2**32 >> 27)
    assert (kernels.bloom_build(array(heads), 7) == expected).all()


@pytest.mark.parametrize("count", [1, 1000, 200_000])
def test_bloom_finds_all_and_little_else(count: int) -> None:
    blocks = kernels.bloom_blocks(count)
    assert 10 * count <= blocks * 256 <= 12 * count + 256
    heads = np.arange(count, dtype=np.uint64) * np.uint64(7)
    bloom = kernels.bloom_build(heads, blocks)
    assert kernels.bloom_lookup(bloom, heads).all()
    others = np.arange(400_000, dtype=np.uint64) * np.uint64(7) + np.uint64(3)
    assert kernels.bloom_lookup(bloom, others).mean() < 0.012


def test_bloom_of_nothing_finds_nothing() -> None:
    assert kernels.bloom_blocks(0) == 1
    assert not kernels.bloom_lookup(kernels.bloom_build(array([]), 1), array([0, 1, TOP])).any()


# ---- sorts


def check_columns(keys: np.ndarray) -> None:
    order = np.argsort(keys, kind="stable")
    payloads = ~np.arange(len(keys), dtype=np.uint64)
    for threads in (1, 3):
        pairs = kernels.sorted_columns(keys, threads=threads)
        assert (pairs["payload"] == order).all()
        assert (pairs["key"] == keys[order]).all()
        pairs = kernels.sorted_columns(keys, payloads, threads=threads)
        assert (pairs["payload"] == payloads[order]).all()
        assert (pairs["key"] == keys[order]).all()


@given(st.lists(st.one_of(st.integers(0, 5), edge_u64), max_size=100))
def test_sorted_columns_are_a_stable_argsort(values: list[int]) -> None:
    check_columns(array(values))


def column(shape: str, count: int) -> np.ndarray:
    random = np.random.default_rng(count)
    if shape == "random":
        return random.integers(0, TOP, count, dtype=np.uint64)
    if shape == "few":
        return random.integers(0, 7, count, dtype=np.uint64) << np.uint64(61)
    if shape == "floats":
        return random.standard_normal(count).view(np.uint64)
    if shape == "outliers":
        keys = random.permutation(count).astype(np.uint64)
        keys[:3] = array([TOP, 1 << 60, TOP - 1])
        return keys
    if shape == "powers":
        return np.uint64(1) << random.integers(0, 64, count, dtype=np.uint64)
    if shape == "falling":
        return np.arange(count, 0, -1, dtype=np.uint64)
    if shape == "one late":
        return np.append(np.arange(count - 1, dtype=np.uint64), np.uint64(3))
    if shape == "two far groups":  # high and low bits vary, nothing between
        return random.integers(0, 2, count, dtype=np.uint64) << np.uint64(63) | random.integers(
            0, 50, count, dtype=np.uint64
        )
    assert shape == "nested"  # most keys share a prefix, most of those a longer one, and so on
    depth = np.minimum(random.geometric(0.3, count), 60).astype(np.uint64)
    return random.integers(0, TOP, count, dtype=np.uint64) >> depth


SHAPES = [
    *("random", "few", "floats", "outliers", "powers", "falling"),
    *("one late", "two far groups", "nested"),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [25, 1000, 16_384, 16_385, 100_003, 700_001])
def test_sorted_columns_of_every_shape(shape: str, count: int) -> None:
    check_columns(column(shape, count))


def test_sorted_columns_into_given_rows_at_any_alignment() -> None:
    keys = column("random", 600_000)
    expected = kernels.sorted_columns(keys)
    room = np.zeros(len(keys) * 16 + 64, dtype=np.uint8)
    for start in (0, 8, 16, 24, 40, 48):
        out = room[start : start + len(keys) * 16].view(expected.dtype)
        kernels.sorted_columns(keys, None, 2, out)
        assert (out == expected).all()
        assert not room[:start].any() and not room[start + len(keys) * 16 :].any()
        room[:] = 0


@given(st.lists(st.integers(0, 4), max_size=20))
def test_sortedness(values: list[int]) -> None:
    rising = all(a <= b for a, b in pairwise(values))
    expected = rising + (rising and len(set(values)) == len(values))
    assert kernels.sortedness(array(values)) == expected
    strings = [bytes([value] * value) for value in values]
    assert kernels.strings_sortedness(*packed(strings)) == expected


@pytest.mark.parametrize("at", [1, 7, 8, 1023, 1024, 1025, 4999])
def test_sortedness_sees_every_place(at: int) -> None:
    keys = np.arange(1, 5001, dtype=np.uint64) << np.uint64(50)
    assert kernels.sortedness(keys) == 2
    keys[at] = keys[at - 1]
    assert kernels.sortedness(keys) == 1
    keys[at] -= np.uint64(1)
    assert kernels.sortedness(keys) == 0


def packed(strings: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(strings) + 1, dtype=np.int64)
    np.cumsum([len(string) for string in strings], out=offsets[1:])
    return offsets, np.frombuffer(b"".join(strings), dtype=np.uint8)


def check_strings(strings: Sequence[bytes]) -> None:
    expected = sorted(range(len(strings)), key=strings.__getitem__)
    for threads in (1, 3):
        assert kernels.sorted_strings(*packed(strings), threads).tolist() == expected


@given(st.lists(st.binary(max_size=20), max_size=60))
def test_sorted_strings_are_a_stable_sort(strings: list[bytes]) -> None:
    check_strings(strings)


@given(st.lists(st.text("\0a", max_size=40).map(str.encode), max_size=200))
def test_sorted_strings_with_long_common_beginnings_and_zeros(strings: list[bytes]) -> None:
    check_strings(strings)
    check_strings([b"the same beginning of all" + string for string in strings])


@pytest.mark.parametrize("alphabet", [1, 2, 4, 256])
@pytest.mark.parametrize("longest", [1, 9, 40])
def test_sorted_strings_in_number(alphabet: int, longest: int) -> None:
    random = np.random.default_rng(alphabet * longest)
    letters = random.integers(0, alphabet, 40_000 * longest, dtype=np.uint8).tobytes()
    lengths = random.integers(0, longest + 1, 40_000)
    check_strings([letters[i * longest : i * longest + n] for i, n in enumerate(lengths)])


def test_hostile_strings_are_not_quadratic() -> None:
    """Each of these takes far below a second; any quadratic step would take minutes or hours."""
    long = b"x" * 65_536
    comb = [b"y" * (8 * i) + b"x" + b"y" * (65_535 - 8 * i) for i in range(0, 8000, 25)]
    cases = [
        [long] * 500 + [b"a"],  # equal to the end, after a first string that is not
        [long[: 65_536 - i] for i in range(500)],  # each begins the one before
        [long + bytes([i & 255]) for i in range(500, 0, -1)],
        comb,  # a group that loses one string at every depth
        [b"prefix"] * 1_000_000 + [b"a"],
    ]
    started = time.perf_counter()
    for strings in cases:
        order = kernels.sorted_strings(*packed(strings))
        assert order.tolist() == sorted(range(len(strings)), key=strings.__getitem__)
    assert time.perf_counter() - started < 60


@settings(max_examples=30)
@given(st.integers(0, 500), st.integers(-1, 80))
def test_parallel_for_runs_every_task_once(tasks: int, threads: int) -> None:
    marks = kernels.parallel_marks(tasks, threads)
    assert marks.tolist() == list(range(1, tasks + 1))


MEMORY_SCRIPT = """
import resource, sys
import numpy as np
from cesium import _kernels as kernels
rows = 700_000
random = np.random.default_rng(1)
outlier = random.permutation(rows).astype(np.uint64)
outlier[5] = 2**64 - 1
keys = [random.integers(0, 2**60, rows, dtype=np.uint64), outlier, 1 << (outlier & 63)]
text = random.integers(0, 2, rows * 16, dtype=np.uint8)
offsets = np.arange(0, len(text) + 1, 16)
used = 4096 * int(open("/proc/self/statm").read().split()[0])
refused = done = 0
for room in range(0, 64 << 20, 1 << 20):
    for column in keys:
        out = np.zeros(rows, dtype=[("key", np.uint64), ("payload", np.uint64)])
        resource.setrlimit(resource.RLIMIT_AS, (used + (12 << 20) + room, -1))
        try:
            kernels.sorted_columns(column, None, 1, out)
            done += 1
        except MemoryError:
            refused += 1
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    resource.setrlimit(resource.RLIMIT_AS, (used + room, -1))
    try:
        order = kernels.sorted_strings(offsets, text, 1)
        done += 1
    except MemoryError:
        refused += 1
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert done and refused, (done, refused)
"""


@pytest.mark.skipif(SANITIZED or CAPPED != "", reason="once, and not in a sanitizer's space")
def test_sorts_without_memory_say_so() -> None:
    """The address space is limited a mebibyte further each time: refusals first, then results."""
    run = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]


# ---- refusals of the Python functions


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="payloads"):
        kernels.sorted_columns(array([1, 2]), array([1]))
    with pytest.raises(ValueError, match="offsets"):
        kernels.sorted_strings(np.array([0, 9], dtype=np.int64), np.zeros(3, dtype=np.uint8))
    with pytest.raises(ValueError, match="fall"):
        kernels.sorted_strings(np.array([0, 3, 1, 3], dtype=np.int64), np.zeros(3, dtype=np.uint8))
    with pytest.raises(ValueError, match="rows"):
        kernels.lower_bounds(
            np.zeros((2, 2), dtype=np.uint64), np.array([2], dtype=np.int64), array([1])
        )


@pytest.mark.skipif(CAPPED != "", reason="this is the run in the other process")
@pytest.mark.parametrize("cap", ["1", "sse4.2", "avx2"])
def test_other_bodies_pass_the_same_tests(cap: str) -> None:
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "CESIUM_PORTABLE": cap},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
