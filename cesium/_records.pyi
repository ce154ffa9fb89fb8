from typing import TypeVar

_Record = TypeVar("_Record")

def records_at(
    payload: bytes, start: int, record_type: type[_Record], share_type: type
) -> list[_Record] | None: ...
