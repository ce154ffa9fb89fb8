"""`cesium doctor`: each check seen to fail on faked doors, and the real thing on a directory."""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cesium import _kernels
from cesium.doctor import Check, Diagnosis, Machine, Workbench, examine, syncs
from cesium.doctor.machine import Counters
from cesium.doctor.workbench import PREFIX, Space
from cesium.file_system import FileSystem
from cesium.files import DirectFile
from command_line import fail, on_terminal, run, succeed

NAMES = [
    "file system", "drive", "free space", "sync", "rename", "locks", "direct I/O", "mapping",
    "preallocation", "links", "memory", "limits", "kernel", "processor",
]  # fmt: skip


def refusing(number: int) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


def bench(**methods: Any) -> type[Workbench]:
    """A workbench with some methods of its own."""
    return type("Faked", (Workbench,), methods)


class Still(Machine):
    """This machine, whose drives do not say what they did."""

    def counters(self, drive: Any) -> Counters | None:
        return None


@pytest.fixture(autouse=True)
def few_syncs(monkeypatch: Any) -> None:
    monkeypatch.setattr(syncs, "SYNCS", 20)


def check_of(name: str, directory: Path, **methods: Any) -> Check:
    """One check of an examination with faked methods; nothing may be left behind."""
    diagnosis = examine(directory, bench(**methods), Still())
    assert os.listdir(directory) == []
    (check,) = [check for check in diagnosis.checks if check.name == name]
    assert diagnosis.ok == all(check.status != "failed" for check in diagnosis.checks)
    if check.status != "ok":
        assert check.advice.endswith("."), "a sentence what it means and what to do"
    return check


# --- the real thing -------------------------------------------------------------------------------


def test_this_directory(tmp_path: Path) -> None:
    seen: list[str] = []
    diagnosis = examine(tmp_path, progress=seen.append)
    assert diagnosis.ok and [check.name for check in diagnosis.checks] == NAMES
    assert seen == NAMES[:10]
    assert os.listdir(tmp_path) == []
    by_name = {check.name: check for check in diagnosis.checks}
    for name in ("rename", "locks", "direct I/O", "mapping", "preallocation"):
        assert by_name[name].status in ("ok", "warning"), by_name[name]
    assert by_name["locks"].found.endswith("another process")
    assert 0 < by_name["sync"].figures["median_seconds"] <= by_name["sync"].figures["p99_seconds"]
    assert by_name["processor"].figures["simd"] == _kernels.level()
    assert diagnosis.file_system == Workbench(tmp_path).file_system().name
    again = json.loads(json.dumps(diagnosis.as_dict()))
    assert again["ok"] and again["checks"][0]["name"] == "file system"
    if diagnosis.drive is not None:
        assert again["drive"]["disks"] == diagnosis.drive.disks


# --- each check, failing --------------------------------------------------------------------------


def leave_both_names(files: Workbench, old: str, new: str) -> None:
    shutil.copy(files.path(old), files.path(new))


def keep_the_first(files: Workbench, name: str) -> None:
    if not os.path.exists(files.path(name)):
        os.link(files.path(name + ".new"), files.path(name))
    os.unlink(files.path(name + ".new"))


def private(files: Workbench, fd: int, size: int) -> mmap.mmap:
    return mmap.mmap(fd, size, mmap.MAP_PRIVATE)


def buffered(files: Workbench, name: str, allocate_bytes: int) -> DirectFile:
    return DirectFile(files.create(name), 4096, False)


def coarse(files: Workbench, name: str, allocate_bytes: int) -> DirectFile:
    return DirectFile(files.create(name), 65536, True)


def refuse_a_long_write(files: Any, fd: int, data: Any, offset: int, path: Any = None) -> None:
    if len(data) >= 1 << 20:
        refusing(errno.EINVAL)()
    Workbench.write_all(files, fd, data, offset, path)


def read_rubbish(files: Workbench, name: str, limit_bytes: int | None = None) -> bytes:
    content = Workbench.read_all(files, name, limit_bytes)
    return bytes(len(content)) if name == "direct" else content


def stale(files: Workbench, name: str) -> Any:
    import numpy as np

    return np.zeros(files.size(name), np.uint8)


def lies_on(name: str, kind: str) -> Any:
    return lambda files: FileSystem(name, kind)


