# cython: auto_pickle=False, wraparound=True
"""Codecs of datetime64 and timedelta64 keys of one unit, NaT last.

See `_keys.pxd` for the contract.  A time of another unit must convert exactly.  Units of a fixed
ratio are converted here, to the ends of their range; calendar units (years, months) by numpy.
"""

from cpython.datetime cimport (
    PyDate_CheckExact, PyDateTime_CheckExact, PyDateTime_DATE_GET_HOUR,
    PyDateTime_DATE_GET_MICROSECOND, PyDateTime_DATE_GET_MINUTE, PyDateTime_DATE_GET_SECOND,
    PyDateTime_GET_DAY, PyDateTime_GET_MONTH, PyDateTime_GET_YEAR, import_datetime,
)
from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint64_t

import datetime

import numpy

from cesium._keys cimport (
    KEY_BELOW, KEY_BETWEEN, KEY_INSIDE, EncodedKeys, HeadCodec, check_form, wrong_dtype,
    wrong_type,
)
from cesium.casting import moment_of
from cesium.errors import SchemaError

cdef extern from *:
    """
    /* The scalars of datetime64 and timedelta64 as numpy/arrayscalars.h lays them out, since
       numpy 1.7; TimeCodec checks that they still do before it trusts this. */
    typedef struct {
        PyObject_HEAD
        int64_t value;
        int unit;       /* as UNITS, with a gap at 3 */
        int step;
    } cesium_time_scalar;
    """
    ctypedef struct TimeScalar "cesium_time_scalar":
        int64_t value
        int unit
        int step
    bint multiply_overflows "__builtin_mul_overflow"(
        int64_t left, int64_t right, int64_t *product) noexcept nogil

import_datetime()

__all__ = ["TimeCodec"]

# Finest last: a time converts exactly to any later unit, range permitting.
UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")

cdef enum:
    RANK_WEEK = 2       # years and months, before it, have no fixed length
    RANK_DAY = 3
    RANK_MICROSECOND = 8
    RANK_MAX = 12

# How many of each unit make one of the unit before.
cdef int64_t[RANK_MAX + 1] UNIT_RATIOS = [
    0, 12, 0, 7, 24, 60, 60, 1000, 1000, 1000, 1000, 1000, 1000,
]


cdef inline int rank_of(int unit) noexcept nogil:
    return unit - (unit > 3)


cdef inline uint64_t time_head(int64_t value) noexcept nogil:
    """One less than the order of the sign-flipped integer: NaT, the lowest, wraps to the top."""
    return (<uint64_t> value ^ ((<uint64_t> 1) << 63)) - 1


cdef inline int beyond(bint after, uint64_t *head) noexcept nogil:
    """The status of a time beyond the range of the unit: before all, or after all but NaT."""
    head[0] = <uint64_t> -2
    return KEY_BETWEEN if after else KEY_BELOW


cdef int64_t microseconds_of(object date):
    """Midnight of a date or datetime, since 1970, in the proleptic Gregorian calendar."""
    cdef int64_t year = PyDateTime_GET_YEAR(date), month = PyDateTime_GET_MONTH(date)
    # Years from March, so that the leap day comes last; year 1 is the least, none is negative.
    year -= month <= 2
    cdef int64_t day = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5
    day += PyDateTime_GET_DAY(date) + 365 * year + year // 4 - year // 100 + year // 400
    return (day - 719469) * 86400000000


cdef tuple there_and_back(object values, str unit, str target):
    """Calendar units by numpy: the values in `target` units, and those again in `unit`."""
    converted = values.view(f"M8[{unit}]").astype(f"M8[{target}]")
    return converted.view(numpy.int64), converted.astype(f"M8[{unit}]").view(numpy.int64)


cdef object merge(object outside, object more):
    return more if outside is None else outside | more


cdef tuple multiply(object values, object factor, object outside):
    """(the products, which rows overflow or were outside before); NaT stays, overflow is 0."""
    limit = INT64_MAX // factor
    missing = values == INT64_MIN
    outside = merge(outside, ((values > limit) | (values < -limit)) & ~missing)
    products = values * numpy.int64(min(factor, INT64_MAX))
    products[outside] = 0
    products[missing] = INT64_MIN
    return products, outside


