"""The drive's own read rates on files that are there, to be laid beside those of fio.

    python bench/drive_rates.py FILE...

`cesium bench` measures more, on a file of its own: cesium/benchmark/drive.py has the reader.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cesium.benchmark.drive import Reader


def main(paths: list[Path]) -> None:
    reader = Reader(paths)
    print(f"reads by {reader.method}")
    for depth, reads in ((1, 5_000), (32, 50_000), (128, 100_000)):
        print(f"random 4 KiB, depth {depth}: {reader.random_rate(reads, depth):,.0f} a second")
    for depth in (1, 4):
        rate = reader.sequential_rate(1 << 31, depth=depth)
        print(f"sequential 1 MiB, depth {depth}: {rate / 1e6:,.0f} MB/s")
    reader.close()


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
