"""Reports of `cesium bench`: read and checked, compared with noise in mind, and made a page."""

from __future__ import annotations

import copy
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmark_reports import ENGINES, failed, full_report, growth, latency, result
from cesium.benchmark import charts, html, over_time
from cesium.benchmark.compare import Comparison, cells, compare, compare_files, show
from cesium.benchmark.noise import STUDENT_T, ratio
from cesium.benchmark.reading import ReportError, parsed, read
from cesium.benchmark.report import lines as report_lines
from cesium.benchmark.report import show as show_report
from cesium.benchmark.standing import standings
from cesium.benchmark.texts import count_text, data_text, figure_text, ratio_text
from cesium.errors import Error


def small(*results: dict[str, Any], **others: Any) -> dict[str, Any]:
    """A report with little but its results."""
    return full_report() | {"results": list(results)} | others


# --- reading --------------------------------------------------------------------------------------


def test_a_report_is_read_whole(tmp_path: Path) -> None:
    report = full_report()
    (tmp_path / "report.json").write_text(json.dumps(report))
    found = read(tmp_path / "report.json")
    assert found == parsed(report)
    assert len(found.results) == len(report["results"])
    first, given = found.results[0], report["results"][0]
    assert (first.work.workload, first.work.rows) == ("load-sorted", 1_000_000)
    assert first.runs == tuple(given["runs"]) and first.median == given["median"]
    assert first.share == ("sequential write", given["share"]["fraction"])
    assert first.space_amplification == 1.0625 and first.write_amplification is None
    growth = next(each for each in found.results if each.work.workload == "growth")
    assert (growth.space_amplification, growth.write_amplification) == (1.25, 4.5)
    hit = next(each for each in found.results if each.work.workload == "get-hit")
    assert hit.latency is not None and hit.latency.count == 1_000_000
    assert hit.latency.p99 == pytest.approx(4 * hit.latency.p50)
    assert found.drive.random_read[2].depth == 16
    assert found.drive.sync_us["max"] == 2100
    assert found.machine["memory_bytes"] == "26,843,545,600"
    assert found.engines["numpy"].bound and not found.engines["lmdb"].bound


@pytest.mark.parametrize(
    ("count", "names"),
    [(44, ["p50", "p90", "max"]), (200, ["p50", "p90", "p99", "max"]),
     (2000, ["p50", "p90", "p99", "p99_9", "max"])],
)  # fmt: skip
def test_percentiles_of_too_few_syncs_are_left_out(count: int, names: list[str]) -> None:
    report = full_report()
    report["drive"]["sync_us"]["count"] = count
    found = parsed(report)
    assert list(found.drive.sync_us) == names
    console = Console(file=io.StringIO(), width=200, record=True)
    show_report(found, console)
    line = next(line for line in console.export_text().splitlines() if "small append" in line)
    assert ("p99 " in line) == ("p99" in names)
    assert ("p99.9" in line) == ("p99_9" in names)
    assert ("sync, p99.9" in html.page(report)) == ("p99_9" in names)


def test_what_an_interrupted_run_lacks_may_be_absent() -> None:
    report = full_report() | {"interrupted": True}
    for member in ("machine", "drive", "engines"):
        del report[member]
    for each in report["results"]:
        for member in ("share", "latency_us", "over_time", "error", "low", "high"):
            each.pop(member)
        each["a later member"] = [1]
    report["results"] = [each for each in report["results"] if each["runs"]]
    found = parsed(report)
    assert found.interrupted and found.machine == {} and found.drive.random_read == ()
    assert all(each.error is None and each.latency is None for each in found.results)
    assert "interrupted" in html.page(report)


