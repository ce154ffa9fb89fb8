"""What the tests of cesium.aio share: stores, waiting without sleep, and calls that wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import cesium
import cesium.aio

PATIENCE_SECONDS = 120.0


def opened(path: Path | str, **more: Any) -> cesium.aio.Opening[cesium.aio.Store]:
    workers = more.pop("workers", 4)
    options = {"key": "u8", "value": "i8", "durability": "process", "background": False}
    return cesium.aio.open(path, options=cesium.Options(**(options | more)), workers=workers)


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        await asyncio.sleep(0)


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not await condition():
        assert time.monotonic() < end, "it does not happen"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cesium-aio")]


class Gate:
    """A value codec that lets values through, except those that begin with "wait"."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self.codec = cesium.ValueCodec("gated", self.encode, self.decode)

    def _pass(self, value: str) -> None:
        if value.startswith("wait"):
            self.reached.set()
            assert self.opened.wait(PATIENCE_SECONDS)

    def encode(self, value: str) -> bytes:
        self._pass(value)
        return value.encode()

    def decode(self, data: bytes) -> str:
        if data.startswith(b"fail"):
            raise RuntimeError(data.decode())
        if data.startswith(b"stop"):
            raise StopIteration
        value = data.decode()
        self._pass(value[len("read ") :] if value.startswith("read ") else "")
        return value
