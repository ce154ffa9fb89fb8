"""The workloads, by name, in the order in which they are shown.

Each is a function of a `Context`, and knows no engine: what an engine cannot do raises NotOffered
there.  `Workload` says what of the environment it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cesium.benchmark.job import Context, Outcome
from cesium.benchmark.workloads import cold, lifecycle, loads, mixes, reads, writes

__all__ = ["WORKLOADS", "Workload"]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is done, how it is counted, and what it needs.

    unit: "ops/s", "rows/s" or "s" (less is better).  needs: "nothing", a "loaded" store that is
    only read, or a "copy" of one.  limit: what of the drive bounds it, a name of `shares`.
    threaded: several threads are worth a row of their own.  commits: it writes by commits of the
    durability "process", or of the only one that an engine has.
    """

    name: str
    text: str
    unit: str
    run: Callable[[Context], Outcome]
    needs: str = "loaded"
    limit: str | None = None
    threaded: bool = False
    commits: bool = False


_ALL = [
    Workload("load-sorted", "load, sorted", "rows/s", loads.load_sorted, "nothing", "write", True),
    Workload(
        "load-shuffled", "load, shuffled", "rows/s", loads.load_shuffled, "nothing", "write", True
    ),
    Workload("put-load", "load by single puts, shuffled", "rows/s", loads.load_singly, "nothing"),
    Workload("put-sync", "put, sync", "ops/s", writes.put_sync, "copy", "sync"),
    Workload("put-interval", "put, interval", "ops/s", writes.put_interval, "copy"),
    Workload("put-process", "put, process", "ops/s", writes.put_process, "copy"),
    Workload("put-none", "put, none", "ops/s", writes.put_none, "copy"),
    Workload("batch-sync", "batches of 1,000, sync", "rows/s", writes.batch_sync, "copy", "write"),
    Workload(
        "batch-process",
        "batches of 1,000, process",
        "rows/s",
        writes.batch_process,
        "copy",
        "write",
    ),
    Workload("get-hit", "get, hit", "ops/s", reads.get_hit, threaded=True),
    Workload("get-miss", "get, miss", "ops/s", reads.get_miss),
    Workload("get-many", "get_many of 10,000", "rows/s", reads.get_many, threaded=True),
    Workload("range-100", "range of 100 rows", "ops/s", reads.range_100),
    Workload("range-100-reverse", "range of 100 rows, reverse", "ops/s", reads.range_100_reverse),
    Workload("range-1pct", "range of 1 %", "ops/s", reads.range_1pct),
    Workload("range-1pct-reverse", "range of 1 %, reverse", "ops/s", reads.range_1pct_reverse),
    Workload("scan", "full scan to arrays", "rows/s", reads.scan, threaded=True),
    Workload("iterate", "iteration, row by row", "rows/s", reads.iterate),
    Workload("delete", "delete, process", "ops/s", writes.delete, "copy", commits=True),
    Workload(
        "delete-range",
        "delete_range of 100 rows",
        "rows/s",
        writes.delete_range,
        "copy",
        commits=True,
    ),
    Workload("ycsb-a", "YCSB A", "ops/s", mixes.ycsb_a, "copy", commits=True),
    Workload(
        "ycsb-a-uniform", "YCSB A, uniform", "ops/s", mixes.ycsb_a_uniform, "copy", commits=True
    ),
    Workload("ycsb-b", "YCSB B", "ops/s", mixes.ycsb_b, "copy", commits=True),
    Workload("ycsb-c", "YCSB C", "ops/s", mixes.ycsb_c, "copy"),
    Workload("ycsb-c-uniform", "YCSB C, uniform", "ops/s", mixes.ycsb_c_uniform, "copy"),
    Workload("ycsb-d", "YCSB D, latest", "ops/s", mixes.ycsb_d, "copy", commits=True),
    Workload("ycsb-e", "YCSB E", "ops/s", mixes.ycsb_e, "copy", commits=True),
    Workload("ycsb-f", "YCSB F", "ops/s", mixes.ycsb_f, "copy", commits=True),
    Workload(
        "mixed", "gets beside a writer", "ops/s", mixes.mixed, "copy", threaded=True, commits=True
    ),
    Workload("cold-get", "cold get", "ops/s", cold.cold_get, limit="read"),
    Workload("cold-get-many", "cold get_many", "rows/s", cold.cold_get_many, limit="queue"),
    Workload("open", "open and first get", "s", lifecycle.open_store),
    Workload("recover", "open and first get after SIGKILL", "s", lifecycle.recover),
    Workload(
        "growth", "puts from empty, over time", "rows/s", lifecycle.growth, "nothing", commits=True
    ),
]

WORKLOADS = {workload.name: workload for workload in _ALL}
