"""The schemas of a store whose manifest is lost: what frames, segments and journal still say."""

from __future__ import annotations

from cesium._page import TableShape
from cesium.directory import segment_name
from cesium.errors import SchemaError
from cesium.origin import Origin
from cesium.schema import codecs_of, shape_of_codecs
from cesium.scrub import Logs
from cesium.state import DEFAULT_TABLE, Json, TableRecord

Footers = dict[int, Json | None]  # by segment


def tables_of(
    logs: Logs, footers: Footers, uuid: bytes, given: TableRecord | None
) -> dict[int, TableRecord]:
    """By id, as the manifest's frames say them, else a segment, else the journal."""
    hints = logs.manifest.hints
    known: list[TableRecord] = list(hints.tables.values())
    for footer in footers.values():
        if footer is not None and footer["store_uuid"] == uuid:
            origin = Origin.from_bytes(footer["origin"])
            if origin is not None and origin.table is not None:
                known.append(origin.table)
    known += logs.journal.tables
    tables: dict[int, TableRecord] = {}
    for table in known:
        if table.id not in hints.dropped:
            tables.setdefault(table.id, table)
    stored = tables.get(DEFAULT_TABLE)
    if stored is None and given is None:
        raise SchemaError(
            "the manifest is lost, and nothing else says what the keys and values are: say it "
            "with key=... and value=... (--key and --value)"
        )
    if (
        stored is not None
        and given is not None
        and (given.key, given.value) != (stored.key, stored.value)
    ):
        raise SchemaError(
            f"the store has key={stored.key!r}, value={stored.value!r}, not "
            f"key={given.key!r}, value={given.value!r}"
        )
    default = stored or given
    assert default is not None
    return {DEFAULT_TABLE: default} | dict(sorted(tables.items()))


def shape_of(footers: Footers, uuid: bytes, schema: TableRecord) -> TableShape:
    """The shape of a table's rows; SchemaError where its segments have another."""
    key, value = codecs_of(schema)
    shape = shape_of_codecs(key, value)
    for number, footer in footers.items():
        if footer is None or footer["store_uuid"] != uuid or footer["table_id"] != schema.id:
            continue
        widths = footer["key_width"], footer["value_width"], footer["fields"]
        if shape is None:
            return TableShape(*widths)
        assert key is not None and value is not None
        expected = key.width, value.width, list(value.field_widths)
        if widths != expected:
            raise SchemaError(
                f"{segment_name(number)} holds keys of {widths[0]} bytes and values of "
                f"{widths[1]} (0: of any length); key={schema.key!r}, "
                f"value={schema.value!r} have {expected[0]} and {expected[1]}"
            )
    return shape if shape is not None else TableShape(0, 0)
