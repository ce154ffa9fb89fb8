"""Reductions over a range, in its pages: totals of columns, chosen rows, extremes of stretches.

A column's values of one run are copied to where they are aligned, in L1, and added up there, eight
lanes at once; runs are joined with a compensated sum (Neumaier), so that a sum of floats is at
least as exact as numpy's pairwise one.  Integers are added exactly, in 128 bits.

Thread safety: as the RangeReader's.  The GIL is released for STEP_ROWS rows at a time.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import numpy as np

from cesium._cursor cimport Cursor, Run, cursor_give_back, cursor_next, cursor_whole
from cesium._keys cimport KeyCodec
from cesium._layout cimport STATUS_NOT_FOUND, STATUS_OK
from cesium._page cimport Shape, run_of
from cesium._ranges cimport RangeReader
from cesium._rows cimport Rows, copy_run, rows_free, take_rows
from cesium._values cimport ValueCodec

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

cdef extern from * nogil:
    """
    #include <math.h>
    #include <stdint.h>
    #include <string.h>

    #define CESIUM_LANES 8

    typedef struct {                /* of one column */
        uint64_t present;           /* values that are there; the others are NaN or NaT */
        uint64_t missing;
        double sum;                 /* of floats, */
        double lost;                /* and what rounding took from it */
        __int128 whole;             /* of integers and times */
        double low;                 /* of floats; NaN-free, infinite when nothing is present */
        double high;
        int64_t least;              /* of signed integers, bool and times */
        int64_t most;
        uint64_t least_unsigned;
        uint64_t most_unsigned;
        double mean;                /* of all runs so far, */
        double squares;             /* and the sum of squared distances from it (Chan's update) */
    } cesium_total;

    static void cesium_total_start(cesium_total *total) {
        memset(total, 0, sizeof(*total));
        total->low = INFINITY;
        total->high = -INFINITY;
        total->least = INT64_MAX;
        total->most = INT64_MIN;
        total->least_unsigned = UINT64_MAX;
    }

    static void cesium_total_add(cesium_total *total, double sum) {
        double joined = total->sum + sum;
        if (fabs(total->sum) >= fabs(sum))
            total->lost += (total->sum - joined) + sum;
        else
            total->lost += (sum - joined) + total->sum;
        total->sum = joined;
    }

    static void cesium_total_spread(cesium_total *total, uint64_t count, double mean,
                                    double squares) {
        double before = (double)total->present, all = before + (double)count;
        double apart = mean - total->mean;
        if (count == 0)
            return;
        total->mean += apart * ((double)count / all);
        total->squares += squares + apart * apart * (before * (double)count / all);
    }

    #define CESIUM_FLOATS(NAME, T)                                                              \\
    static void NAME(const T *values, uint32_t count, int spread, cesium_total *total) {        \\
        double sums[CESIUM_LANES] = {0}, sum = 0, squares = 0, mean;                            \\
        T lows[CESIUM_LANES], highs[CESIUM_LANES];                                              \\
        uint32_t there[CESIUM_LANES] = {0}, present = 0, index, lane;                           \\
        for (lane = 0; lane < CESIUM_LANES; lane++) {                                           \\
            lows[lane] = (T)INFINITY;                                                           \\
            highs[lane] = -(T)INFINITY;                                                         \\
        }                                                                                       \\
        for (index = 0; index < count; index += CESIUM_LANES)                                   \\
            for (lane = 0; lane < CESIUM_LANES; lane++) {                                       \\
                T value = values[index + lane];     /* filled up with NaN */                    \\
                there[lane] += value == value;                                                  \\
                sums[lane] += value == value ? (double)value : 0.0;                             \\
                lows[lane] = value < lows[lane] ? value : lows[lane];                           \\
                highs[lane] = value > highs[lane] ? value : highs[lane];                        \\
            }                                                                                   \\
        for (lane = 0; lane < CESIUM_LANES; lane++) {                                           \\
            present += there[lane];                                                             \\
            sum += sums[lane];                                                                  \\
            if (lows[lane] < total->low) total->low = lows[lane];                               \\
            if (highs[lane] > total->high) total->high = highs[lane];                           \\
        }                                                                                       \\
        cesium_total_add(total, sum);                                                           \\
        if (spread && present) {                                                                \\
            mean = sum / present;                                                               \\
            for (index = 0; index < count; index++)                                             \\
                if (values[index] == values[index])                                             \\
                    squares += ((double)values[index] - mean) * ((double)values[index] - mean); \\
            cesium_total_spread(total, present, mean, squares);                                 \\
        }                                                                                       \\
        total->present += present;                                                              \\
        total->missing += count - present;                                                      \\
    }

    CESIUM_FLOATS(cesium_reduce_double, double)
    CESIUM_FLOATS(cesium_reduce_float, float)

    /* HIGH and LOW halves apart: 2^20 of either do not overflow 64 bits. */
    #define CESIUM_WHOLES(NAME, T, LEAST, MOST, WIDE, IS_MISSING)                               \\
    static void NAME(const T *values, uint32_t count, int spread, cesium_total *total) {        \\
        int64_t high = 0;                                                                       \\
        uint64_t low = 0;                                                                       \\
        uint32_t missing = 0, index;                                                            \\
        WIDE least = total->LEAST, most = total->MOST;                                          \\
        double mean, squares = 0;                                                               \\
        __int128 whole;                                                                         \\
        for (index = 0; index < count; index++) {                                               \\
            WIDE value = values[index];                                                         \\
            int absent = IS_MISSING;                                                            \\
            missing += absent;                                                                  \\
            high += absent ? 0 : (int64_t)(value >> 32);                                        \\
            low += absent ? 0 : (uint32_t)value;                                                \\
            least = !absent && value < least ? value : least;                                   \\
            most = !absent && value > most ? value : most;                                      \\
        }                                                                                       \\
        total->LEAST = least;                                                                   \\
        total->MOST = most;                                                                     \\
        whole = (__int128)high * ((__int128)1 << 32) + low;                                     \\
        total->whole += whole;                                                                  \\
        if (spread && count > missing) {                                                        \\
            mean = (double)whole / (count - missing);                                           \\
            for (index = 0; index < count; index++) {                                           \\
                WIDE value = values[index];                                                     \\
                if (!(IS_MISSING))                                                              \\
                    squares += ((double)value - mean) * ((double)value - mean);                 \\
            }                                                                                   \\
            cesium_total_spread(total, count - missing, mean, squares);                         \\
        }                                                                                       \\
        total->present += count - missing;                                                      \\
        total->missing += missing;                                                              \\
    }

    CESIUM_WHOLES(cesium_reduce_i1, int8_t, least, most, int64_t, 0)
    CESIUM_WHOLES(cesium_reduce_i2, int16_t, least, most, int64_t, 0)
    CESIUM_WHOLES(cesium_reduce_i4, int32_t, least, most, int64_t, 0)
    CESIUM_WHOLES(cesium_reduce_i8, int64_t, least, most, int64_t, 0)
    CESIUM_WHOLES(cesium_reduce_time, int64_t, least, most, int64_t, value == INT64_MIN)
    CESIUM_WHOLES(cesium_reduce_u1, uint8_t, least_unsigned, most_unsigned, uint64_t, 0)
    CESIUM_WHOLES(cesium_reduce_u2, uint16_t, least_unsigned, most_unsigned, uint64_t, 0)
    CESIUM_WHOLES(cesium_reduce_u4, uint32_t, least_unsigned, most_unsigned, uint64_t, 0)
    CESIUM_WHOLES(cesium_reduce_u8, uint64_t, least_unsigned, most_unsigned, uint64_t, 0)

    static float cesium_half(uint16_t bits) {
        uint32_t sign = (uint32_t)(bits >> 15) << 31, exponent = bits >> 10 & 31;
        uint32_t mantissa = bits & 1023, joined;
        float value;
        if (exponent == 0) {
            value = ldexpf((float)mantissa, -24);
            return sign ? -value : value;
        }
        joined = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | mantissa << 13;
        memcpy(&value, &joined, 4);
        return value;
    }

    static void cesium_reduce_half(const uint16_t *values, uint32_t count, int spread,
                                   cesium_total *total) {
        float single[2048 + CESIUM_LANES];
        uint32_t index;
        for (index = 0; index < count; index++)
            single[index] = cesium_half(values[index]);
        for (index = count; index < count + CESIUM_LANES; index++)
            single[index] = NAN;
        cesium_reduce_float(single, count, spread, total);
    }

    static uint64_t cesium_total_low_word(const cesium_total *total) {
        return (uint64_t)total->whole;
    }
    static int64_t cesium_total_high_word(const cesium_total *total) {
        return (int64_t)(total->whole >> 64);
    }

    /* kind: the dtype's character, 'M' for either kind of time, '?' for bool; width: bytes */
    /* Not inlined: the compiler must not think about the types that the buffer has elsewhere. */
    __attribute__((noinline))
    static void cesium_reduce(char kind, uint32_t width, void *values, uint32_t count, int spread,
                              cesium_total *total) {
        uint32_t index;
        if (kind == 'f') {
            /* The lanes read up to seven more: there is room. */
            for (index = count; index < count + CESIUM_LANES; index++) {
                if (width == 8) ((double *)values)[index] = NAN;
                else if (width == 4) ((float *)values)[index] = NAN;
            }
            if (width == 8) cesium_reduce_double(values, count, spread, total);
            else if (width == 4) cesium_reduce_float(values, count, spread, total);
            else cesium_reduce_half(values, count, spread, total);
        } else if (kind == 'M') cesium_reduce_time(values, count, spread, total);
        else if (kind == 'i') {
            if (width == 8) cesium_reduce_i8(values, count, spread, total);
            else if (width == 4) cesium_reduce_i4(values, count, spread, total);
            else if (width == 2) cesium_reduce_i2(values, count, spread, total);
            else cesium_reduce_i1(values, count, spread, total);
        } else {
            if (width == 8) cesium_reduce_u8(values, count, spread, total);
            else if (width == 4) cesium_reduce_u4(values, count, spread, total);
            else if (width == 2) cesium_reduce_u2(values, count, spread, total);
            else cesium_reduce_u1(values, count, spread, total);
        }
    }

    /* One value as a float, NaN for what is missing. */
    static double cesium_number(char kind, uint32_t width, const uint8_t *place) {
        union { double d; float f; int64_t i8; int32_t i4; int16_t i2; int8_t i1;
                uint64_t u8; uint32_t u4; uint16_t u2; uint8_t u1; } value;
        memcpy(&value, place, width);
        if (kind == 'f')
            return width == 8 ? value.d : width == 4 ? value.f : cesium_half(value.u2);
        if (kind == 'M')
            return value.i8 == INT64_MIN ? NAN : (double)value.i8;
        if (kind == 'i')
            return width == 8 ? (double)value.i8 : width == 4 ? value.i4
                   : width == 2 ? value.i2 : value.i1;
        return width == 8 ? (double)value.u8 : width == 4 ? value.u4
               : width == 2 ? value.u2 : value.u1;
    }
    """
    ctypedef struct Total "cesium_total":
        uint64_t present
        uint64_t missing
        double sum
        double lost
        double low
        double high
        int64_t least
        int64_t most
        uint64_t least_unsigned
        uint64_t most_unsigned
        double squares
    void total_start "cesium_total_start"(Total *total)
    void reduce_values "cesium_reduce"(char kind, uint32_t width, void *values, uint32_t count,
                                       bint spread, Total *total)
    uint64_t low_word "cesium_total_low_word"(const Total *total)
    int64_t high_word "cesium_total_high_word"(const Total *total)
    double number_of "cesium_number"(char kind, uint32_t width, const uint8_t *place)
    bint isfinite(double value)
    double INFINITY_ "INFINITY"

cdef enum:
    STEP_ROWS = 1 << 22         # between two looks for an interrupt
    FIELDS_MOST = 255
    VALUES_OF_A_PAGE = 520      # 4096 bytes of 8, and room for the lanes


cdef struct Column:
    uint32_t field
    uint32_t width
    char kind
    Total total


def reduce_columns(RangeReader reader not None, fields, kinds, bint spread):
    """Totals of columns of fixed values, over all rows to come; the reader is used up.

    fields: numbers of column runs.  kinds: for each "f", "i", "u", "M" (time) or "?".
    For each column a tuple: values that are present, missing ones (NaN, NaT), the sum (int or
    float), the least and the most (None when nothing is present), and, with `spread`, the sum of
    squared distances from the mean (else 0).
    """
    cdef const Shape *shape = reader.view.shape
    cdef Column *columns
    cdef uint32_t count = <uint32_t>len(fields)
    cdef uint32_t number
    if not 0 < count <= FIELDS_MOST or len(kinds) != count:
        raise IndexError(f"{count} fields")
    columns = <Column *>calloc(count, sizeof(Column))
    if columns == NULL:
        raise MemoryError
    try:
        for number in range(count):
            if not 0 <= fields[number] < shape.field_count:
                raise IndexError(f"field {fields[number]} of {shape.field_count}")
            columns[number].field = fields[number]
            columns[number].width = shape.field_widths[columns[number].field]
            columns[number].kind = ord(kinds[number])
            if columns[number].width > 8:
                raise IndexError(f"field {fields[number]} is no number")
            total_start(&columns[number].total)
        reader.plan_scan(reader.left == <uint64_t>-1, False)
        while read_step(reader, columns, count, spread):
            PyErr_CheckSignals()
        return [result_of(&columns[number]) for number in range(count)]
    finally:
        free(columns)


cdef object result_of(const Column *column):
    cdef const Total *total = &column.total
    least = most = None
    if column.kind == b"f":
        if total.present:
            least, most = total.low, total.high
        added = total.sum + total.lost if isfinite(total.sum) else total.sum
    else:
        if total.present:
            if column.kind == b"i" or column.kind == b"M":
                least, most = total.least, total.most
            else:
                least, most = total.least_unsigned, total.most_unsigned
        added = (<object>high_word(total) << 64) + low_word(total)
    return total.present, total.missing, added, least, most, total.squares


cdef bint read_step(RangeReader reader, Column *columns, uint32_t count,
                    bint spread) except -1:
    """Adds up to STEP_ROWS further rows; False at the end."""
    cdef uint64_t most = min(<uint64_t>STEP_ROWS, reader.left)
    cdef uint64_t done = 0
    cdef int status
    if reader.exhausted or most == 0:
        return False
    with nogil:
        status = add_runs(reader.view.shape, reader.cursor, &reader.pending, most, columns, count,
                          spread, &done)
    reader.view.check(status, reader.seen)
    reader.view.sweep_behind(reader.cursor)
    reader.left -= done
    if status == STATUS_NOT_FOUND:
        reader.exhausted = True
    return not reader.exhausted


cdef int add_runs(const Shape *shape, Cursor *cursor, Run *pending, uint64_t most,
                  Column *columns, uint32_t count, bint spread, uint64_t *done) noexcept nogil:
    cdef double values[VALUES_OF_A_PAGE]        # aligned
    cdef Run run
    cdef Run part
    cdef uint32_t rows
    cdef uint32_t number
    cdef uint32_t width
    cdef int status = STATUS_OK
    cdef int whole
    while done[0] < most:
        status = cursor_next(cursor, pending, &run)
        if status != STATUS_OK:
            break
        rows = take_rows(cursor, &run, &part, most - done[0])
        for number in range(count):
            width = columns[number].width
            memcpy(values, run_of(shape, part.page, columns[number].field) + part.first * width,
                   rows * width)
            reduce_values(columns[number].kind, width, values, rows, spread,
                          &columns[number].total)
        done[0] += rows
        cursor_give_back(cursor, pending, &run)
    whole = cursor_whole(cursor)
    return whole if whole != STATUS_OK else status


# --- chosen rows ---------------------------------------------------------------------------------


def pick_rows(RangeReader reader not None, KeyCodec keys, ValueCodec values, ranks):
    """The rows at `ranks` (int64, rising; 0 is the next row) as RangeReader.read gives rows; the
    reader is used up."""
    cdef const int64_t[::1] wanted = np.ascontiguousarray(ranks, np.int64)
    cdef const Shape *shape = reader.view.shape
    cdef uint64_t count = wanted.shape[0]
    cdef uint64_t[::1] heads
    cdef uint8_t[::1] fixed
    cdef uint64_t done = 0
    cdef uint64_t place = 0
    cdef Rows rows
    cdef int status = STATUS_OK
    if count and (wanted[0] < 0 or (np.diff(ranks) <= 0).any()):
        raise IndexError("ranks rise from 0")
    head_array = None
    row_array = None
    memset(&rows, 0, sizeof(Rows))
    rows.capacity = count
    if shape.key_width:
        head_array = np.empty(count, np.uint64)
        heads = head_array
        rows.heads = &heads[0] if count else NULL
    if shape.value_width:
        row_array = np.empty(count * shape.value_width, np.uint8)
        fixed = row_array
        rows.rows = &fixed[0] if count else NULL
    try:
        if shape.key_width == 0:
            rows.key_offsets = <int64_t *>calloc(count + 1, 8)
        if shape.value_width == 0:
            rows.value_offsets = <int64_t *>calloc(count + 1, 8)
        if (shape.key_width == 0 and rows.key_offsets == NULL
                or shape.value_width == 0 and rows.value_offsets == NULL):
            raise MemoryError
        while done < count and status == STATUS_OK and place < reader.left:
            with nogil:
                status = pick_some(reader.cursor, &reader.pending, &wanted[0], count, &rows, &done,
                                   &place, min(reader.left, place + STEP_ROWS))
            reader.view.check(status, reader.seen)
            PyErr_CheckSignals()
        reader.exhausted = True
        return reader.wrap(&rows, keys, values, head_array, row_array, True, True)
    finally:
        rows.heads = NULL       # numpy's own
        rows.rows = NULL
        rows_free(&rows)


cdef int pick_some(Cursor *cursor, Run *pending, const int64_t *wanted, uint64_t count,
                   Rows *rows, uint64_t *done, uint64_t *place, uint64_t end) noexcept nogil:
    cdef Run run
    cdef Run part
    cdef Run one
    cdef uint32_t taken
    cdef uint32_t index
    cdef int status = STATUS_OK
    cdef int whole
    while done[0] < count and place[0] < end and status == STATUS_OK:
        status = cursor_next(cursor, pending, &run)
        if status != STATUS_OK:
            break
        taken = take_rows(cursor, &run, &part, end - place[0])
        while (done[0] < count and <uint64_t>wanted[done[0]] < place[0] + taken
               and status == STATUS_OK):
            index = <uint32_t>(<uint64_t>wanted[done[0]] - place[0])
            one = part
            one.first = part.first + index if cursor.direction > 0 else part.last - 1 - index
            one.last = one.first + 1
            status = copy_run(cursor, &one, rows)
            done[0] += 1
        place[0] += taken
        cursor_give_back(cursor, pending, &run)
    whole = cursor_whole(cursor)
    return whole if whole != STATUS_OK else status


# --- extremes of stretches -----------------------------------------------------------------------


def extreme_ranks(RangeReader reader not None, uint32_t field, str kind not None,
                  uint64_t total, uint64_t stretches):
    """Where the least and the most of each of `stretches` equal parts of `total` rows are.

    int64[2 * stretches]: ranks in each part, the lower one first; a part without any number, being
    NaN, gives its first row twice.  Rows beyond what there are give their part's first row, too.
    """
    cdef const Shape *shape = reader.view.shape
    cdef uint64_t place = 0
    cdef uint64_t stretch = 0
    cdef int status = STATUS_OK
    if not 0 < stretches <= total:
        raise IndexError(f"{stretches} parts of {total} rows")
    if field >= shape.field_count or shape.field_widths[field] > 8:
        raise IndexError(f"field {field} is no number")
    cdef object whole = total
    # Whole numbers of Python: a product of two of these may take more than 64 bits.
    edges = np.array([whole * part // stretches for part in range(stretches + 1)], np.uint64)
    found = np.repeat(edges[:stretches], 2).astype(np.int64)
    cdef int64_t[::1] ranks = found
    cdef const uint64_t[::1] ends = edges[1:]
    cdef double[2] extremes
    cdef char code = <char>ord(kind)
    extremes[0] = np.inf
    extremes[1] = -np.inf
    total = min(total, reader.left)
    reader.plan_scan(reader.left == <uint64_t>-1, False)
    while place < total and status == STATUS_OK:
        with nogil:
            status = find_extremes(shape, reader.cursor, &reader.pending, field, code, &ranks[0],
                                   &ends[0], extremes, &place, &stretch,
                                   min(total, place + STEP_ROWS))
        reader.view.check(status, reader.seen)
        PyErr_CheckSignals()
    reader.exhausted = True
    return np.sort(found.reshape(-1, 2), axis=1).reshape(-1)


cdef int find_extremes(const Shape *shape, Cursor *cursor, Run *pending, uint32_t field,
                       char kind, int64_t *ranks, const uint64_t *ends, double *extremes,
                       uint64_t *place, uint64_t *stretch, uint64_t end) noexcept nogil:
    cdef uint32_t width = shape.field_widths[field]
    cdef const uint8_t *column
    cdef Run run
    cdef Run part
    cdef uint32_t taken
    cdef uint32_t index
    cdef uint32_t slot
    cdef double value
    cdef int status = STATUS_OK
    cdef int whole
    while place[0] < end:
        status = cursor_next(cursor, pending, &run)
        if status != STATUS_OK:
            break
        taken = take_rows(cursor, &run, &part, end - place[0])
        column = run_of(shape, part.page, field)
        for index in range(taken):
            if place[0] == ends[stretch[0]]:
                stretch[0] += 1
                extremes[0] = INFINITY_
                extremes[1] = -INFINITY_
            slot = part.first + index if cursor.direction > 0 else part.last - 1 - index
            value = number_of(kind, width, column + slot * width)
            if value < extremes[0]:
                extremes[0] = value
                ranks[2 * stretch[0]] = <int64_t>place[0]
            if value > extremes[1]:
                extremes[1] = value
                ranks[2 * stretch[0] + 1] = <int64_t>place[0]
            place[0] += 1
        cursor_give_back(cursor, pending, &run)
    whole = cursor_whole(cursor)
    return whole if whole != STATUS_OK else status
