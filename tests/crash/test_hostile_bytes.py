"""Every byte of every file of a small store of each form, flipped; every file, cut at each length.

Whatever the bytes are, opening and reading give the right answer or CorruptionError, and verifying
finds what reading does not touch.  In the frames of a journal that nothing vouches for as synced, a
flip may drop the tail; then the answer is that of an earlier commit, and the store says so.  Never
another exception, a hang, or memory without bound.

By default all bytes of headers, footers, fences and frames are tried, and a sample of those that
fill data pages; CESIUM_HOSTILE=all (`make hostile`) tries all bytes, with several masks.
"""

from __future__ import annotations

import collections
import faulthandler
import os
import random
import shutil
import signal
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

import cesium
import hostile_stores as stores
from hostile_stores import DROPPED, FORMS, RIGHT, TOLD, Sample, Wrong, examine

ALL = os.environ.get("CESIUM_HOSTILE") == "all"
SHORT = stores.SANITIZED and not ALL  # about ten times slower
HANG_SECONDS = 120
PAGE_BYTES = 4096
SAMPLED = 7 if SHORT else 24  # bytes of each run of a page that is not structure

pytestmark = pytest.mark.crash


@pytest.fixture(params=list(FORMS))
def sample(request: pytest.FixtureRequest) -> Iterator[Sample]:
    with stores.scratch() as directory:
        yield Sample(request.param, directory)


@pytest.fixture
def watched() -> Iterator[None]:
    """A hang ends the run with a traceback, and a huge allocation fails."""
    faulthandler.dump_traceback_later(HANG_SECONDS * 30, exit=True)
    with stores.little_memory():
        yield
    faulthandler.cancel_dump_traceback_later()


def hang(*_: Any) -> None:
    raise Wrong(f"still not done after {HANG_SECONDS} seconds")


def tried(sample: Sample, **options: Any) -> str:
    """The outcome of one damaged store; what raises anything unheard of names itself."""
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(HANG_SECONDS)
    try:
        return examine(sample.path, sample, **options)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Bytes:
    """One file of the sample, changed in place and put back."""

    def __init__(self, sample: Sample, name: str, content: bytes) -> None:
        self.path = sample.path / name
        self.content = content
        self.used = len(content.rstrip(b"\0"))
        self.fd = os.open(self.path, os.O_RDWR)

    def flip(self, offset: int, mask: int) -> None:
        os.pwrite(self.fd, bytes([self.content[offset] ^ mask]), offset)

    def unflip(self, offset: int) -> None:
        if offset < self.used:
            self.flip(offset, 0)
        else:  # a hole again, for holes are not read
            self.cut(self.used)
            self.cut(len(self.content))

    def cut(self, size: int) -> None:
        os.ftruncate(self.fd, size)

    def restore(self) -> None:
        os.pwrite(self.fd, self.content[: self.used], 0)
        os.ftruncate(self.fd, len(self.content))

    def close(self) -> None:
        os.close(self.fd)


def spread(rng: random.Random, offsets: Iterable[int], most: int) -> list[int]:
    """All of the offsets, or a sample of them."""
    offsets = list(offsets)
    return offsets if ALL or len(offsets) <= most else sorted(rng.sample(offsets, most))


def places(rng: random.Random, name: str, content: bytes) -> list[int]:
    """The offsets to flip: of structure all, of the rest a sample."""
    found: list[int] = []
    if name.startswith("segment-"):
        for start in range(0, len(content), PAGE_BYTES):
            page = content[start : start + PAGE_BYTES]
            is_data = page[4] in (1, 3)
            used = [i for i in range(64, PAGE_BYTES) if page[i]]
            unused = [i for i in range(64, PAGE_BYTES) if not page[i]]
            found += range(start, start + 64)
            found += [start + i for i in spread(rng, used, SAMPLED if is_data else 10**9)]
            found += [start + i for i in spread(rng, unused, SAMPLED)]
    elif name.startswith("journal-"):
        used_bytes = len(content.rstrip(b"\0"))
        found += range(120)
        found += spread(rng, range(120, PAGE_BYTES), SAMPLED)
        found += range(PAGE_BYTES, used_bytes + 64)
        tail = range(used_bytes + 64, len(content))
        found += sorted(rng.sample(tail, 1000 if ALL else SAMPLED))
    elif name.startswith("blob-"):
        found += range(80)
        found += spread(rng, range(80, len(content)), 600)
    else:
        found += range(len(content))
    return spread(rng, found, 150) if SHORT else found


def masks(rng: random.Random) -> list[int]:
    return [0x01, 0x80, 0xFF, rng.randrange(2, 255)] if ALL else [1 << rng.randrange(8)]


