"""What range-deletes hide, as far as fences tell, against counting."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium import merging
from cesium._segment_view import SegmentView
from cesium.hidden import hidden_rows

ROWS = 60_000


def fixed(number: int) -> Any:
    return number


def text(number: int) -> Any:
    return f"key-{number:08d}"


def loaded(path: Path, spec: str, key: Any) -> cesium.Store:
    options = cesium.Options(spec, "u8", durability="process", background=False)
    store = cesium.open(path, options=options)
    numbers = range(0, 2 * ROWS, 2)
    keys: Any = np.arange(0, 2 * ROWS, 2, dtype="u8") if spec == "u8" else list(map(key, numbers))
    store.bulk_load(keys, np.zeros(ROWS, "u8"), threads=1)
    assert len(store._table.split_sources()[1]) == 1, "one segment"
    return store


@pytest.mark.parametrize(("spec", "key"), [("u8", fixed), ("str", text)], ids=["u8", "str"])
def test_it_is_what_counting_says_but_for_pages_covered_in_part(
    tmp_path: Path, spec: str, key: Any
) -> None:
    for seed in range(6):
        chance = random.Random(seed)
        with loaded(tmp_path / str(seed), spec, key) as store:
            _, (segment,) = store._table.split_sources()
            last = 2 * ROWS if spec == "u8" else key(2 * ROWS).encode()
            per_page = ROWS / (SegmentView(segment).route(last) + 1)
            ends = sorted(chance.sample(range(-1, 2 * ROWS + 9), 2 * chance.randrange(1, 8)))
            deleted = list(zip(ends[::2], ends[1::2], strict=True))
            for low, high in deleted:
                store.delete_range(
                    None if low < 0 else key(low), None if high > 2 * ROWS else key(high)
                )
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(merging, "choose", lambda *arguments: None)
                store.checkpoint()
            (upper,), base = store._table.split_sources()
            expected = ROWS - len(store)
            found = hidden_rows(upper[0], [base])
            assert expected - 2.1 * per_page * len(deleted) <= found <= expected + per_page


def test_stretches_that_touch_are_one_before_they_come_here(tmp_path: Path) -> None:
    with loaded(tmp_path / "s", "u8", fixed) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "choose", lambda *arguments: None)
        store.delete_range(0, ROWS)
        store.delete_range(ROWS, 2 * ROWS)
        store.checkpoint()
        (upper,), base = store._table.split_sources()
        assert SegmentView(upper[0]).markers() == [(0, 2 * ROWS)]
        assert hidden_rows(upper[0], [base]) == ROWS


def test_a_range_within_one_segment_gives_its_space_back(tmp_path: Path) -> None:
    with loaded(tmp_path / "s", "u8", fixed) as store:
        before = store.stats().segment_bytes
        store.delete_range(ROWS // 10, 2 * ROWS)
        assert merging.due(store._engine) is None
        store.checkpoint()
        assert store.stats().newer_sources == 0
        assert store.stats().segment_bytes < before / 10
        assert len(store) == ROWS // 20
