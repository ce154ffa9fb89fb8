"""Sources of several segments: ranges across their borders, long values, threads."""

from __future__ import annotations

import numpy as np
import pytest

import cesium
from cesium import checkpoint, loader, merging


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of 128 KiB, so that a small load makes many."""
    for module in (checkpoint, loader, merging):
        monkeypatch.setattr(module, "SEGMENT_BYTES", 128 << 10)


def test_long_keys_and_values_are_read_from_their_own_segment(small_segments, tmp_path):
    pairs = {
        f"{number:04d}" * 150: bytes([number % 251]) * (2000 + number) for number in range(300)
    }
    with cesium.open(tmp_path / "store", key="str", value="bytes") as store:
        store.bulk_load(list(pairs), list(pairs.values()), threads=1)
        assert store.stats().base_segments > 3
        assert dict(store.items()) == pairs
        assert dict(store.range(reverse=True)) == pairs
        keys, values = store.get_many(list(pairs))[0], store.range().arrays()
        assert keys.to_list() == [pairs[key] for key in pairs]
        assert dict(zip(*(column.to_list() for column in values), strict=True)) == pairs
        middle = sorted(pairs)[150]
        assert store.floor(middle) == (middle, pairs[middle])
        store.delete_range(middle, None)
        store.compact()
        assert dict(store.items()) == {key: pairs[key] for key in pairs if key < middle}


@pytest.mark.parametrize("value", ["f8", [("a", "i4"), ("b", "f8"), ("c", "S3")]])
def test_threads_copy_the_same_rows_as_one(small_segments, tmp_path, value):
    rows = 500_000
    rng = np.random.default_rng(5)
    keys = np.unique(rng.integers(0, 1 << 63, rows, dtype="u8"))
    values = np.zeros(len(keys), np.dtype(value))
    values[() if value == "f8" else "b"] = rng.random(len(keys))
    with cesium.open(tmp_path / "store", key="u8", value=value) as store:
        store.bulk_load(keys, values)
        assert store.stats().base_segments > 3
        for low, high in [(0, len(keys)), (1, len(keys) - 1), (1000, 300_000), (251, 252)]:
            view = store.range(int(keys[low]), int(keys[high - 1]), inclusive=(True, True))
            for threads in (1, 2, 3, 7):
                got_keys, got_values = view.arrays(threads=threads)
                np.testing.assert_array_equal(got_keys, keys[low:high])
                np.testing.assert_array_equal(got_values, values[low:high])
            assert len(view) == high - low
        np.testing.assert_array_equal(store.range(limit=7).arrays(threads=2)[0], keys[:7])


def test_many_openings_leave_few_segments(tmp_path):
    for number in range(40):
        with cesium.open(tmp_path / "store", key="u4", value="u4") as store:
            store[number] = number
    with cesium.open(tmp_path / "store") as store:
        assert store.stats().base_segments <= merging.SMALL_RUN_MOST
        assert list(store.items()) == [(number, number) for number in range(40)]
        assert store.verify().ok
        store.compact()
        assert store.stats().base_segments == 1


def test_compaction_joins_more_small_segments_than_it_reads_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "SMALL_RUN_MOST", 1000)
    monkeypatch.setattr(merging, "GROUP_MOST", 4)
    with cesium.open(tmp_path / "store", key="u4", value="u4") as store:
        for number in range(30):
            store[number] = number
            store.checkpoint()
        assert store.stats().base_segments == 30
        store.compact()
        assert store.stats().base_segments == 1
        assert list(store.items()) == [(number, number) for number in range(30)]


def test_batches_look_below_a_segment_that_has_range_deletes_alone(tmp_path):
    keys = np.arange(2000, dtype="u8")
    for name, key in (("fixed", "u8"), ("text", "str")):
        with cesium.open(tmp_path / name, key=key, value="u8") as store:
            given = keys if key == "u8" else [f"{number:04d}" for number in keys]
            store.bulk_load(given, keys)
            store.delete_range(given[100], given[200])
            store.checkpoint()
            values, found = store.get_many(given)
            assert found.tolist() == [not 100 <= number < 200 for number in range(2000)]
            assert values[found].tolist() == [*range(100), *range(200, 2000)]
            assert store.contains_many(given).sum() == 1900


def test_a_batch_passes_filters_in_order(small_segments, tmp_path):
    """Keys that a newer source's filter lets through in vain are found below all the same.

    They used to come behind those that it excluded, and to be sought in the wrong segment.
    """
    keys = np.arange(0, 180_000, 3, dtype=np.uint64)
    with cesium.open(tmp_path / "store", key="u8", value="i8") as store:
        store.bulk_load(keys, np.arange(len(keys)), threads=1)
        store.bulk_load(keys[::2], -np.arange(len(keys))[::2], threads=1)
        store.delete_many(keys[::100])
        store.checkpoint()
        values, found = store.get_many(keys)
        assert np.array_equal(found, np.arange(len(keys)) % 100 != 0)
        assert [int(value) for value in values[:5]] == [0, 1, -2, 3, -4]