def lengths(rng: random.Random, content: bytes) -> list[int]:
    """The sizes to cut a file to; all within its bytes, and a sample of the zeros behind them."""
    used = len(content.rstrip(b"\0")) if len(content) > 1 << 18 else len(content)
    most = 10**9 if ALL else 100 if SHORT else 150
    return sorted(
        {
            *spread(rng, range(used), most),
            *range(0, len(content), max(PAGE_BYTES, len(content) // 100)),
            *rng.sample(range(used - 1, len(content)), min(50, len(content) - used + 1)),
            len(content) - 1,
        }
    )


def say(capsys: pytest.CaptureFixture[str], what: str, sample: Sample, seen: Any) -> None:
    """Counts, for the log of a run."""
    counts = ", ".join(f"{seen[outcome]} {outcome}" for outcome in (RIGHT, TOLD, DROPPED))
    with capsys.disabled():
        print(f"\n  {what} of {sample.name}: {sum(seen.values())} ({counts})", end="")


def test_flipped_bytes(sample: Sample, watched: None, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(f"flips of {sample.name}")
    seen: collections.Counter[str] = collections.Counter()
    for name, content in sample.files().items():
        file = Bytes(sample, name, content)
        for offset in places(rng, name, content):
            counts = not name.startswith("journal-")  # a flip behind its end is nothing
            for mask in masks(rng):
                file.flip(offset, mask)
                try:
                    seen[tried(sample, damaged=counts)] += 1
                except Exception as error:
                    error.add_note(f"{sample.name}: {name} at {offset}, mask {mask:#x}")
                    raise
                file.unflip(offset)
        file.close()
    assert tried(sample) == RIGHT
    assert seen[TOLD]
    assert SHORT or bool(seen[DROPPED]) == sample.form.killed
    if sample.name == "journal":
        assert any(b'{"segments": [{"id":' in data for data in sample.files().values())
    say(capsys, "flips", sample, seen)


def test_truncated_files(sample: Sample, watched: None, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(f"cuts of {sample.name}")
    seen: collections.Counter[str] = collections.Counter()
    for name, content in sample.files().items():
        file = Bytes(sample, name, content)
        for size in reversed(lengths(rng, content)):
            file.cut(size)
            try:
                seen[tried(sample, damaged=True)] += 1
            except Exception as error:
                error.add_note(f"{sample.name}: {name} cut to {size} bytes")
                raise
        file.restore()
        file.close()
    assert tried(sample) == RIGHT
    assert seen[TOLD] == sum(seen.values()), "a file that was cut off was not missed"
    say(capsys, "cuts", sample, seen)


def test_missing_files(sample: Sample, watched: None) -> None:
    """Of a manifest or segments; nothing tells that there was a journal."""
    for name in sample.files():
        moved = sample.path.parent / name
        shutil.move(sample.path / name, moved)
        if not name.startswith("journal-"):
            assert tried(sample, damaged=True) == TOLD
        shutil.move(moved, sample.path / name)
    assert tried(sample) == RIGHT


def test_lock_bytes_mean_nothing(sample: Sample, watched: None) -> None:
    lock = sample.path / "LOCK"
    for content in (b"", b"\xff" * 300, b"{", b"[1, 2]", b'{"pid": "x", "host": 3}'):
        lock.write_bytes(content)
        assert tried(sample) == RIGHT
        with stores.opened(
            sample.path, cesium.Options(flag="w", background=False), sample.form.slots_max
        ):
            pass


def test_writing_to_a_damaged_store_makes_nothing_worse(sample: Sample, watched: None) -> None:
    """Opened for writing, one row put and closed: an error, or the same rows and that one."""
    rng = random.Random(f"writes to {sample.name}")
    key, value = sample.probed[0], next(iter(sample.rows[sample.sequence].values()))
    options = cesium.Options(flag="w", background=False)
    copy = sample.path.parent / "copy"
    outcomes: collections.Counter[str] = collections.Counter()
    for name, content in sample.files().items():
        found = places(rng, name, content)
        for offset in rng.sample(found, min(len(found), 200 if ALL else 4 if SHORT else 12)):
            stores.copy_store(sample.path, copy)
            with open(copy / name, "r+b") as file:
                file.seek(offset)
                file.write(bytes([content[offset] ^ 0x10]))
            try:
                store = stores.opened(copy, options, sample.form.slots_max)
            except cesium.CorruptionError:
                outcomes["refused"] += 1
                continue
            rows = dict(sample.rows[store.sequence])
            try:
                store.put(key, value)
                rows[key] = value
                store.close()
                outcomes["written"] += 1
            except cesium.Error:
                outcomes["refused to write"] += 1
            finally:
                store.close()
            answers = stores.answers_of(rows, sample.probed)
            with stores.opened(copy, stores.READ, sample.form.slots_max) as store:
                try:
                    stores.read_each(store, sample, answers)
                except Exception as error:
                    error.add_note(f"{sample.name}: {name} at {offset}")
                    raise
    assert outcomes["refused"] and outcomes["written"], outcomes
