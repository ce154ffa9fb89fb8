from typing import Any

from cesium._core import CompiledTable

def value_view(table: CompiledTable, key: Any) -> memoryview: ...
