"""The last part of the page: what the figures depend on."""

from __future__ import annotations

from collections.abc import Iterator

from cesium.benchmark.elements import Markup, element
from cesium.benchmark.reading import Drive, Report
from cesium.benchmark.tables import table
from cesium.benchmark.texts import count_text, micros_text
from cesium.figures import bytes_text


def machine_section(report: Report) -> Markup:
    """Machine, drive and engines as tables; those without a row are left out."""
    facts = [[name.replace("_", " "), said] for name, said in report.machine.items()]
    engines = [
        [name, engine.version, engine.settings + (" (a bound)" if engine.bound else "")]
        for name, engine in report.engines.items()
    ]
    tables = [
        ("Machine", ("", ""), facts),
        ("Drive by itself", ("", ""), [list(row) for row in _rates(report.drive)]),
        ("Random reads of 4 KiB", *_random_reads(report.drive)),
        ("Engines", ("engine", "version", "settings"), engines),
    ]
    cards = [element("div", table(*each), class_="card") for each in tables if each[2]]
    return element("div", *cards, class_="columns") if cards else Markup()


def _rates(drive: Drive) -> Iterator[tuple[str, str]]:
    for name in ("sequential_read", "sequential_write"):
        rate = getattr(drive, name)
        if rate is not None:
            yield name.replace("_", " "), f"{bytes_text(int(rate))}/s"
    for name, micros in drive.sync_us.items():
        yield f"sync, {name.replace('_', '.')}", micros_text(micros)


def _random_reads(drive: Drive) -> tuple[tuple[str, ...], list[list[str]]]:
    rows = [
        [
            str(each.depth),
            f"{count_text(each.reads_per_second)}/s",
            "" if each.p50_us is None else micros_text(each.p50_us),
            "" if each.p99_us is None else micros_text(each.p99_us),
        ]
        for each in drive.random_read
    ]
    return ("at once", "reads", "p50", "p99"), rows
