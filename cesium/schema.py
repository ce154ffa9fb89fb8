"""The codecs of a table: those that it was made with, whatever is said when it is opened again."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from cesium._keys import KeyCodec
from cesium._page import TableShape
from cesium._values import ValueCodec
from cesium.errors import Error, SchemaError
from cesium.key_names import fitting_names, split_names, with_names
from cesium.keys import key_codec
from cesium.state import DEFAULT_TABLE, TableRecord
from cesium.values import value_codec


def new_table(name: str, key: Any, value: Any, call: str) -> TableRecord:
    """The record of a table to be made, with the default one's id; SchemaError when no key type is
    named, or the types are none.

    call: how it is made, up to the key.
    """
    if key is None:
        what = "table" if "table(" in call else "store"
        raise SchemaError(f"a new {what} needs a key type: {call}, key=...)")
    return table_of(name, key, "bytes" if value is None else value)


def table_of(name: str, key: Any, value: Any) -> TableRecord:
    """The record of a table of these types, with the default one's id."""
    types, names = split_names(key)
    keys, values = key_codec(types).spec, value_codec(value).spec
    return TableRecord(
        DEFAULT_TABLE, name, keys, values, key_names=fitting_names(names, keys, values)
    )


def stored_codecs(
    table: TableRecord, key: Any, value: Any, path: str | None
) -> tuple[KeyCodec, ValueCodec]:
    """The stored schema's codecs, or the given ones where they are the same; else SchemaError.

    A key that names its columns has the stored names; types alone agree with any.
    """
    types, names = split_names(key)
    given_key = None if key is None else key_codec(types)
    given_value = None if value is None else value_codec(value)
    if (given_key is not None and given_key.spec != table.key) or (
        given_value is not None and given_value.spec != table.value
    ):
        raise SchemaError(
            f"{path} stores key={table.key!r}, value={table.value!r}; it was opened "
            f"with key={given_key.spec if given_key else table.key!r}, "
            f"value={given_value.spec if given_value else table.value!r}"
        )
    if names and fitting_names(names, table.key, table.value) != table.key_names:
        stored = with_names(table.key, table.key_names)
        known = "give the stored ones, or" if table.key_names else "it stores none: give"
        raise SchemaError(
            f"{path} stores key={stored!r}; it was opened with the names {', '.join(names)}: "
            f"{known} types alone"
        )
    return (
        given_key if given_key is not None else key_codec(table.key),
        given_value if given_value is not None else value_codec(table.value),
    )


def codecs_of(table: TableRecord | None) -> tuple[KeyCodec | None, ValueCodec | None]:
    """A table's codecs; None for the user's own, which are not here."""
    if table is None:
        return None, None
    key: KeyCodec | None = None
    value: ValueCodec | None = None
    with contextlib.suppress(Error, TypeError, ValueError):
        key = key_codec(table.key)
    with contextlib.suppress(Error, TypeError, ValueError):
        value = value_codec(table.value)
    return key, value


def shape_of_codecs(key: KeyCodec | None, value: ValueCodec | None) -> TableShape | None:
    """The shape of rows; None when a codec is not known."""
    if key is None or value is None:
        return None
    return TableShape(key.width, value.width, value.field_widths)


def shape_of_table(table: TableRecord, slots_max: int = 0) -> TableShape:
    """The shape of a table's rows: what a user's codecs make are bytes of any length."""
    key, value = codecs_of(table)
    return TableShape(
        key.width if key else 0,
        value.width if value else 0,
        value.field_widths if value else (),
        slots_max,
    )


def plain_table(table: TableRecord) -> TableRecord:
    """The table with types that every process has: a user's codec makes bytes of any length."""
    key, value = codecs_of(table)
    return replace(
        table,
        key=table.key if key is not None else "bytes",
        value=table.value if value is not None else "bytes",
        key_names=(),
    )
