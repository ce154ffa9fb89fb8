"""Speeds as multiples of references timed in the same run, beside those recorded before.

bench/baseline.json holds, for each kernel, the median ratio (the reference's seconds over the
kernel's) of each of some sessions: whole runs of the suite, each a process of its own.  A ratio
knows neither the clock of the processor nor, mostly, what else the machine is doing, for that meets
both sides of a round.

The rounds of one session do not tell how far sessions lie apart: where memory lies and what
neighbours do to the caches is common to all its rounds.  With the spread of rounds alone, 7 of 18
kernels seemed to have changed between two sessions of the same build.  So a session is one figure,
and is beside what was recorded when it lies in the 95 % interval for one more session (Student's t,
on logarithms), which the recorded ones predict.  Another processor has other ratios: then a line
says so.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cesium.benchmark.noise import STUDENT_T, Ratio
from cesium.benchmark.texts import ratio_text

FILE = Path(__file__).with_name("baseline.json")
STYLES = {"better": "green", "worse": "bold red", "new": "bold", "unclear": "dim"}


@dataclass
class Baseline:
    """The ratio of each session by kernel, and the machine."""

    machine: Mapping[str, str]
    sessions: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path = FILE) -> Baseline | None:
        """What was recorded; None where nothing was."""
        if not file.exists():
            return None
        record: dict[str, Any] = json.loads(file.read_text())
        return cls(record["machine"], record["sessions"])

    def write(self, file: Path = FILE) -> None:
        """Records what this has as one file, a line a kernel."""
        lines = [
            f"  {json.dumps(name)}: {json.dumps([float(f'{each:.4g}') for each in found])}"
            for name, found in self.sessions.items()
        ]
        machine = json.dumps(dict(self.machine))
        text = ",\n".join(lines)
        file.write_text(f'{{\n "machine": {machine},\n "sessions": {{\n{text}\n }}\n}}\n')


@dataclass
class Session:
    """What one run of the suite measured: the ratios of every round by kernel."""

    machine: Mapping[str, str]
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def added_to(self, before: Baseline | None) -> Baseline:
        """A record with one session more; a new one where the machine is another."""
        if before is None or differences(self, before):
            before = Baseline(self.machine)
        return Baseline(
            self.machine,
            {
                name: [*before.sessions.get(name, []), statistics.median(found)]
                for name, found in self.rounds.items()
            },
        )


@dataclass(frozen=True)
class Change:
    """One kernel now and as recorded.  change: None where it is new."""

    kernel: str
    rounds: Sequence[float]
    before: Sequence[float]
    change: Ratio | None

    @property
    def verdict(self) -> str:
        return "new" if self.change is None else self.change.verdict


def changes(now: Session, before: Baseline | None) -> list[Change]:
    """The kernels measured now, in their order, beside what was recorded of them."""
    old = before.sessions if before is not None else {}
    return [
        Change(name, found, old.get(name, []), change(statistics.median(found), old.get(name, [])))
        for name, found in now.rounds.items()
    ]


def change(now: float, sessions: Sequence[float]) -> Ratio | None:
    """One session beside those recorded: its ratio to their median, with the interval."""
    if not sessions:
        return None
    value = now / statistics.median(sessions)
    if len(sessions) < 2:
        return Ratio(value, None)
    spread = statistics.stdev(math.log(each) for each in sessions)
    t = STUDENT_T[min(len(sessions) - 1, len(STUDENT_T)) - 1]
    factor = math.exp(t * spread * math.sqrt(1 + 1 / len(sessions)))
    return Ratio(value, (value / factor, value * factor))


def differences(now: Session, before: Baseline | None) -> list[str]:
    """How the machines differ, a text each."""
    old = before.machine if before is not None else now.machine
    return [
        f"{name}: {old.get(name, 'not said')} then, {now.machine[name]} now"
        for name in now.machine
        if old.get(name) != now.machine[name]
    ]


def noise_percent(rounds: Sequence[float]) -> float:
    """How far the middle half of the rounds lies apart, in percent of their median."""
    if len(rounds) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(rounds, n=4, method="inclusive")
    return (high - low) / middle * 100


def show(found: Sequence[Change], differing: Sequence[str], console: Console) -> None:
    """The table, and what to make of it."""
    table = Table(title="times as fast as the reference of the same run", title_justify="left")
    table.add_column("kernel and reference", overflow="fold")
    for column in ("recorded", "now", "noise", "change", "95 % interval"):
        table.add_column(column, justify="right")
    table.add_column("")
    for each in found:
        between = each.change.interval if each.change is not None else None
        table.add_row(
            Text(each.kernel),
            ratio_text(statistics.median(each.before)) if each.before else "",
            ratio_text(statistics.median(each.rounds)),
            f"{noise_percent(each.rounds):.0f} %",
            "" if each.change is None else f"{(each.change.value - 1) * 100:+.1f} %",
            "" if between is None else " to ".join(map(ratio_text, between)),
            Text(each.verdict, style=STYLES.get(each.verdict, "")),
        )
    console.print(table)
    verdicts = [each.verdict for each in found]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts))
    console.print(f"{len(found)} kernels: {counts}. To record these: make bench-record")
    if differing:
        console.print(
            "The record is of another machine, so mind that ratios differ between machines: "
            + "; ".join(differing)
        )
