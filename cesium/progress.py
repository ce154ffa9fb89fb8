"""Progress bars: rich's, on a terminal or in a notebook; nothing elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Report = Callable[[int], None]


@contextlib.contextmanager
def reporting(what: str, total: int, wanted: bool) -> Iterator[Report | None]:
    """Yields a function to be called with steps done, or None when no bar is wanted."""
    if not wanted:
        yield None
        return
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
