"""Key codecs against a model: order, round trips, arrays, bounds, prefixes and every refusal."""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import math
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cesium._keys import EncodedKeys
from cesium.columns import Column
from cesium.errors import CorruptionError, LimitError, SchemaError
from cesium.keys import Codec, key_codec

NAT = np.iinfo(np.int64).min
REVERSED_TEXT = Codec("shout", lambda key: key.upper().encode(), lambda raw: raw.decode())


def integers(low, high):
    edges = [low, low + 1, -1, 0, 1, high - 1, high]
    return st.one_of(
        st.integers(low, high), st.sampled_from([x for x in edges if low <= x <= high])
    )


def floats(width):
    special = st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0])
    return st.one_of(special, st.floats(width=width))


def times(kind, unit):
    return st.one_of(st.just(NAT), integers(NAT, 2**63 - 1), st.integers(-9, 9)).map(
        lambda value: kind(value, unit)
    )


# NUL, its neighbour in order, the escape byte's code point, and one code point of each UTF-8 length
TEXT = st.one_of(
    st.text(alphabet="\0\x01ab\x7f\xff\u07ff\uffff\U0001f600", max_size=5),
    st.text(max_size=8),
)
BYTES = st.one_of(
    st.lists(st.sampled_from([0, 1, 97, 254, 255]), max_size=5).map(bytes), st.binary(max_size=12)
)

SINGLE = {
    "u1": integers(0, 2**8 - 1),
    "u2": integers(0, 2**16 - 1),
    "u4": integers(0, 2**32 - 1),
    "u8": integers(0, 2**64 - 1),
    "i1": integers(-(2**7), 2**7 - 1),
    "i2": integers(-(2**15), 2**15 - 1),
    "i4": integers(-(2**31), 2**31 - 1),
    "i8": integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "f2": floats(16),
    "f4": floats(32),
    "f8": floats(64),
    "datetime64[ns]": times(np.datetime64, "ns"),
    "datetime64[D]": times(np.datetime64, "D"),
    "timedelta64[s]": times(np.timedelta64, "s"),
    "str": TEXT,
    "bytes": BYTES,
    "uuid": st.uuids(),
    "S1": st.binary(max_size=1),
    "S3": BYTES.map(lambda raw: raw[:3]),
    "S8": BYTES.map(lambda raw: raw[:8]),
    "S12": BYTES.map(lambda raw: raw[:12]),
}
TUPLES = [
    ("u4", "u4"),
    ("-i1", "f2", "bool"),
    ("-f4", "S3"),
    ("i8",),
    ("str", "str"),
    ("-str", "bytes"),
    ("bytes", "-bytes", "u1"),
    ("datetime64[ns]", "str", "-i4"),
    ("uuid", "-S12", "-uuid"),
    ("-timedelta64[s]", "-f8", "u2"),
    ("-str", "-str"),
]
SPECS = [*SINGLE, *TUPLES]


def keys_of(spec):
    if isinstance(spec, tuple):
        return st.tuples(*(SINGLE[part.lstrip("-")] for part in spec))
    return SINGLE[spec]


def rank(spec, key):
    """Something that Python orders as the key must be ordered."""
    if spec == "str":
        return [ord(point) for point in key]
    if spec == "bytes":
        return bytes(key)
    if spec == "uuid":
        return key.int
    if spec.startswith("S"):
        return key.rstrip(b"\0")
    if spec.startswith("f"):
        return (1, 0.0) if math.isnan(key) else (0, key)
    if "64[" in spec:
        value = int(key.astype(np.int64))
        return (1, 0) if value == NAT else (0, value)
    return int(key)


def compare(spec, left, right):
    """The sign of left - right; a shorter tuple is compared by its parts alone."""
    if not isinstance(spec, tuple):
        a, b = rank(spec, left), rank(spec, right)
        return (a > b) - (a < b)
    for part, a, b in zip(spec, left, right, strict=False):
        sign = compare(part.lstrip("-"), a, b)
        if sign:
            return -sign if part.startswith("-") else sign
    return 0


def rows(encoded: EncodedKeys):
    """The encodings of a batch, one by one, as `encode_key` gives them."""
    if encoded.heads is not None:
        assert encoded.heads.dtype == np.uint64 and encoded.heads.flags.c_contiguous
        assert len(encoded.heads) == encoded.count
        return encoded.heads.tolist()
    assert encoded.offsets.dtype == np.int64 and encoded.offsets.flags.c_contiguous
    assert encoded.data.dtype == np.uint8 and encoded.data.flags.c_contiguous
    assert encoded.offsets[0] == 0 and encoded.offsets[-1] == len(encoded.data)
    assert len(encoded.offsets) == encoded.count + 1
    raw = encoded.data.tobytes()
    return [raw[a:b] for a, b in itertools.pairwise(encoded.offsets.tolist())]


def arrays_of(spec, keys):
    """The same keys as numpy would hold them, or None where it has no such array."""
    if isinstance(spec, tuple):
        columns = [
            arrays_of(part.lstrip("-"), [key[index] for key in keys])
            for index, part in enumerate(spec)
        ]
        return tuple(columns)
    if spec in ("str", "bytes"):
        return Column.from_values(keys, spec)
    if spec == "uuid":
        return np.array([np.void(key.bytes) for key in keys], "V16")
    return np.array(keys, spec)


# Order, round trips, arrays


@pytest.mark.parametrize("spec", SPECS, ids=str)
@settings(max_examples=150)
@given(data=st.data())
def test_order_of_encodings_is_order_of_keys(spec, data):
    codec = key_codec(spec)
    left, right = data.draw(keys_of(spec)), data.draw(keys_of(spec))
    if isinstance(spec, tuple) and data.draw(st.booleans()):
        right = left[:-1] + right[-1:]
    a, b = codec.encode_key(left), codec.encode_key(right)
    assert isinstance(a, int if codec.width else bytes)
    assert (a > b) - (a < b) == compare(spec, left, right)
    if codec.width:
        assert a & ((1 << 64 - 8 * codec.width) - 1) == 0


