"""The machine and the drive that a benchmark runs on, as flat facts for the report."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np

from cesium import _kernels, _ring
from cesium.benchmark.workspace import free_bytes
from cesium.doctor import Machine, Workbench
from cesium.file_system import mount_of

PAGE_BYTES = 4096

Fact = str | int | float


def describe(directory: Path) -> dict[str, Fact]:
    """Names and what they are; what the kernel does not say is left out.

    Tries direct I/O and io_uring on a file of its own below the directory.
    """
    machine = Machine()
    path = str(directory.resolve())
    memory = machine.memory()
    facts: dict[str, Fact | None] = {
        "processor": machine.processor() or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "governor": machine.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        or "not told",
        "memory_bytes": memory.get("MemTotal"),
        "available_memory_bytes": memory.get("MemAvailable"),
        "memory_limit_bytes": machine.memory_limit(),
        "kernel": f"{platform.system()} {machine.kernel()}",
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "simd": _kernels.level(),
        "directory": path,
        "free_bytes": free_bytes(directory),
    }
    mount = mount_of(path)
    if mount is not None:
        facts["mount"] = f"{mount.source} at {mount.point}"
        facts["mount_options"] = ",".join(mount.options)
    with Workbench.below(path) as files:
        facts["file_system"] = files.file_system().name
        drive = machine.drive(files.device(), mount.source if mount else None)
        facts |= _direct(files)
    if drive is not None:
        facts["drive"] = " > ".join(drive.stack)
        facts["model"] = drive.model or ("virtual, the host's" if drive.virtual else None)
        facts["drive_bytes"] = drive.bytes
        facts["scheduler"] = drive.scheduler
        facts["write_cache"] = drive.write_cache
    return {name: fact for name, fact in facts.items() if fact is not None}


def _direct(files: Workbench) -> dict[str, Fact | None]:
    """Whether direct I/O and io_uring work on files here."""
    file = files.open_direct("direct", 0)
    try:
        direct = f"works, in units of {file.alignment_bytes} bytes" if file.direct else "refused"
    finally:
        files.close(file.fd)
    fd = files.create("ring", PAGE_BYTES)
    try:
        os.pwrite(fd, bytes(PAGE_BYTES), 0)
        _ring.read_at_depth(
            np.array([fd], np.int32), np.zeros(1, np.int64), PAGE_BYTES, 1, np.zeros(1, np.uint64)
        )
        ring = "works"
    except OSError as error:
        ring = f"refused: {error.strerror}"
    finally:
        files.close(fd)
    return {"direct_io": direct, "io_uring": ring}
