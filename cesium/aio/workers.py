"""Threads that run the calls of an asyncio program, and what is awaited of them.

A call that was begun runs to its end in its thread, whatever becomes of the task that awaits it;
one that still waits for a thread when its task is cancelled is never begun.  Thread safety: any
thread, any event loop; nothing here belongs to the loop that it was made in.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar

from cesium.errors import ClosedError

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """At most so many threads, started when they are needed; `end` waits for what they do."""

    def __init__(self, name: str, most: int, refusal: str = "the store is closed") -> None:
        self._threads = ThreadPoolExecutor(most, thread_name_prefix=name)
        self._process = os.getpid()
        self._refusal = refusal
        self.refuses = False  # takes no more calls

    def check(self) -> None:
        """ClosedError when no more calls are taken, and in a forked child, which has no threads."""
        if self.refuses:
            raise ClosedError(self._refusal)
        if os.getpid() != self._process:
            raise ClosedError(
                "this store was opened before the process was forked: open it again in the child"
            )

    def submit(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> Future[T]:
        """Has a thread make the call, in the context of the caller; ClosedError as by `check`."""
        self.check()
        run = contextvars.copy_context().run
        try:
            return self._threads.submit(run, _made, functools.partial(call, *args, **named))
        except RuntimeError:
            self.check()  # another thread closed it just now
            raise

    async def run(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """What the call returns, or raises, when it was made in one of the threads."""
        return await asyncio.wrap_future(self.submit(call, *args, **named))

    def refuse(self) -> None:
        """Takes no more calls; those that were taken are still made."""
        self.refuses = True
        self._threads.shutdown(wait=False)

    def end(self) -> None:
        """Waits for the calls that were taken, and for the end of the threads."""
        self.refuse()
        self._threads.shutdown()


def _made(call: functools.partial[T]) -> T:
    try:
        return call()
    except StopIteration as error:  # no future takes it, so its task would wait for ever
        raise RuntimeError(f"StopIteration came out of {call.func!r}") from error


async def finished(future: Future[T]) -> T:
    """Awaits a call that is made even if the awaiting task is cancelled before it began."""
    return await asyncio.shield(asyncio.wrap_future(future))


class AsyncCloseable(Protocol):
    """What `async with` can be said of."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


C = TypeVar("C", bound=AsyncCloseable)


class Opening(Generic[C]):
    """Something that is being opened: `await` gives it, `async with` closes it at the end, too.

    Nothing happens before one of the two; each use opens it once more.
    """

    def __init__(self, opened: Callable[[], Coroutine[Any, Any, C]]) -> None:
        self._open = opened
        self._entered: list[C] = []

    def __await__(self) -> Generator[Any, None, C]:
        return self._open().__await__()

    async def __aenter__(self) -> C:
        self._entered.append(await self._open())
        return self._entered[-1]

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._entered.pop().__aexit__(kind, error, trace)
