from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["EncodedKeys", "FloatCodec", "IntegerCodec", "KeyCodec"]

class EncodedKeys:
    count: int
    heads: npt.NDArray[np.uint64] | None
    offsets: npt.NDArray[np.int64] | None
    data: npt.NDArray[np.uint8] | None
    outside: npt.NDArray[np.bool_] | None
    def __init__(
        self,
        count: int,
        heads: npt.NDArray[np.uint64] | None = None,
        offsets: npt.NDArray[np.int64] | None = None,
        data: npt.NDArray[np.uint8] | None = None,
        outside: npt.NDArray[np.bool_] | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...

class KeyCodec:
    width: int
    part_width: int
    spec: Any
    def domain_error(self, key: Any) -> Exception: ...
    def encode_key(self, key: Any) -> int | bytes: ...
    def lookup_key(self, key: Any) -> int | bytes | None: ...
    def decode_key(self, encoded: int | bytes) -> Any: ...
    def lower_bound(self, key: Any, inclusive: bool = True) -> int | bytes | None: ...
    def upper_bound(self, key: Any, inclusive: bool = False) -> int | bytes | None: ...
    def prefix_bounds(
        self, prefix: Any, partial: bool = False
    ) -> tuple[int | bytes | None, int | bytes | None]: ...
    def encode_array(self, keys: Any, lookup: bool = False) -> EncodedKeys: ...
    def decode_array(self, encoded: EncodedKeys) -> Any: ...

class HeadCodec(KeyCodec): ...

class IntegerCodec(HeadCodec):
    lowest: int
    highest: int
    def __init__(self, kind: str, width: int) -> None: ...

class FloatCodec(HeadCodec):
    def __init__(self, width: int) -> None: ...
