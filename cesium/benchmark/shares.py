"""What of the drive bounds a workload, and how much of that an engine gets."""

from __future__ import annotations

from typing import Any

from cesium.benchmark.job import Job

Share = dict[str, Any]


def share(limit: str | None, drive: dict[str, Any] | None, job: Job, rate: float) -> Share | None:
    """What part of the drive's rate a workload's is: {"of": text, "fraction": float}, or None.

    limit: "write" (the rows' own bytes beside sequential writes), "sync" (calls beside syncs one
    after another), "read" (a cold read of a page a call, beside reads at depth 1) or "queue" (the
    same beside the best depth).  Above 1: an engine needs less of the drive than one would think.
    """
    if limit is None or drive is None:
        return None
    if limit == "write":
        written = rate * job.shape.row_bytes
        return _of("sequential write", written / drive["sequential_write"])
    if limit == "sync":
        return _of("syncs, one after another", rate * drive["sync_us"]["p50"] / 1e6)
    reads = {row["depth"]: row["reads_per_second"] for row in drive["random_read"]}
    if limit == "read":
        return _of("random reads, depth 1", rate / reads[1])
    depth = max(reads, key=reads.__getitem__)
    return _of(f"random reads, depth {depth}", rate / reads[depth])


def _of(text: str, fraction: float) -> Share:
    return {"of": text, "fraction": fraction}
