"""The rows of a bulk load, for as long as the segments that it wrote are there.

The journal has but the names of the segments; a merge reads them and removes them.

Thread safety: a LoadedRows may be used from any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cesium._engine import TableCore
from cesium._keys import EncodedKeys
from cesium._ranges import EncodedRange, RangeReader, View
from cesium._values import EncodedValues
from cesium.errors import NotKeptError
from cesium.overlap import encoded_bound

if TYPE_CHECKING:
    from cesium.engine import StoreEngine
    from cesium.state import SegmentRecord

Encoded = int | bytes


class LoadedRows:
    """What the segments of one load hold; nothing is opened before it is asked for."""

    def __init__(self, engine: StoreEngine, sequence: int, records: list[SegmentRecord]) -> None:
        self._engine = engine
        self._sequence = sequence
        self._records = records

    @property
    def count(self) -> int:
        """The rows, of which no two have the same key."""
        return sum(record.rows for record in self._records)

    def _reader(self, lower: Encoded, upper: Encoded | None, limit: int | None) -> RangeReader:
        engine = self._engine
        readers = [engine.reader(record) for record in self._records]
        try:
            for reader in readers:
                reader.pin()
                for blob in reader.blobs:
                    blob.pin()
        except FileNotFoundError as error:
            raise NotKeptError(
                f"the rows of the load with sequence {self._sequence} were merged with others "
                "since: read the keys from the store"
            ) from error
        core = TableCore(engine.core_engine, engine.table.id, engine.shape, 0)
        core.publish(engine.version_of([readers], []))
        return RangeReader(View(core), EncodedRange(core, lower, upper), False, limit)

    def read(self) -> tuple[EncodedKeys, EncodedValues]:
        """All rows in key order; NotKeptError when they were merged away."""
        lowest = 0 if self._engine.keys.width else b""
        reader = self._reader(lowest, None, None)
        keys, values = reader.read(self._engine.keys, self._engine.values)
        assert keys is not None and values is not None
        return keys, values

    def touches(self, lower: Encoded, upper: Encoded | None) -> bool:
        """Whether a row lies in the half-open interval; when they were merged away, one may."""
        first = encoded_bound(lower)
        end = None if upper is None else encoded_bound(upper)
        if not any(
            record.upper >= first and (end is None or record.lower < end)
            for record in self._records
        ):
            return False
        try:
            return self._reader(lower, upper, 1).count() > 0
        except NotKeptError:
            return True
