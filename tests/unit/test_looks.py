"""How things look in a terminal and in a notebook: right, bounded, escaped, and never raising."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium._outline import entries_below, value_length
from cesium.report import FileReport, Problem, Report
from cesium.showing import CELL_MOST, plain, shown


class Cells(HTMLParser):
    """The texts of a page's cells; a tag that no look makes is an injection."""

    TAGS = {"div", "code", "table", "caption", "thead", "tbody", "tr", "th", "td"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        assert tag in self.TAGS and {name for name, _ in attributes} <= {"style"}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def both(thing: Any) -> list[str]:
    """What a terminal and a notebook show, the notebook's as text."""
    return [repr(thing), "\n".join(Cells(thing._repr_html_()).texts)]


def test_a_store_shows_size_span_tiers_and_both_ends(tmp_path: Path) -> None:
    options = cesium.Options(key="u8", value="f8", background=False)  # or the flusher moves the row
    with cesium.open(tmp_path / "s", options=options) as store:
        store.bulk_load(np.arange(100_000), np.arange(100_000) / 2)
        for text in both(store):
            assert "key='u8', value='f8'" in text
            assert "100,000 rows, 1.6 MiB in segments" in text and "about" not in text
            assert "keys 0 to 99999" in text and "49999.5" in text and "tier 1" in text
        store[7] = 0.25
        for text in both(store):
            assert "about 100,001 rows" in text and "1 row in memory" in text


def test_few_rows_are_all_shown_and_counted() -> None:
    with cesium.open(":memory:", key="str", value="i4") as store:
        assert "no rows" in repr(store) and "no keys" in repr(store)
        store.update({"a": 1, "b": 2, "c": 3})
        del store["b"]
        assert repr(store).splitlines()[1:] == [
            "2 rows, 1 row in memory", "keys 'a' to 'c'", "",
            "key  value", "'a'      1", "'c'      3",
        ]  # fmt: skip


@pytest.mark.parametrize("load", [True, False])
def test_a_range_shows_about_how_many_rows(load: bool) -> None:
    with cesium.open(":memory:", key="i8", value="i8") as store:
        numbers = np.arange(50_000)
        (store.bulk_load if load else store.put_many)(numbers, numbers)
        assert "about 970 rows" in repr(store[30:1000])
        assert "about 49,000 rows" in repr(store[1000:])
        assert "2 rows" in repr(store[30:32]).splitlines()
        assert "no rows" in repr(store[50_000:60_000]) and "no rows" in repr(store[9:3])
        backwards = repr(store.range(30, 1000, reverse=True)).splitlines()
        assert backwards[4].split() == ["999", "999"] and backwards[-1].split() == ["30", "30"]
        assert "at most 100 rows" in repr(store.range(30, 1000, limit=100))
        assert "value" not in repr(store[30:1000].keys()).splitlines()[3]
        for text in both(store[30:1000].values()):
            assert "values()" in text and "997" in text


def test_parts_and_fields_have_columns_of_their_own() -> None:
    fields = [(f"field {number}", "f4") for number in range(20)]
    with cesium.open(":memory:", key=("str", "u2"), value=fields) as store:
        store[("a", 3)] = tuple(range(20))
        header = repr(store).splitlines()[4]
        assert header.split()[:2] == ["key_0", "key_1"] and "field 8" in header
        assert "field 9" not in header and header.endswith("\u2026")
        assert "keys ('a', 3) to ('a', 3)" in repr(store)


def test_bounds_are_keys_or_parts_of_them() -> None:
    with cesium.open(":memory:", key=("str", "i2", "bytes"), value="i4") as store:
        store[("a", 3, b"x")] = 1
        for view, bounds in (
            (store[("a",) : ("b", 7)], "[('a',), ('b', 7))"),
            (store.prefix(("a", 3)), "[('a', 3), ('a', 4))"),
            (store.prefix(("a",)), "[('a',), after ('a',))"),
            (store[("a", 3, b"x") :], "[('a', 3, b'x'), ...)"),
            (store.range(("a",), ("a",), inclusive=(True, True)), "[('a',), after ('a',))"),
        ):
            assert repr(view).startswith(f"<range {bounds} of ")


def test_long_values_are_not_read() -> None:
    with cesium.open(":memory:", key="u8", value="bytes") as store:
        store[1] = b"short"
        store[2] = bytes(3 << 20)
        store[3] = b"x" * 3000
        text = repr(store)
        assert "b'short'" in text and "<3.0 MiB>" in text and max(map(len, text.splitlines())) < 100
        view = store._view()
        assert [value_length(view, key) for key in (1, 2, 3, 4)] == [5, 3 << 20, 3000, None]
        del store[1]
        assert value_length(store._view(), 1) is None
        assert value_length(view, 1) == 5, "a view keeps what it saw"


def test_what_is_stored_cannot_become_part_of_the_page() -> None:
    evil = "<script>alert(1)</script>\x1b[31m\n'\"&"
    with cesium.open(":memory:", key="str", value=[(evil, "f8")]) as store:
        store[evil] = (1.0,)
        for thing in (store, store[:evil], store.prefix("<"), store.snapshot()):
            texts = Cells(thing._repr_html_()).texts
            assert any("<script>" in text for text in texts), "shown, as text"
            assert "\x1b" not in repr(thing) + "".join(texts)
    report = Report(1, 1, [Problem(evil, 1, evil, 0, (evil, None), 2)])
    assert "\x1b" not in repr(report) and any(
        "<script>" in t for t in Cells(report._repr_html_()).texts
    )


class Awkward:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_one_line_of_printable_characters() -> None:
    assert plain("a\n  b\tc\x07\u202e") == "a b c\ufffd\ufffd"
    assert shown("x" * 1000).startswith("'xxx") and len(shown("x" * 1000)) == CELL_MOST
    assert len(shown(b"\0" * 10**7)) == CELL_MOST
    assert shown(Awkward()) == "<Awkward: RuntimeError>"
    assert shown(0.1) == "0.1" and shown(2 / 3) == "0.6666666667"
    assert shown((1, "a", np.datetime64("2020-01-01"))) == "(1, 'a', 2020-01-01)"


def test_closed_handles_and_damage_do_not_raise(tmp_path: Path) -> None:
    store = cesium.open(tmp_path / "s", key="u8", value="u8")
    store.bulk_load(np.arange(5000), np.arange(5000))
    view, snapshot = store[1:9], store.snapshot()
    store.close()
    for thing in (store, view, snapshot, view.keys()):
        for text in both(thing):
            assert "cesium store" in text or "snapshot" in text
            assert "rows" not in text
    (segment,) = tmp_path.glob("s/segment-*")
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)
    with cesium.open(tmp_path / "s") as damaged:
        for text in both(damaged) + both(damaged[0:9]):
            assert "cannot be read: CorruptionError" in text


