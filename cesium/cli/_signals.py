"""Signals that ask a command to end do what Ctrl-C does: what it cleans up is cleaned up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, the first of them alone.

    A second one, as when a terminal is closed and then the session, would break into the cleaning
    up.  A signal that is ignored (nohup) stays so.  Only the main thread can do this; in another
    nothing changes.
    """
    handled = [
        each for each in (signal.SIGTERM, signal.SIGHUP)
        if threading.current_thread() is threading.main_thread()
        and signal.getsignal(each) == signal.SIG_DFL
    ]  # fmt: skip

    def end(number: int, frame: object) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in handled:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)
