"""What the kernel tells of the machine: the drive below a directory, memory, limits.

Everything is read through one Machine, below one root, so that a test shows another machine as a
directory of files.  What the kernel does not tell is None; nothing here raises for it.

Thread safety: a Machine holds no state.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

UNLIMITED = 1 << 60  # more than any machine has: a limit above it is none

VIRTUAL = ("vd", "xvd")
VIRTUAL_MODELS = ("QEMU", "Msft Virtual", "VMware Virtual", "Virtual", "VBOX", "Google", "Amazon")

_LIMITS = {
    "address_space_bytes": resource.RLIMIT_AS,
    "file_bytes": resource.RLIMIT_FSIZE,
    "open_files": resource.RLIMIT_NOFILE,
}


@dataclass(frozen=True, slots=True)
class Drive:
    """What holds a directory's bytes.

    stack: block devices from the file system's own down (a partition, a volume, a drive), as in
    ["dm-0", "nvme0n1p2", "nvme0n1"].  disks: the drives at the bottom; the other fields are of the
    first of them, `rotational` of any.  write_cache: "write back" (volatile: a sync must flush it)
    or "write through".  virtual: the host's, who alone knows what is behind it.
    """

    stack: list[str]
    disks: list[str]
    model: str | None
    rotational: bool | None
    removable: bool | None
    scheduler: str | None
    write_cache: str | None
    bytes: int | None
    virtual: bool

    @property
    def spins(self) -> bool:
        """Whether it has platters.  Of a virtual drive the kernel says so for want of knowledge."""
        return bool(self.rotational) and not self.virtual


@dataclass(frozen=True, slots=True)
class Counters:
    """Requests that a machine's drives have completed; flushes: None on an old kernel."""

    writes: int
    flushes: int | None


class Machine:
    """The machine as told by /proc and /sys, below `root`."""

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def path(self, name: str) -> str:
        """Where a file of /proc or /sys is found."""
        return os.path.join(self.root, name)

    def text(self, name: str) -> str | None:
        """The content of a small file, without blanks around it; None when it cannot be read."""
        try:
            with open(self.path(name), errors="replace") as file:
                return file.read().strip()
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """The same as a number; None when it is none."""
        text = self.text(name)
        return int(text) if text is not None and text.isdecimal() else None

    def _flag(self, name: str) -> bool | None:
        number = self.number(name)
        return None if number is None else bool(number)

    # -- drives

    def drive(self, device: int, source: str | None = None) -> Drive | None:
        """The drive below a file system, by its device number (st_dev), or by the device mounted.

        A file system with a device number of its own (btrfs, zfs) is known by the latter only.
        """
        entry = self._block_entry(device)
        if entry is None and source is not None and source.startswith("/dev/"):
            try:
                entry = self._block_entry(os.stat(source).st_rdev)
            except OSError:
                return None
        if entry is None:
            return None
        stack: list[str] = []
        disks: list[str] = []
        self._descend(entry, stack, disks)
        if not disks:
            return None
        first = f"sys/block/{disks[0]}"
        model = self._model(disks[0])
        spins = [self._flag(f"sys/block/{name}/queue/rotational") for name in disks]
        scheduler = self.text(f"{first}/queue/scheduler")
        if scheduler is not None and "[" in scheduler:
            scheduler = scheduler.partition("[")[2].partition("]")[0]
        sectors = self.number(f"{first}/size")
        return Drive(
            stack,
            disks,
            model,
            None if None in spins else any(spins),
            self._flag(f"{first}/removable"),
            scheduler,
            self._write_cache(disks),
            None if sectors is None else sectors * 512,
            disks[0].startswith(VIRTUAL) or (model or "").startswith(VIRTUAL_MODELS),
        )

    def _block_entry(self, device: int) -> str | None:
        entry = self.path(f"sys/dev/block/{os.major(device)}:{os.minor(device)}")
        return os.path.realpath(entry) if os.path.exists(entry) else None

    def _descend(self, entry: str, stack: list[str], disks: list[str]) -> None:
        """From a device to those that it is made of, to the drives at the bottom."""
        name = os.path.basename(entry)
        if name in stack:
            return
        stack.append(name)
        if os.path.exists(os.path.join(entry, "partition")):
            self._descend(os.path.dirname(entry), stack, disks)
            return
        try:
            below = sorted(os.listdir(os.path.join(entry, "slaves")))
        except OSError:
            below = []
        for slave in below:
            self._descend(os.path.realpath(os.path.join(entry, "slaves", slave)), stack, disks)
        if not below:
            disks.append(name)

    def _model(self, disk: str) -> str | None:
        parts = [self.text(f"sys/block/{disk}/device/{name}") for name in ("vendor", "model")]
        if parts[1] is None:
            backing = self.text(f"sys/block/{disk}/loop/backing_file")
            return None if backing is None else f"a loop over {backing}"
        # A number is the vendor's id on the bus; "ATA" is no vendor.
        vendor = parts[0] if parts[0] and not parts[0].startswith("0x") else None
        return " ".join(part for part in (vendor, parts[1]) if part and part != "ATA")

    def _write_cache(self, disks: list[str]) -> str | None:
        """The worst of all: a flush is needed if one drive needs it."""
        caches = [self.text(f"sys/block/{name}/queue/write_cache") for name in disks]
        return "write back" if "write back" in caches else caches[0]

    def counters(self, drive: Drive) -> Counters | None:
        """What the drives have done so far, all of them together."""
        writes, flushes = 0, 0
        known = True
        for disk in drive.disks:
            fields = (self.text(f"sys/block/{disk}/stat") or "").split()
            if len(fields) < 11:
                return None
            writes += int(fields[4])
            known = known and len(fields) >= 17
            flushes += int(fields[15]) if len(fields) >= 17 else 0
        return Counters(writes, flushes if known else None)

    # -- kernel, memory, limits

    def kernel(self) -> str:
        """The kernel's release, such as "6.8.0-45-generic"."""
        return self.text("proc/sys/kernel/osrelease") or os.uname().release

    def processor(self) -> str | None:
        """The processor's name, where the kernel has one."""
        for line in (self.text("proc/cpuinfo") or "").splitlines():
            name, _, said = line.partition(":")
            if name.strip() == "model name":
                return said.strip()
        return None

    def memory(self) -> dict[str, int]:
        """Bytes by the names of /proc/meminfo."""
        found = {}
        for line in (self.text("proc/meminfo") or "").splitlines():
            name, _, said = line.partition(":")
            words = said.split()
            if words and words[0].isdecimal():
                found[name] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
        return found

    def memory_limit(self) -> int | None:
        """The least that this process's control groups allow, in bytes; None when they do not."""
        limits = []
        for line in (self.text("proc/self/cgroup") or "").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, group = rest.partition(":")
            if controllers == "":
                base, name = "sys/fs/cgroup", "memory.max"
            elif "memory" in controllers.split(","):
                base, name = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            else:
                continue
            parts = [part for part in group.split("/") if part not in ("", "..")]
            for depth in range(len(parts) + 1):
                limits.append(self.number("/".join([base, *parts[:depth], name])))
        found = [limit for limit in limits if limit is not None and limit < UNLIMITED]
        return min(found, default=None)

    def limits(self) -> dict[str, int | None]:
        """The process's own limits (ulimit); None where there is none."""
        found: dict[str, int | None] = {}
        for name, number in _LIMITS.items():
            soft = resource.getrlimit(number)[0]
            limited = soft != resource.RLIM_INFINITY and soft < UNLIMITED
            found[name] = soft if limited else None
        return found
