"""Operations of a commit: see _operations.pxd for the contract."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

import numpy as np

from cesium._engine cimport Batch, Operation, TableCore
from cesium._frames cimport (
    JOURNAL_DELETE, JOURNAL_DELETE_RANGE, JOURNAL_FIXED_KEYS, JOURNAL_FIXED_VALUES,
    JOURNAL_HIGH_UNBOUNDED, JOURNAL_PUT, JournalOperationHeader,
)
from cesium._journal cimport JournalPart
from cesium._keys cimport EncodedKeys
from cesium._layout cimport KIND_DELETE, KIND_VALUE
from cesium._page cimport Shape
from cesium._ranges cimport EncodedRange
from cesium._values cimport EncodedValues


cdef class JournaledOperation:
    """Made by batch_operation and range_operation."""

    cdef uint64_t bytes(self) noexcept:
        cdef uint64_t total = 0
        cdef int index
        for index in range(self.part_count):
            total += self.parts[index].bytes
        return total


cdef JournaledOperation batch_operation(TableCore core, EncodedKeys keys, EncodedValues values):
    cdef JournaledOperation made = JournaledOperation.__new__(JournaledOperation)
    cdef const Shape *shape = &core.shape.shape
    memset(&made.operation, 0, sizeof(Operation))
    fill_batch(shape, keys, values, &made.operation.batch)
    lengths = fill_parts(shape, core.table_id, keys, values, &made.operation.batch, &made.header,
                         made.parts, &made.part_count)
    made.holders = (keys, values, lengths)
    return made


cdef JournaledOperation range_operation(TableCore core, object lower, object upper):
    cdef JournaledOperation made = JournaledOperation.__new__(JournaledOperation)
    cdef EncodedRange interval = EncodedRange(core, lower, upper)
    cdef bytes joined = b""
    memset(&made.operation, 0, sizeof(Operation))
    made.operation.lower = interval.bounds.lower
    made.operation.unbounded = interval.bounds.unbounded
    if not interval.bounds.unbounded:
        made.operation.upper = interval.bounds.upper
    memset(&made.header, 0, sizeof(JournalOperationHeader))
    made.header.table_id = core.table_id
    made.header.kind = JOURNAL_DELETE_RANGE
    made.header.flags = JOURNAL_HIGH_UNBOUNDED if made.operation.unbounded else 0
    made.header.row_count = 1
    made.parts[0].data = &made.header
    made.parts[0].bytes = sizeof(JournalOperationHeader)
    made.part_count = 2
    if core.shape.shape.key_width:
        made.header.flags |= JOURNAL_FIXED_KEYS
        made.heads[0] = made.operation.lower.head
        made.heads[1] = made.operation.upper.head
        made.parts[1].data = made.heads
        made.parts[1].bytes = 16
        made.header.key_block_bytes = 16
    else:
        made.lengths[0] = made.operation.lower.bytes
        made.lengths[1] = made.operation.upper.bytes
        made.parts[1].data = made.lengths
        made.parts[1].bytes = 8
        joined = lower + (b"" if made.operation.unbounded else upper)
        made.parts[2].data = PyBytes_AS_STRING(joined)
        made.parts[2].bytes = PyBytes_GET_SIZE(joined)
        made.part_count = 3
        made.header.key_block_bytes = 8 + made.parts[2].bytes
    made.holders = (interval, joined)
    return made


cdef int fill_batch(const Shape *shape, EncodedKeys keys, EncodedValues values,
                    Batch *batch) except -1:
    cdef const uint64_t[::1] heads
    cdef const int64_t[::1] offsets
    cdef const uint8_t[::1] data
    cdef const uint8_t[:, ::1] rows
    memset(batch, 0, sizeof(Batch))
    batch.count = keys.count
    batch.kind = KIND_DELETE if values is None else KIND_VALUE
    if shape.key_width:
        heads = keys.heads
        batch.heads = &heads[0]
    else:
        offsets = keys.offsets
        batch.key_offsets = &offsets[0]
        data = keys.data
        batch.key_data = &data[0] if data.shape[0] else NULL
    if values is not None:
        if shape.value_width:
            rows = values.rows
            batch.rows = &rows[0, 0]
        else:
            offsets = values.offsets
            batch.value_offsets = &offsets[0]
            data = values.data
            batch.value_data = &data[0] if data.shape[0] else NULL
    return 0


cdef object add_variable(object offsets, object data, JournalPart *parts, int *part_count,
                         uint64_t *block_bytes):
    """The two parts of a variable-length block: lengths, then bytes."""
    cdef const uint32_t[::1] lengths = np.diff(offsets).astype(np.uint32)
    cdef const uint8_t[::1] content = data
    cdef uint64_t lengths_bytes = lengths.shape[0] * 4
    parts[part_count[0]].data = &lengths[0]
    parts[part_count[0]].bytes = lengths_bytes
    parts[part_count[0] + 1].data = &content[0] if content.shape[0] else NULL
    parts[part_count[0] + 1].bytes = content.shape[0]
    part_count[0] += 2
    block_bytes[0] = ((lengths_bytes + 7) & ~<uint64_t>7) + content.shape[0]
    return lengths


cdef object fill_parts(const Shape *shape, uint32_t table_id, EncodedKeys keys,
                       EncodedValues values, const Batch *batch, JournalOperationHeader *header,
                       JournalPart *parts, int *part_count):
    """The pieces of a batch's journal operation; the list returned keeps them alive."""
    cdef uint64_t block_bytes = 0
    holders = []
    memset(header, 0, sizeof(JournalOperationHeader))
    header.table_id = table_id
    header.kind = JOURNAL_DELETE if values is None else JOURNAL_PUT
    header.row_count = <uint32_t>batch.count
    parts[0].data = header
    parts[0].bytes = sizeof(JournalOperationHeader)
    part_count[0] = 1
    if shape.key_width:
        header.flags |= JOURNAL_FIXED_KEYS
        parts[1].data = batch.heads
        parts[1].bytes = batch.count * 8
        header.key_block_bytes = batch.count * 8
        part_count[0] = 2
    else:
        holders.append(add_variable(keys.offsets, keys.data, parts, part_count, &block_bytes))
        header.key_block_bytes = block_bytes
    if values is None:
        return holders
    if shape.value_width:
        header.flags |= JOURNAL_FIXED_VALUES
        parts[part_count[0]].data = batch.rows
        parts[part_count[0]].bytes = batch.count * shape.value_width
        header.value_block_bytes = batch.count * shape.value_width
        part_count[0] += 1
    else:
        holders.append(add_variable(values.offsets, values.data, parts, part_count, &block_bytes))
        header.value_block_bytes = block_bytes
    return holders
