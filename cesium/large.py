"""Values too large for a journal frame: they go out as a load of one row."""

from __future__ import annotations

import numpy as np

from cesium._keys import EncodedKeys
from cesium._values import EncodedValues
from cesium.errors import LimitError
from cesium.options import VALUE_BYTES_MOST, Options

DRAFTED_BYTES_MOST = 16 << 20  # of a value in a transaction


def one_row(key: bytes | bool, head: int, value: bytes) -> tuple[EncodedKeys, EncodedValues]:
    """One encoded row as a batch; the value is not copied.  key: True in the fixed form."""
    if isinstance(key, bool):
        keys = EncodedKeys(1, np.array([head], np.uint64))
    else:
        data = np.frombuffer(key, np.uint8)
        keys = EncodedKeys(1, None, np.array([0, len(key)], np.int64), data)
    offsets = np.array([0, len(value)], np.int64)
    return keys, EncodedValues(1, None, offsets, np.frombuffer(value, np.uint8))


def check_drafted(values: EncodedValues) -> None:
    """LimitError for a value that a transaction does not take."""
    if values.offsets is not None and values.count:
        largest = int(np.diff(values.offsets).max())
        if largest > DRAFTED_BYTES_MOST:
            raise LimitError(
                f"a value of {largest:,} bytes: a transaction takes up to {DRAFTED_BYTES_MOST:,}"
            )


def check_sizes(values: EncodedValues, options: Options) -> None:
    """LimitError for a value that only a blob file takes, in a store that makes none."""
    if options.blob_threshold is not None or values.offsets is None or values.count == 0:
        return
    largest = int(np.diff(values.offsets).max())
    if largest > VALUE_BYTES_MOST:
        raise LimitError(
            f"a value of {largest:,} bytes is longer than {VALUE_BYTES_MOST:,} bytes: open the "
            "store with a blob_threshold"
        )
