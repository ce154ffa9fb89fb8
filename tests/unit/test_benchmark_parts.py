"""The parts of the benchmark by themselves: histograms, tapes, shapes, the drive, the workspace."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmark_jobs import job
from cesium import _ring
from cesium._histogram import LatencyHistogram
from cesium.benchmark import drive, machine, timing, workspace
from cesium.benchmark.engines import ENGINES, installed
from cesium.benchmark.plan import PROFILES, Case, Plan
from cesium.benchmark.runner import Row
from cesium.benchmark.shapes import KEY_TYPES, Shape, make_rows, misses, zipfian
from cesium.benchmark.shares import share
from cesium.benchmark.timing import Tape
from cesium.benchmark.workloads import WORKLOADS


def histogram_of(values: list[int], expected: int = 0) -> LatencyHistogram:
    found = LatencyHistogram()
    found.record_many(np.array(values, np.uint64), expected)
    return found


# -- histograms


def test_percentiles_of_a_known_sequence() -> None:
    found = histogram_of(list(range(1, 101)))  # below 128 each value has a bucket of its own
    assert [found.quantile(share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert (found.count, found.maximum) == (100, 100)
    assert found.buckets() == [(value, 1) for value in range(1, 101)]


def test_no_percentile_is_off_by_more_than_a_64th() -> None:
    values = np.random.default_rng(1).integers(1, 10**9, 5000).tolist()
    found = histogram_of(values)
    for part in (0.01, 0.5, 0.9, 0.999):
        exact = sorted(values)[int(np.ceil(part * len(values))) - 1]
        assert exact <= found.quantile(part) <= exact * (1 + 1 / 64)


def test_coordinated_omission_is_corrected() -> None:
    """Gil Tene's own case: 100 s of calls of 1 ms, then one that takes 100 s; a call is due each
    10 ms.  Uncorrected, 99.99 % took 1 ms; the truth is that half of the time nothing went."""
    millisecond = 10**6
    calls = [millisecond] * 10_000 + [100_000 * millisecond]
    uncorrected = histogram_of(calls)
    assert uncorrected.quantile(0.9999) == pytest.approx(millisecond, rel=1 / 64)
    corrected = histogram_of(calls, 10 * millisecond)
    assert corrected.count == 10_000 + 10_000  # 100,000 ms, 99,990 ms, ... 10 ms
    assert corrected.quantile(0.5) == pytest.approx(millisecond, rel=1 / 64)
    assert corrected.quantile(0.75) == pytest.approx(50_000 * millisecond, rel=1 / 32)
    assert corrected.maximum == 100_000 * millisecond


def test_correction_fills_in_no_more_than_was_left_out() -> None:
    assert histogram_of([35], 10).buckets() == [(15, 1), (25, 1), (35, 1)]
    assert histogram_of([20], 10).buckets() == [(10, 1), (20, 1)]
    assert histogram_of([19], 10).buckets() == [(19, 1)]
    assert histogram_of([], 10).count == 0


def test_histograms_of_several_runs_are_merged() -> None:
    parts = [histogram_of([1000] * 99), histogram_of([5_000_000])]
    merged = timing.summary([(part.buckets(), part.maximum) for part in parts])
    assert merged is not None
    assert merged["count"] == 100 and merged["max"] == 5000.0
    assert merged["p50"] == pytest.approx(1.0, rel=1 / 64)
    assert timing.summary([]) is None


# -- tapes


class Counted:
    """Counts how often each call is done."""

    def __init__(self, count: int) -> None:
        self.calls = [0] * count

    def slices(self, first: int, end: int) -> None:
        assert first < end
        for number in range(first, end):
            self.calls[number] += 1

    def single(self, number: int) -> None:
        self.calls[number] += 1


def test_a_tape_does_each_call_once() -> None:
    counted = Counted(5000)
    tape = Tape(5000, counted.slices, counted.single)
    calls, _ = tape.run(1e-9)
    assert calls > 0 and sum(counted.calls) == calls
    tape.run(60.0)
    assert counted.calls == [1] * 4500 + [0] * 500  # a tenth is left for latencies
    assert tape.run(60.0) == (0, 0.0)
    assert tape.latencies(10_000, 60.0).count == 500
    assert counted.calls == [1] * 5000
    assert tape.latencies(10, 60.0).count == 0


def test_a_tape_of_reads_starts_again() -> None:
    counted = Counted(7)
    tape = Tape(7, counted.slices, counted.single, again=True)
    assert tape.latencies(21, 60.0).count == 21
    assert counted.calls == [3] * 7


def test_latencies_at_a_rate_count_from_when_the_call_was_due() -> None:
    """One call that stops for 50 ms; those that were due meanwhile have waited, too."""

    def single(number: int) -> None:
        if number == 0:
            time.sleep(0.05)

    tape = Tape(50, lambda first, end: None, single)
    paced = tape.latencies(50, 60.0, rate=1000.0)
    assert paced.count == 50
    # Of 50 calls, one a millisecond, the last was due after 49: all waited for the first.
    assert paced.quantile(0.5) >= 20_000_000
    unpaced = Tape(50, lambda first, end: None, single).latencies(50, 60.0)
    assert unpaced.maximum >= 50_000_000


def test_threads_work_at_the_same_time() -> None:
    met = threading.Barrier(2, timeout=60)

    def slices(first: int, end: int) -> None:
        if first == 0:
            met.wait()  # each tape's first slice waits for the other's

    tapes = [Tape(100, slices, lambda number: None) for _ in range(2)]
    calls, seconds = timing.run_threads(tapes, 60.0)
    assert calls == 180 and seconds > 0


def test_threads_that_work_one_after_another_add_no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads, each of which has the machine to itself for a second of a made clock."""
    now = [0.0]
    alone = threading.Lock()

    class Alone(Tape):
        def run(self, seconds: float) -> tuple[int, float]:
            with alone:
                now[0] += 1.0
                return 100, 1.0

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    tapes = [Alone(100, lambda first, end: None, lambda number: None) for _ in range(2)]
    assert timing.run_threads(tapes, 1.0) == (200, 2.0)


