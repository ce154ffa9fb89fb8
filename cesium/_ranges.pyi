from typing import Self

from cesium._engine import TableCore
from cesium._keys import EncodedKeys, KeyCodec
from cesium._memtable import MemtableSnapshot
from cesium._values import EncodedValues, ValueCodec
from cesium._version import Version

_Encoded = int | bytes

class View:
    def __new__(
        cls,
        core: TableCore,
        below: View | None = None,
        above: list[MemtableSnapshot] | None = None,
    ) -> Self: ...
    @property
    def core(self) -> TableCore: ...
    @property
    def version(self) -> Version: ...
    def row_count(self) -> int: ...
    def estimated_rows(self) -> int: ...

class EncodedRange:
    def __new__(cls, core: TableCore, lower: _Encoded, upper: _Encoded | None) -> Self: ...
    @property
    def lower(self) -> _Encoded: ...
    @property
    def upper(self) -> _Encoded | None: ...

class OwnedMemory: ...

class RangeReader:
    def __new__(
        cls, view: View, interval: EncodedRange, reverse: bool = False, limit: int | None = None
    ) -> Self: ...
    @property
    def view(self) -> View: ...
    @property
    def exhausted(self) -> bool: ...
    def count(self) -> int: ...
    def skip(self, rows: int) -> int: ...
    def read(
        self,
        keys: KeyCodec,
        values: ValueCodec,
        most: int | None = None,
        want_keys: bool = True,
        want_values: bool = True,
        threads: int = 1,
    ) -> tuple[EncodedKeys | None, EncodedValues | None]: ...
