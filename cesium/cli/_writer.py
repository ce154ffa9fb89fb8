"""The process that the demonstration kills.

Puts the flights of the last day again, dated a year later and two and so on, one durable write at
a time, and reports the key of each on standard output once the write is acknowledged.  Never ends
by itself.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np

import cesium

YEAR = np.timedelta64(365 * 86400, "s")


def moved(key: tuple[Any, ...], years: int) -> tuple[Any, ...]:
    """The same flight so many years (of 365 days) later."""
    return (key[0] + YEAR * years, *key[1:])


def key_line(key: tuple[Any, ...]) -> str:
    return ",".join(map(str, key))


def run(path: str) -> None:
    """Writes and reports until it is killed."""
    with cesium.open(path, flag="w", durability="sync") as store:
        last_day = store.last()[0][0] - np.timedelta64(86400, "s")
        flights = list(store.range((last_day,), None))
        for years in itertools.count(1):
            for key, value in flights:
                later = moved(key, years)
                store.put(later, value)
                os.write(1, f"{key_line(later)}\n".encode())
