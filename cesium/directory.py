"""A store's directory: the names of its files, and whether what lies there is a store's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from cesium.files import Files

# In the directory of a backup in the making: it may hold files that its manifest does not name.
BACKUP_MARK = "BACKUP.unfinished"
OWN_FILES = ("LOCK", "manifest-", "journal-", "segment-", "blob-")


def segment_name(segment_id: int) -> str:
    """The file name of a segment."""
    return f"segment-{segment_id:010d}"


def blob_name(blob_id: int) -> str:
    """The file name of a blob file."""
    return f"blob-{blob_id:010d}"


def segment_numbers(names: Iterable[str]) -> list[int]:
    """The ids of the segment files among some names."""
    return _numbers(names, "segment-")


def blob_numbers(names: Iterable[str]) -> list[int]:
    """The ids of the blob files among some names."""
    return _numbers(names, "blob-")


def _numbers(names: Iterable[str], start: str) -> list[int]:
    return [
        int(name.removeprefix(start))
        for name in names
        if name.startswith(start) and name.removeprefix(start).isdigit()
    ]


def journals_of(names: Iterable[str]) -> list[str]:
    """The journal files among some names, unfinished ones included."""
    return [name for name in names if name.startswith("journal-")]


def names_of(files: Files) -> list[str]:
    """The names in the directory; none when it is not there."""
    return files.list() if files.exists() else []


def check_own(files: Files, names: list[str], flag: str) -> None:
    """A directory that holds anything else is not ours to fill, still less to empty.

    names: its listing.  FileNotFoundError or FileExistsError, as befits the flag that the store is
    opened with.
    """
    foreign = [name for name in names if not name.startswith(OWN_FILES)]
    is_store = any(name.startswith("manifest-") for name in names)
    if foreign and (flag == "n" or not is_store):
        if not is_store and flag == "w":
            raise FileNotFoundError(f"there is no store at {files.directory}")
        raise FileExistsError(
            f"{files.directory} holds files that are not a store's, such as {foreign[0]!r}"
        )


def fingerprint(files: Files) -> list[tuple[str, int]]:
    """What differs after another process has checkpointed or merged."""
    prints = []
    for name in names_of(files):
        size = 0
        with contextlib.suppress(FileNotFoundError):
            size = files.size(name) if name.startswith("manifest-") else 0
        prints.append((name, size))
    return prints


def bytes_of(files: Files, starts: tuple[str, ...]) -> int:
    """The bytes of the files whose names begin so; one that goes meanwhile does not count."""
    total = 0
    for name in names_of(files):
        if name.startswith(starts):
            with contextlib.suppress(FileNotFoundError):
                total += files.size(name)
    return total
