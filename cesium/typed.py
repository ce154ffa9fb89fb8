"""The type parameters of stores, as type checkers see them: `Store[int, float]`.

Each has a default, so that a plain `Store` is one of any keys and values; the running program
needs no defaults, and the `typing` of Python 3.11 knows none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    K = TypeVar("K", default=Any)
    V = TypeVar("V", default=Any)
    R = TypeVar("R", default=tuple[K, V])
else:
    from typing import TypeVar

    K, V, R = TypeVar("K"), TypeVar("V"), TypeVar("R")  # keys, values, what a range yields
