from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

from ._values import ValueCodec

class VariableCodec(ValueCodec): ...
class BytesCodec(VariableCodec): ...
class StrCodec(VariableCodec): ...

@disjoint_base
class FunctionCodec(VariableCodec):
    def __init__(
        self, spec: Any, name: str, encoder: Callable[[Any], bytes], decoder: Callable[[bytes], Any]
    ) -> None: ...

@disjoint_base
class WideCodec(VariableCodec):
    def __init__(self, rows: ValueCodec) -> None: ...
