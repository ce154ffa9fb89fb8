"""What the engine does by itself or at length, told to whoever listens: the logger "cesium", and
OpenTelemetry spans.

    with event(engine, "flush", rows=1000) as facts:
        ...
        facts["bytes_written"] = 4096

docs/observability.md has the events and their keys.  Nobody listens until the program has imported
`logging`, or `opentelemetry.trace`, itself: neither is imported here, since that takes milliseconds
and a program that wants to hear has done it.  Then an event costs two reads of the clock.

Thread safety: an event belongs to one thread.  Enter and leave it without the writer lock: handlers
of logs are Python code of anybody, which may even use the store.  What they raise is dropped: what
was done stands, whoever failed to write it down.
"""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cesium._counters import LATENCIES

if TYPE_CHECKING:
    from cesium.engine import StoreEngine

LOGGER = "cesium"
SPAN_PREFIX = "cesium."  # of spans' names and attributes

Fact = int | float | str

# What each event adds to the counters of its store, and from which fact; None is one event.
COUNTED: dict[str, dict[str, str | None]] = {
    "flush": {"flushes": None, "flush_bytes": "bytes_written"},
    "merge": {"merges": None, "merge_read_bytes": "bytes_read", "merge_bytes": "bytes_written"},
    "checkpoint": {"checkpoints": None},
    "load": {"loads": None, "loaded_rows": "rows", "load_bytes": "bytes_written"},
    "compaction": {"compactions": None},
}


class Event:
    """One thing done, from `with` to its end; the facts may be added to meanwhile.

    Units are in the facts' names.  An exception that passes is told as `error`, and goes on.
    """

    __slots__ = ("_counters", "_span", "_start", "facts", "name", "store")

    def __init__(self, engine: StoreEngine, name: str, facts: dict[str, Fact]) -> None:
        self._counters = engine.core_engine.counters
        self.store = engine.path or ":memory:"
        self.name = name
        self.facts = facts

    def __enter__(self) -> dict[str, Fact]:
        self._span: Any = None
        with contextlib.suppress(Exception):
            self._span = _start_span(self.name)
        self._start = time.perf_counter_ns()
        return self.facts

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        nanoseconds = time.perf_counter_ns() - self._start
        if error is not None:
            self.facts["error"] = f"{type(error).__name__}: {error}"
        else:
            self._count(nanoseconds)
        if self._span is not None:
            with contextlib.suppress(Exception):
                self._end_span(kind, error, trace)
        with contextlib.suppress(Exception):
            self._log(nanoseconds)

    def _end_span(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        manager, span = self._span
        try:
            for name, fact in {"store": self.store, **self.facts}.items():
                span.set_attribute(SPAN_PREFIX + name, fact)
        finally:
            manager.__exit__(kind, error, trace)

    def _count(self, nanoseconds: int) -> None:
        for total, fact in COUNTED.get(self.name, {}).items():
            self._counters.add(total, int(self.facts.get(fact, 0)) if fact else 1)
        if self.name in LATENCIES:
            self._counters.record(self.name, nanoseconds)

    def _log(self, nanoseconds: int) -> None:
        get_logger = getattr(sys.modules.get("logging"), "getLogger", None)
        if get_logger is None:
            return
        logger = get_logger(LOGGER)
        if not logger.isEnabledFor(20):  # logging.INFO
            return
        seconds = nanoseconds / 1e9
        told = ", ".join(f"{name}={fact}" for name, fact in self.facts.items())
        logger.info(
            "%s: %s took %.6f s (%s)", self.store, self.name, seconds, told,
            extra={
                "event": self.name, "store": self.store, "duration_seconds": seconds, **self.facts
            },
        )  # fmt: skip


def event(engine: StoreEngine, name: str, **facts: Fact) -> Event:
    """An event of a store, to be entered; see the module."""
    return Event(engine, name, facts)


def _start_span(name: str) -> tuple[Any, Any] | None:
    """A span that is current until its manager exits, and its manager; None: nobody traces."""
    get_tracer = getattr(sys.modules.get("opentelemetry.trace"), "get_tracer", None)
    if get_tracer is None:
        return None
    manager = get_tracer(LOGGER).start_as_current_span(SPAN_PREFIX + name)
    return manager, manager.__enter__()
