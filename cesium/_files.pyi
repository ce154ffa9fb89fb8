def posix_operations() -> object: ...
def direct_alignment(fd: int) -> int: ...

class FaultyOperations:
    sync_count: int
    write_count: int
    read_count: int
    fail_sync_at: int
    fail_write_at: int
    fail_read_at: int
    errno: int
    def __init__(self) -> None: ...
    @property
    def capsule(self) -> object: ...
