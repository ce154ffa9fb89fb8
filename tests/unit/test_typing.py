"""Type parameters at run time: they mean nothing and hurt nothing; `make lint` checks the rest."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import pytest

import cesium
import typing_samples as samples


@pytest.fixture
def numbers() -> Iterator[cesium.Store[int, float]]:
    with cesium.open(":memory:", key="i8", value="f8") as store:
        yield store


GENERIC = [
    cesium.Store, cesium.Table, cesium.Range, cesium.Snapshot, cesium.Transaction,
]  # fmt: skip


@pytest.mark.parametrize("kind", GENERIC)
def test_whatever_holds_rows_takes_parameters(kind: Any) -> None:
    alias = kind[int, float]
    assert typing.get_origin(alias) is kind and typing.get_args(alias) == (int, float)
    assert alias.__name__ == kind.__name__


def test_parameters_may_stand_wherever_types_do() -> None:
    def total(store: cesium.Store[str, float]) -> cesium.Range[str, float]:
        return store[:]

    hints = typing.get_type_hints(total)
    assert hints["store"] == cesium.Store[str, float]
    with pytest.raises(TypeError, match="isinstance"):
        isinstance(1, cesium.Store[int, int])  # type: ignore[misc]
    assert samples.Named.__mro__[1] is cesium.Store, "a base with parameters is the plain class"


def test_the_samples_run(numbers: Any) -> None:
    numbers.update({1: 1.0, 2: 2.0})
    samples.writes(numbers)
    samples.reports(numbers)
    numbers.table("names", key="str", value="i8")["a"] = 1
    samples.moments(numbers)


def test_ordered_samples_run() -> None:
    with cesium.open(":memory:", key="str", value="bytes") as store:
        store.update({"a": b"1", "aa": b"2", "b": b"3"})
        samples.order(store)
        samples.plain(store)
    (opened,) = samples.opened()
    assert opened.closed
