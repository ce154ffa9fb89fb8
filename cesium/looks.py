"""How stores, snapshots and ranges look when a notebook or a terminal shows them.

A look is bounded work, whatever the size of the store: a few rows from either end, one page of each
source for them, and what is known without reading.  No value longer than VALUE_MOST is read.  It
takes no lock but for the moment in which a read is pinned, is no read of a transaction's (nothing
is noted), and never raises: a handle that is closed, or forked, is its title alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from cesium._keys import KeyCodec
from cesium._outline import entries_below, value_length
from cesium._ranges import EncodedRange, RangeReader, View
from cesium._reads import TableReads
from cesium._row_iterator import RowIterator
from cesium.errors import ClosedError
from cesium.figures import bytes_text
from cesium.key_names import column_names, value_name
from cesium.keys import key_codec
from cesium.showing import COLUMNS_MOST, Grid, Look, plain, shown
from cesium.stats import Tier, tiers_of

if TYPE_CHECKING:
    from cesium.ordered import OrderedReads
    from cesium.ranges import Range

EDGE_ROWS = 4  # that are shown from either end
VALUE_MOST = 4096  # bytes of a value, that it is read for this
TIERS_MOST = 8
KEYS, VALUES = 1, 2  # what an iterator of rows gives
GAP = "\u22ee"
Encoded = int | bytes


def table_look(table: OrderedReads[Any, Any], title: str) -> Look:
    """A store or a snapshot: how much there is, the span of its keys, its tiers, a few rows."""
    try:
        view = table._view()
        tiers = tiers_of(view.version.sources)
        rows = edges(table, view, lowest(table), None, False, None)
        return Look(title, [size_text(view, tiers, rows), span_text(rows)], [
            *row_grids(table, rows, 0), tier_grid(tiers),
        ])  # fmt: skip
    except ClosedError:
        return Look(title)
    except Exception as error:
        return Look(title, [f"cannot be read: {plain(repr(error), 200)}"])


def range_look(piece: Range[Any, Any, Any], title: str) -> Look:
    """A range: about how many rows, and a few of them."""
    try:
        table = piece._store
        view = table._view()
        if piece._lower is None:
            return Look(title, ["no rows"])
        rows = edges(table, view, piece._lower, piece._upper, piece._reverse, piece._limit)
        return Look(title, [count_text(view, piece, rows)], row_grids(table, rows, piece._yields))
    except ClosedError:
        return Look(title)
    except Exception as error:
        return Look(title, [f"cannot be read: {plain(repr(error), 200)}"])


# --- a few rows -----------------------------------------------------------------------------------


class Edges:
    """The first and the last keys of an interval, each with its value or None (not read).

    whole: there are no others.  Rows are (key, value, bytes of the value).
    """

    def __init__(self, head: list[Any], tail: list[Any], whole: bool) -> None:
        self.head = head
        self.tail = tail
        self.whole = whole


def lowest(table: TableReads) -> Encoded:
    """The bound below all keys."""
    return 0 if table.keys_codec.width else b""


def edges(
    table: TableReads, view: View, lower: Encoded, upper: Encoded | None, reverse: bool,
    limit: int | None,
) -> Edges:  # fmt: skip
    """A few rows of either end; where there is a limit, of the end where the range begins."""
    most = 2 * EDGE_ROWS + 1 if limit is None else min(2 * EDGE_ROWS + 1, limit)

    def some(backwards: bool, count: int) -> list[Any]:
        reader = RangeReader(view, EncodedRange(view.core, lower, upper), backwards, count)
        keys = RowIterator(reader, table.keys_codec, table.values_codec, KEYS)
        return [row_of(table, view, key) for key in islice(keys, count)]

    head = some(reverse, most)
    if len(head) <= 2 * EDGE_ROWS:
        return Edges(head, [], True)
    tail = [] if limit is not None else some(not reverse, EDGE_ROWS)
    return Edges(head[:EDGE_ROWS], tail[::-1], limit == most)


def row_of(table: TableReads, view: View, key: Any) -> tuple[Any, Any, int]:
    """A key, its value if that is short, and how long it is."""
    encoded = table.keys_codec.lookup_key(key)
    if encoded is None:
        return key, None, 0
    length = value_length(view, encoded) or 0
    if length > VALUE_MOST:
        return key, None, length
    reader = RangeReader(view, EncodedRange(view.core, encoded, None), False, 1)
    values = RowIterator(reader, table.keys_codec, table.values_codec, VALUES)
    return key, next(values, None), length


def row_grids(table: OrderedReads[Any, Any], rows: Edges, yields: int) -> list[Grid]:
    """The rows as a table: composite keys by part, structured values by field."""
    keys = key_names(table) if yields != VALUES else []
    values = value_names(table) if yields != KEYS else []
    lines = [list(row_cells(row, keys, values)) for row in rows.head]
    if not rows.whole:
        lines.append([GAP] * len(lines[0]))
    lines += [list(row_cells(row, keys, values)) for row in rows.tail]
    right = [is_number(table.keys_codec.spec)] * len(keys)
    right += [is_number(table.values_codec.spec)] * len(values)
    return [narrow(Grid([*keys, *values], lines, "", right))] if lines else []


def narrow(grid: Grid) -> Grid:
    """The same with COLUMNS_MOST columns at most."""
    if len(grid.header) <= COLUMNS_MOST:
        return grid

    def cut(cells: Sequence[str]) -> list[str]:
        return [*cells[: COLUMNS_MOST - 1], "\u2026"]

    return Grid(cut(grid.header), [cut(row) for row in grid.rows], grid.title, grid.right)


def key_names(table: OrderedReads[Any, Any]) -> list[str]:
    """The headers of the keys' columns."""
    spec = table.keys_codec.spec
    parts = len(spec) if is_composite(spec) else 1
    return [plain(name, 20) for name in column_names(table.key_names, parts, ())]


