"""Whole runs of `cesium bench`, small ones: what is measured, kept, refused and cleaned up."""

from __future__ import annotations

import errno
import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark_jobs import job
from benchmark_reports import full_report
from cesium.benchmark.job import Job
from cesium.benchmark.keeping import check_file, write_file
from cesium.benchmark.plan import Plan
from cesium.benchmark.reading import parsed
from cesium.benchmark.report import show
from cesium.benchmark.runner import Run
from cesium.benchmark.shapes import Shape
from cesium.benchmark.texts import figure_text
from cesium.benchmark.worker import PROGRAM, Workers
from cesium.benchmark.workloads import WORKLOADS
from cesium.benchmark.workspace import NoRoom
from cesium.cli._signals import ending_as_by_ctrl_c
from command_line import COMMAND, ENVIRONMENT, fail, on_terminal, run, succeed

PATIENCE_SECONDS = 60.0

SMALL = replace(
    Plan.of("standard"), rows=2000, rounds=1, repeats=2, seconds=0.01, more=(), threads=(1,),
    drive_bytes=4 << 20, drive_seconds=0.01,
    engines=("cesium", "sqlite"), depths=(1, 8), timeout=120.0,
)  # fmt: skip


def by_name(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(result["workload"], result["engine"]): result for result in report["results"]}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every workload with cesium and sqlite."""
    directory = tmp_path_factory.mktemp("whole")
    (directory / "own.txt").write_text("the user's")
    found = Run(SMALL, directory).go()
    assert [path.name for path in directory.iterdir()] == ["own.txt"]
    return found


def test_a_run_measures_every_workload(report: dict[str, Any]) -> None:
    found = by_name(report)
    assert not [result["error"] for result in found.values() if result["error"]]
    small = {"cold-get", "cold-get-many"}  # it is never cold
    assert {name for name, engine in found if engine == "cesium"} == set(WORKLOADS) - small
    skipped = report["engines"]["sqlite"]["not_offered"]
    assert {name for name, engine in found if engine == "sqlite"} == set(WORKLOADS) - set(skipped)
    for result in found.values():
        assert result["low"] <= result["median"] <= result["high"]
        assert result["median"] > 0


def test_a_report_is_what_its_readers_expect(report: dict[str, Any]) -> None:
    read = parsed(json.loads(json.dumps(report)))
    assert len(read.results) == len(report["results"])
    assert not read.interrupted and read.profile == "standard"
    assert report["machine"]["kernel"] and report["drive"]["random_read"]
    for name in ("cesium", "sqlite"):
        assert read.engines[name].version and read.engines[name].settings
        assert not read.engines[name].bound


def test_what_the_drive_bounds_has_a_share(report: dict[str, Any]) -> None:
    for (name, _), result in by_name(report).items():
        assert (result["share"] is not None) == (WORKLOADS[name].limit is not None), name


def test_single_calls_have_latencies(report: dict[str, Any]) -> None:
    for name in ("get-hit", "put-process", "range-100"):
        latency = by_name(report)[name, "cesium"]["latency_us"]
        assert latency["count"] > 0
        assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]


def test_loads_say_what_they_take_of_the_drive(report: dict[str, Any]) -> None:
    result = by_name(report)["load-sorted", "cesium"]
    assert result["raw_bytes"] == 2000 * 16 and result["disk_bytes"] > 2000 * 16


def test_threads_and_shapes(tmp_path: Path) -> None:
    shapes = (Shape("url", 8), Shape("composite", 100))
    plan = replace(SMALL, workloads=("get-hit", "get-miss", "get-many"), threads=(1, 2),
                   shapes=shapes, drive_bytes=0, rounds=2, repeats=1)  # fmt: skip
    report = Run(plan, tmp_path).go()
    assert not [result["error"] for result in report["results"] if result["error"]]
    cases = {
        (result["workload"], result["key"], result["value"], result["threads"])
        for result in report["results"]
        if result["engine"] == "cesium"
    }
    assert ("get-hit", "url", 8, 2) in cases and ("get-many", "composite", 100, 1) in cases
    assert ("get-miss", "url", 8, 2) not in cases  # threads are worth a row only for some
    assert all(len(result["runs"]) == 2 for result in report["results"])
    assert report["drive"] is None
    assert "get-many" in report["engines"]["sqlite"]["not_offered"]  # of pairs


def test_cold_reads_come_from_the_drive(tmp_path: Path) -> None:
    plan = replace(SMALL, workloads=("cold-get", "cold-get-many"), shapes=(Shape("u64", 1000),),
                   rows=9000, repeats=1, fewer_wide=False)  # fmt: skip
    found = by_name(Run(plan, tmp_path).go())
    assert len(found) == 4
    for result in found.values():
        assert result["error"] is None and result["share"]["of"].startswith("random reads")
    assert found["cold-get", "cesium"]["latency_us"]["count"] > 50


def test_growth_has_a_curve_and_amplification(report: dict[str, Any]) -> None:
    for engine in ("cesium", "sqlite"):
        result = by_name(report)["growth", engine]
        seconds, rows = zip(*result["over_time"])
        assert list(seconds) == sorted(seconds) and list(rows) == sorted(set(rows))
        assert result["write_amplification"] >= 0 and result["space_amplification"] > 0


def test_what_there_was_no_time_for_is_named(tmp_path: Path) -> None:
    plan = replace(SMALL, drive_bytes=0, limit_seconds=0.0, workloads=("scan", "open"))
    report = Run(plan, tmp_path).go()
    assert report["left_out"] == ["scan", "open"] and report["results"] == []


def test_an_interrupted_run_keeps_its_results_and_cleans_up(tmp_path: Path) -> None:
    def progress(text: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    report = Run(replace(SMALL, drive_bytes=0), tmp_path, progress).go()
    assert report["interrupted"] and len(report["results"]) == 5
    assert list(tmp_path.iterdir()) == []
    parsed(report)


def test_a_failed_run_cleans_up(tmp_path: Path) -> None:
    def progress(text: str, done: int, total: int) -> None:
        raise RuntimeError("here")

    with pytest.raises(RuntimeError, match="here"):
        Run(replace(SMALL, drive_bytes=0), tmp_path, progress).go()
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    endless = job(workload="get-hit", rows=1000, seconds=3600.0, store=str(tmp_path / "store"),
                  scratch=str(tmp_path))  # fmt: skip
    with Workers() as workers:
        made = workers.perform(replace(endless, workload="prepare"), 120.0)
        assert "outcome" in made, made
        assert "took longer" in workers.perform(endless, 0.2)["error"]
        after = workers.perform(replace(endless, seconds=0.001), 120.0)
        assert after["outcome"]["runs"]


def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a store")
    broken = job(workload="get-hit", store=str(tmp_path / "store"), scratch=str(tmp_path))
    with Workers() as workers:
        assert "store" in workers.perform(broken, 120.0)["error"]
        unknown = replace(broken, workload="load-sorted", engine="cesium", key="url", rows=10)
        assert "outcome" in workers.perform(unknown, 120.0)  # the worker lives on


def test_nothing_is_begun_without_room(tmp_path: Path) -> None:
    with pytest.raises(NoRoom, match="GB free"):
        Run(replace(SMALL, rows=1 << 50), tmp_path).go()
    assert list(tmp_path.iterdir()) == []


# -- the command line

QUICK = ("--quick", "--rows", 1000, "--seconds", 0.005, "--runs", 1, "--engine", "cesium",
         "--engine", "sqlite", "--workload", "get-hit", "--workload", "open")  # fmt: skip


def test_the_command_prints_json(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    report = json.loads(succeed("bench", tmp_path, *QUICK, "--json", "-o", kept, "--seed", 7))
    assert report["format"] == "cesium-bench" and report["seed"] == 7
    assert [result["workload"] for result in report["results"]] == ["get-hit"] * 2 + ["open"] * 2
    assert json.loads(kept.read_text()) == report
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


def test_two_reports_are_compared_and_drawn(tmp_path: Path) -> None:
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    page = tmp_path / "page.html"
    for file in files:
        succeed("bench", tmp_path, *QUICK, "-o", file, "--html", page)
    said = succeed("bench", "compare", *files)
    assert [line.split("\t")[1] for line in said.splitlines() if line.startswith("row")] == [
        *["get-hit"] * 2, *["open"] * 2,
    ]  # fmt: skip
    assert page.read_text().lstrip().startswith("<!doctype html>")
    files[0].write_text("{}")
    assert "first.json" in fail(1, "bench", "compare", *files)
    assert "Usage: cesium bench compare" in run("bench", "compare", "--help").stdout.replace(
        "main bench", "cesium bench"
    )


def test_a_report_is_shown_though_its_files_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drive is full when the run is over; the page is tried though the report failed."""

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "a temporary name")

    kept, page = tmp_path / "kept.json", tmp_path / "page.html"
    kept.write_text("of before")
    with monkeypatch.context() as patch:
        patch.setattr("cesium.benchmark.keeping.Path.replace", full)
        found = run("bench", tmp_path, *QUICK, "--json", "-o", kept, "--html", page)
    assert found.exit_code == 1
    assert json.loads(found.stdout)["results"]
    assert found.stderr.splitlines() == [
        f"cesium: No space left on device: {file}" for file in (kept, page)
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]
    assert kept.read_text() == "of before"