FAILING: list[tuple[str, str, dict[str, Any], str]] = [
    ("locks", "failed", {"flock": lambda files, fd: True}, "second descriptor"),
    ("locks", "failed", {"flock_elsewhere": lambda files, name: True}, "another process"),
    ("locks", "failed", {"flock": lambda files, fd: False}, "nobody has is refused"),
    ("locks", "failed", {"flock": refusing(errno.ENOLCK)}, "refused it: No locks"),
    ("locks", "ok", {"flock_elsewhere": lambda files, name: None}, "descriptor"),
    ("rename", "failed", {"rename": leave_both_names}, "new name"),
    ("rename", "failed", {"publish": keep_the_first}, "own content"),
    ("rename", "failed", {"sync_directory": refusing(errno.EINVAL)}, "Invalid argument"),
    ("direct I/O", "warning", {"open_direct": buffered}, "refuses"),
    ("direct I/O", "warning", {"open_direct": coarse}, "65536"),
    ("direct I/O", "warning", {"write_all": refuse_a_long_write}, "first write"),
    ("direct I/O", "failed", {"read_all": read_rubbish}, "something else"),
    ("mapping", "failed", {"map_writable": private}, "through its mapping"),
    ("mapping", "failed", {"map_readonly": stale}, "written to its file"),
    ("mapping", "failed", {"map_writable": refusing(errno.ENODEV)}, "No such device"),
    ("mapping", "warning", {"populate_writable": refusing(errno.EINVAL)}, "POPULATE"),
    ("preallocation", "warning", {"reserve": refusing(errno.EOPNOTSUPP)}, "no fallocate"),
    ("preallocation", "failed", {"reserve": lambda files, fd, size: None}, "size"),
    ("preallocation", "failed", {"reserve": refusing(errno.EIO)}, "Input/output"),
    ("links", "warning", {"link": refusing(errno.EPERM), "clone": refusing(errno.ENOTTY)},
     "neither"),
    ("links", "ok", {"clone": refusing(errno.EOPNOTSUPP)}, "no reflinks"),
    ("links", "ok", {"clone": Workbench.link}, "(reflinks)"),
    ("free space", "warning", {"space": lambda files: Space(1 << 20, 1 << 40, None)}, "1.0 MiB"),
    ("free space", "warning", {"space": lambda files: Space(1 << 35, 1 << 40, 9)}, "9 inodes"),
    ("free space", "ok", {"space": lambda files: Space(1 << 35, 1 << 40, None)}, "32.0 GiB"),
    ("file system", "warning", {"file_system": lies_on("nfs", "network")}, "nfs"),
    ("file system", "warning", {"file_system": lies_on("fuse.sshfs", "fuse")}, "sshfs"),
    ("file system", "warning", {"file_system": lies_on("tmpfs", "memory")}, "tmpfs"),
    ("file system", "warning", {"file_system": lies_on("btrfs", "local")}, "btrfs"),
    ("file system", "ok", {"file_system": lies_on("xfs", "local")}, "xfs"),
    ("sync", "warning", {"sync_data": lambda files, fd, path=None: None}, "commits a second"),
    ("sync", "warning", {"file_system": lies_on("tmpfs", "memory")}, "commits a second"),
    ("sync", "failed", {"sync_data": refusing(errno.EIO)}, "Input/output"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "status", "methods", "said"),
    FAILING,
    ids=[f"{case[0]}-{case[1]}-{number}" for number, case in enumerate(FAILING)],
)
def test_each_check(
    tmp_path: Path, name: str, status: str, methods: dict[str, Any], said: str
) -> None:
    check = check_of(name, tmp_path, **methods)
    assert (check.status, said in check.found) == (status, True), check


# --- syncs ----------------------------------------------------------------------------------------


class Witness(Still):
    """Drives that count so much for each sync, of a cache that is as told."""

    def __init__(self, writes: float, flushes: float | None, cache: str = "write back") -> None:
        super().__init__()
        self.by_sync = writes, flushes
        self.asked = 0
        self.cache = cache

    def drive(self, device: int, source: str | None = None) -> Any:
        from cesium.doctor import Drive

        return Drive(["sda"], ["sda"], "A Drive", False, False, "none", self.cache, 1 << 40, False)

    def counters(self, drive: Any) -> Counters:
        self.asked += 1
        count = 20 * (self.asked - 1)
        writes, flushes = self.by_sync
        return Counters(int(writes * count), None if flushes is None else int(flushes * count))


