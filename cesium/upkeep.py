"""Failures: of what ends all writing, and of the maintenance that writes do by the way.

A commit stands whatever becomes of the flush or merge that follows it, so their failures are kept
here instead of raised: `stats()` and the log tell them, and checkpoint, compact and close meet them
again, and raise.

Thread safety: written with `engine.maintenance` held; `failure` may be read by any thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cesium._engine import Engine
from cesium.errors import PoisonedError

PAUSE_MOST = 64


@contextlib.contextmanager
def poisoning(engine: Engine) -> Iterator[None]:
    """Nobody knows what a failed sync, or a failed edit, left on the drive: writing ends."""
    try:
        yield
    except PoisonedError as error:
        if engine.poisoned is None:
            engine.poisoned = error.__cause__ or error
        raise


class Upkeep:
    """One store's; see the module."""

    def __init__(self) -> None:
        self.failure: str | None = None  # the last one, until maintenance succeeds
        self.unrecorded: set[int] = set()  # merged and published, but not yet in the manifest
        self._pause = 0
        self._left = 0

    def note(self, path: str | None, error: BaseException) -> None:
        """Keeps and logs a failure."""
        import logging  # not at import: it takes milliseconds, and most programs never fail

        self.failure = f"{type(error).__name__}: {error}"
        logging.getLogger("cesium").warning(
            "%s: maintenance failed, commits are kept (%s)", path or ":memory:", self.failure
        )

    def merge_is_due(self) -> bool:
        """Whether to try a merge; after failures, each further one waits for twice as many calls.

        A merge that meets a damaged page would otherwise read up to it after every flush.
        """
        self._left = max(self._left - 1, 0)
        return self._left == 0

    def merge_failed(self) -> None:
        """The next calls of `merge_is_due` say no."""
        self._pause = min(max(2 * self._pause, 2), PAUSE_MOST)
        self._left = self._pause

    def merged(self) -> None:
        """All that was due is merged."""
        self._pause = self._left = 0
        self.failure = None

    def flushed(self) -> None:
        """All is written out; a merge that failed may still be due."""
        if not self._pause:
            self.failure = None