@pytest.mark.parametrize("spec", SPECS, ids=str)
@settings(max_examples=100)
@given(data=st.data())
def test_arrays_and_scalars_agree_and_decode_to_equal_keys(spec, data):
    codec = key_codec(spec)
    keys = data.draw(st.lists(keys_of(spec), max_size=6))
    expected = [codec.encode_key(key) for key in keys]
    from_list = codec.encode_array(keys)
    from_arrays = codec.encode_array(arrays_of(spec, keys))
    from_lookup = codec.encode_array(arrays_of(spec, keys), lookup=True)
    assert rows(from_list) == expected
    assert rows(from_arrays) == rows(from_lookup) == expected
    assert from_lookup.outside is None
    for key, encoding in zip(keys, expected, strict=True):
        assert compare(spec, codec.decode_key(encoding), key) == 0
    decoded = codec.decode_array(from_list)
    assert rows(codec.encode_array(decoded)) == expected
    if isinstance(spec, tuple):
        assert [len(column) for column in decoded] == [len(keys)] * len(spec)
        decoded = list(zip(*decoded, strict=True))
        decoded = [tuple(map(plain, spec, key)) for key in decoded]
    else:
        decoded = [plain(spec, key) for key in decoded]
    assert [compare(spec, a, b) for a, b in zip(keys, decoded, strict=True)] == [0] * len(keys)


def plain(spec, key):
    return uuid.UUID(bytes=key.tobytes()) if spec.lstrip("-") == "uuid" else key


@pytest.mark.parametrize(
    ("spec", "width", "key", "head"),
    [
        ("u8", 8, 5, 5),
        ("u1", 1, 5, 5 << 56),
        ("i8", 8, -1, (1 << 63) - 1),
        ("i4", 4, 0, 1 << 63),
        ("bool", 1, True, 1 << 56),
        ("f8", 8, 1.0, 0xBFF0 << 48),
        ("f4", 4, 1.0, 0xBF80 << 48),
        ("f2", 2, 1.0, 0xBC00 << 48),
        ("datetime64[s]", 8, np.datetime64(0, "s"), (1 << 63) - 1),
        ("datetime64[s]", 8, np.datetime64("NaT", "s"), (1 << 64) - 1),
        ("S3", 3, b"a", 0x61 << 56),
        (("u4", "u4"), 8, (1, 2), 1 << 32 | 2),
        (("u1", "-u1"), 2, (1, 2), 1 << 56 | 0xFD << 48),
    ],
)
def test_heads_are_left_aligned_big_endian_bytes(spec, width, key, head):
    codec = key_codec(spec)
    assert codec.width == width
    assert codec.encode_key(key) == head


def test_tuple_bytes_are_as_documented():
    codec = key_codec(("str", "-bytes", "u2"))
    assert codec.width == 0
    assert codec.encode_key(("a\0", b"\0b", 258)) == (
        b"a\0\xff\0\0" + b"\xff\x00\x9d\xff\xff" + b"\x01\x02"
    )


def test_floats_have_one_zero_and_one_nan():
    for spec in ("f2", "f4", "f8"):
        codec = key_codec(spec)
        dtype = np.dtype(spec)
        assert codec.encode_key(-0.0) == codec.encode_key(0.0)
        bits = np.array([-1, 1, 2], f"i{dtype.itemsize}") | np.array(np.inf, dtype).view(
            f"i{dtype.itemsize}"
        )
        nans = bits.view(dtype)
        assert np.isnan(nans).all()
        heads = rows(codec.encode_array(nans))
        assert set(heads) == {codec.encode_key(math.nan)}
        assert heads[0] > codec.encode_key(math.inf)
        assert math.copysign(1, codec.decode_key(codec.encode_key(-0.0))) == 1


def test_u8_arrays_are_not_copied():
    keys = np.arange(10, dtype="u8")
    encoded = key_codec("u8").encode_array(keys)
    assert np.shares_memory(encoded.heads, keys)
    assert np.shares_memory(key_codec("u8").decode_array(encoded), keys)


# What users pass


@pytest.mark.parametrize(
    ("spec", "given", "same_as"),
    [
        ("u4", np.int8(3), 3),
        ("u4", True, 1),
        ("u4", np.bool_(True), 1),
        ("i8", np.uint64(3), 3),
        ("i8", np.array(3), 3),
        ("bool", 1, True),
        ("bool", np.bool_(False), False),
        ("f8", 3, 3.0),
        ("f8", np.float32(0.5), 0.5),
        ("f8", np.longdouble(0.5), 0.5),
        ("f4", np.float64(0.5), 0.5),
        ("f4", np.float32(0.1), float(np.float32(0.1))),
        ("f2", np.int64(7), 7.0),
        ("f8", np.bool_(True), 1.0),
        ("str", np.str_("x"), "x"),
        ("bytes", bytearray(b"x"), b"x"),
        ("bytes", memoryview(b"xy"), b"xy"),
        ("bytes", np.bytes_(b"x"), b"x"),
        ("S4", bytearray(b"x\0"), b"x"),
        ("S12", b"x\0\0", b"x"),
        ("datetime64[ns]", datetime.datetime(2013, 1, 2, 3), np.datetime64("2013-01-02T03", "ns")),
        ("datetime64[ns]", datetime.date(2013, 1, 2), np.datetime64("2013-01-02", "ns")),
        ("datetime64[ns]", np.datetime64("2013", "Y"), np.datetime64("2013-01-01", "ns")),
        ("datetime64[s]", np.datetime64(5000, "ms"), np.datetime64(5, "s")),
        ("datetime64[s]", np.datetime64("NaT"), np.datetime64("NaT", "s")),
        ("datetime64[s]", np.datetime64("NaT", "ns"), np.datetime64("NaT", "s")),
        ("timedelta64[ms]", datetime.timedelta(seconds=1), np.timedelta64(1000, "ms")),
        (("u4", "str"), SimpleNamespace, None),
    ],
)
def test_scalars_that_python_users_expect(spec, given, same_as):
    if same_as is None:
        record = np.array([(3, "x")], [("a", "u4"), ("b", "U3")])[0]
        given, same_as = record, (3, "x")
    codec = key_codec(spec)
    assert codec.encode_key(given) == codec.encode_key(same_as)


