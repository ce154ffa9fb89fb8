"""Value codecs: round trips, scalars against arrays, and every refusal."""

import datetime
import json
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cesium.columns import Column
from cesium.errors import CorruptionError, LimitError, SchemaError
from cesium.values import Codec, value_codec

INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
FLOATS = ["f2", "f4", "f8"]
COMPLEX = ["c8", "c16"]
TIMES = ["datetime64[ns]", "datetime64[us]", "datetime64[D]", "timedelta64[ms]", "timedelta64[ns]"]
STRINGS = ["S1", "S7", "U1", "U5", "V3"]
FIXED = ["bool", *INTEGERS, *FLOATS, *COMPLEX, *TIMES, *STRINGS]
FIELDS = [("price", "f8"), ("size", "i4"), ("when", "datetime64[ns]"), ("name", "U4"), ("ok", "?")]

no_trailing_nul = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(
    lambda text: text.rstrip("\0")
)


def values_of(name: str) -> st.SearchStrategy:
    dtype = np.dtype(name)
    bits = dtype.itemsize * 8
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind in "iu":
        return st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    if dtype.kind == "f":
        return st.floats(width=bits)
    if dtype.kind == "c":
        return st.complex_numbers(width=bits)
    if dtype.kind in "Mm":
        limit = 2**63 - 1  # the value below -limit is NaT
        return st.integers(-limit - 1, limit).map(
            lambda count: dtype.type(count, dtype_unit(dtype))
        )
    if dtype.kind == "S":
        return st.binary(max_size=dtype.itemsize).map(lambda data: data.rstrip(b"\0"))
    if dtype.kind == "U":
        return no_trailing_nul.map(lambda text: text[: dtype.itemsize // 4].rstrip("\0"))
    return st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize)


def dtype_unit(dtype: np.dtype) -> str:
    return np.datetime_data(dtype)[0]


def same(left: object, right: object) -> bool:
    """Equal, where a NaN or NaT equals itself, and of one type."""
    if type(left) is not type(right):
        return False
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    return left == right or (left != left and right != right)


def rows_one_by_one(codec, values) -> bytes:
    return b"".join(codec.encode_value(value) for value in values)


# Round trips, and scalars against arrays


@pytest.mark.parametrize("name", FIXED)
@given(data=st.data())
def test_fixed_round_trip(name, data):
    codec = value_codec(name)
    values = data.draw(st.lists(values_of(name), max_size=8))
    decoded = [codec.decode_value(codec.encode_value(value)) for value in values]
    assert all(map(same, decoded, values))

    from_list = codec.encode_array(values, len(values))
    assert from_list.count == len(from_list) == len(values)
    assert from_list.rows.shape == (len(values), codec.width)
    assert from_list.rows.tobytes() == rows_one_by_one(codec, values)

    array = codec.decode_array(from_list)
    assert array.dtype == codec.dtype == np.dtype(name)
    again = codec.encode_array(array)
    assert again.rows.tobytes() == from_list.rows.tobytes()
    if len(values):
        assert np.shares_memory(again.rows, array)
    swapped = array.astype(array.dtype.newbyteorder(">"))
    assert codec.encode_array(swapped).rows.tobytes() == from_list.rows.tobytes()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_str_round_trip(values):
    codec = value_codec("str")
    assert [codec.decode_value(codec.encode_value(value)) for value in values] == values
    encoded = codec.encode_array(values)
    assert encoded.data.tobytes() == rows_one_by_one(codec, values)
    column = codec.decode_array(encoded)
    assert isinstance(column, Column)
    assert list(column) == values
    trimmed = [value.rstrip("\0") for value in values]
    array = np.array(trimmed, dtype="U")
    for form in (array, array.astype(array.dtype.newbyteorder(">")), array.astype(object)):
        assert list(codec.decode_array(codec.encode_array(form))) == trimmed
    wide = np.array(trimmed, dtype=np.dtypes.StringDType())
    assert list(codec.decode_array(codec.encode_array(wide))) == trimmed


@given(st.lists(st.binary()))
def test_bytes_round_trip(values):
    codec = value_codec("bytes")
    assert [codec.decode_value(codec.encode_value(value)) for value in values] == values
    encoded = codec.encode_array(values, len(values))
    assert encoded.data.tobytes() == b"".join(values)
    assert list(codec.decode_array(encoded)) == values
    trimmed = [value.rstrip(b"\0") for value in values]
    array = np.array(trimmed, dtype="S")
    assert list(codec.decode_array(codec.encode_array(array))) == trimmed
    assert list(codec.decode_array(codec.encode_array(array[::-1]))) == trimmed[::-1]


@given(st.lists(st.binary(), min_size=2), st.data())
def test_column_is_taken_as_it_is(values, data):
    start = data.draw(st.integers(0, len(values)))
    codec = value_codec("bytes")
    column = Column.from_values(values, "bytes")[start:]
    encoded = codec.encode_array(column)
    assert encoded.offsets[0] == 0
    assert encoded.offsets[-1] == len(encoded.data)
    assert list(codec.decode_array(encoded)) == values[start:]
    if len(encoded.data):
        assert np.shares_memory(encoded.data, column.data)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, width=64).filter(lambda number: abs(number) != float("inf"))
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("name", ["json", "msgpack", "user"])
@given(values=st.lists(json_values, max_size=5))
def test_function_codecs_round_trip(name, values):
    form = Codec("user", pickle.dumps, pickle.loads) if name == "user" else name
    codec = value_codec(form)
    assert [codec.decode_value(codec.encode_value(value)) for value in values] == values
    encoded = codec.encode_array(values, len(values))
    assert encoded.data.tobytes() == rows_one_by_one(codec, values)
    array = codec.decode_array(encoded)
    assert array.dtype == object
    assert array.shape == (len(values),)
    assert array.tolist() == values


