from collections.abc import Callable
from typing import Any, NamedTuple, Self

from cesium._engine import TableCore
from cesium._keys import KeyCodec
from cesium._reads import TableReads
from cesium._values import ValueCodec

_Encoded = int | bytes

DURABILITY_ERROR: str
KEEP: object
LEVELS: tuple[str, ...]

class Commit(NamedTuple):
    sequence: int
    durability: str
    rows: int

class CompiledTable(TableReads):
    def __new__(
        cls,
        core: TableCore,
        keys: KeyCodec,
        values: ValueCodec,
        durability: str,
        read_only: bool,
    ) -> Self: ...
    @property
    def read_only(self) -> bool: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __delitem__(self, key: Any, /) -> None: ...
    def put(self, key: Any, value: Any, durability: str | None = None) -> int: ...
    def delete(self, key: Any, durability: str | None = None) -> int: ...
    def pop(self, key: Any, *default: Any) -> Any: ...
    def setdefault(self, key: Any, default: Any) -> Any: ...
    def _revise(self, key: Any, decision: Callable[[Any], Any]) -> Any: ...
    def put_many(self, keys: Any, values: Any, durability: str | None = None) -> Commit: ...
    def delete_many(self, keys: Any, durability: str | None = None) -> Commit: ...
    def _delete_encoded(
        self, lower: _Encoded, upper: _Encoded | None, durability: str | None = None
    ) -> Commit: ...
