"""Every error that cesium raises, as one tree.

    Error
    |-- CorruptionError  (OSError)        bytes on the drive are not what was written
    |-- LockedError      (OSError)        another process holds the store for writing
    |-- ClosedError      (ValueError)     the handle was closed, or belongs to a parent process
    |-- ReadOnlyError    (PermissionError) a write through a read-only handle
    |-- SchemaError      (TypeError, ValueError)  a key, value, dtype or schema that does not fit
    |-- ConflictError    (RuntimeError)   another commit came first
    |-- LimitError       (ValueError)     larger than the format allows
    |-- NotKeptError     (LookupError)    commits that the journal does not hold, or not any more
    |-- StorageFullError (OSError)        no space left on the drive
    `-- PoisonedError    (OSError)        an earlier write or sync failed; writes are refused

Each also inherits the builtin that a Python user would catch.  A missing key is `KeyError`.  One
warning stands beside them: FileSystemWarning (UserWarning).
"""

from __future__ import annotations


class Error(Exception):
    """The root of all errors of this package."""


class CorruptionError(Error, OSError):
    """Bytes on the drive are not what was written.

    `file` is the path, `offset` the byte offset of the damage, `expected` and `found` what was
    compared (as text), `keys` the interval of keys affected where it is known.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        offset: int | None = None,
        expected: object = None,
        found: object = None,
        keys: tuple[object, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.file = file
        self.offset = offset
        self.expected = expected
        self.found = found
        self.keys = keys


class LockedError(Error, OSError):
    """Another process holds the store for writing; `pid`, `host` and `started` say which."""

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        host: str | None = None,
        started: str | None = None,
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.host = host
        self.started = started


class ClosedError(Error, ValueError):
    """The handle was closed, or it was opened before this process was forked."""


class ReadOnlyError(Error, PermissionError):
    """A write through a handle that was opened with `flag="r"`."""


class SchemaError(Error, TypeError, ValueError):
    """A key, value, dtype, shape or schema that does not fit the store's own."""


class ConflictError(Error, RuntimeError):
    """Another commit, or another handle's options, came first."""


class LimitError(Error, ValueError):
    """A key, value or batch larger than the format or the memory limit allows."""


class NotKeptError(Error, LookupError):
    """Commits are asked for that the journal does not hold, or not any more.

    `since` is the sequence that was asked for, `kept` the earliest one after which all commits are
    kept; both are None for a store that keeps no journal, and for a load merged away since.
    """

    def __init__(self, message: str, *, since: int | None = None, kept: int | None = None) -> None:
        super().__init__(message)
        self.since = since
        self.kept = kept


class StorageFullError(Error, OSError):
    """The drive has no space left; nothing of the failed call was kept."""


class PoisonedError(Error, OSError):
    """A write or sync failed earlier, so this handle takes no more writes; reads go on."""


class FileSystemWarning(UserWarning):
    """A store lies on a file system (network or FUSE) that may not keep what it relies on."""
