"""What a drive may hold after a crash at one moment of a recorded run.

`Disk.apply` takes the events one by one.  Durable is what was there when a sync began that is done
by now; everything since is pending, and a crash keeps any part of it:

- of the sectors written (`atoms`), any subset, each whole; of a sector written several times any
  version, but none older than the durable one;
- of the sizes that a file had, any, and any in between: what lies above is zeros, or cut off;
- of the names made, changed and removed (`operations`), any subset that makes sense: what was not
  made cannot be renamed.

Files and directory are independent: a name may be durable and its data not, and the reverse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

from crash.recording_files import (
    DIRECTORY,
    SECTOR_BYTES,
    Content,
    Data,
    Event,
    Link,
    Rename,
    Size,
    SyncDone,
    SyncStarted,
    Unlink,
)


class Atom(NamedTuple):
    """One sector as one event left it, pending."""

    order: int  # of the event
    inode: int
    sector: int
    data: bytes
    mapped: bool


class _File:
    def __init__(self) -> None:
        self.durable = bytearray()
        self.atoms: list[Atom] = []
        self.sizes: list[tuple[int, int]] = []  # (order, size), pending
        self._frozen: bytes | None = None

    def freeze(self) -> bytes:
        """The durable content: the same object until it changes."""
        if self._frozen is None:
            self._frozen = bytes(self.durable)
        return self._frozen

    def synced(self, order: int) -> None:
        """Everything up to an event is durable."""
        for _, size in (item for item in self.sizes if item[0] <= order):
            _resize(self.durable, size)
        for atom in self.atoms:
            if atom.order <= order:
                _put(self.durable, atom)
        self.sizes = [item for item in self.sizes if item[0] > order]
        self.atoms = [atom for atom in self.atoms if atom.order > order]
        self._frozen = None


def _resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


def _put(data: bytearray, atom: Atom) -> None:
    """Puts a sector in, as far as the file goes."""
    start = atom.sector * SECTOR_BYTES
    end = min(start + SECTOR_BYTES, len(data))
    if start < end:
        data[start:end] = atom.data[: end - start]


class Disk:
    """See the module."""

    def __init__(self) -> None:
        self.order = 0
        self.files: dict[int, _File] = {}
        self.names: dict[str, int] = {}  # durable
        self.operations: list[tuple[int, Event]] = []  # pending
        self._syncs: dict[int, tuple[int, int]] = {}  # ticket: (inode, order)

    def apply(self, event: Event) -> bool:
        """Takes an event; whether a crash may leave something else now."""
        self.order += 1
        match event:
            case Data(inode, sectors, mapped):
                self.files[inode].atoms.extend(
                    Atom(self.order, inode, sector, data, mapped) for sector, data in sectors
                )
            case Size(inode, size):
                self.files[inode].sizes.append((self.order, size))
            case Link(_, inode):
                self.files[inode] = _File()
                self.operations.append((self.order, event))
            case Rename() | Unlink():
                self.operations.append((self.order, event))
            case SyncStarted(ticket, inode):
                self._syncs[ticket] = inode, self.order
                return False
            case SyncDone(ticket):
                return self._synced(*self._syncs.pop(ticket))
            case _:
                return False
        return True

    def _synced(self, inode: int, order: int) -> bool:
        if inode == DIRECTORY:
            done = [item for item in self.operations if item[0] <= order]
            self.names = self._named(done)
            self.operations = self.operations[len(done) :]
            return bool(done)
        file = self.files[inode]
        pending = bool(file.atoms or file.sizes)
        file.synced(order)
        return pending

    def _named(self, operations: Collection[tuple[int, Event]]) -> dict[str, int]:
        names = dict(self.names)
        for _, operation in operations:
            match operation:
                case Link(name, inode):
                    names[name] = inode
                case Rename(old, new, inode) if names.get(old) == inode:
                    names[new] = names.pop(old)
                case Unlink(name):
                    names.pop(name, None)
        return names

    # -- what is pending

    def reachable(self) -> list[int]:
        """The inodes that may have a name after a crash."""
        made = [event.inode for _, event in self.operations if isinstance(event, Link)]
        return sorted({*self.names.values(), *made})

    def pending_atoms(self) -> list[Atom]:
        """The sectors that may be lost, oldest first."""
        return sorted(atom for inode in self.reachable() for atom in self.files[inode].atoms)

    def pending_sizes(self) -> dict[int, list[int]]:
        """The sizes that each file may have, the durable one first, the last one last."""
        return {
            inode: [len(file.durable), *(size for _, size in file.sizes)]
            for inode in self.reachable()
            if (file := self.files[inode]).sizes
        }

    # -- images

    def image(
        self,
        atoms: Collection[Atom],
        operations: Collection[int],
        sizes: Mapping[int, int],
    ) -> Content:
        """The files after a crash that kept these sectors, and these operations, by their place.

        sizes: of files whose size is pending; those left out have the last one.
        """
        kept = [item for place, item in enumerate(self.operations) if place in operations]
        by_inode: dict[int, list[Atom]] = {}
        for atom in sorted(atoms):
            by_inode.setdefault(atom.inode, []).append(atom)
        content: Content = {}
        for name, inode in self._named(kept).items():
            file = self.files[inode]
            if not file.sizes and inode not in by_inode:
                content[name] = file.freeze()
                continue
            size = file.sizes[-1][1] if file.sizes else len(file.durable)
            data = bytearray(file.durable)
            _resize(data, sizes.get(inode, size))
            for atom in by_inode.get(inode, ()):
                _put(data, atom)
            content[name] = bytes(data)
        return content


class Digests:
    """What tells images apart; the digest of a content that stays is worked out once."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def of(self, content: Content) -> bytes:
        """The digest of an image."""
        whole = hashlib.blake2b(digest_size=16)
        for name in sorted(content):
            whole.update(b"%s %s;" % (name.encode(), self._of_file(content[name])))
        return whole.digest()

    def _of_file(self, data: bytes) -> bytes:
        found = self._known.get(data)
        if found is None:
            if len(self._known) > 500:
                self._known.clear()
            found = self._known[data] = hashlib.blake2b(data, digest_size=16).digest()
        return found
