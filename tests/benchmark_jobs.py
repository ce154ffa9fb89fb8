"""Jobs of the benchmark, for tests."""

from __future__ import annotations

from cesium.benchmark.job import Job


def job(**others: object) -> Job:
    given: dict[str, object] = {
        "workload": "put-sync", "engine": "cesium", "key": "u64", "value_bytes": 8, "rows": 100,
        "threads": 1, "seed": 1, "repeats": 1, "seconds": 0.1, "rate": None, "cache_bytes": 1 << 20,
        "store": None, "scratch": "",
    }  # fmt: skip
    return Job(**given | others)  # type: ignore[arg-type]
