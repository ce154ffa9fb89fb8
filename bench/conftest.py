"""What the benchmarks share: where they write, how a candidate is timed beside its reference, and
the Markdown table that ends the run.

CESIUM_BENCH_ROWS: rows of a store (16,000,000).  CESIUM_BENCH_DIR: where files go; by default a
fresh directory below `build/bench`, since /tmp may be memory.  CESIUM_BENCH_REPORT: a file that
gets the table too.  CESIUM_BENCH_RECORD=1: adds what the baseline suite finds to its
record.  What was written is removed at the end.  bench/README.md says how to read it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from baseline import Baseline, Session, changes, differences, show
from cesium import _kernels as kernels

CHECKOUT = Path(__file__).resolve().parent.parent
ROWS = int(os.environ.get("CESIUM_BENCH_ROWS", "16000000"))
TOUCHED_BYTES_PER_ROW = 128  # inputs, shuffled inputs, sort buffers, results and page cache

Benchmark = Any  # pytest-benchmark's fixture has no public type
Work = Callable[[], object]


@dataclass(frozen=True)
class Line:
    """One row of the table.  met is None where nothing was promised."""

    work: str
    measured: str
    reference: str
    figure: str
    must_reach: str
    met: bool | None

    def cells(self) -> tuple[str, ...]:
        """The row as texts."""
        met = "" if self.met is None else "yes" if self.met else "**no**"
        return self.work, self.measured, self.reference, self.figure, self.must_reach, met


@dataclass
class Table:
    """The rows reported so far, and the machine that gave them."""

    machine: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def add(
        self,
        work: str,
        measured: str,
        figure: str,
        reference: str = "",
        must_reach: str = "",
        met: bool | None = None,
    ) -> None:
        """One more row."""
        self.lines.append(Line(work, measured, reference, figure, must_reach, met))

    @staticmethod
    def rate(rows: int, seconds: float) -> str:
        """Rows in a time, as a text."""
        return f"{rows / seconds / 1e6:.1f} M rows/s"

    def markdown(self) -> str:
        """The machine as a list, then the table."""
        heads = ("work", "measured", "reference", "ratio or rate", "must reach", "met")
        rows = [heads, ("---",) * len(heads), *(line.cells() for line in self.lines)]
        lines = [f"- {fact}" for fact in self.machine]
        return "\n".join([*lines, "", *("| " + " | ".join(row) + " |" for row in rows)])


TABLE = pytest.StashKey[Table]()
MEASURED = pytest.StashKey[Session]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = Table()
    config.stash[MEASURED] = Session(
        {"processor": processor(), "level": kernels.level(), "numpy": np.__version__}
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    compare_with_baseline(terminalreporter, config.stash[MEASURED])
    table = config.stash[TABLE]
    if not table.lines:
        return
    terminalreporter.section("cesium beside its references")
    terminalreporter.write_line(table.markdown())
    if report := os.environ.get("CESIUM_BENCH_REPORT"):
        Path(report).write_text(table.markdown() + "\n")


def compare_with_baseline(terminalreporter: Any, measured: Session) -> None:
    """The kernels that were measured beside those recorded; adds them when that is asked."""
    if not measured.rounds:
        return
    before = Baseline.read()
    console = Console(width=max(100, shutil.get_terminal_size().columns))
    terminalreporter.section("cesium beside its baseline")
    with console.capture() as text:
        show(changes(measured, before), differences(measured, before), console)
    terminalreporter.write(text.get())
    if os.environ.get("CESIUM_BENCH_RECORD") == "1":
        measured.added_to(before).write()
        terminalreporter.write_line("one session more in bench/baseline.json")


@pytest.fixture(scope="session")
def bench_dir() -> Iterator[Path]:
    """A fresh directory for the whole run, removed at its end."""
    parent = Path(os.environ.get("CESIUM_BENCH_DIR", CHECKOUT / "build" / "bench"))
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def fresh_dir(bench_dir: Path) -> Iterator[Path]:
    """A fresh directory for one test, removed after it."""
    path = Path(tempfile.mkdtemp(dir=bench_dir))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Fresh:
    """Hands out fresh paths below one directory; clear() removes what they have become."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self.count = 0

    def path(self) -> Path:
        self.count += 1
        return self.parent / str(self.count)

    def clear(self) -> None:
        for path in self.parent.iterdir():
            shutil.rmtree(path)
        os.sync()  # what the last round left to write is not the next one's burden


@pytest.fixture
def fresh(fresh_dir: Path) -> Fresh:
    return Fresh(fresh_dir)


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest, bench_dir: Path) -> Table:
    """The table of this run; the first to ask for it also pays for touching the memory."""
    found = request.config.stash[TABLE]
    touched = touch_memory(ROWS * TOUCHED_BYTES_PER_ROW)
    found.machine += machine(bench_dir, touched)
    return found


