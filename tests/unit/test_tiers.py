"""The policy of merges: what it chooses, and what its choices cost in the long run."""

from __future__ import annotations

import pytest

from cesium.tiers import (
    BASE_SHARE,
    DEAD_ROWS_LEAST,
    DIRECT_BYTES,
    PACE_LEAST,
    RUNS_DUE,
    RUNS_MOST,
    RUNS_SOON,
    Choice,
    Run,
    choose,
    pace_of,
)

FLUSH = 48 << 20


def runs(*sizes: int) -> list[Run]:
    return [Run(size) for size in sizes]


def test_nothing_is_due_while_sources_are_few() -> None:
    assert choose([], 1 << 30, 10**6) is None
    assert choose(runs(*[FLUSH] * (RUNS_DUE - 1)), FLUSH, 10**6) is None


def test_small_stores_are_merged_into_one_run_at_once() -> None:
    assert choose(runs(*[FLUSH] * RUNS_DUE), FLUSH, 10**6) == Choice(0, RUNS_DUE, True)


def test_runs_of_like_size_are_merged_while_the_last_tier_is_large() -> None:
    base = 100 * FLUSH
    assert choose(runs(*[FLUSH] * RUNS_DUE), base, 10**9) == Choice(0, RUNS_DUE, False)
    old = RUNS_DUE * FLUSH
    assert choose(runs(FLUSH, old, old), base, 10**9) is None
    assert choose(runs(FLUSH, FLUSH, FLUSH, FLUSH, 10 * FLUSH), base, 10**9) == Choice(0, 4, False)


def test_what_has_grown_to_a_share_of_a_large_last_tier_goes_down_as_one_run() -> None:
    base = 4 * DIRECT_BYTES
    large = base // BASE_SHARE
    assert choose(runs(FLUSH, FLUSH, FLUSH, large), base, 10**9) == Choice(3, 4, True)
    spread = runs(*[large // RUNS_DUE + FLUSH] * RUNS_DUE)
    assert choose(spread, base, 10**9) == Choice(0, RUNS_DUE, False)


def test_many_dead_rows_are_merged_away_however_small_the_source() -> None:
    dead = [Run(4096), Run(4096, DEAD_ROWS_LEAST), Run(4096)]
    assert choose(dead, 100 * FLUSH, DEAD_ROWS_LEAST) == Choice(1, 3, True)
    assert choose(dead, 100 * FLUSH, 10**9) is None
    assert choose([Run(4096, DEAD_ROWS_LEAST - 1)], FLUSH, 1) is None


@pytest.mark.parametrize(("flushes", "rewrites_most"), [(8, 2), (100, 8), (400, 9), (2000, 11)])
def test_how_often_a_row_is_written(flushes: int, rewrites_most: float) -> None:
    """Random keys, none written twice; docs/design.md has the same figures from the arithmetic."""
    upper: list[int] = []
    base = written = most = 0
    for _ in range(flushes):
        written += FLUSH
        if not base:
            base = FLUSH
            continue
        upper.insert(0, FLUSH)
        while (choice := choose(runs(*upper), base, 10**12)) is not None:
            size = sum(upper[choice.first : choice.end])
            if choice.into_base:
                written += size + base
                base += size
                del upper[choice.first : choice.end]
            else:
                written += size
                upper[choice.first : choice.end] = [size]
        most = max(most, len(upper))
    assert written <= rewrites_most * flushes * FLUSH
    assert most <= RUNS_MOST


def test_writers_slow_down_in_proportion_and_never_stop() -> None:
    assert pace_of(0, 0, 4) is None and pace_of(RUNS_SOON, 1, 4) is None
    parts = [pace_of(count, 0, 4) for count in range(RUNS_SOON + 1, RUNS_MOST + 10)]
    known = [part for part in parts if part is not None]
    assert len(known) == len(parts) and known == sorted(known, reverse=True)
    assert 0.5 in known and known[-1] == PACE_LEAST > 0
    assert pace_of(0, 4, 4) == PACE_LEAST and (pace_of(0, 2, 4) or 0) > PACE_LEAST