def test_showing_a_transaction_is_no_read_of_it() -> None:
    with cesium.open(":memory:", key="u8", value="u8") as store:
        store.update({1: 1, 2: 2})
        with store.transaction(optimistic=True) as transaction:
            transaction[5] = 5
            for thing in (transaction, transaction[0:9]):
                assert "3 rows" in repr(thing) and "transaction" in repr(thing)
            store[2] = 3
        assert dict(store.items()) == {1: 1, 2: 3, 5: 5}


def test_entries_below_counts_every_source(tmp_path: Path) -> None:
    """Two runs of segments that overlap, and a memtable; to a page, or exactly when asked."""
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        parts = [np.arange(0, 900_000, 3), np.arange(1, 600_000, 3), np.arange(2, 30_000, 3)]
        store.bulk_load(parts[0], parts[0])
        store.bulk_load(parts[1], parts[1])
        store.put_many(parts[2], parts[2])
        for bounds in ([0, 1, 500, 29_999, 30_000, 599_998, 2**63], [450_000], []):
            wanted = [sum(int((part < bound).sum()) for part in parts) for bound in bounds]
            assert entries_below(store._view(), bounds, exact=True) == wanted
            about = entries_below(store._view(), bounds)
            assert all(abs(a - b) <= 2 * 255 for a, b in zip(about, wanted))
    with cesium.open(":memory:", key="bytes", value="u8") as store:
        keys = [b"%05d" % number for number in range(20_000)]
        store.bulk_load(keys[::2], np.arange(10_000))
        store.put_many(keys[1::2], np.arange(10_000))
        assert entries_below(store._view(), [b"", b"00100", b"1", b"x"], exact=True) == [
            0, 100, 10_000, 20_000,
        ]  # fmt: skip
        with pytest.raises(TypeError):
            entries_below(store._view(), ["text"])


def test_reports_say_what_is_wrong() -> None:
    well = Report(3, 40, [], 5)
    assert repr(well) == "<report: all is well>\n3 files, 40 pages and 5 frames read"
    problems = [Problem("segment-1", page, "a bad page", 0, (1, None), 9) for page in range(30)]
    details = [FileReport("journal-1", "journal", notes=["ends in a hole"])]
    for text in both(Report(3, 40, problems, 5, details)):
        assert "30 problems" in text and "the first 20 of the problems" in text
        assert "journal-1: ends in a hole" in text and "a bad page" in text and "1 to ..." in text


def test_numbers_have_html_too() -> None:
    with cesium.open(":memory:", key="u8", value="u8") as store:
        store[1] = 1
        store.get(1)
        for text in both(store.stats()):
            assert "estimated_rows" in text and "latency" in text
        for text in both(store.memory()):
            assert "frozen_memtables" in text
