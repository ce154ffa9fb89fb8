"""Files cut off under live mappings: an exception, never a killed process, never a wrong answer.

A truncated file stands for a drive that cannot read: both are a SIGBUS in whoever touches the page.
Every read of a damaged store gives the answer that it gave before, or raises.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium._faults import faults
from cesium._page import TableShape
from cesium.files import MemoryFiles
from cut_stores import DAMAGE, FORMS, PAGE, keys_of, make, readers_of, reads_of
from failing_files import FailingMemoryFiles
from segment_files import NAME, build, open_segment

pytestmark = pytest.mark.crash


def cuts(footer: dict[str, Any]) -> list[int]:
    """Where to cut: on and inside pages, in each part of the file."""
    places = [
        0, 1, footer["fence_first"] // 2, footer["fence_first"] - 1,
        footer["fence_first"], footer["fence_first"] + footer["fence_pages"] // 2,
        footer["range_delete_first"], footer["filter_first"], footer["page_count"] - 1,
    ]  # fmt: skip
    pages = sorted({min(max(place, 0), footer["page_count"] - 1) for place in places})
    return [at for page in pages for at in (page * PAGE, page * PAGE + 1000)]


SCANS = ("get_all", "arrays", "short ranges", "forwards", "backwards", "batches")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Callable[[Any, Any], Path]]:
    def path_of(store: Any, reader: Any) -> Path:
        return Path(store._engine.files.path(reader.name))

    yield path_of


@pytest.mark.parametrize("form", FORMS)
def test_every_read_of_a_file_cut_off_is_right_or_raises(
    tmp_path: Path, form: str, files: Callable[[Any, Any], Path]
) -> None:
    store = make(tmp_path, form)
    reads = reads_of(form)
    expected = {name: read(store) for name, read in reads.items()}
    raised = 0
    count = len(readers_of(store))
    for place in range(count):
        footer = readers_of(store)[place].footer()
        for cut in cuts(footer):
            # Another store object each time: what was lost stays lost in a mapping.
            path = files(store, readers_of(store)[place])
            whole = path.read_bytes()
            os.truncate(path, cut)
            seen = set()
            for _ in range(2):  # what one read found out must not let a later one pass
                for name, read in reads.items():
                    try:
                        answer = read(store)
                    except DAMAGE as error:
                        assert str(path) in str(error), (name, error)
                        seen.add(name)
                        raised += 1
                    else:
                        assert answer == expected[name], (form, place, cut, name)
            if cut <= (footer["page_count"] - 1) * PAGE:
                assert seen.issuperset(SCANS), (place, cut, set(SCANS) - seen)
            report = store.verify()
            assert not report.ok
            assert {problem.file for problem in report.problems} == {str(path)}
            path.write_bytes(whole)
            store.close()
            store = cesium.open(tmp_path / form)
            for name, read in reads.items():
                assert read(store) == expected[name], name
    store.close()
    assert raised > 100 * count


def test_short_ranges_are_the_first_to_read_a_file_cut_off(tmp_path: Path) -> None:
    """Of pages that were read before: where the rest of a cut one is zeros, no fault tells."""
    form = "fixed"
    store = make(tmp_path, form)
    read = reads_of(form)["short ranges"]
    expected = read(store)
    (reader,) = readers_of(store)
    path = Path(store._engine.files.path(reader.name))
    footer = reader.footer()
    for cut in cuts(footer):
        if cut > (footer["page_count"] - 1) * PAGE:
            continue  # behind all that is read
        whole = path.read_bytes()
        os.truncate(path, cut)
        with pytest.raises(DAMAGE, match=re.escape(str(path))):
            read(store)
        path.write_bytes(whole)
        store.close()
        store = cesium.open(tmp_path / form)
        assert read(store) == expected
    store.close()


@pytest.mark.parametrize("form", FORMS)
def test_an_error_names_file_page_and_both_sizes(
    tmp_path: Path, form: str, files: Callable[[Any, Any], Path]
) -> None:
    store = make(tmp_path, form)
    assert len(store)
    path = files(store, readers_of(store)[-1])
    size = path.stat().st_size
    os.truncate(path, 2 * PAGE)
    before = faults()
    with pytest.raises(cesium.CorruptionError, match=r"page \d+ is lost, the file was cut") as info:
        store.range(None, None).arrays()
    assert faults() > before
    assert info.value.file == str(path)
    assert info.value.offset is not None and 2 * PAGE <= info.value.offset < size
    assert info.value.expected == f"a file of {size} bytes"
    assert info.value.found == f"{2 * PAGE} bytes"
    store.put(*next(iter([("a", b"b") if form == "variable" else (1, 2.0)])))  # writes go on
    store.close()


def test_segments_beside_the_damaged_one_are_read(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        for first in range(0, 50000, 10000):
            store.bulk_load(np.arange(first, first + 10000, dtype="u8"), np.arange(10000))
        assert len(store) == 50000
        damaged = sorted(readers_of(store), key=lambda reader: reader.record.lower)[2]
        os.truncate(store._engine.files.path(damaged.name), PAGE + 100)
        for key in range(0, 50000, 1000):
            if 20000 <= key < 30000:
                with pytest.raises(cesium.CorruptionError):
                    store[key]
            else:
                assert store[key] == key % 10000
        assert store.range(100, 9000).arrays()[1].tolist() == list(range(100, 9000))
        assert [key for key, _ in store.range(30000, None)] == list(range(30000, 50000))
        assert store.get_many(np.arange(30000, 50000, dtype="u8"))[1].all()
        assert store.first() == (0, 0)
        assert store.last() == (49999, 9999)
        with pytest.raises(cesium.CorruptionError):
            store.range(100, 20001).arrays()


def test_an_iterator_in_the_midst_raises_and_goes_on_raising(tmp_path: Path) -> None:
    store = make(tmp_path, "fixed")
    rows = iter(store.range(None, None))
    assert next(rows) == (0, 0.5)
    for reader in readers_of(store):
        os.truncate(store._engine.files.path(reader.name), PAGE)
    got = [(0, 0.5)]
    with pytest.raises(cesium.CorruptionError):
        got.extend(rows)
    assert got == [(key, key + 0.5) for key in range(0, 2 * len(got), 2)]
    for _ in range(3):
        with pytest.raises(cesium.CorruptionError):
            next(rows)
    store.close()


def test_a_read_only_handle_of_another_process_raises(tmp_path: Path) -> None:
    make(tmp_path, "fixed").close()
    script = """
