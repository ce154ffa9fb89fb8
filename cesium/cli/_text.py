"""Keys and values as text: what is typed on the command line, and what is printed.

Everything follows the stored schema.  A key schema is the name of a type, such as `u8`,
`datetime64[s]` or `str`, with a `-` in front when it descends, or a sequence of these for a
composite key.  A value schema is the name of a dtype or codec, or a sequence of fields.
"""

from __future__ import annotations

import csv
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np

BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def key_parts(schema: Any) -> list[str]:
    """The types of a key's parts; one for a key that is not composite."""
    parts = [schema] if isinstance(schema, str) else list(schema)
    return [str(part).removeprefix("-") for part in parts]


def is_composite(schema: Any) -> bool:
    return not isinstance(schema, str)


def is_one(schema: Any) -> bool:
    """Whether a value is one, and not a row of fields."""
    return isinstance(schema, (str, Mapping))


def parse_key(schema: Any, text: str, *, partial: bool = False) -> Any:
    """The key that `text` means; with `partial`, a composite one may end early."""
    parts = key_parts(schema)
    if not is_composite(schema):
        return parse_scalar(parts[0], text)
    texts = next(csv.reader([text], skipinitialspace=True), [])
    if len(texts) > len(parts) or (len(texts) < len(parts) and not partial) or not texts:
        wanted = f"{'at most ' if partial else ''}{len(parts)} parts ({', '.join(parts)})"
        raise click.UsageError(f"the key '{text}' has {len(texts)} parts; this store has {wanted}")
    return tuple(parse_scalar(part, piece) for part, piece in zip(parts, texts, strict=False))


def parse_scalar(name: str, text: str) -> Any:
    """One value of the type called `name`; wrong usage when the text is not one."""
    try:
        return _parse_scalar(name, text)
    except (KeyError, ValueError, OverflowError):
        raise click.UsageError(f"'{text}' is not a {name}") from None


def _parse_scalar(name: str, text: str) -> Any:
    if name == "str":
        return text
    if name == "bytes":
        return bytes_of(text)
    if name == "uuid":
        return uuid.UUID(text)
    dtype = np.dtype(name)
    match dtype.kind:
        case "i" | "u":
            return int(text, 0) if text[:2] == "0x" else int(text)
        case "f":
            return float(text)
        case "c":
            return complex(text)
        case "b":
            return BOOLEANS[text.lower()]
        case "M":
            return _parse_time(dtype, text)
        case "m":
            return np.array(int(text), dtype)[()]
        case "S" | "V":
            return bytes_of(text)
        case _:
            return text


def _parse_time(dtype: np.dtype[Any], text: str) -> np.datetime64:
    if not text:
        raise ValueError(text)
    time = np.datetime64(text.removesuffix("Z"))
    exact: np.datetime64 = time.astype(dtype)
    if exact != time and not np.isnat(time):
        raise ValueError(text)
    return exact


def bytes_of(text: str) -> bytes:
    """`0x` and hexadecimal digits, or else the text's own UTF-8."""
    return bytes.fromhex(text[2:]) if text.startswith("0x") else text.encode()


def text_of_bytes(data: bytes) -> str:
    """The inverse of `bytes_of`: plain where the bytes are printable ASCII."""
    if data.isascii() and (text := data.decode()).isprintable() and not text.startswith("0x"):
        return text
    return "0x" + data.hex()


def parse_value(schema: Any, text: str) -> Any:
    """The value that `text` means: JSON for JSON, MessagePack and rows of several fields (as an
    object by field, or an array in their order), a scalar for a scalar, text for `str`."""
    if isinstance(schema, str) and schema not in ("json", "msgpack"):
        return parse_scalar(schema, text)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"the value is not JSON: {error}") from None
    return content if is_one(schema) else _row_of(schema, content)


