"""The rows of a bulk load, for as long as the segments that it wrote are there.

The journal has but the names of the segments; a merge reads them and removes them.

Thread safety: a LoadedRows may be used from any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cesium._engine import TableCore
from cesium._keys import EncodedKeys
from cesium._ranges import EncodedRange, RangeReader, View
from cesium._values import EncodedValues
from cesium.errors import NotKeptError
from cesium.overlap import encoded_bound

if TYPE_CHECKING:
    from cesium.state import SegmentRecord
    from cesium.table_engine import TableEngine

Encoded = int | bytes


class LoadedRows:
    """What the segments of one load hold; nothing is opened before it is asked for."""

    def __init__(self, table: TableEngine, sequence: int, records: list[SegmentRecord]) -> None:
        self.table = table
        self._sequence = sequence
        self._records = records

    @property
    def count(self) -> int:
        """The rows, of which no two have the same key."""
        return sum(record.rows for record in self._records)

    def _reader(self, lower: Encoded, upper: Encoded | None, limit: int | None) -> RangeReader:
        table = self.table
        readers = [table.reader(record) for record in self._records]
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
        core = TableCore(table.store.core_engine, table.record.id, table.shape, 0)
        core.publish(table.version_of([readers], []))
        return RangeReader(View(core), EncodedRange(core, lower, upper), False, limit)

    def read(self) -> tuple[EncodedKeys, EncodedValues]:
        """All rows in key order; NotKeptError when they were merged away."""
        lowest = 0 if self.table.shape.key_width else b""
        reader = self._reader(lowest, None, None)
        keys, values = reader.read(*self.table.codecs)
        assert keys is not None and values is not None
        return keys, values

    def arrays(self) -> tuple[Any, Any]:
        """The same as `Range.arrays` gives them."""
        keys, values = self.read()
        key_codec, value_codec = self.table.codecs
        return key_codec.decode_array(keys), value_codec.decode_array(values)

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