import sys, os, cesium
reader = cesium.open(sys.argv[1], flag="r")
assert reader[100] == 100.5
for name in os.listdir(sys.argv[1]):
    if name.startswith("segment-"):
        os.truncate(os.path.join(sys.argv[1], name), 4096)
for key in (100, 59998):
    try:
        reader[key]
    except cesium.CorruptionError as error:
        print("raised", error.file)
reader.close()
"""
    done = run(script, str(tmp_path / "fixed"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("raised") == 2


@pytest.mark.parametrize("cut", [0, PAGE + 1, 20 * PAGE, 60 * PAGE + 17])
def test_a_merge_of_a_file_cut_off_fails_and_leaves_nothing(tmp_path: Path, cut: int) -> None:
    store = make(tmp_path, "layered")
    assert len(store)
    base = max(readers_of(store), key=lambda reader: reader.record.rows)
    path = Path(store._engine.files.path(base.name))
    whole = path.read_bytes()
    before = sorted(name.name for name in path.parent.glob("segment-*"))
    os.truncate(path, cut)
    for _ in range(2):
        with pytest.raises(DAMAGE, match=path.name):
            store.compact()
        assert sorted(name.name for name in path.parent.glob("segment-*")) == before
    path.write_bytes(whole)
    store.close()
    with cesium.open(tmp_path / "layered") as store:
        assert store.verify().ok
        store.compact()
        keys = keys_of("layered")
        found, values = store.range(None, None).arrays()
        assert found.tolist() == keys
        assert values.tolist() == [key + 0.5 for key in keys]


def test_a_merge_after_a_flush_fails_and_loses_nothing(tmp_path: Path) -> None:
    options = cesium.Options("u8", "u8", "c", "process", "1MiB", background=False)
    path = tmp_path / "s"
    store = cesium.open(path, options=options)
    store.bulk_load(np.arange(0, 40000, 2, dtype="u8"), np.zeros(20000, "u8"))
    model = dict.fromkeys(range(0, 40000, 2), 0)
    assert len(store) == 20000
    base = Path(store._engine.files.path(readers_of(store)[0].name))
    whole = base.read_bytes()
    os.truncate(base, 8 * PAGE + 5)
    for number in range(1, 80):  # a commit stands whatever becomes of the merge behind it
        rows = np.arange(number % 7, 40000, 29, dtype="u8")
        store.put_many(rows, np.full(len(rows), number, "u8"))
        model.update(dict.fromkeys(rows.tolist(), number))
    assert base.name in (store._engine.upkeep.failure or "")
    assert base.stat().st_size == 8 * PAGE + 5
    with pytest.raises(DAMAGE, match=base.name):
        store.compact()
    base.write_bytes(whole)  # for the next opening: in this mapping, lost stays lost
    with pytest.raises(OSError, match=base.name):
        store.close()
    assert store.closed
    with cesium.open(path, options=options) as store:
        assert dict(store.range(None, None)) == model
        assert store.verify().ok


@pytest.mark.parametrize("form", FORMS)
def test_threads_that_read_while_files_are_cut_off(tmp_path: Path, form: str) -> None:
    rounds = 6
    raised = 0
    reads = {name: read for name, read in reads_of(form).items() if name != "batches"}
    for number in range(rounds):
        store = make(tmp_path / f"{number}", form)
        expected = {name: read(store) for name, read in reads.items()}
        started = threading.Barrier(4)
        wrong: list[Any] = []
        failures: list[str] = []

        def work(
            mine: list[str], store: Any = store, expected: Any = expected,
            started: Any = started, wrong: Any = wrong, failures: Any = failures,
        ) -> None:  # fmt: skip
            started.wait()
            failed = 0
            for _ in range(400):
                for name in mine:
                    try:
                        answer = reads[name](store)
                    except DAMAGE:
                        failed += 1
                    except BaseException as error:
                        wrong.append((name, error))
                        return
                    else:
                        if answer != expected[name]:
                            wrong.append((name, answer))
                            return
                if failed > 20:
                    break
            failures.append(f"{failed}")

        names = list(reads)
        threads = [threading.Thread(target=work, args=(names[part::3],)) for part in range(3)]
        for thread in threads:
            thread.start()
        readers = readers_of(store)
        started.wait()
        for reader in readers:
            pages = reader.record.pages
            path = store._engine.files.path(reader.name)
            for cut in range(pages - 1, number % pages, -max(1, pages // 12)):
                os.truncate(path, cut * PAGE + number * 700)
        for thread in threads:
            thread.join()
        assert not wrong
        raised += sum(map(int, failures))
        store.close()
    assert raised > rounds * 20


# --- the journal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["sync", "process"])
@pytest.mark.parametrize("cut", [0, 100, PAGE, PAGE + 77, 3 * PAGE, (1 << 20) - PAGE])
def test_a_journal_cut_off_refuses_from_then_on(tmp_path: Path, durability: str, cut: int) -> None:
    store = cesium.open(tmp_path / "s", key="u8", value="bytes", durability=durability)
    for key in range(10):
        store.put(key, b"v" * 700)
    (journal,) = (tmp_path / "s").glob("journal-*")
    os.truncate(journal, cut)
    last = store.sequence
    with pytest.raises(OSError, match=r"Input/output error|could not be synced"):
        store.put(100, b"w" * 700)
    for key in range(3):
        with pytest.raises(cesium.PoisonedError):
            store.put(key, b"x")
    with pytest.raises(OSError):
        store.sync()
    assert store.sequence == last
    for key in range(10):
        assert store[key] == b"v" * 700  # reads go on
    assert 100 not in store
    with pytest.raises(cesium.PoisonedError):
        store.put_many(np.array([1], "u8"), [b"y"])
    store.close()


def test_what_waits_for_a_sync_is_not_acknowledged_by_a_shorter_file(tmp_path: Path) -> None:
    """Cut behind the last frame, inside its page: nothing faults, but nothing is kept either."""
    store = cesium.open(tmp_path / "s", key="u8", value="u8", durability="process")
    store.put(1, 1)
    (journal,) = (tmp_path / "s").glob("journal-*")
    os.truncate(journal, journal.stat().st_size - 10)
    with pytest.raises(OSError):
        store.sync()
    with pytest.raises(cesium.PoisonedError):
        store.put(2, 2)
    store.close()


# --- what a lost page means afterwards ------------------------------------------------------------


class CutFiles(FailingMemoryFiles):
    def cut(self, size: int) -> None:
        os.ftruncate(self._descriptor(NAME), size)

    def restore(self, content: bytes) -> None:
        os.pwrite(self._descriptor(NAME), content, 0)


def lost_segment() -> tuple[CutFiles, Any, Any, bytes]:
    """A segment one page of which was lost, and all of whose file is there again."""
    shape = TableShape(8, 8)
    files = CutFiles()
    entries = [(key, key.to_bytes(8, "little")) for key in range(3000)]
    _, record = build(shape, entries, files=files)
    reader, view = open_segment(files, record, shape)
    content = bytes(files.read_all(NAME))
    for key, value in entries:
        assert view.find(key) == (key, value)
    # Growing again before the end of the file is touched: only the page in the middle is lost.
    files.cut(5 * PAGE)
    with pytest.raises(cesium.CorruptionError, match="the file was cut off"):
        reader.page(6)
    files.restore(content)
    return files, reader, view, content


def rows_in_page(view: Any, number: int) -> list[int]:
    return [key for key in range(3000) if view.route(key) == number]


def test_a_page_that_was_lost_stays_lost_and_others_are_read() -> None:
    _, _, view, _ = lost_segment()
    lost, sound = rows_in_page(view, 6), rows_in_page(view, 5)
    assert lost and sound
    for _ in range(2):
        for key in sound:
            assert view.find(key) == (key, key.to_bytes(8, "little"))
        for key in lost:
            with pytest.raises(OSError, match="page 6 could not be read") as info:
                view.find(key)
            assert not isinstance(info.value, cesium.CorruptionError)
            assert info.value.errno == 5
    with pytest.raises(OSError, match="page 6"):
        list(view.entries())


def test_a_drive_that_still_fails_is_its_own_error() -> None:
    files, _, view, _ = lost_segment()
    key = rows_in_page(view, 6)[0]
    files.fail("read", 1, 121)
    with pytest.raises(OSError, match="Remote I/O error") as info:
        view.find(key)
    assert info.value.errno == 121
    assert not isinstance(info.value, cesium.CorruptionError)


def test_other_bytes_in_place_of_the_lost_are_damage() -> None:
    files, _, view, content = lost_segment()
    key = rows_in_page(view, 6)[0]
    files.restore(content[: 6 * PAGE + 100] + b"?" + content[6 * PAGE + 101 :])
    with pytest.raises(cesium.CorruptionError, match="wrong checksum of a page"):
        view.find(key)


def test_a_file_cut_off_while_it_is_opened_may_be_opened_again() -> None:
    shape = TableShape(8, 8)

    class Shrinking(MemoryFiles):
        whole: bytes = b""
        left = PAGE

        def map_readonly(self, name: str) -> Any:
            mapped = super().map_readonly(name)
            os.ftruncate(self._descriptor(NAME), self.left)
            return mapped

    files = Shrinking()
    entries = [(key, key.to_bytes(8, "little")) for key in range(3000)]
    _, record = build(shape, entries, files=files)
    content = bytes(files.read_all(NAME))
    reader, view = open_segment(files, record, shape)
    for left in (0, PAGE, len(content) - PAGE, len(content) - 2 * PAGE):
        files.left = left
        os.pwrite(files._descriptor(NAME), content, 0)
        with pytest.raises(cesium.CorruptionError, match="lost"):
            view.find(5)
    files.left = len(content)
    os.pwrite(files._descriptor(NAME), content, 0)
    assert view.find(5) == (5, (5).to_bytes(8, "little"))
    reader.read_ahead(check=True)


# --- other people's faults ------------------------------------------------------------------------

FOREIGN = """
import ctypes, faulthandler, mmap, os, signal, sys
import numpy as np
import cesium

