"""What a benchmark measures: the profiles, and what they come to in jobs and in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cesium.benchmark import drive
from cesium.benchmark.engines import ENGINES, engine, installed
from cesium.benchmark.shapes import Shape
from cesium.benchmark.workloads import WORKLOADS

COPIES_AT_ONCE = 3  # of the rows, in files of the engine that needs most room for them
ROOM_FACTOR = 4.0  # of an engine's files over the rows' own bytes, at most; ZODB's
WRITE_FACTOR = 2.0  # the same, on average over the engines
ROW_BYTES_MOST = 128  # of wider rows there are fewer, so that a store has so many bytes a row


class Case(NamedTuple):
    """One workload on rows of one shape."""

    shape: Shape
    workload: str
    threads: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    rows: of a store; with `fewer_wide` fewer where they are wide. rounds: how often each job is
    done in a process of its own; repeats: runs in each; seconds: of a run. drive_bytes,
    drive_seconds: of the drive's own measuring; 0: none. workloads are done with each of shapes,
    and those of `more` with its shapes, too. threads: each number is a case of its own for
    workloads that have use for it. timeout: of a job, in seconds. bounds: whether they are among
    the engines that are not named. limit_seconds: when so many are over, no workload is begun any
    more. sync_seconds: at least, of a run that syncs bound.
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
    more: tuple[tuple[Shape, tuple[str, ...]], ...] = ()
    threads: tuple[int, ...] = (1,)
    seed: int = 1
    rate: float | None = None
    cache_bytes: int = 256 << 20
    timeout: float = 600.0
    bounds: bool = True
    limit_seconds: float | None = None
    fewer_wide: bool = True
    depths: tuple[int, ...] = drive.DEPTHS
    sync_seconds: float = 0.0

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

    def cases(self) -> dict[Shape, list[Case]]:
        """What is done, by shape, in order."""
        given = [(shape, self.workloads) for shape in self.shapes]
        given += [
            (shape, tuple(name for name in names if name in self.workloads))
            for shape, names in self.more
            if shape not in self.shapes
        ]
        return {
            shape: [
                Case(shape, name, threads)
                for name in names
                for threads in (self.threads if WORKLOADS[name].threaded else (1,))
            ]
            for shape, names in given
            if names
        }

    def seconds_of(self, workload: str) -> float:
        """Of a run: in a shorter one, one sync more or less would be seen in the rate."""
        least = self.sync_seconds if WORKLOADS[workload].limit == "sync" else 0.0
        return max(self.seconds, least)

    def rows_of(self, shape: Shape) -> int:
        """The rows of a store."""
        if not self.fewer_wide:
            return self.rows
        return max(min(self.rows, self.rows * ROW_BYTES_MOST // shape.row_bytes), 1)

    def bytes_of(self, shape: Shape) -> int:
        """The bytes of the rows of a store."""
        return self.rows_of(shape) * shape.row_bytes

    def room_bytes(self) -> int:
        """What the files of one moment take at most."""
        rows = max(map(self.bytes_of, self.cases()))
        stores = len(self.engines) + COPIES_AT_ONCE
        return int(rows * ROOM_FACTOR * stores) + self.drive_bytes + (64 << 20)

    def written_bytes(self) -> int:
        """About what is written in all: loads, and copies of loaded stores."""
        total = float(self.drive_bytes)
        for shape, cases in self.cases().items():
            stores = 1  # the loaded one
            for case in cases:
                needs = WORKLOADS[case.workload].needs
                stores += {"nothing": self.repeats, "copy": 1, "loaded": 0}[needs] * self.rounds
            total += self.bytes_of(shape) * WRITE_FACTOR * stores * len(self.engines)
        return int(total)


# What comes first is measured if time runs out.
QUICK = (
    "load-sorted", "load-shuffled", "get-hit", "get-many", "range-100", "scan", "put-process",
    "put-sync", "batch-sync", "get-miss", "range-1pct", "ycsb-a", "open", "delete", "ycsb-e",
    "iterate", "recover",
)  # fmt: skip
MAIN = (
    "load-sorted", "load-shuffled", "put-process", "get-hit", "get-many", "range-100", "scan",
    "cold-get",
)  # fmt: skip
SHAPES = (Shape("u64", 100), Shape("composite", 8), Shape("url", 8), Shape("u64", 1000),
          Shape("u64", 65536))  # fmt: skip
MORE = tuple((shape, MAIN) for shape in SHAPES)

PROFILES = {
    "quick": Plan("quick", 100_000, 1, 3, 0.03, 256 << 20, 0.15, QUICK, bounds=False,
                  limit_seconds=48.0, sync_seconds=0.4),
    "standard": Plan("standard", 1_000_000, 3, 1, 0.3, 1 << 30, 1.0, tuple(WORKLOADS), more=MORE,
                     threads=(1, 2)),
    "full": Plan("full", 10_000_000, 5, 1, 2.0, 4 << 30, 5.0, tuple(WORKLOADS),
                 shapes=(Shape(), Shape("u64", 100)), more=MORE, threads=(1, 2), timeout=3600.0),
}  # fmt: skip


def check(names: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """Names that are known, each once; ValueError tells which is not, and which are."""
    for name in names:
        if name not in known:
            raise ValueError(f"no {what} is called {name!r}: {', '.join(known)}")
    return tuple(dict.fromkeys(names))
