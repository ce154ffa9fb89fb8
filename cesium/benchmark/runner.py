"""Which jobs there are, in which order, and what becomes of their answers."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cesium.benchmark import drive, machine, timing
from cesium.benchmark.engines import Settings, engine
from cesium.benchmark.job import Job
from cesium.benchmark.plan import Case, Plan
from cesium.benchmark.reading import FORMAT, VERSION
from cesium.benchmark.shapes import Shape
from cesium.benchmark.shares import share
from cesium.benchmark.worker import PREPARE, Workers
from cesium.benchmark.workloads import WORKLOADS
from cesium.benchmark.workspace import below, require

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Row:
    """The runs of one engine on one workload, as they come in."""

    job: Job
    runs: list[float] = field(default_factory=list)
    histograms: list[Any] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    not_offered: str | None = None

    def add(self, answer: dict[str, Any]) -> None:
        """One job's answer more."""
        if "outcome" in answer:
            outcome = answer["outcome"]
            self.runs += outcome["runs"]
            self.histograms += outcome["histograms"]
            self.extra |= outcome["extra"]
        elif "not_offered" in answer:
            self.not_offered = answer["not_offered"]
        else:
            self.error = answer["error"]

    def as_dict(self, measured_drive: dict[str, Any] | None) -> dict[str, Any]:
        """The row in the report's form."""
        workload = WORKLOADS[self.job.workload]
        middle = statistics.median(self.runs) if self.runs else None
        found: dict[str, Any] = {
            "workload": workload.name,
            "key": self.job.key,
            "value": self.job.value_bytes,
            "rows": self.job.rows,
            "threads": self.job.threads,
            "engine": self.job.engine,
            "unit": workload.unit,
            "runs": self.runs,
            "median": middle,
            "low": min(self.runs, default=None),
            "high": max(self.runs, default=None),
            "share": middle and share(workload.limit, measured_drive, self.job, middle),
            "latency_us": timing.summary(self.histograms),
            "over_time": None,
            "error": self.error,
        }
        if workload.commits and "process" not in engine(self.job.engine).durabilities:
            found["durability"] = "sync"  # which others are spared
        return found | self.extra


class Run:
    """A benchmark under way; its report may be asked for at any time."""

    def __init__(self, plan: Plan, directory: Path, progress: Progress | None = None) -> None:
        self.plan, self.directory = plan, directory
        self.progress = progress or (lambda text, done, total: None)
        self.rows: dict[tuple[Case, str], Row] = {}
        self.machine: dict[str, Any] = {}
        self.drive: dict[str, Any] | None = None
        self.interrupted = False
        self.started = datetime.now(UTC)
        self.begun = time.monotonic()
        self.done = 0
        cases = sum(map(len, plan.cases().values()))
        self.total = cases * len(plan.engines) * plan.rounds
        self.left_out: list[str] = []

    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.begun

    def go(self) -> dict[str, Any]:
        """Does all of the plan and returns the report; after Ctrl-C what there is by then.

        NoRoom: the directory is not there, not writable, or too full.
        """
        with below(self.directory) as space:
            require(space, self.plan.room_bytes())
            try:
                self.machine = machine.describe(self.directory)
                if self.plan.drive_bytes:
                    self.drive = drive.measure(
                        space, self.plan.drive_bytes, self.plan.drive_seconds, self.plan.depths,
                        lambda what: self.progress(what, 0, 0),
                    )  # fmt: skip
                with Workers() as workers:
                    for shape, cases in self.plan.cases().items():
                        self._measure(shape, cases, space, workers)
            except KeyboardInterrupt:
                self.interrupted = True
        return self.report()

    def _measure(self, shape: Shape, cases: Sequence[Case], space: Path, workers: Workers) -> None:
        plan = self.plan
        stores = space / f"{shape.key}-{shape.value_bytes}"
        stores.mkdir()
        for round_ in range(plan.rounds):
            for number, case in enumerate(cases):
                if plan.limit_seconds is not None and self.seconds() > plan.limit_seconds:
                    self.left_out.append(case.workload)
                    continue
                # Whoever comes first finds another machine than whoever comes last.
                turn = (number + round_) % len(plan.engines)
                for peer in (*plan.engines[turn:], *plan.engines[:turn]):
                    self.progress(f"{case.workload}: {peer}", self.done, self.total)
                    self._one(case, peer, stores, workers)
                    self.done += 1
        shutil.rmtree(stores)

    def _one(self, case: Case, peer: str, stores: Path, workers: Workers) -> None:
        plan, shape, name = self.plan, case.shape, case.workload
        scratch = stores / "scratch"
        scratch.mkdir()
        store = stores / peer
        job = Job(
            name, peer, shape.key, shape.value_bytes, plan.rows_of(shape), case.threads, plan.seed,
            plan.repeats, plan.seconds_of(name), plan.rate, plan.cache_bytes, str(store),
            str(scratch),
        )  # fmt: skip
        row = self.rows.setdefault((case, peer), Row(job))
        if row.error is None and row.not_offered is None:
            if WORKLOADS[name].needs != "nothing" and engine(peer).on_disk and not store.exists():
                made = workers.perform(replace(job, workload=PREPARE, threads=1), plan.timeout)
                if "outcome" not in made:
                    row.add(made)
            if row.error is None:
                row.add(workers.perform(job, plan.timeout))
        shutil.rmtree(scratch)

    def report(self) -> dict[str, Any]:
        """What has been measured so far, in the report's form."""
        settings = Settings(cache_bytes=self.plan.cache_bytes)
        return {
            "format": FORMAT,
            "version": VERSION,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": self.seconds(),
            "profile": self.plan.profile,
            "seed": self.plan.seed,
            "interrupted": self.interrupted,
            "left_out": self.left_out,
            "machine": self.machine,
            "drive": self.drive,
            "engines": {
                name: {
                    "version": engine(name).version(),
                    "settings": engine(name).describe(settings),
                    "bound": engine(name).bound,
                    "not_offered": {
                        row.job.workload: row.not_offered
                        for row in self.rows.values()
                        if row.job.engine == name and row.not_offered is not None
                    },
                }
                for name in self.plan.engines
            },
            "results": [
                row.as_dict(self.drive)
                for row in self.rows.values()
                if row.runs or row.error is not None
            ],
        }


def offered_by_none(report: dict[str, Any]) -> dict[str, str]:
    """Of a report: the workloads that no engine offered on any rows, and why not."""
    rows = {result["workload"] for result in report["results"]}
    refusals = [engine["not_offered"] for engine in report["engines"].values()]
    reasons: dict[str, dict[str, None]] = {}  # in order, each once
    for name, reason in (item for refused in refusals for item in refused.items()):
        if name not in rows and all(name in refused for refused in refusals):
            reasons.setdefault(name, {})[reason] = None
    return {name: "; ".join(each) for name, each in reasons.items()}
