"""Bounds of time keys: ISO text, dates, datetimes, and times between two keys."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas
import pytest

import cesium
from cesium.errors import SchemaError
from cesium.time_bounds import time_of_text

START = np.datetime64("2013-06-29", "s")
HOURS = START + np.arange(40 * 24) * np.timedelta64(1, "h")
EAST = datetime.timezone(datetime.timedelta(hours=2))


@pytest.fixture(scope="module")
def store() -> Any:
    made = cesium.open(":memory:", key="datetime64[s]", value="i8")
    made.bulk_load(HOURS, np.arange(len(HOURS)))
    return made


def expected(lower: Any, upper: Any, inclusive: tuple[bool, bool] = (True, False)) -> Any:
    chosen = np.full(len(HOURS), True)
    if lower is not None:
        chosen &= HOURS >= lower if inclusive[0] else HOURS > lower
    if upper is not None:
        chosen &= HOURS <= upper if inclusive[1] else HOURS < upper
    return HOURS[chosen]


BOUNDS = [
    (None, None),
    ("2013-07-01", np.datetime64("2013-07-01")),
    ("2013-07", np.datetime64("2013-07-01")),
    ("2013", np.datetime64("2013-01-01")),
    ("2013-07-01T10", np.datetime64("2013-07-01T10")),
    ("2013-07-01 10:30", np.datetime64("2013-07-01T10:30")),
    ("2013-07-01T10:00:00.000000001", np.datetime64("2013-07-01T10:00:00.000000001")),
    ("2013-07-01T09:59:59.999Z", np.datetime64("2013-07-01T09:59:59.999")),
    ("2013-07-01T12:00+02:00", np.datetime64("2013-07-01T10:00")),
    ("2013-07-01T04:30-0530", np.datetime64("2013-07-01T10:00")),
    (datetime.date(2013, 7, 5), np.datetime64("2013-07-05")),
    (datetime.datetime(2013, 7, 5, 7, 0, 0, 1), np.datetime64("2013-07-05T07:00:00.000001")),
    (
        datetime.datetime(2013, 7, 5, 9, 0, 0, 1, tzinfo=EAST),
        np.datetime64("2013-07-05T07:00:00.000001"),
    ),
    (pandas.Timestamp("2013-07-06 00:00", tz="Europe/Berlin"), np.datetime64("2013-07-05T22:00")),
    (
        pandas.Timestamp("2013-07-06 00:00:00.000000001"),
        np.datetime64("2013-07-06T00:00:00.000000001"),
    ),
    (np.datetime64("2013-07-07T01:00:00.5"), np.datetime64("2013-07-07T01:00:00.5")),
    ("0001", np.datetime64("0001-01-01")),
    ("9999-12-31", np.datetime64("9999-12-31")),
]


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
def test_any_form_of_a_time_is_a_bound(store: Any, bound: Any) -> None:
    given, time = bound
    for inclusive in ((True, False), (False, True), (True, True), (False, False)):
        found = store.range(given, None, inclusive=inclusive).keys().arrays()
        assert found.tolist() == expected(time, None, inclusive).tolist()
        found = store.range(None, given, inclusive=inclusive).keys().arrays()
        assert found.tolist() == expected(None, time, inclusive).tolist()
        for other, instant in BOUNDS:
            found = store.range(given, other, inclusive=inclusive).keys().arrays()
            assert found.tolist() == expected(time, instant, inclusive).tolist()


def test_slices_neighbours_and_deletes() -> None:
    store = cesium.open(":memory:", key="datetime64[s]", value="i8")
    store.bulk_load(HOURS, np.arange(len(HOURS)))
    assert len(store["2013-07-01":"2013-08-01"]) == 31 * 24
    assert store.floor("2013-07-01T10:30")[0] == np.datetime64("2013-07-01T10:00:00")
    assert store.lower("2013-07-01")[0] == np.datetime64("2013-06-30T23:00:00")
    assert store.ceiling("2013-07-01T10:00:00.5")[0] == np.datetime64("2013-07-01T11:00:00")
    assert store.higher("2013-07-01T10")[0] == np.datetime64("2013-07-01T11:00:00")
    assert store.floor("2013-06-28T23:59:59.5") is None
    with store.snapshot() as snapshot, store.transaction() as transaction:
        assert len(snapshot["2013-07-01":"2013-07-02"]) == 24
        transaction.delete_range("2013-07-01", "2013-07-01T12")
        assert len(transaction["2013-07-01":"2013-07-02"]) == 12
    del store["2013-07-01":"2013-07-02"]
    assert len(store["2013-07":"2013-08"]) == 30 * 24


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "ms", "us", "ns"])
def test_each_unit(unit: str) -> None:
    keys = np.unique((np.datetime64("2012-12-31") + np.arange(800)).astype(f"M8[{unit}]"))
    store = cesium.open(":memory:", key=f"datetime64[{unit}]", value="i8")
    store.bulk_load(keys, np.arange(len(keys)))
    for text in ("2013", "2013-07", "2013-07-02", "2013-07-04", "2013-07-04T00:00:00.5", "2014"):
        time = np.datetime64(text, "ns")
        for inclusive in ((True, False), (False, True)):
            chosen = keys[keys >= time if inclusive[0] else keys > time]
            found = store.range(text, None, inclusive=inclusive).keys().arrays()
            assert found.tolist() == chosen.tolist(), text
            chosen = keys[keys <= time if inclusive[1] else keys < time]
            found = store.range(None, text, inclusive=inclusive).keys().arrays()
            assert found.tolist() == chosen.tolist(), text


@pytest.mark.parametrize("sign", ["", "-"])
def test_parts_of_tuples(sign: str) -> None:
    store = cesium.open(":memory:", key=("str", f"{sign}datetime64[h]", "i4"), value="i8")
    hours = np.datetime64("2013-07-01", "h") + np.arange(48)
    for number, hour in enumerate(hours):
        for name in ("A", "B"):
            store[name, hour, number] = number
    times = [("2013-07-01T05", 5.0), ("2013-07-01T05:00", 5.0), ("2013-07-01T05:30", 5.5),
             ("2013-07-02", 24.0), (datetime.datetime(2013, 7, 1, 7, 1), 7 + 1 / 60)]  # fmt: skip
    for text, hour in times:
        numbers = [n for n in range(48) if (n <= hour if sign else n >= hour)]
        found = [key[2] for key in store.range(("A", text), ("B",)).keys()]
        assert sorted(found) == numbers
        upper = [n for n in range(48) if (n > hour if sign else n < hour)]
        found = [key[2] for key in store.range(("A",), ("A", text)).keys()]
        assert sorted(found) == upper
        both = store.range(("A",), ("A", text, 100), inclusive=(True, True)).keys()
        through = [n for n in range(48) if (n >= hour if sign else n <= hour)]
        assert sorted(key[2] for key in both) == through
    assert [key[2] for key in store.prefix(("A", "2013-07-01T05")).keys()] == [5]
    with pytest.raises(SchemaError, match=r"has whole units of time, not .*05:30"):
        store.prefix(("A", "2013-07-01T05:30"))
    with pytest.raises(SchemaError, match="expected a str key, given int"):
        store.range((1, "2013-07-01"))
    with pytest.raises(SchemaError, match="expected a tuple"):
        store.range("2013-07-01")
    with pytest.raises(SchemaError, match="'noon' is no time"):
        store.range(("A", "noon"))


WRONG = ["", "now", "NaT", "today", "noon", "2013-7-1", "20130701", "2013-13-01", "2013-02-30",
         "2013-07-01T25", "2013-07-01T10:00:61", "2013-07-01T10.5", "2013-07-01+02:00",
         "2013-07-01T10:00+99:00", "2013-07-01T10:00+02:75", "2013-07-01 ", "2013-W01", "13-07-01",
         "2013-07-01T10:00:00.0000000001",
         "\u0662\u0660\u0661\u0663"]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_wrong_text_is_named(store: Any, text: str) -> None:
    for call in (store.range, store.floor, store.ceiling, lambda bound: store[:bound]):
        with pytest.raises(SchemaError, match="is no time: expected ISO text") as raised:
            call(text)
        assert repr(text) in str(raised.value)


def test_keys_are_times_and_no_text(store: Any) -> None:
    with pytest.raises(SchemaError, match="given str: '2013-07-01'"):
        store["2013-07-01"]
    with pytest.raises(SchemaError, match="given str"):
        store.get("2013-07-01")
    with pytest.raises(SchemaError, match="given str"):
        store["2013-07-01"] = 1
    with pytest.raises(SchemaError, match="given int: 5"):
        store.range(5)
    spans = cesium.open(":memory:", key="timedelta64[s]", value="i8")
    with pytest.raises(SchemaError, match="given str: '1h'"):
        spans.range("1h")


def test_times_of_text() -> None:
    assert time_of_text("2013-07-01T10:00:00.25+0230") == np.datetime64("2013-07-01T07:30:00.25")
    assert time_of_text("1677-09-22T00:12:44.000000001") == np.datetime64(
        "1677-09-22T00:12:44.000000001"
    )
    assert np.datetime_data(time_of_text("2013-07").dtype)[0] == "M"


def test_times_at_the_ends() -> None:
    with cesium.open(":memory:", key="datetime64[us]", value="i8") as store:
        store[datetime.datetime(2000, 1, 1)] = 1
        east = datetime.timezone(datetime.timedelta(hours=5))
        first = datetime.datetime.min.replace(tzinfo=east)
        last = datetime.datetime.max.replace(tzinfo=datetime.timezone(-east.utcoffset(None)))
        assert len(store.range(first, last)) == 1
        with pytest.raises(SchemaError, match="nanoseconds reach from 1678 to 2261"):
            store.range("9999-12-31T23:59:59.999999999", None)
