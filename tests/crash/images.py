"""Which crash images are made at one moment: the adversary's choices.

`choices(disk, seed, effort)` yields (name, image).  The same disk, seed and effort give the same
images under the same names, so that a name says how to make one again.  Nothing survived,
everything survived, the newest first, only the last page, every other sector, each sector and each
operation on names alone missing or alone there, sizes cut, words of a mapped sector half written,
and as many random parts as `effort` says.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TypeVar

from crash.disk import Atom, Disk
from crash.recording_files import SECTOR_BYTES, Content

EVERYTHING = "everything"  # also what a killed process leaves
SECTORS_A_PAGE = 8

Item = TypeVar("Item")


def choices(disk: Disk, seed: str, effort: int) -> Iterator[tuple[str, Content]]:
    """effort: how many random images, and how many of each other kind at most."""
    atoms = disk.pending_atoms()
    names = range(len(disk.operations))
    sizes = disk.pending_sizes()
    first = {inode: found[0] for inode, found in sizes.items()}
    rng = random.Random(seed)

    def some(items: list[Item]) -> list[Item]:
        return items if len(items) <= effort else rng.sample(items, effort)

    def kept(test: Callable[[Atom], bool]) -> list[Atom]:
        return [atom for atom in atoms if test(atom)]

    yield EVERYTHING, disk.image(atoms, names, {})
    yield "nothing", disk.image((), (), first)
    if not (atoms or sizes or names):
        return
    yield "no names", disk.image(atoms, (), {})
    yield "names only", disk.image((), names, first)
    yield "names and sizes", disk.image((), names, {})
    orders = sorted({atom.order for atom in atoms})
    for count in (1, 2, 3):
        newest = orders[-count:]
        yield f"newest {count}", disk.image(kept(lambda a: a.order in newest), names, {})
        yield (
            f"all but newest {count}",
            disk.image(kept(lambda a: a.order not in newest), names, {}),
        )
    for parity in (0, 1):
        some_atoms = kept(lambda a: a.sector % 2 == parity)
        yield f"sectors {parity} of 2", disk.image(some_atoms, names, {})
    last_page = {atom.inode: atom.sector // SECTORS_A_PAGE for atom in sorted(atoms)}
    for atom in atoms:
        last_page[atom.inode] = max(last_page[atom.inode], atom.sector // SECTORS_A_PAGE)
    in_last = kept(lambda a: a.sector // SECTORS_A_PAGE == last_page[a.inode])
    yield "last pages only", disk.image(in_last, names, {})
    yield "all but last pages", disk.image([a for a in atoms if a not in in_last], names, {})
    places = sorted({(atom.inode, atom.sector) for atom in atoms})
    for place in some(places):
        text = "inode {} sector {}".format(*place)
        yield f"without {text}", disk.image(kept(lambda a: (a.inode, a.sector) != place), names, {})
        yield f"only {text}", disk.image(kept(lambda a: (a.inode, a.sector) == place), names, {})
        versions = kept(lambda a: (a.inode, a.sector) == place)
        if len(versions) > 1:
            yield f"older {text}", disk.image([a for a in atoms if a != versions[-1]], names, {})
    for number in some(list(names)):
        others = [other for other in names if other != number]
        yield f"without operation {number}", disk.image(atoms, others, {})
        yield f"only operation {number}", disk.image(atoms, [number], {})
        yield f"operations up to {number}", disk.image(atoms, names[:number], {})
    for inode, found in sizes.items():
        low, high = min(found), max(found)
        for size in sorted({low, high, (low + high) // 2, low + SECTOR_BYTES, high - SECTOR_BYTES}):
            if low <= size <= high:
                yield f"size {size} of {inode}", disk.image(atoms, names, {inode: size})
    mapped = kept(lambda a: a.mapped)
    if mapped:
        for number in range(min(3, effort)):
            torn = _half_written(disk, mapped[-1 - number % len(mapped)], rng)
            others = [torn if (a.order, a.inode, a.sector) == torn[:3] else a for a in atoms]
            yield f"half written {number}", disk.image(others, names, {})
    for number in range(effort):
        yield f"random {number}", _random(disk, atoms, sizes, random.Random(f"{seed} {number}"))


def _half_written(disk: Disk, atom: Atom, rng: random.Random) -> Atom:
    """A sector of a mapping, written back in the midst of stores to it: any of its words."""
    start = atom.sector * SECTOR_BYTES
    before = bytes(disk.files[atom.inode].durable[start : start + SECTOR_BYTES])
    for other in disk.files[atom.inode].atoms:
        if other.sector == atom.sector and other.order < atom.order:
            before = other.data
    before = before.ljust(SECTOR_BYTES, b"\0")
    words = [
        (atom.data if rng.random() < 0.5 else before)[word : word + 8]
        for word in range(0, SECTOR_BYTES, 8)
    ]
    return atom._replace(data=b"".join(words))


def _random(
    disk: Disk, atoms: list[Atom], sizes: dict[int, list[int]], rng: random.Random
) -> Content:
    """Each file, and the names, with a likelihood of their own to survive."""
    likely = {inode: rng.choice((0.0, 0.1, 0.5, 0.9, 0.97, 1.0)) for inode in disk.files}
    names_likely = rng.choice((0.0, 0.5, 0.8, 1.0, 1.0))
    chosen = {}
    for inode, found in sizes.items():
        low, high = min(found), max(found)
        step = rng.choice((SECTOR_BYTES, 4096))
        between = low + (high - low) * rng.random() // step * step
        chosen[inode] = rng.choice((found[-1], found[-1], rng.choice(found), int(between)))
    return disk.image(
        [atom for atom in atoms if rng.random() < likely[atom.inode]],
        [place for place in range(len(disk.operations)) if rng.random() < names_likely],
        chosen,
    )
