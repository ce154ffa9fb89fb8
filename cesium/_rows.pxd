# Rows: what a cursor yields, copied into arrays.
#
# Thread safety: as the cursor's; whoever owns the arrays keeps them until the call is over.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cesium._cursor cimport Cursor, Run
from cesium._page cimport Shape

cdef struct Rows:               # where rows are copied to; fixed forms use caller-owned arrays
    uint64_t count              # rows held
    uint64_t capacity           # rows that heads/rows/offsets have room for
    uint64_t *heads             # fixed keys
    int64_t *key_offsets        # variable keys: [capacity + 1], data growing
    uint8_t *key_data
    uint64_t key_data_bytes
    uint8_t *rows               # fixed values: packed rows
    int64_t *value_offsets      # variable values
    uint8_t *value_data
    uint64_t value_data_bytes
    bint skip_values            # keys only: values are not copied
    bint skip_keys              # values only: keys are not copied
    uint32_t column_count       # fixed values, by field instead of in `rows`: so many of them,
    const uint32_t *fields      # these,
    uint8_t **columns           # each into an array of its own; NULL: packed into `rows`
    uint64_t data_bytes_most    # of variable keys and values, but for one row; 0: no bound

# Copies up to `limit` further rows (fewer, but one at least, where there is a bound on
# their bytes); STATUS_OK, or STATUS_NOT_FOUND when the end was reached
# (rows->count says how many there are all the same).
cdef int cursor_fill(Cursor *cursor, Run *pending, Rows *rows, uint64_t limit) noexcept nogil
# Passes over up to `limit` rows; *skipped says how many there were.  Status as above.
cdef int cursor_skip(Cursor *cursor, Run *pending, uint64_t limit,
                     uint64_t *skipped) noexcept nogil
# Both end with cursor_whole.

# Copies the rows of one run behind those that are there; there is room for them.
cdef int copy_run(Cursor *cursor, const Run *run, Rows *rows) noexcept nogil
# Cuts up to `most` rows off the run, in the cursor's direction, into `part`; gives their number.
cdef uint32_t take_rows(Cursor *cursor, Run *run, Run *part, uint64_t most) noexcept nogil

cdef int rows_reserve(const Shape *shape, Rows *rows, uint64_t capacity) noexcept nogil
# Lets go of what single long rows made it hold beyond its bound; there are none in it.
cdef void rows_trim(Rows *rows) noexcept nogil
cdef void rows_free(Rows *rows) noexcept nogil
