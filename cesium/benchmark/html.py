"""A report of `cesium bench` as one self-contained HTML page.

    write(report, Path("report.html"))

The page needs no network, no script and no other file: its style is in it, its plots are HTML and
SVG made by charts.py.  (matplotlib was left out on purpose: its SVG has fixed colours, so no dark
page, and texts that shrink with the picture, so nothing to read on a phone.)  It is read in light
and dark, on a phone and on paper.

The rows that cesium loses come in the same place, size and form as those it wins: the order is the
report's, and the first plot shows every work beside the best peer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cesium.benchmark.charts import Axis, Bar, Curve, bars, logarithmic_axis, plot
from cesium.benchmark.elements import Markup, element, joined, percent
from cesium.benchmark.keeping import write_file
from cesium.benchmark.machine_tables import machine_section
from cesium.benchmark.over_time import WINDOWS, rates_of, time_plot
from cesium.benchmark.page_style import STYLE
from cesium.benchmark.reading import Report, Result, Work, parsed
from cesium.benchmark.standing import OWN, Standing, by_work, counts, ranked, standings
from cesium.benchmark.tables import table
from cesium.benchmark.texts import (
    above_whole_text,
    count_text,
    data_text,
    figure_text,
    micros_text,
    ratio_text,
)
from cesium.figures import seconds_text

__all__ = ["page", "write"]

PERCENTILE_NAMES = {"p50": "50 %", "p90": "90 %", "p99": "99 %", "p99_9": "99.9 %", "max": "most"}
REACH_MAX = 1e5  # of the plot of ratios: a beam that is longer ends at its edge
VERDICT_WORDS = {
    "better": "ahead", "worse": "behind", "same": "level", "unclear": "unclear for noise",
    "unknown": "measured once", "failed": "failed", "alone": "without a peer",
}  # fmt: skip


def write(report: dict[str, Any], file: Path) -> None:
    """Writes the page of a report.

    ReportError (a ValueError) when the object is no report; OSError when the file cannot be
    written, and then what was there stays.
    """
    write_file(file, page(report))


def page(report: dict[str, Any]) -> str:
    """The page as a text."""
    found = parsed(report)
    numbers = engine_numbers(found)
    sections = [
        ("standing", "Beside the best peer", _standing_section(found)),
        ("throughput", "Throughput", _throughput_section(found, numbers)),
        ("latency", "Latency", _latency_section(found, numbers)),
        ("time", "Throughput over time", _time_section(found, numbers)),
        ("share", "Share of the drive's limit", _share_section(found)),
        ("space", "Room on the drive", _space_section(found, numbers)),
        ("machine", "Machine, drive and engines", machine_section(found)),
    ]
    shown = [section for section in sections if section[2]]
    body = joined(
        _head(found),
        element("nav", *(element("a", title, href=f"#{name}") for name, title, _ in shown)),
        *(
            element("section", element("h2", title), content, id=name)
            for name, title, content in shown
        ),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>cesium bench</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def engine_numbers(report: Report) -> dict[str, int]:
    """A number for each engine, which is its colour: cesium's is 0."""
    names = [OWN, *report.engines, *(result.engine for result in report.results)]
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _head(report: Report) -> Markup:
    runs = sorted({len(result.runs) for result in report.results if result.runs})
    spread = "" if not runs else f", medians of {' or '.join(map(str, runs))} runs"
    facts = (
        f"{report.started}, {seconds_text(report.seconds)}, profile {report.profile}, "
        f"seed {report.seed}, {len(report.results)} results{spread}"
    )
    warning = Markup()
    if report.interrupted:
        said = "This run was interrupted: what it had not come to is missing."
        warning = element("p", said, class_="warning")
    return joined(element("h1", "cesium bench"), element("p", facts, class_="faint"), warning)


def _card(work: Work, *content: str) -> Markup:
    return element(
        "div",
        element("h3", work.workload),
        element("p", data_text(work), class_="data"),
        *content,
        class_="card",
    )


# --- beside the best peer -------------------------------------------------------------------------


