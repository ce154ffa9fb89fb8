"""How a store is opened: the settings of `cesium.open`, checked and in one place."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import numpy as np

At = str | datetime | np.datetime64

FLAGS = ("c", "n", "w", "r")
DURABILITIES = ("sync", "interval", "process", "none")
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip
MEMORY_LIMIT_LEAST, MEMORY_LIMIT_MOST = 1 << 20, 1 << 60
MEMTABLE_SHARE = 8  # a memtable may take this part of the memory limit,
MEMTABLE_BYTES_MOST = 64 << 20  # and no more than a segment's worth
JOURNAL_SHARE = 4  # a journal may take this part of the memory limit on the drive,
JOURNAL_BYTES_LEAST = 16 << 20  # but no less
JOURNAL_BYTES_MOST = 256 << 20  # and no more
BLOB_THRESHOLD = 1024  # what pages do not take inline; measured: docs/blobs.md
BLOB_THRESHOLD_LEAST = 32  # the pointer to a value takes 28 bytes
VALUE_BYTES_MOST = 64 << 20  # of a value in a segment


def parse_bytes(size: int | str) -> int:
    """A size in bytes from a number or a text such as "1GiB", "64 MB" or "4096".

    ValueError when it is neither.
    """
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size)
        if match is None or match[2].upper() not in UNITS:
            raise ValueError(
                f"a size is a number with B, KB, MB, GB, KiB, MiB or GiB, not {size!r}"
            )
        return int(float(match[1]) * UNITS[match[2].upper()])
    if isinstance(size, bool) or not isinstance(size, int):
        raise ValueError(f"a size is a number of bytes or a text such as '1GiB', not {size!r}")
    return size


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of a store.

    key, value: types, as `cesium.open` takes them; None takes what is stored.  flag: "c" creates if
    missing, "n" makes a new and empty store, "w" opens an existing one, "r" opens it read-only.
    durability: "sync" (on stable storage before a write returns), "interval" (at most 100 ms later;
    a killed process loses nothing), "process" (a killed process loses nothing; synced when the
    system pleases) or "none" (nothing until the next checkpoint; for rebuilding).  memory_limit:
    bytes, or a text such as "1GiB", that memtables, the buffers of loads and merges, iterators and
    what open segments keep may take together; at least 1 MiB.  blob_threshold: variable-length
    values of so many bytes or more (a number, or a text such as "4KiB") lie in blob files beside
    the segments, so that merges move pointers; None: none do, and none may be above 64 MiB.  It may
    change from one opening to the next.  background: flushes and merges are done by two threads of
    the store's own; False: by whoever's write finds them due.  maintenance_rate: bytes a second, or
    a text such as "200MB/s", that merges in the background write at most; None is no limit.
    journal_retention: bytes, or a text such as "256MiB", of journal files that stay on the drive
    once their commits are in segments, the newest ones, for `Store.changes` to go through.
    at: opens the store read-only as it was at a named checkpoint, whatever flag is by default: its
    name, or a time (a datetime, local time where it has no time zone, or a np.datetime64, UTC),
    which is the last one that was named at or before it.

    ValueError for a setting that is not one of these.
    """

    key: Any = None
    value: Any = None
    flag: str = "c"
    durability: str = "sync"
    memory_limit: int | str = "1GiB"
    blob_threshold: int | str | None = BLOB_THRESHOLD
    background: bool = True
    maintenance_rate: int | str | None = None
    journal_retention: int | str = 0
    at: At | None = None

    def __post_init__(self) -> None:
        if self.flag not in FLAGS:
            raise ValueError(f"flag is one of {', '.join(map(repr, FLAGS))}, not {self.flag!r}")
        if self.durability not in DURABILITIES:
            raise ValueError(
                f"durability is one of {', '.join(map(repr, DURABILITIES))}, "
                f"not {self.durability!r}"
            )
        if not MEMORY_LIMIT_LEAST <= self.memory_limit_bytes <= MEMORY_LIMIT_MOST:
            raise ValueError(f"memory_limit is 1 MiB to 1 EiB, not {self.memory_limit!r}")
        if self.blob_threshold is not None and not (
            BLOB_THRESHOLD_LEAST <= self.blob_threshold_bytes <= VALUE_BYTES_MOST
        ):
            raise ValueError(
                f"blob_threshold is {BLOB_THRESHOLD_LEAST} bytes to 64 MiB, or None, "
                f"not {self.blob_threshold!r}"
            )
        if not isinstance(self.background, bool):
            raise ValueError(f"background is True or False, not {self.background!r}")
        parse_rate(self.maintenance_rate)
        if self.journal_retention_bytes < 0:
            raise ValueError(
                f"journal_retention is 0 bytes or more, not {self.journal_retention!r}"
            )
        if self.at is not None:
            self._check_at()

    def overridden_by(self, other: Options) -> Options:
        """These settings, but for those in which the other's differ from the defaults."""
        changed = {}
        for field in fields(self):
            setting = getattr(other, field.name)
            if setting is not field.default and setting != field.default:
                changed[field.name] = setting
        return replace(self, **changed)

    def _check_at(self) -> None:
        if not isinstance(self.at, (str, datetime, np.datetime64)):
            raise TypeError(f"at is a checkpoint's name or a datetime, not {self.at!r}")
        if self.flag not in ("c", "r"):
            raise ValueError(f"at opens a checkpoint read-only, so not with flag={self.flag!r}")
        object.__setattr__(self, "flag", "r")

    @property
    def blob_threshold_bytes(self) -> int:
        """The blob threshold as a number of bytes; 0: no value goes into a blob file."""
        return 0 if self.blob_threshold is None else parse_bytes(self.blob_threshold)

    @property
    def journal_retention_bytes(self) -> int:
        """The journal retention as a number of bytes."""
        return parse_bytes(self.journal_retention)

    @property
    def memory_limit_bytes(self) -> int:
        """The memory limit as a number of bytes."""
        return parse_bytes(self.memory_limit)

    @property
    def memtable_limit_bytes(self) -> int:
        """How large a memtable grows before it is written out as a segment."""
        return min(MEMTABLE_BYTES_MOST, self.memory_limit_bytes // MEMTABLE_SHARE)

    @property
    def journal_limit_bytes(self) -> int:
        """How long a journal grows before a checkpoint, although the memtable has room.

        The same few keys written again and again would make it grow for ever; this bounds the time
        and the memory of recovery.
        """
        share = self.memory_limit_bytes // JOURNAL_SHARE
        return min(JOURNAL_BYTES_MOST, max(JOURNAL_BYTES_LEAST, share))


def parse_rate(rate: int | str | None) -> int | None:
    """Bytes a second from a number or a text such as "200MB/s"; None is no limit.

    ValueError when it is neither, or not above zero.
    """
    if rate is None:
        return None
    text = rate.strip() if isinstance(rate, str) else rate
    if isinstance(text, str) and text[-2:].lower() == "/s":
        text = text[:-2]
    try:
        bytes_per_second = parse_bytes(text)
    except ValueError:
        raise ValueError(
            f"a rate is a number of bytes a second or a text such as '200MB/s', not {rate!r}"
        ) from None
    if bytes_per_second <= 0:
        raise ValueError(f"a rate is above zero, not {rate!r}")
    return bytes_per_second
