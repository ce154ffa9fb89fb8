"""The command line: what it prints, what it writes, its exit codes, its errors of one line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cesium
from command_line import COMMAND, ENVIRONMENT, fail, on_terminal, run, succeed


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A store of the squares of 0, 10, ... 90."""
    path = tmp_path / "numbers.cesium"
    with cesium.open(path, key="i8", value="f8") as store:
        for key in range(0, 100, 10):
            store[key] = float(key * key)
    return path


@pytest.fixture
def trades(tmp_path: Path) -> Path:
    path = tmp_path / "trades.cesium"
    key = ("datetime64[s]", "str")
    with cesium.open(path, key=key, value=[("price", "f8"), ("size", "i4")]) as store:
        for day in (1, 2, 3):
            for number, name in enumerate(("ABC", "XYZ")):
                time = np.datetime64(f"2020-01-0{day}T12:00", "s")
                store[time, name] = (day + 0.5, day * 10 + number)
    return path


# One key at a time


def test_get(numbers: Path) -> None:
    assert succeed("get", numbers, 30) == "900.0\n"
    assert succeed("get", numbers, 30, "--json") == "900.0\n"


def test_get_of_a_row_prints_its_fields(trades: Path) -> None:
    assert succeed("get", trades, "2020-01-02T12:00:00,XYZ") == "price\t2.5\nsize\t21\n"
    found = json.loads(succeed("get", trades, "2020-01-02T12:00,XYZ", "--json"))
    assert found == {"price": 2.5, "size": 21}


def test_get_of_an_absent_key_exits_with_3(numbers: Path) -> None:
    assert "31" in fail(3, "get", numbers, 31)


def test_put_then_get(numbers: Path) -> None:
    assert succeed("put", numbers, -5, 2.25) == ""
    assert succeed("get", numbers, -5) == "2.25\n"
    with cesium.open(numbers, flag="r") as store:
        assert store.first() == (-5, 2.25)


def test_put_of_a_row_by_field_and_by_order(trades: Path) -> None:
    succeed("put", trades, "2021-01-01,NEW", '{"size": 3, "price": 1.5}')
    succeed("put", trades, "2021-01-02,NEW", "[2.5, 4]")
    with cesium.open(trades, flag="r") as store:
        assert tuple(store[np.datetime64("2021-01-01", "s"), "NEW"]) == (1.5, 3)
        assert tuple(store[np.datetime64("2021-01-02", "s"), "NEW"]) == (2.5, 4)


@pytest.mark.parametrize(
    "value", ["[1.5]", "[1.5, 2, 3]", '{"price": 1}', '{"price": 1, "size": 2, "x": 3}', "1", "{"]
)
def test_put_refuses_what_is_not_the_row(trades: Path, value: str) -> None:
    fail(2, "put", trades, "2021-01-01,NEW", value)
    with cesium.open(trades, flag="r") as store:
        assert len(store) == 6


def test_delete(numbers: Path) -> None:
    assert succeed("delete", numbers, 30) == ""
    fail(3, "get", numbers, 30)
    fail(3, "delete", numbers, 30)
    with cesium.open(numbers, flag="r") as store:
        assert list(store) == [0, 10, 20, 40, 50, 60, 70, 80, 90]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("u8", "18446744073709551615"),
        ("i4", "-7"),
        ("f8", "-2.5"),
        ("str", "grün 木"),
        ("bytes", "0x00ff00"),
        ("bytes", "plain"),
        ("bool", "true"),
        ("uuid", "12345678-1234-5678-1234-567812345678"),
        ("datetime64[ns]", "2020-01-01T00:00:00.000000001"),
        ("timedelta64[s]", "-90"),
        (("str", "-i4"), '"a,b",7'),
    ],
)
def test_keys_are_read_by_the_schema(tmp_path: Path, key: object, text: str) -> None:
    path = tmp_path / "store"
    cesium.open(path, key=key, value="str").close()
    succeed("put", path, text, "here")
    assert succeed("get", path, text) == "here\n"
    row = json.loads(succeed("range", path, "--json"))
    wanted: object = ["a,b", 7] if key == ("str", "-i4") else text
    if key in ("u8", "i4", "f8", "bool", "timedelta64[s]"):
        wanted = json.loads(text)
    assert row == {"key": wanted, "value": "here"}


@pytest.mark.parametrize("text", ["x", "1.5", "", "1,2"])
def test_a_key_that_is_none_is_wrong_usage(numbers: Path, text: str) -> None:
    fail(2, "get", numbers, text)


@pytest.mark.parametrize("text", ["2020-01-01", "2020-01-01,A,B", "today is,A", ""])
def test_a_composite_key_needs_all_its_parts(trades: Path, text: str) -> None:
    fail(2, "get", trades, text)


