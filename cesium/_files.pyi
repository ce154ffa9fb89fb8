from typing_extensions import disjoint_base

def posix_operations() -> object: ...
def direct_alignment(fd: int) -> int: ...

@disjoint_base
class FaultyOperations:
    sync_count: int
    write_count: int
    read_count: int
    fail_sync_at: int
    fail_write_at: int
    fail_read_at: int
    errno: int
    @property
    def capsule(self) -> object: ...
