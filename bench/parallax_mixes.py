"""I/O amplification by size mix, as the Parallax paper measures it, beside RocksDB's.

    python bench/parallax_mixes.py [--rows 300000] [--memory 64] [--only cesium] [directory]

Pairs of 33, 123 and 1023 bytes (keys of 24, random) in three mixes: 60 % of one size and 20 % of
each other.  Each store gets `rows` of them one put at a time, then the same number of puts on
random keys of those; nothing is synced but by the store itself.  Then it is closed.  Printed are,
over the bytes put: what the process wrote to the storage layer (write_bytes of /proc/self/io, pages
of mapped files included, once for each time that they become dirty), what it wrote by calls (wchar,
direct and buffered; mapped files are not in it), the size of the directory after closing, and the
seconds.  Each store runs in a process of its own, one after the other, on the same inputs.

RocksDB (through rocksdict) without compression, with a write buffer as large as cesium's memtable,
once as it is and once with blob files for values as large as in cesium's row above it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEY_BYTES = 24
PAIR_BYTES = (33, 123, 1023)
MIXES = {"small": (60, 20, 20), "medium": (20, 60, 20), "large": (20, 20, 60)}
SMALL_BYTES, LARGE_BYTES = 64, 512  # between the values of 9, 99 and 999 bytes
# Name, and the threshold of upper tiers and of the last one; None: no blob files.
CESIUM = {
    "cesium, all in place": (None, None),
    "cesium, large in the log": (LARGE_BYTES, LARGE_BYTES),
    "cesium, medium and large in the log": (SMALL_BYTES, SMALL_BYTES),
    "cesium, medium in the log but in the last tier": (SMALL_BYTES, LARGE_BYTES),
}
ROCKSDB = {"RocksDB": None, "RocksDB, large in blob files": LARGE_BYTES}


def rows(mix: str, count: int) -> Iterator[tuple[bytes, bytes]]:
    """The puts: distinct random keys, then random ones of them again."""
    rng = random.Random(mix)
    noise = rng.randbytes(1 << 16)

    def value() -> bytes:
        size = rng.choices(PAIR_BYTES, MIXES[mix])[0] - KEY_BYTES
        at = rng.randrange(len(noise) - size)
        return noise[at : at + size]

    keys = [b"user%020d" % rng.getrandbits(60) for _ in range(count)]
    for key in keys:
        yield key, value()
    for _ in range(count):
        yield rng.choice(keys), value()


def put_into_cesium(path: Path, name: str, mix: str, count: int, memory: int) -> int:
    import cesium
    from cesium.engine import TIER_BASE
    from cesium.segment_output import SegmentOutput

    upper, last = CESIUM[name]
    made = SegmentOutput.__init__

    def with_tier(output: Any, engine: Any, tier: int, *rest: Any, **more: Any) -> None:
        made(output, engine, tier, *rest, **more)
        output.threshold = (last if tier == TIER_BASE else upper) or 0

    SegmentOutput.__init__ = with_tier  # type: ignore[method-assign]
    total = 0
    store = cesium.open(
        path, "bytes", "bytes", durability="process", memory_limit=f"{memory}MiB",
        blob_threshold=upper,
    )  # fmt: skip
    with store:
        for key, value in rows(mix, count):
            store.put(key, value)
            total += len(key) + len(value)
    return total


def put_into_rocksdb(path: Path, name: str, mix: str, count: int, memory: int) -> int:
    import rocksdict

    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_compression_type(rocksdict.DBCompressionType.none())
    options.set_write_buffer_size(memory << 20 >> 3)
    if ROCKSDB[name] is not None:
        options.set_enable_blob_files(True)
        options.set_min_blob_size(ROCKSDB[name])
        options.set_enable_blob_gc(True)
    total = 0
    store = rocksdict.Rdict(str(path), options)
    for key, value in rows(mix, count):
        store[key] = value
        total += len(key) + len(value)
    store.flush()
    store.close()
    return total


def io_of_this_process() -> dict[str, int]:
    text = Path("/proc/self/io").read_text()
    return {name: int(value) for name, value in (line.split(": ") for line in text.splitlines())}


def measure(path: Path, name: str, mix: str, count: int, memory: int) -> dict[str, float]:
    """One store, in this process."""
    put = put_into_cesium if name in CESIUM else put_into_rocksdb
    before, start = io_of_this_process(), time.perf_counter()
    total = put(path, name, mix, count, memory)
    seconds, after = time.perf_counter() - start, io_of_this_process()
    size = sum(item.stat().st_blocks * 512 for item in path.iterdir())
    return {
        "written": (after["write_bytes"] - before["write_bytes"]) / total,
        "by calls": (after["wchar"] - before["wchar"]) / total,
        "directory": size / total,
        "seconds": seconds,
        "MB put": total / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=None)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--memory", type=int, default=64, help="MiB; an eighth is the memtable")
    parser.add_argument("--only", default="")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, mix = given.one
        print(json.dumps(measure(given.directory, name, mix, given.rows, given.memory)))
        return
    print(f"{given.rows:,} rows put, then as many again on their keys; {given.memory} MiB")
    for mix in MIXES:
        print(f"\n| {mix}-dominated | written / put | by calls / put | directory / put | seconds |")
        print("|---|---|---|---|---|")
        for name in [*CESIUM, *ROCKSDB]:
            if not name.startswith(given.only):
                continue
            base = Path(tempfile.mkdtemp(dir=given.directory))
            command = [sys.executable, __file__, str(base / "s"), "--rows", str(given.rows),
                       "--memory", str(given.memory), "--one", name, mix]  # fmt: skip
            answer = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
            shutil.rmtree(base)
            if answer.returncode:
                raise SystemExit(answer.stderr)
            found = json.loads(answer.stdout)
            print(
                f"| {name} | {found['written']:.2f} | {found['by calls']:.2f} "
                f"| {found['directory']:.2f} | {found['seconds']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