def test_aware_datetimes_are_utc():
    codec = key_codec(datetime.datetime)
    zone = datetime.timezone(datetime.timedelta(hours=2))
    aware = datetime.datetime(2013, 1, 1, 2, tzinfo=zone)
    assert codec.decode_key(codec.encode_key(aware)) == np.datetime64("2013-01-01", "us")


@given(st.datetimes(), st.sampled_from(["us", "ms", "s", "m", "h", "D", "ns"]))
def test_datetimes_convert_as_numpy_has_it(moment, unit):
    codec = key_codec(f"datetime64[{unit}]")
    for value in (moment, moment.replace(microsecond=0), moment.date()):
        agree_with_arrays(codec, value, np.array([np.datetime64(value)]))


UNITS = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"]


@pytest.mark.parametrize("kind", [np.datetime64, np.timedelta64])
@settings(max_examples=400)
@given(
    st.one_of(st.integers(-3, 3).map(lambda x: x * 604_800_000), integers(NAT, 2**63 - 1)),
    st.sampled_from(UNITS), st.sampled_from(UNITS),
)  # fmt: skip
def test_scalar_times_convert_as_arrays_do(kind, value, given_unit, unit):
    scalar = kind(value, given_unit)
    agree_with_arrays(
        key_codec(np.dtype(f"{np.dtype(kind).char}8[{unit}]")), scalar, np.array([scalar])
    )


def test_multiples_of_a_unit_convert():
    ten = np.datetime64(3, "10s")
    assert key_codec("datetime64[s]").encode_key(ten) == (1 << 63) + 29
    agree_with_arrays(key_codec("datetime64[m]"), ten, np.array([ten]))


def agree_with_arrays(codec, scalar, array):
    """One scalar and an array of it give one encoding, or are both refused, or both outside."""
    try:
        batch = codec.encode_array(array, lookup=True)
    except SchemaError:
        with pytest.raises(SchemaError):
            codec.lower_bound(scalar)
        return
    if batch.outside is not None:
        with pytest.raises(SchemaError, match="beyond the range"):
            codec.encode_key(scalar)
    else:
        assert rows(batch) == [codec.encode_key(scalar)]


def test_timestamps_convert_themselves():
    stamp = SimpleNamespace(to_datetime64=lambda: np.datetime64(7, "ns"))
    delta = SimpleNamespace(to_timedelta64=lambda: np.timedelta64(7, "ns"))
    assert key_codec("datetime64[ns]").encode_key(stamp) == (1 << 63) + 6
    assert key_codec("timedelta64[ns]").encode_key(delta) == (1 << 63) + 6


@pytest.mark.parametrize(
    ("spec", "array", "keys"),
    [
        ("u8", np.array([1, 2], "i4"), [1, 2]),
        ("u8", range(3), [0, 1, 2]),
        ("u8", np.array([1, 2], object), [1, 2]),
        ("u8", np.arange(6, dtype="u8")[::2], [0, 2, 4]),
        ("u8", np.arange(3, dtype=">u8"), [0, 1, 2]),
        ("u8", [2**64 - 1, 0], [2**64 - 1, 0]),
        ("i2", np.array([True, False]), [1, 0]),
        ("i8", np.array([5, 2**63 - 1], "u8"), [5, 2**63 - 1]),
        ("bool", np.array([1, 0], "i8"), [True, False]),
        ("f8", np.array([1, 2], "i4"), [1.0, 2.0]),
        ("f8", np.array([2**60, 2**53 + 2], "i8"), [2.0**60, 2.0**53 + 2]),
        ("f4", np.array([0.5, np.nan]), [0.5, np.nan]),
        ("f8", np.array([0.5, 2], ">f4")[::-1], [2.0, 0.5]),
        ("f2", np.array([0.5, np.inf], np.longdouble), [0.5, np.inf]),
        (
            "datetime64[ns]",
            np.array(["2013", "NaT"], "M8[D]"),
            [np.datetime64("2013-01-01", "ns"), np.datetime64("NaT", "ns")],
        ),
        ("datetime64[s]", np.array([5], ">M8[s]"), [np.datetime64(5, "s")]),
        ("datetime64[s]", [datetime.datetime(1970, 1, 1)], [np.datetime64(0, "s")]),
        ("datetime64[s]", np.array([datetime.date(1970, 1, 1)], object), [np.datetime64(0, "s")]),
        (
            "str",
            np.array(["a\0b", "", "é\U0001f600\uffff\u07ff"]),
            ["a\0b", "", "é\U0001f600\uffff\u07ff"],
        ),
        ("str", np.array(["b", "a"], ">U4"), ["b", "a"]),
        ("str", np.array(["", ""], "U0"), ["", ""]),
        ("str", np.array(["x", "yé"], object), ["x", "yé"]),
        ("str", Column.from_values(["skip", "é", "b"], "str")[1:], ["é", "b"]),
        ("bytes", np.array([b"a\0b", b"", b"c"]), [b"a\0b", b"", b"c"]),
        ("bytes", np.array([b"a\0"], "V2"), [b"a\0"]),
        ("bytes", [bytearray(b"a"), memoryview(b"b")], [b"a", b"b"]),
        ("S4", np.array([b"ab", b""], "S2"), [b"ab", b""]),
        ("S4", np.array([b"ab", b""], "S9"), [b"ab", b""]),
        ("S12", np.array([b"ab", b""], "S20"), [b"ab", b""]),
        ("S12", np.array([b"ab", b"c"], object), [b"ab", b"c"]),
        ("uuid", np.array([uuid.UUID(int=5)], object), [uuid.UUID(int=5)]),
        (
            ("u1", "str"),
            np.array([(1, "a"), (2, "b")], [("x", "i8"), ("y", "U2")]),
            [(1, "a"), (2, "b")],
        ),
        (("u1", "str"), ([1, 2], np.array(["a", "b"])), [(1, "a"), (2, "b")]),
        (("u1", "str"), [(1, "a"), (2, "b")], [(1, "a"), (2, "b")]),
        (("u1", "str"), [], []),
        (("u1", "u1"), np.empty(0, object), []),
    ],
    ids=str,
)
def test_arrays_that_numpy_users_expect(spec, array, keys):
    codec = key_codec(spec)
    assert rows(codec.encode_array(array)) == [codec.encode_key(key) for key in keys]


