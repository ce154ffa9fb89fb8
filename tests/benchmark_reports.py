"""Reports of `cesium bench` made by hand, with figures like those of a real run."""

from __future__ import annotations

from typing import Any

ENGINES = ["cesium", "lmdb", "rocksdb", "leveldb", "sqlite", "arcticdb", "numpy"]

# Medians in the order of ENGINES; 0: the engine does not do this work.
WORKLOADS: dict[str, tuple[str, list[float]]] = {
    "load-sorted": ("rows/s", [61e6, 5.3e6, 1.2e6, 0.9e6, 1.0e6, 28.5e6, 78e6]),
    "load-shuffled": ("rows/s", [12.5e6, 3.6e6, 0.8e6, 0.5e6, 0.4e6, 7.8e6, 9.3e6]),
    "put-random": ("ops/s", [1.62e6, 0.31e6, 0.42e6, 0.50e6, 0.09e6, 0, 0]),
    "put-sync": ("ops/s", [8.1e3, 4.1e3, 7.9e3, 8.2e3, 2.2e3, 0, 0]),
    "get-hit": ("ops/s", [2.75e6, 1.31e6, 0.9e6, 0.6e6, 0.2e6, 0, 0]),
    "get-miss": ("ops/s", [2.21e6, 1.4e6, 2.7e6, 0.8e6, 0.21e6, 0, 0]),
    "get-many": ("rows/s", [19.5e6, 1.5e6, 1.1e6, 0, 0, 0, 8.3e6]),
    "scan": ("rows/s", [312e6, 3.5e6, 1.2e6, 1.5e6, 2.2e6, 364e6, 859e6]),
    "open": ("s", [0.00031, 0.00011, 0.0055, 0.0042, 0.00027, 0, 0]),
}  # fmt: skip


def result(workload: str, engine: str, unit: str, median: float, **others: Any) -> dict[str, Any]:
    """One result with three runs, 1 % apart from each other."""
    runs = [median * 0.99, median, median * 1.01]
    return {
        "workload": workload, "key": "u64", "value": 8, "rows": 1_000_000, "threads": 1,
        "engine": engine, "unit": unit, "runs": runs, "median": median, "low": min(runs),
        "high": max(runs), "share": None, "latency_us": None, "over_time": None, "error": None,
    } | others  # fmt: skip


def failed(workload: str, engine: str, unit: str, error: str) -> dict[str, Any]:
    nothing = {"runs": [], "median": None, "low": None, "high": None}
    return result(workload, engine, unit, 1.0, error=error) | nothing


def latency(median_us: float) -> dict[str, Any]:
    factors = {"p50": 1, "p90": 1.6, "p99": 4, "p99_9": 35, "max": 2400}
    return {name: median_us * factor for name, factor in factors.items()} | {"count": 1_000_000}


def growth(rate: float) -> list[list[float]]:
    """Seconds and rows so far: a rate that falls by half over time."""
    points, rows = [], 0.0
    for step in range(1, 41):
        rows += rate * (1 - step / 80) * 0.5
        points.append([step * 0.5, rows])
    return points


def full_report() -> dict[str, Any]:
    """A report with every part: wins, losses, a failure, shares, latencies, a curve."""
    results = []
    for workload, (unit, medians) in WORKLOADS.items():
        for engine, median in zip(ENGINES, medians):
            if median:
                results.append(result(workload, engine, unit, median))
    for each in results:
        if each["workload"] in ("get-hit", "put-sync"):
            each["latency_us"] = latency(1e6 / each["median"])
        if each["workload"].startswith("load"):
            fraction = each["median"] * 16 / 1.9e9
            each["share"] = {"of": "sequential write", "fraction": fraction}
            each |= {"disk_bytes": 17_000_000, "raw_bytes": 16_000_000}
        if each["workload"] == "scan":
            each["share"] = {"of": "sequential read", "fraction": each["median"] * 16 / 3.1e9}
    results.append(failed("get-many", "sqlite", "rows/s", "sqlite3.OperationalError: too many"))
    results += [
        result(
            "growth",
            engine,
            "rows/s",
            rate,
            over_time=growth(rate),
            space_amplification=1.25,
            write_amplification=4.5,
        )
        for engine, rate in (("cesium", 1.4e6), ("rocksdb", 0.3e6), ("lmdb", 0.5e6))
    ]
    results.append(result("scan", "cesium", "rows/s", 560e6, threads=2))
    return {
        "format": "cesium-bench", "version": 1, "started": "2026-11-21T12:00:00+00:00",
        "seconds": 57.5, "profile": "quick", "seed": 7, "interrupted": False,
        "machine": {
            "processor": "AMD EPYC", "processors": 2, "memory_bytes": 25 << 30,
            "kernel": "Linux 6.1", "file_system": "ext4", "direct_io": True, "load": 0.25,
        },
        "drive": {
            "sequential_read": 3.1e9, "sequential_write": 1.9e9,
            "random_read": [
                {"depth": depth, "reads_per_second": min(21e3 * depth**0.8, 400e3),
                 "p50_us": 45.0 + depth, "p99_us": 110.0 + 6 * depth}
                for depth in (1, 4, 16, 64, 256)
            ],
            "sync_us": {"p50": 118, "p90": 140, "p99": 260, "p99_9": 900, "max": 2100},
        },
        "engines": {
            name: {"version": "1.0", "settings": f"settings of {name}", "bound": name == "numpy"}
            for name in ENGINES
        },
        "results": results,
    }  # fmt: skip