@pytest.mark.parametrize(
    ("machine", "status", "said"),
    [
        (Witness(0, 1), "warning", "given 0 writes"),
        (Witness(2, 0), "warning", "flushed it 0 times"),
        (Witness(2, 1), "ok", ""),
        (Witness(2, None), "ok", ""),
        (Witness(2, 0, "write through"), "ok", ""),
    ],
)
def test_the_drives_own_count_is_the_witness(
    tmp_path: Path, monkeypatch: Any, machine: Witness, status: str, said: str
) -> None:
    monkeypatch.setattr(syncs, "IMPLAUSIBLE_SECONDS", 0)
    monkeypatch.setattr(syncs, "SLOW_SECONDS", 1e9)
    machine.asked = 0
    (check,) = [c for c in examine(tmp_path, machine=machine).checks if c.name == "sync"]
    assert (check.status, said in check.advice) == (status, True), check


def test_slow_syncs_are_told(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(syncs, "IMPLAUSIBLE_SECONDS", 0)
    monkeypatch.setattr(syncs, "SLOW_SECONDS", 0)
    assert "put_many" in check_of("sync", tmp_path, file_system=lies_on("xfs", "local")).advice


# --- the machine ----------------------------------------------------------------------------------


class Tree:
    """A /proc and /sys of our own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.machine = Machine(str(root))

    def write(self, name: str, content: object = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")

    def disk(self, name: str, number: str, **queue: object) -> Path:
        where = self.root / "sys/devices" / name
        self.write(f"sys/devices/{name}/size", 2048)
        for key, content in queue.items():
            self.write(f"sys/devices/{name}/queue/{key}", content)
        (where / "slaves").mkdir(exist_ok=True)
        self.number(where, number)
        link = self.root / "sys/block" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(where)
        return where

    def number(self, where: Path, number: str) -> None:
        link = self.root / "sys/dev/block" / number
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(where)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    yield Tree(tmp_path / "root")


def test_a_partition_is_resolved_to_its_drive(tree: Tree) -> None:
    where = tree.disk("nvme0n1", "259:0", rotational=0, scheduler="[none] mq-deadline",
                      write_cache="write through")  # fmt: skip
    tree.write("sys/devices/nvme0n1/device/model", "Fast Drive 2")
    tree.write("sys/devices/nvme0n1/removable", 0)
    tree.write("sys/devices/nvme0n1/nvme0n1p2/partition", 2)
    tree.number(where / "nvme0n1p2", "259:2")
    drive = tree.machine.drive(os.makedev(259, 2))
    assert drive is not None
    assert (drive.stack, drive.disks) == (["nvme0n1p2", "nvme0n1"], ["nvme0n1"])
    assert (drive.model, drive.scheduler, drive.bytes) == ("Fast Drive 2", "none", 1 << 20)
    assert (drive.write_cache, drive.rotational) == ("write through", False)
    assert not drive.spins and not drive.removable and not drive.virtual


def test_volumes_and_arrays_are_resolved_to_all_their_drives(tree: Tree) -> None:
    for number, (spins, cache) in enumerate([(0, "write through"), (1, "write back")]):
        where = tree.disk(f"sd{'ab'[number]}", f"8:{number * 16}", rotational=spins,
                          write_cache=cache)  # fmt: skip
        tree.write(f"sys/devices/{where.name}/device/model", "ST4000")
        tree.write(f"sys/devices/{where.name}/device/vendor", "ATA")
        tree.write(f"sys/devices/{where.name}/stat", f"1 2 3 4 {10 + number} 6 7 8 9 10 11 12 13 "
                   f"14 15 {100 + number} 17")  # fmt: skip
        tree.write(f"sys/devices/{where.name}/{where.name}1/partition", 1)
    array = tree.disk("md0", "9:0")
    for name in ("sda", "sdb"):
        (array / "slaves" / f"{name}1").symlink_to(tree.root / "sys/devices" / name / f"{name}1")
    volume = tree.disk("dm-0", "253:0")
    (volume / "slaves/md0").symlink_to(array)
    drive = tree.machine.drive(os.makedev(253, 0))
    assert drive is not None
    assert drive.stack == ["dm-0", "md0", "sda1", "sda", "sdb1", "sdb"]
    assert drive.disks == ["sda", "sdb"] and drive.model == "ST4000"
    assert drive.spins and drive.write_cache == "write back", "the worse of the two"
    assert tree.machine.counters(drive) == Counters(21, 201)
    tree.write("sys/devices/sdb/stat", "1 2 3 4 5 6 7 8 9 10 11")
    assert tree.machine.counters(drive) == Counters(15, None), "an old kernel counts no flushes"
    (tree.root / "sys/devices/sda/stat").unlink()
    assert tree.machine.counters(drive) is None


def test_a_drive_that_nobody_knows(tree: Tree) -> None:
    assert tree.machine.drive(os.makedev(0, 33)) is None
    assert tree.machine.drive(os.makedev(0, 33), "/dev/null") is None
    assert tree.machine.drive(os.makedev(0, 33), "/dev/nowhere") is None
    assert tree.machine.drive(os.makedev(0, 33), "server:/export") is None
    null = os.stat("/dev/null").st_rdev
    tree.disk("loop3", f"{os.major(null)}:{os.minor(null)}")
    tree.write("sys/devices/loop3/loop/backing_file", "/images/one")
    drive = tree.machine.drive(os.makedev(0, 33), "/dev/null")
    assert drive is not None and drive.model == "a loop over /images/one", "by what is mounted"


def diagnose(tmp_path: Path, tree: Tree, device: int = 0) -> tuple[Diagnosis, dict[str, Check]]:
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)
    found = examine(place, bench(device=lambda files: device), tree.machine)
    return found, {check.name: check for check in found.checks}


@pytest.mark.parametrize(
    ("name", "rotational", "removable", "status", "said"),
    [
        ("sda", 1, 0, "warning", "milliseconds"),
        ("sda", 0, 1, "warning", "pulled out"),
        ("sda", 0, 0, "ok", ""),
        ("zram0", 0, 0, "warning", "restart"),
        ("vda", 1, 0, "ok", ""),
    ],
)
def test_what_is_said_of_a_drive(
    tmp_path: Path, tree: Tree, name: str, rotational: int, removable: int, status: str, said: str
) -> None:
    tree.disk(name, "8:0", rotational=rotational)
    tree.write(f"sys/devices/{name}/removable", removable)
    check = diagnose(tmp_path, tree, os.makedev(8, 0))[1]["drive"]
    assert (check.status, said in check.advice) == (status, True) and name in check.found
    assert ("virtual" in check.found) == (name == "vda")


def test_a_machine_that_says_nothing(tmp_path: Path, tree: Tree) -> None:
    diagnosis, checks = diagnose(tmp_path, tree)
    assert diagnosis.ok and diagnosis.drive is None and diagnosis.mount is None
    assert {checks[name].status for name in ("drive", "memory", "kernel")} == {"ok"}


def test_barriers(tmp_path: Path, tree: Tree) -> None:
    tree.write("proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw,nobarrier")
    found = examine(tmp_path, bench(file_system=lies_on("ext4", "local")), tree.machine).checks[0]
    assert found.status == "warning" and "without barriers" in found.advice
    assert "/dev/sda1" in found.found


MEMORY = "MemTotal: 8388608 kB\nMemAvailable: {} kB\nCommitLimit: {} kB\nCommitted_AS: 1000 kB"


@pytest.mark.parametrize(
    ("files", "name", "status", "said"),
    [
        ({"proc/meminfo": MEMORY.format(4194304, 9999999)}, "memory", "ok", "4.0 GiB of 8.0 GiB"),
        ({"proc/meminfo": MEMORY.format(4096, 9999999)}, "memory", "warning", "4.0 MiB"),
        ({"proc/meminfo": MEMORY.format(4194304, 2000), "proc/sys/vm/overcommit_memory": 2},
         "memory", "warning", "overcommit is off"),
        ({"proc/meminfo": MEMORY.format(4194304, 2000), "proc/sys/vm/overcommit_memory": 0},
         "memory", "ok", "8.0 GiB"),
        ({"proc/meminfo": MEMORY.format(4194304, 9999999), "proc/self/cgroup": "0::/a/b",
          "sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": 1 << 29},
         "memory", "warning", "512.0 MiB"),
        ({"proc/meminfo": MEMORY.format(4194304, 9999999), "proc/self/cgroup": "3:memory:/",
          "sys/fs/cgroup/memory/memory.limit_in_bytes": 1 << 28},
         "memory", "warning", "256.0 MiB"),
        ({"proc/sys/vm/max_map_count": 1000}, "limits", "warning", "1,000"),
        ({"proc/sys/kernel/osrelease": "4.18.0-553.el8"}, "kernel", "warning", "4.18"),
        ({"proc/sys/kernel/osrelease": "5.14.0"}, "kernel", "ok", "5.14"),
        ({"proc/sys/kernel/osrelease": "6.1"}, "kernel", "ok", "6.1"),
        ({"proc/cpuinfo": "model name : A Processor"}, "processor", "", "A Processor"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_machine(
    tmp_path: Path, tree: Tree, files: dict[str, object], name: str, status: str, said: str
) -> None:
    for path, content in files.items():
        tree.write(path, content)
    check = diagnose(tmp_path, tree)[1][name]
    assert check.status == status or not status, check
    assert said in check.found


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"open_files": 100}, "ulimit -n"),
        ({"file_bytes": 1 << 20}, "ulimit -f"),
        ({"address_space_bytes": 1 << 32}, "ulimit -v"),
        ({}, "none of those"),
    ],
)
def test_limits_of_the_process(
    tmp_path: Path, tree: Tree, monkeypatch: Any, limits: dict[str, int], said: str
) -> None:
    none = dict.fromkeys(("open_files", "file_bytes", "address_space_bytes"))
    monkeypatch.setattr(Machine, "limits", lambda machine: {**none, **limits})
    check = diagnose(tmp_path, tree)[1]["limits"]
    assert said in check.found and check.status == ("warning" if limits else "ok")


def test_a_portable_processor(tmp_path: Path, tree: Tree, monkeypatch: Any) -> None:
    monkeypatch.setattr(_kernels, "level", lambda: "portable")
    check = diagnose(tmp_path, tree)[1]["processor"]
    assert check.status == "warning" and "SIMD" in check.advice


# --- the command line -----------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    lines = succeed("doctor", tmp_path).splitlines()
    assert [line.split("\t")[1] for line in lines] == NAMES
    assert {line.split("\t")[0] for line in lines} <= {"ok", "warning"}
    report = json.loads(succeed("doctor", tmp_path, "--json"))
    assert report["ok"] and [check["name"] for check in report["checks"]] == NAMES
    table = on_terminal("doctor", tmp_path, columns=100)
    assert "preallocation" in table
    assert "A good place for a store." in table or "A store works here" in table


def test_a_failed_check_is_exit_code_1(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Workbench, "flock", lambda files, fd: True)
    result = run("doctor", tmp_path)
    assert result.exit_code == 1 and "failed\tlocks\t" in result.stdout
    result = run("doctor", tmp_path, "--json")
    assert result.exit_code == 1 and not json.loads(result.stdout)["ok"]
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: Any) -> None:
    made = []

    def interrupt(files: Workbench, fd: int) -> bool:
        made.extend(os.listdir(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr(Workbench, "flock", interrupt)
    result = run("doctor", tmp_path)
    assert result.exit_code == 130 and result.stderr.split() == ["cesium:", "interrupted"]
    assert len(made) == 1 and made[0].startswith(PREFIX)
    assert os.listdir(tmp_path) == []


def test_wrong_directories_are_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("x")
    missing = fail(1, "doctor", tmp_path / "missing")
    assert "No such file" in missing and str(tmp_path / "missing") in missing
    assert "Not a directory" in fail(1, "doctor", tmp_path / "file")
    for number, said in (
        (errno.EACCES, "Permission denied"), (errno.EROFS, "Read-only file system"),
        (errno.ENOSPC, "No space left"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr("tempfile.mkdtemp", refusing(number))
            line = fail(1, "doctor", tmp_path)
            assert said in line and str(tmp_path) in line
    fail(2, "doctor")


@pytest.mark.parametrize("method", ["create", "write_all", "reserve"])
def test_a_full_drive_is_one_line(tmp_path: Path, monkeypatch: Any, method: str) -> None:
    from cesium.errors import StorageFullError

    def full(*_: Any, **__: Any) -> Any:
        raise StorageFullError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    monkeypatch.setattr(Workbench, method, full)
    assert "No space left" in fail(1, "doctor", tmp_path)
    assert os.listdir(tmp_path) == []
