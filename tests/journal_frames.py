"""Where the frames of a journal file lie, read by the format document alone."""

from __future__ import annotations

import struct

FIRST = 4096  # where the first frame begins


def starts_of(content: bytes | bytearray) -> list[int]:
    """The positions of the frames of a whole file, and behind them where the next would begin."""
    positions = [FIRST]
    while positions[-1] + 8 <= len(content):
        length = length_at(content, positions[-1])
        if not length:
            break
        positions.append(positions[-1] + length)
    return positions


def length_at(content: bytes | bytearray, position: int) -> int:
    """What the frame at a position, of either form, says of its length; 0 where none begins."""
    (word,) = struct.unpack_from("<I", content, position + 4)
    return word & 0xFFF8 if word & 7 == 1 else word & ~7