def test_object_array_of_tuples_is_rows():
    array = np.empty(2, object)
    array[:] = [(1, "a"), (2, "b")]
    codec = key_codec(("u1", "str"))
    assert rows(codec.encode_array(array)) == [
        codec.encode_key((1, "a")),
        codec.encode_key((2, "b")),
    ]


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="numpy 2 and later")
def test_numpy_strings_are_text():
    array = np.array(["é", "", "long enough to leave the small form"], np.dtypes.StringDType())
    codec = key_codec("str")
    assert rows(codec.encode_array(array)) == [codec.encode_key(key) for key in array.tolist()]


# Outside the domain: lookups find nothing, bounds are clamped, writes are refused


@pytest.mark.parametrize(
    ("spec", "array", "outside"),
    [
        ("u1", np.array([-1, 0, 255, 256]), [True, False, False, True]),
        ("u1", [-1, 0, 255, 2**70], [True, False, False, True]),
        ("u8", np.array([-1, 5]), [True, False]),
        ("i8", np.array([2**63, 5], "u8"), [True, False]),
        ("i8", [-(2**63) - 1, 5], [True, False]),
        ("u8", [2**64, 2**64 - 1], [True, False]),
        ("bool", np.array([0, 1, 2]), [False, False, True]),
        ("f4", np.array([0.1, 0.5, 1e300]), [True, False, True]),
        ("f4", [0.1, 0.5, 10**400], [True, False, True]),
        ("f8", np.array([2**53 + 1, 5]), [True, False]),
        ("f2", np.array([65520, 1], "u4"), [True, False]),
        ("S2", np.array([b"abc", b"ab"]), [True, False]),
        ("S12", np.array([b"a" * 13, b"ab"]), [True, False]),
        ("S12", [b"a" * 13, b"ab"], [True, False]),
        ("datetime64[ns]", np.array(["1500", "2013"], "M8[Y]"), [True, False]),
        ("datetime64[ns]", [datetime.datetime(9999, 1, 1)], [True]),
        (("u1", "str"), ([256, 1], ["a", "b"]), [True, False]),
        (("u1", "-u1"), [(1, -1), (1, 1)], [True, False]),
    ],
    ids=str,
)
def test_lookups_outside_the_domain_are_marked(spec, array, outside):
    codec = key_codec(spec)
    encoded = codec.encode_array(array, lookup=True)
    assert encoded.outside.dtype == np.bool_ and encoded.outside.tolist() == outside
    assert len(rows(encoded)) == len(outside)
    with pytest.raises(SchemaError):
        codec.encode_array(array)


@pytest.mark.parametrize(
    ("spec", "inside", "outside"),
    [
        ("u1", 255, 256),
        ("u1", 0, -1),
        ("u8", 2**64 - 1, 2**64),
        ("f4", 0.5, 0.1),
        ("S2", b"ab", b"abc"),
        ("S12", b"ab", b"0123456789abc"),
        ("datetime64[ns]", datetime.date(2013, 1, 1), datetime.date(9999, 1, 1)),
        (("u1", "u1"), (1, 2), (1, 256)),
        (("-u1", "str"), (1, "a"), (-1, "a")),
        (("str", "S12"), ("a", b""), ("a", b"0123456789abc")),
    ],
    ids=str,
)
def test_single_lookups_outside_the_domain_find_nothing(spec, inside, outside):
    codec = key_codec(spec)
    assert codec.lookup_key(inside) == codec.encode_key(inside)
    assert codec.lookup_key(outside) is None
    with pytest.raises(SchemaError):
        codec.encode_key(outside)
    with pytest.raises(SchemaError):
        codec.lookup_key(object())


def test_lookups_leave_their_input_alone():
    keys = np.array([5, 2**63], "u8")
    key_codec("i8").encode_array(keys, lookup=True)
    signed = np.array([-5, 5])
    assert key_codec("u8").encode_array(signed, lookup=True).outside.tolist() == [True, False]
    assert keys.tolist() == [5, 2**63] and signed.tolist() == [-5, 5]


def selected(codec, domain, lower, upper):
    """The keys of `domain` in the half-open encoded range, as the engine selects them."""
    if lower is None:
        return []
    encoded = [(codec.encode_key(key), key) for key in domain]
    return [key for code, key in encoded if lower <= code and (upper is None or code < upper)]


def check_bounds(spec, domain, bounds, compare_bound):
    codec = key_codec(spec)
    start = codec.encode_key(domain[0]) * 0 if codec.width else b""
    for bound, inclusive in itertools.product(bounds, (True, False)):
        least = 0 if inclusive else 1
        above = [key for key in domain if compare_bound(key, bound) >= least]
        below = [key for key in domain if compare_bound(key, bound) <= -least]
        lower = codec.lower_bound(bound, inclusive)
        upper = codec.upper_bound(bound, inclusive)
        assert selected(codec, domain, lower, None) == above, (bound, inclusive)
        assert selected(codec, domain, start, upper) == below, (bound, inclusive)


def sign(a, b):
    return (a > b) - (a < b)


@pytest.mark.parametrize(
    ("spec", "low", "high"), [("u1", 0, 255), ("i1", -128, 127), ("bool", 0, 1)]
)
def test_integer_bounds_over_the_whole_domain(spec, low, high):
    bounds = [-(2**80), *range(low - 3, high + 4), 2**80]
    check_bounds(spec, list(range(low, high + 1)), bounds, sign)


@pytest.mark.parametrize(
    ("spec", "low", "high"), [("u8", 0, 2**64 - 1), ("i8", -(2**63), 2**63 - 1)]
)
def test_wide_integer_bounds_at_the_edges(spec, low, high):
    domain = [low, low + 1, 7, high - 1, high]
    check_bounds(spec, domain, [low - 2, low - 1, *domain, high + 1, high + 2], sign)


