from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cesium._keys import EncodedKeys, KeyCodec
from cesium._ranges import RangeReader
from cesium._values import EncodedValues, ValueCodec

def reduce_columns(
    reader: RangeReader, fields: Sequence[int], kinds: Sequence[str], spread: bool
) -> list[tuple[int, int, Any, Any, Any, float]]: ...
def pick_rows(
    reader: RangeReader, keys: KeyCodec, values: ValueCodec, ranks: npt.NDArray[np.int64]
) -> tuple[EncodedKeys, EncodedValues]: ...
def extreme_ranks(
    reader: RangeReader, field: int, kind: str, total: int, stretches: int
) -> npt.NDArray[np.int64]: ...
