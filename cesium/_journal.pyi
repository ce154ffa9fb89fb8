from collections.abc import Sequence

from typing_extensions import Buffer, disjoint_base

OK: int
FULL: int
LIMIT: int
IO: int
POISONED: int

@disjoint_base
class JournalWriter:
    number: int
    base_sequence: int
    def __init__(
        self,
        fd: int,
        mapping: Buffer,
        operations: object,
        *,
        number: int,
        epoch: int,
        base_sequence: int,
        creation_time: int,
        header_checksum: int,
        prepare_step_bytes: int,
        previous: JournalWriter | None = None,
    ) -> None: ...
    def append(
        self,
        frame_type: int,
        sequence: int,
        commit_time: int,
        parts: Sequence[Buffer],
        operation_count: int,
    ) -> tuple[int, int]: ...
    def append_single(
        self,
        sequence: int,
        commit_time: int,
        table_id: int,
        kind: int,
        flags: int,
        key: Buffer,
        value: Buffer | None = None,
    ) -> tuple[int, int]: ...
    def sync(self, upto_position: int) -> int: ...
    def seal(self) -> None: ...
    def retire(self, *, durable: bool = True) -> None: ...
    @property
    def fully_synced(self) -> bool: ...
    @property
    def failed(self) -> int: ...
    @property
    def error_number(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def capacity_bytes(self) -> int: ...
    @property
    def synced_position(self) -> int: ...
    @property
    def sync_count(self) -> int: ...
    @property
    def last_sequence(self) -> int: ...
    @property
    def last_checksum(self) -> int: ...
