"""The codecs of a table: those that it was made with, whatever is said when it is opened again."""

from __future__ import annotations

from cesium._keys import KeyCodec
from cesium._values import ValueCodec
from cesium.errors import SchemaError
from cesium.keys import key_codec
from cesium.options import Options
from cesium.state import TableRecord
from cesium.values import value_codec


def new_codecs(options: Options, path: str | None) -> tuple[KeyCodec, ValueCodec]:
    """The codecs of a store to be made; SchemaError when the options name none."""
    if options.key is None:
        raise SchemaError(
            f"a new store needs a key type: cesium.open({path or ':memory:'!r}, key=...)"
        )
    return (
        key_codec(options.key),
        value_codec("bytes" if options.value is None else options.value),
    )


def stored_codecs(
    table: TableRecord, options: Options, path: str | None
) -> tuple[KeyCodec, ValueCodec]:
    """The stored schema's codecs, or the given ones where they are the same; else SchemaError."""
    given_key = None if options.key is None else key_codec(options.key)
    given_value = None if options.value is None else value_codec(options.value)
    if (given_key is not None and given_key.spec != table.key) or (
        given_value is not None and given_value.spec != table.value
    ):
        raise SchemaError(
            f"{path} stores key={table.key!r}, value={table.value!r}; it was opened "
            f"with key={given_key.spec if given_key else table.key!r}, "
            f"value={given_value.spec if given_value else table.value!r}"
        )
    return (
        given_key if given_key is not None else key_codec(table.key),
        given_value if given_value is not None else value_codec(table.value),
    )
