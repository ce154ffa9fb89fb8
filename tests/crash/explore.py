"""Crashes a workload at every event, and after its crashes once more.

`explore` walks the events of a run.  After each one that changes what a crash may leave, it makes
the images of `images.py`; whatever they hold must be lawful then, and stay so while only marks
come, which ask for more.  Images with the same bytes are opened once.  A few of them become the
beginning of a nested run: recover, write, crash again.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cesium.files import Files
from crash.check import Checker, put_into
from crash.disk import Digests, Disk
from crash.history import Bounds, Found, Wrong
from crash.images import EVERYTHING, choices
from crash.recording_files import Content, Mark, RecordingFiles
from crash.run import Run, small_limits
from crash.workloads import KEYS, WORKLOADS


@dataclass
class Counts:
    """How much was tried, and the rare corners that were met."""

    runs: int = 0
    nested_runs: int = 0
    events: int = 0
    choices: int = 0  # images made; several may have the same bytes
    images: int = 0  # images that differ, opened
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, other: Counts) -> None:
        """Counts what another counted."""
        self.runs += other.runs
        self.nested_runs += other.nested_runs
        self.events += other.events
        self.choices += other.choices
        self.images += other.images
        self.seen.update(other.seen)

    def __str__(self) -> str:
        corners = ", ".join(f"{what} {count:,}" for what, count in sorted(self.seen.items()))
        return (
            f"{self.images:,} different crash images opened, of {self.choices:,} made at "
            f"{self.events:,} events of {self.runs} runs and {self.nested_runs} runs after a "
            f"crash; {corners}"
        )


class CrashFound(AssertionError):
    """A crash image that breaks a promise, and how to make it again."""

    def __init__(self, where: str, event: Any, choice: str, wrong: Wrong, image: Content) -> None:
        self.where, self.choice, self.wrong, self.image = where, choice, wrong, image
        self.args = (where, str(event)[:300], choice, str(wrong), image)  # to be pickled

    def __str__(self) -> str:
        where, event, choice, wrong, image = self.args
        files = ", ".join(f"{name} {len(data)}" for name, data in sorted(image.items()))
        return f"{where}, choice {choice!r}: {wrong}\nevent: {event}\nfiles: {files}"

    def keep(self, directory: Path) -> None:
        """Puts the files of the image into a directory."""
        directory.mkdir(parents=True, exist_ok=True)
        put_into(Files(directory), self.image)


@dataclass
class Explorer:
    """effort: how many images of each kind at an event; nested: how many runs after a crash.

    only: an event, as a CrashFound says where; then images are opened there alone.
    """

    effort: int = 6
    nested: int = 2
    only: str | None = None
    counts: Counts = field(default_factory=Counts)

    def workload(self, name: str, seed: int, files: Any = RecordingFiles) -> None:
        """Runs a workload and crashes it everywhere; CrashFound if a promise is broken."""
        work, options = WORKLOADS[name]
        where = f"workload {name}, seed {seed}"
        with small_limits():
            run = Run(where, files=files, **options)
            work(run)
            run.finish()
            self.counts.runs += 1
            survivors, holed = self._crash(run, where)
            most = min(self.nested - 1, len(survivors))
            chosen = [holed, *random.Random(where).sample(survivors, most)] if self.nested else []
            for number, content in enumerate(chosen):
                self._again(f"{where}, nested {number}", content, options, files)

    def _again(self, where: str, content: Content, options: dict[str, Any], files: Any) -> None:
        """Recovers from a crash image, writes, and crashes again."""
        run = Run(where, content, files=files, **options)
        self.counts.nested_runs += 1
        texts = run.options.key == "str"
        for number in range(4):
            if texts:
                run.put(f"k{number}", b"again" * number)
            else:
                run.put(run.rng.randrange(KEYS), -float(number))
        if not texts:
            run.put_many({run.rng.randrange(KEYS): 7.0 for _ in range(20)})
        run.checkpoint()
        run.kill()
        run.finish()
        self._crash(run, where)

    def _crash(self, run: Run, where: str) -> tuple[list[Content], Content]:
        """Crashes a run at every event; returns images for nested runs.

        Some random ones, and the one with a hole before the most journal.
        """
        walk = Walk(run, where, self)
        for number, event in enumerate(run.events):
            walk.step(number, event)
        self.counts.images += len(walk.found)
        self.counts.seen.update(run.seen)
        self.counts.seen.update(walk.checker.seen)
        return walk.survivors, walk.holed


class Walk:
    """The events of one run, and what was found in its images so far."""

    def __init__(self, run: Run, where: str, explorer: Explorer) -> None:
        self.run, self.where, self.explorer = run, where, explorer
        self.disk, self.digests = Disk(), Digests()
        self.bounds = Bounds(run.history)
        self.checker = Checker(run.history, run.options)
        self.found: dict[bytes, Found] = {}
        self.drawn: set[bytes] = set()  # digests of all images so far
        self.latest: list[tuple[str, bytes]] = []  # what may be there now: choice, digest
        self.made_at = ""  # the event that made them possible
        self.survivors: list[Content] = []
        self.holed: Content = {}
        self._most_mapped = (0, 0)

    def step(self, number: int, event: Any) -> None:
        """One event: the images that it makes possible, or the promises that it makes."""
        at = f"{self.where}, event {number}"
        if isinstance(event, Mark):
            self.bounds.mark(event.note)
        changes = self.disk.apply(event)
        if number < self.run.files.first_event:
            return
        if changes:
            self.explorer.counts.events += 1
            self._make(at, event)
            self._dig()
        elif isinstance(event, Mark):
            for choice, digest in self.latest:
                if digest in self.found:
                    self._judge(choice, digest, event)

    def _make(self, at: str, event: Any) -> None:
        self.latest, self.made_at = [], at
        for choice, content in choices(self.disk, at, self.explorer.effort):
            self.explorer.counts.choices += 1
            digest = self.digests.of(content)
            drawn = zlib.crc32(f"{at} {choice}".encode())
            if digest not in self.drawn:
                self.drawn.add(digest)
                if choice.startswith("random") and drawn % 16 == 0:
                    self.survivors.append(content)
            if digest not in self.found and self.explorer.only in (None, at):
                try:
                    self.found[digest] = self.checker.examine(content, drawn)
                except Wrong as wrong:
                    raise CrashFound(at, event, choice, wrong, content) from wrong
            self.latest.append((choice, digest))
            if digest in self.found:
                self._judge(choice, digest, event)

    def _dig(self) -> None:
        """Keeps the image with a hole at the first pending sector of most journal files."""
        atoms = self.disk.pending_atoms()
        mapped = [atom for atom in atoms if atom.mapped]
        most = len({atom.inode for atom in mapped}), len(mapped)
        if most > self._most_mapped:
            self._most_mapped = most
            place = mapped[0].inode, mapped[0].sector
            kept = [atom for atom in atoms if (atom.inode, atom.sector) != place]
            self.holed = self.disk.image(kept, range(len(self.disk.operations)), {})

    def _judge(self, choice: str, digest: bytes, event: Any) -> None:
        try:
            self.bounds.check(self.found[digest], killed=choice == EVERYTHING)
        except Wrong as wrong:
            image: Content = {}
            for other, content in choices(self.disk, self.made_at, self.explorer.effort):
                if other == choice:
                    image = content
            raise CrashFound(self.made_at, event, choice, wrong, image) from wrong


total = Counts()  # of all tests of a run