store = cesium.open(":memory:", key="u8", value="u8")
STEPS = sys.argv[1].split(",")

file = open(sys.argv[2], "w+b")
file.truncate(16384)
foreign = mmap.mmap(file.fileno(), 16384)
address = ctypes.addressof(ctypes.c_char.from_buffer(foreign))

class Action(ctypes.Structure):
    _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_ubyte * 128),
                ("flags", ctypes.c_int), ("restorer", ctypes.c_void_p)]

libc = ctypes.CDLL(None)
kept = []

def install(handler, flags):
    action = Action(handler=ctypes.cast(handler, ctypes.c_void_p), flags=flags)
    assert libc.sigaction(signal.SIGBUS, ctypes.byref(action), None) == 0
    kept.append((handler, action))

@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def detailed(number, info, context):
    place = ctypes.c_uint64.from_address(info + 16).value
    os.write(1, b"detailed")
    os._exit(42 if number == signal.SIGBUS and place == address + 8192 else 43)

@ctypes.CFUNCTYPE(None, ctypes.c_int)
def simple(number):
    os.write(1, b"simple")
    os._exit(44)

def own_fault():
    path = sys.argv[2] + f".{len(kept)}"
    with cesium.open(path, key="u8", value="u8") as own:
        own.bulk_load(np.arange(9000, dtype="u8"), np.arange(9000))
        assert own[5] == 5
        for name in os.listdir(path):
            if name.startswith("segment-"):
                os.truncate(os.path.join(path, name), 4096)
        try:
            own[8000]
        except cesium.CorruptionError:
            os.write(1, b"raised ")

