from typing import Any

from cesium._keys import HeadCodec, KeyCodec

__all__ = [
    "BytesCodec",
    "FixedBytesCodec",
    "StrCodec",
    "UserCodec",
    "UuidCodec",
    "WideBytesCodec",
]

class FixedBytesCodec(HeadCodec):
    def __init__(self, width: int) -> None: ...

class WideBytesCodec(KeyCodec):
    def __init__(self, width: int) -> None: ...

class UuidCodec(KeyCodec): ...
class TextCodec(KeyCodec): ...
class StrCodec(TextCodec): ...
class BytesCodec(TextCodec): ...

class UserCodec(KeyCodec):
    codec: Any
    def __init__(self, codec: Any) -> None: ...
