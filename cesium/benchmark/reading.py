"""Reports of `cesium bench` as files: read, checked member by member, and turned into records.

A report is one JSON object: {"format": "cesium-bench", "version": 1, "started", "seconds",
"profile", "seed", "interrupted", "machine", "drive", "engines", "results"}.  Members that are not
known are passed over, so that a later program may add some; those of a result beyond the first
seven may be absent or null, as in a report that was interrupted.

What is read may come from anywhere: every text, number and size is checked here, and nowhere else.
Errors are ReportError and name the file, the member, what was expected and what was found.
Thread safety: the functions hold no state; records do not change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cesium.errors import Error

FORMAT = "cesium-bench"
VERSION = 1
UNITS = ("ops/s", "rows/s", "s")
PERCENTILES = ("p50", "p90", "p99", "p99_9", "max")
# A percentile of fewer calls than these is that of one or two of them.
CALLS_LEAST = {"p99": 200, "p99_9": 2000}

# A full report of all engines is below 2 MiB; more is some other file, or meant to do harm.
FILE_BYTES_MAX = 64 << 20
NUMBER_MAX = 1e18


class ReportError(Error, ValueError):
    """A file or an object is not a report of `cesium bench`."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of single operations in microseconds, and how many operations there were."""

    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float
    count: int


@dataclass(frozen=True, slots=True)
class Work:
    """What was done: results of one work may be laid beside each other.  value: bytes."""

    workload: str
    key: str
    value: int
    rows: int
    threads: int


@dataclass(frozen=True, slots=True)
class Result:
    """One engine at one work.

    unit: "ops/s", "rows/s", or "s", where lower is better.  runs: a figure per run; empty when it
    failed, which `error` then explains.  share: of what limit of the drive, and which fraction.
    over_time: seconds since the start, and rows so far.  durability: "sync" where the engine syncs
    every commit and others need not.
    """

    work: Work
    engine: str
    unit: str
    runs: tuple[float, ...] = ()
    median: float | None = None
    low: float | None = None
    high: float | None = None
    share: tuple[str, float] | None = None
    latency: Latency | None = None
    over_time: tuple[tuple[float, float], ...] = ()
    error: str | None = None
    space_amplification: float | None = None
    write_amplification: float | None = None
    durability: str | None = None

    @property
    def lower_is_better(self) -> bool:
        return self.unit == "s"


@dataclass(frozen=True, slots=True)
class RandomRead:
    """Reads of 4 KiB at random places, so many at once; the times are of one read."""

    depth: int
    reads_per_second: float
    p50_us: float | None
    p99_us: float | None


@dataclass(frozen=True, slots=True)
class Drive:
    """What the drive itself did.  Rates in bytes a second, sync times in microseconds.

    sync_us: without the percentiles for which there were too few syncs, if their count is told.
    """

    sequential_read: float | None = None
    sequential_write: float | None = None
    random_read: tuple[RandomRead, ...] = ()
    sync_us: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine as it ran.  bound: what memory alone would do, no peer with keyed writes."""

    version: str
    settings: str
    bound: bool


@dataclass(frozen=True, slots=True)
class Report:
    """One run of `cesium bench`."""

    started: str
    seconds: float
    profile: str
    seed: str
    interrupted: bool
    machine: Mapping[str, str]
    drive: Drive
    engines: Mapping[str, Engine]
    results: tuple[Result, ...]


def read(file: Path) -> Report:
    """The report in a file.  ReportError when it is none, OSError when it cannot be read."""
    with file.open("rb") as source:
        data = source.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise _refusal(str(file), f"at most {FILE_BYTES_MAX >> 20} MiB", "more")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise ReportError(f"{file}: expected a JSON report of 'cesium bench': {reason}") from None
    return parsed(content, str(file))


def parsed(report: Any, name: str = "report") -> Report:
    """A report from JSON's objects.  name: what errors call it.  Raises ReportError."""
    top = _Object(report, name)
    if top.content.get("format") != FORMAT:
        raise _refusal(f"{name}: format", repr(FORMAT), top.content.get("format"))
    version = top.content.get("version")
    if version != VERSION or isinstance(version, bool):
        raise _refusal(f"{name}: version", f"{VERSION}, which this cesium reads", version)
    engines = {
        _printable(engine): Engine(
            item.text("version", ""), item.text("settings", ""), item.flag("bound")
        )
        for engine, item in top.inner("engines").members()
    }
    results = tuple(_result(item) for item in top.each("results"))
    seen: set[tuple[Work, str]] = set()
    for number, result in enumerate(results):
        if (result.work, result.engine) in seen:
            found = f"a second {result.work.workload} of {result.engine} with the same data"
            raise _refusal(f"{name}: results[{number}]", "each work of an engine once", found)
        seen.add((result.work, result.engine))
    return Report(
        started=top.text("started"),
        seconds=top.number("seconds"),
        profile=top.text("profile"),
        seed=_printable(str(top.content.get("seed", ""))),
        interrupted=top.flag("interrupted"),
        machine=top.inner("machine").facts(),
        drive=_drive(top.inner("drive")),
        engines=engines,
        results=results,
    )


def _engine(item: _Object) -> Engine:
    return Engine(item.text("version", ""), item.text("settings", ""), item.flag("bound"))


