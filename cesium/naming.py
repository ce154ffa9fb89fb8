"""Named checkpoints: making, listing and dropping them.

What one is made of stays on the drive for as long as the manifest names it, whatever merges do: see
reclaim.py.  A Checkpoint is what the manifest says, at the moment when it is asked.

Thread safety: any thread; what changes the manifest takes `engine.maintenance`.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, overload

from cesium import maintenance
from cesium._engine import WriteGuard
from cesium.checkpoint import checkpoint_held
from cesium.engine import StoreEngine
from cesium.errors import ConflictError
from cesium.named import EPOCH, MICROSECOND, sizes_of
from cesium.reclaim import let_go_of_version
from cesium.records import NamedVersion, checked_name
from cesium.state import Edit


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A named checkpoint: a store as it was, which `cesium.open(path, at=name)` opens.

    sequence: of the last commit in it.  time: when it was named (UTC).  estimated_rows: entries of
    its segments, delete markers taken off: exact where they do not overlap.  bytes: of its segments
    and blob files.  own_bytes: of those that neither the store nor another checkpoint needs, which
    dropping it gives back.
    """

    name: str
    sequence: int
    time: datetime
    estimated_rows: int
    bytes: int
    own_bytes: int


class NamedCheckpoints:
    """The calls of a store for its checkpoints."""

    if TYPE_CHECKING:
        _engine: StoreEngine

        def _check_open(self) -> None: ...

        def _check_writable(self) -> None: ...

    @overload
    def checkpoint(self) -> None: ...

    @overload
    def checkpoint(self, name: str) -> Checkpoint: ...

    def checkpoint(self, name: str | None = None) -> Checkpoint | None:
        """Writes memtables out as segments, durably, and lets go of their journal.

        name: the store as it is then can be opened with `cesium.open(path, at=name)`, until
        `drop_checkpoint`; it costs an edit of the manifest, and keeps its files on the drive, also
        when merges have replaced them.  A str of 1 to 255 bytes in UTF-8 without control characters
        (TypeError, ValueError), which no checkpoint has (ConflictError).  ValueError for a store in
        memory.  Returns what `checkpoints` lists, or None without a name.
        """
        self._check_writable()
        if name is None:
            maintenance.checkpoint(self._engine)
            return None
        return name_checkpoint(self._engine, name)

    def checkpoints(self) -> list[Checkpoint]:
        """The named checkpoints, in the order of naming.

        A handle opened with flag "r" knows those of its opening, or its last `refresh`.
        """
        self._check_open()
        return checkpoints(self._engine)

    def drop_checkpoint(self, name: str) -> None:
        """Forgets a named checkpoint and removes the files that only it needed; durable.

        What reads one of them meanwhile, here or in another process, goes on: the space comes back
        after that.  KeyError when there is none of that name.
        """
        self._check_writable()
        drop(self._engine, name)


def name_checkpoint(engine: StoreEngine, name: str) -> Checkpoint:
    """Checkpoints, and gives the name to what there is then."""
    checked_name(name)
    if engine.in_memory:
        raise ValueError("a store in memory has no named checkpoints: nothing could open them")
    with engine.exclusive_maintenance("a checkpoint"):
        found = engine.manifest.state.named.get(name)
        if found is not None:
            raise ConflictError(
                f"{engine.path} has a checkpoint named {name!r} already, of sequence "
                f"{found.sequence}: drop it first, or take another name"
            )
        checkpoint_held(engine)
        engine.append_edit(Edit(name_version=(name, time.time_ns() // 1000)))
        version = engine.manifest.state.named[name]
    maintenance.after_checkpoint(engine)
    return described(version, sizes_of(version.segments.values()), 0)  # the store needs all of it


def checkpoints(engine: StoreEngine) -> list[Checkpoint]:
    """The named versions of a store, with what each keeps."""
    state = engine.manifest.state
    versions = [sizes_of(version.segments.values()) for version in state.named.values()]
    users = Counter(sizes_of(state.segments.values()).keys())
    for sizes in versions:
        users.update(sizes.keys())
    return [
        described(version, sizes, sum(size for file, size in sizes.items() if users[file] == 1))
        for version, sizes in zip(state.named.values(), versions, strict=True)
    ]


def described(
    version: NamedVersion, sizes: dict[tuple[str, int], int], own_bytes: int
) -> Checkpoint:
    """A version as it is listed.  sizes: of its files."""
    rows = sum(record.rows - 2 * record.delete_markers for record in version.segments.values())
    time = EPOCH + version.time * MICROSECOND
    return Checkpoint(
        version.name, version.sequence, time, max(rows, 0), sum(sizes.values()), own_bytes
    )


def drop(engine: StoreEngine, name: str) -> None:
    """Removes a named version from the manifest, then the files that nothing else needs."""
    with engine.exclusive_maintenance("a checkpoint is dropped"):
        with WriteGuard(engine.core_engine):  # neither closed nor poisoned
            version = engine.manifest.state.named.get(name)
        if version is None:
            raise KeyError(f"{engine.path} has no checkpoint named {name!r}")
        engine.append_edit(Edit(remove_versions=(name,)))
        let_go_of_version(engine, version)
    if engine.background is not None:
        maintenance.wake_merger(engine)  # blob files that are mostly dead may go now