def test_json_is_compact_and_keeps_text_and_order():
    assert (
        value_codec("json").encode_value({"b": "é", "a": [1, 2]}) == '{"b":"é","a":[1,2]}'.encode()
    )


@given(st.lists(st.tuples(*[values_of(dtype) for _, dtype in FIELDS]), max_size=6))
def test_structured_round_trip(rows):
    codec = value_codec(FIELDS)
    decoded = [codec.decode_value(codec.encode_value(row)) for row in rows]
    assert all(same(tuple(left), right) for left, right in zip(decoded, rows, strict=True))
    encoded = codec.encode_array(rows)
    assert encoded.rows.tobytes() == rows_one_by_one(codec, rows)
    array = codec.decode_array(encoded)
    names = [name for name, _ in FIELDS]
    aligned = array.astype(np.dtype(FIELDS, align=True))
    fields = {name: array[name] for name in names}
    forms = [
        array, aligned, fields, tuple(fields.values()), decoded, list(array),
        [dict(zip(names, row, strict=True)) for row in rows], array[list(reversed(names))],
    ]  # fmt: skip
    for form in forms:
        assert codec.encode_array(form).rows.tobytes() == encoded.rows.tobytes()
    assert np.shares_memory(codec.encode_array(array).rows, array) or not rows


# What a codec says of itself


