"""Files that a report is kept in: written whole beside their place, and then put there.

What cannot be written is found out before a benchmark has run for an hour.  Devices and pipes, such
as /dev/null, are written to as they are.  Errors name the file that was asked for.

Thread safety: the functions hold no state.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_file(file: Path) -> None:
    """OSError unless the file can be written; leaves everything as it was."""
    with _named(file):
        if _is_special(file):
            if not os.access(file, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        unfinished = _unfinished(file)
        unfinished.open("xb").close()
        unfinished.unlink()


def write_file(file: Path, text: str) -> None:
    """Writes a text, or leaves what was there and raises OSError."""
    with _named(file):
        if _is_special(file):
            file.write_text(text, encoding="utf-8")
            return
        unfinished = _unfinished(file)
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(file.resolve())  # a link goes on to point there
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def _is_special(file: Path) -> bool:
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return file.exists() and not file.is_file()


def _unfinished(file: Path) -> Path:
    place = file.resolve()
    return place.with_name(f"{place.name}.{os.getpid()}.new")


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """An error of the file beside it is told as one of the file."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(file)) from None