def _row_of(schema: Sequence[Any], content: Any) -> tuple[Any, ...]:
    names = field_names(schema)
    if isinstance(content, dict):
        if unknown := sorted(content.keys() - set(names)):
            raise click.UsageError(f"no field is called {', '.join(unknown)}: {', '.join(names)}")
        if absent := [name for name in names if name not in content]:
            raise click.UsageError(f"the value lacks {', '.join(absent)}")
        content = [content[name] for name in names]
    if not isinstance(content, list) or len(content) != len(names):
        raise click.UsageError(f"the value must have the fields {', '.join(names)}")
    return tuple(_cell_of(np.dtype(field[1]), cell) for field, cell in zip(schema, content))


def _cell_of(dtype: np.dtype[Any], cell: Any) -> Any:
    if cell is None and dtype.kind == "f":
        return math.nan
    if cell is None and dtype.kind in "Mm":
        return np.array("NaT", dtype)[()]
    if isinstance(cell, str):
        return parse_scalar(
            dtype.str.lstrip("<>|=") if dtype.kind not in "Mm" else dtype.name, cell
        )
    return cell


def field_names(schema: Any) -> list[str]:
    """The columns of a value: its fields, or one called `value`."""
    return ["value"] if is_one(schema) else [str(field[0]) for field in schema]


def plain(content: Any) -> Any:
    """A key or value as JSON knows it: rows as objects, composite keys as arrays, times as ISO
    text, bytes as `text_of_bytes`, NaN and NaT as null."""
    if isinstance(content, np.ndarray):
        return plain(content.tolist())
    if isinstance(content, np.void) and content.dtype.names:
        return {name: plain(content[name]) for name in content.dtype.names}
    if isinstance(content, (np.datetime64, np.timedelta64)):
        if np.isnat(content):
            return None
        return str(content) if isinstance(content, np.datetime64) else int(content.astype("i8"))
    if isinstance(content, np.generic):
        return plain(content.item())
    if isinstance(content, float):
        return content if math.isfinite(content) else None if math.isnan(content) else str(content)
    if isinstance(content, complex):
        return [plain(content.real), plain(content.imag)]
    if isinstance(content, (bytes, bytearray, memoryview)):
        return text_of_bytes(bytes(content))
    if isinstance(content, uuid.UUID):
        return str(content)
    if isinstance(content, dict):
        return {str(name): plain(inner) for name, inner in content.items()}
    if isinstance(content, tuple) and hasattr(content, "_fields"):
        return {name: plain(inner) for name, inner in zip(content._fields, content)}
    if isinstance(content, (list, tuple)):
        return [plain(inner) for inner in content]
    if content is None or isinstance(content, (str, int)):
        return content
    return str(content)


def to_json(content: Any) -> str:
    return json.dumps(plain(content), ensure_ascii=False)


def cell_text(content: Any) -> str:
    """One cell of a table."""
    simple = plain(content)
    if simple is None:
        return ""
    if isinstance(simple, bool):
        return "true" if simple else "false"
    if isinstance(simple, (dict, list)):
        return json.dumps(simple, ensure_ascii=False)
    return str(simple)


def key_cells(schema: Any, key: Any) -> list[str]:
    return [cell_text(part) for part in key] if is_composite(schema) else [cell_text(key)]


def value_cells(schema: Any, value: Any) -> list[str]:
    if is_one(schema):
        return [cell_text(value)]
    content = plain(value)
    return [
        cell_text(cell) for cell in (content.values() if isinstance(content, dict) else content)
    ]


def describe(schema: Any) -> str:
    """A schema in one line, for people."""
    if is_one(schema):
        return type_text(schema)
    pieces = [
        piece if isinstance(piece, str) else f"{piece[0]}: {type_text(piece[1])}"
        for piece in schema
    ]
    return f"({', '.join(pieces)})"


def type_text(kind: Any) -> str:
    """One type; that of arrays as numpy writes it, (2,3)f4."""
    if not isinstance(kind, Mapping):
        return str(kind)
    shape = ",".join(map(str, kind["shape"])) + ("," if len(kind["shape"]) == 1 else "")
    return f"({shape}){kind['items']}"
