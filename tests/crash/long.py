"""`python -m crash`: crash images by the million, over all processors, with fresh seeds.

Runs every workload with one seed after another until enough different images were opened.  The
first image that breaks a promise ends it: its files are kept, and what is printed makes it again.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import NoReturn

import click

from crash.explore import Counts, CrashFound, Explorer
from crash.workloads import WORKLOADS

Task = tuple[str, int, int, int]  # workload, seed, effort, nested


def crash(task: Task) -> Counts | CrashFound:
    """One workload with one seed, in a process of its own."""
    name, seed, effort, nested = task
    explorer = Explorer(effort, nested)
    try:
        explorer.workload(name, seed)
    except CrashFound as found:
        return found
    except Exception as error:
        raise RuntimeError(f"workload {name}, seed {seed}: {error!r}") from error
    return explorer.counts


def tasks(seed: int, effort: int, nested: int) -> Iterator[Task]:
    """Every workload with every seed from one on, without end."""
    while True:
        for name in WORKLOADS:
            yield name, seed, effort, nested
        seed += 1


@click.command(help=__doc__)
@click.option("--images", default=1_000_000, help="How many different images to open at least.")
@click.option(
    "--seed", type=int, default=lambda: time.time_ns() % 10**6 * 1000, help="The first seed."
)
@click.option("--effort", default=24, help="How many images of each kind at each event.")
@click.option("--nested", default=8, help="How many runs after a crash of each run.")
@click.option("--processes", default=len(os.sched_getaffinity(0)), help="How many at once.")
@click.option("--only", help="Open the images of one event alone, as a failure prints it.")
@click.option("--keep", default="build/crash", help="Where the files of a failing image go.")
def main(
    images: int, seed: int, effort: int, nested: int, processes: int, only: str | None, keep: str
) -> None:
    if only:
        match = re.match(r"workload (\S+), seed (\d+)", only)
        if match is None:
            raise click.BadParameter(f"{only!r} names no workload and seed")
        explorer = Explorer(effort, nested, only)
        explorer.workload(match[1], int(match[2]))
        print(f"nothing wrong: {explorer.counts}")
        return
    print(f"seed {seed}, effort {effort}, nested {nested}, {processes} processes", flush=True)
    total = Counts()
    start = time.monotonic()
    # Spawned, and a fresh one for every few runs: what the images leave in memory goes with it.
    context = multiprocessing.get_context("spawn")
    waiting = tasks(seed, effort, nested)
    with ProcessPoolExecutor(processes, context, max_tasks_per_child=4) as pool:
        running = {pool.submit(crash, next(waiting)) for _ in range(processes + 1)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                if isinstance(result, CrashFound):
                    pool.shutdown(wait=False, cancel_futures=True)
                    fail(result, effort, nested, keep)
                total.add(result)
                minutes = (time.monotonic() - start) / 60
                print(
                    f"{minutes:6.1f} min {total.images:>11,} images {total.runs} runs", flush=True
                )
                if total.images < images:
                    running.add(pool.submit(crash, next(waiting)))
    print(total)


def fail(found: CrashFound, effort: int, nested: int, keep: str) -> NoReturn:
    """Keeps the files of the image and says how to make it again."""
    found.keep(Path(keep))
    print(f"{found}\nkept in {keep}; again:")
    print(f"python -m crash --effort {effort} --nested {nested} --only '{found.where}'")
    raise SystemExit(1)
