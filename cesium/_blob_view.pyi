from typing import Any

from cesium._reads import TableReads

def value_view(table: TableReads, key: Any) -> memoryview: ...
