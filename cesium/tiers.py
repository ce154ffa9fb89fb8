"""Which sources to merge next: a policy without files, locks or keys.

The sources above the last tier stand newest first; each is one run of rows.  Runs of like size
are merged with one another (tiered, so that a row is rewritten once for each factor of RUNS_DUE
that the store grows by), and what lies above is merged into the last tier, which is one run, when
it has grown to a part of it (leveled, so that stale rows take little space).  The literature calls
that lazy leveling (Dayan and Idreos, "Dostoevsky", SIGMOD 2018); the rule for runs of like size is
that of universal compaction.  docs/design.md has the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RUNS_DUE = 4  # neighbours of like size that are merged into one
LIKE_SIZE = 1.25  # times what lies above it: a run that is not larger is merged with that
BASE_SHARE = 4  # of the last tier: when what lies above is larger, it is merged into it
DIRECT_BYTES = 1 << 30  # with the last tier, at most, to be merged into it without a step between
DEAD_SHARE = 8  # of all rows: when more than one in so many is dead, they are merged away
DEAD_ROWS_LEAST = 4096  # fewer are not worth a merge of their own
RUNS_SOON = 2 * RUNS_DUE  # with more of them writers are slowed down a little,
RUNS_MOST = 4 * RUNS_DUE  # and with so many as far as may be
PACE_LEAST = 0.05  # of what was put so far: never a stop


@dataclass(frozen=True, slots=True)
class Run:
    """One source above the last tier.

    dead: rows that a merge into the last tier would do without, as far as can be told: its delete
    markers and what they and its range-deletes hide.
    """

    bytes: int
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """The runs first <= index < end; into_base: with what they overlap of the last tier."""

    first: int
    end: int
    into_base: bool


def choose(runs: Sequence[Run], base_bytes: int, rows: int) -> Choice | None:
    """What to merge next, or None when the tiers are in order.

    runs: newest first, all that may be merged.  rows: entries of all sources, dead ones included.
    """
    if not runs:
        return None
    upper = sum(run.bytes for run in runs)
    dead = sum(run.dead for run in runs)
    if dead >= DEAD_ROWS_LEAST and dead * DEAD_SHARE >= rows:
        first = next(index for index, run in enumerate(runs) if run.dead)
        return Choice(first, len(runs), True)
    if len(runs) >= RUNS_DUE and upper * BASE_SHARE >= base_bytes:
        if upper + base_bytes <= DIRECT_BYTES:
            return Choice(0, len(runs), True)
        if runs[-1].bytes * 2 >= upper:  # the oldest run alone, in parts that lie apart
            return Choice(len(runs) - 1, len(runs), True)
        return Choice(0, len(runs), False)
    if runs[-1].bytes * BASE_SHARE >= base_bytes + DIRECT_BYTES:  # parts of it went down already
        return Choice(len(runs) - 1, len(runs), True)
    together = 0
    for index, run in enumerate(runs):
        if index and run.bytes > together * LIKE_SIZE:
            if index >= RUNS_DUE:
                return Choice(0, index, False)
            return None
        together += run.bytes
    return Choice(0, len(runs), False) if len(runs) >= RUNS_DUE else None


def pace_of(runs: int, waiting: int, waiting_most: int) -> float | None:
    """How fast writers may go on, as a part of twice their speed so far; None: as they like.

    runs: sources above the last tier.  waiting: memtables to be written out, of `waiting_most`.  In
    proportion: where half of the way to the bound is used up, writers keep the speed that they had,
    with less of it used they speed up, with more they slow down.
    """
    used = max(
        (runs - RUNS_SOON) / (RUNS_MOST - RUNS_SOON),
        (waiting - 1) / max(waiting_most - 1, 1),
    )
    return max(1.0 - used, PACE_LEAST) if used > 0 else None
