from collections.abc import Iterable

from cesium.files import Files

class BlobOutput:
    def __init__(
        self,
        files: Files,
        name: str,
        blob_id: int,
        store_uuid: bytes,
        table_id: int = 0,
        threshold: int = 0,
        moved: Iterable[int] = (),
    ) -> None: ...
    @property
    def blob_id(self) -> int: ...
    @property
    def made_file(self) -> tuple[int, int, int] | None: ...
    def is_sound(self) -> bool: ...
    def uses(self) -> list[tuple[int, int, int]]: ...
