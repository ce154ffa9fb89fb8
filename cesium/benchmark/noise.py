"""The ratio of two figures that were measured a few times each, and what can be said of it.

The ratio is of the medians; around it lies a 95 % confidence interval, as Kalibera and Jones ask
for ("Quantifying Performance Changes with Effect Size Confidence Intervals", University of Kent,
2012: say how large a change is and how sure, not whether it is "significant").  It is Welch's,
on logarithms: their difference is the ratio, slow moments make rates skew in just that way, and
the two sides may spread differently.  A median of a few runs is up to sqrt(pi / 2) less certain
than a mean, which widens the interval.  The bootstrap, which needs no such model, is of no use with
so few runs, as it can draw nothing beyond them: where nothing had changed, its 95 % interval of the
medians' ratio missed 1 in 10 of 100 trials with three runs a side and in 33 with two, this one in
at most 2, and in at most 4 with up to twenty runs (normal and exponential noise of 1 to 30 %).

What the runs of one session have in common (where files lie on the drive, what the host does
beside it, the layout of the process's memory) is not in their spread.  So a ratio within SAME of 1
is called the same however little the runs spread, and reports of two sessions are better compared
by their rows beside the same peers than by their figures alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SAME = 1.03
SURE = 1.1  # an interval around 1 that is wider tells nothing

LOG_MAX = 700.0  # the exponential of more is no number

# Student's t, two-sided 95 %, by degrees of freedom from 1; from 31 on a little too wide.
STUDENT_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio with its interval, which is None when either side has fewer than two runs.

    Above 1 is better, whichever way the figures count.
    """

    value: float
    interval: tuple[float, float] | None

    @property
    def verdict(self) -> str:
        """What can be said: "better", "worse", "same", "unclear", "unknown".

        "same": the interval lies around 1 and is narrow.  "unclear": it is wide, so the runs do not
        tell.  "unknown": too few runs for an interval.
        """
        if self.interval is None:
            return "unknown"
        low, high = self.interval
        if low > 1 and self.value > SAME:
            return "better"
        if high < 1 and self.value < 1 / SAME:
            return "worse"
        return "same" if low > 1 / SURE and high < SURE else "unclear"


def ratio(runs: Sequence[float], base: Sequence[float], lower_is_better: bool) -> Ratio | None:
    """How much better `runs` are than `base`; None where a figure is 0 or there is none."""
    if not runs or not base or min(*runs, *base) <= 0:
        return None
    sign = -1 if lower_is_better else 1
    logs, base_logs = ([sign * math.log(figure) for figure in side] for side in (runs, base))
    middle = sign * math.log(statistics.median(runs)) - sign * math.log(statistics.median(base))
    middle = min(max(middle, -LOG_MAX), LOG_MAX)
    error = standard_error(logs, base_logs)
    if error is None:
        return Ratio(math.exp(middle), None)
    ends = (min(max(middle + part, -LOG_MAX), LOG_MAX) for part in (-error, error))
    low, high = map(math.exp, ends)
    return Ratio(math.exp(middle), (low, high))


def standard_error(logs: Sequence[float], base_logs: Sequence[float]) -> float | None:
    """Half the width of the interval, on logarithms; None with fewer than two runs on a side."""
    if len(logs) < 2 or len(base_logs) < 2:
        return None
    parts = [statistics.variance(side) / len(side) for side in (logs, base_logs)]
    if sum(parts) == 0:
        return 0.0
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, (logs, base_logs))
    )
    t = STUDENT_T[min(max(int(freedom), 1), len(STUDENT_T)) - 1]
    return t * math.sqrt(math.pi / 2 * sum(parts))