def touch_memory(wanted: int) -> int:
    """Writes to so many bytes of fresh memory and frees them; returns how many.

    A virtual machine gets its memory from the host at the first touch, which costs several times
    what the work itself does.  After this it has it, whoever asks next.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = min(wanted, free // 2)
    np.empty(wanted, np.uint8).fill(1)
    gc.collect()
    return wanted


def machine(path: Path, touched: int) -> list[str]:
    """What the figures depend on, a line each."""
    versions = [f"Python {platform.python_version()}", f"numpy {np.__version__}"]
    for package in ("lmdb", "cesiumdb"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    busy = os.getloadavg()[0]
    return [
        f"{processor()}, {os.cpu_count()} processors, {memory / 2**30:.0f} GiB of memory",
        f"{platform.system()} {platform.release()}, {drive(path)}",
        f"{', '.join(versions)}; SIMD level {kernels.level()}",
        f"{ROWS:,} rows of (uint64, float64); medians of alternating rounds; reads from page cache",
        f"{touched / 2**30:.1f} GiB of memory touched first; load average {busy:.1f} at the start",
    ]


def processor() -> str:
    """The name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def drive(path: Path) -> str:
    """The device and the file system that the path is on."""
    found = ("", "unknown file system")
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            device, mount, kind = line.split()[:3]
            if path.is_relative_to(mount) and len(mount) >= len(found[0]):
                found = (mount, f"{kind} on {device}")
    return found[1]


def median_seconds(times: list[float]) -> float:
    return statistics.median(times)


def timed(work: Work) -> float:
    """How long the work takes, without the freeing of its result."""
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    return result if isinstance(result, float) else seconds


def processor_seconds(work: Work) -> float:
    """The processor's time of all threads of this process, without the freeing of the result."""
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    del result
    return seconds


@pytest.fixture
def alternate(benchmark: Benchmark) -> Callable[..., list[float]]:
    """alternate(measured, *references, prepare=None, rounds=5): median seconds of each, in order.

    In every round each reference is timed once, then the measured work once, so that a slow moment
    of the machine meets all of them.  A round of everything that does not count comes first.
    prepare(): is called before each measured work, outside its time.  Work that returns a float has
    timed itself, in seconds, without what it had to set up.
    """

    def run(
        measured: Work, *references: Work, prepare: Work | None = None, rounds: int = 5
    ) -> list[float]:
        times: list[list[float]] = [[] for _ in range(1 + len(references))]

        def setup() -> None:
            for reference, seconds in zip(references, times[1:]):
                seconds.append(timed(reference))
            if prepare is not None:
                prepare()

        def work() -> None:
            times[0].append(timed(measured))

        benchmark.pedantic(work, setup=setup, rounds=rounds, warmup_rounds=1)
        medians = [median_seconds(seconds[1:] or seconds) for seconds in times]
        benchmark.extra_info["medians in seconds"] = medians
        return medians

    return run


@pytest.fixture
def beside(benchmark: Benchmark, request: pytest.FixtureRequest) -> Callable[..., None]:
    """beside(name, measured, reference, prepare=None, rounds=15): a kernel for the baseline.

    In every round the reference runs just before and just after the measured work, so that what
    slows the machine down meets both, and the mean of the two counts.  The processor's time of the
    process is taken: on a busy machine the clock on the wall doubled the noise, and nothing here
    waits for a drive.  prepare(): is called before each round, outside all times.
    """

    def run(
        name: str, measured: Work, reference: Work, prepare: Work | None = None, rounds: int = 15
    ) -> None:
        ratios: list[float] = []
        first: list[float] = []

        def setup() -> None:
            if prepare is not None:
                prepare()
            first[:] = [processor_seconds(reference)]

        def work() -> None:
            seconds = processor_seconds(measured)
            ratios.append((first[0] + processor_seconds(reference)) / 2 / seconds)

        benchmark.pedantic(work, setup=setup, rounds=rounds, warmup_rounds=1)
        benchmark.extra_info["ratios"] = ratios[1:]
        request.config.stash[MEASURED].rounds[name] = ratios[1:]

    return run


@dataclass(frozen=True)
class Data:
    """The same rows twice: sorted, and in random order."""

    keys: Any
    values: Any
    shuffled_keys: Any
    shuffled_values: Any

    @property
    def rows(self) -> int:
        return len(self.keys)

    @property
    def raw_bytes(self) -> int:
        return int(self.keys.nbytes + self.values.nbytes)


@pytest.fixture(scope="session")
def data() -> Data:
    """Distinct random uint64 keys with float64 values."""
    random = np.random.default_rng(7)
    keys = np.unique(random.integers(0, 2**64, ROWS, np.uint64))
    values = random.random(len(keys))
    order = random.permutation(len(keys))
    return Data(keys, values, keys[order], values[order])
