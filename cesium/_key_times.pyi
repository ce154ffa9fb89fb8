from cesium._keys import HeadCodec

__all__ = ["TimeCodec"]

UNITS: tuple[str, ...]

class TimeCodec(HeadCodec):
    def __init__(self, delta: bool, unit: str) -> None: ...
