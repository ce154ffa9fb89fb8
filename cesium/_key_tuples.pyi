from collections.abc import Sequence

from cesium._keys import KeyCodec

__all__ = ["TupleCodec"]

class TupleCodec(KeyCodec):
    def __init__(self, parts: Sequence[KeyCodec], descending: Sequence[bool]) -> None: ...
