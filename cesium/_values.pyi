from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

@disjoint_base
class EncodedValues:
    count: int
    rows: npt.NDArray[np.uint8] | None
    offsets: npt.NDArray[np.int64] | None
    data: npt.NDArray[np.uint8] | None
    def __init__(
        self,
        count: int,
        rows: npt.NDArray[np.uint8] | None = None,
        offsets: npt.NDArray[np.int64] | None = None,
        data: npt.NDArray[np.uint8] | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...

@disjoint_base
class ValueCodec:
    width: int
    spec: Any
    dtype: np.dtype[Any] | None
    field_widths: tuple[int, ...]
    def encode_value(self, value: Any) -> bytes: ...
    def decode_value(self, data: bytes) -> Any: ...
    def zero_value(self) -> Any: ...
    def encode_array(self, values: Any, count: int | None = None) -> EncodedValues: ...
    def decode_array(
        self, encoded: EncodedValues, found: npt.NDArray[np.bool_] | None = None
    ) -> Any: ...

@disjoint_base
class NumberCodec(ValueCodec):
    def __init__(self, dtype: np.dtype[Any]) -> None: ...

@disjoint_base
class TimeCodec(ValueCodec):
    def __init__(self, dtype: np.dtype[Any]) -> None: ...

@disjoint_base
class FixedStringCodec(ValueCodec):
    def __init__(self, dtype: np.dtype[Any]) -> None: ...

@disjoint_base
class StructCodec(ValueCodec):
    def __init__(self, dtype: np.dtype[Any], fields: list[ValueCodec]) -> None: ...

@disjoint_base
class SubarrayCodec(ValueCodec):
    def __init__(self, dtype: np.dtype[Any], items: ValueCodec) -> None: ...

def spec_of(dtype: np.dtype[Any]) -> str: ...
