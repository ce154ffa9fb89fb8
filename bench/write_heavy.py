"""Random puts from empty, beside RocksDB: rate over time, write and space amplification, waiting.

    python bench/write_heavy.py [--rows 20000000] [--value 8] [--key 8] [--seconds 0] [directory]
    python bench/write_heavy.py --plot docs/write-heavy.png

One put at a time, on random keys, with durability "process" (RocksDB: its log without syncs), each
store in a process of its own, one after the other, on the same keys.  --seconds: as many puts as
there is time for, instead of a number of rows.  Each put is timed, with the two clock reads that
this takes.  The store is closed in the end, so what was put is in files.

Printed per store: rows a second over all, in the first and in the last minute (or tenth, for runs
of less than ten minutes), percentiles of a put in microseconds, bytes that the process wrote
(write_bytes of /proc/self/io, which counts a mapped page once for each time that it becomes dirty,
and sectors of the drive) over bytes put, the largest and the last size of the directory over bytes
put, and the seconds that puts waited for maintenance.  RocksDB (through rocksdict, the extra
`peers`) has no compression, a write buffer as large as cesium's memtable, and two jobs in the
background.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STORES = ("cesium", "rocksdb")
MEMTABLE_BYTES = 64 << 20
BATCH = 100_000  # puts between two looks at the time


def written_bytes() -> int:
    """What this process made the kernel write."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes"):
            return int(line.split()[1])
    raise OSError("no write_bytes in /proc/self/io")


def drive_bytes(path: Path) -> int:
    """What was written to the drive that holds a path, by anybody; 0 where that is not known."""
    device = os.stat(path).st_dev
    stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    return int(stat.read_text().split()[6]) * 512 if stat.exists() else 0


def directory_bytes(path: Path) -> int:
    """What the files of a directory take of the drive."""
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def open_cesium(path: Path, key: int, value: int) -> tuple[Callable[..., Any], Any, Any]:
    """put, the finishing call, and what tells the seconds of waiting."""
    import cesium

    options = cesium.Options(
        "u8" if key == 8 else f"S{key}", "u8" if value == 8 else f"V{value}", durability="process"
    )
    store = cesium.open(path, options=options)
    return store.put, store.close, lambda: store.engine.stall_nanoseconds / 1e9


def open_rocksdb(path: Path, key: int, value: int) -> tuple[Callable[..., Any], Any, Any]:
    """The same for RocksDB."""
    import rocksdict

    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_max_background_jobs(2)
    options.set_compression_type(rocksdict.DBCompressionType.none())
    store = rocksdict.Rdict(str(path), options)
    return store.put, store.close, lambda: None


def run(name: str, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One store's run, in this process."""
    path = directory / name
    opener = open_cesium if name == "cesium" else open_rocksdb
    put, close, waited = opener(path, arguments.key, arguments.value)
    rng = np.random.default_rng(7)
    value: Any = 7 if name == "cesium" and arguments.value == 8 else bytes(arguments.value)
    pair = arguments.key + arguments.value
    largest, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            largest[0] = max(largest[0], directory_bytes(path))

    def batch() -> list[Any]:
        heads = rng.integers(0, 1 << 63, BATCH, dtype="u8")
        if name == "cesium" and arguments.key == 8:
            return heads.tolist()
        return [head.to_bytes(8, "big").rjust(arguments.key, b"k") for head in heads.tolist()]

    # Made before the clock starts, but for runs that end by the clock: they took a third as long as
    # the puts.
    ready = [] if arguments.seconds else [batch() for _ in range(arguments.rows // BATCH)]
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    bytes_before, drive_before = written_bytes(), drive_bytes(directory)
    moments, counts, times = [0.0], [0], []
    clock = time.perf_counter_ns
    start = time.perf_counter()
    rows = 0
    while ready or moments[-1] < arguments.seconds:
        keys = ready.pop() if ready else batch()
        latencies = np.empty(BATCH, "u4")
        taken = []
        append = taken.append
        for key in keys:
            before = clock()
            put(key, value)
            append(clock() - before)
        latencies[:] = np.minimum(taken, (1 << 32) - 1)
        times.append(latencies)
        rows += BATCH
        moments.append(time.perf_counter() - start)
        counts.append(rows)
    stall = waited()
    close()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    every = np.concatenate(times)
    window = 60.0 if moments[-1] >= 600 else moments[-1] / 10
    first = np.interp(window, moments, counts) / window
    last = (rows - np.interp(moments[-1] - window, moments, counts)) / window
    return {
        "store": name, "rows": rows, "seconds": seconds, "rows_per_second": rows / seconds,
        "first": first, "last": last, "put_bytes": rows * pair,
        "percentiles_us": {
            str(part): float(np.percentile(every, part)) / 1000 for part in (50, 99, 99.9, 99.99)
        },
        "max_us": float(every.max()) / 1000,
        "write_amplification": (written_bytes() - bytes_before) / (rows * pair),
        "drive_amplification": (drive_bytes(directory) - drive_before) / (rows * pair),
        "space_most": largest[0] / (rows * pair), "space": directory_bytes(path) / (rows * pair),
        "waited_seconds": stall, "moments": moments, "counts": counts,
    }  # fmt: skip


def plot(results: list[dict[str, Any]], file: str) -> None:
    """Rows a second over time, of every store, in two hundred windows of the longest run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    window = max(result["moments"][-1] for result in results) / 200
    for result in results:
        edges = np.arange(0.0, result["moments"][-1], window)
        rows = np.interp(edges, result["moments"], result["counts"])
        axes.plot(edges[1:], np.diff(rows) / window / 1e6, label=result["store"], linewidth=1)
    axes.set(xlabel="seconds", ylabel="million puts a second", ylim=(0, None))
    axes.set_title(f"random puts, {results[0]['put_bytes'] // results[0]['rows']} bytes a pair")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--key", type=int, default=8)
    parser.add_argument("--value", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--only", choices=STORES)
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--child", choices=STORES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        result = run(arguments.child, Path(arguments.directory), arguments)
        print(json.dumps(result))
        return
    results = []
    for name in [arguments.only] if arguments.only else STORES:
        directory = Path(tempfile.mkdtemp(prefix="cesium-write-heavy-", dir=arguments.directory))
        try:
            command = [
                sys.executable, __file__, str(directory), "--child", name,
                *(f"--{what}={getattr(arguments, what)}" for what in ("rows", "key", "value")),
                f"--seconds={arguments.seconds}",
            ]  # fmt: skip
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(answer))
            told = {k: v for k, v in results[-1].items() if k not in ("moments", "counts")}
            print(json.dumps(told, indent=1), flush=True)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
