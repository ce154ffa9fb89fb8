"""The one directory that a benchmark writes to: made below the user's, and removed with all in it.

It is known by its name and by the marker in it, so that what a killed run left is never mistaken
for a user's data: `abandoned` finds such directories by both, and only tells.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".cesium-bench-"
MARKER = "made-by-cesium-bench"


class NoRoom(OSError):
    """A directory that a benchmark cannot be run in."""


def check_directory(directory: Path) -> None:
    """NoRoom unless it is a directory."""
    if not directory.exists():
        raise NoRoom(f"no such directory: {directory}")
    if not directory.is_dir():
        raise NoRoom(f"not a directory: {directory}")


@contextmanager
def below(directory: Path) -> Iterator[Path]:
    """A new directory for the time of a with statement.  NoRoom: not a directory to write to."""
    check_directory(directory)
    try:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
    except OSError as error:
        raise NoRoom(f"cannot write to {directory}: {error.strerror}") from None
    try:
        (path / MARKER).write_text(f"{os.getpid()}\n")
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def abandoned(directory: Path) -> list[Path]:
    """What runs that were killed have left: nobody with the number in the marker is alive."""
    found = []
    for path in directory.glob(f"{PREFIX}*"):
        try:
            process = int((path / MARKER).read_text())
            os.kill(process, 0)
        except ProcessLookupError:
            found.append(path)
        except (OSError, ValueError):
            continue  # no marker, or somebody else's process: not ours to name
    return sorted(found)


def free_bytes(directory: Path) -> int:
    """What is free for this user."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def require(directory: Path, wanted: int) -> None:
    """NoRoom unless so many bytes are free."""
    free = free_bytes(directory)
    if free < wanted:
        raise NoRoom(
            f"{directory} has {free / 1e9:.1f} GB free, and this benchmark may take "
            f"{wanted / 1e9:.1f} GB at once: choose --quick, fewer --rows or engines, or another "
            "directory"
        )


def bytes_on_disk(path: Path) -> int:
    """What the files of a directory take of the drive."""
    total = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        try:
            total += file.stat().st_blocks * 512
        except FileNotFoundError:  # merged away meanwhile
            continue
    return total


def drop_from_memory(path: Path) -> None:
    """Has the kernel forget the pages of a directory's files: what is read next comes cold."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            fd = os.open(file, os.O_RDONLY)
            try:
                os.fdatasync(fd)  # a page that is not written yet would stay
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
