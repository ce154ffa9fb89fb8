"""What the engine tells the logger "cesium", and OpenTelemetry."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cesium
from cesium import events

ROOT = Path(__file__).parents[2]
KEYS = np.arange(1000, dtype=np.uint64)

# Event -> the facts that each telling of it has.
FACTS = {
    "flush": {"rows", "memory_bytes", "segments_written", "bytes_written"},
    "merge": {"segments_read", "bytes_read", "segments_written", "bytes_written"},
    "checkpoint": {"sequence", "memtables"},
    "load": {"rows", "segments_written", "bytes_written", "sequence"},
    "recovery": {"sequence_before", "sequence", "journal_files", "bytes_read", "dropped_bytes"},
    "compaction": {"rows", "bytes_before", "bytes_after"},
    "backup": {"sequence", "files", "bytes_shared", "bytes_copied"},
}
ALWAYS = {"event", "store", "duration_seconds"}


def work(path: Path) -> None:
    """Whatever tells of itself, at least once."""
    with cesium.open(path / "store", key="u8", value="f8", durability="process") as store:
        store.bulk_load(KEYS, KEYS)
        store.put_many(KEYS[::2], KEYS[::2])
        store.checkpoint()
        store[5000] = 1.0
        shutil.copytree(path / "store", path / "killed")
        store.compact()
        store.backup(path / "backup")
    cesium.open(path / "killed").close()


class Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    keeper = Keeper()
    logging.getLogger("cesium").addHandler(keeper)
    with caplog.at_level(logging.INFO, "cesium"):
        yield keeper.records
    logging.getLogger("cesium").removeHandler(keeper)


def test_each_event_has_its_facts(tmp_path: Path, told: list[logging.LogRecord]) -> None:
    work(tmp_path)
    by_name: dict[str, list[logging.LogRecord]] = {}
    for record in told:
        assert record.name == "cesium" and record.levelno == logging.INFO
        by_name.setdefault(vars(record)["event"], []).append(record)
    assert by_name.keys() == FACTS.keys()
    for name, records in by_name.items():
        for record in records:
            extra = vars(record)
            assert extra.keys() >= FACTS[name] | ALWAYS
            assert extra["duration_seconds"] > 0
            assert extra["store"] in (str(tmp_path / "store"), str(tmp_path / "killed"))
            assert f"{name} took" in record.getMessage() and extra["store"] in record.getMessage()


def test_the_facts_are_true(tmp_path: Path, told: list[logging.LogRecord]) -> None:
    with cesium.open(tmp_path / "store", key="u8", value="f8") as store:
        commit = store.bulk_load(KEYS, KEYS)
        load = vars(told[-1])
        assert load["event"] == "load" and load["rows"] == 1000
        assert load["sequence"] == commit.sequence
        assert load["bytes_written"] == store.stats().segment_bytes
        assert load["segments_written"] == store.stats().segments == 1
        store.put_many(KEYS[:10], KEYS[:10])
        store.checkpoint()
        flush, checkpoint = (vars(record) for record in told[-2:])
        assert (flush["event"], checkpoint["event"]) == ("flush", "checkpoint")
        assert flush["rows"] == 10 and flush["segments_written"] == 1
        assert checkpoint["memtables"] == 1 and checkpoint["sequence"] == store.sequence
        before = store.stats().segment_bytes
        store.compact()
        merge, compaction = (vars(record) for record in told[-2:])
        assert (merge["event"], compaction["event"]) == ("merge", "compaction")
        assert merge["bytes_read"] == before and merge["segments_read"] == 2
        assert compaction["bytes_before"] == before
        assert compaction["bytes_after"] == store.stats().segment_bytes == merge["bytes_written"]


def test_recovery_is_told_where_there_is_something_to_recover(
    tmp_path: Path, told: list[logging.LogRecord]
) -> None:
    with cesium.open(tmp_path / "store", key="u8", value="f8") as store:
        for key in range(7):
            store[key] = 1.0
        shutil.copytree(tmp_path / "store", tmp_path / "killed")
    cesium.open(tmp_path / "store").close()
    assert "recovery" not in {vars(record)["event"] for record in told}
    with cesium.open(tmp_path / "killed", flag="r"):
        recovery = vars(told[-1])
    assert recovery["event"] == "recovery"
    assert (recovery["sequence_before"], recovery["sequence"]) == (0, 7)
    assert recovery["journal_files"] == 1 and recovery["bytes_read"] > 0


def test_what_fails_is_told_and_raised(told: list[logging.LogRecord]) -> None:
    with cesium.open(":memory:", key="u8", value="f8") as store:
        with pytest.raises(ZeroDivisionError):
            with events.event(store._engine, "flush", rows=3):
                raise ZeroDivisionError("no")
    record = vars(told[-1])
    assert record["error"] == "ZeroDivisionError: no" and record["rows"] == 3
    assert record["store"] == ":memory:"


def test_a_level_above_info_is_told_nothing(
    tmp_path: Path, told: list[logging.LogRecord], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cesium"):
        work(tmp_path)
    assert not told


def test_a_handler_that_fails_stops_no_maintenance(tmp_path: Path) -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            met.append(vars(record)["event"])
            raise RuntimeError("a broken filter")

    met: list[str] = []
    broken = Broken()
    logger = logging.getLogger("cesium")
    before = logger.level
    logger.addFilter(broken)
    logger.setLevel(logging.INFO)
    try:
        work(tmp_path)
    finally:
        logger.removeFilter(broken)
        logger.setLevel(before)
    assert set(met) == FACTS.keys()


def test_nothing_is_imported_to_tell(tmp_path: Path) -> None:
    """A program that does not log does not pay for logging."""
    code = (
        "import sys, numpy; before = set(sys.modules); import cesium\n"
        f"with cesium.open({str(tmp_path / 's')!r}, key='u8', value='f8') as store:\n"
        "    store[1] = 2.0; store.checkpoint(); store.compact()\n"
        "loaded = {name for name in set(sys.modules) - before}\n"
        "print('logging' in sys.modules and 'logging' not in before,\n"
        "      any(name.startswith('opentelemetry') for name in loaded))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_document_lists_every_event_and_fact() -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    table = re.findall(r"^\| `(\w+)` \| [^|]*\| ([^|]*) \|$", text, re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", facts)) for name, facts in table}
    assert {name: documented[name] for name in FACTS} == FACTS
    assert set(re.findall(r"`(\w+)`", text)) >= ALWAYS


def test_spans(tmp_path: Path) -> None:
    """With the SDK's exporter in memory; OpenTelemetry's global provider can be set only once."""
    pytest.importorskip("opentelemetry.sdk.trace")
    done = subprocess.run(
        [sys.executable, "-c", SPANS, str(tmp_path)], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


SPANS = """
import pathlib, shutil, sys
import numpy as np
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import cesium
from cesium import events

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

