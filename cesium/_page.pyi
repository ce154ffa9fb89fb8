from collections.abc import Iterable

class TableShape:
    def __init__(
        self,
        key_width: int,
        value_width: int,
        field_widths: Iterable[int] = (),
        slots_max: int = 0,
    ) -> None: ...
    @property
    def key_width(self) -> int: ...
    @property
    def value_width(self) -> int: ...
