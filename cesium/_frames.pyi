from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer, disjoint_base

# Any contiguous bytes.  (Before Python 3.12 the type checker does not know arrays as buffers.)
_Bytes: TypeAlias = Buffer | npt.NDArray[np.uint8]

FRAME_COMMIT: int
FRAME_ATTACH: int
FRAME_END: int
PUT: int
DELETE: int
DELETE_RANGE: int
FIXED_KEYS: int
FIXED_VALUES: int
LOW_UNBOUNDED: int
HIGH_UNBOUNDED: int
FILE_HEADER_BYTES: int
FRAME_HEADER_BYTES: int
ROW_HEADER_BYTES: int
OPERATION_HEADER_BYTES: int
MAXIMUM_FRAME_BYTES: int
MAXIMUM_ROW_BYTES: int
ROW_FRAMES: int

@disjoint_base
class FrameBase:
    def __init__(
        self, epoch: int, seed: int, sequence: int, creation_time: int, row_frames: bool
    ) -> None: ...

def checksum(data: _Bytes, seed: int = 0) -> int: ...
def scan_frames(
    data: _Bytes,
    position: int,
    end: int,
    base: FrameBase,
    previous_checksum: int,
    last_sequence: int,
) -> tuple[int, int, int, bool]: ...
def highest_vouched(data: _Bytes, position: int, end: int, base: FrameBase, above: int) -> int: ...
def find_frame(
    data: _Bytes, position: int, end: int, base: FrameBase, last_sequence: int
) -> tuple[int, int, int] | None: ...
def checksums_at(data: _Bytes, position: int, base: FrameBase) -> tuple[int, int] | None: ...
def check_frames(
    data: _Bytes, position: int, end: int, base: FrameBase
) -> tuple[int, int | None]: ...
def skip_through(data: _Bytes, position: int, end: int, base: FrameBase, sequence: int) -> int: ...
def next_frame(
    data: _Bytes, position: int, end: int, base: FrameBase
) -> tuple[int, int, int, int, int, int, int, int, int] | None: ...
def next_operation(
    data: _Bytes, position: int, end: int, base: FrameBase, offset: int
) -> tuple[int, ...] | int | None: ...
