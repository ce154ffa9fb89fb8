"""The value form of a table: from what a caller or the manifest names to a codec."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._values import BytesCodec, NumberCodec, StrCodec, ValueCodec


def value_codec(spec: Any) -> ValueCodec:
    """The codec of a value specification."""
    if spec in ("bytes", bytes):
        return BytesCodec()
    if spec in ("str", str):
        return StrCodec()
    return NumberCodec(np.dtype(spec).newbyteorder("<"))
