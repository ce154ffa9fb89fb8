"""How far a store's commits are on stable storage, and waiting until they are.

docs/durability.md has the levels.  `core_engine.durable_sequence` is what was waited for; these
functions know of what a checkpoint, or another thread's sync, has made durable besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cesium._engine import Engine, WriteGuard
from cesium.errors import PoisonedError
from cesium.upkeep import poisoning

if TYPE_CHECKING:
    from cesium.engine import StoreEngine


def durable_sequence(engine: StoreEngine) -> int:
    """Every commit up to this one is on stable storage; 0 for a store in memory."""
    inner = engine.core_engine
    sequence = inner.sequence  # first: what is appended later does not count
    if engine.in_memory:
        return 0
    if inner.journal is not None and inner.journal.fully_synced:
        raise_to(inner, sequence)
    return max(inner.durable_sequence, engine.manifest.state.flushed_sequence)


def sync(engine: StoreEngine) -> None:
    """Waits until every commit so far is on stable storage; PoisonedError if a sync fails."""
    inner = engine.core_engine
    if engine.in_memory or not engine.writable:
        return
    if inner.unjournaled:
        engine.checkpoint(engine)
        return
    if inner.journal is None:
        with WriteGuard(inner):
            if inner.journal is None:
                # What was replayed came from a process that may not have synced it.
                with poisoning(inner):
                    engine.journal.sync()
                raise_to(inner, inner.sequence)
    sequence = inner.sequence  # before the position, which so covers it
    inner.wait(*inner.durable_position())
    raise_to(inner, sequence)


def raise_to(inner: Engine, sequence: int) -> None:
    """Everything up to `sequence` is durable."""
    inner.durable_sequence = max(inner.durable_sequence, sequence)


def tell_unseen_failure(inner: Engine) -> None:
    """PoisonedError for a sync that failed in the background, if no call has raised since."""
    if inner.untold:
        raise PoisonedError(
            f"commits after {inner.durable_sequence} may be lost: a sync in the background failed "
            f"({inner.poisoned})"
        ) from inner.poisoned
