from collections.abc import Iterable, Sequence
from typing import Any

import numpy.typing as npt
from typing_extensions import disjoint_base

@disjoint_base
class Field:
    @property
    def name(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def nullable(self) -> bool: ...
    @property
    def children(self) -> tuple[Field, ...]: ...
    @property
    def metadata(self) -> bytes | None: ...
    def __init__(
        self,
        name: str,
        format: str,
        nullable: bool = False,
        children: Iterable[Field] = (),
        metadata: bytes | None = None,
    ) -> None: ...

@disjoint_base
class Array:
    @property
    def length(self) -> int: ...
    @property
    def buffers(self) -> tuple[npt.NDArray[Any] | None, ...]: ...
    @property
    def null_count(self) -> int: ...
    @property
    def children(self) -> tuple[Array, ...]: ...
    def __init__(
        self,
        length: int,
        buffers: Sequence[npt.NDArray[Any] | None],
        null_count: int = 0,
        children: Iterable[Array] = (),
    ) -> None: ...

@disjoint_base
class Stream:
    @property
    def error(self) -> BaseException | None: ...
    def __init__(self, fields: Iterable[Field], batches: Iterable[Sequence[Array]]) -> None: ...
    def capsule(self) -> object: ...