@pytest.mark.parametrize(
    ("form", "spec", "widths"),
    [
        ("f8", "f8", (8,)),
        (float, "f8", (8,)),
        (int, "i8", (8,)),
        (bool, "bool", (1,)),
        (complex, "c16", (16,)),
        (np.int32, "i4", (4,)),
        (">u2", "u2", (2,)),
        ("M8[ns]", "datetime64[ns]", (8,)),
        ("timedelta64[10us]", "timedelta64[10us]", (8,)),
        ("S512", "S512", (512,)),
        ("V3", "V3", (3,)),
        ("bytes", "bytes", ()),
        (bytes, "bytes", ()),
        (str, "str", ()),
        (np.dtypes.StringDType(), "str", ()),
        ("json", "json", ()),
        ("msgpack", "msgpack", ()),
        ("S513", "S513", ()),
        ([("price", ">f8"), ("size", int)], [["price", "f8"], ["size", "i8"]], (8, 8)),
        (np.dtype("i1,f8", align=True), [["f0", "i1"], ["f1", "f8"]], (1, 8)),
        ([("a", [("x", "u1"), ("y", "f4")]), ("b", "i2")], None, (5, 2)),
        ([("a", "f4", (2, 3)), ("b", "i2")], None, (24, 2)),
        (("f4", (2, 3)), {"items": "f4", "shape": [2, 3]}, (24,)),
        ([(f"c{i}", "u1") for i in range(255)], None, (1,) * 255),
        ([(f"c{i}", "u1") for i in range(256)], None, (256,)),
    ],
)
def test_spec_is_canonical_and_names_the_codec_again(form, spec, widths):
    codec = value_codec(form)
    if spec is not None:
        assert codec.spec == spec
    assert codec.field_widths == widths
    assert codec.width == sum(widths)
    again = value_codec(json.loads(json.dumps(codec.spec)))
    assert (again.spec, again.width, again.dtype) == (codec.spec, codec.width, codec.dtype)
    assert value_codec(codec) is codec
    if codec.width:
        assert codec.decode_value(bytes(codec.width)) is not None


@pytest.mark.parametrize(
    "form",
    [
        None, "pickle", "object", object, "no such", dict, ("f8", "i8"), "S", "U", "V", "M8",
        "longdouble", np.clongdouble, [], [("a",)], [("", "f8")], [(1, "f8")],
        [("a", "f8"), ("a", "f8")], [("a", "O")], [("a", "S0")], ("f8", (0,)), {"codec": "mine"},
        [("a", "bytes")],
    ],
)  # fmt: skip
def test_forms_that_are_refused(form):
    with pytest.raises(SchemaError):
        value_codec(form)


def test_refusals_say_what_to_do(monkeypatch):
    with pytest.raises(SchemaError, match=r"Codec\('mine', encode, decode\)"):
        value_codec({"codec": "mine"})
    with pytest.raises(SchemaError, match=r"Codec\('pickle', pickle.dumps, pickle.loads\)"):
        value_codec("pickle")
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'cesiumdb\[msgpack\]'"):
        value_codec("msgpack")


def test_dtype_wider_than_a_page():
    assert value_codec(f"V{(64 << 20) + 1}").width == 0


# Scalars: what is taken and what is not


