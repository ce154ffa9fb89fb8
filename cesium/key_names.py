"""Names of the key's columns: how they are given, what they may be, and what stands in for them.

A key type may name its columns, as a value type does: [("time", "datetime64[us]"), ("id", "u4")].
The names are no part of the type: rows are the same without them.  Pure functions: safe from any
thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cesium.errors import SchemaError

Names = tuple[str, ...]


def split_names(key: Any) -> tuple[Any, Names]:
    """A key type, and the names that it gives to its columns; () where it gives none.

    [(name, type)] is a plain key of that type, several pairs are a tuple.  SchemaError for names
    that cannot be.
    """
    if not isinstance(key, (list, tuple)) or not key or not all(map(_is_pair, key)):
        return key, ()
    types = [kind for _, kind in key]
    return types[0] if len(types) == 1 else tuple(types), checked_names([name for name, _ in key])


def _is_pair(part: Any) -> bool:
    return isinstance(part, (list, tuple)) and len(part) == 2


def checked_names(names: Any) -> Names:
    """Names as a tuple; SchemaError for one that is no text, or is there twice."""
    if not isinstance(names, (list, tuple)):
        raise SchemaError(f"the key's names are a list of texts, not {names!r}")
    for place, name in enumerate(names):
        if not isinstance(name, str):
            raise SchemaError(f"the name of a key column is text, not {name!r}")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise SchemaError(f"the name of a key column is valid text, not {name!r}") from None
        if name in names[:place]:
            raise SchemaError(f"two columns of the key have the name {name!r}")
    return tuple(names)


def fitting_names(names: Names, key: Any, value: Any) -> Names:
    """The names for a table of these types, as they are stored: those that a key has without
    names are none.

    SchemaError when they are more or fewer than the key's parts, or a field of the values has one.
    """
    parts = len(key) if isinstance(key, (list, tuple)) else 1
    if names and len(names) != parts:
        raise SchemaError(
            f"the key {key!r} has {parts} part{'' if parts == 1 else 's'}, and {len(names)} "
            f"name{'' if len(names) == 1 else 's'}: {', '.join(map(repr, names))}"
        )
    fields = [field[0] for field in value] if names and isinstance(value, (list, tuple)) else []
    for name in names:
        if name in fields:
            raise SchemaError(f"{name!r} names a column of the key and a field of the values")
    return () if list(names) == default_names(parts) else names


def default_names(parts: int) -> list[str]:
    """What columns of a key are called that have no names."""
    return ["key"] if parts == 1 else [f"key_{number}" for number in range(parts)]


def column_names(names: Sequence[str], parts: int, values: Iterable[str]) -> list[str]:
    """What the key's columns are called beside those of the values."""
    if names:
        return list(names)
    found, taken = default_names(parts), set(values)
    while taken & set(found):  # a field has the name already
        found = ["_" + name for name in found]
    return found


def value_name(names: Sequence[str]) -> str:
    """What the column of values is called that are no structured ones."""
    name = "value"
    while name in names:
        name = "_" + name
    return name


def with_names(key: Any, names: Sequence[str]) -> Any:
    """A key type with its names, as it is given to `cesium.open`; without any, as it is."""
    if not names:
        return key
    if isinstance(key, (list, tuple)) and len(key) > 1:
        return list(zip(names, key, strict=True))
    return [(names[0], key)]