def _standing_section(report: Report) -> Markup:
    found = standings(report)
    measured = [each for each in found if each.ratio is not None]
    if not measured:
        return Markup()
    said = ", ".join(f"{VERDICT_WORDS[name]} {count}" for name, count in counts(found).items())
    reach = max(max(each.ratio.value, 1 / each.ratio.value) for each in measured if each.ratio)
    reach = min(max(reach, 1.1), REACH_MAX)
    reach = logarithmic_axis(1.0, reach, ratio_text, (1, 2, 5)).high
    axis = Axis(1 / reach, reach, (), logarithmic=True)
    ends = [(1 / reach, ", slower"), (1.0, ", as fast"), (reach, ", faster")]
    scale = (
        element(
            "span",
            f"{ratio_text(at)} x",
            element("span", word, class_="word"),
            style=f"left:{percent(axis.place(at))}",
        )
        for at, word in ends
    )
    return joined(
        element(
            "p",
            f"Works of cesium: {said}. Ratios of medians to the fastest peer at the same work, on "
            "a logarithmic scale; grey where the spread of the runs does not tell it from 1.",
        ),
        element(
            "div",
            element(
                "div",
                element("span", class_="label"),
                element("span", *scale, class_="scale"),
                element("span", class_="figure"),
                class_="row",
            ),
            *(_standing(each, axis) for each in found if each.verdict != "alone"),
            class_="standing wide",
        ),
    )


def _standing(each: Standing, axis: Axis) -> Markup:
    label = element("span", f"{each.work.workload}, {data_text(each.work)}", class_="label")
    if each.ratio is None or each.best is None:
        figure = element("span", f"failed: {each.own.error}", class_="figure")
        return element("div", label, figure, class_="row wordy failed")
    start, end = sorted((0.5, min(axis.place(each.ratio.value), 1.0)))
    beam = element(
        "span", class_="beam", style=f"left:{percent(start)};width:{percent(end - start)}"
    )
    said = f"{ratio_text(each.ratio.value)} x {each.best.engine}, {VERDICT_WORDS[each.verdict]}"
    between = each.ratio.interval
    return element(
        "div",
        label,
        element("span", beam, class_="track"),
        element("span", said, class_="figure"),
        class_=f"row {each.verdict}",
        title="" if between is None else "95 %: " + " to ".join(map(ratio_text, between)),
    )


# --- throughput -----------------------------------------------------------------------------------


def _throughput_section(report: Report, numbers: dict[str, int]) -> Markup:
    works = by_work(report.results)
    if not works:
        return Markup()
    bounds = {name for name, engine in report.engines.items() if engine.bound}
    cards = (
        _card(work, *_lower_is_better(results), bars(list(_bars(results, numbers, bounds))))
        for work, results in works.items()
    )
    hatched = " Hatched: a bound, which has no keyed, durable writes." if bounds else ""
    said = "Medians, best first; the line across a bar goes from the slowest to the fastest run."
    if any(map(_durability, report.results)):
        said += " Synced: the engine waits for the drive at each commit, others need not."
    return joined(element("p", said + hatched), element("div", *cards, class_="cards"))


def _lower_is_better(results: Sequence[Result]) -> Iterator[Markup]:
    if results[0].lower_is_better:
        yield element("p", "A time: shorter is better.", class_="data")


def _durability(result: Result) -> str:
    return ", synced" if result.durability == "sync" else ""


def _bars(results: Sequence[Result], numbers: dict[str, int], bounds: set[str]) -> Iterator[Bar]:
    widest = max((max(each.median or 0, each.high or 0) for each in results), default=0) or 1
    for each in ranked(results):
        kinds = [kind for kind, holds in (
            ("own", each.engine == OWN), ("bound", each.engine in bounds), ("failed", each.error)
        ) if holds]  # fmt: skip
        kind = " ".join(kinds)
        if each.median is None:
            yield Bar(each.engine, f"failed: {each.error}", kind=kind)
            continue
        text = figure_text(each.median, each.unit) + _durability(each)
        yield Bar(
            each.engine,
            text if not each.error else f"{text}, then failed: {each.error}",
            each.median / widest,
            None if each.low is None else each.low / widest,
            None if each.high is None else each.high / widest,
            numbers[each.engine],
            kind=kind,
            title="runs: " + ", ".join(figure_text(figure, each.unit) for figure in each.runs),
        )


# --- latency --------------------------------------------------------------------------------------


def _latency_section(report: Report, numbers: dict[str, int]) -> Markup:
    cards = []
    for work, results in by_work(report.results).items():
        timed = [each for each in ranked(results) if each.latency and each.latency.max > 0]
        if timed:
            cards.append(_card(work, _percentile_plot(timed, numbers), _percentile_table(timed)))
    if not cards:
        return Markup()
    said = "Percentiles of single operations; the scale of times is logarithmic."
    return joined(element("p", said), element("div", *cards, class_="cards"))


def _percentiles(result: Result) -> list[float]:
    return [getattr(result.latency, name) for name in PERCENTILE_NAMES]


