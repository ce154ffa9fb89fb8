"""Segment records of a manifest's snapshot, in exactly the form that `json_bytes` writes them in.

A store of 100 GB has some 1,600; json and the checks of each member took 6 us a record, this takes
1.  It is no second reader of JSON: whatever is in another order, has blanks, escapes or members of
a later version, is None here, and json has the word.

Thread safety: no state.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcmp, strlen

cdef extern from "Python.h":
    int PyObject_GenericSetAttr(object target, object name, object value) except -1

cdef enum:
    NUMBER_DIGITS_MOST = 19
    RECORD_MEMBERS = 15
    SHARE_MEMBERS = 6
    LOWER = 3                       # places of the members that are keys
    UPPER = 4
    BAD = 255

cdef uint64_t NUMBERS_END = <uint64_t>1 << 63

# What stands before each member; the key's closing quote belongs to what follows it.
cdef const char *RECORD[RECORD_MEMBERS]
RECORD[:] = [
    b'{"id":', b',"table":', b',"tier":', b',"lower":"', b'","upper":"', b'","rows":',
    b',"markers":', b',"delete_markers":', b',"first_sequence":', b',"last_sequence":',
    b',"bytes":', b',"pages":', b',"checksum":', b',"volume":', b',"run":',
]
cdef const char *SHARE[SHARE_MEMBERS]
SHARE[:] = [
    b'{"id":', b',"bytes":', b',"checksum":', b',"values":', b',"live":', b',"rows":',
]
cdef tuple RECORD_NAMES = (
    "id", "table", "tier", "lower", "upper", "rows", "markers", "delete_markers", "first_sequence",
    "last_sequence", "bytes", "pages", "checksum", "volume", "run",
)
cdef tuple SHARE_NAMES = ("id", "file_bytes", "checksum", "value_bytes", "live_bytes", "rows")

cdef uint8_t[256] DIGITS            # of base 64, by character


cdef int fill_digits() noexcept:
    cdef const uint8_t *letters = (
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    cdef int index
    for index in range(256):
        DIGITS[index] = BAD
    for index in range(64):
        DIGITS[letters[index]] = <uint8_t>index
    return 0


fill_digits()


cdef struct Scan:
    const uint8_t *at
    const uint8_t *end


cdef inline bint take(Scan *scan, const char *text) noexcept nogil:
    cdef size_t count = strlen(text)
    if <size_t>(scan.end - scan.at) < count or memcmp(scan.at, text, count):
        return False
    scan.at += count
    return True


cdef bint take_number(Scan *scan, uint64_t *value) noexcept nogil:
    cdef const uint8_t *first = scan.at
    value[0] = 0
    while scan.at < scan.end and b"0" <= scan.at[0] <= b"9":
        if <int>(scan.at - first) == NUMBER_DIGITS_MOST:
            return False
        value[0] = value[0] * 10 + (scan.at[0] - <uint8_t>b"0")
        scan.at += 1
    if scan.at == first or (first[0] == b"0" and scan.at - first > 1):
        return False
    return value[0] < NUMBERS_END


cdef bytes take_key(Scan *scan):
    """The bytes that base 64 up to the next quote stands for; None when it is not that."""
    cdef const uint8_t *end = <const uint8_t *>memchr(scan.at, b'"', scan.end - scan.at)
    cdef uint8_t *out
    cdef uint64_t word
    cdef uint8_t digit
    cdef int missing = 0
    cdef int place
    if end == NULL or (end - scan.at) % 4:
        return None
    if end > scan.at and (end - 1)[0] == b"=":
        missing = 2 if (end - 2)[0] == b"=" else 1
    key = PyBytes_FromStringAndSize(NULL, (end - scan.at) // 4 * 3 - missing)
    out = <uint8_t *>PyBytes_AS_STRING(key)
    while scan.at < end:
        if end - scan.at > 4:
            place = 0
        else:
            place = missing
        word = 0
        for digit in scan.at[:4 - place]:
            if DIGITS[digit] == BAD:
                return None
            word = word << 6 | DIGITS[digit]
        word <<= 6 * place
        out[0] = <uint8_t>(word >> 16)
        if place < 2:
            out[1] = <uint8_t>(word >> 8)
        if place < 1:
            out[2] = <uint8_t>word
        out += 3 - place
        scan.at += 4
    return key


cdef object take_share(Scan *scan, object share_type):
    """One blob file's share of a record, or None."""
    cdef uint64_t value
    cdef int place
    share = share_type.__new__(share_type)
    for place in range(SHARE_MEMBERS):
        if not take(scan, SHARE[place]) or not take_number(scan, &value):
            return None
        PyObject_GenericSetAttr(share, SHARE_NAMES[place], value)
    return share if take(scan, b"}") else None


cdef tuple take_shares(Scan *scan, object share_type):
    """What follows the last number of a record, or None."""
    cdef list shares = []
    if take(scan, b"}"):
        return ()
    if not take(scan, b',"blobs":['):
        return None
    while not shares or take(scan, b","):
        share = take_share(scan, share_type)
        if share is None:
            return None
        shares.append(share)
    return tuple(shares) if take(scan, b"]}") else None


cdef object take_record(Scan *scan, object record_type, object share_type):
    """One record, or None."""
    cdef uint64_t value = 0
    cdef int place
    record = record_type.__new__(record_type)
    for place in range(RECORD_MEMBERS):
        if not take(scan, RECORD[place]):
            return None
        if place == LOWER or place == UPPER:
            member = take_key(scan)
            if member is None:
                return None
        elif not take_number(scan, &value):
            return None
        else:
            member = value
        # As the class itself does, being frozen.
        PyObject_GenericSetAttr(record, RECORD_NAMES[place], member)
    if value == 0:                  # the run, which then is the id
        return None
    shares = take_shares(scan, share_type)
    if shares is None:
        return None
    PyObject_GenericSetAttr(record, "blobs", shares)
    return record


def records_at(bytes payload not None, Py_ssize_t start, record_type, share_type):
    """Return the list of records that a JSON list and its object end with, or None.

    payload[start:] follows the list's opening bracket.  record_type, share_type: SegmentRecord
    and BlobShare.  None: it is not in the form that this version writes; json must read it.
    """
    cdef Scan scan
    cdef list records = []
    if not 0 <= start <= PyBytes_GET_SIZE(payload):
        raise ValueError(f"there is no place {start} in {PyBytes_GET_SIZE(payload)} bytes")
    scan.at = <const uint8_t *>PyBytes_AS_STRING(payload) + start
    scan.end = <const uint8_t *>PyBytes_AS_STRING(payload) + PyBytes_GET_SIZE(payload)
    while not records or take(&scan, b","):
        record = take_record(&scan, record_type, share_type)
        if record is None:
            return None
        records.append(record)
    return records if take(&scan, b"]}") and scan.at == scan.end else None