def test_threads_with_nothing_left_to_do_have_no_calls() -> None:
    tapes = [Tape(0, lambda first, end: None, lambda number: None) for _ in range(2)]
    calls, seconds = timing.run_threads(tapes, 1.0)
    assert calls == 0 and seconds > 0


def test_an_error_in_a_thread_is_raised() -> None:
    def slices(first: int, end: int) -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        timing.run_threads([Tape(1, slices, lambda number: None) for _ in range(2)], 1.0)


# -- shapes


@pytest.mark.parametrize("key", KEY_TYPES)
def test_rows_are_distinct_sorted_and_repeatable(key: str) -> None:
    shape = Shape(key, 20)
    rows = make_rows(shape, 5000, 4)
    singles = rows.keys.singles()
    assert singles == sorted(set(singles)) and len(singles) == 5000
    encoded = rows.keys.encoded()
    assert encoded == sorted(encoded)  # the order of bytes is the keys' order
    again = make_rows(shape, 5000, 4)
    assert again.keys.singles() == singles and again.values.tobytes() == rows.values.tobytes()
    assert make_rows(shape, 5000, 5).keys.singles() != singles
    shuffled = rows.take(np.random.default_rng(1).permutation(5000))
    assert shuffled.keys.take(shuffled.keys.order()).singles() == singles
    assert not set(misses(rows.keys).singles()) & set(singles)


def test_bytes_of_a_row_are_about_what_is_said() -> None:
    for key in KEY_TYPES:
        texts = make_rows(Shape(key), 500, 4).keys.encoded()
        said = Shape(key).row_bytes - 8
        assert abs(sum(map(len, texts)) / 500 - said) <= said / 5


def test_a_shape_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="'uuid': u64, composite, url"):
        Shape("uuid")
    with pytest.raises(ValueError, match="at least 1 byte, not 0"):
        Shape("u64", 0)


