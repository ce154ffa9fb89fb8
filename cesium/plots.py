"""`store.plot`: pictures of a store, drawn by matplotlib (the extra `plot`).

Each method draws into `ax`, or into a figure of its own, and returns the axes.  Nothing here reads
rows: what is drawn is what fences, records and counters say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cesium.casting import at_least
from cesium.figures import bytes_text, seconds_text
from cesium.showing import shown
from cesium.spread import spread

if TYPE_CHECKING:
    from cesium.store import Store

WIDTH, HEIGHT = 7.5, 3.2  # inches
FAINT = "0.45"  # for notes: readable on light and on dark
LABEL_MOST = 22  # characters of a key on an axis
SAMPLES_MOST = 2000
LOG_FROM = 20
SAMPLED = ("get", "put", "range")
QUANTILES = (("p50", "o"), ("p90", "s"), ("p99", "D"), ("p99_9", "^"), ("max", "x"))
RATES = {  # what is counted once a row, or in bytes
    "puts": ("puts", "batch_puts", "loaded_rows", "deletes", "batch_deletes"),
    "gets": ("gets", "batch_gets"),
}
WRITTEN = ("journal_bytes", "flush_bytes", "merge_bytes", "load_bytes")


def matplotlib_part(name: str) -> Any:
    """A module of matplotlib; ImportError that says how to get it."""
    import importlib

    try:
        return importlib.import_module(f"matplotlib.{name}")
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'cesiumdb[plot]'") from error


def axes_for(ax: Any, height: float = HEIGHT) -> Any:
    """The given axes, or those of a new figure."""
    if ax is not None:
        return ax
    _, made = matplotlib_part("pyplot").subplots(figsize=(WIDTH, height), layout="constrained")
    return made


def quiet_frame(ax: Any) -> None:
    """Without the two lines that say nothing."""
    ax.spines[["top", "right"]].set_visible(False)


def note(ax: Any, text: str) -> Any:
    """What there is to say instead of a picture."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=FAINT)
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