for step in STEPS:
    if step == "ours":
        store.bulk_load(np.arange(900, dtype="u8"), np.arange(900))
        assert store[5] == 5
    elif step == "own":
        own_fault()
    elif step == "detailed":
        install(detailed, 4)            # SA_SIGINFO
    elif step == "simple":
        install(simple, 0)
    elif step == "ignore":
        libc.signal(signal.SIGBUS, ctypes.c_void_p(1))
    elif step == "faulthandler":
        faulthandler.enable()
    elif step == "fork":
        child = os.fork()
        if child:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os.write(1, b"child %d" % status)
            os._exit(0)
    elif step == "kill":
        os.kill(os.getpid(), signal.SIGBUS)
    elif step == "foreign":
        file.truncate(100)
        ctypes.string_at(address + 8192, 1)
os.write(1, b"end")
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "code", "output"),
    [
        ("foreign", -signal.SIGBUS, ""),  # what this is compared with
        ("ours,foreign", -signal.SIGBUS, ""),
        ("own,foreign", -signal.SIGBUS, "raised "),
        ("ours,kill", -signal.SIGBUS, ""),
        ("ignore,ours,kill", 0, "end"),
        ("ignore,ours,foreign", -signal.SIGBUS, ""),
        ("detailed,ours,foreign", 42, "detailed"),
        ("detailed,own,own,foreign", 42, "raised raised detailed"),
        ("simple,ours,foreign", 44, "simple"),
        ("simple,own,foreign", 44, "raised simple"),
        ("ours,detailed,foreign", 42, "detailed"),
        ("ours,detailed,own,foreign", 42, "raised detailed"),
        ("ours,simple,ours,own,foreign", 44, "raised simple"),
        ("faulthandler,ours,foreign", -signal.SIGBUS, ""),
        ("faulthandler,own,foreign", -signal.SIGBUS, "raised "),
        ("ours,faulthandler,foreign", -signal.SIGBUS, ""),
        ("ours,faulthandler,own,foreign", -signal.SIGBUS, "raised "),
        ("own,fork,foreign", 0, f"raised child {-signal.SIGBUS}"),
        ("ours,fork,own,foreign", 0, f"raised child {-signal.SIGBUS}"),
        ("detailed,ours,fork,own,foreign", 0, "raised detailedchild 42"),
    ],
)
def test_foreign_faults_go_where_they_went(
    tmp_path: Path, steps: str, code: int, output: str
) -> None:
    done = run(FOREIGN, steps, str(tmp_path / "foreign"))
    assert (done.returncode, done.stdout) == (code, output), done.stderr
    if "faulthandler" in steps:
        assert done.stderr.count("Fatal Python error: Bus error") == 1
        assert "string_at" in done.stderr
