from collections.abc import Callable
from typing import Self

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer, disjoint_base

from cesium._engine import TableCore
from cesium._frames import FrameBase

def apply_span(
    cores: dict[int, TableCore],
    table_ids_end: int,
    data: Buffer | npt.NDArray[np.uint8],
    start: int,
    end: int,
    base: FrameBase,
    attach: Callable[[int, bytes], None],
) -> int: ...

@disjoint_base
class Gathered:
    def __new__(cls, core: TableCore) -> Self: ...

@disjoint_base
class Recovery:
    def __init__(
        self, cores: dict[int, TableCore], table_ids_end: int, attach: Callable[[int, bytes], None]
    ) -> None: ...
    def apply(
        self, data: Buffer | npt.NDArray[np.uint8], start: int, end: int, base: FrameBase
    ) -> None: ...
    def finish(self) -> None: ...
    @property
    def left_out(self) -> int: ...
