"""Stores of every format version ever released open, hold what they held, and take writes."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium.repair import repair
from journal_frames import starts_of

HERE = Path(__file__).parent
BYTES_MOST = 100_000

spec = importlib.util.spec_from_file_location("make_golden", HERE / "make_golden.py")
assert spec is not None and spec.loader is not None
make_golden: Any = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = make_golden  # a dataclass looks its module up
spec.loader.exec_module(make_golden)

FILES = sorted(HERE.glob("format-*/*.zip"))


@pytest.fixture(params=FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def golden(request: Any, tmp_path: Path) -> Any:
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(tmp_path / "store")
    return make_golden.STORES[request.param.stem], tmp_path / "store"


def plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, tuple) else value


def contents(store: Any) -> dict[Any, Any]:
    return {key: plain(value) for key, value in store.range()}


def test_there_are_golden_files_of_this_format() -> None:
    from cesium.state import FORMAT_VERSION

    names = {file.stem for file in FILES if file.parent.name == f"format-{FORMAT_VERSION}"}
    assert names == set(make_golden.STORES)
    assert sum(file.stat().st_size for file in FILES) < BYTES_MOST


def test_it_opens_by_itself_and_holds_its_rows(golden: Any) -> None:
    made, path = golden
    expected = made.rows()
    before = {item.name: item.read_bytes() for item in path.iterdir()}
    with cesium.open(path, flag="r") as store:
        assert contents(store) == expected and len(store) == len(expected)
        assert store.sequence == made.sequence and store.verify().ok
        assert [key for key, _ in reversed(store.range())] == list(store)[::-1]
        for key, value in expected.items():
            assert plain(store[key]) == value
        assert store.contains_many(list(expected)).all()
        keys, _ = store.range().arrays()
        assert len(keys[0] if isinstance(keys, tuple) else keys) == len(expected)
    assert {item.name: item.read_bytes() for item in path.iterdir()} == before


def test_it_holds_what_the_format_has_to_offer(golden: Any) -> None:
    made, path = golden
    with cesium.open(path, flag="r") as store:
        stats = store.stats()
        records = [reader.record for reader in store.core.version.segments()]
        if made.killed:
            assert stats.memtable_entries and stats.journal_files and stats.segments
        else:
            assert stats.base_segments == 1 and stats.newer_sources >= 1
            assert any(record.delete_markers for record in records)
            assert any(record.markers for record in records)


def test_row_frames_are_in_the_later_files_alone(golden: Any) -> None:
    made, path = golden
    rows = 0
    for file in path.glob("journal-*"):
        content = file.read_bytes()
        rows += sum(content[start + 4] & 7 == 1 for start in starts_of(content)[:-1])
    later = [make_golden.STORES[name] for name in ("rows", "words")]
    assert rows > 30 if made in later else rows == 0


def test_it_takes_writes(golden: Any) -> None:
    made, path = golden
    expected = made.rows()
    first = next(iter(expected))
    value = expected.pop(first)
    with cesium.open(path, key=made.key, value=made.value) as store:
        assert plain(store.pop(first)) == value
        assert contents(store) == expected
    with cesium.open(path) as store:
        assert contents(store) == expected
        store.compact()
        assert contents(store) == expected and store.stats().newer_sources == 0
        store.bulk_load([first], np.array([value], store.values_codec.dtype)
                        if isinstance(value, tuple) else [value])  # fmt: skip
        assert contents(store) == {**expected, first: value}
        assert store.verify().ok


def test_it_opens_at_its_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with zipfile.ZipFile(HERE / "format-1" / "named.zip") as archive:
        archive.extractall(path)
    for _ in range(2):
        for name, sequence in (("loaded", 1), ("changed", 2)):
            with cesium.open(path, at=name) as then:
                assert contents(then) == make_golden.rows_at(name) and then.sequence == sequence
        with cesium.open(path) as store:  # and merged again
            assert [each.name for each in store.checkpoints()] == ["loaded", "changed"]
            assert store.checkpoints()[0].own_bytes == 0 < store.stats().checkpoint_bytes
            store.compact()


def test_a_lost_manifest_is_made_again(golden: Any) -> None:
    """By the footers; the older ones do not say the schema, nor when a load was committed."""
    made, path = golden
    for file in path.glob("manifest-*"):
        file.unlink()
    says_all = made in [make_golden.STORES[name] for name in ("origins", "rows", "words", "named")]
    schema = {} if says_all else {"key": made.key, "value": made.value}
    if not says_all:
        with pytest.raises(cesium.SchemaError, match="--key"):
            repair(path)
    report = repair(path, **schema)
    assert report.manifest == "rebuilt"
    with cesium.open(str(report.path)) as store:
        assert contents(store) == made.rows() and store.verify().ok
        store.compact()
        assert contents(store) == made.rows()
