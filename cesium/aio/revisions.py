"""Coroutines that look at one value and change it in one step: of a store, and of a transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cesium.aio.reads import Reads

if TYPE_CHECKING:
    from cesium.tables import TableHandle
    from cesium.transactions import TransactionReads

P = ParamSpec("P")
T = TypeVar("T")


class Revisions(Reads):
    """Reads, and the writes whose answer is the same in a transaction as in a store."""

    _table: TableHandle | TransactionReads

    async def _write(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Has a thread that may write make the call."""
        raise NotImplementedError

    async def pop(self, key: Any, *default: Any) -> Any:
        """Removes `key` and returns its value: see cesium.Store.pop."""
        return await self._write(self._table.pop, key, *default)

    async def setdefault(self, key: Any, default: Any) -> Any:
        """The value of `key`, which is `default` if there was none: see cesium.Store.setdefault."""
        return await self._write(self._table.setdefault, key, default)

    async def compare_and_set(self, key: Any, expected: Any, new: Any) -> bool:
        """Stores `new` if the value is `expected`: see cesium.Store.compare_and_set."""
        return await self._write(self._table.compare_and_set, key, expected, new)

    async def put_if_absent(self, key: Any, value: Any) -> bool:
        """Stores `value` if nothing is there: see cesium.Store.put_if_absent."""
        return await self._write(self._table.put_if_absent, key, value)

    async def increment(self, key: Any, by: Any = 1) -> Any:
        """Adds to the number under `key`; the sum: see cesium.Store.increment."""
        return await self._write(self._table.increment, key, by)
