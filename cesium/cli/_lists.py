"""Lists of Parquet and Arrow files as fields that hold arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cesium.cli._arrow import convert_array
from cesium.cli._convert import BadCells
from cesium.cli._formats import needed


def holds_arrays(kind: Any) -> bool:
    """Whether it is the type of arrays: {"items": type, "shape": [...]}."""
    return isinstance(kind, Mapping)


def field_dtype(kind: Any) -> Any:
    """A field's type as numpy takes it."""
    return (str(kind["items"]), tuple(kind["shape"])) if holds_arrays(kind) else str(kind)


def convert_lists(kind: Mapping[str, Any], array: Any, literal: bool) -> Any:
    """Rows of lists, or of lists of lists, as arrays of a field's shape; BadCells where one is
    absent, or has another length."""
    rows = len(array)
    for length in kind["shape"]:
        array = _items(array, length)
    found = convert_array(str(kind["items"]), array, literal)
    return np.asarray(found).reshape(rows, *kind["shape"])


def _items(array: Any, length: int) -> Any:
    arrow, compute = needed("pyarrow", "arrow"), needed("pyarrow.compute", "arrow")
    try:
        lengths = compute.list_value_length(array)
    except (arrow.ArrowException, TypeError) as error:  # of what is no list
        raise BadCells from error
    if array.null_count or (not compute.all(compute.equal(lengths, length)).as_py() and len(array)):
        raise BadCells
    return array.flatten()
