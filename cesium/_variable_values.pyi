from collections.abc import Callable
from typing import Any

from ._values import ValueCodec

class VariableCodec(ValueCodec): ...

class BytesCodec(VariableCodec):
    def __init__(self) -> None: ...

class StrCodec(VariableCodec):
    def __init__(self) -> None: ...

class FunctionCodec(VariableCodec):
    def __init__(
        self, spec: Any, name: str, encoder: Callable[[Any], bytes], decoder: Callable[[bytes], Any]
    ) -> None: ...

class WideCodec(VariableCodec):
    def __init__(self, rows: ValueCodec) -> None: ...