REFUSED: list[tuple[str, Any, str]] = [
    ("format", "fio", "report: format: expected 'cesium-bench', found fio"),
    ("version", 2, "report: version: expected 1, which this cesium reads, found 2"),
    ("version", True, "found True"),
    ("started", None, "report.started: expected a text, found None"),
    ("seconds", "long", "report.seconds: expected a number, found long"),
    ("seconds", float("nan"), "report.seconds: expected a number from 0 to 1e+18, found nan"),
    ("seconds", float("inf"), "found inf"),
    ("seconds", -1, "found -1"),
    ("interrupted", 1, "report.interrupted: expected true or false, found 1"),
    ("machine", [], "report.machine: expected an object, found []"),
    ("machine", {"flags": ["sse"]}, "report.machine.flags: expected a text or a number"),
    ("drive", {"random_read": [{"depth": 0.5}]}, "depth: expected a whole number, found 0.5"),
    ("drive", {"sync_us": {"p50": "x"}}, "report.drive.sync_us.p50: expected a number"),
    ("engines", {"lmdb": 1}, "report.engines.lmdb: expected an object, found 1"),
    ("results", {}, "report.results: expected a list, found {}"),
    ("results", [7], "report.results[0]: expected an object, found 7"),
    ("results.workload", None, "report.results[0].workload: expected a text, found None"),
    ("results.rows", 1.5, "report.results[0].rows: expected a whole number, found 1.5"),
    ("results.rows", 10**400, "report.results[0].rows: expected a number from 0 to 1e+18"),
    ("results.threads", False, "report.results[0].threads: expected a number, found False"),
    ("results.unit", "GB", "one of 'ops/s', 'rows/s', 's', found GB"),
    ("results.runs", [], "report.results[0].runs: expected at least one figure, or an error"),
    ("results.runs", [1, "2"], "report.results[0].runs[1]: expected a number, found 2"),
    ("results.median", None, "report.results[0].median: expected a number, found None"),
    ("results.share", {"of": 1}, "report.results[0].share.of: expected a text, found 1"),
    ("results.latency_us", {"p50": 1}, "report.results[0].latency_us.p90: expected a number"),
    ("results.over_time", [[1]], "report.results[0].over_time[0]: expected a list of seconds"),
    ("results.error", 5, "report.results[0].error: expected a text, found 5"),
]


