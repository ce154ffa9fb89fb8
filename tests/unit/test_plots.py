"""The pictures of a store: what they show is what is there."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

import cesium
from cesium.plots import watched
from cesium.spread import spread

matplotlib.use("Agg")
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    yield
    pyplot.close("all")


def keys_of(kind: str, count: int) -> Any:
    numbers = np.random.default_rng(0).permutation(count)
    if kind == "uuid":
        return [uuid.UUID(int=int(number) << 90) for number in numbers]
    if kind in ("str", "bytes"):
        texts = [f"row {number:07d}" for number in numbers]
        return texts if kind == "str" else [text.encode() for text in texts]
    return numbers.astype(kind)


@pytest.mark.parametrize(
    "kind", ["u8", "i2", "f4", "datetime64[D]", "timedelta64[s]", "str", "bytes", "uuid", "S7"]
)
@pytest.mark.parametrize("load", [True, False])
def test_keys_that_are_spread_evenly_look_so(kind: str, load: bool) -> None:
    count = 20_000
    keys = keys_of(kind, count) if kind != "S7" else np.array(keys_of("str", count), "S11")
    with cesium.open(":memory:", key="S11" if kind == "S7" else kind, value="u1") as store:
        (store.bulk_load if load else store.put_many)(keys, np.zeros(count, "u1"))
        found = spread(store, 10)
        assert found is not None and len(found.counts) == 10
        assert found.counts.sum() == count
        assert found.counts.min() > count / 20 and found.counts.max() < count / 5
        ax = store.plot.keys(bins=10)
        (drawn,) = ax.patches
        assert drawn.get_data().values.tolist() == found.counts.tolist()
        if found.labels is not None:
            names = [label.get_text() for label in ax.get_xticklabels()]
            assert [key for _, key in found.labels][0] == store.first()[0] and len(names) == 3
            assert found.labels[-1] == (10, store.last()[0])
        if load:
            ax.figure.canvas.draw()


def test_infinities_nan_and_nat_are_left_out() -> None:
    with cesium.open(":memory:", key="f8", value="u1") as store:
        store.put_many([1.0, 2.0, 3.0, np.inf, -np.inf, np.nan], [0] * 6)
        found = spread(store, 4)
        assert found is not None and found.counts.sum() == 3
        assert (found.edges[0], found.edges[-1]) == (1.0, 3.0)
    with cesium.open(":memory:", key="datetime64[s]", value="u1") as store:
        store.put_many(np.array([5, 9], "M8[s]"), [0, 0])
        store[np.datetime64("NaT")] = 0
        found = spread(store, 4)
        assert found is not None and found.counts.tolist() == [1, 0, 0, 1]
    with cesium.open(":memory:", key="f4", value="u1") as store:
        store[np.nan] = 0
        found = spread(store, 4)
        assert found is not None and found.counts.sum() == 1, "as bytes, when there is nothing else"


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("u8", [7]), ("u8", [0, 2**64 - 1]), ("i8", [-(2**63), 2**63 - 1]), ("bool", [False, True]),
        ("str", [""]), ("str", ["a", "a\0"]), ("f8", [1.0]), ("f8", [1.0, np.nextafter(1.0, 2)]),
        ("datetime64[ns]", [np.datetime64(1, "ns")]), (("str", "-i4"), [("a", 2), ("a", 1)]),
        ("f8", [-1.7e308, 1.7e308]),
    ],
)  # fmt: skip
def test_corners_of_the_key_types(kind: Any, keys: list[Any]) -> None:
    with cesium.open(":memory:", key=kind, value="u1") as store:
        store.update(dict.fromkeys(keys, 0))
        found = spread(store, 100)
        assert found is not None and found.counts.sum() == len(keys) and found.counts.min() >= 0
        assert len(found.edges) == len(found.counts) + 1
        if keys[-1] != 1.7e308:  # an axis that matplotlib cannot draw
            store.plot.keys().figure.canvas.draw()


def test_no_scan_for_the_keys(tmp_path: Path) -> None:
    """Of a segment with many pages the fences alone are read, and the pages at its ends."""
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        store.bulk_load(np.arange(300_000), np.arange(300_000), threads=1)
    (segment,) = tmp_path.glob("s/segment-*")
    data = bytearray(segment.read_bytes())
    pages = 300_000 // 252
    for page in range(pages // 4, pages // 2):
        data[page * 4096 + 2000] ^= 1
    segment.write_bytes(data)
    with cesium.open(tmp_path / "s") as store:
        found = spread(store, 50)
        assert found is not None and found.counts.sum() == 300_000
        with pytest.raises(cesium.CorruptionError):
            store.items().arrays()


def test_tiers_have_a_piece_for_each_run(tmp_path: Path) -> None:
    # Else the flusher, which loads wake, may write the one row out before it is looked for.
    options = cesium.Options(key="u8", value="u8", background=False)
    with cesium.open(tmp_path / "s", options=options) as store:
        assert "no rows" in [text.get_text() for text in store.plot.tiers().texts]
        for first in range(3):
            numbers = np.arange(first, 30_000, 3)
            store.bulk_load(numbers, numbers)
        store[1] = 1
        ax = store.plot.tiers()
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert names == ["in memory", "tier 0", "tier 1"]
        assert len(ax.patches) == 1 + 2 + 1
        tiers = {tier.tier: tier for tier in store.stats().tiers}
        assert ax.patches[-1].get_width() == tiers[1].bytes
        assert "2 runs, 2 segments" in ax.texts[1].get_text()
        ax.figure.canvas.draw()


def test_latencies_of_what_was_called() -> None:
    with cesium.open(":memory:", key="u8", value="u8") as store:
        assert "no calls yet" in [text.get_text() for text in store.plot.latency().texts]
        for number in range(1000):
            store[number] = number
        calls = store.stats().latency["put"].calls
        ax = store.plot.latency()
        assert [label.get_text() for label in ax.get_yticklabels()] == [
            f"put\nabout {calls:,} calls"
        ]
        ax.figure.canvas.draw()


def test_throughput_adds_up_to_the_work_done() -> None:
    with cesium.open(":memory:", key="u8", value="u8") as store:

        def work() -> None:
            for number in range(20_000):
                store[number] = number
            store.get_many(np.arange(5000))

        samples = watched(store, work, 0)
        first, last = samples[0][1], samples[-1][1]
        assert last["puts"] - first["puts"] == 20_000
        assert last["batch_gets"] - first["batch_gets"] == 5000
        ax = store.plot.throughput(work)
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert {"puts a second", "gets a second"} <= set(labels)
        ax.figure.canvas.draw()
        idle = store.plot.throughput(seconds=0.01)
        assert "nothing was read or written" in [text.get_text() for text in idle.texts]
        with pytest.raises(ZeroDivisionError):
            store.plot.throughput(lambda: 1 // 0)


def test_pictures_go_into_given_axes_and_need_an_open_store() -> None:
    _, places = pyplot.subplots(2, 2)
    store = cesium.open(":memory:", key="u8", value="u8")
    store[1] = 1
    plots = store.plot
    assert plots.keys(ax=places[0, 0]) is places[0, 0]
    assert plots.tiers(ax=places[0, 1]) is places[0, 1]
    assert plots.latency(ax=places[1, 0]) is places[1, 0]
    assert plots.throughput(lambda: None, ax=places[1, 1]) is places[1, 1]
    assert "keys, tiers, latency, throughput" in repr(plots)
    with pytest.raises(ValueError, match="at least 1"):
        plots.keys(bins=0)
    store.close()
    for call in (plots.keys, plots.tiers, plots.latency, plots.throughput):
        with pytest.raises(cesium.ClosedError):
            call()


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # type: ignore[arg-type]
    with cesium.open(":memory:", key="u8", value="u8") as store:
        with pytest.raises(ImportError, match=r"pip install 'cesiumdb\[plot\]'"):
            store.plot.keys()
