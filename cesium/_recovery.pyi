from collections.abc import Callable
from typing import Self

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

from cesium._engine import TableCore

def apply_span(
    core: TableCore,
    data: Buffer | npt.NDArray[np.uint8],
    start: int,
    end: int,
    attach: Callable[[int, bytes], None],
) -> None: ...

class Gathered:
    def __new__(cls, core: TableCore, span_bytes: int) -> Self: ...
