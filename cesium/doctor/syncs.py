"""How long a commit's sync takes, and whether it can have reached the drive.

The drive's own counters are the witness: every sync of a new record is at least one write, and one
flush if the drive's cache is volatile.  Where there are none, time is: what is faster than any
drive can be, did not wait for one.
"""

from __future__ import annotations

import math
import time

from cesium.doctor.examination import Examination
from cesium.doctor.verdicts import Check, ok, warning
from cesium.file_system import MEMORY

SYNCS = 200
SYNC_SECONDS_MOST = 3.0  # a spinning drive gets fewer syncs
SYNCS_LEAST = 20
RECORD_BYTES = 128  # a commit of one small row
SYNC_FILE_BYTES = 1 << 20
# The fastest drives that keep their word acknowledge a write in about 10 us, and the system calls
# of a write and a sync come on top.  A platter turns once in 4 ms at best.
IMPLAUSIBLE_SECONDS = 12e-6
IMPLAUSIBLE_SPINNING_SECONDS = 1e-3
SLOW_SECONDS = 20e-3


def check_sync(at: Examination) -> Check:
    files = at.files
    drive, counters = at.drive, at.machine.counters
    fd = files.create("sync", SYNC_FILE_BYTES)
    seconds: list[float] = []
    try:
        for turn in range(4):  # the first ones pay for what comes once
            files.write_all(fd, bytes(RECORD_BYTES), turn * RECORD_BYTES)
            files.sync_data(fd)
        before = counters(drive) if drive is not None else None
        end = time.perf_counter() + SYNC_SECONDS_MOST
        while len(seconds) < SYNCS and (len(seconds) < SYNCS_LEAST or time.perf_counter() < end):
            offset = (4 + len(seconds)) * RECORD_BYTES
            started = time.perf_counter()
            files.write_all(fd, b"\xa5" * RECORD_BYTES, offset)
            files.sync_data(fd)
            seconds.append(time.perf_counter() - started)
        after = counters(drive) if drive is not None else None
    finally:
        files.close(fd)
    seconds.sort()
    count = len(seconds)
    median, high = seconds[count // 2], seconds[math.ceil(count * 0.99) - 1]
    writes = flushes = None
    if before is not None and after is not None:
        writes = after.writes - before.writes
        if before.flushes is not None and after.flushes is not None:
            flushes = after.flushes - before.flushes
    return judge_sync(at, count, median, high, writes, flushes)


def judge_sync(
    at: Examination,
    count: int,
    median: float,
    high: float,
    writes: int | None,
    flushes: int | None,
) -> Check:
    """Whether syncs as fast as these can have reached the drive."""
    figures = {
        "syncs": count, "median_seconds": median, "p99_seconds": high,
        "drive_writes": writes, "drive_flushes": flushes,
    }  # fmt: skip
    found = (
        f"an append of {RECORD_BYTES} B and its sync take {median * 1e6:,.0f} us "
        f"(99th percentile {high * 1e6:,.0f} us): {1 / median:,.0f} commits a second by one thread"
    )
    lost = (
        " A power cut may lose commits that were acknowledged as synced. Look for a drive cache "
        "without a battery, a virtual machine's 'unsafe' cache mode, eatmydata, or a mount without "
        "barriers."
    )
    if at.files.file_system().kind == MEMORY:
        return warning(
            "sync", found, "There is no drive behind it, so a sync does nothing.", **figures
        )
    if writes is not None and writes < count / 2:
        advice = f"In {count} syncs the drive was given {writes} writes." + lost
        return warning("sync", found, advice, **figures)
    volatile = at.drive is not None and at.drive.write_cache == "write back"
    if volatile and flushes is not None and flushes < count / 2:
        advice = (
            f"The drive's cache is volatile, and {count} syncs flushed it {flushes} times." + lost
        )
        return warning("sync", found, advice, **figures)
    spins = at.drive is not None and at.drive.spins
    least = IMPLAUSIBLE_SPINNING_SECONDS if spins and volatile else IMPLAUSIBLE_SECONDS
    if median < least:
        advice = f"No {'spinning ' if spins else ''}drive is that fast: syncs end before it." + lost
        return warning("sync", found, advice, **figures)
    if median > SLOW_SECONDS:
        advice = (
            "That is slow: write in batches (put_many, bulk_load), from several threads, which "
            "share syncs, or with durability='process'."
        )
        return warning("sync", found, advice, **figures)
    return ok("sync", found, **figures)