@pytest.mark.parametrize(
    ("member", "value", "said"), REFUSED, ids=[f"{m} {str(v)[:20]}" for m, v, _ in REFUSED]
)
def test_what_is_no_report_is_refused_by_name(member: str, value: Any, said: str) -> None:
    report = full_report()
    where, _, inner = member.partition(".")
    if inner:
        report[where][0][inner] = value
    else:
        report[where] = value
    with pytest.raises(ReportError) as caught:
        parsed(report)
    assert said in str(caught.value)
    assert isinstance(caught.value, Error) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"{", b"[" * 200_000, b"1" * 5000, b"null", b'"text"', b"{}"]
)
def test_files_that_are_no_reports_are_named(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(data)
    with pytest.raises(ReportError, match=re.escape(str(file))):
        read(file)


def test_a_file_that_is_far_too_large_is_not_parsed(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    with file.open("wb") as target:
        target.truncate((64 << 20) + 1)
    with pytest.raises(ReportError, match="at most 64 MiB"):
        read(file)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.json")


def test_the_same_work_twice_is_refused() -> None:
    twice = result("scan", "lmdb", "rows/s", 1.0)
    with pytest.raises(ReportError, match=r"results\[1\]: expected each work of an engine once"):
        parsed(small(twice, twice))


def test_texts_lose_what_a_terminal_would_obey() -> None:
    found = parsed(small(result("a\x1b[2J\nb", "l\tm\u202edb", "ops/s", 1.0)))
    (only,) = found.results
    assert only.work.workload == "a\ufffd[2J b" and only.engine == "l m\ufffddb"
    with pytest.raises(ReportError) as caught:
        parsed(full_report() | {"format": "\x1b]0;title\x07"})
    assert "\x1b" not in str(caught.value)


# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [2, 3, 5, 20])
@pytest.mark.parametrize("noise", ["normal", "exponential"])
def test_noise_alone_is_seldom_called_a_change(runs: int, noise: str) -> None:
    random = np.random.default_rng(runs)
    called = 0
    for _ in range(1000):
        sides = [
            random.standard_normal(runs) if noise == "normal" else -random.exponential(1, runs)
            for _ in range(2)
        ]
        first, second = (np.exp(0.1 * side).tolist() for side in sides)
        found = ratio(first, second, False)
        assert found is not None
        called += found.verdict not in ("same", "unclear")
    assert called <= 50  # 95 % intervals


def test_a_change_well_above_the_noise_is_called_one() -> None:
    random = np.random.default_rng(1)
    seen = 0
    for _ in range(300):
        first, second = (np.exp(0.02 * random.standard_normal(5)).tolist() for _ in range(2))
        found = ratio([each * 1.2 for each in first], second, False)
        assert found is not None
        seen += found.verdict == "better"
    assert seen >= 290


def test_ratios_and_their_verdicts() -> None:
    better = ratio([20.0, 20.2, 19.8], [10.0, 10.1, 9.9], False)
    assert better is not None and better.value == pytest.approx(2) and better.verdict == "better"
    assert better.interval is not None and 1.9 < better.interval[0] < 2 < better.interval[1] < 2.1
    slower = ratio([20.0, 20.2, 19.8], [10.0, 10.1, 9.9], True)  # seconds
    assert slower is not None and slower.value == pytest.approx(0.5) and slower.verdict == "worse"
    loud = ratio([20.0, 5.0, 50.0], [10.0, 30.0, 2.0], False)
    assert loud is not None and loud.verdict == "unclear"
    tiny = ratio([10.2, 10.2, 10.2], [10.0, 10.0, 10.0], False)  # exact, and not worth a word
    assert tiny is not None and tiny.interval == (tiny.value, tiny.value)
    assert tiny.verdict == "same"
    once = ratio([20.0], [10.0, 10.1], False)
    assert once is not None and once.value == pytest.approx(20 / 10.05)
    assert once.interval is None and once.verdict == "unknown"
    assert ratio([0.0, 1.0], [1.0, 1.0], False) is None
    assert ratio([], [1.0], False) is None


def test_ratios_of_absurd_figures_are_numbers() -> None:
    found = ratio([1e18, 1e-300, 1e18], [5e-324, 1e17, 5e-324], False)
    assert found is not None and found.interval is not None
    assert np.isfinite([found.value, *found.interval]).all()


def test_the_quantiles_are_students() -> None:
    """By simulation: a mean over its own error leaves them in 5 % of the samples."""
    random = np.random.default_rng(3)
    for freedom in (2, 4, 9, 30):
        samples = random.standard_normal((40_000, freedom + 1))
        t = samples.mean(1) / (samples.std(1, ddof=1) / np.sqrt(freedom + 1))
        assert np.mean(np.abs(t) > STUDENT_T[freedom - 1]) == pytest.approx(0.05, abs=0.005)
    assert list(STUDENT_T) == sorted(STUDENT_T, reverse=True) and len(STUDENT_T) == 30


# --- comparison -----------------------------------------------------------------------------------


def changed(**factors: float) -> dict[str, Any]:
    """The full report with the figures of some engines multiplied."""
    report = full_report()
    for each in report["results"]:
        factor = factors.get(each["engine"], 1.0)
        each["runs"] = [figure * factor for figure in each["runs"]]
        if each["median"] is not None:
            each["median"] *= factor
    return report


def compared(first: dict[str, Any], second: dict[str, Any]) -> Comparison:
    return compare(parsed(first), parsed(second))


def test_a_faster_engine_shows_beside_its_peers() -> None:
    found = compared(full_report(), changed(cesium=1.5))
    for pair in found.pairs:
        worse_if_higher = pair.first.unit == "s"
        if pair.first.error:
            assert pair.verdict == "failed"
        elif pair.first.engine == "cesium":
            assert pair.verdict == ("worse" if worse_if_higher else "better")
        else:
            assert pair.verdict == "same"
    assert found.counts()["same"] > 30 and found.counts()["failed"] == 1
    means = found.by_engine()
    assert means["lmdb"][0] == pytest.approx(1)
    assert means["cesium"][0] > 1.3 and means["cesium"][1] == 11
    assert found.differences == found.only_first == found.only_second == ()


def test_rows_of_one_report_alone_are_listed() -> None:
    scan, get = result("scan", "cesium", "rows/s", 9.0), result("get", "cesium", "ops/s", 9.0)
    threads = result("scan", "cesium", "rows/s", 9.0, threads=2)
    found = compared(small(scan, get), small(threads, get))
    assert [pair.first.work.workload for pair in found.pairs] == ["get"]
    assert [each.work.threads for each in found.only_first] == [1]
    assert [each.work.threads for each in found.only_second] == [2]


def test_rows_that_cannot_be_compared_say_so() -> None:
    first = small(
        result("open", "cesium", "s", 1.0),
        result("scan", "cesium", "rows/s", 1.0),
        failed("get", "cesium", "ops/s", "no space"),
    )
    second = small(
        result("open", "cesium", "ops/s", 1.0),
        result("scan", "cesium", "rows/s", 0.0, runs=[0.0, 0.0]),
        result("get", "cesium", "ops/s", 5.0),
    )
    found = compared(first, second)
    assert [pair.verdict for pair in found.pairs] == ["unlike", "unlike", "failed"]
    assert cells(found.pairs[2])[3:] == ("failed", "5.00/s", "", "", "failed")


def test_what_differs_around_the_rows_is_told() -> None:
    other = full_report()
    other["machine"]["processor"] = "Xeon"
    del other["machine"]["load"]
    other["drive"]["sync_us"]["p99"] = 950
    other["drive"]["sequential_read"] = 7.0e9
    other["engines"]["lmdb"]["settings"] = "sync=False"
    other["profile"] = "full"
    found = compared(full_report(), other)
    assert {(each.name, each.first, each.second) for each in found.differences} == {
        ("processor", "AMD EPYC", "Xeon"),
        ("load", "0.25", "not said"),
        ("drive: sequential read", "2.9 GiB/s", "6.5 GiB/s"),
        ("drive: sync, p99", "260 us", "950 us"),
        ("lmdb: settings", "settings of lmdb", "sync=False"),
        ("profile", "quick", "full"),
    }


def write_reports(directory: Path) -> tuple[Path, Path]:
    files = directory / "a.json", directory / "b.json"
    second = changed(cesium=0.5)
    second["machine"]["kernel"] = "Linux 6.9"
    second["results"].append(result("load-sorted", "[bold]odd", "rows/s", 5.0))
    for file, report in zip(files, (full_report(), second)):
        file.write_text(json.dumps(report))
    return files


def test_a_comparison_in_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(compare_files(*write_reports(tmp_path)))
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert ["differs", "kernel", "Linux 6.1", "Linux 6.9"] in lines
    rows = {(line[1], line[2], line[3]): line[4:] for line in lines if line[0] == "row"}
    hit = rows["get-hit", "u64 + 8 B, 1.00 M rows", "cesium"]
    assert hit[:3] == ["2.75 M/s", "1.38 M/s", "0.50"] and hit[4] == "worse"
    assert re.fullmatch(r"0\.4\d to 0\.5\d", hit[3])
    assert rows["scan", "u64 + 8 B, 1.00 M rows, 2 threads", "cesium"][4] == "worse"
    assert rows["get-many", "u64 + 8 B, 1.00 M rows", "sqlite"][-1] == "failed"
    assert ["only B", "load-sorted", "u64 + 8 B, 1.00 M rows", "[bold]odd"] in lines


def test_a_comparison_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    show(compare_files(*write_reports(tmp_path)))
    printed = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert f"B: {tmp_path}" in printed
    assert re.search(r"get-hit +│ u64 \+ 8 B, 1.00 M rows +│ cesium .* 0.50 │ .* │ worse", printed)
    assert re.search(r"kernel +│ Linux 6.1 +│ Linux 6.9", printed)
    assert "Only in B: load-sorted (u64 + 8 B, 1.00 M rows) of [bold]odd" in printed
    assert "too many" in printed
    assert re.search(r"Geometric means of B / A: cesium 0\.\d+ \(11 rows\), .*lmdb 1.00", printed)


def test_reports_without_a_common_row(capsys: pytest.CaptureFixture[str]) -> None:
    show(compared(small(), small(result("scan", "cesium", "rows/s", 9.0))))
    assert capsys.readouterr().out == "only B\tscan\tu64 + 8 B, 1.00 M rows\tcesium\n"


# --- the page -------------------------------------------------------------------------------------


class Outline(HTMLParser):
    """What a page contains; fails on elements that are not closed in their order."""

    VOID = {"meta"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())

    def of_class(self, name: str) -> list[str]:
        return [
            classes
            for _, attributes in self.elements
            if name in (classes := attributes.get("class") or "").split()
        ]


def test_a_page_shows_every_result_in_the_same_form() -> None:
    report = full_report()
    outline = Outline(html.page(report))
    for each in report["results"]:
        if each["error"]:
            assert f"failed: {each['error']}" in outline.words
        else:
            assert figure_text(each["median"], each["unit"]) in outline.words
    headings = [words for words in outline.words if words in ("Throughput", "Latency")]
    assert sorted(set(headings)) == ["Latency", "Throughput"]
    # One bar a result that did not fail, and one a share; wins and losses are rows of one kind.
    shares = sum(1 for each in report["results"] if each["share"] and each["engine"] == "cesium")
    done = sum(1 for each in report["results"] if not each["error"])
    rooms = sum(1 for each in parsed(report).results if each.space_amplification)
    assert shares == 3 and rooms == 17
    assert len(outline.of_class("bar")) == done + shares + rooms
    assert outline.words.count("1.06 x") == 14
    assert outline.words.count("1.25 x, written 4.50 x") == 3
    assert len(outline.of_class("beam")) == 10
    assert outline.of_class("worse") == ["row worse"] * 3
    assert outline.of_class("better") == ["row better"] * 6
    assert outline.of_class("same") == ["row same"]
    assert "0.35 x lmdb, behind" in outline.words and "13.0 x lmdb, ahead" in outline.words
    curves = sum(1 for each in report["results"] if each["latency_us"] or each["over_time"])
    drawn = [attributes for tag, attributes in outline.elements if tag == "polyline"]
    assert len(drawn) == curves
    assert len(outline.of_class("legend")) == 3
    for engine in ENGINES:
        assert f"settings of {engine}" in " ".join(outline.words)
    assert {"Linux 6.1", "2.9 GiB/s", "193 k/s", "2.1 ms"} <= set(outline.words)


def test_a_page_needs_nothing_but_itself() -> None:
    page = html.page(full_report())
    assert not re.search(r"https?:|//|<script|<link|<img|@import|url\(|\bsrc=|\son\w+=", page)
    for tag, attributes in Outline(page).elements:
        if "href" in attributes:
            target = attributes["href"] or ""
            assert tag == "a" and target.startswith("#") and f'id="{target[1:]}"' in page


SYNCS = "a run of few syncs counts one more or less"


@pytest.mark.parametrize(
    ("limit", "reason"),
    [("syncs, one after another", SYNCS),
     ("random reads, depth 8", "memory answered a part, or one read of the drive several calls"),
     ("sequential write", "fewer bytes were written than the rows have")],
)  # fmt: skip
def test_a_share_above_the_whole_is_explained_by_its_limit(limit: str, reason: str) -> None:
    def shown(fraction: float) -> tuple[str, str]:
        share = {"of": limit, "fraction": fraction}
        report = small(result("put-sync", "cesium", "ops/s", 5.0, share=share))
        console = Console(file=io.StringIO(), width=200, record=True)
        show_report(parsed(report), console)
        return console.export_text(), " ".join(Outline(html.page(report)).words)

    for text in shown(1.2):
        assert f"More than the whole of {limit}: {reason}" in text
        assert (SYNCS in text) == (limit[:4] == "sync")
        assert ("memory answered" in text) == (limit[:6] == "random")
    for text in shown(0.9):
        assert "More than the whole" not in text


def test_a_peers_share_is_not_shown_as_cesiums() -> None:
    def shown(*results: dict[str, Any]) -> str:
        console = Console(file=io.StringIO(), width=200, record=True)
        show_report(parsed(small(*results, machine={})), console)
        return console.export_text()

    share = {"of": "sequential write", "fraction": 1.5}
    peer = result("load-sorted", "lmdb", "rows/s", 5.0, share=share)
    text = shown(peer)
    assert "of the drive" not in text and "of sequential write" not in text
    own = result("load-shuffled", "cesium", "rows/s", 5.0, share=share | {"fraction": 0.25})
    text = shown(peer, own)
    assert "cesium, of the drive" in text and "25.0% of sequential write" in text
    assert "150.0%" not in text and "More than the whole" not in text


def test_figures_of_engines_that_sync_every_commit_are_marked() -> None:
    def shown(**others: str) -> tuple[str, str, list[str]]:
        report = parsed(given := small(
            result("delete", "cesium", "ops/s", 500e3),
            result("delete", "zodb", "ops/s", 2e3, **others),
            machine={}, engines={name: {} for name in ("cesium", "zodb")},
        ))  # fmt: skip
        console = Console(file=io.StringIO(), width=200, record=True)
        show_report(report, console)
        words = " ".join(Outline(html.page(given)).words)
        return console.export_text(), words, report_lines(report)

    terminal, page, lines = shown(durability="sync")
    assert "2.00 k* ±" in terminal and "x zodb*" in terminal and "* synced: " in terminal
    assert "500 k ±" in terminal
    assert "2.00 k/s, synced" in page and "Synced: " in page and "500 k/s," not in page
    assert [line.split("\t")[-1] for line in lines] == ["durability", "", "sync"]
    terminal, page, _ = shown()
    assert "*" not in terminal and "ynced" not in page


def test_texts_of_a_report_are_no_markup() -> None:
    nasty = '"><script>alert(1)</script>&amp;'
    report = small(
        result(nasty, "cesium", "ops/s", 5.0, key=nasty, latency_us=latency(3.0)),
        failed(nasty, nasty, "ops/s", nasty),
        share := result("x", "cesium", "rows/s", 1.0),
        started=nasty, profile=nasty, seed=nasty, machine={nasty: nasty},
        engines={nasty: {"version": nasty, "settings": nasty}},
    )  # fmt: skip
    share["share"] = {"of": nasty, "fraction": 0.5}
    outline = Outline(html.page(report))
    assert all(tag != "script" for tag, _ in outline.elements)
    assert outline.words.count(nasty) >= 6


def test_empty_parts_are_left_out() -> None:
    page = html.page(small(machine={}, drive={}, engines={}))
    assert "<section" not in page and "cesium bench" in page
    only = html.page(small(result("scan", "cesium", "rows/s", 9.0), machine={}, drive={}))
    assert re.findall(r'<section id="(\w+)"', only) == ["throughput", "machine"]


def test_odd_figures_still_make_a_page() -> None:
    zero = dict.fromkeys(("p50", "p90", "p99", "p99_9", "max"), 0.0) | {"count": 0}
    report = small(
        result("zero", "cesium", "ops/s", 0.0, latency_us=zero, over_time=[[0, 0], [0, 5]]),
        result("zero", "lmdb", "ops/s", 0.0, runs=[0.0]),
        result("huge", "cesium", "ops/s", 9e17, latency_us=zero | {"max": 1e18}),
        result("huge", "lmdb", "ops/s", 1e-300, over_time=[[5, 10], [4, 20], [6, 3], [8, 90]]),
        result("once", "cesium", "ops/s", 5.0, runs=[5.0], low=None, high=None),
        result("once", "lmdb", "ops/s", 5.0),
        result("long", "cesium", "ops/s", 5.0, over_time=[[n, n * 7] for n in range(5000)]),
        failed("bad", "cesium", "ops/s", "broke"),
        result("bad", "lmdb", "ops/s", 5.0),
        result("late", "cesium", "ops/s", 5.0, error="broke in the second run"),
    )
    page = html.page(report)
    outline = Outline(page)
    assert "nan" not in page and "inf" not in page
    assert "failed: broke" in outline.words
    assert "5.00/s, then failed: broke in the second run" in outline.words
    verdicts = {each.work.workload: each.verdict for each in standings(parsed(report))}
    assert verdicts == {
        "zero": "alone", "huge": "better", "once": "unknown", "long": "alone", "bad": "failed",
        "late": "failed",
    }  # fmt: skip
    longest = max(len(each[1].get("points") or "") for each in outline.elements)
    assert 60 * 8 < longest < 62 * 14


def test_a_bound_is_no_peer() -> None:
    bound = {"numpy": {"version": "2", "settings": "", "bound": True}}
    rows = [result("scan", name, "rows/s", 9.0) for name in ("cesium", "numpy")]
    (found,) = standings(parsed(small(*rows, engines=bound)))
    assert found.best is None and found.verdict == "alone"
    (found,) = standings(parsed(small(*rows, engines={})))
    assert found.best is not None and found.best.engine == "numpy" and found.verdict == "same"


def test_rates_come_from_the_rows_so_far() -> None:
    found = over_time.rates_of(((1, 10), (2, 40), (3, 40)))
    assert found == [(0, 10), (0.5, 10), (1.5, 30), (2.5, 0), (3, 0)]
    # A clock that goes back, and rows that become fewer, are passed over.
    assert over_time.rates_of(((2, 10), (1, 20), (3, 5), (4, 50))) == [
        (0, 5),
        (1, 5),
        (3, 20),
        (4, 20),
    ]
    assert over_time.rates_of(()) == over_time.rates_of(((0, 5),)) == []
    many = over_time.rates_of([(n / 100, n * 7) for n in range(1, 5001)])
    assert len(many) == 62
    assert all(rate == pytest.approx(700) for _, rate in many)


def test_a_curve_is_cut_between_two_points() -> None:
    curve = [(0.0, 10.0), (2.0, 20.0), (4.0, 40.0)]
    assert over_time.until(curve, 3) == [(0, 10), (2, 20), (3, 30)]
    assert over_time.until(curve, 2) == [(0, 10), (2, 20), (2, 20)]
    assert over_time.until(curve, 9) == curve


def test_slow_engines_do_not_squeeze_the_curves_of_the_others() -> None:
    slow = [[150.0, 300]]
    rows = [result("growth", name, "rows/s", 5.0, over_time=growth(9e5)) for name in ENGINES[:3]]
    rows.append(result("growth", "slow", "rows/s", 2.0, over_time=slow))
    page = html.page(small(*rows))
    across = re.search(r'<div class="across">(.*?)</div>', page)
    assert across is not None
    assert re.findall(r">([^<]+)</span>", across[1]) == ["0", "10 s", "20 s", "30 s"]
    curves = re.findall(r'<polyline points="([^"]+)"', page)
    ends = [[float(pair.split(",")[0]) for pair in curve.split()] for curve in curves]
    assert len(ends) == 4 and max(max(each) for each in ends) <= 100
    assert min(max(each) for each in ends) > 60, "each is as wide as its time"


def test_axes() -> None:
    axis = charts.linear_axis(1.31e6, count_text)
    assert [text for _, text in axis.ticks] == ["0", "500 k", "1.00 M", "1.50 M"]
    assert axis.place(0.75e6) == pytest.approx(0.5)
    wide = charts.logarithmic_axis(3, 70_000, count_text)
    assert (wide.low, wide.high) == (1, 100_000) and wide.place(1000) == pytest.approx(0.6)
    short = charts.logarithmic_axis(3, 18, count_text)
    assert [value for value, _ in short.ticks] == [2, 5, 10, 20]
    assert short.place(0) == 0, "what has no logarithm lies at the low end"


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    html.write(full_report(), file)
    assert file.read_text() == html.page(full_report())
    with pytest.raises(ReportError):
        html.write({}, file)
    assert file.read_text() == html.page(full_report())
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError):
        html.write(full_report(), tmp_path / "directory")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["directory", "report.html"]


def test_a_report_is_not_changed_by_its_page() -> None:
    report = full_report()
    before = copy.deepcopy(report)
    html.page(report)
    assert report == before


def test_texts() -> None:
    assert [count_text(each) for each in (0, 0.5, 9.999, 42, 999.6, 1310, 28.5e6, 3e12)] == [
        "0", "0.50", "10.0", "42.0", "1.00 k", "1.31 k", "28.5 M", "3.00 T",
    ]  # fmt: skip
    assert [ratio_text(each) for each in (0.0042, 0.35, 1, 12.34, 240.4)] == [
        "0.0042", "0.35", "1.00", "12.3", "240",
    ]  # fmt: skip
    assert figure_text(0.00042, "s") == "420 us" and figure_text(None, "s") == ""
    work = parsed(small(result("x", "y", "s", 1.0, value=65536, threads=2))).results[0].work
    assert data_text(work) == "u64 + 64 KiB, 1.00 M rows, 2 threads"
