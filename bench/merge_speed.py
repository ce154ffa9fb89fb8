"""How fast a merge is, and what bounds it.

merge_speed.py [--rows N] [--inputs 2,4,8,64] [--shapes fixed,wide,text] [--directory PATH]
               [--order random,blocks,late] [--rounds N] [--profile]

Builds segments by the store's own classes and merges them into a run.  Rows in all: --rows, over
the inputs.  Shapes: `fixed` (u8 -> f8), `wide` (u8 -> a row of 100 bytes), `text` (str -> bytes).
Orders: `random` (inputs interleave row by row), `blocks` (10,000 neighbours by turns), `late`
(inputs in the order of time; one key in 1000 comes late).  Inputs are in the page cache.  The
output goes to memory, or with --directory to a drive.  --profile lets `perf record` look on and
prints shares of the processor's time; take more --rounds then.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cesium import _kernels as kernels
from cesium._builder import SegmentBuilder
from cesium._merge import DONE, Merge
from cesium._page import TableShape
from cesium._segment import SegmentReader
from cesium._version import Version
from cesium.files import Files, MemoryFiles

UUID = bytes(16)
SEGMENT_BYTES = 64 << 20
SHAPES = {"fixed": TableShape(8, 8), "wide": TableShape(8, 100), "text": TableShape(0, 0)}

# Which function is what kind of work; the first that matches counts.
KINDS = (
    ("checksum", r"crc32c"),
    ("filter", r"bloom|fill_filter|hash_"),
    ("copy", r"gather"),
    ("compare", r"_merge_fixed|_cursor|compare|page_find|heads_|interval|prefix_order|load_head"),
    ("copy", r"mem(cpy|move|set)|_builder|_packer|_page|copy"),
)


def keys_of(order: str, inputs: int, rows: int) -> list[Any]:
    """Sorted keys of each input, uint64."""
    random = np.random.default_rng(3)
    each = rows // inputs
    if order == "random":
        return [np.unique(random.integers(0, 2**64, each, np.uint64)) for _ in range(inputs)]
    if order == "blocks":
        block = 10_000
        starts = np.arange(0, rows, block, dtype=np.uint64)
        steps = np.arange(0, block, dtype=np.uint64)
        return [(starts[i::inputs, None] + steps).reshape(-1) << 20 for i in range(inputs)]
    time_order = np.arange(0, rows, dtype=np.uint64)
    owner = np.minimum(time_order // each, inputs - 1)
    late = random.random(rows) < 0.001
    owner[late] = np.minimum(owner[late] + 1, inputs - 1)
    return [time_order[owner == i] << 20 for i in range(inputs)]


def build(shape: TableShape, name: str, keys: Any) -> SegmentReader:
    """One segment in memory, every page of it read and checked."""
    files = MemoryFiles()
    builder = SegmentBuilder(files, name, 1, UUID, shape)
    width = {"fixed": 8, "wide": 100, "text": 0}[name]
    if width:
        builder.add_columns(keys, np.resize(keys.view(np.uint8), len(keys) * width))
    else:
        for key in keys.tolist():
            builder.add(b"key:%020d" % key, b"value of %d" % key)
    record: Any = SimpleNamespace(**builder.finish(), markers=0)
    reader = SegmentReader(record, files, name, shape, UUID)
    reader.read_ahead(check=True)
    return reader


def merge(shape: TableShape, readers: list[SegmentReader], files: Files) -> tuple[float, Merge]:
    """Seconds of the processor that this thread used for one merge into a run.

    What the builder's own thread does, which writes, is not in them; with --directory the time
    waited for it is, so there the clock on the wall counts.
    """
    clock = time.thread_time if isinstance(files, MemoryFiles) else time.perf_counter
    start = clock()
    merging = Merge(Version(shape, [[reader] for reader in readers], False), False)
    number, reason = 0, 1
    while reason != DONE:
        number += 1
        builder = SegmentBuilder(files, f"output-{number}", number, UUID, shape)
        reason = merging.write(builder, SEGMENT_BYTES)
        builder.finish()
    seconds = clock() - start
    files.remove(*(f"output-{i + 1}" for i in range(number)))
    return seconds, merging


@contextlib.contextmanager
def profiled() -> Iterator[dict[str, float]]:
    """Fills in shares of the block's time by kind of work, as `perf record` sees them."""
    shares = dict.fromkeys([*dict(KINDS), "system", "rest"], 0.0)
    with tempfile.NamedTemporaryFile(suffix=".perf") as data:
        command = ["perf", "record", "-q", "-e", "cpu-clock", "-o", data.name]
        recorder = subprocess.Popen([*command, "-p", str(os.getpid())])
        try:
            yield shares
        finally:
            recorder.send_signal(signal.SIGINT)
            recorder.wait()
        report = subprocess.run(
            ["perf", "report", "-i", data.name, "--stdio", "--sort", "dso,symbol"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    for share, dso, mode, symbol in re.findall(r"([\d.]+)%\s+(\S+)\s+\[(.)\]\s+(\S+)", report):
        kinds = (kind for kind, pattern in KINDS if re.search(pattern, f"{dso} {symbol}"))
        shares["system" if mode == "k" else next(kinds, "rest")] += float(share)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--inputs", default="2,4,8,64")
    parser.add_argument("--shapes", default="fixed,wide,text")
    parser.add_argument("--order", default="random")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    print(f"SIMD level {kernels.level()}; {asked.rows:,} rows in all; medians of {asked.rounds}")
    files = Files(asked.directory) if asked.directory else MemoryFiles()
    for name in asked.shapes.split(","):
        shape = SHAPES[name]
        rows = asked.rows if name == "fixed" else asked.rows // 4
        for order in asked.order.split(","):
            for inputs in map(int, asked.inputs.split(",")):
                readers = [build(shape, name, keys) for keys in keys_of(order, inputs, rows)]
                count = sum(reader.record.rows for reader in readers)
                merge(shape, readers, files)
                shares: dict[str, float] = {}
                with contextlib.ExitStack() as stack:
                    if asked.profile:
                        shares = stack.enter_context(profiled())
                    times = [merge(shape, readers, files)[0] for _ in range(asked.rounds)]
                print(
                    f"{name:6} {order:7} {inputs:3} inputs: "
                    f"{count / statistics.median(times) / 1e6:6.1f} M rows/s",
                    ", ".join(f"{kind} {share:.0f} %" for kind, share in shares.items()),
                    flush=True,
                )


if __name__ == "__main__":
    main()
