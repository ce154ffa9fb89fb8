from typing import Any

DEPTH_MOST: int

def read_one_by_one(files: Any, offsets: Any, block_bytes: int, latencies: Any) -> None: ...
def read_at_depth(
    files: Any, offsets: Any, block_bytes: int, depth: int, latencies: Any
) -> None: ...