@pytest.mark.parametrize("option", ["-o", "--html"])
def test_files_that_cannot_be_written_are_refused_before_the_run(
    tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the run began")

    monkeypatch.setattr(Run, "go", never)
    assert f"Is a directory: {tmp_path}" in fail(1, "bench", tmp_path, *QUICK, option, tmp_path)
    long = tmp_path / ("n" * 300)
    assert f"File name too long: {long}" in fail(1, "bench", tmp_path, *QUICK, option, long)
    assert list(tmp_path.iterdir()) == []


def test_files_stay_as_they_are_until_they_are_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "report.json", tmp_path / "link.json"
    check_file(file)
    assert list(tmp_path.iterdir()) == []
    file.write_text("of before")
    link.symlink_to("report.json")
    for each in (file, link, Path("/dev/null")):
        check_file(each)
        assert file.read_text() == "of before"
    write_file(link, "of now")
    write_file(Path("/dev/null"), "of nobody")
    assert link.is_symlink() and file.read_text() == "of now"
    assert Path("/dev/null").is_char_device()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "report.json"]


def test_a_workload_that_no_engine_offers_is_named(tmp_path: Path) -> None:
    found = run("bench", tmp_path, *QUICK, "--workload", "cold-get", "--workload", "put-interval")
    assert found.exit_code == 0
    # SQLite has no puts like that, but cesium has: there is a row.
    assert {line.split("\t")[0] for line in found.stdout.splitlines()[1:]} == {
        "get-hit", "open", "put-interval"
    }  # fmt: skip
    said = "cesium: note: cold-get: not offered: a store of less than 8 MiB is never cold"
    assert found.stderr.splitlines() == [said]


