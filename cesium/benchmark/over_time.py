"""Curves of throughput while a store grows.

Thread safety: the functions hold no state.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from cesium.benchmark.charts import Curve, linear_axis, logarithmic_axis, plot
from cesium.benchmark.elements import Markup
from cesium.benchmark.texts import count_text
from cesium.figures import seconds_text

WINDOWS = 60  # of a curve
LONGEST = 1.5  # the time that is plotted, over the engines' median time


def rates_of(over_time: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Seconds and rows a second, from seconds and the rows so far.

    The time is cut into windows of equal length, at most one a point.  Each rate stands in the
    middle of its window, the first and the last at the ends of the time, too.
    """
    points = [(0.0, 0.0)]
    for seconds, rows in over_time:
        if seconds > points[-1][0] and rows >= points[-1][1]:
            points.append((seconds, rows))
    windows = min(WINDOWS, len(points) - 1)
    if not windows:
        return []
    edges = np.linspace(0, points[-1][0], windows + 1)
    times, rows_so_far = zip(*points)
    rates = np.diff(np.interp(edges, times, rows_so_far)) / (edges[1] - edges[0])
    middles = (edges[1:] + edges[:-1]) / 2
    at = [0.0, *middles.tolist(), points[-1][0]]
    return list(zip(at, [float(rates[0]), *rates.tolist(), float(rates[-1])]))


def until(points: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """A curve as far as `end`, where it is cut between two points."""
    kept = [point for point in points if point[0] <= end]
    if len(kept) < len(points):
        times, rates = zip(*points)
        kept.append((end, float(np.interp(end, times, rates))))
    return kept


def time_plot(curves: Sequence[Curve]) -> Markup:
    """Curves of rates_of() in one plot."""
    end = LONGEST * statistics.median_low(curve.points[-1][0] for curve in curves)
    end = min(end, max(curve.points[-1][0] for curve in curves))
    curves = [Curve(each.label, until(each.points, end), each.number) for each in curves]
    rates = [rate for curve in curves for _, rate in curve.points if rate > 0]
    up = logarithmic_axis(min(rates, default=1), max(rates, default=1), count_text)
    return plot(curves, linear_axis(end, seconds_text), up, ("time", "rows a second"))