@pytest.mark.parametrize("value", ["json", "msgpack"])
def test_documents(tmp_path: Path, value: str) -> None:
    if value == "msgpack":
        pytest.importorskip("msgpack")
    path = tmp_path / "store"
    cesium.open(path, key="str", value=value).close()
    succeed("put", path, "a", '{"x": [1, null, "é"]}')
    assert json.loads(succeed("get", path, "a", "--json")) == {"x": [1, None, "é"]}
    assert "not JSON" in fail(2, "put", path, "a", "{x}")


# Ranges


def keys_of(output: str) -> list[int]:
    return [int(line.split("\t")[0]) for line in output.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]),
        (["--from", 25], [30, 40, 50, 60, 70, 80, 90]),
        (["--from", 30, "--to", 50], [30, 40]),
        (["--to", 20, "--reverse"], [10, 0]),
        (["--reverse", "--limit", 2], [90, 80]),
        (["--limit", 0], []),
        (["--from", 50, "--to", 20], []),
        (["--from", -1, "--limit", 1], [0]),
    ],
)
def test_range(numbers: Path, arguments: list[object], wanted: list[int]) -> None:
    assert keys_of(succeed("range", numbers, *arguments)) == wanted
    lines = succeed("range", numbers, *arguments, "--json").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"key": key, "value": float(key * key)} for key in wanted
    ]


def test_range_by_the_first_parts_of_a_key(trades: Path) -> None:
    output = succeed("range", trades, "--from", "2020-01-02", "--to", "2020-01-03")
    assert output.splitlines() == [
        "2020-01-02T12:00:00\tABC\t2.5\t20",
        "2020-01-02T12:00:00\tXYZ\t2.5\t21",
    ]


def test_range_by_prefix(trades: Path) -> None:
    output = succeed("range", trades, "--prefix", "2020-01-03T12:00", "--reverse", "--limit", 1)
    assert output == "2020-01-03T12:00:00\tXYZ\t3.5\t31\n"
    fail(2, "range", trades, "--prefix", "2020-01-03T12:00", "--from", "2020-01-01")


def test_a_prefix_of_text(tmp_path: Path) -> None:
    path = tmp_path / "words"
    with cesium.open(path, key="str", value="i8") as store:
        store.update({"car": 1, "cart": 2, "cat": 3, "dog": 4})
    assert succeed("range", path, "--prefix", "car") == "car\t1\ncart\t2\n"


