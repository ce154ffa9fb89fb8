"""Which file system a directory lies on, and what of a store's promises it does not keep.

A store relies on three things that a local file system gives: flock excludes a second writer, a
mapped page shows what was written to the file, and fdatasync returns when the bytes are on the
drive.  Over a network each of them depends on the server, the protocol and the mount's options; of
a file system in user space (FUSE), on a program.  Nobody can tell from outside, so opening warns.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, NamedTuple

from cesium.errors import FileSystemWarning

if TYPE_CHECKING:
    from cesium.files import Files

NETWORK, FUSE, MEMORY, LOCAL = "network", "fuse", "memory", "local"

# By the f_type of statfs: linux/magic.h, and what those outside of the kernel's tree use.
_TYPES = {
    0x6969: ("nfs", NETWORK),
    0x517B: ("smb", NETWORK),
    0xFF534D42: ("cifs", NETWORK),
    0xFE534D42: ("smb3", NETWORK),
    0x564C: ("ncp", NETWORK),
    0x01021997: ("9p", NETWORK),
    0x00C36400: ("ceph", NETWORK),
    0x5346414F: ("afs", NETWORK),
    0x6B414653: ("afs", NETWORK),
    0x73757245: ("coda", NETWORK),
    0x0BD00BD0: ("lustre", NETWORK),
    0x19830326: ("beegfs", NETWORK),
    0x47504653: ("gpfs", NETWORK),
    0xAAD7AAEA: ("panfs", NETWORK),
    0x20030528: ("orangefs", NETWORK),
    0xBACBACBC: ("vmhgfs", NETWORK),
    0x786F4256: ("vboxsf", NETWORK),
    0x65735546: ("fuse", FUSE),
    0x01021994: ("tmpfs", MEMORY),
    0x858458F6: ("ramfs", MEMORY),
    0x958458F6: ("hugetlbfs", MEMORY),
    0xEF53: ("ext4", LOCAL),
    0x58465342: ("xfs", LOCAL),
    0x9123683E: ("btrfs", LOCAL),
    0x2FC12FC1: ("zfs", LOCAL),
    0xCA451A4E: ("bcachefs", LOCAL),
    0xF2F52010: ("f2fs", LOCAL),
    0x794C7630: ("overlay", LOCAL),
    0x4D44: ("vfat", LOCAL),
    0x2011BAB0: ("exfat", LOCAL),
    0x7366746E: ("ntfs3", LOCAL),
}

_DOUBTS = {
    NETWORK: "is on {name}, a network file system: another host may not see the writer's lock "
    "(flock), so that two processes write at once; mapped pages may show other bytes than the file "
    "has; and what was synced may be in the server's memory only.",
    FUSE: "is on {name}, a file system in user space (FUSE): whether the writer's lock (flock) "
    "excludes others, whether mapped pages show what the file has, and whether a sync reaches the "
    "drive, is up to a program that cesium cannot judge.",
}
_ADVICE = (
    " Move the store to a local drive (cesium doctor tests a directory), or silence this: "
    "warnings.filterwarnings('ignore', category=cesium.FileSystemWarning)"
)

_warned: set[str] = set()  # directories


class FileSystem(NamedTuple):
    """name: as the kernel has it, "ext4" or "fuse.sshfs".  kind: network, fuse, memory, local."""

    name: str
    kind: str


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo; options: of the mount and of the file system."""

    point: str
    type: str
    source: str
    options: tuple[str, ...]


def file_system_of(f_type: int, path: str) -> FileSystem:
    """The file system of a path, of which statfs said `f_type`."""
    name, kind = _TYPES.get(f_type, (f"type 0x{f_type:x}", LOCAL))
    mount = mount_of(path) if kind == FUSE or f_type not in _TYPES else None
    return FileSystem(mount.type, kind) if mount is not None else FileSystem(name, kind)


def mount_of(path: str, table: str = "/proc/self/mountinfo") -> Mount | None:
    """What is mounted where the path lies; None when the kernel does not say."""
    real = os.path.realpath(path)
    found = None
    try:
        with open(table, errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in lines:
        fields, _, described = line.partition(" - ")
        try:
            _, _, _, _, point, options, *_ = fields.split()
            kind, source, more = described.split(" ")[:3]
        except ValueError:
            continue
        point = _unescaped(point)
        inside = point == "/" or real == point or real.startswith(point + "/")
        # Of equal points the last counts: it was mounted over the others.
        if inside and (found is None or len(point) >= len(found.point)):
            every = dict.fromkeys([*options.split(","), *more.split(",")])
            found = Mount(point, kind, _unescaped(source), tuple(every))
    return found


def _unescaped(text: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


def doubt(system: FileSystem, directory: str) -> str | None:
    """What a store cannot rely on there, in a sentence; None where nothing is known against it."""
    if system.kind not in _DOUBTS:
        return None
    return f"{directory} {_DOUBTS[system.kind].format(name=system.name)}"


def warn_once(files: Files) -> None:
    """FileSystemWarning, once for each directory, where one cannot rely on the file system.

    Read-only openings warn too: what they map may be stale.
    """
    if files.directory in _warned:
        return
    try:
        said = doubt(files.file_system(), files.directory)
    except OSError:
        return  # opening itself says what is wrong with the path
    if said is not None:
        warnings.warn(said + _ADVICE, FileSystemWarning, stacklevel=_caller_level())
        _warned.add(files.directory)  # not when the warning was raised as an error


def _caller_level() -> int:
    """The stack level, for `warn_once`, of the first caller outside this package."""
    package = os.path.dirname(__file__) + os.sep
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    return level
