"""What of an examination is tried in the directory itself.

Thread safety: nothing here holds state.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable

from cesium.doctor.examination import Examination
from cesium.doctor.machine_checks import check_drive
from cesium.doctor.syncs import check_sync
from cesium.doctor.verdicts import Check, failed, ok, shown_bytes, warning
from cesium.doctor.workbench import Workbench
from cesium.errors import StorageFullError
from cesium.file_system import FUSE, MEMORY, NETWORK, doubt

FREE_BYTES_LEAST = 1 << 30
FREE_INODES_LEAST = 1000
DIRECT_BYTES = 1 << 20
RESERVED_BYTES = 1 << 20
PAGE_BYTES = 4096
COPY_ON_WRITE = ("btrfs", "zfs", "bcachefs")


def _file_system(at: Examination) -> Check:
    name = "file system"
    system = at.files.file_system()
    options = at.mount.options if at.mount is not None else ()
    found = system.name
    if at.mount is not None:
        found += f" on {at.mount.source}, mounted at {at.mount.point} ({', '.join(options)})"
    if system.kind in (NETWORK, FUSE):
        return warning(name, found, f"{doubt(system, at.directory)} Keep stores on a local drive.")
    if system.kind == MEMORY:
        advice = "It lies in memory: a store here is gone after a restart. Use a drive to keep one."
        return warning(name, found, advice)
    if "nobarrier" in options or "barrier=0" in options:
        advice = (
            "It is mounted without barriers: a sync does not flush the drive's cache, so a power "
            "cut may lose acknowledged commits or damage the store. Mount it with barriers."
        )
        return warning(name, found, advice)
    if system.name in COPY_ON_WRITE:
        advice = (
            "It copies on write, so that even bytes reserved beforehand need new room when they "
            "are written: keep some GiB free, and expect syncs to be slower than on ext4 or xfs."
        )
        return warning(name, found, advice)
    return ok(name, found)


def _space(at: Examination) -> Check:
    space = at.files.space()
    found = f"{shown_bytes(space.free_bytes)} of {shown_bytes(space.total_bytes)} are free"
    if space.free_inodes is not None:
        found += f", {space.free_inodes:,} inodes"
    figures = space._asdict()
    if space.free_bytes < FREE_BYTES_LEAST:
        advice = (
            "Loads and merges write new files before they remove old ones: make room for at least "
            "the size of the store once more."
        )
        return warning("free space", found, advice, **figures)
    if space.free_inodes is not None and space.free_inodes < FREE_INODES_LEAST:
        advice = "Each segment and journal file takes an inode: remove small files elsewhere."
        return warning("free space", found, advice, **figures)
    return ok("free space", found, **figures)


def _publish(files: Workbench, name: str, content: bytes) -> None:
    fd = files.create(name + ".new")
    try:
        files.write_all(fd, content, 0)
        files.sync_file(fd, files.path(name))
        files.publish(name)
    finally:
        files.close(fd)


def _rename(at: Examination) -> Check:
    files = at.files
    for content in (b"first", b"second"):
        _publish(files, "named", content)
        if files.read_all("named") != content or "named.new" in files.list():
            found = "a renamed file does not have its new name, or not its own content"
            advice = "The manifest is replaced by a rename: a store here would not survive it."
            return failed("rename", found, advice)
    files.unlink("named")
    files.sync_directory()
    return ok("rename", "a rename replaces a file at once, and the directory can be synced")


def _locks(at: Examination) -> Check:
    files = at.files
    first = files.create("lock")
    try:
        second = files.open("lock", writable=True)
        try:
            if not files.flock(first):
                return failed("locks", "a lock that nobody has is refused", _NO_LOCK)
            if files.flock(second):
                return failed("locks", "flock does not exclude a second descriptor", _NO_LOCK)
            elsewhere = files.flock_elsewhere("lock")
            if elsewhere:
                return failed("locks", "flock does not exclude another process", _NO_LOCK)
        finally:
            files.close(second)
    finally:
        files.close(first)
    who = "another descriptor" if elsewhere is None else "another descriptor and another process"
    return ok("locks", f"flock excludes {who}")


_NO_LOCK = "Two processes could write to a store at once and damage it: do not keep one here."


def _direct(at: Examination) -> Check:
    files = at.files
    file = files.open_direct("direct", 0)
    figures = {"alignment_bytes": file.alignment_bytes}
    slower = (
        "Loads and merges go through the page cache instead, which is several times as slow on a "
        "fast drive; nothing else is lost."
    )
    try:
        if not file.direct:
            return warning("direct I/O", "the file system refuses it", slower)
        if file.alignment_bytes > PAGE_BYTES:
            found = (
                f"it needs an alignment of {file.alignment_bytes} bytes, pages have {PAGE_BYTES}"
            )
            return warning("direct I/O", found, slower, **figures)
        with mmap.mmap(-1, DIRECT_BYTES) as buffer:
            buffer[:] = content = os.urandom(DIRECT_BYTES)
            try:
                files.write_all(file.fd, buffer, 0)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                return warning("direct I/O", "it is refused at the first write", slower, **figures)
        files.sync_data(file.fd)
    finally:
        files.close(file.fd)
    if files.read_all("direct") != content:
        found = "what was written directly reads back as something else"
        return failed("direct I/O", found, "Loads would be damaged: do not keep a store here.")
    return ok("direct I/O", f"works, in units of {file.alignment_bytes} bytes", **figures)


def _mapping(at: Examination) -> Check:
    files = at.files
    size = 16 * PAGE_BYTES
    fd = files.create("mapped", size)
    incoherent = "A store maps its files: it would read stale bytes. Do not keep one here."
    try:
        with files.map_writable(fd, size) as mapping:
            mapping[PAGE_BYTES : 2 * PAGE_BYTES] = written = os.urandom(PAGE_BYTES)
            read = bytearray(PAGE_BYTES)
            files.read_into(fd, read, PAGE_BYTES)
            if read != written:
                found = "a file does not show what was written through its mapping"
                return failed("mapping", found, incoherent)
            files.write_all(fd, written, 3 * PAGE_BYTES)
            shown = files.map_readonly("mapped")
            for view in (mapping, shown):
                if bytes(view[3 * PAGE_BYTES : 4 * PAGE_BYTES]) != written:
                    found = "a mapping does not show what was written to its file"
                    return failed("mapping", found, incoherent)
            files.sync_data(fd)
            try:
                files.populate_writable(mapping)
            except OSError:
                advice = (
                    "Each first write to a journal page takes a page fault: several times as long. "
                    "Linux has it from 5.14 on."
                )
                return warning("mapping", "coherent, without MADV_POPULATE_WRITE", advice)
    finally:
        files.close(fd)
    return ok("mapping", "coherent with reads and writes; pages can be made writable ahead")


def _reserve(at: Examination) -> Check:
    files = at.files
    fd = files.create("reserved")
    try:
        try:
            files.reserve(fd, RESERVED_BYTES)
        except StorageFullError:
            raise
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            advice = (
                "The C library writes zeros instead, so starting a journal file takes longer. NFS "
                "has it from 4.2 on; zfs does not."
            )
            return warning("preallocation", "the file system has no fallocate", advice)
    finally:
        files.close(fd)
    if files.size("reserved") != RESERVED_BYTES:
        found = "a file does not have the size that it was given"
        return failed(
            "preallocation", found, "Journal files are made so: do not keep a store here."
        )
    return ok("preallocation", "blocks can be reserved before they are written")


def _links(at: Examination) -> Check:
    files = at.files
    _publish(files, "original", b"content")
    figures = {}
    for kind, make in (("hard_links", files.link), ("reflinks", files.clone)):
        try:
            make("original", kind)
            figures[kind] = files.read_all(kind) == b"content"
        except StorageFullError:
            raise
        except OSError:
            figures[kind] = False
    if figures["reflinks"]:
        return ok("links", "files can be copied without their blocks (reflinks)", **figures)
    if figures["hard_links"]:
        return ok("links", "hard links, no reflinks", **figures)
    advice = "A second copy of a store, such as `cp -al` makes, takes its whole size again."
    return warning("links", "neither hard links nor reflinks", advice, **figures)


def _drive(at: Examination) -> Check:
    return check_drive(at.drive)


DIRECTORY_CHECKS: dict[str, Callable[[Examination], Check]] = {
    "file system": _file_system,
    "drive": _drive,
    "free space": _space,
    "sync": check_sync,
    "rename": _rename,
    "locks": _locks,
    "direct I/O": _direct,
    "mapping": _mapping,
    "preallocation": _reserve,
    "links": _links,
}