cdef class TimeCodec(HeadCodec):
    """datetime64 or timedelta64 of one unit; NaT last.  Other units must convert exactly."""

    cdef object dtype, scalar_type, cell
    cdef int64_t[::1] cell_value
    cdef bint delta, scalars_known
    cdef int rank

    def __init__(self, bint delta, str unit):
        self.width = self.part_width = 8
        self.delta = delta
        self.spec = f"timedelta64[{unit}]" if delta else f"datetime64[{unit}]"
        self.dtype = numpy.dtype(self.spec)
        self.scalar_type = numpy.timedelta64 if delta else numpy.datetime64
        self.rank = UNITS.index(unit)
        # numpy makes a scalar of an array item faster than of an int and a unit; the GIL is held.
        self.cell_value = numpy.zeros(1, numpy.int64)
        self.cell = numpy.asarray(self.cell_value).view(self.dtype)
        sample = self.scalar_type(0x0123456789ABCDEF, unit)
        cdef TimeScalar *scalar = <TimeScalar *> <PyObject *> sample
        self.scalars_known = (
            self.scalar_type.__basicsize__ == sizeof(TimeScalar) and scalar.step == 1
            and scalar.value == 0x0123456789ABCDEF and rank_of(scalar.unit) == self.rank
        )

    cdef int encode_head(self, object key, uint64_t *head) except -1:
        cdef TimeScalar *scalar
        cdef int64_t value
        if type(key) is self.scalar_type and self.scalars_known:
            scalar = <TimeScalar *> <PyObject *> key
            value = scalar.value
            if scalar.step == 1:
                return self.rescale(key, value, rank_of(scalar.unit), head)
        elif not self.delta and PyDateTime_CheckExact(key) and key.tzinfo is None:
            value = microseconds_of(key)
            value += 1000000 * (
                60 * (60 * <int64_t> PyDateTime_DATE_GET_HOUR(key)
                      + PyDateTime_DATE_GET_MINUTE(key))
                + PyDateTime_DATE_GET_SECOND(key)) + PyDateTime_DATE_GET_MICROSECOND(key)
            return self.rescale(key, value, RANK_MICROSECOND, head)
        elif not self.delta and PyDate_CheckExact(key):
            return self.rescale(key, microseconds_of(key) // 86400000000, RANK_DAY, head)
        return self.encode_slowly(key, head)

    cdef int rescale(self, object key, int64_t value, int rank, uint64_t *head) except -1:
        """The head of `value` units of `rank`; where units are not fixed lengths, by numpy."""
        cdef bint after = value > 0
        if rank != self.rank and (
                rank < RANK_WEEK or self.rank < RANK_WEEK or rank > RANK_MAX):
            return self.encode_slowly(key, head)
        if rank != self.rank and value != INT64_MIN:
            while rank < self.rank:
                rank += 1
                if multiply_overflows(value, UNIT_RATIOS[rank], &value) or value == INT64_MIN:
                    return beyond(after, head)
            while rank > self.rank:
                if value % UNIT_RATIOS[rank]:
                    raise self.fraction_error(key)
                value //= UNIT_RATIOS[rank]
                rank -= 1
        head[0] = time_head(value)
        return KEY_INSIDE

    cdef int encode_slowly(self, object key, uint64_t *head) except -1:
        scalar = self.scalar_of(key)
        converted, outside = self.convert(numpy.asarray(scalar).reshape(1))
        if outside is not None and outside[0]:
            return beyond(scalar.view(numpy.int64) > 0, head)
        head[0] = time_head(converted[0])
        return KEY_INSIDE

    cdef object fraction_error(self, object key):
        return SchemaError(f"{key!r} is not a whole number of {self.spec} units")

    cdef object scalar_of(self, object key):
        """`key` as a numpy scalar of its own unit."""
        if isinstance(key, self.scalar_type):
            return key
        convert = getattr(key, "to_timedelta64" if self.delta else "to_datetime64", None)
        if convert is not None:
            return convert()
        if self.delta:
            if isinstance(key, datetime.timedelta):
                return numpy.timedelta64(key)
        elif isinstance(key, datetime.date):
            return moment_of(key)
        raise wrong_type(key, self.spec)

    cdef tuple convert(self, object array):
        """(int64 values, bool array of the rows beyond the range of the unit or None)."""
        unit, step = numpy.datetime_data(array.dtype)
        values = numpy.ascontiguousarray(array, array.dtype.newbyteorder("=")).view(numpy.int64)
        if unit == "generic":
            if (values != INT64_MIN).any():
                raise SchemaError(f"expected {self.spec} keys, given times without a unit")
            return values, None
        cdef int rank = UNITS.index(unit)
        cdef bint calendar = rank < RANK_WEEK
        outside = None
        if step != 1:
            values, outside = multiply(values, step, outside)
        if calendar == (self.rank < RANK_WEEK):
            return self.scale(array, values, rank, self.rank, outside)
        if self.delta:
            raise wrong_dtype(array, self.spec)     # years and months have no fixed length
        if calendar:
            days, back = there_and_back(values, unit, "D")
            outside = merge(outside, back != values)
            days[outside] = 0
            return self.scale(array, days, RANK_DAY, self.rank, outside)
        days, outside = self.scale(array, values, rank, RANK_DAY, outside)
        values, back = there_and_back(days, "D", UNITS[self.rank])
        self.refuse_fractions(array, back != days)
        return values, outside

    cdef tuple scale(self, object array, object values, int rank, int target, object outside):
        """From one unit to another of a fixed ratio; numpy does it neither exactly nor to the end
        of the range."""
        factor = 1
        for step in range(min(rank, target) + 1, max(rank, target) + 1):
            factor *= UNIT_RATIOS[step]
        if rank < target:
            return multiply(values, factor, outside)
        if rank > target:
            missing = values == INT64_MIN
            divisor = numpy.int64(min(factor, INT64_MAX))
            fraction = values % divisor != 0 if factor <= INT64_MAX else values != 0
            self.refuse_fractions(array, fraction & ~missing)
            values = values // divisor
            values[missing] = INT64_MIN
        return values, outside

    cdef int refuse_fractions(self, object array, object fraction) except -1:
        if fraction.any():
            raise self.fraction_error(array[fraction.argmax()])
        return 0

    cdef object decode_head(self, uint64_t head):
        self.cell_value[0] = <int64_t> ((head + 1) ^ ((<uint64_t> 1) << 63))
        return self.cell[0]

    cpdef object domain_error(self, object key):
        return SchemaError(f"{key!r} is beyond the range of {self.spec}")

    cdef tuple read_heads(self, object array):
        if array.dtype.kind != self.dtype.kind:
            raise wrong_dtype(array, self.spec)
        values, outside = self.convert(array)
        heads = values.view(numpy.uint64) ^ numpy.uint64(1 << 63)
        heads -= numpy.uint64(1)
        return heads, outside

    def decode_array(self, EncodedKeys encoded not None):
        check_form(self, encoded)
        values = encoded.heads + numpy.uint64(1)
        values ^= numpy.uint64(1 << 63)
        return values.view(self.dtype)
