"""Whether a directory is a place for a store: each thing that a store relies on is tried there.

    from cesium.doctor import examine
    diagnosis = examine("/data")
    diagnosis.ok, diagnosis.checks, diagnosis.drive, diagnosis.as_dict()

What is tried, is tried on files of its own, in a directory that is removed again.  A check is "ok",
a "warning" (a store works, but is slower or less safe than it could be), or "failed" (what a store
relies on does not hold: do not keep one there).

Thread safety: any number of examinations may run at once, though each disturbs the others' times.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cesium.doctor.directory_checks import DIRECTORY_CHECKS
from cesium.doctor.examination import Examination
from cesium.doctor.machine import Drive, Machine
from cesium.doctor.machine_checks import MACHINE_CHECKS
from cesium.doctor.verdicts import Check
from cesium.doctor.workbench import Workbench
from cesium.file_system import Mount, mount_of

__all__ = ["Check", "Diagnosis", "Drive", "Machine", "Workbench", "examine"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What an examination found.

    file_system: its name; mount: where and how it is mounted, where the kernel says so.  drive:
    None when no block device is behind the directory.
    """

    directory: str
    file_system: str
    mount: Mount | None
    drive: Drive | None
    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether all that a store relies on holds; warnings do not count."""
        return not any(check.status == "failed" for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis in JSON's terms."""
        return {
            "ok": self.ok,
            "directory": self.directory,
            "file_system": self.file_system,
            "mount": None if self.mount is None else self.mount._asdict(),
            "drive": None if self.drive is None else asdict(self.drive),
            "checks": [asdict(check) for check in self.checks],
        }


def examine(
    directory: str | os.PathLike[str],
    workbench: type[Workbench] = Workbench,
    machine: Machine | None = None,
    progress: Callable[[str], None] | None = None,
) -> Diagnosis:
    """Tries everything in a directory.  progress is called with the name of each check before it.

    workbench, machine: tests put other doors in.  OSError when nothing can be tried: no such
    directory, no permission, a read-only file system; StorageFullError when it is full.
    """
    path = os.path.abspath(os.fspath(directory))
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    machine = machine or Machine()
    mount = mount_of(path, machine.path("proc/self/mountinfo"))
    with workbench.below(path) as files:
        drive = machine.drive(files.device(), mount.source if mount else None)
        at = Examination(files, path, machine, mount, drive)
        checks = [at.run(name, check, progress) for name, check in DIRECTORY_CHECKS.items()]
        checks += [check(machine) for check in MACHINE_CHECKS.values()]
        return Diagnosis(path, files.file_system().name, mount, drive, checks)
