from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self, TypeVar, overload

from cesium._engine import TableCore
from cesium._keys import KeyCodec
from cesium._reads import TableReads
from cesium._values import ValueCodec
from cesium.typed import K, V

_Encoded = int | bytes
_T = TypeVar("_T")

DURABILITY_ERROR: str
KEEP: object
LEVELS: tuple[str, ...]

class Commit(NamedTuple):
    sequence: int
    durability: str
    rows: int

class CompiledTable(TableReads[K, V]):
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
    def __setitem__(self, key: K, value: V, /) -> None: ...
    def __delitem__(self, key: K | slice, /) -> None: ...
    def put(self, key: K, value: V, durability: str | None = None) -> int: ...
    def delete(self, key: K, durability: str | None = None) -> int: ...
    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: _T, /) -> V | _T: ...
    def setdefault(self, key: K, default: V) -> V: ...
    def _revise(self, key: Any, decision: Callable[[Any], Any]) -> Any: ...
    def put_many(
        self,
        keys: Any,
        values: Any = None,
        durability: str | None = None,
        *,
        key: str | Iterable[str] | None = None,
    ) -> Commit: ...
    def delete_many(self, keys: Any, durability: str | None = None) -> Commit: ...
    def _delete_encoded(
        self, lower: _Encoded, upper: _Encoded | None, durability: str | None = None
    ) -> Commit: ...
