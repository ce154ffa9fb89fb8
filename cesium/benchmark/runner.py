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
from cesium.benchmark.engines import ENGINES, Settings, engine, installed
from cesium.benchmark.job import Job
from cesium.benchmark.reading import FORMAT, VERSION
from cesium.benchmark.shapes import Shape
from cesium.benchmark.shares import share
from cesium.benchmark.worker import PREPARE, Workers
from cesium.benchmark.workloads import WORKLOADS
from cesium.benchmark.workspace import below, require

COPIES_AT_ONCE = 3  # of the rows, in files of the engine that needs most room for them
ROOM_FACTOR = 4.0  # of an engine's files over the rows' own bytes, at most; ZODB's

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    rows: of a store.  rounds: how often each job is done in a process of its own; repeats: runs in
    each; seconds: of a run.  drive_bytes, drive_seconds: of the drive's own measuring; 0: none.
    timeout: of a job, in seconds.  bounds: whether they are among the engines that are not named.
    limit_seconds: when so many are over, no workload is begun any more.
    """

    profile: str
    rows: int
    rounds: int
    repeats: int
    seconds: float
    drive_bytes: int
    drive_seconds: float
    workloads: tuple[str, ...]
    engines: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = (Shape(),)
    threads: tuple[int, ...] = (1,)
    seed: int = 1
    rate: float | None = None
    cache_bytes: int = 256 << 20
    timeout: float = 600.0
    bounds: bool = True
    limit_seconds: float | None = None
    depths: tuple[int, ...] = drive.DEPTHS

    @classmethod
    def of(cls, profile: str) -> Plan:
        """The plan of a profile: PROFILES; ValueError for another name."""
        if profile not in PROFILES:
            raise ValueError(f"no profile is called {profile!r}: {', '.join(PROFILES)}")
        found = PROFILES[profile]
        here = [name for name in ENGINES if installed(name)]
        if not found.bounds:
            here = [name for name in here if not engine(name).bound]
        return replace(found, engines=tuple(here))

    def room_bytes(self) -> int:
        """What the files of one moment take at most."""
        rows = max(self.rows * shape.row_bytes for shape in self.shapes)
        stores = len(self.engines) + COPIES_AT_ONCE
        return int(rows * ROOM_FACTOR * stores) + self.drive_bytes + (64 << 20)

    def written_bytes(self) -> int:
        """About what is written in all."""
        loads = len(self.workloads) * self.rounds * (self.repeats + 1)
        return self.drive_bytes + sum(
            int(self.rows * shape.row_bytes * 2 * len(self.engines) * loads)
            for shape in self.shapes
        )


# What comes first is measured if time runs out.
QUICK = (
    "load-sorted", "load-shuffled", "get-hit", "get-many", "range-100", "scan", "put-process",
    "put-sync", "batch-sync", "get-miss", "range-1pct", "ycsb-a", "open", "delete", "ycsb-e",
    "iterate", "recover",
)  # fmt: skip
PROFILES = {
    "quick": Plan("quick", 100_000, 1, 3, 0.03, 256 << 20, 0.15, QUICK, bounds=False,
                  limit_seconds=48.0),
    "standard": Plan("standard", 1_000_000, 3, 1, 0.5, 1 << 30, 1.0, tuple(WORKLOADS)),
    "full": Plan("full", 10_000_000, 5, 1, 2.0, 4 << 30, 5.0, tuple(WORKLOADS)),
}  # fmt: skip


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
        return found | self.extra


class Run:
    """A benchmark under way; its report may be asked for at any time."""

    def __init__(self, plan: Plan, directory: Path, progress: Progress | None = None) -> None:
        self.plan, self.directory = plan, directory
        self.progress = progress or (lambda text, done, total: None)
        self.rows: dict[tuple[Any, ...], Row] = {}
        self.machine: dict[str, Any] = {}
        self.drive: dict[str, Any] | None = None
        self.interrupted = False
        self.started = datetime.now(UTC)
        self.begun = time.monotonic()
        self.done = 0
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
                    for shape in self.plan.shapes:
                        self._measure(shape, space, workers)
            except KeyboardInterrupt:
                self.interrupted = True
        return self.report()

    def _measure(self, shape: Shape, space: Path, workers: Workers) -> None:
        plan = self.plan
        cells = [
            (name, threads)
            for name in plan.workloads
            for threads in plan.threads
            if threads == 1 or WORKLOADS[name].threaded
        ]
        total = len(cells) * len(plan.engines) * plan.rounds * len(plan.shapes)
        stores = space / f"{shape.key}-{shape.value_bytes}"
        stores.mkdir()
        for round_ in range(plan.rounds):
            for number, (name, threads) in enumerate(cells):
                # Whoever comes first finds another machine than whoever comes last.
                turn = (number + round_) % len(plan.engines)
                if plan.limit_seconds is not None and self.seconds() > plan.limit_seconds:
                    self.left_out.append(name)
                    continue
                for peer in (*plan.engines[turn:], *plan.engines[:turn]):
                    self.progress(f"{name}: {peer}", self.done, total)
                    self._one(name, peer, threads, shape, stores, workers)
                    self.done += 1
        shutil.rmtree(stores)

    def _one(
        self, name: str, peer: str, threads: int, shape: Shape, stores: Path, workers: Workers
    ) -> None:
        plan = self.plan
        scratch = stores / "scratch"
        scratch.mkdir()
        store = stores / peer
        job = Job(
            name, peer, shape.key, shape.value_bytes, plan.rows, threads, plan.seed, plan.repeats,
            plan.seconds, plan.rate, plan.cache_bytes, str(store), str(scratch),
        )  # fmt: skip
        row = self.rows.setdefault((shape, name, threads, peer), Row(job))
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


def run(directory: Path, plan: Plan, progress: Progress | None = None) -> dict[str, Any]:
    """Measures what the plan says below a directory; the report."""
    return Run(plan, directory, progress).go()


def check(names: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """Names that are known, each once; ValueError tells which is not, and which are."""
    for name in names:
        if name not in known:
            raise ValueError(f"no {what} is called {name!r}: {', '.join(known)}")
    return tuple(dict.fromkeys(names))
