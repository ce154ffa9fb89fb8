"""How long work takes: rates of what is repeated, and how long each single call took.

A rate comes from a loop that looks at the clock a few dozen times in all; latencies come from a
loop of their own, since two looks at the clock a call are as long as a fast call.

With a rate that is asked for, calls begin at their times whether or not the ones before are done by
then, as those of real clients would, and a latency counts from when the call should have begun:
that is the correction for coordinated omission, without having to invent calls afterwards.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cesium._histogram import LatencyHistogram

SLICE_MOST = 1 << 14
SPIN_SECONDS = 200e-6  # a sleep may take so much longer than it was asked to

Slices = Callable[[int, int], object]
Single = Callable[[int], object]


class Tape:
    """Prepared calls, numbered; they are done in order and none is done twice.

    slices(first, end) does some of them in a loop, single(number) does one.  With `again`, they
    start over when all are done: reads, which change nothing.  Without, runs leave a tenth of the
    calls to `latencies`.
    """

    def __init__(self, count: int, slices: Slices, single: Single, again: bool = False) -> None:
        self.count, self.slices, self.single, self.again = count, slices, single, again
        self.done = 0

    def _next(self, wanted: int, count: int) -> tuple[int, int]:
        if self.done >= count and self.again:
            self.done = 0
        first, end = self.done, max(min(self.done + wanted, count), self.done)
        self.done = end
        return first, end

    def run(self, seconds: float) -> tuple[int, float]:
        """(calls, seconds) of as many calls as there is time for; at least one slice."""
        calls, size, taken = 0, 1, 0.0
        clock = time.perf_counter
        most = self.count if self.again else self.count - self.count // 10
        while taken < seconds:
            first, end = self._next(size, most)
            if first == end:
                break
            start = clock()
            self.slices(first, end)
            took = clock() - start
            taken += took
            calls += end - first
            # Slices of a hundredth of the time: the end is not missed by more than that.
            if took < seconds / 100:
                size = min(size * 2, SLICE_MOST)
            elif took > seconds / 25:
                size = max(size // 2, 1)
        return calls, taken

    def latencies(self, calls: int, seconds: float, rate: float | None = None) -> LatencyHistogram:
        """How long single calls take: so many, or as many as there is time for.

        rate: calls a second that begin on time, whatever the ones before do.
        """
        clock = time.perf_counter_ns
        found: list[int] = []
        append = found.append
        single = self.single
        begin = clock()
        end = begin + int(seconds * 1e9)
        interval = None if rate is None else 1e9 / rate
        for number in range(calls):
            first, behind = self._next(1, self.count)
            if first == behind:
                break
            if interval is None:
                start = clock()
            else:
                start = begin + int(number * interval)
                wait_until(start)
            single(first)
            now = clock()
            append(now - start)
            if now > end:
                break
        histogram = LatencyHistogram()
        histogram.record_many(np.array(found, np.uint64))
        return histogram


def wait_until(moment: int) -> None:
    """Returns at a time of time.perf_counter_ns, or at once when it has passed."""
    while (left := moment - time.perf_counter_ns()) > 0:
        if left > SPIN_SECONDS * 1e9:
            time.sleep(left / 1e9 - SPIN_SECONDS)


def run_threads(tapes: Sequence[Tape], seconds: float) -> tuple[int, float]:
    """All tapes at once, each in a thread: (calls of all, seconds from the first start to the last
    end).

    The threads do not start and end together: rates of their own, added up, would count the time in
    which one of them had the machine to itself as if all had.
    """
    if len(tapes) == 1:
        return tapes[0].run(seconds)
    found: list[Any] = [None] * len(tapes)
    ready = threading.Barrier(len(tapes))

    def work(number: int) -> None:
        ready.wait()
        try:
            start = time.perf_counter()
            calls, _ = tapes[number].run(seconds)
            found[number] = calls, start, time.perf_counter()
        except BaseException as error:  # told to who started the threads
            found[number] = error

    threads = [threading.Thread(target=work, args=[number]) for number in range(len(tapes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in found:
        if isinstance(outcome, BaseException):
            raise outcome
    calls, starts, ends = zip(*found)
    return sum(calls), max(ends) - min(starts)


def summary(histograms: Sequence[Any]) -> dict[str, float] | None:
    """Percentiles in microseconds of several lists of buckets, merged; None when all are empty."""
    merged = LatencyHistogram()
    for buckets, longest in histograms:
        for value, count in buckets:
            merged.record(min(value, longest), count)
    if merged.count == 0:
        return None
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
    found = {name: merged.quantile(share) / 1e3 for name, share in shares.items()}
    return found | {"max": merged.maximum / 1e3, "count": merged.count}
