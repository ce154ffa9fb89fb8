"""Whose turn it is to commit: while a transaction is open that is not optimistic, only its own."""

from __future__ import annotations

import threading

from cesium._engine import Engine, WriteGuard
from cesium.errors import Error


class Turn:
    """The turn of one store's commits; a transaction takes it, and all other commits wait.

    A write of the thread that took it, past the transaction, would wait for itself: Error.
    """

    def __init__(self) -> None:
        self._taken = threading.Lock()
        self._owner: int | None = None  # the thread that took it,
        self._holder: int | None = None  # and the id() of the transaction for which

    def _check_not_mine(self) -> None:
        if self._owner == threading.get_ident():
            raise Error(
                "this thread has a transaction open on the store, for which all other writes wait: "
                "write through the transaction, or end it first"
            )

    def take(self, engine: Engine, holder: object) -> None:
        """Waits for the turn, then for the commit that is under way; closed stores refuse."""
        self._check_not_mine()
        self._taken.acquire()
        try:
            self._holder = id(holder)
            with WriteGuard(engine):
                self._owner = threading.get_ident()
                engine.reserved = True
        except BaseException:
            self.give_back(engine, holder)
            raise

    def give_back(self, engine: Engine, holder: object) -> None:
        """Lets others commit again, if the holder has the turn: again is no error."""
        if self._holder == id(holder):
            self._owner = self._holder = None
            engine.reserved = False
            self._taken.release()

    def wait(self) -> None:
        """Waits until nobody has the turn."""
        self._check_not_mine()
        with self._taken:
            pass
