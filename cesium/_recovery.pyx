"""Applying journal frames to a table's memtable when a store is opened.

Runs before the store is handed out, so nothing else touches the table.  The bytes were checked by
the replay (cesium.replay); operations are bounds-checked again as they are read.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from cesium._engine cimport Batch, Engine, TableCore
from cesium._frames cimport (
    JOURNAL_DELETE, JOURNAL_DELETE_RANGE, JOURNAL_FRAME_ATTACH, JOURNAL_FRAME_COMMIT,
    JOURNAL_FRAME_END, JOURNAL_HIGH_UNBOUNDED, JournalFrame, JournalOperation,
    journal_next_frame, journal_next_operation,
)
from cesium._layout cimport KIND_DELETE, KIND_VALUE, STATUS_NOT_FOUND, STATUS_OK
from cesium._native cimport load_head
from cesium._page cimport Key
from cesium.errors import CorruptionError, Error


cdef object offsets_of(const uint32_t *lengths, uint64_t count):
    """int64[count + 1] from the lengths of a variable block."""
    cdef int64_t[::1] view
    cdef uint64_t index
    offsets = np.empty(count + 1, np.int64)
    view = offsets
    view[0] = 0
    for index in range(count):
        view[index + 1] = view[index] + lengths[index]
    return offsets


cdef int apply_operation(TableCore core, const JournalOperation *operation) except -1:
    cdef Batch batch
    cdef Key low
    cdef Key high
    cdef int64_t[::1] key_offsets
    cdef int64_t[::1] value_offsets
    cdef bint fixed = core.shape.shape.key_width != 0
    cdef bint unbounded
    if operation.table_id != core.table_id:
        raise CorruptionError(
            f"the journal writes to table {operation.table_id}, which is not there")
    if fixed != (operation.heads != NULL):
        raise CorruptionError("the journal holds keys of another form than the table's")
    if operation.kind == JOURNAL_DELETE_RANGE:
        memset(&low, 0, sizeof(Key))
        memset(&high, 0, sizeof(Key))
        if fixed:
            low.head = operation.heads[0]
            high.head = operation.heads[1]
        else:
            low.data = operation.key_data
            low.bytes = operation.key_lengths[0]
            low.head = load_head(low.data, low.bytes)
            high.data = operation.key_data + low.bytes
            high.bytes = operation.key_lengths[1]
            high.head = load_head(high.data, high.bytes)
        unbounded = operation.flags & JOURNAL_HIGH_UNBOUNDED
        core.apply_delete_range(&low, &high, unbounded)
        return 0
    memset(&batch, 0, sizeof(Batch))
    batch.count = operation.row_count
    batch.kind = KIND_DELETE if operation.kind == JOURNAL_DELETE else KIND_VALUE
    if fixed:
        batch.heads = operation.heads
    else:
        key_offsets = offsets_of(operation.key_lengths, batch.count)
        batch.key_offsets = &key_offsets[0]
        batch.key_data = operation.key_data
    if batch.kind == KIND_VALUE:
        if operation.value_lengths != NULL:
            value_offsets = offsets_of(operation.value_lengths, batch.count)
            batch.value_offsets = &value_offsets[0]
            batch.value_data = operation.value_data
        else:
            batch.rows = operation.value_data
        if operation.value_width_bytes != core.shape.shape.value_width:
            raise CorruptionError(
                f"the journal holds values of {operation.value_width_bytes} bytes; "
                f"the table's have {core.shape.shape.value_width}")
    core.apply_batch(&batch)
    return 0


def apply_span(TableCore core, const uint8_t[::1] data, uint64_t start, uint64_t end, attach):
    """Applies the frames of data[start:end]; `attach(sequence, payload)` is called for attach
    frames with their JSON bytes."""
    cdef JournalFrame frame
    cdef JournalOperation operation
    cdef uint64_t position = start
    cdef uint64_t offset
    cdef uint64_t length
    cdef int status
    cdef Engine engine = core.engine
    while journal_next_frame(&data[0], end, &position, &frame) == STATUS_OK:
        if (frame.header.codec or frame.header.key_id
                or not JOURNAL_FRAME_COMMIT <= frame.header.frame_type <= JOURNAL_FRAME_END):
            raise Error(f"the journal at {frame.position} has a frame that cesium cannot read: "
                        f"type {frame.header.frame_type}, codec {frame.header.codec}, "
                        f"key {frame.header.key_id}")
        if frame.header.frame_type == JOURNAL_FRAME_ATTACH:
            length = 0
            if frame.payload_bytes >= 8:
                memcpy(&length, frame.payload, 8)
            if frame.payload_bytes < 8 or length > frame.payload_bytes - 8:
                raise CorruptionError("an attach frame of the journal is cut off")
            attach(frame.header.sequence, frame.payload[8:8 + length])
        elif frame.header.frame_type == JOURNAL_FRAME_COMMIT:
            offset = 0
            while True:
                status = journal_next_operation(&frame, &offset, &operation)
                if status == STATUS_NOT_FOUND:
                    break
                if status != STATUS_OK:
                    raise CorruptionError("a journal frame holds what is no operation")
                apply_operation(core, &operation)
        engine.sequence = max(engine.sequence, frame.header.sequence)
