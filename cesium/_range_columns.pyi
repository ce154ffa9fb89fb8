from collections.abc import Sequence
from typing import Any

from cesium._keys import KeyCodec
from cesium._ranges import RangeReader

def read_columns(
    reader: RangeReader,
    keys: KeyCodec | None,
    fields: Sequence[int] | None,
    most: int | None = None,
) -> tuple[int, Any, Any]: ...