def test_absent_numbers_are_null_in_json(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with cesium.open(path, key="i8", value=[("a", "f8"), ("b", "datetime64[s]")]) as store:
        store[1] = (float("nan"), np.datetime64("NaT", "s"))
    assert json.loads(succeed("get", path, 1, "--json")) == {"a": None, "b": None}
    succeed("put", path, 2, '{"a": null, "b": null}')
    assert succeed("range", path) == "1\t\t\n2\t\t\n"


def test_a_terminal_gets_a_table(trades: Path) -> None:
    output = on_terminal("range", trades, "--limit", 1)
    assert "key: datetime64[s]" in output and "2020-01-01T12:00:00" in output
    assert "size" in output and "too wide" not in output
    narrow = on_terminal("range", trades, "--limit", 1, columns=44)
    assert "price" in narrow and "too wide for: size" in narrow
    assert "(datetime64[s], str)" in on_terminal("info", trades)


def test_a_terminal_gets_the_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with cesium.open(path, key="u8", value="u8") as store:
        store.bulk_load(np.arange(1000, 2000, dtype="u8"), np.arange(1000, dtype="u8"))
    output = on_terminal("range", path)
    assert "1039" in output and "1040" not in output and "--limit" in output
    assert "1040" in on_terminal("range", path, "--limit", 41)
    assert "--limit" not in on_terminal("range", path, "--limit", 41)


# Facts


def test_info(trades: Path) -> None:
    facts = json.loads(succeed("info", trades, "--json"))
    assert facts["rows"] == 6
    assert facts["key"] == ["datetime64[s]", "str"]
    assert facts["first_key"] == ["2020-01-01T12:00:00", "ABC"]
    assert facts["last_key"] == ["2020-01-03T12:00:00", "XYZ"]
    assert facts["bytes"] > 0
    assert "rows\t6\n" in succeed("info", trades)


def test_info_of_an_empty_store(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    cesium.open(path, key="u8", value="bytes").close()
    facts = json.loads(succeed("info", path, "--json"))
    assert (facts["rows"], facts["first_key"], facts["last_key"]) == (0, None, None)
    assert succeed("range", path) == ""


def test_stats(numbers: Path) -> None:
    facts = json.loads(succeed("stats", numbers, "--json"))
    assert facts and all(isinstance(name, str) for name in facts)
    assert len(succeed("stats", numbers).splitlines()) == len(facts)


def test_stats_on_a_terminal(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["cesium.cli.stats"], "sys", Terminal())
    text = succeed("stats", numbers)
    for shown in ("store", "tiers", "estimated rows", "write amplification", "entries"):
        assert shown in text, shown


class Terminal:
    """In place of `sys`: standard output is a terminal."""

    class stdout:
        @staticmethod
        def isatty() -> bool:
            return True


def test_compact(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with cesium.open(path, key="u8", value="u8") as store:
        for _ in range(3):
            store.put_many(np.arange(10_000, dtype="u8"), np.arange(10_000, dtype="u8"))
            store.checkpoint()
    facts = json.loads(succeed("compact", path, "--json"))
    assert facts["bytes_after"] < facts["bytes_before"]
    assert json.loads(succeed("stats", path, "--json"))["read_amplification"] == 1
    assert "bytes_after\t" in succeed("compact", path)


def test_verify_of_a_sound_store(numbers: Path) -> None:
    assert "as they were written" in succeed("verify", numbers)
    assert json.loads(succeed("verify", numbers, "--json"))["ok"] is True


def test_verify_finds_a_changed_byte(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with cesium.open(path, key="u8", value="u8") as store:
        store.bulk_load(np.arange(10_000, dtype="u8"), np.arange(10_000, dtype="u8"))
    segment = max(path.glob("segment-*"), key=lambda file: file.stat().st_size)
    damaged = bytearray(segment.read_bytes())
    damaged[2 * 4096 + 1000] ^= 1
    segment.write_bytes(damaged)
    result = run("verify", path)
    assert result.exit_code == 4 and f"{segment.name}\t42\t" in result.stdout
    assert result.stderr.startswith("cesium: ") and segment.name in result.stderr
    report = json.loads(run("verify", path, "--json").stdout)
    assert report["ok"] is False and report["problems"]


# Errors


@pytest.mark.parametrize(
    "command",
    [
        ["get", "1"],
        ["put", "1", "2"],
        ["delete", "1"],
        ["range"],
        ["info"],
        ["stats"],
        ["compact"],
        ["verify"],
        ["repair"],
    ],
)
def test_no_command_makes_a_store_that_is_not_there(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "absent"
    assert "no store" in fail(1, command[0], path, *command[1:])
    assert not path.exists()


@pytest.mark.parametrize(
    "command", [["get", "1"], ["put", "1", "2"], ["range"], ["verify"], ["repair"]]
)
def test_a_directory_that_is_no_store(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file.txt").write_text("mine")
    result = run(command[0], tmp_path, *command[1:])
    assert result.exit_code in (1, 4)
    assert result.stderr.startswith("cesium: ") and result.stderr.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("arguments", [["bogus"], ["get"], ["range", "--limit", "x", "s"], ["-x"]])
def test_wrong_usage_is_one_line_and_2(arguments: list[str]) -> None:
    assert "--help" in fail(2, *arguments)


def test_no_arguments_show_the_commands() -> None:
    result = run()
    assert result.exit_code == 2
    for command in (
        "demo",
        "load",
        "get",
        "put",
        "delete",
        "range",
        "info",
        "stats",
        "compact",
        "verify",
        "repair",
    ):
        assert f"\n  {command} " in result.output


def test_a_bug_is_one_line_too(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cesium, "open", lambda *arguments, **options: 1 / 0)
    assert "internal error: ZeroDivisionError" in fail(1, "get", numbers, 1)
    monkeypatch.setenv("CESIUM_TRACEBACK", "1")
    assert isinstance(run("get", numbers, 1).exception, ZeroDivisionError)


def test_ctrl_c_exits_with_130(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cesium, "open", interrupted)
    result = run("get", numbers, 1)
    assert result.exit_code == 130
    assert result.stderr == "\ncesium: interrupted\n"  # below the ^C of the terminal


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with cesium.open(path, key="u8", value="u8") as store:
        store.bulk_load(np.arange(100_000, dtype="u8"), np.arange(100_000, dtype="u8"))
    process = subprocess.Popen(
        [*COMMAND, "range", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"0\t0\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 128 + signal.SIGPIPE


def test_a_store_held_by_another_process(numbers: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import cesium, sys; store = cesium.open(sys.argv[1], flag='w'); store[1] = 1.0;"
            "print('open', flush=True); sys.stdin.read()",
            str(numbers),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert holder.stdin is not None and holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == b"open\n"
        assert str(holder.pid) in fail(1, "put", numbers, 5, 5)
        assert succeed("get", numbers, 30) == "900.0\n"
        holder.stdin.close()
        holder.stdout.close()