def test_a_directory_called_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compare").mkdir()
    assert "get-hit" in succeed("bench", "./compare", *QUICK)


def test_the_command_prints_lines_for_a_program(tmp_path: Path) -> None:
    lines = succeed("bench", tmp_path, *QUICK).splitlines()
    assert lines[0].split("\t")[:3] == ["workload", "key", "value"]
    assert [line.split("\t")[5] for line in lines[1:]].count("sqlite") == 2


def test_the_command_prints_tables_on_a_terminal(tmp_path: Path) -> None:
    shown = on_terminal("bench", tmp_path, *QUICK, columns=160)
    for text in ("│get, hit", "x sqlite", "SQLite", "sync of a small append", "kernel"):
        assert text in shown


@pytest.mark.parametrize("columns", [50, 80, 120, 240])
def test_nothing_is_cut_off_on_a_narrow_terminal(columns: int) -> None:
    """The engines that do not fit beside each other come in tables below each other."""
    report = parsed(full_report())
    console = Console(file=io.StringIO(), width=columns, record=True)
    show(report, console)
    shown = console.export_text()
    assert "…" not in shown and max(map(len, shown.splitlines())) <= columns
    start = shown.index("u64 + 8 B")
    for name in (*report.engines, "beside best peer", "cesium, of the drive"):
        assert name in shown[start:]
    results = [result for result in report.results if result.median]
    for result in results:
        number = figure_text(result.median, result.unit).split("/")[0].removesuffix(" rows")
        assert number in shown[start:]


def test_rates_are_asked_of_latencies(tmp_path: Path) -> None:
    report = json.loads(succeed("bench", tmp_path, *QUICK, "--json", "--rate", 2000))
    (result,) = [r for r in report["results"] if (r["workload"], r["engine"]) ==
                 ("get-hit", "cesium")]  # fmt: skip
    assert 1 <= result["latency_us"]["count"] <= 50  # of 5 ms, 2,000 a second