@pytest.mark.parametrize("spec", ["f2", "f4", "f8"])
def test_float_bounds_with_infinities_nan_and_values_between(spec):
    dtype = np.dtype(spec).type
    points = [-np.inf, -np.finfo(dtype).max, -1.0, -np.finfo(dtype).tiny, 0.0, 0.1, 1.0, 65504.0]
    with np.errstate(over="ignore"):
        near = [np.nextafter(dtype(x), dtype(to)) for x in points for to in (-np.inf, np.inf)]
    domain = sorted({float(dtype(x)) for x in [*points, *near]})
    domain += [math.nan]
    bounds = [
        *domain,
        0.1,
        -0.1,
        1e-320,
        -1e-320,
        1e300,
        -1e300,
        -0.0,
        3,
        2**53 + 1,
        10**400,
        -(10**400),
    ]

    def model(key, bound):
        if math.isnan(key) or bound != bound:
            return math.isnan(key) - (bound != bound)
        return sign(key, bound)

    check_bounds(spec, domain, bounds, model)


@given(st.floats(), st.sampled_from(["f2", "f4"]))
def test_float_bounds_beside_any_double(bound, spec):
    if math.isnan(bound):
        return
    with np.errstate(over="ignore"):
        near = np.dtype(spec).type(bound)
        beside = [np.nextafter(near, near.dtype.type(to)) for to in (-np.inf, np.inf)]
    domain = sorted({float(x) for x in [near, *beside]})
    check_bounds(spec, domain, [bound], sign)


def test_time_bounds_are_clamped_and_nat_is_last():
    domain = [np.datetime64(x, "ns") for x in (NAT + 1, -1, 0, 2**63 - 1, NAT)]
    bounds = [*domain, datetime.date(1, 1, 1), datetime.date(9999, 1, 1), np.datetime64(0, "D")]

    def order(value):
        if isinstance(value, datetime.date):
            return (0, -(2**70) if value.year == 1 else 2**70)
        return rank("datetime64[ns]", value)

    check_bounds("datetime64[ns]", domain, bounds, lambda a, b: sign(order(a), order(b)))


WORDS = [
    "",
    "\0",
    "\0\0",
    "\0a",
    "a",
    "a\0",
    "a\0b",
    "aa",
    "b",
    "\x7f",
    "é",
    "\uffff",
    "\U0001f600",
]
RAWS = [b"", b"\0", b"\0\xff", b"a", b"a\0", b"a\0\0", b"ab", b"\xfe", b"\xff", b"\xff\xff"]
SMALL = {
    "str": ["", "\0", "a", "a\0", "b"],
    "bytes": [b"", b"\0", b"\0\xff", b"\xff", b"\xff\xff"],
    "u1": [0, 1, 255],
    "i2": [-(2**15), 0, 2**15 - 1],
    "f4": [-np.inf, 0.0, 0.5, np.inf, np.nan],
    "bool": [False, True],
    "S2": [b"", b"a", b"a\xff", b"\xff\xff"],
    "S9": [b"", b"a", b"\xff" * 9],
    "datetime64[s]": [np.datetime64(x, "s") for x in (NAT + 1, 0, 2**63 - 1, NAT)],
}


@pytest.mark.parametrize(
    ("spec", "domain"), [("str", WORDS), ("bytes", RAWS), ("S2", SMALL["S2"]), ("S9", SMALL["S9"])]
)
def test_text_bounds(spec, domain):
    check_bounds(spec, domain, domain, functools.partial(compare, spec))


def test_fixed_bytes_bounds_longer_than_the_width():
    for spec, width in (("S2", 2), ("S9", 9)):
        domain = [b"", b"a" * (width - 1), b"a" * width, b"a" * (width - 1) + b"b", b"\xff" * width]
        bounds = [*domain, b"a" * (width + 1), b"a" * width + b"\0\0", b"\xff" * (width + 1)]
        check_bounds(spec, domain, bounds, lambda a, b: sign(a.rstrip(b"\0"), b.rstrip(b"\0")))


SMALL_TUPLES = [
    ("str", "u1"),
    ("-str", "-bytes"),
    ("u1", "-i2"),
    ("-u1", "bool", "i2"),
    ("bytes", "-u1", "str"),
    ("f4", "-f4"),
    ("-S2", "S9"),
    ("-datetime64[s]", "-str"),
]


def small_domain(spec):
    domain = list(itertools.product(*(SMALL[part.lstrip("-")] for part in spec)))
    domain.sort(key=functools.cmp_to_key(functools.partial(compare, spec)))
    return domain


def partial_tuples(domain, count):
    return [(), *sorted({key[:n] for key in domain for n in range(1, count + 1)}, key=repr)]


@pytest.mark.parametrize("spec", SMALL_TUPLES, ids=str)
def test_partial_tuples_bound_all_their_extensions(spec):
    domain = small_domain(spec)
    check_bounds(spec, domain, partial_tuples(domain, len(spec)), functools.partial(compare, spec))


@pytest.mark.parametrize(
    "spec", [("u1", "u1"), ("-u1", "u1"), ("u1", "-u1"), ("-u1", "-u1", "str")]
)
def test_tuple_bounds_outside_the_domain_are_clamped(spec):
    parts = [[0, 5, 255], [0, 5, 255], ["", "a"]][: len(spec)]
    domain = list(itertools.product(*parts))
    domain.sort(key=functools.cmp_to_key(functools.partial(compare, spec)))
    values = [-(2**70), -1, 0, 5, 6, 255, 256, 2**70]
    bounds = [(a,) for a in values] + list(itertools.product(values, values))
    check_bounds(spec, domain, bounds, functools.partial(compare, spec))


