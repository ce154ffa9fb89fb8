"""Directories of stores beside one another: links, backups, one put in the place of another.

A file of a store that is no longer written to never changes, so a hard link is as good as a copy;
where links are refused, the bytes are copied and synced.  Thread safety: pure functions.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil

from cesium.directory import OWN_FILES
from cesium.files import Files

AT_FDCWD = -100
RENAME_EXCHANGE = 2
NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})


def link_or_copy(source: Files, target: Files, name: str) -> None:
    """Puts a file of one directory into another, under its name; durable with the directory."""
    try:
        os.link(source.path(name), target.path(name))
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        copy(source, target, name)


def copy(source: Files, target: Files, name: str) -> None:
    """The same without a link."""
    shutil.copyfile(source.path(name), target.path(name))
    fd = target.open(name)
    try:
        target.sync_file(fd, target.path(name))
    finally:
        target.close(fd)


def back_up(source: Files, path: str) -> None:
    """All files of a store in a new directory, durably; FileExistsError when it is there."""
    os.mkdir(path)
    target = Files(path)
    for name in source.list():
        if name != "LOCK":
            link_or_copy(source, target, name)
    target.sync_directory()
    sync_parent(path)


def remove_store(path: str) -> None:
    """Removes a directory of a store's files; FileExistsError when it holds anything else."""
    files = Files(path)
    if not files.exists():
        return
    names = files.list()
    foreign = [name for name in names if not name.startswith(OWN_FILES)]
    if foreign:
        raise FileExistsError(
            errno.EEXIST, f"it holds files that are not a store's, such as {foreign[0]!r}", path
        )
    for name in names:
        files.unlink(name)
    os.rmdir(path)
    sync_parent(path)


def rename_new(old: str, new: str) -> None:
    """Gives a directory its name, durably; FileExistsError when that is taken."""
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new)
    sync_parent(new)


def exchange(one: str, other: str) -> None:
    """Swaps two directories in one step, durably; in two where the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(libc, "renameat2", None)
    status = -1
    if renameat2 is not None:
        status = renameat2(
            AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE
        )
    if status != 0:
        number = ctypes.get_errno()
        if renameat2 is not None and number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise OSError(number, os.strerror(number), one, None, other)
        aside = one + ".aside"
        os.rename(other, aside)
        try:
            os.rename(one, other)
        except BaseException:
            os.rename(aside, other)
            raise
        os.rename(aside, one)
    sync_parent(one)


def sync_parent(path: str) -> None:
    """Makes the name of a directory durable."""
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
