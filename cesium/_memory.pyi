from typing import NamedTuple

from cesium._engine import TableCore

class TablesMemory(NamedTuple):
    live: int
    filled: int
    frozen: int
    fences: int
    checked_pages: int
    range_deletes: int

def tables_memory(cores: list[TableCore]) -> TablesMemory: ...
