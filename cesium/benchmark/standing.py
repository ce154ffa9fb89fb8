"""How one engine stands beside the others of a report, work by work.

Thread safety: the functions hold no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cesium.benchmark.noise import Ratio, ratio
from cesium.benchmark.reading import Report, Result, Work

OWN = "cesium"


@dataclass(frozen=True, slots=True)
class Standing:
    """The engine beside its best peer at one work.

    best: None where no peer did this work.  ratio: None where there is none, or cesium failed.
    """

    work: Work
    own: Result
    best: Result | None
    ratio: Ratio | None

    @property
    def verdict(self) -> str:
        """That of the ratio; "failed" and "alone" where there is none."""
        if self.own.error:
            return "failed"
        return "alone" if self.best is None or self.ratio is None else self.ratio.verdict


def by_work(results: Iterable[Result]) -> dict[Work, list[Result]]:
    """The results of each work, in the order of the report."""
    works: dict[Work, list[Result]] = {}
    for result in results:
        works.setdefault(result.work, []).append(result)
    return works


def ranked(results: Iterable[Result]) -> list[Result]:
    """Best first; those that failed come last."""

    def rank(result: Result) -> tuple[bool, float]:
        figure = result.median or 0.0
        return result.median is None, figure if result.lower_is_better else -figure

    return sorted(results, key=rank)


def standings(report: Report) -> list[Standing]:
    """Where the report's own engine stands at each work that it took part in.

    Bounds, which are no engines with keyed and durable writes, do not count as peers.
    """
    bounds = {name for name, engine in report.engines.items() if engine.bound}
    found = []
    for work, results in by_work(report.results).items():
        for own in (result for result in results if result.engine == OWN):
            peers = [
                result
                for result in ranked(results)
                if result is not own
                and result.engine not in bounds
                and result.unit == own.unit
                and not result.error
            ]
            best = peers[0] if peers else None
            measured = best is not None and not own.error
            found.append(Standing(work, own, best, _ratio(own, best) if measured else None))
    return found


def _ratio(own: Result, best: Result | None) -> Ratio | None:
    return None if best is None else ratio(own.runs, best.runs, own.lower_is_better)


def counts(found: Iterable[Standing]) -> Mapping[str, int]:
    """How often each verdict was reached."""
    verdicts = [each.verdict for each in found]
    return {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
