from typing import TypedDict

class Layout(TypedDict):
    constants: dict[str, int]
    structs: dict[str, dict[str, int]]

def describe() -> Layout: ...
