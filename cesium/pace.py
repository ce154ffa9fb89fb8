"""How fast something is read, and how far it is: a rate limit and a progress report in one.

Thread safety: a Pace belongs to one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PAGE_BYTES = 4096


class Pace:
    """Called with the bytes just read: sleeps so that no more than `rate` bytes a second are.

    rate: None is no limit.  progress: called with whole pages read, as they add up.
    """

    def __init__(
        self,
        rate: int | None = None,
        progress: Callable[[int], None] | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._rate = rate
        self._progress = progress
        self._clock = clock or time.monotonic
        self._sleep = sleep or time.sleep
        self._start = self._clock()
        self._bytes = 0
        self._pages = 0

    def __call__(self, done: int) -> None:
        self._bytes += done
        pages = self._bytes // PAGE_BYTES
        if self._progress is not None and pages > self._pages:
            self._progress(pages - self._pages)
        self._pages = pages
        if self._rate is not None:
            ahead = self._bytes / self._rate - (self._clock() - self._start)
            if ahead > 0:
                self._sleep(ahead)
