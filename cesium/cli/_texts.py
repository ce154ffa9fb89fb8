"""Columns of a range as text, for files: what `load` reads back as the same rows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from cesium.cli._formats import needed
from cesium.cli._text import text_of_bytes, to_json

NUMBERS = "iuf"


def check_types(types: dict[str, Any]) -> None:
    """An error for a column that no cell can hold."""
    for name, kind in types.items():
        if isinstance(kind, np.dtype) and kind.subdtype is not None:
            raise click.ClickException(f"the field {name} holds arrays: export it as parquet")
        if isinstance(kind, dict):
            raise click.ClickException(f"column {name} has a codec of your own: export from Python")


def texts(kind: Any, values: Any) -> list[str]:
    """The cells of a column; NaN and NaT are empty."""
    if kind in ("str", "json"):
        return list(values)
    if kind == "bytes":
        return [text_of_bytes(cell) for cell in values]
    if kind == "msgpack":
        unpack = needed("msgpack", "msgpack").unpackb
        return [to_json(unpack(cell)) for cell in values]
    if kind == "uuid":
        return [str(uuid.UUID(bytes=bytes(cell))) for cell in values.tolist()]
    return _of_array(values)


def _of_array(values: Any) -> list[str]:
    cells = values.tolist()
    match values.dtype.kind:
        case "f":
            return ["" if cell != cell else repr(cell) for cell in cells]
        case "b":
            return ["true" if cell else "false" for cell in cells]
        case "M":
            return ["" if cell == "NaT" else cell for cell in np.datetime_as_string(values)]
        case "m":
            counts = values.astype("i8").tolist()
            return ["" if gone else str(cell) for cell, gone in zip(counts, np.isnat(values))]
        case "S":
            return [text_of_bytes(cell) for cell in cells]
        case "V":
            return ["0x" + bytes(cell).hex() for cell in cells]
        case "c":
            return [str(cell).strip("()") for cell in cells]
        case _:
            return list(map(str, cells))


def json_texts(kind: Any, values: Any) -> list[str]:
    """The cells of a column as JSON; NaN and NaT are null, other numbers that JSON lacks text."""
    found = texts(kind, values)
    if kind in ("json", "msgpack"):
        return found
    code = "O" if kind in ("str", "bytes", "uuid") else np.dtype(kind).kind
    if code == "b":
        return found
    said: Callable[[str], str] = json.dumps
    if code in NUMBERS:
        return ["null" if not c else said(c) if c.lstrip("-") == "inf" else c for c in found]
    if code in "Mm":
        return ["null" if not cell else said(cell) for cell in found]
    return [json.dumps(cell, ensure_ascii=False) for cell in found]