def test_zipfian_ranks_come_as_often_as_they_should() -> None:
    count = 200_000
    ranks = zipfian(1000, count, np.random.default_rng(2))
    weights = np.arange(1, 1001) ** -0.99
    expected = count * weights / weights.sum()
    found = np.bincount(ranks, minlength=1000)
    assert len(found) == 1000
    assert (np.abs(found - expected) <= 6 * np.sqrt(expected) + 1).all()


# -- the drive


def test_the_drive_is_measured(tmp_path: Path) -> None:
    told: list[str] = []
    found = drive.measure(tmp_path, 8 << 20, 0.01, (1, 4, 256), told.append)
    assert found["sequential_write"] > 0 and found["sequential_read"] > 0
    assert [row["depth"] for row in found["random_read"]] == [1, 4, 256]
    for row in found["random_read"]:
        assert 0 < row["p50_us"] <= row["p99_us"] and row["reads_per_second"] > 0
    syncs = found["sync_us"]
    assert 0 < syncs["p50"] <= syncs["p90"] <= syncs["p99"] <= syncs["p99_9"] <= syncs["max"]
    assert list(tmp_path.iterdir()) == []
    assert "drive: syncs" in told


def numbered_pages(path: Path, pages: int) -> None:
    path.write_bytes(np.arange(pages * 512, dtype=np.uint64).tobytes())


@pytest.mark.parametrize("method", ["io_uring", "threads"])
def test_a_reader_reads_every_block_once(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "first", tmp_path / "second"]
    for path, pages in zip(paths, (30, 50)):
        numbered_pages(path, pages)
    reader = drive.Reader(paths)
    if method == "io_uring" and reader.method != "io_uring":
        pytest.skip("no io_uring here")
    reader.method = method
    read: list[tuple[int, int]] = []
    for name in ("read_one_by_one", "read_at_depth"):
        real = getattr(_ring, name)

        def spy(files, offsets, *others, real=real):  # type: ignore[no-untyped-def]
            read.extend(zip(np.asarray(files).tolist(), np.asarray(offsets).tolist()))
            return real(files, offsets, *others)

        monkeypatch.setattr(_ring, name, spy)
    seconds, latencies = reader.random_reads(1000, 8)
    assert seconds > 0 and len(latencies) == 80 and (latencies > 0).all()
    expected = {(fd, page * 4096) for fd, pages in zip(reader.files, (30, 50))
                for page in range(pages)}  # fmt: skip
    assert len(read) == 80 and set(read) == expected
    reader.close()


def test_reads_behind_the_end_are_errors(tmp_path: Path) -> None:
    numbered_pages(tmp_path / "file", 2)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    offsets = np.array([0, 4096, 8192, 0], np.int64)
    files, latencies = np.full(4, fd, np.int32), np.zeros(4, np.uint64)
    with pytest.raises(OSError):
        _ring.read_one_by_one(files, offsets, 4096, latencies)
    with pytest.raises(OSError):
        _ring.read_at_depth(files, offsets, 4096, 2, latencies)
    with pytest.raises(ValueError, match="1 to 4096, not 0"):
        _ring.read_at_depth(files, offsets, 4096, 0, latencies)
    with pytest.raises(ValueError, match="4 offsets, 1 files"):
        _ring.read_one_by_one(files[:1], offsets, 4096, latencies)
    os.close(fd)


def test_what_the_machine_is_called(tmp_path: Path) -> None:
    facts = machine.describe(tmp_path)
    for name in ("processor", "kernel", "file_system", "free_bytes", "direct_io", "io_uring",
                 "governor", "memory_bytes", "mount_options"):  # fmt: skip
        assert facts[name] != "", name
    assert list(tmp_path.iterdir()) == []


# -- shares


