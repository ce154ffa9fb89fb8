"""What stats() and memory() say, against what was done; and the histograms under them."""

from __future__ import annotations

import dataclasses
import gc
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium._builder import SegmentBuilder
from cesium._counters import LATENCIES, QUANTILES, TOTALS, Counters, bucket_bounds
from cesium.figures import bytes_text, seconds_text
from cesium.stats import Latency, Tier

ROWS = 20_000
KEYS = np.arange(ROWS, dtype=np.uint64)
VALUES = KEYS.astype(float)


def opened(path: Path | str = ":memory:", **options: Any) -> cesium.Store:
    return cesium.open(path, key="u8", value="f8", **options)


# --- histograms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(41))
def test_a_bucket_is_no_wider_than_a_sixty_fourth(bits: int) -> None:
    for value in ((1 << bits) - 1, 1 << bits, (1 << bits) + (1 << bits) // 3):
        smallest, largest = bucket_bounds(value)
        assert smallest <= value <= largest
        assert largest - smallest <= smallest / 64
        if smallest:
            assert bucket_bounds(smallest - 1)[1] == smallest - 1
        assert bucket_bounds(largest + 1)[0] == largest + 1


def test_quantiles_are_those_of_the_values() -> None:
    counters = Counters()
    values = np.random.default_rng(1).lognormal(7, 2, 5000).astype(np.int64) + 1
    for value in values.tolist():
        counters.record("get", value)
    calls, least, mean, *quantiles, most = counters.latency("get")
    assert (calls, least, most) == (5000, values.min(), values.max())
    assert mean == pytest.approx(values.mean())
    values.sort()
    for share, found in zip(QUANTILES, quantiles):
        exact = values[int(np.ceil(share * 5000)) - 1]
        assert exact <= found <= exact * 65 / 64


def test_a_weight_is_so_many_calls() -> None:
    counters = Counters()
    counters.record("put", 100, weight=99)
    counters.record("put", 100_000)
    calls, least, mean, p50, p90, p99, p99_9, most = counters.latency("put")
    assert calls == 100 and mean == (99 * 100 + 100_000) / 100
    assert p50 == p90 == p99 == bucket_bounds(100)[1] and p99_9 == most == 100_000
    assert least == 100


def test_no_value_is_too_large_or_none() -> None:
    counters = Counters()
    assert counters.latency("merge") is None
    counters.record("merge", 2**63)
    assert counters.latency("merge")[-1] == 2**41 - 1
    with pytest.raises(KeyError):
        counters.record("nothing", 1)


def test_threads_count_together() -> None:
    counters = Counters()

    def count() -> None:
        for value in range(2000):
            counters.record("range", value)
            counters.add("flush_bytes", 3)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.latency("range")[0] == 8000 and counters.counts()["flush_bytes"] == 24_000


# --- counters -----------------------------------------------------------------------------------


def test_every_call_is_counted_once() -> None:
    store = opened()
    assert set(store.stats().counters) == {"gets", "puts", "deletes", *TOTALS}
    assert not any(store.stats().counters.values())
    store.bulk_load(KEYS, VALUES)
    store.put_many(KEYS[:100], VALUES[:100])
    store.update({1: 2.0, 2: 3.0})
    store.delete_many(KEYS[:7])
    store.delete_range(10, 20)
    store.put(1, 1.0)
    store[2] = 2.0
    store.setdefault(3, 3.0)
    store.setdefault(3, 4.0)  # is there: nothing is put
    store.delete(4)
    del store[3]
    store.pop(2)
    store.pop(2, None)
    store.get(5)
    store[1]
    assert 6 not in store
    store.get_many(KEYS[:50])
    store.contains_many(KEYS[:5])
    store.first()
    store.range(1, 100).arrays()
    for _ in store.range(1, 100):
        pass
    store.checkpoint()
    store.compact()
    counts = store.stats().counters
    expected = {
        "gets": 3, "puts": 3, "deletes": 3, "batch_gets": 55, "batch_puts": 102,
        "batch_deletes": 7, "range_deletes": 1, "ranges": 3, "flushes": 1, "merges": 1,
        "loads": 1, "loaded_rows": ROWS, "loaded_bytes": 16 * ROWS, "compactions": 1,
        "gaps_swept": 0,
    }  # fmt: skip
    assert {name: counts[name] for name in expected} == expected
    assert counts["checkpoints"] >= 1


def filter_counts(store: cesium.Store) -> tuple[int, int, int]:
    counts = store.stats().counters
    names = ("lookups", "negatives", "false_positives")
    return tuple(counts[f"filter_{name}"] for name in names)  # type: ignore[return-value]


@pytest.mark.parametrize("key", ["u8", "str"])
@pytest.mark.parametrize("way", ["get", "get_many", "threads", "contains_many"])
def test_what_filters_answer_is_counted(tmp_path: Path, key: str, way: str) -> None:
    """A load over another: its segment has a filter, and the one below has none."""

    def encoded(numbers: np.ndarray) -> Any:
        return numbers if key == "u8" else [f"{number:06d}" for number in numbers.tolist()]

    def look_up(store: cesium.Store, numbers: np.ndarray) -> None:
        keys = encoded(numbers.astype(np.uint64))
        if way == "get":
            for one in keys if key == "str" else keys.tolist():
                store.get(one)
        elif way == "contains_many":
            store.contains_many(keys)
        else:
            store.get_many(keys, threads=2 if way == "threads" else None)

    options = cesium.Options(key, "f8", background=False)
    with cesium.open(tmp_path, options=options) as store:
        store.bulk_load(encoded(KEYS * 2), VALUES)
        store.bulk_load(encoded(KEYS[::2] * 2 + 1), VALUES[::2])  # 1, 5, 9 ...
        assert [tier.segments for tier in store.stats().tiers] == [1, 1]
    with cesium.open(tmp_path, options=options) as store:
        assert store.stats().filter_false_positive_rate is None
        present, absent, outside = KEYS[::2] * 2 + 1, KEYS[1:] * 2, KEYS + 2 * ROWS
        look_up(store, present[:9_000])  # the first of a page is looked up twice, counted once
        assert filter_counts(store) == (9_000, 0, 0)
        look_up(store, outside)  # of the bounds of all segments: no filter is asked
        assert filter_counts(store) == (9_000, 0, 0)
        look_up(store, absent[:10_000])
        lookups, negatives, wrong = filter_counts(store)
        assert lookups == 19_000 and negatives + wrong == 10_000
        assert wrong < 300  # some 1 %
        assert store.stats().filter_false_positive_rate == wrong / 10_000
        assert f"{wrong / 10_000:.2%}" in str(store.stats())


def test_bytes_and_amplification(tmp_path: Path) -> None:
    with opened(tmp_path / "store", durability="process") as store:
        assert store.stats().write_amplification is None
        store.put_many(KEYS, VALUES)
        first = store.stats()
        journal = first.counters["journal_bytes"]
        assert 16 * ROWS <= journal <= 16 * ROWS + 200
        assert first.write_amplification == pytest.approx(journal / (16 * ROWS))
        store.checkpoint()
        store.put_many(KEYS, VALUES)
        store.checkpoint()
        second = store.stats()
        assert second.counters["flush_bytes"] == second.segment_bytes
        assert second.read_amplification == 2
        store.compact()
        third = store.stats()
        assert third.counters["merge_read_bytes"] == second.segment_bytes
        assert third.counters["merge_bytes"] == third.segment_bytes
        written = sum(
            third.counters[f"{name}_bytes"] for name in ("journal", "flush", "merge", "load")
        )
        assert third.write_amplification == pytest.approx(written / (32 * ROWS))
        assert third.read_amplification == 1
        files = sum(file.stat().st_size for file in (tmp_path / "store").iterdir())
        assert third.directory_bytes == files
        assert third.space_amplification == pytest.approx(files / third.segment_bytes, rel=0.01)


def test_single_puts_count_their_bytes(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "store", key="str", value="bytes", durability="process") as store:
        store["abc"] = b"12345"
        store.delete("abc")
        assert 0 < store.stats().counters["journal_bytes"] < 400
        journal = store.stats().counters["journal_bytes"]
        assert store.stats().write_amplification == journal / (3 + 5 + 3)


def test_tiers_newest_first() -> None:
    store = opened()
    store.bulk_load(KEYS, VALUES)
    store.put_many(KEYS[:10], VALUES[:10])
    store.delete_many(KEYS[10:15])
    store.delete_range(100, 200)
    store.checkpoint()
    stats = store.stats()
    newest, *_, oldest = stats.tiers
    assert newest.tier < oldest.tier
    assert (newest.runs, newest.segments, newest.entries) == (1, 1, 15)
    assert (newest.delete_markers, newest.range_deletes) == (5, 1)
    assert newest.tombstone_density == pytest.approx(1 / 3)
    assert (oldest.entries, oldest.delete_markers, oldest.tombstone_density) == (ROWS, 0, 0)
    assert sum(tier.bytes for tier in stats.tiers) == stats.segment_bytes
    assert sum(tier.segments for tier in stats.tiers) == stats.segments


def test_the_document_names_every_field_and_counter() -> None:
    text = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    named = set(re.findall(r"`(\w+)`", text))
    store = opened()
    assert named >= set(store.stats().as_dict())
    assert named >= set(store.stats().counters)
    assert named >= set(store.stats().latency)
    assert named >= set(store.memory().as_dict())
    assert named >= {field.name for field in dataclasses.fields(Latency)}
    assert named >= {field.name for field in dataclasses.fields(Tier)}


# --- latencies ----------------------------------------------------------------------------------


def test_latencies_stand_for_about_all_calls() -> None:
    store = opened()
    for key in range(5000):
        store[key] = 1.0
    for key in range(5000):
        store.get(key)
    store.range().arrays()
    store.checkpoint()
    latency = store.stats().latency
    assert tuple(latency) == LATENCIES
    for name in ("get", "put"):
        found = latency[name]
        assert 5000 - 128 <= found.calls <= 5000
        assert 0 < found.min <= found.p50 <= found.p90 <= found.p99 <= found.p99_9 <= found.max < 10
        assert found.min <= found.mean <= found.max
    assert latency["range"].calls >= 1 and latency["flush"].calls == 1
    assert latency["merge"].calls == 0 and latency["merge"].max == 0


def test_a_get_that_raises_spoils_nothing() -> None:
    store = opened()
    for _ in range(500):
        with pytest.raises(cesium.SchemaError):
            store.get("x")
        with pytest.raises(KeyError):
            store[7]
    latency = store.stats().latency["get"]
    assert store.stats().counters["gets"] == 1000 and 0 < latency.calls <= 1000


# --- text ---------------------------------------------------------------------------------------


def test_it_prints_as_a_table(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.bulk_load(KEYS, VALUES)
        for key in range(300):
            store.get(key)
        text = str(store.stats())
        lines = text.splitlines()
        assert lines[0] == "store"
        assert any(line.split() == ["estimated_rows", "20,000"] for line in lines)
        assert any(line.split()[:2] == ["get", f"{store.stats().latency['get'].calls}"]
                   for line in lines)  # fmt: skip
        assert "write_amplification" in text and "p99.9" in text
        assert repr(store.stats()).startswith("store\n  tables")
        assert store.stats().as_dict()["tiers"][0]["entries"] == ROWS


def test_figures() -> None:
    assert [bytes_text(size) for size in (0, 1023, 1536, 5 << 20, 3 << 50)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3072.0 TiB",
    ]  # fmt: skip
    assert [seconds_text(time) for time in (0, 2.8e-7, 0.00121, 75)] == [
        "0", "280 ns", "1.21 ms", "75 s",
    ]  # fmt: skip


# --- memory -------------------------------------------------------------------------------------


def test_memtables_frozen_ones_and_old_readers() -> None:
    store = opened()
    empty = store.memory()
    assert empty.total == empty.memtable and empty.limit == 1 << 30
    store.put_many(KEYS, VALUES)
    full = store.memory()
    assert full.memtable >= store.stats().memtable_bytes >= 16 * ROWS
    assert (full.frozen_memtables, full.pinned) == (0, 0)
    reader = store.range().batches(10)
    next(reader)
    store.checkpoint()
    after = store.memory()
    assert after.pinned == full.memtable and after.memtable < full.memtable
    reader.close()
    del reader
    gc.collect()
    assert store.memory().pinned == 0


def test_segments_in_use() -> None:
    store = opened()
    store.bulk_load(KEYS, VALUES)
    store.delete_range(5, 10)
    store.checkpoint()
    list(store.range(0, 100))
    memory = store.memory()
    assert memory.fences > 0 and memory.checked_pages > 0 and memory.range_deletes > 0


def test_iterators() -> None:
    store = opened()
    store.bulk_load(KEYS, VALUES)
    rows = iter(store)
    for _ in range(100):
        next(rows)
    assert store.memory().iterators >= 100 * 16
    del rows
    gc.collect()
    assert store.memory().iterators == 0


def test_buffers_of_a_load_while_it_runs() -> None:
    store = opened()
    held = []

    class Report:
        def __call__(self, rows: int) -> None:
            held.append(store.memory().buffers)

    from cesium import loader

    values = store.values_codec.encode_array(VALUES, ROWS)
    shuffled = store.keys_codec.encode_array(np.random.default_rng(1).permutation(KEYS))
    loader.load(store._table, shuffled, values, 1, "process", Report())
    assert held and held[-1] >= 16 * ROWS
    loader.load(store._table, store.keys_codec.encode_array(KEYS), values, 1, "process", Report())
    assert held[-1] < 16 * ROWS, "rows in order are not sorted"
    assert store.memory().buffers == 0


def test_buffers_of_a_segment_in_the_making() -> None:
    store = opened()
    engine = store._engine
    counters = engine.core_engine.counters

    def builder() -> SegmentBuilder:
        return SegmentBuilder(
            engine.files, "segment-000000077", 77, bytes(16), store._table.shape, filter_keys=1000,
            counters=counters,
        )  # fmt: skip

    made = builder()
    assert store.memory().buffers >= (2 << 20) + 1000
    made.abort()
    assert store.memory().buffers == 0
    made = builder()
    made.add(1, bytes(8))
    made.finish()
    assert store.memory().buffers == 0
    made = builder()
    del made
    gc.collect()
    assert store.memory().buffers == 0


def test_memory_prints(tmp_path: Path) -> None:
    with opened(tmp_path / "store", memory_limit="64MiB") as store:
        text = str(store.memory())
    assert text.splitlines()[0] == "memory" and "64.0 MiB" in text and "pinned" in text
    with pytest.raises(cesium.ClosedError):
        store.memory()


# --- compaction's bar ---------------------------------------------------------------------------


def test_compaction_reports_the_rows_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from cesium import maintenance

    store = opened()
    store.bulk_load(KEYS, VALUES)
    store.put_many(KEYS[::2], VALUES[::2])
    steps: list[int] = []
    maintenance.compact(store._engine, [store._table], steps.append)
    assert sum(steps) == ROWS


def test_compaction_with_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    store = opened()
    store.bulk_load(KEYS, VALUES)
    store.put_many(KEYS[::2], VALUES[::2])
    store.compact(progress=True)
    assert len(store) == ROWS and store.stats().segments >= 1
