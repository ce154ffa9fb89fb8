"""Progress: a bar on a terminal (rich's) or in a notebook, or a function of the caller's.

Whoever works calls a Report with the steps that it has done since, from any thread; only one call
at a time comes through.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cesium.figures import seconds_text

Report = Callable[[int], None]
Progress = bool | Callable[[int, int], object]  # what callers give: a bar or not, or a function

REDRAW_SECONDS = 0.1


@contextlib.contextmanager
def reporting(what: str, total: int, wanted: Progress) -> Iterator[Report | None]:
    """Yields a function to be called with steps done, or None when nobody wants to know.

    wanted: True for a bar, or a function of (steps done so far, steps in all); at a good end it
    gets all steps as done, for `total` may be an estimate.  What it raises ends the work.
    """
    if callable(wanted):
        told = _Told(wanted, total)
        yield told.advance
        told.finish()
    elif not wanted:
        yield None
    elif in_notebook():
        bar = NotebookBar(what)
        told = _Told(bar.show, total)
        try:
            yield told.advance
            told.finish()
        finally:
            bar.end()
    else:
        with _terminal_bar(what, total) as report:
            yield report


class _Told:
    """Adds up steps and passes the sum on."""

    def __init__(self, function: Callable[[int, int], object], total: int) -> None:
        self._function = function
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def advance(self, steps: int) -> None:
        with self._lock:
            self._done += steps
            self._total = max(self._total, self._done)
            self._function(self._done, self._total)

    def finish(self) -> None:
        if self._done < self._total or not self._total:
            self._function(self._total, self._total)


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook (IPython on a terminal has rich's bar)."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class NotebookBar:
    """One line of a cell's output: HTML's own bar, which needs no widgets; text where it is kept.

    It is drawn anew at most every REDRAW_SECONDS.
    """

    def __init__(self, what: str) -> None:
        display = importlib.import_module("IPython.display").display  # which has no types
        self._what = what
        self._done = self._total = 0
        self._state = "is under way"
        self._start = time.monotonic()
        self._drawn = 0.0
        self._handle: Any = display(self, display_id=True)

    def show(self, done: int, total: int) -> None:
        """Notes how far it is, and draws it now and then."""
        self._done, self._total = done, total
        now = time.monotonic()
        if now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._handle.update(self)

    def end(self) -> None:
        """Draws it for the last time."""
        whole = self._total and self._done >= self._total
        self._state = f"{'took' if whole else 'ended after'} {self._elapsed()}"
        self._handle.update(self)

    def _elapsed(self) -> str:
        return seconds_text(time.monotonic() - self._start)

    def __repr__(self) -> str:
        return f"{self._what}: {self._done:,} of {self._total:,} {self._state}"

    def _repr_html_(self) -> str:
        bar = f'<progress value="{self._done}" max="{max(self._total, 1)}"></progress>'
        return f'<div style="font-size:0.9em">{bar} {self!r}</div>'


@contextlib.contextmanager
def _terminal_bar(what: str, total: int) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda steps: progress.advance(task, steps)