def test_refusals_name_what_is_valid(tmp_path: Path) -> None:
    assert "get-hit" in fail(2, "bench", tmp_path, "--workload", "fly")
    assert "lmdb" in fail(2, "bench", tmp_path, "--engine", "oracle")
    assert "u64, composite, url" in fail(2, "bench", tmp_path, "--key", "uuid")
    assert "no such directory" in fail(1, "bench", tmp_path / "absent", "--quick")
    (tmp_path / "file").write_text("")
    assert "not a directory" in fail(1, "bench", tmp_path / "file", "--quick")
    assert "no directory for" in fail(2, "bench", tmp_path, "--quick", "-o", tmp_path / "x" / "y")
    assert "GB free" in fail(1, "bench", tmp_path, "--quick", "--rows", 1 << 50, "--yes")
    assert "a size is" in fail(2, "bench", tmp_path, "--cache", "much")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("option", ["--seconds", "--rate", "--times-memory"])
@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e+308", "0", "-1", "much"])
def test_numbers_that_mean_no_amount_are_refused(tmp_path: Path, option: str, number: str) -> None:
    said = fail(2, "bench", tmp_path, *QUICK, f"{option}={number}")
    assert option in said and number in said


@pytest.mark.parametrize("size", [0, 1, 4, 7])
def test_values_have_8_bytes_or_more(tmp_path: Path, size: int) -> None:
    said = fail(2, "bench", tmp_path, *QUICK, "--value", size)
    assert "--value" in said and "x>=8" in said


def test_a_run_without_a_single_figure_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = {"cesium", "sqlite"}

    def perform(self: Workers, job: Job, timeout: float) -> dict[str, Any]:
        if job.engine in failing:
            return {"error": "OSError: the drive is gone"}
        return {"outcome": {"runs": [1.0], "histograms": [], "extra": {}}}

    monkeypatch.setattr(Workers, "perform", perform)
    found = run("bench", tmp_path, *QUICK)
    assert found.exit_code == 1 and found.stdout.count("the drive is gone") == 4
    failing.remove("sqlite")
    found = run("bench", tmp_path, *QUICK)
    assert found.exit_code == 0 and found.stdout.count("the drive is gone") == 2


def test_a_directory_that_must_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refused)  # root may write anywhere
    assert "cannot write to" in fail(1, "bench", tmp_path, *QUICK)


def test_much_is_not_written_without_asking(tmp_path: Path) -> None:
    told = fail(2, "bench", tmp_path, "--quick", "--rows", 50_000_000)
    assert "GB" in told and "--yes" in told
    assert list(tmp_path.iterdir()) == []


def test_the_package_is_the_command() -> None:
    command = [sys.executable, "-m", "cesium", "bench"]
    done = subprocess.run([*command, "--help"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Usage: cesium bench ")
    done = subprocess.run([*command, "--rows=0"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("cesium: ")


def test_help_names_what_there_is() -> None:
    assert "--quick" in run("bench", "--help").stdout


def test_a_worker_whose_benchmark_was_killed_ends_without_a_word(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, *sys.path]
    asked = {"job": job(store=str(tmp_path), scratch=str(tmp_path)).as_dict(), "timeout": 120.0}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_show_what_there_is_and_clean_up(tmp_path: Path, number: signal.Signals) -> None:
    """A real signal, in the midst of the first workload of many."""
    command = [*COMMAND, "bench", str(tmp_path), "--quick", "--rows", "2000", "--seconds", "0.3",
               "--engine", "cesium", "--json"]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True,
        # Under nohup, or in the background of a script, it would be ignored.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:  # fmt: skip
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not list(tmp_path.glob(".cesium-bench-*/u64-8/cesium")):  # the first loaded store
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        out, error = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, error
    report = json.loads(out)
    assert report["interrupted"]
    assert 0 < len(report["results"]) < len(WORKLOADS)
    assert error == "cesium: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_of_two_signals_the_second_does_not_break_into_the_end() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with ending_as_by_ctrl_c():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for each, handler in zip((signal.SIGTERM, signal.SIGHUP), before):
            signal.signal(each, handler)
