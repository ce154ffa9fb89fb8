"""What a store must hold after a crash, by what was begun and what was acknowledged.

A `History` keeps the commits of a run, in eras: a store made new in the same place begins another.
Marks in the recording say when each commit began and was acknowledged; `Bounds` follows them and
knows, at each event, which states are lawful:

- after a power cut, at least all that was acknowledged at level sync, or covered by a sync, a
  checkpoint, a load or `durable_sequence`; at most all that was begun; in between any prefix;
- after the kill of the process, at least all that was acknowledged.

Named checkpoints are there once naming them returned, and until dropping them begins; they hold the
rows as of their sequence, which covers all commits from before they were named.

Thread safety: commits may be made by several threads; the order is that of their sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Rows = dict[Any, Any]
NO_STORE = -1  # the era before the first store is there

# Levels whose commits a killed process keeps, and a power cut.
KEPT_AFTER_KILL = ("sync", "interval", "process")
KEPT_AFTER_POWER_CUT = ("sync",)


# Tables beside the default one, whose rows a model has under keys of their own.
TABLES = {"one": 1000, "two": 2000}


def rows_of(store: Any) -> Rows:
    """All rows of a store, those of its tables included."""
    rows = dict(store.items())
    for name, table in store.tables.items():
        rows.update((TABLES[name] + key, value) for key, value in table.items())
    return rows


class Wrong(AssertionError):
    """A crash image that breaks a promise."""


@dataclass(eq=False)
class Commit:
    """One commit; its sequence is known once it was acknowledged."""

    apply: Callable[[Rows], None]
    sequence: int = 0


@dataclass
class Era:
    """The commits of one store, on top of the rows that it began with."""

    uuid: bytes
    base_sequence: int = 0
    base_rows: Rows = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    states: list[list[tuple[Any, Any]]] = field(default_factory=list)  # filled in by `settle`
    # Of checkpoints that it began with, by name and sequence.
    named: dict[tuple[str, int], list[tuple[Any, Any]]] = field(default_factory=dict)

    def settle(self) -> None:
        """Works out the rows after each commit, in order of sequence."""
        rows = dict(self.base_rows)
        self.states = [sorted(rows.items())]
        self.commits.sort(key=lambda commit: commit.sequence)
        for place, commit in enumerate(self.commits):
            assert commit.sequence == self.base_sequence + 1 + place, "a gap in the sequences"
            commit.apply(rows)
            self.states.append(sorted(rows.items()))

    def state(self, sequence: int) -> list[tuple[Any, Any]] | None:
        """The rows as of a sequence, sorted by key."""
        place = sequence - self.base_sequence
        return self.states[place] if 0 <= place < len(self.states) else None


# What the marks say.


class Opening(NamedTuple):
    """A store is made new: until it is there, the one before may be, as of its checkpoint."""

    flushed_sequence: int


class Opened(NamedTuple):
    """A store is open: the era with this number, and what is in it for good."""

    era: int
    durable_sequence: int


class Reopened(NamedTuple):
    """The same store is open again, with nothing lost."""


class Begun(NamedTuple):
    """A commit may be there from now on."""

    commit: Commit


class Acknowledged(NamedTuple):
    """A commit returned."""

    commit: Commit
    level: str


class Durable(NamedTuple):
    """The store says that all up to this sequence is on stable storage."""

    sequence: int


class Naming(NamedTuple):
    """A checkpoint of this name may be there from now on, with the commits up to a sequence."""

    name: str
    sequence: int


class Named(NamedTuple):
    """It is there for good."""

    name: str


class Dropping(NamedTuple):
    """It may be gone from now on."""

    name: str


class Dropped(NamedTuple):
    """It is gone for good."""

    name: str


class Found(NamedTuple):
    """What a crash image holds: an era, the sequence of its last commit, and checkpoints: names and
    sequences."""

    era: int
    sequence: int
    named: frozenset[tuple[str, int]] = frozenset()


class History:
    """The eras of a run."""

    def __init__(self) -> None:
        self.eras: list[Era] = []

    def settle(self) -> None:
        """After the run: works out every state."""
        for era in self.eras:
            era.settle()

    def recognise_named(
        self, uuid: bytes, name: str, sequence: int, rows: list[tuple[Any, Any]]
    ) -> None:
        """Wrong if a checkpoint does not hold the rows of its sequence."""
        era = next(era for era in self.eras if era.uuid == uuid)
        expected = era.named.get((name, sequence)) or era.state(sequence)
        if expected is None:
            raise Wrong(f"the checkpoint {name!r} is of sequence {sequence}, which never was")
        if rows != expected:
            raise Wrong(f"the checkpoint {name!r}: {_difference(rows, expected)}")

    def recognise(self, uuid: bytes, sequence: int, rows: list[tuple[Any, Any]]) -> Found:
        """Which state of which era this is; Wrong if it never was."""
        for number, era in enumerate(self.eras):
            if era.uuid == uuid:
                expected = era.state(sequence)
                if expected is None:
                    raise Wrong(f"sequence {sequence} never was")
                if rows != expected:
                    raise Wrong(f"as of sequence {sequence}: {_difference(rows, expected)}")
                return Found(number, sequence)
        if rows or sequence:
            raise Wrong(f"an unknown store with {len(rows)} rows at sequence {sequence}")
        return Found(NO_STORE, 0)


def _difference(rows: list[tuple[Any, Any]], expected: list[tuple[Any, Any]]) -> str:
    have, want = dict(rows), dict(expected)
    if len(have) != len(rows):
        return "a key twice"
    wrong = [
        f"{key!r}: {have.get(key, 'missing')!r}, expected {want.get(key, 'nothing')!r}"
        for key in sorted({*have, *want})
        if have.get(key) != want.get(key)
    ]
    return f"{len(wrong)} of {len(want)} rows differ: {'; '.join(wrong[:5])}"


class Bounds:
    """Follows the marks; see the module."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.era = NO_STORE
        self.begun: set[int] = set()  # sequences of this era
        self.kept = 0  # what a kill leaves at least
        self.durable = 0  # what a power cut leaves at least
        self.between = False  # a new store is being made
        self.names: dict[str, int] = {}  # that may be there, and the least sequence of each
        self.named: set[str] = set()  # that must be there

    def mark(self, note: Any) -> None:
        """Takes a mark."""
        match note:
            case Opening(flushed_sequence):
                self.between = True
                self.kept = self.durable = flushed_sequence
            case Opened(era, durable_sequence):
                if era != self.era:
                    self.begun.clear()
                    self.names.clear()
                    self.named.clear()
                    self.kept = self.durable = durable_sequence
                self.era, self.between = era, False
            case Naming(name, sequence):
                self.names[name] = sequence
            case Named(name):
                self.named.add(name)
            case Dropping(name):
                self.named.discard(name)
            case Dropped(name):
                del self.names[name]
            case Begun(commit):
                self.begun.add(commit.sequence)
            case Acknowledged(commit, level):
                if level in KEPT_AFTER_KILL:
                    self.kept = max(self.kept, commit.sequence)
                if level in KEPT_AFTER_POWER_CUT:
                    self.durable = max(self.durable, commit.sequence)
            case Durable(sequence):
                self.kept = max(self.kept, sequence)
                self.durable = max(self.durable, sequence)

    def check(self, found: Found, killed: bool) -> None:
        """Wrong unless the state is lawful now; killed: the process only, not the system."""
        if self.between and found.era == self.era + 1 and found.sequence == 0:
            return
        if self.between and found.era == NO_STORE == self.era:
            return
        if found.era != self.era:
            raise Wrong(f"store {found.era} is there, expected store {self.era}")
        least = self.kept if killed else self.durable
        if found.sequence < least:
            what = "acknowledged" if killed else "durable"
            raise Wrong(f"commits up to {least} were {what}, those up to {found.sequence} are left")
        base = self.history.eras[found.era].base_sequence
        if found.sequence > base and found.sequence not in self.begun:
            raise Wrong(f"commit {found.sequence} was not begun yet")
        if missing := self.named - {name for name, _ in found.named}:
            raise Wrong(f"checkpoints are missing: {missing}")
        for name, sequence in found.named:
            if name not in self.names:
                raise Wrong(f"the checkpoint {name!r} was not named, or was dropped")
            if sequence < self.names[name]:
                raise Wrong(f"the checkpoint {name!r} is of {sequence}, before {self.names[name]}")