def test_shares_of_the_drive() -> None:
    measured = {
        "sequential_write": 1.6e9, "sequential_read": 3.2e9, "sync_us": {"p50": 100.0},
        "random_read": [{"depth": 1, "reads_per_second": 20e3},
                        {"depth": 128, "reads_per_second": 100e3},
                        {"depth": 256, "reads_per_second": 90e3}],
    }  # fmt: skip
    cases = {
        "write": ("sequential write", 10e6, 0.1),  # 16 bytes a row
        "sync": ("syncs, one after another", 9e3, 0.9),
        "read": ("random reads, depth 1", 10e3, 0.5),
        "queue": ("random reads, depth 128", 400e3, 4.0),
    }
    for limit, (text, rate, fraction) in cases.items():
        assert share(limit, measured, job(), rate) == {"of": text, "fraction": fraction}
    assert share(None, measured, job(), 1.0) is None
    assert share("write", None, job(), 1.0) is None


@pytest.mark.parametrize("workload", list(WORKLOADS))
@pytest.mark.parametrize("name", ["cesium", "sqlite", "zodb", "duckdb"])
def test_rows_say_when_only_they_are_synced(workload: str, name: str) -> None:
    if not installed(name):
        pytest.skip("not installed")
    row = Row(job(workload=workload, engine=name), runs=[1.0])
    compared = workload.startswith(("delete", "ycsb", "mixed", "growth"))
    marked = compared and not workload.startswith("ycsb-c") and name in ("zodb", "duckdb")
    assert row.as_dict(None).get("durability") == ("sync" if marked else None)


# -- the workspace


def test_a_workspace_is_removed_whatever_happens(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("the user's")
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            with workspace.below(tmp_path) as path:
                (path / "inner").mkdir()
                (path / "inner" / "file").write_text("x")
                raise error
    assert [path.name for path in tmp_path.iterdir()] == ["own.txt"]


def test_only_what_a_killed_run_left_is_named(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    left, users = tmp_path / f"{workspace.PREFIX}left", tmp_path / f"{workspace.PREFIX}users"
    left.mkdir()
    users.mkdir()  # somebody's, of that name, without the marker
    (left / workspace.MARKER).write_text(f"{child}\n")
    with workspace.below(tmp_path):
        assert workspace.abandoned(tmp_path) == [left]


def test_directories_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(workspace.NoRoom, match="no such directory"):
        workspace.check_directory(tmp_path / "absent")
    with pytest.raises(workspace.NoRoom, match="not a directory"):
        workspace.check_directory(tmp_path / "file")


def test_free_space_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = SimpleNamespace(f_bavail=1000, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: space)
    workspace.require(tmp_path, 4_096_000)
    with pytest.raises(workspace.NoRoom, match=r"0\.0 GB free.*5\.0 GB"):
        workspace.require(tmp_path, 5_000_000_000)


def test_plans() -> None:
    for name in PROFILES:
        plan = Plan.of(name)
        assert plan.engines[0] == "cesium" and set(plan.engines) <= set(ENGINES)
        assert 0 < plan.room_bytes() and 0 < plan.written_bytes()
    plan = replace(Plan.of("standard"), workloads=("scan", "open"))
    cases = plan.cases()
    assert cases[Shape()] == [Case(Shape(), "scan", 1), Case(Shape(), "scan", 2),
                              Case(Shape(), "open", 1)]  # fmt: skip
    assert cases[Shape("url")] == [Case(Shape("url"), "scan", 1), Case(Shape("url"), "scan", 2)]
    assert plan.rows_of(Shape()) == plan.rows_of(Shape("u64", 100)) == 1_000_000
    assert plan.rows_of(Shape("u64", 65536)) == 1_000_000 * 128 // 65544
    assert replace(plan, fewer_wide=False).rows_of(Shape("u64", 65536)) == 1_000_000
    quick = Plan.of("quick")
    assert quick.seconds_of("put-sync") >= 0.4 > quick.seconds_of("get-hit") == quick.seconds
    with pytest.raises(ValueError, match="'huge': quick, standard, full"):
        Plan.of("huge")