@pytest.mark.parametrize("spec", [("f2", "u1"), ("-f2", "u1"), ("-f2", "str")])
def test_tuple_bounds_between_two_floats(spec):
    near = [float(np.float16(0.1)), float(np.nextafter(np.float16(0.1), np.float16(1)))]
    domain = list(itertools.product([-1.0, *near, 1.0], [0, 255] if spec[1] == "u1" else ["", "a"]))
    domain.sort(key=functools.cmp_to_key(functools.partial(compare, spec)))
    last = domain[0][1]
    bounds = [(0.1,), (0.1, last), (1e300,), (-1e300, last)]
    check_bounds(spec, domain, bounds, functools.partial(compare, spec))


# Prefixes


def check_prefix(codec, domain, prefix, expected, partial=False):
    lower, upper = codec.prefix_bounds(prefix, partial)
    assert selected(codec, domain, lower, upper) == expected, (prefix, partial)


@pytest.mark.parametrize(("spec", "domain"), [("str", WORDS), ("bytes", RAWS), ("S2", SMALL["S2"])])
def test_text_prefixes(spec, domain):
    codec = key_codec(spec)
    for prefix in domain:
        padded = [key.ljust(2, b"\0") if spec == "S2" else key for key in domain]
        expected = [
            key for key, whole in zip(domain, padded, strict=True) if whole.startswith(prefix)
        ]
        check_prefix(codec, domain, prefix, expected)
        check_prefix(codec, domain, prefix, expected, partial=True)


def test_fixed_bytes_prefix_longer_than_the_width_finds_nothing():
    assert key_codec("S2").prefix_bounds(b"abc") == (None, None)
    assert key_codec("S9").prefix_bounds(b"0123456789") == (None, None)
    assert key_codec("S2").prefix_bounds(b"ab\0") == key_codec("S2").prefix_bounds(b"ab")


@pytest.mark.parametrize("spec", SMALL_TUPLES, ids=str)
def test_tuple_prefixes_match_whole_parts(spec):
    domain = small_domain(spec)
    codec = key_codec(spec)
    for prefix in partial_tuples(domain, len(spec)):
        expected = [key for key in domain if compare(spec, key, prefix) == 0]
        check_prefix(codec, domain, prefix, expected)


@pytest.mark.parametrize(
    "spec",
    [
        ("str", "u1"),
        ("-str", "u1"),
        ("u1", "-bytes"),
        ("u1", "-S2"),
        ("u1", "S9"),
        ("bytes", "bytes"),
    ],
)
def test_partial_tuple_prefixes_take_a_leading_piece(spec):
    domain = small_domain(spec)
    codec = key_codec(spec)
    for size in range(1, len(spec) + 1):
        part = spec[size - 1].lstrip("-")
        if part == "u1":
            continue
        width = int(part[1:]) if part.startswith("S") else 0
        for prefix in sorted({key[:size] for key in domain}, key=repr):
            expected = [
                key
                for key in domain
                if compare(spec, key, prefix[:-1]) == 0
                and (key[size - 1].ljust(width, b"\0") if width else key[size - 1]).startswith(
                    prefix[-1]
                )
            ]
            check_prefix(codec, domain, prefix, expected, partial=True)


def test_tuple_prefix_outside_the_domain_finds_nothing():
    codec = key_codec(("u1", "S2"))
    assert codec.prefix_bounds((256,)) == (None, None)
    assert codec.prefix_bounds((1, b"abc"), partial=True) == (None, None)
    assert codec.prefix_bounds(()) == codec.prefix_bounds((), partial=True) == (0, None)


# Specs


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        (int, "i8"), (float, "f8"), (bool, "bool"), (str, "str"), (bytes, "bytes"),
        (uuid.UUID, "uuid"), (datetime.datetime, "datetime64[us]"),
        (datetime.date, "datetime64[D]"),
        (datetime.timedelta, "timedelta64[us]"), (np.uint16, "u2"), (np.dtype(">i4"), "i4"),
        ("<u8", "u8"), ("uint64", "u8"), ("?", "bool"), ("M8[ns]", "datetime64[ns]"),
        ("m8[s]", "timedelta64[s]"), ("S16", "S16"), ("|S4", "S4"), ("half", "f2"),
        (("datetime64[ns]", str, "-<i4"), ["datetime64[ns]", "str", "-i4"]),
        (["u4"], ["u4"]),
    ],
    ids=str,
)  # fmt: skip
def test_specs_are_canonical_and_stable(spec, canonical):
    codec = key_codec(spec)
    assert codec.spec == canonical
    assert key_codec(json.loads(json.dumps(codec.spec))).spec == canonical
    assert key_codec(codec) is codec


@pytest.mark.parametrize(
    "spec",
    [
        "f16", "g", "c16", complex, object, "O", "U5", "S", "S0", "V16", "datetime64", "M8[10s]",
        "-i4", "nonsense", None, 5, [("a", "i4")], np.dtype([("a", "i4")]), "i4,i4", "2i4", (), [],
        ("u1", ("u1", "u1")), ("u1", "-nonsense"), ("--u1",), ("u1",) * 33, {"codec": "x"},
        ("u1", {"codec": "x"}), {"other": 1}, list,
    ],
    ids=str,
)  # fmt: skip
def test_other_specs_are_refused(spec):
    with pytest.raises(SchemaError):
        key_codec(spec)


def test_refusals_of_specs_list_what_is_supported():
    with pytest.raises(SchemaError, match=r"complex.*supported are integers.*uuid.*tuples"):
        key_codec(complex)
    with pytest.raises(LimitError):
        key_codec("S65537")


def test_user_codecs_keep_their_name():
    codec = key_codec(REVERSED_TEXT)
    assert codec.spec == {"codec": "shout"} and codec.width == 0
    assert codec.encode_key("abc") == b"ABC" and codec.decode_key(b"ABC") == "ABC"
    encoded = codec.encode_array(["a", "b"])
    assert rows(encoded) == [b"A", b"B"]
    assert codec.decode_array(encoded).tolist() == ["A", "B"]
    both = key_codec((REVERSED_TEXT, "u1"))
    assert both.spec == [{"codec": "shout"}, "u1"]
    assert both.decode_key(both.encode_key(("a", 1))) == ("A", 1)
    assert rows(both.encode_array([("a", 1)])) == [both.encode_key(("a", 1))]
    with pytest.raises(SchemaError, match=r"'shout'.*pass it again"):
        key_codec(codec.spec)
    with pytest.raises(SchemaError, match="must encode to bytes"):
        key_codec(Codec("bad", lambda key: 5, None)).encode_key("x")
    with pytest.raises(LimitError):
        key_codec(Codec("long", lambda key: b"x" * 65537, None)).encode_key("x")


