"""What of an examination is about the machine and not about one directory.

Thread safety: nothing here holds state.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cesium import _kernels
from cesium.doctor.machine import Drive, Machine
from cesium.doctor.verdicts import Check, ok, shown_bytes, warning

MEMORY_BYTES_LEAST = 1 << 30  # the default memory_limit
FILE_BYTES_LEAST = 256 << 20  # segments and journal files have about 64 MiB, and may be larger
OPEN_FILES_LEAST = 256
MAPPINGS_LEAST = 65530  # the kernel's own default; each segment is one
KERNEL_LEAST = (5, 14)


def check_drive(drive: Drive | None) -> Check:
    """What the drive is, and whether it suits."""
    if drive is None:
        return ok("drive", "the kernel names no block device behind this directory")
    known = [
        " + ".join(drive.disks),
        drive.model,
        None if drive.bytes is None else shown_bytes(drive.bytes),
        "virtual" if drive.virtual else "spinning" if drive.spins else None,
        drive.write_cache and f"cache: {drive.write_cache}",
        drive.scheduler and f"scheduler: {drive.scheduler}",
    ]
    found = ", ".join(part for part in known if part)
    if len(drive.stack) > len(drive.disks):
        found += f" (through {' > '.join(drive.stack)})"
    if any(name.startswith(("ram", "zram")) for name in drive.disks):
        return warning("drive", found, "It lies in memory: nothing survives a restart.")
    if drive.removable:
        advice = "It can be pulled out: whoever does loses what was not synced, and reads fail."
        return warning("drive", found, advice)
    if drive.spins:
        advice = (
            "A sync takes milliseconds and a cold read as long: commit in batches, and prefer "
            "ranges to single keys; or use a drive of flash."
        )
        return warning("drive", found, advice)
    return ok("drive", found)


def _memory(machine: Machine) -> Check:
    said = machine.memory()
    limit = machine.memory_limit()
    available = said.get("MemAvailable")
    if available is None:
        return ok("memory", "the kernel does not say how much there is")
    usable = available if limit is None else min(available, limit)
    found = f"{shown_bytes(available)} of {shown_bytes(said.get('MemTotal', available))} available"
    if limit is not None:
        found += f", this process may have {shown_bytes(limit)}"
    figures = {"available_bytes": available, "limit_bytes": limit}
    if usable < MEMORY_BYTES_LEAST:
        advice = (
            "That is less than a store's default memory_limit of 1GiB: open stores with a smaller "
            "one, such as memory_limit='128MiB'."
        )
        return warning("memory", found, advice, **figures)
    if machine.number("proc/sys/vm/overcommit_memory") == 2:
        room = said.get("CommitLimit", 0) - said.get("Committed_AS", 0)
        found += f"; overcommit is off, {shown_bytes(max(room, 0))} may still be promised"
        figures["commit_bytes"] = room
        if room < MEMORY_BYTES_LEAST:
            advice = (
                "A load may fail with MemoryError though memory is free: raise "
                "vm.overcommit_ratio, or open stores with a smaller memory_limit."
            )
            return warning("memory", found, advice, **figures)
    return ok("memory", found, **figures)


def _limits(machine: Machine) -> Check:
    limits = machine.limits()
    mappings = machine.number("proc/sys/vm/max_map_count")
    figures = {**limits, "mappings": mappings}
    if mappings is not None and mappings < MAPPINGS_LEAST:
        found = f"vm.max_map_count is {mappings:,}"
        advice = f"Each segment is a mapping: raise it to {MAPPINGS_LEAST:,} for large stores."
        return warning("limits", found, advice, **figures)
    files, size, space = limits["open_files"], limits["file_bytes"], limits["address_space_bytes"]
    if size is not None and size < FILE_BYTES_LEAST:
        found = f"files may have {shown_bytes(size)} (ulimit -f)"
        return warning("limits", found, "A load would end as if the drive were full.", **figures)
    if space is not None:
        found = f"the address space is limited to {shown_bytes(space)} (ulimit -v)"
        advice = "Segments are mapped, so a store larger than that cannot be read: lift the limit."
        return warning("limits", found, advice, **figures)
    if files is not None and files < OPEN_FILES_LEAST:
        found = f"{files} files may be open (ulimit -n)"
        return warning("limits", found, "A merge opens many: raise it to 1,024.", **figures)
    return ok("limits", "none of those set here is in the way", **figures)


def _kernel(machine: Machine) -> Check:
    release = machine.kernel()
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is not None and (int(match[1]), int(match[2])) < KERNEL_LEAST:
        advice = (
            "From 5.14 on the journal's pages are made writable ahead, which makes commits of "
            "durability 'process' several times as fast."
        )
        return warning("kernel", f"Linux {release}", advice)
    return ok("kernel", f"Linux {release}")


def _processor(machine: Machine) -> Check:
    level = _kernels.level()
    name = machine.processor() or "a processor without a name"
    if level == "portable":
        advice = (
            "Searching and checksums run without SIMD: they are right, and several times slower."
        )
        return warning("processor", f"{name}, no SIMD that is used", advice, simd=level)
    return ok("processor", f"{name}; SIMD {level}, CRC32C in hardware", simd=level)


MACHINE_CHECKS: dict[str, Callable[[Machine], Check]] = {
    "memory": _memory,
    "limits": _limits,
    "kernel": _kernel,
    "processor": _processor,
}
