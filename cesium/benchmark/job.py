"""One workload with one engine: what is asked of the process that does it, and what it answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cesium._histogram import LatencyHistogram
from cesium.benchmark import engines
from cesium.benchmark.engines import Engine, NotOffered, Settings
from cesium.benchmark.shapes import Rows, Shape, make_rows

LATENCY_CALLS = 100_000
LATENCY_SHARE = 0.5  # of a run's seconds


@dataclass(frozen=True, slots=True)
class Job:
    """A workload, an engine, and the size of it all.

    store: a loaded store that may be read, and copied to be written; None where the workload makes
    its own.  scratch: an empty directory of the job's own.  repeats: runs, each of about `seconds`.
    rate: calls a second for latencies, None: as fast as it goes.  seed: of rows and choices.
    """

    workload: str
    engine: str
    key: str
    value_bytes: int
    rows: int
    threads: int
    seed: int
    repeats: int
    seconds: float
    rate: float | None
    cache_bytes: int
    store: str | None
    scratch: str

    def as_dict(self) -> dict[str, Any]:
        """As a line of JSON carries it."""
        return asdict(self)

    @property
    def shape(self) -> Shape:
        """What the rows are like."""
        return Shape(self.key, self.value_bytes)


@dataclass(slots=True)
class Outcome:
    """What a job found: a rate (or seconds) a run, latencies, and figures of the workload's own."""

    runs: list[float] = field(default_factory=list)
    histograms: list[Any] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def add_latencies(self, histogram: LatencyHistogram) -> None:
        """Latencies of one run more."""
        self.histograms.append((histogram.buckets(), histogram.maximum))

    def as_dict(self) -> dict[str, Any]:
        """As a line of JSON carries it."""
        return asdict(self)


class Context:
    """What a workload is given: rows, an engine to open, random choices."""

    def __init__(self, job: Job) -> None:
        self.job, self.shape = job, job.shape
        self.engine_class = engines.engine(job.engine)
        self.scratch = Path(job.scratch)
        self.random = np.random.default_rng([job.seed, 1])
        self._rows: Rows | None = None
        self._count = 0

    @property
    def rows(self) -> Rows:
        """The rows of the loaded store, ascending."""
        if self._rows is None:
            self._rows = make_rows(self.shape, self.job.rows, self.job.seed)
        return self._rows

    def shuffled(self) -> Rows:
        """The same in an order that no key tells."""
        return self.rows.take(np.random.default_rng([self.job.seed, 2]).permutation(self.job.rows))

    def fresh_path(self) -> Path:
        """A path where nothing is."""
        self._count += 1
        return self.scratch / f"store-{self._count}"

    def require(self, durability: str) -> None:
        """NotOffered, before rows are made for nothing, when the engine has no such durability."""
        if durability not in self.engine_class.durabilities:
            raise NotOffered(f"no durability like {durability!r}")

    def settings(self, durability: str = "process", cold: bool = False) -> Settings:
        """The run's settings."""
        return Settings(durability, self.job.cache_bytes, cold)

    def open(self, path: Path, durability: str | None = None, cold: bool = False) -> Engine:
        """A store of the job's engine; without a durability, of the first that it has and that no
        kill undoes."""
        if durability is None:
            offered = self.engine_class.durabilities
            durability = "process" if "process" in offered else offered[0]
        return self.engine_class(path, self.shape, self.settings(durability, cold))