# Refusals


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ("u8", 1.0), ("u8", "1"), ("u8", None), ("u8", np.float64(1)), ("u8", [1]), ("u8", -1),
        ("u8", 2**64), ("i1", 128), ("i1", -129), ("bool", 2), ("u8", np.array([1, 2])),
        ("f8", "1"), ("f8", None), ("f8", 1j), ("f8", 2**53 + 1), ("f4", 0.1), ("f4", 1e300),
        ("f2", 65520), ("str", b"a"), ("str", "\ud800"), ("str", None), ("str", 1),
        ("bytes", "a"), ("bytes", 5), ("bytes", [1]), ("uuid", "x"), ("uuid", b"0" * 16),
        ("S4", "a"), ("S4", b"abcde"), ("S12", b"0123456789abc"), ("S12", "a"),
        ("datetime64[s]", 5), ("datetime64[s]", "2013"), ("datetime64[s]", np.timedelta64(1, "s")),
        ("datetime64[s]", np.datetime64(1, "ms")),
        ("datetime64[D]", datetime.datetime(2013, 1, 1, 1)),
        ("datetime64[ns]", datetime.date(9999, 1, 1)), ("timedelta64[s]", np.timedelta64(5)),
        ("timedelta64[s]", np.timedelta64(1, "Y")),
        ("timedelta64[s]", datetime.datetime(2013, 1, 1)),
        (("u1", "str"), 1), (("u1", "str"), [1, "a"]), (("u1", "str"), (1,)),
        (("u1", "str"), (1, "a", 2)), (("u1", "str"), (1, 2)), (("u1", "str"), (256, "a")),
        (("u1", "u1"), (1, 256)), (("u1", "u1"), (1,)), (("u1", "u1"), (1, 1.5)), (("str",), "a"),
    ],
    ids=str,
)  # fmt: skip
def test_keys_that_do_not_fit_are_refused(spec, key):
    with pytest.raises(SchemaError):
        key_codec(spec).encode_key(key)
    if not isinstance(key, tuple):
        with pytest.raises(SchemaError):
            key_codec(spec).encode_array([key])


