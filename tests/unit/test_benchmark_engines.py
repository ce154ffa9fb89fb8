"""Every engine of the benchmark gives the right rows: beside a dict, for each shape."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark_jobs import job
from cesium.benchmark.engines import ENGINES, Engine, NotOffered, Settings, engine
from cesium.benchmark.job import Context
from cesium.benchmark.shapes import KEY_TYPES, Keys, Rows, Shape, make_rows, misses
from cesium.benchmark.worker import Workers
from cesium.benchmark.workloads.writes import affordable

ROWS = 300
SHAPES = [Shape("u64", 8), Shape("composite", 8), Shape("url", 8), Shape("u64", 100),
          Shape("url", 2000)]  # fmt: skip


def names(shape: Shape) -> str:
    return f"{shape.key}-{shape.value_bytes}"


@pytest.fixture(params=list(ENGINES))
def engine_class(request: pytest.FixtureRequest) -> type[Engine]:
    pytest.importorskip(ENGINES[request.param][2])
    return engine(request.param)


@pytest.fixture(params=SHAPES, ids=names)
def shape(request: pytest.FixtureRequest) -> Shape:
    found: Shape = request.param
    return found


@pytest.fixture
def store(engine_class: type[Engine], shape: Shape, tmp_path: Path) -> Iterator[Engine]:
    """Open, with all rows of `rows_of`, loaded in random order."""
    if shape.key not in engine_class.keys_taken:
        pytest.skip(f"{engine_class.name} has no {shape.key} keys")
    settings = Settings(engine_class.durabilities[0], 1 << 20)
    with closing(engine_class(tmp_path / "store", shape, settings)) as found:
        shuffled = rows_of(shape).take(np.random.default_rng(3).permutation(ROWS))
        found.load(found.rows(shuffled), False)
        yield found


def rows_of(shape: Shape) -> Rows:
    return make_rows(shape, ROWS, 9)


def plain_values(values: Any) -> list[Any]:
    """int or bytes."""
    return [
        value.tobytes() if isinstance(value, np.void) else value
        for value in (values.tolist() if hasattr(values, "tolist") else list(values))
    ]


def plain_keys(keys: Any) -> list[Any]:
    """int, (int, int) or str, from whatever an engine gives for an array of keys."""
    if isinstance(keys, tuple):
        return list(zip(*(part.tolist() for part in keys)))
    return keys.tolist() if hasattr(keys, "tolist") else list(keys)


def model_of(rows: Rows) -> dict[Any, Any]:
    return dict(zip(rows.keys.singles(), plain_values(rows.values)))


def between(model: dict[Any, Any], lower: Any, upper: Any) -> list[tuple[Any, Any]]:
    return [
        (key, model[key])
        for key in sorted(model)
        if (lower is None or key >= lower) and (upper is None or key < upper)
    ]


def test_gets(store: Engine, shape: Shape) -> None:
    rows = rows_of(shape)
    found = [store.answer(key) for key in store.keys(rows.keys)]
    assert found == plain_values(rows.values)
    assert [store.answer(key) for key in store.keys(misses(rows.keys))] == [None] * ROWS
    store.only_reads()
    assert [store.answer(key) for key in store.keys(rows.keys)] == found


def test_get_many_answers_in_the_order_asked(store: Engine, shape: Shape) -> None:
    rows = rows_of(shape)
    asked = np.random.default_rng(5).integers(0, ROWS, 2 * ROWS)  # some twice
    try:
        batch = store.batch(rows.keys.take(asked))
    except NotOffered:
        pytest.skip("not offered")
    assert plain_values(store.get_many(batch)) == plain_values(rows.values[asked])


@pytest.mark.parametrize("reverse", [False, True])
def test_ranges(store: Engine, shape: Shape, reverse: bool) -> None:
    if not store.ranged:
        pytest.skip("no order")
    rows = rows_of(shape)
    model = model_of(rows)
    singles = rows.keys.singles()
    inside = store.keys(rows.keys)
    outside = store.keys(misses(rows.keys))
    bounds: list[tuple[Any, Any, int | None, int | None]] = [
        (None, None, None, None),
        (inside[7], inside[150], 7, 150),
        (outside[7], outside[150], 8, 151),
        (inside[9], None, 9, None),
        (None, inside[9], None, 9),
        (inside[0], inside[ROWS - 1], 0, ROWS - 1),
        (inside[30], inside[30], 30, 30),
        (outside[ROWS - 1], None, ROWS, None),
    ]
    for lower, upper, first, end in bounds:
        expected = [(key, model[key]) for key in singles[first:end]]
        keys, values = store.range(lower, upper, reverse)
        found = list(zip(plain_keys(keys), plain_values(values)))
        assert found == (expected[::-1] if reverse else expected)


def test_iteration_gives_every_row(store: Engine) -> None:
    if not store.ranged:
        pytest.skip("no order")
    assert len(list(store.iterate())) == ROWS


@pytest.fixture
def writable(store: Engine, shape: Shape) -> Engine:
    try:
        store.values(rows_of(shape).values)
    except NotOffered:
        pytest.skip("no keyed writes")
    return store


def test_writes_are_seen(writable: Engine, shape: Shape) -> None:
    store = writable
    rows = rows_of(shape)
    model = model_of(rows)
    others = make_rows(shape, 200, 10)
    mixed = Rows(others.keys.take(slice(0, 50)), others.values[:50])
    for key, value in zip(store.keys(mixed.keys), store.values(mixed.values)):
        store.put(key, value)
    model |= model_of(mixed)
    again = Rows(rows.keys.take(slice(0, 20)), rows.values[20:40])  # keys that are there
    for key, value in zip(store.keys(again.keys), store.values(again.values)):
        store.put(key, value)
    model |= model_of(again)
    batch = Rows(others.keys.take(slice(None, 49, -1)), others.values[:49:-1])
    store.put_many(store.rows(batch))
    model |= model_of(batch)
    gone = rows.keys.take(slice(100, 140))
    for key in store.keys(gone):
        store.delete(key)
    for single in gone.singles():
        del model[single]
    every = Keys(shape.key, tuple(np.concatenate(columns) for columns in
                                  zip(rows.keys.columns, others.keys.columns)))  # fmt: skip
    expected = [model.get(key) for key in every.singles()]
    assert [store.answer(key) for key in store.keys(every)] == expected
    if store.ranged:
        keys, values = store.range(None, None)
        assert list(zip(plain_keys(keys), plain_values(values))) == between(model, None, None)


def test_delete_range(writable: Engine, shape: Shape) -> None:
    store = writable
    if not store.ranged:
        pytest.skip("no order")
    rows = rows_of(shape)
    inside = store.keys(rows.keys)
    store.delete_range(inside[100], inside[250])
    left = rows.keys.singles()[:100] + rows.keys.singles()[250:]
    assert plain_keys(store.range(None, None)[0]) == left


def test_another_session_sees_the_rows(store: Engine, shape: Shape) -> None:
    if not store.threads:
        pytest.skip("one thread at a time")
    rows = rows_of(shape)
    session = store.session()
    session.only_reads()
    assert [session.answer(key) for key in session.keys(rows.keys)] == plain_values(rows.values)
    if session is not store:
        session.close()


def test_what_was_written_is_there_after_closing(
    engine_class: type[Engine], shape: Shape, tmp_path: Path
) -> None:
    """At each durability that the engine has; loads, single loads, puts."""
    if engine_class.bound or shape.key not in engine_class.keys_taken:
        pytest.skip("nothing to open again")
    rows = rows_of(shape)
    parts = [rows.take(slice(first, None, 3)) for first in range(3)]
    for durability in engine_class.durabilities:
        path = tmp_path / durability
        settings = Settings(durability, 1 << 20)
        with closing(engine_class(path, shape, settings)) as store:
            store.load(store.rows(parts[0]), True)
            store.settle()
            store.begin()
            for key, value in zip(store.keys(parts[1].keys), store.values(parts[1].values)):
                store.put(key, value)
            store.commit()
            for key, value in zip(store.keys(parts[2].keys), store.values(parts[2].values)):
                store.put(key, value)
        with closing(engine_class(path, shape, settings)) as store:
            found = [store.answer(key) for key in store.keys(rows.keys)]
        assert found == plain_values(rows.values), durability


def test_an_engine_refuses_what_it_does_not_have(
    engine_class: type[Engine], tmp_path: Path
) -> None:
    absent = {"sync", "interval", "process", "none"} - set(engine_class.durabilities)
    for durability in absent:
        with pytest.raises(NotOffered, match=durability):
            engine_class(tmp_path / "store", Shape(), Settings(durability))
    for key in set(KEY_TYPES) - set(engine_class.keys_taken):
        with pytest.raises(NotOffered, match=key):
            engine_class(tmp_path / "store", Shape(key), Settings(engine_class.durabilities[0]))
    assert not (tmp_path / "store").exists()


def test_an_engine_says_what_it_is(engine_class: type[Engine]) -> None:
    assert any(character.isdigit() for character in engine_class.version())
    assert engine_class.describe(Settings())


EVERYWHERE = (
    *("get-hit", "get-many", "mixed", "put-load", "put-process", "batch-sync", "delete"),
    *("delete-range", "ycsb-b", "ycsb-d", "ycsb-e", "open", "recover", "growth"),
)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_engine_does_every_workload_or_says_that_it_does_not(
    engine_class: type[Engine], tmp_path: Path, threads: int
) -> None:
    (tmp_path / "scratch").mkdir()
    given = job(engine=engine_class.name, rows=1500, seconds=0.002, threads=threads,
                store=str(tmp_path / "store"), scratch=str(tmp_path / "scratch"))  # fmt: skip
    with Workers() as workers:
        if engine_class.on_disk:
            made = workers.perform(replace(given, workload="prepare"), 120.0)
            assert "outcome" in made, made
        for name in EVERYWHERE if threads == 1 else ("get-hit", "get-many", "scan", "mixed"):
            for path in (tmp_path / "scratch").iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            answer = workers.perform(replace(given, workload=name), 120.0)
            assert "error" not in answer, (name, answer)
            if "outcome" in answer:
                assert answer["outcome"]["runs"] and min(answer["outcome"]["runs"]) > 0, name


def test_rows_to_be_written_fit_memory() -> None:
    context = Context(job(value_bytes=65536, rows=100_000))
    assert affordable(context, 1_000_000) * 65536 <= 256 << 20
    assert affordable(Context(job()), 5000) == 5000