def _percentile_plot(timed: Sequence[Result], numbers: dict[str, int]) -> Markup:
    times = [time for each in timed for time in _percentiles(each) if time > 0]
    names = list(PERCENTILE_NAMES.values())
    across = Axis(-0.2, len(names) - 0.8, tuple(enumerate(names)))
    curves = [
        Curve(each.engine, list(enumerate(_percentiles(each))), numbers[each.engine])
        for each in timed
    ]
    up = logarithmic_axis(min(times), max(times), micros_text)
    return plot(curves, across, up, ("share of operations that took no longer", "time"))


def _percentile_table(timed: Sequence[Result]) -> Markup:
    rows = [
        [
            each.engine,
            *map(micros_text, _percentiles(each)),
            count_text(each.latency.count if each.latency else 0),
        ]
        for each in timed
    ]
    header = ["engine", *PERCENTILE_NAMES.values(), "operations"]
    return element("details", element("summary", "Figures"), table("", header, rows))


# --- throughput over time -------------------------------------------------------------------------


def _time_section(report: Report, numbers: dict[str, int]) -> Markup:
    cards = []
    for work, results in by_work(report.results).items():
        curves = [
            Curve(each.engine, rates, numbers[each.engine])
            for each in results
            if (rates := rates_of(each.over_time))
        ]
        if curves:
            cards.append(_card(work, time_plot(curves)))
    if not cards:
        return Markup()
    said = (
        f"Rows a second while the store grows, in up to {WINDOWS} windows of each engine's time; "
        "the scale is logarithmic. An engine that took much longer than the others is cut off."
    )
    return joined(element("p", said), element("div", *cards, class_="cards"))


# --- share of the drive's limit -------------------------------------------------------------------


def _share_section(report: Report) -> Markup:
    limits: dict[str, list[tuple[Result, Result | None]]] = {}
    others = {OWN, *(name for name, engine in report.engines.items() if engine.bound)}
    for results in by_work(report.results).values():
        peers = [each for each in ranked(results) if each.share and each.engine not in others]
        for own in (each for each in results if each.share and each.engine == OWN):
            assert own.share is not None
            limits.setdefault(own.share[0], []).append((own, peers[0] if peers else None))
    if not limits:
        return Markup()
    cards = (
        element(
            "div",
            element("h3", f"Of {limit}"),
            bars(list(_shares(pairs))),
            *_above_whole(limit, pairs),
            class_="card wide",
        )
        for limit, pairs in limits.items()
    )
    said = (
        "What cesium reached of what the drive itself did in the same run. The solid line is the "
        "whole, the dotted one the best peer's share."
    )
    return joined(element("p", said), element("div", *cards, class_="stack"))


def _fractions(pairs: Sequence[tuple[Result, Result | None]]) -> list[float]:
    return [each.share[1] for pair in pairs for each in pair if each and each.share]


def _above_whole(limit: str, pairs: Sequence[tuple[Result, Result | None]]) -> Iterator[Markup]:
    if max(_fractions(pairs)) > 1:
        yield element("p", above_whole_text(limit), class_="data")


def _shares(pairs: Sequence[tuple[Result, Result | None]]) -> Iterator[Bar]:
    widest = max(1.0, *_fractions(pairs))
    for own, peer in pairs:
        assert own.share is not None
        text = f"{own.share[1] * 100:.3g} %"
        mark = None
        if peer is not None and peer.share is not None:
            text += f"; {peer.engine} {peer.share[1] * 100:.3g} %"
            mark = peer.share[1] / widest
        label = f"{own.work.workload}, {data_text(own.work)}"
        yield Bar(label, text, own.share[1] / widest, mark=mark, whole=1 / widest)


# --- room on the drive ----------------------------------------------------------------------------


def _space_section(report: Report, numbers: dict[str, int]) -> Markup:
    cards = []
    for work, results in by_work(report.results).items():
        known = [each for each in results if each.space_amplification is not None]
        if known:
            known.sort(key=lambda each: each.space_amplification or 0)
            cards.append(_card(work, bars(list(_amplifications(known, numbers)))))
    if not cards:
        return Markup()
    said = (
        "Bytes on the drive over bytes of the rows, and where it was counted, bytes that were "
        "written over bytes of the rows; shorter is better."
    )
    return joined(element("p", said), element("div", *cards, class_="cards room"))


def _amplifications(known: Sequence[Result], numbers: dict[str, int]) -> Iterator[Bar]:
    widest = max(each.space_amplification or 0 for each in known) or 1
    for each in known:
        space = each.space_amplification or 0
        text = f"{ratio_text(space)} x"
        if each.write_amplification is not None:
            text += f", written {ratio_text(each.write_amplification)} x"
        kind = "own" if each.engine == OWN else ""
        yield Bar(each.engine, text, space / widest, colour=numbers[each.engine], kind=kind)