@pytest.mark.parametrize(
    ("spec", "keys"),
    [
        ("u8", np.array([1.0])), ("u8", ["a"]), ("u8", [[1], [2]]), ("u8", np.zeros((2, 2), "u8")),
        ("u8", np.array(5, "u8")), ("u8", 5), ("u8", "abc"), ("u8", b"abc"), ("u8", None),
        ("u8", np.array(["1"])), ("u8", np.array([1], "M8[s]")), ("u8", [1, 2.5]),
        ("u8", np.array([1], "m8[s]")), ("f8", np.array([1j])), ("f8", np.array(["1"])),
        ("datetime64[s]", np.array([1])), ("datetime64[s]", np.array([1], "m8[s]")),
        ("datetime64[s]", np.array([1001], "M8[ms]")), ("timedelta64[s]", np.array([1], "m8[Y]")),
        ("timedelta64[s]", np.array([1], "m8")), ("datetime64[s]", np.array(["2013"])),
        ("str", np.array([b"a"])), ("str", np.array([1])), ("str", ["a", 1]), ("str", ["\udc00"]),
        ("str", np.array(["a", "\ud800"])), ("str", "abc"), ("str", np.array(["a", None], object)),
        ("str", Column.from_values([b"a"], "bytes")), ("str", np.array([["a"]])),
        ("bytes", np.array(["a"])), ("bytes", [b"a", "b"]), ("bytes", b"abc"), ("bytes", [1]),
        ("bytes", Column.from_values(["a"], "str")), ("S4", np.array(["a"])), ("S4", np.array([1])),
        ("S12", np.array(["a"])), ("S12", b"abc"), ("uuid", np.array([b"a" * 16])),
        ("uuid", np.array([1])), ("uuid", [b"a" * 16]), ("uuid", np.zeros(2, "V8")),
        (("u1", "str"), ([1, 2], ["a"])), (("u1", "str"), ([1, 2],)), (("u1", "str"), [(1,)]),
        (("u1", "str"), [1, 2]), (("u1", "u1"), np.zeros((3, 2), "u1")), (("u1", "u1"),
        np.zeros(3)),
        (("u1", "u1"), np.zeros(3, "u1,u1,u1")), (("u1", "u1"), ([1], 5)), (("u1", "str"),
        ([1], [2])),
        (("u1", "u1"), ([1, 2], [1])),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("lookup", [False, True])
def test_arrays_that_do_not_fit_are_refused(spec, keys, lookup):
    with pytest.raises(SchemaError):
        key_codec(spec).encode_array(keys, lookup)


def test_refusals_say_what_was_expected_and_given():
    with pytest.raises(SchemaError, match=r"expected a u8 key, given str: 'a'"):
        key_codec("u8").encode_key("a")
    with pytest.raises(SchemaError, match=r"300 does not fit a u1 key.*from 0 to 255"):
        key_codec("u1").encode_array(np.array([5, 300]))
    with pytest.raises(SchemaError, match=r"1-dimensional array of u8 keys, given 2 dim"):
        key_codec("u8").encode_array(np.zeros((2, 2)))
    with pytest.raises(SchemaError, match=r"expected an array of u8 keys, given dtype float64"):
        key_codec("u8").encode_array(np.zeros(2))
    with pytest.raises(SchemaError, match=r"part 1 of the key: row 0: expected str, given int"):
        key_codec(("u1", "str")).encode_array([(1, 2)])
    with pytest.raises(SchemaError, match=r"differ in length: 2 and 1"):
        key_codec(("u1", "str")).encode_array(([1, 2], ["a"]))


@pytest.mark.parametrize("spec", ["u8", "f8", "bool", "datetime64[s]", "uuid"])
def test_prefixes_of_other_keys_are_refused(spec):
    with pytest.raises(SchemaError):
        key_codec(spec).prefix_bounds(1)


@pytest.mark.parametrize(
    ("spec", "bound"),
    [("u8", "a"), ("f8", "a"), ("str", 1), ("bytes", "a"), (("u1", "str"), 1), (("u1",), (1, 2)),
     ("datetime64[s]", 5), (("u1", "str"), ("a",)), (("str",), "a"), ("uuid", 5)],
    ids=str,
)  # fmt: skip
def test_bounds_of_the_wrong_type_are_refused(spec, bound):
    codec = key_codec(spec)
    for ask in (codec.lower_bound, codec.upper_bound, codec.prefix_bounds):
        with pytest.raises(SchemaError):
            ask(bound)


def test_partial_prefix_of_a_number_is_refused():
    with pytest.raises(SchemaError, match="piece of str or bytes"):
        key_codec(("str", "u1")).prefix_bounds(("a", 1), partial=True)
    with pytest.raises(SchemaError):
        key_codec(("str", "u1")).prefix_bounds((b"a",), partial=True)
    with pytest.raises(SchemaError):
        key_codec(("S9", "u1")).prefix_bounds(("a",), partial=True)


def test_keys_end_at_64_kib():
    longest = b"x" * 65536
    for spec, key in (("bytes", longest), ("str", longest.decode())):
        codec = key_codec(spec)
        assert codec.decode_key(codec.encode_key(key)) == key
        assert codec.decode_array(codec.encode_array([key]))[0] == key
        with pytest.raises(LimitError):
            codec.encode_key(key + key[:1])
        with pytest.raises(LimitError):
            codec.encode_array([key + key[:1]])
    codec = key_codec(("bytes",))
    fits = (b"\0" * 32767,)
    assert codec.decode_key(codec.encode_key(fits)) == fits
    assert rows(codec.encode_array([fits])) == [codec.encode_key(fits)]
    with pytest.raises(LimitError):
        codec.encode_key((b"\0" * 32768,))
    with pytest.raises(LimitError):
        codec.encode_array([(b"\0" * 32768,)])


def test_text_columns_are_validated():
    codec = key_codec("str")
    bad = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80",
           b"\xf0\x8f\xbf\xbf", b"ascii so far \xc3", b"\xe0\x9f\xbf",
           b"\xf5\x80\x80\x80"]  # fmt: skip
    for raw in bad:
        column = Column([0, 0, len(raw)], np.frombuffer(raw, np.uint8), "str")
        with pytest.raises(SchemaError, match="row 1"):
            codec.encode_array(column)
    split = Column([0, 1, 2], np.frombuffer("é".encode(), np.uint8), "str")
    with pytest.raises(SchemaError, match="row 0"):
        codec.encode_array(split)


@given(st.binary(max_size=20))
def test_utf8_check_agrees_with_python(raw):
    column = Column([0, len(raw)], np.frombuffer(raw, np.uint8), "str")
    try:
        raw.decode()
    except UnicodeDecodeError:
        with pytest.raises(SchemaError):
            key_codec("str").encode_array(column)
    else:
        assert rows(key_codec("str").encode_array(column)) == [raw]


# Bytes that no encoder gave


@pytest.mark.parametrize(
    ("spec", "raw"),
    [
        ("str", b"\xff"), ("uuid", b"short"), ("S12", b"short"), (("str",), b""), (("str",), b"a"),
        (("str",), b"a\0"), (("str",), b"a\0\x05\0\0"), (("str",), b"a\0\0extra"),
        (("-str",), b"\x9e\xff"), (("u8", "u8"), b"\0" * 15), (("u8", "u8"), b"\0" * 17),
        (("uuid", "str"), b"\0" * 15), (("str", "u2"), b"\0\0\0"), (("-bytes",),
        b"\xff\x01\xff\xff"),
        (("bytes",), b"a\0\xff"),
    ],
    ids=str,
)  # fmt: skip
def test_malformed_encodings_are_corruption(spec, raw):
    codec = key_codec(spec)
    with pytest.raises(CorruptionError):
        codec.decode_key(raw)
    if isinstance(spec, tuple):
        batch = EncodedKeys(1, offsets=np.array([0, len(raw)]), data=np.frombuffer(raw, np.uint8))
        with pytest.raises(CorruptionError):
            codec.decode_array(batch)


@given(st.binary(max_size=40), st.sampled_from([t for t in TUPLES if key_codec(t).width == 0]))
def test_any_bytes_decode_or_are_corruption_both_ways(raw, spec):
    codec = key_codec(spec)
    batch = EncodedKeys(1, offsets=np.array([0, len(raw)]), data=np.frombuffer(raw, np.uint8))
    try:
        key = codec.decode_key(raw)
    except CorruptionError:
        if not any("str" in part for part in spec):  # columns find invalid text when read
            with pytest.raises(CorruptionError):
                codec.decode_array(batch)
    else:
        columns = codec.decode_array(batch)
        decoded = tuple(plain(part, column[0]) for part, column in zip(spec, columns, strict=True))
        assert compare(spec, decoded, key) == 0


@pytest.mark.parametrize("spec", ["u8", "f4", "bool", "datetime64[s]", "S4", ("u1", "u1")], ids=str)
def test_batches_of_the_other_form_are_refused(spec):
    fixed = key_codec("u8").encode_array([1])
    variable = key_codec("str").encode_array(["a"])
    with pytest.raises(TypeError):
        key_codec(spec).decode_array(variable)
    for other in ("str", "uuid", "S12", ("u1", "str")):
        with pytest.raises(TypeError):
            key_codec(other).decode_array(fixed)
        with pytest.raises(TypeError):
            key_codec(other).decode_key(5)


def test_masked_rows_are_refused():
    whole = np.ma.masked_array([1, 2], mask=False)
    assert rows(key_codec("u8").encode_array(whole)) == [1, 2]
    with pytest.raises(SchemaError, match="masked"):
        key_codec("u8").encode_array(np.ma.masked_array([1, 2], mask=[True, False]))