class Plots:
    """The pictures of a store: `store.plot.keys()` and so on; ImportError without matplotlib."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def keys(self, ax: Any = None, bins: int = 100) -> Any:
        """How the keys are spread: entries in each of `bins` steps from the first key to the last.

        From the fences, without a scan: to a page of each run, and with rows that newer sources
        hide.  Numbers and times have their own axis (NaN, NaT and infinities are left out), other
        keys one of their order, with some keys named.
        """
        bins = at_least("the number of bins", bins, 1)
        ax = axes_for(ax)
        self._store._check_open()
        found = spread(self._store, bins)
        ax.set_title(f"Keys of {name_of(self._store)}")
        if found is None:
            return note(ax, "no keys")
        edges = found.edges
        if edges.dtype.kind == "M":
            dates = matplotlib_part("dates")
            edges = dates.date2num(edges)
            ax.xaxis_date()
            locator = dates.AutoDateLocator(minticks=3, maxticks=8)
            ax.xaxis.set_major_locator(locator)
            ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
        elif edges.dtype.kind == "m":
            unit = np.datetime_data(edges.dtype)[0]
            edges = edges.astype("i8")
            ax.set_xlabel(f"key ({unit})")
        ax.stairs(found.counts, edges, fill=True)
        quiet_frame(ax)
        ax.set_ylabel(f"entries in each of {len(found.counts)} steps")
        ax.yaxis.set_major_formatter(thousands())
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.set_ylim(bottom=0)
        ax.margins(x=0.01)
        if found.labels is not None:
            ax.set_xticks(
                [position for position, _ in found.labels],
                [shown(key, LABEL_MOST) for _, key in found.labels],
            )
            ends = ax.get_xticklabels()
            ends[0].set_ha("left")
            ends[-1].set_ha("right")
        elif not ax.get_xlabel():
            ax.set_xlabel("key")
        return ax

    def tiers(self, ax: Any = None) -> Any:
        """What the store is made of: bytes of each tier, one piece for each run, newest on top."""
        store = self._store
        store._check_open()
        lines = [
            (f"tier {tier}", runs)
            for tier, runs in runs_by_tier(store._view().version.sources).items()
        ]
        live = store.core.live_counters()
        if live["entries"]:
            lines.insert(0, ("in memory", [(live["bytes"], 0, live["entries"])]))
        ax = axes_for(ax, 1.1 + 0.55 * max(len(lines), 2))
        ax.set_title(f"Tiers of {name_of(store)}")
        if not lines:
            return note(ax, "no rows")
        largest = max(sum(size for size, _, _ in runs) for _, runs in lines)
        for place, (_, runs) in enumerate(lines):
            start = 0
            for size, _, _ in runs:
                ax.barh(place, size, left=start, height=0.6, color="C0", edgecolor="white", lw=0.8)
                start += size
            ax.text(start + largest * 0.01, place, tier_text(runs), va="center", color=FAINT)
        ax.set_yticks(range(len(lines)), [label for label, _ in lines])
        ax.set_ylim(len(lines) - 0.4, -0.6)
        ax.set_xlim(0, largest * 1.6)
        byte_ticks(ax.xaxis, largest * 1.6)
        quiet_frame(ax)
        return ax

    def latency(self, ax: Any = None) -> Any:
        """How long calls took since the store was opened: median to slowest, of each kind."""
        found = {
            name: latency for name, latency in self._store.stats().latency.items() if latency.calls
        }
        ax = axes_for(ax, 1.4 + 0.5 * max(len(found), 2))
        ax.set_title(f"Latencies of {name_of(self._store)}")
        if not found:
            return note(ax, "no calls yet")
        for place, latency in enumerate(found.values()):
            times = [getattr(latency, part) for part, _ in QUANTILES]
            ax.plot([times[0], times[-1]], [place, place], color=FAINT, lw=1, zorder=1)
            for number, (seconds, (_, marker)) in enumerate(zip(times, QUANTILES)):
                ax.plot(seconds, place, marker, color=f"C{number}", ms=6, zorder=2)
        for number, (part, marker) in enumerate(QUANTILES):
            ax.plot([], [], marker, color=f"C{number}", ms=6, label=part.replace("_", "."))
        ax.set_xscale("log")
        seconds_formatter = matplotlib_part("ticker").FuncFormatter(lambda x, _: seconds_text(x))
        ax.xaxis.set_major_formatter(seconds_formatter)
        ax.xaxis.set_minor_formatter(matplotlib_part("ticker").NullFormatter())
        labels = [f"{name}\n{calls_text(name, latency.calls)}" for name, latency in found.items()]
        ax.set_yticks(range(len(found)), labels)
        ax.set_ylim(len(found) - 0.5, -0.5)
        ax.grid(axis="x", alpha=0.3)
        ax.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)
        quiet_frame(ax)
        return ax

    def throughput(
        self, work: Callable[[], object] | None = None, seconds: float = 10.0, ax: Any = None
    ) -> Any:
        """Rows put and got a second, and bytes written, while `work` is done.

        work: a function, called once in this thread while another looks at the counters; what it
        raises is raised here.  None: looks at what others do for so many seconds.  Gets, puts and
        deletes of all threads count, and what maintenance writes.
        """
        ax = axes_for(ax)
        self._store._check_open()
        samples = watched(self._store, work, seconds)
        times = np.array([moment for moment, _ in samples])
        spans = np.diff(times)
        middle = (times[1:] + times[:-1]) / 2 - times[0]
        drawn: list[Any] = []
        rates: list[Any] = []
        for name, counters in RATES.items():
            counts = np.diff([sum(found[c] for c in counters) for _, found in samples])
            if counts.any():
                rates.append(counts / spans)
                drawn += ax.plot(middle, rates[-1], label=f"{name} a second", lw=1.4)
        written = np.diff([sum(found[name] for name in WRITTEN) for _, found in samples])
        ax.set_title(f"Throughput of {name_of(self._store)}")
        ax.set_xlabel("seconds")
        ax.set_ylabel("rows a second")
        ax.yaxis.set_major_formatter(thousands())
        some = np.concatenate([rate[rate > 0] for rate in rates]) if rates else np.zeros(0)
        if len(some) and some.max() > LOG_FROM * np.median(some):  # a load beside single puts
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0)
        quiet_frame(ax)
        if written.any():
            right = ax.twinx()
            drawn.append(
                right.fill_between(
                    middle, written / spans, color=FAINT, alpha=0.25, lw=0, label="written a second"
                )
            )
            right.set_ylim(bottom=0)
            byte_ticks(right.yaxis, float((written / spans).max()))
            right.spines["top"].set_visible(False)
            ax.set_zorder(right.get_zorder() + 1)
            ax.patch.set_visible(False)
        if drawn:
            ax.legend(handles=drawn, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.08),
                      frameon=False)  # fmt: skip
        else:
            ax.text(0.5, 0.5, "nothing was read or written", ha="center", color=FAINT,
                    transform=ax.transAxes)  # fmt: skip
        return ax

    def __repr__(self) -> str:
        return f"<plots of {self._store._title()}: keys, tiers, latency, throughput>"


def name_of(store: Store) -> str:
    """The last part of the path."""
    return shown(store.path.rstrip("/").rpartition("/")[2]).strip("'")


def thousands() -> Any:
    """Numbers on an axis as 1,000."""
    return matplotlib_part("ticker").FuncFormatter(lambda value, _: f"{value:,.10g}")


def byte_ticks(axis: Any, largest: float) -> None:
    """Ticks at round numbers of binary units."""
    step = 1.0
    while step * 1024 <= largest:
        step *= 1024
    while largest / step < 2 and step > 1:
        step /= 2
    while largest / step > 4:
        step *= 2
    ticker = matplotlib_part("ticker")
    axis.set_major_locator(ticker.MultipleLocator(step))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: short_bytes(value)))


def short_bytes(value: float) -> str:
    """A round number of bytes."""
    return bytes_text(int(value)).replace(".0 ", " ")


def runs_by_tier(sources: list[Any]) -> dict[int, list[tuple[int, int, int]]]:
    """(bytes, segments, entries) of each run, by tier, newest first."""
    tiers: dict[int, list[tuple[int, int, int]]] = {}
    for source in sources:
        if isinstance(source, list) and source:
            records = [reader.record for reader in source]
            run = (
                sum(record.bytes for record in records), len(records),
                sum(record.rows for record in records),
            )  # fmt: skip
            tiers.setdefault(records[0].tier, []).append(run)
    return dict(sorted(tiers.items()))


def tier_text(runs: list[tuple[int, int, int]]) -> str:
    """What a tier is, beside its bar."""
    size, segments, entries = (sum(numbers) for numbers in zip(*runs))
    text = f"{bytes_text(size)}, {entries:,} entries"
    if not segments:
        return text
    return f"{text}\n{counted(len(runs), 'run')}, {counted(segments, 'segment')}"


def calls_text(name: str, calls: int) -> str:
    """How many calls the times stand for; of short ones but some are timed."""
    return f"about {calls:,} calls" if name in SAMPLED else counted(calls, "call")


def counted(number: int, what: str) -> str:
    """A number of things in words."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def watched(
    store: Store, work: Callable[[], object] | None, seconds: float
) -> list[tuple[float, dict[str, int]]]:
    """(moment, counters), in order, two at least, while the work is done."""
    counters = store._engine.core_engine.counters
    samples = [(time.monotonic(), counters.counts())]
    ended = threading.Event()

    def look() -> None:
        pause = 0.01
        while not ended.wait(pause):
            samples.append((time.monotonic(), counters.counts()))
            if len(samples) >= SAMPLES_MOST:  # every other one is enough from now on
                del samples[1::2]
                pause *= 2

    thread = threading.Thread(target=look, name="cesium-plot", daemon=True)
    thread.start()
    try:
        if work is None:
            time.sleep(seconds)
        else:
            work()
    finally:
        ended.set()
        thread.join()
    samples.append((time.monotonic(), counters.counts()))
    return binned(samples)


def binned(samples: list[tuple[float, dict[str, int]]]) -> list[tuple[float, dict[str, int]]]:
    """At most 100 of the samples, about as far apart from one another."""
    start, end = samples[0][0], samples[-1][0]
    kept = [samples[0]]
    for sample in samples[1:-1]:
        if sample[0] - kept[-1][0] >= (end - start) / 100:
            kept.append(sample)
    return [*kept, samples[-1]]
