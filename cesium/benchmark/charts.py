"""Plots of a report as HTML and SVG without scripts.

Bars are HTML, so that they wrap and stay readable on a phone.  Curves are SVG stretched over their
box with strokes that keep their width, and the texts around them are HTML, for the same reason.
Colours are CSS variables --engine-0 to --engine-7, which a page sets for light and for dark; lines
differ by their dashes, too.

Thread safety: the functions hold no state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cesium.benchmark.elements import Markup, element, joined, percent

COLOURS = 8
DASHES = ("", "7 3", "2 3", "9 3 2 3")
DOTTED_MAX = 12  # points of a curve that has a dot on each
DECADES_FOR_TICKS = 1.5  # a narrower logarithmic axis gets ticks at 1, 2 and 5


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.  length, low, high: fractions of the widest; length None: there is only a text.

    colour: a number.  mark: where a second figure lies.  whole: where a limit lies.  kind: a class
    of its own for CSS.
    """

    label: str
    text: str
    length: float | None = None
    low: float | None = None
    high: float | None = None
    colour: int = 0
    mark: float | None = None
    whole: float | None = None
    kind: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot: its points, which are joined in their order."""

    label: str
    points: Sequence[tuple[float, float]]
    number: int


@dataclass(frozen=True, slots=True)
class Axis:
    """From where to where an axis goes, and where it has ticks."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one."""
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(value) - low) / (high - low) if value > self.low else 0.0
        return (value - self.low) / (self.high - self.low)


def colour(number: int) -> str:
    return f"var(--engine-{number % COLOURS})"


def bars(rows: Sequence[Bar]) -> Markup:
    """Bars below each other: label, bar, text."""
    return element("div", *(_bar(row) for row in rows), class_="bars", role="list")


def _bar(row: Bar) -> Markup:
    parts = []
    if row.length is not None:
        style = f"width:{percent(min(row.length, 1))};--colour:{colour(row.colour)}"
        parts.append(element("span", class_="bar", style=style))
        if row.low is not None and row.high is not None and row.high > row.low:
            left, right = (min(end, 1.0) for end in (row.low, row.high))
            style = f"left:{percent(left)};width:{percent(right - left)}"
            parts.append(element("span", class_="spread", style=style))
        for kind, place in (("whole", row.whole), ("mark", row.mark)):
            if place is not None:
                parts.append(element("span", class_=kind, style=f"left:{percent(min(place, 1))}"))
    return element(
        "div",
        element("span", row.label, class_="label"),
        element("span", *parts, class_="track") if row.length is not None else Markup(),
        element("span", row.text, class_="figure"),
        class_=f"row {row.kind}" + ("" if row.length is not None else " wordy"),
        title=row.title,
        role="listitem",
    )


def linear_axis(high: float, text: Callable[[float], str]) -> Axis:
    """From 0 to a round number that is not below `high`, with three to six ticks."""
    high = high if high > 0 else 1.0
    step = 10 ** math.floor(math.log10(high))
    step = next(size for size in (step / 5, step / 2, step, step * 2) if high / size <= 5)
    count = math.ceil(high / step - 1e-9)
    return Axis(0, count * step, tuple((n * step, text(n * step)) for n in range(count + 1)))


def logarithmic_axis(
    low: float, high: float, text: Callable[[float], str], factors: Sequence[int] = ()
) -> Axis:
    """Around two positive numbers, with ticks at powers of ten, or at some factors of them.

    Without factors a short axis gets 1, 2 and 5.
    """
    wide = math.log10(high) - math.log10(low) > DECADES_FOR_TICKS
    factors = factors or ((1,) if wide else (1, 2, 5))
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    places = [factor * 10.0**power for power in range(first - 1, last + 2) for factor in factors]
    start = max(place for place in places if place <= low)
    end = min(place for place in places if place >= high and place > start)
    ticks = tuple((place, text(place)) for place in places if start <= place <= end)
    return Axis(start, end, ticks, logarithmic=True)


def plot(curves: Sequence[Curve], across: Axis, up: Axis, names: tuple[str, str]) -> Markup:
    """Curves over two axes, whose names are given, and a legend."""
    grid = [_line(0, 1 - up.place(value), 1, 1 - up.place(value), "grid") for value, _ in up.ticks]
    lines = [_curve(curve, across, up) for curve in curves]
    drawing = element(
        "svg", *grid, *lines, viewBox="0 0 100 100", preserveAspectRatio="none",
        role="img", aria_label=f"{names[1]} by {names[0]}",
    )  # fmt: skip
    left = [
        element("span", text, style=f"bottom:{percent(up.place(value))}")
        for value, text in up.ticks
    ]
    below = [
        element("span", text, style=f"left:{percent(across.place(value))}")
        for value, text in across.ticks
    ]
    return element(
        "div",
        element("div", names[1], class_="axis-name"),
        element("div", *left, class_="up"),
        element("div", drawing, class_="canvas"),
        element("div", *below, class_="across"),
        element("div", names[0], class_="axis-name below"),
        element("div", *(_key(curve) for curve in curves), class_="legend"),
        class_="plot",
    )


def _stroke(number: int) -> dict[str, str]:
    """A colour, and a dash for those whose colour is another's."""
    return {
        "stroke": colour(number),
        "stroke_dasharray": DASHES[(number // 2) % len(DASHES)],
    }


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    ends = {
        name: round(at * 100, 2) for name, at in zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2))
    }
    return element("line", class_=kind, vector_effect="non-scaling-stroke", **ends)


def _curve(curve: Curve, across: Axis, up: Axis) -> Markup:
    places = [(across.place(x) * 100, 100 - up.place(y) * 100) for x, y in curve.points]
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in places)
    line = element(
        "polyline", points=path, class_="curve", vector_effect="non-scaling-stroke",
        **_stroke(curve.number),
    )  # fmt: skip
    if len(places) > DOTTED_MAX:
        return line
    # A dot is a line of no length with round ends: it stays round however the drawing is stretched.
    dots = (
        element(
            "path", d=f"M{x:.2f} {y:.2f}h0", class_="dot", vector_effect="non-scaling-stroke",
            stroke=colour(curve.number),
        )
        for x, y in places
    )  # fmt: skip
    return joined(line, *dots)


def _key(curve: Curve) -> Markup:
    line = element("line", class_="curve", x1="0", y1="5", x2="26", y2="5", **_stroke(curve.number))
    return element("span", element("svg", line, viewBox="0 0 26 10", class_="key"), curve.label)
