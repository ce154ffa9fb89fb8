from typing import TypedDict

class _Layout(TypedDict):
    constants: dict[str, int]
    structs: dict[str, dict[str, int]]

def describe() -> _Layout: ...