def value_names(table: OrderedReads[Any, Any]) -> list[str]:
    """The headers of the values' columns."""
    spec = table.values_codec.spec
    if isinstance(spec, (list, tuple)):
        return [plain(str(field[0]), 20) for field in spec]
    return [value_name(table.key_names)]


def row_cells(
    row: tuple[Any, Any, int], keys: Sequence[str], values: Sequence[str]
) -> Iterator[str]:
    """A row's texts, in the order of the headers."""
    key, value, length = row
    if keys:
        yield from (map(shown, key) if len(keys) > 1 else [shown(one_part(key))])
    if not values:
        return
    if value is None and length > VALUE_MOST:
        yield f"<{bytes_text(length)}>"
        yield from [""] * (len(values) - 1)
    elif isinstance(value, tuple) and len(value) == len(values):
        yield from map(shown, value)
    else:
        yield shown(value)
        yield from [""] * (len(values) - 1)


def one_part(key: Any) -> Any:
    """The part of a tuple of one; any other key itself."""
    return key[0] if isinstance(key, tuple) and len(key) == 1 else key


def is_composite(spec: Any) -> bool:
    """Whether a key type is a tuple of others."""
    return isinstance(spec, (list, tuple)) and len(spec) > 1


def is_number(spec: Any) -> bool:
    """Whether it is shown to the right: numbers, times, and records of them."""
    return not isinstance(spec, str) or spec not in ("str", "bytes", "json", "msgpack", "uuid")


# --- what is known without reading ----------------------------------------------------------------


def size_text(view: View, tiers: Iterable[Tier], edges: Edges) -> str:
    """How many rows, and what they take in files and in memory."""
    rows = view.estimated_rows()
    below = sum(tier.entries - 2 * tier.delete_markers for tier in tiers)
    count = rows_text(len(edges.head)) if edges.whole else about(view) + rows_text(rows)
    parts = [count]
    if files := sum(tier.bytes for tier in tiers):
        parts.append(f"{bytes_text(files)} in segments")
    if rows > below:
        parts.append(f"{rows_text(rows - below)} in memory")
    return ", ".join(parts)


def rows_text(count: int) -> str:
    """A number of rows in words."""
    return "no rows" if count == 0 else "1 row" if count == 1 else f"{count:,} rows"


def about(view: View) -> str:
    """The word before a count that is an estimate: sources may hide rows of one another."""
    sources = view.version.sources
    plain_run = len(sources) == 1 and view.version.last_run_is_base
    records = [reader.record for reader in view.version.segments()]
    entries = sum(record.rows for record in records)
    exact = (
        view.estimated_rows() == entries
        and (plain_run or not entries)
        and not any(record.delete_markers or record.markers for record in records)
    )
    return "" if exact else "about "


def span_text(rows: Edges) -> str:
    """From the first to the last key."""
    if not rows.head:
        return "no keys"
    last = rows.tail[-1] if rows.tail else rows.head[-1]
    return f"keys {shown(rows.head[0][0])} to {shown(last[0])}"


def bound_text(codec: KeyCodec, bound: Encoded) -> str:
    """A bound of a range: a key, leading parts of one, or "after" those when all of them are in."""
    key = decoded(codec, bound)
    if key is None and isinstance(bound, bytes) and bound and bound[-1]:
        before = decoded(codec, bound[:-1] + bytes([bound[-1] - 1]))
        return plain(repr(bound)) if before is None else f"after {shown(before)}"
    return plain(repr(bound)) if key is None else shown(key)


def decoded(codec: KeyCodec, bound: Encoded) -> Any:
    """The key that was encoded so, or the leading parts of one; None for other bytes."""
    with contextlib.suppress(Exception):
        return codec.decode_key(bound)
    spec = codec.spec
    for count in reversed(range(1, len(spec) if isinstance(spec, (list, tuple)) else 1)):
        with contextlib.suppress(Exception):
            return key_codec(tuple(spec[:count])).decode_key(bound)
    return None


def count_text(view: View, piece: Range[Any, Any, Any], rows: Edges) -> str:
    """How many rows a range has, as far as fences and the limit tell."""
    if rows.whole:
        return rows_text(len(rows.head))
    assert piece._lower is not None
    if piece._upper is None:
        below = entries_below(view, [piece._lower], exact=True)
        count = max(view.estimated_rows() - below[0], 0)
    else:
        below = entries_below(view, [piece._lower, piece._upper], exact=True)
        count = max(below[1] - below[0], 0)
    if piece._limit is not None and piece._limit <= count:
        return f"at most {rows_text(piece._limit)}"
    return f"about {rows_text(max(count, 2 * EDGE_ROWS + 1))}"


def tier_grid(tiers: Sequence[Tier]) -> Grid:
    """The tiers, newest first."""
    lines = [
        (
            f"tier {tier.tier}", f"{tier.runs:,}", f"{tier.segments:,}", f"{tier.entries:,}",
            bytes_text(tier.bytes),
        )
        for tier in tiers[:TIERS_MOST]
    ]  # fmt: skip
    return Grid(("", "runs", "segments", "entries", "bytes"), lines, "", (False,))
