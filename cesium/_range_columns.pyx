"""A range as columns: keys decoded, values field by field, of those that are wanted alone.

What is not wanted is not copied.  Keys that are heads are decoded in stretches that stay in the
cache, straight into the arrays that the caller gets.

Thread safety: as the RangeReader's.  The GIL is released while rows are copied.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memset

import numpy as np

from cesium._keys cimport EncodedKeys, KeyCodec
from cesium._page cimport Shape
from cesium._ranges cimport RangeReader, own
from cesium._rows cimport Rows, rows_free
from cesium._values cimport EncodedValues

cdef enum:
    STRETCH_ROWS = 32768        # 256 KiB of heads: they stay in L2 until they are decoded
    FIELDS_MOST = 255
    BATCH_DATA_BYTES = 1 << 25  # of the variable form in one batch, but for one row


def read_columns(RangeReader reader not None, KeyCodec keys, object fields, object most=None):
    """Up to `most` further rows as (number of rows, keys, values); fewer where they are long.

    keys: the codec that decodes them, or None: keys are not copied, and None comes.  fields:
    numbers of fields of fixed values, for each of which a uint8 array of packed items comes; None:
    whole values of the variable form, as EncodedValues; empty: values are not copied.
    """
    cdef uint64_t capacity = reader.room(most)
    reader.plan_scan(most is None and reader.left == <uint64_t>-1, False)
    if reader.view.shape.key_width == 0 or reader.view.shape.value_width == 0 and fields is None:
        return read_at_once(reader, keys, fields, capacity, 0 if most is None else BATCH_DATA_BYTES)
    return read_in_stretches(reader, keys, fields, capacity)


cdef object read_in_stretches(RangeReader reader, KeyCodec keys, object fields, uint64_t capacity):
    """Keys are heads, and values fixed or not wanted."""
    cdef Rows rows
    cdef uint32_t numbers[FIELDS_MOST]
    cdef uint8_t *targets[FIELDS_MOST]
    cdef uint8_t *starts[FIELDS_MOST]
    cdef uint32_t number
    cdef uint64_t done = 0
    cdef uint64_t came
    cdef uint64_t[::1] heads
    cdef EncodedKeys encoded
    memset(&rows, 0, sizeof(Rows))
    columns = take_fields(&rows, reader.view.shape, fields, capacity, numbers, starts, targets)
    rows.skip_keys = keys is None
    buffer = np.empty(max(<uint64_t>1, min(capacity, <uint64_t>STRETCH_ROWS)), np.uint64)
    heads = buffer
    rows.heads = &heads[0]
    decoded = None if keys is None else empty_keys(keys, capacity)
    while done < capacity:
        rows.count = 0
        rows.capacity = min(capacity - done, <uint64_t>STRETCH_ROWS)
        for number in range(rows.column_count):
            targets[number] = starts[number] + done * (
                reader.view.shape.field_widths[numbers[number]])
        came = reader.fill(&rows, rows.capacity)
        if keys is not None and came:
            encoded = EncodedKeys.__new__(EncodedKeys)
            encoded.count = <Py_ssize_t>came
            encoded.heads = buffer[:came]
            put_keys(decoded, keys.decode_array(encoded), done)
        done += came
        if came < rows.capacity:
            break
    reader.rows_most -= done
    return done, cut_keys(decoded, done), [
        cut(column, done * (len(column) // capacity if capacity else 0)) for column in columns]


cdef object read_at_once(RangeReader reader, KeyCodec keys, object fields, uint64_t capacity,
                         uint64_t data_bytes_most):
    """Keys, or values, are of the variable form: their bytes lie behind one another."""
    cdef Rows rows
    cdef uint32_t numbers[FIELDS_MOST]
    cdef uint8_t *targets[FIELDS_MOST]
    cdef uint8_t *starts[FIELDS_MOST]
    cdef const Shape *shape = reader.view.shape
    cdef uint64_t[::1] heads
    cdef EncodedKeys encoded
    cdef EncodedValues values
    cdef Py_ssize_t count
    memset(&rows, 0, sizeof(Rows))
    columns = take_fields(&rows, shape, fields, capacity, numbers, starts, targets)
    rows.skip_keys = keys is None
    rows.capacity = capacity
    rows.data_bytes_most = data_bytes_most
    head_array = np.empty(max(<uint64_t>1, capacity if shape.key_width else 0), np.uint64)
    heads = head_array
    decoded = None
    try:
        if shape.key_width:
            rows.heads = &heads[0]
        elif keys is not None:
            rows.key_offsets = offsets_of(capacity)
        if fields is None:
            rows.value_offsets = offsets_of(capacity)
        reader.fill(&rows, capacity)
        reader.rows_most -= rows.count
        count = <Py_ssize_t>rows.count
        if keys is not None:
            encoded = EncodedKeys.__new__(EncodedKeys)
            encoded.count = count
            if shape.key_width:
                encoded.heads = head_array[:count]
            else:
                encoded.offsets = own(rows.key_offsets, (count + 1) * 8, np.int64)
                rows.key_offsets = NULL
                encoded.data = own(rows.key_data, encoded.offsets[count], np.uint8)
                rows.key_data = NULL
            decoded = keys.decode_array(encoded)
        if fields is None:
            values = EncodedValues.__new__(EncodedValues)
            values.count = count
            values.offsets = own(rows.value_offsets, (count + 1) * 8, np.int64)
            rows.value_offsets = NULL
            values.data = own(rows.value_data, values.offsets[count], np.uint8)
            rows.value_data = NULL
            return count, decoded, values
        return count, decoded, [
            cut(column, count * (len(column) // capacity if capacity else 0)) for column in columns]
    finally:
        rows.heads = NULL       # numpy's own
        rows_free(&rows)


cdef int64_t *offsets_of(uint64_t capacity) except NULL:
    cdef int64_t *offsets = <int64_t *>calloc(capacity + 1, 8)
    if offsets == NULL:
        raise MemoryError
    return offsets


cdef list take_fields(Rows *rows, const Shape *shape, object fields, uint64_t capacity,
                      uint32_t *numbers, uint8_t **starts, uint8_t **targets):
    """Arrays for the fields, and the Rows that fills them."""
    cdef uint8_t[::1] memory
    cdef uint32_t number
    cdef list columns = []
    rows.skip_values = fields is not None and not fields
    if shape.value_width == 0:
        if fields:
            raise IndexError("values of the variable form have no fields")
        return columns
    if fields is None:
        raise IndexError("fixed values are read by field")
    for number, field in enumerate(fields):
        if not 0 <= field < shape.field_count:
            raise IndexError(f"field {field} of {shape.field_count}")
        column = np.empty(capacity * shape.field_widths[<uint32_t>field], np.uint8)
        columns.append(column)
        numbers[number] = field
        memory = column
        starts[number] = targets[number] = &memory[0] if capacity else NULL
    rows.column_count = <uint32_t>len(columns)
    rows.fields = numbers
    rows.columns = targets
    return columns


cdef object empty_keys(KeyCodec keys, uint64_t capacity):
    """Arrays of the dtypes that the codec decodes to, and of so many rows."""
    cdef EncodedKeys none = EncodedKeys.__new__(EncodedKeys)
    none.heads = np.empty(0, np.uint64)
    sample = keys.decode_array(none)
    if isinstance(sample, tuple):
        return tuple([np.empty(capacity, part.dtype) for part in sample])
    return np.empty(capacity, sample.dtype)


cdef object put_keys(object target, object decoded, uint64_t place):
    if isinstance(target, tuple):
        for part, source in zip(target, decoded):
            part[place:place + len(source)] = source
    else:
        target[place:place + len(decoded)] = decoded


cdef object cut(object array, uint64_t count):
    """The first `count` items; what is much too long, overlapping sources being counted twice, is
    given back."""
    cdef uint64_t room = <uint64_t>len(array)
    return array[:count].copy() if count < room - room // 8 else array[:count]


cdef object cut_keys(object decoded, uint64_t count):
    if isinstance(decoded, tuple):
        return tuple([cut(part, count) for part in decoded])
    return None if decoded is None else cut(decoded, count)
