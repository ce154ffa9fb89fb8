from collections.abc import Iterator
from typing import Any, Self

from cesium._keys import KeyCodec
from cesium._ranges import RangeReader
from cesium._values import ValueCodec

class RowIterator(Iterator[Any]):
    def __new__(
        cls, reader: RangeReader, keys: KeyCodec, values: ValueCodec, yields: int
    ) -> Self: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
