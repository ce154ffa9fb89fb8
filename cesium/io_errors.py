"""What a failed system call becomes: OSError with the path; StorageFullError when there is no room.

Thread safety: nothing here holds state.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import NoReturn

from cesium.errors import Error, StorageFullError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def io_error(error_number: int, path: str | None = None) -> OSError:
    """The exception that an errno (positive, or negated as kernels return it) means."""
    number = abs(error_number)
    kind = StorageFullError if number in FULL else OSError
    return kind(number, os.strerror(number), path)


def raise_io(error_number: int, path: str | None = None) -> NoReturn:
    """Raise what an errno means."""
    raise io_error(error_number, path)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Let a failure inside name the path, and be StorageFullError when the drive is full."""
    try:
        yield
    except Error:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise StorageFullError(error.errno, error.strerror, path) from error
        if error.filename is None:
            error.filename = path
        raise