path = pathlib.Path(sys.argv[1])
keys = np.arange(1000, dtype=np.uint64)
with cesium.open(path / "store", key="u8", value="f8", durability="process") as store:
    with trace.get_tracer("program").start_as_current_span("mine"):
        store.bulk_load(keys, keys)
    store.put_many(keys, keys)
    store.checkpoint()
    store[1] = 1.0
    shutil.copytree(path / "store", path / "killed")
    store.compact()
    try:
        with events.event(store._engine, "flush"):
            raise ZeroDivisionError("no")
    except ZeroDivisionError:
        pass
cesium.open(path / "killed").close()

spans = exporter.get_finished_spans()
names = {span.name for span in spans}
events = ("flush", "merge", "checkpoint", "load", "recovery", "compaction")
assert names == {"mine", *("cesium." + name for name in events)}, names
by_name = {span.name: span for span in spans}
load = by_name["cesium.load"]
assert load.attributes["cesium.rows"] == 1000
assert load.attributes["cesium.store"] == str(path / "store")
assert load.parent.span_id == by_name["mine"].context.span_id
checkpoints = {span.context.span_id for span in spans if span.name == "cesium.checkpoint"}
flushes = [span for span in spans if span.name == "cesium.flush"]
assert flushes[0].parent.span_id in checkpoints
(failed,) = [span for span in spans if not span.status.is_ok]
assert failed.name == "cesium.flush"
assert failed.attributes["cesium.error"] == "ZeroDivisionError: no"
assert failed.events[0].name == "exception"
"""