def _drive(drive: _Object) -> Drive:
    sync = drive.inner("sync_us")
    count = sync.maybe_number("count")
    enough = [
        name for name in PERCENTILES
        if sync.content.get(name) is not None
        and (count is None or count >= CALLS_LEAST.get(name, 1))
    ]  # fmt: skip
    return Drive(
        drive.maybe_number("sequential_read"),
        drive.maybe_number("sequential_write"),
        tuple(
            RandomRead(
                item.whole("depth"),
                item.number("reads_per_second"),
                item.maybe_number("p50_us"),
                item.maybe_number("p99_us"),
            )
            for item in drive.each("random_read")
        ),
        {name: sync.number(name) for name in enough},
    )


def _result(item: _Object) -> Result:
    numbers = ("value", "rows", "threads")
    work = Work(item.text("workload"), item.text("key"), *(item.whole(name) for name in numbers))
    unit = item.text("unit")
    if unit not in UNITS:
        raise _refusal(f"{item.name}.unit", "one of " + ", ".join(map(repr, UNITS)), unit)
    error = item.text("error", "") or None
    runs = tuple(item.numbers("runs"))
    if error is None and not runs:
        raise _refusal(f"{item.name}.runs", "at least one figure, or an error", "neither")
    share, latency = item.maybe_inner("share"), item.maybe_inner("latency_us")
    return Result(
        work,
        item.text("engine"),
        unit,
        runs,
        item.number("median") if runs else None,
        item.maybe_number("low"),
        item.maybe_number("high"),
        None if share is None else (share.text("of"), share.number("fraction")),
        None
        if latency is None
        else Latency(
            latency.number("p50"),
            latency.number("p90"),
            latency.number("p99"),
            latency.number("p99_9"),
            latency.number("max"),
            latency.whole("count"),
        ),
        tuple(item.pairs("over_time")),
        error,
        _space_amplification(item),
        item.maybe_number("write_amplification"),
        item.text("durability", "") or None,
    )


def _space_amplification(item: _Object) -> float | None:
    """As it is told, or from what a load says of its bytes."""
    disk, raw = item.maybe_number("disk_bytes"), item.maybe_number("raw_bytes")
    if disk is not None and raw:
        return disk / raw
    return item.maybe_number("space_amplification")


def _refusal(where: str, expected: str, found: Any) -> ReportError:
    shown = _printable(found) if isinstance(found, str) else repr(found)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return ReportError(f"{_printable(where)}: expected {expected}, found {shown}")


def _printable(text: str) -> str:
    """One line without what a terminal would obey."""
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)


def _number(value: Any, where: str) -> float:
    """A finite number that is not negative, as all figures are."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refusal(where, "a number", value)
    if not (0 <= value <= NUMBER_MAX):  # also for NaN
        raise _refusal(where, f"a number from 0 to {NUMBER_MAX:g}", value)
    return float(value)


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object, the name by which errors call it, and its members with their types checked."""

    value: Any
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.value, dict):
            raise _refusal(self.name, "an object", self.value)

    @property
    def content(self) -> dict[str, Any]:
        return self.value  # type: ignore[no-any-return]

    def text(self, member: str, default: str | None = None) -> str:
        value = self.content.get(member)
        value = default if value is None else value
        if not isinstance(value, str):
            raise _refusal(f"{self.name}.{member}", "a text", value)
        return _printable(value)

    def flag(self, member: str) -> bool:
        value = self.content.get(member, False)
        if not isinstance(value, bool):
            raise _refusal(f"{self.name}.{member}", "true or false", value)
        return value

    def number(self, member: str) -> float:
        return _number(self.content.get(member), f"{self.name}.{member}")

    def maybe_number(self, member: str) -> float | None:
        return None if self.content.get(member) is None else self.number(member)

    def whole(self, member: str) -> int:
        if not self.number(member).is_integer():
            raise _refusal(f"{self.name}.{member}", "a whole number", self.content[member])
        return int(self.content[member])

    def array(self, member: str) -> list[Any]:
        value = self.content.get(member)
        value = [] if value is None else value
        if not isinstance(value, list):
            raise _refusal(f"{self.name}.{member}", "a list", value)
        return value

    def numbers(self, member: str) -> Iterator[float]:
        for place, value in enumerate(self.array(member)):
            yield _number(value, f"{self.name}.{member}[{place}]")

    def pairs(self, member: str) -> Iterator[tuple[float, float]]:
        for place, pair in enumerate(self.array(member)):
            where = f"{self.name}.{member}[{place}]"
            if not isinstance(pair, list) or len(pair) < 2:
                raise _refusal(where, "a list of seconds and rows", pair)
            yield _number(pair[0], where), _number(pair[1], where)

    def each(self, member: str) -> Iterator[_Object]:
        for place, value in enumerate(self.array(member)):
            yield _Object(value, f"{self.name}.{member}[{place}]")

    def inner(self, member: str) -> _Object:
        value = self.content.get(member)
        return _Object({} if value is None else value, f"{self.name}.{member}")

    def maybe_inner(self, member: str) -> _Object | None:
        return None if self.content.get(member) is None else self.inner(member)

    def members(self) -> Iterator[tuple[str, _Object]]:
        for member, value in self.content.items():
            yield member, _Object(value, f"{self.name}.{member}")

    def facts(self) -> dict[str, str]:
        """Members that are texts and numbers, as texts; null is left out."""
        found = {}
        for given, value in self.content.items():
            member = _printable(given)
            if isinstance(value, bool):
                found[member] = "yes" if value else "no"
            elif isinstance(value, int) and abs(value) <= NUMBER_MAX:
                found[member] = f"{value:,}"
            elif isinstance(value, float) and math.isfinite(value):
                found[member] = f"{value:.6g}"
            elif isinstance(value, str):
                found[member] = _printable(value)
            elif value is not None:
                raise _refusal(f"{self.name}.{member}", "a text or a number", value)
        return found
