"""CRC32C for Python code.  Thread-safe; releases the GIL."""

from __future__ import annotations

from cesium._frames import checksum as crc32c

__all__ = ["crc32c"]