@pytest.mark.parametrize(
    ("form", "value", "stored"),
    [
        ("f8", 3, 3.0),
        ("f8", True, 1.0),
        ("f8", np.float32(0.5), 0.5),
        ("f8", np.int8(-3), -3.0),
        ("f4", 2**24 + 1, float(2**24)),
        ("f4", (1 << 60) + (1 << 36) + 1, float(np.float32(np.int64((1 << 60) + (1 << 36) + 1)))),
        ("i4", 3.0, 3),
        ("i4", np.float64(-3), -3),
        ("i4", np.uint8(3), 3),
        ("i4", np.bool_(True), 1),
        ("i4", False, 0),
        ("u8", np.uint64(2**64 - 1), 2**64 - 1),
        ("bool", np.bool_(True), True),
        ("c8", 1, 1 + 0j),
        ("c16", np.complex64(1j), 1j),
        ("S3", bytearray(b"ab"), b"ab"),
        ("S3", memoryview(b"a\0b"), b"a\0b"),
        ("U3", np.str_("é"), "é"),
        ("V2", np.void(b"a\0"), b"a\0"),
        ("bytes", bytearray(b"ab"), b"ab"),
        ("bytes", memoryview(b"ab"), b"ab"),
        ("bytes", np.frombuffer(b"ab", "u1"), b"ab"),
        ("bytes", np.bytes_(b"ab"), b"ab"),
        ("str", np.str_("é"), "é"),
        ("datetime64[D]", datetime.date(1970, 1, 2), np.datetime64(1, "D")),
        ("datetime64[s]", np.datetime64("1970-01-02", "D"), np.datetime64(86400, "s")),
        ("datetime64[s]", np.datetime64(2000, "ms"), np.datetime64(2, "s")),
        ("datetime64[ns]", datetime.datetime(1970, 1, 1, 0, 0, 1), np.datetime64(10**9, "ns")),
        (
            "datetime64[s]",
            datetime.datetime(1970, 1, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
            np.datetime64(3600, "s"),
        ),
        ("timedelta64[ns]", datetime.timedelta(microseconds=2), np.timedelta64(2000, "ns")),
    ],
)
def test_values_that_convert(form, value, stored):
    codec = value_codec(form)
    assert same(codec.decode_value(codec.encode_value(value)), stored)
    encoded = codec.encode_array([value])
    assert same(
        codec.decode_value((encoded.data if codec.width == 0 else encoded.rows).tobytes()), stored
    )


@pytest.mark.parametrize("form", ["datetime64[ns]", "datetime64[D]", "timedelta64[s]"])
def test_nat_of_any_unit(form):
    codec = value_codec(form)
    kind = codec.dtype.type
    for given_value in (kind("NaT"), kind("NaT", "ms")):
        assert np.isnat(codec.decode_value(codec.encode_value(given_value)))
        assert np.isnat(codec.decode_array(codec.encode_array(np.array([given_value]))))[0]


def test_pandas_scalars_and_frames():
    pandas = pytest.importorskip("pandas")
    codec = value_codec("datetime64[ns]")
    moment = pandas.Timestamp("2013-01-01T05:00:00.000000007")
    assert codec.decode_value(codec.encode_value(moment)) == moment.to_datetime64()
    duration = pandas.Timedelta(7, "ns")
    codec = value_codec("timedelta64[ns]")
    assert codec.decode_value(codec.encode_value(duration)) == np.timedelta64(7, "ns")
    frame = pandas.DataFrame({"size": [1, 2], "price": [0.5, 1.5]}, index=[7, 8])
    codec = value_codec([("price", "f8"), ("size", "i4")])
    assert codec.decode_array(codec.encode_array(frame)).tolist() == [(0.5, 1), (1.5, 2)]
    assert value_codec("f8").encode_array(frame["price"]).count == 2
    with pytest.raises(SchemaError):
        value_codec("i8").encode_array(pandas.Series([1, None], dtype="Int64"))


REFUSED = [
    ("f8", "1"), ("f8", None), ("f8", 1j), ("f8", 10**400), ("f8", [1.0]), ("f8", b"1"),
    ("f8", np.datetime64(1, "s")), ("f4", 1e39), ("f4", 10**39), ("f2", 65520), ("f2", 1e5),
    ("i4", 1.5), ("i4", float("nan")), ("i4", float("inf")), ("i4", 2**31), ("i4", -(2**31) - 1),
    ("i8", 2**63), ("i8", 10**30), ("i8", "1"), ("i8", None), ("i8", np.uint64(2**63)),
    ("i8", 9.3e18), ("u1", 256), ("u1", -1), ("u8", -1), ("u8", 2**64), ("u8", -(10**30)),
    ("i8", 1 + 0j), ("i8", np.timedelta64(1, "s")), ("i8", np.array(1)),
    ("bool", 1), ("bool", None), ("bool", 0.0), ("bool", "x"),
    ("c8", 1e39), ("c8", 1e39j), ("c16", "1j"), ("c16", None),
    ("S3", b"abcd"), ("S3", b"a\0"), ("S3", "abc"), ("S3", None), ("S3", 1),
    ("U3", "abcd"), ("U3", "a\0"), ("U3", b"abc"), ("U3", None),
    ("V3", b"ab"), ("V3", b"abcd"), ("V3", "abc"),
    ("datetime64[ns]", 1), ("datetime64[ns]", None), ("datetime64[ns]", "2013-01-01"),
    ("datetime64[ns]", np.timedelta64(1, "s")), ("datetime64[ns]", np.datetime64("3000-01-01")),
    ("datetime64[s]", np.datetime64(1500, "ms")),
    ("datetime64[D]", datetime.datetime(2013, 1, 1, 5)),
    ("timedelta64[s]", np.datetime64(1, "s")), ("timedelta64[s]", np.timedelta64(5)),
    ("timedelta64[D]", np.timedelta64(1, "M")),
    ("timedelta64[ns]", datetime.timedelta(days=300000)),
    ("bytes", "ab"), ("bytes", 1), ("bytes", None), ("bytes", np.float64(1)), ("bytes", [1]),
    ("bytes", np.zeros(2)), ("bytes", np.frombuffer(b"abcd", "u1")[::2]), ("bytes", np.uint8(1)),
    ("str", b"ab"), ("str", None), ("str", 1), ("str", "a\ud800"),
    ("json", b"x"), ("json", float("nan")), ("json", {1, 2}), ("json", "\ud800"),
    ("json", object()),
    ("msgpack", 2**64), ("msgpack", object()), ("msgpack", {1, 2}),
    (FIELDS, (1.0, 1)), (FIELDS, None), (FIELDS, 1.0), (FIELDS, {"price": 1.0}),
    (FIELDS, (1.0, 2**31, np.datetime64(1, "ns"), "a", True)),
    (("f4", (2,)), [1.0]), (("f4", (2,)), [1.0, "x"]), (("f4", (2,)), 1.0), (("f4", (2,)), None),
]  # fmt: skip


@pytest.mark.parametrize(("form", "value"), REFUSED)
def test_values_that_are_refused(form, value):
    codec = value_codec(form)
    good = codec.zero_value()
    with pytest.raises(SchemaError, match="expected "):
        codec.encode_value(value)
    values = [good, value]
    with pytest.raises(SchemaError, match=r"row 1: .*expected "):
        codec.encode_array(values)
    assert values[1] is value
    assert codec.encode_array([good, good]).count == 2  # the codec works on


@pytest.mark.parametrize(
    ("form", "array"),
    [
        ("f8", np.array(["1"])), ("f8", np.array([1j])), ("f8", np.array([1], "M8[s]")),
        ("f8", np.zeros((2, 2))), ("f8", np.array(1.0)), ("f8", 1.0), ("f8", None), ("f8", "ab"),
        ("f8", {1.0: 2}), ("f8", {1.0}), ("f8", iter([1.0])), ("f4", np.array([1.0, 1e39])),
        ("f2", np.array([1, 70000])), ("f8", np.ma.array([1.0, 2.0], mask=[0, 1])),
        ("i4", np.array([0, 2**31])), ("i4", np.array([1.0, 1.5])), ("i4", np.array([np.nan])),
        ("i8", np.array([np.inf])), ("i8", np.array([2.0**63])), ("i8", np.array([2**63], "u8")),
        ("u8", np.array([-1])), ("u8", np.array([2.0**64])), ("u1", np.array([-1.0])),
        ("i8", np.array([1], "m8[s]")), ("bool", np.array([0, 1])), ("bool", np.array([0.0])),
        ("c8", np.array([1e39])), ("S2", np.array([b"abc"])), ("S2", np.array(["ab"])),
        ("U2", np.array(["a", "abc"])), ("U2", np.array([b"ab"])),
        ("U1", np.array([0x110000], "u4").view("U1")), ("V2", np.array([b"abc"], "V3")),
        ("datetime64[s]", np.array([1500], "M8[ms]")), ("datetime64[s]", np.array([1])),
        ("datetime64[ns]", np.array([2**40], "M8[s]")), ("datetime64[s]", np.array(["2013"])),
        ("timedelta64[D]", np.array([1], "m8[M]")), ("timedelta64[s]", np.array([1], "m8")),
        ("str", np.array([b"a"])), ("str", np.array([1])), ("str", "ab"), ("str", np.array("ab")),
        ("str", np.array(["a", "\ud800"])), ("str", Column.from_values([b"a"], "bytes")),
        ("str", Column([0, 1, 2], np.array([0xC3, 0xA9], np.uint8), "str")),
        ("bytes", np.array(["a"])), ("bytes", b"ab"), ("bytes", Column.from_values(["a"], "str")),
        ("bytes", np.zeros((2, 2), np.uint8)), ("json", {"a": 1}), ("json", "ab"),
        (FIELDS, np.zeros(3)), (FIELDS, (np.zeros(3),) * 4), (FIELDS, (np.zeros(3),) * 5),
        (FIELDS, np.zeros(3, [("price", "f8"), ("other", "i4")])),
        ([("a", "f8"), ("b", "f8")], (np.zeros(3), np.zeros(2))),
        ([("a", "f8"), ("b", "f8")], {"a": np.zeros(3)}),
        ([("a", "f8"), ("b", "f8")], (np.zeros(3), 1.0)),
        (("f4", (2,)), np.zeros((3, 3))), (("f4", (2,)), np.zeros(4)),
    ],
)  # fmt: skip
def test_arrays_that_are_refused(form, array):
    copy = array.copy() if isinstance(array, np.ndarray) else None
    with pytest.raises(SchemaError, match=r"expected .*given "):
        value_codec(form).encode_array(array)
    if copy is not None:
        assert copy.tobytes() == array.tobytes()


def test_count_must_be_that_of_the_values():
    for form, values in [("f8", [1.0, 2.0]), ("str", ["a", "b"]), ([("a", "f8")], ([1.0, 2.0],))]:
        with pytest.raises(SchemaError, match="3 keys and 2 values"):
            value_codec(form).encode_array(values, 3)
        assert value_codec(form).encode_array(values, 2).count == 2


@pytest.mark.parametrize("form", [*FIXED, "bytes", "str", "json", FIELDS, ("f4", (2,)), "S600"])
def test_no_values(form):
    codec = value_codec(form)
    for nothing in ([], np.empty(0, object)):
        encoded = codec.encode_array(nothing, 0)
        assert encoded.count == len(codec.decode_array(encoded)) == 0
    if codec.dtype is not None:
        nothing = np.empty(0, codec.dtype)
        assert codec.decode_array(codec.encode_array(nothing)).dtype == nothing.dtype


@given(
    st.sampled_from(INTEGERS + FLOATS + COMPLEX),
    st.sampled_from(INTEGERS + FLOATS + COMPLEX + ["bool"]),
    st.data(),
)
def test_casts_of_arrays_agree_with_scalars(wanted, given_name, data):
    """An array of one dtype into a codec of another: both refuse, or both give the same bytes."""
    codec = value_codec(wanted)
    array = np.array(data.draw(st.lists(values_of(given_name), min_size=1, max_size=4)), given_name)
    try:
        expected = rows_one_by_one(codec, list(array))
    except SchemaError:
        with pytest.raises(SchemaError):
            codec.encode_array(array)
    else:
        rows = codec.encode_array(array).rows.tobytes()
        assert (
            np.array_equal(  # NaNs may differ in their payload
                np.frombuffer(rows, codec.dtype),
                np.frombuffer(expected, codec.dtype),
                equal_nan=True,
            )
            if codec.dtype.kind in "fc"
            else rows == expected
        )


@given(
    st.sampled_from(["s", "ms", "us", "ns", "D"]),
    st.sampled_from(["s", "ms", "us", "ns", "D"]),
    st.lists(
        st.integers(-(2**63), 2**63 - 1)
        | st.integers(-(10**6), 10**6).map(lambda count: count * 86_400_000),
        min_size=1,
        max_size=3,
    ),
)
def test_casts_of_times_agree_with_scalars(wanted, unit, counts):
    codec = value_codec(f"datetime64[{wanted}]")
    array = np.array(counts, "i8").view(f"M8[{unit}]")
    steps = {"D": 86400 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
    exact = [
        None if count == -(2**63) else divmod(count * steps[unit], steps[wanted])
        for count in counts
    ]
    if all(pair is None or (pair[1] == 0 and -(2**63) < pair[0] < 2**63) for pair in exact):
        stored = [-(2**63) if pair is None else pair[0] for pair in exact]
        assert codec.encode_array(array).rows.view("i8").ravel().tolist() == stored
        assert rows_one_by_one(codec, list(array)) == np.array(stored, "i8").tobytes()
    else:
        with pytest.raises(SchemaError):
            codec.encode_array(array)
        with pytest.raises(SchemaError):
            rows_one_by_one(codec, list(array))


# Structured values


def test_row_is_a_named_tuple():
    codec = value_codec([("price", "f8"), ("class", "i4"), ("_x", "bool")])
    row = codec.decode_value(codec.encode_value({"_x": True, "class": 5, "price": 1}))
    assert row == (1.0, 5, True)
    assert row.price == 1.0
    assert row._fields == ("price", "_1", "_2")
    assert type(row) is type(codec.zero_value())
    assert pickle.loads(pickle.dumps(row)) == (1.0, 5, True)
    assert codec.encode_value(row) == codec.encode_value(np.array([tuple(row)], codec.dtype)[0])


def test_errors_name_the_field_and_the_row():
    codec = value_codec(FIELDS)
    good = codec.zero_value()
    with pytest.raises(SchemaError, match=r"row 1: field 'size': expected .* i4 .*given 'x'"):
        codec.encode_array([good, good._replace(size="x")])
    with pytest.raises(SchemaError, match=r"field 'b': row 2: expected .* u1 .*given .*300"):
        value_codec([("a", "f8"), ("b", "u1")]).encode_array((np.zeros(3), np.array([0, 1, 300])))


def test_nested_structs_and_subarrays():
    codec = value_codec([("a", [("x", "u1"), ("y", "f4")]), ("b", "i2", (2, 2))])
    row = codec.decode_value(codec.encode_value(((1, 2.5), [[1, 2], [3, 4]])))
    assert row.a == (1, 2.5)
    assert row.a.y == 2.5
    assert same(row.b, np.array([[1, 2], [3, 4]], "i2"))
    rows = [row, ((3, 0.5), np.arange(4).reshape(2, 2))]
    encoded = codec.encode_array(rows)
    array = codec.decode_array(encoded)
    assert array["b"].tolist() == [[[1, 2], [3, 4]], [[0, 1], [2, 3]]]
    assert codec.encode_array(array).rows.tobytes() == encoded.rows.tobytes()
    assert codec.encode_array((array["a"], array["b"])).rows.tobytes() == encoded.rows.tobytes()
    assert codec.encode_value(array[1]) == encoded.rows[1].tobytes()


def test_plain_subarray():
    codec = value_codec(("f4", (3,)))
    array = np.arange(6, dtype="f4").reshape(2, 3)
    encoded = codec.encode_array(array)
    assert np.shares_memory(encoded.rows, array)
    assert same(codec.decode_array(encoded), array)
    assert codec.encode_array(array.tolist()).rows.tobytes() == array.tobytes()


# Variable forms


@pytest.mark.parametrize("form", ["S600", "U200", [("a", "S300"), ("b", "S300")], ("f8", (100,))])
def test_wide_rows_are_variable(form):
    codec = value_codec(form)
    assert codec.width == 0
    array = np.zeros(3, codec.dtype)
    flat = array.view(np.uint8).reshape(-1)
    flat[::4] = np.arange(len(flat[::4])) % 120
    encoded = codec.encode_array(array)
    assert np.shares_memory(encoded.data, array)
    assert np.diff(encoded.offsets).tolist() == [codec.dtype.itemsize] * 3
    assert same(codec.decode_array(encoded), array)
    data = codec.encode_value(array[1])
    assert data == encoded.data[encoded.offsets[1] : encoded.offsets[2]].tobytes()
    with pytest.raises(CorruptionError):
        codec.decode_value(data[:-1])
    encoded.offsets[1:] = [codec.dtype.itemsize * n for n in (1, 1, 2)]  # a miss in the middle
    missing = type(encoded)(3, None, encoded.offsets, encoded.data[: encoded.offsets[3]])
    assert codec.decode_array(missing)[1:2].tobytes() == bytes(codec.dtype.itemsize)
    missing.offsets[1] -= 1
    with pytest.raises(CorruptionError):
        codec.decode_array(missing)


def test_longest_value():
    """Memory that is never touched: what is too long is refused before it is read."""
    codec = value_codec("bytes")
    limit = 4 << 30
    longest = np.zeros(limit + 1, np.uint8)
    with pytest.raises(LimitError, match="4,294,967,297 bytes"):
        codec.encode_value(memoryview(longest))
    with pytest.raises(LimitError, match="row 1"):
        codec.encode_array(Column([0, 0, limit + 1], longest, "bytes"))
    encoded = codec.encode_array(Column([0, limit], longest[:limit], "bytes"))
    assert encoded.offsets.tolist() == [0, limit]


def test_misses_of_function_codecs():
    codec = value_codec(Codec("mine", lambda value: value, lambda data: ("read", data)))
    assert codec.zero_value() is None
    encoded = codec.encode_array([b"", b"x"])
    assert codec.decode_array(encoded).tolist() == [("read", b""), ("read", b"x")]
    assert codec.decode_array(encoded, np.array([False, True])).tolist() == [None, ("read", b"x")]
    for name in ("json", "msgpack"):
        codec = value_codec(name)
        assert codec.decode_value(b"") is None
        with pytest.raises(CorruptionError):
            codec.decode_value(b"\xc1")


def test_codec_must_give_bytes():
    codec = value_codec(Codec("mine", lambda value: value, bytes))
    assert codec.spec == {"codec": "mine"}
    assert codec.encode_value(bytearray(b"ab")) == b"ab"
    with pytest.raises(SchemaError, match=r"bytes from the codec 'mine', given 'ab' \(str\)"):
        codec.encode_value("ab")
    with pytest.raises(SchemaError):
        Codec("", bytes, bytes)
    with pytest.raises(SchemaError):
        Codec("mine", None, bytes)
    with pytest.raises(ZeroDivisionError):  # the user's own errors stay theirs
        value_codec(Codec("mine", lambda value: 1 / 0, bytes)).encode_value(1)


@given(
    st.binary(max_size=12)
    | st.lists(
        st.sampled_from(
            [
                b"a" * 9,
                "é".encode(),
                "€".encode(),
                "𝄞".encode(),
                b"\xed\xa0\x80",
                b"\xc0\x80",
                b"\xe0\x9f\x80",
                b"\xf0\x8f\x80\x80",
                b"\xf4\x90\x80\x80",
                b"\x80",
                b"\xf4\x8f\xbf\xbf",
                b"\xe2\x82",
            ]
        )
    ).map(b"".join)
)
def test_utf8_is_what_python_takes(data):
    codec = value_codec("str")
    column = Column([0, len(data)], np.frombuffer(data, np.uint8), "str")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        with pytest.raises(SchemaError, match="row 0"):
            codec.encode_array(column)
        with pytest.raises(CorruptionError):
            codec.decode_value(data)
    else:
        assert list(codec.decode_array(codec.encode_array(column))) == [text]


def test_damaged_text_of_fixed_width():
    with pytest.raises(CorruptionError):
        value_codec("U1").decode_value(b"\xff\xff\xff\xff")
