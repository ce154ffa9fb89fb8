"""The workloads whose every moment is crashed: what they do, and which corners they must reach.

Each takes a Run; its choices come from the run's seeded generator.  `CORNERS` names what must have
been seen in a workload's runs or images: a rotation, a merge, a rewritten manifest, a hole with
frames behind it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from crash.run import Run

KEYS = 60
Workload = Callable[[Run], None]


def some_rows(run: Run, most: int) -> dict[int, float]:
    count = run.rng.randrange(1, most)
    return {run.rng.randrange(KEYS): run.rng.random() for _ in range(count)}


def puts(run: Run) -> None:
    """Single rows: rotations, and a flush whenever the memtable is full."""
    for number in range(75):
        run.put(run.rng.randrange(KEYS), float(number))
        if number % 20 == 7:
            run.claim()


def batches(run: Run) -> None:
    for number in range(26):
        if number % 5 == 4:
            run.delete_many({run.rng.randrange(KEYS) for _ in range(12)})
        elif number % 9 == 5:  # more than a journal file holds
            run.put_many({key: float(number) for key in range(300)})
            run.delete_range(KEYS, None)
        else:
            run.put_many(some_rows(run, 40))


def deletes(run: Run) -> None:
    run.put_many(dict.fromkeys(range(KEYS), -1.0))
    for number in range(40):
        key = run.rng.randrange(KEYS)
        kind = run.rng.randrange(5)
        if kind == 0:
            run.delete_range(key, key + run.rng.randrange(20))
        elif kind == 1:
            run.delete(key)
        elif kind == 2 and number % 7 == 0:
            run.delete_range(None, None)
        else:
            run.put_many({key: float(number), key + 1: float(number)})
        if number % 13 == 9:
            run.checkpoint()


def transactions(run: Run) -> None:
    """Operations of several kinds in one frame: all of them, or none."""
    run.put_many(dict.fromkeys(range(KEYS), -1.0))
    for number in range(22):
        key = run.rng.randrange(KEYS)
        gone = [run.rng.randrange(KEYS) for _ in range(run.rng.randrange(1, 9))]
        run.transaction(
            {other: float(number) for other in some_rows(run, 25)}, gone,
            (key, key + run.rng.randrange(1, 9)), "sync" if number % 7 == 3 else None,
        )  # fmt: skip
        if number % 8 == 6:
            run.checkpoint()


def checkpoints(run: Run) -> None:
    """A flush, an edit of the manifest and the end of the journal, again and again."""
    for number in range(14):
        for _ in range(run.rng.randrange(1, 4)):
            run.put(run.rng.randrange(KEYS), float(number))
        run.checkpoint()
        if number == 6:
            run.compact()


def merges(run: Run) -> None:
    for number in range(9):
        run.put_many(some_rows(run, 30))
        if number % 2:
            run.delete_range(number, number + 5)
        run.checkpoint()
        if number % 4 == 3:
            run.put(number, -1.0)
            run.compact()
    run.bulk_load(dict.fromkeys(range(100, 130), 3.0))
    run.compact()


def joins(run: Run) -> None:
    """Data in the order of time, closed often: small neighbours in the last tier."""
    for number in range(7):
        run.put_many({100 * number + key: float(number) for key in range(3)})
        run.close()
        run.open()
    run.compact()


def loads(run: Run) -> None:
    """Sorted and beside everything, then over what is there, then with writes in between."""
    run.bulk_load(dict.fromkeys(range(20, 40), 0.5))
    run.bulk_load(dict.fromkeys(range(100, 130), 1.5))
    run.put_many(some_rows(run, 20))
    for number in range(4):
        run.bulk_load(some_rows(run, 40))
        run.put(run.rng.randrange(KEYS), float(number))
        if number == 1:
            run.delete_range(10, 50)
        if number == 2:
            run.checkpoint()
    run.bulk_load(dict.fromkeys(range(150, 0, -1), 4.0))


def reopenings(run: Run) -> None:
    for number in range(6):
        for _ in range(run.rng.randrange(4)):
            run.put(run.rng.randrange(KEYS), float(number))
        run.close()
        run.open()
        if number % 3 == 2:
            run.bulk_load(some_rows(run, 20))


def kills(run: Run) -> None:
    """The process dies with commits that no sync has seen, and the next one goes on."""
    for number in range(9):
        for _ in range(run.rng.randrange(1, 6)):
            run.put(run.rng.randrange(KEYS), float(number))
        if number % 4 == 2:
            run.put_many({key: float(number) for key in range(250)})
        if number % 3 == 1:
            run.put(1, -1.0, durability="sync")
        run.kill()
        if number % 3 == 2:
            run.sync()  # before anything is written
        if number == 5:
            run.checkpoint()


def levels(run: Run) -> None:
    """The level of the store, raised by single calls, and every way to sync what was not."""
    for number in range(34):
        kind = run.rng.randrange(9)
        if kind == 0:
            run.put_many(some_rows(run, 20), durability="sync")
        elif kind == 1:
            run.sync()
        elif kind == 2:
            run.delete_range(5, 9, durability="sync")
        elif kind == 3 and number % 3 == 0:
            run.checkpoint()
        elif kind == 4:
            run.bulk_load(some_rows(run, 20))
        else:
            run.put(run.rng.randrange(KEYS), float(number))
        run.claim()


def intervals(run: Run) -> None:
    """Syncs come from the background, and some calls ask for more."""
    for number in range(40):
        kind = run.rng.randrange(8)
        if kind == 0:
            run.sync_in_the_background()
        elif kind == 1:
            run.put_many(some_rows(run, 20), durability="process")  # a lower level changes nothing
        elif kind == 2:
            run.delete(number, durability="sync")
        elif kind == 3 and number % 3 == 0:
            run.kill()
        else:
            run.put(run.rng.randrange(KEYS), float(number))
        if number % 3 == 0:
            run.claim()


def unjournaled(run: Run) -> None:
    """Nothing until the next checkpoint, which a full memtable, a sync or a call may ask for."""
    for number in range(46):
        kind = run.rng.randrange(12)
        if kind == 0 and number % 2:
            run.checkpoint()
        elif kind == 1:
            run.put_many(some_rows(run, 30))
        elif kind == 2:
            run.delete_range(number, number + 9)
        elif kind == 3 and number % 2:
            run.sync()
        elif kind == 4 and number % 2:
            run.put(1, float(number), durability="sync")
        elif kind == 5 and number % 2:
            run.bulk_load(some_rows(run, 30))
        else:
            run.put(run.rng.randrange(KEYS), float(number))
        if number % 10 == 3:
            run.claim()
        if number == 20:
            run.bulk_load(some_rows(run, 30))


def level_changes(run: Run) -> None:
    """Each opening at another level: what the one before left in the journal stays in order."""
    for number in range(16):
        for _ in range(run.rng.randrange(1, 6)):
            run.put(run.rng.randrange(KEYS), float(number))
        level = run.rng.choice(("none", "process", "interval", "sync"))
        run.claim()
        if run.options.durability == "none":
            if number % 2:
                run.checkpoint()
                run.put_many(some_rows(run, 9), durability="sync")
                run.kill(durability=level)
            else:
                run.close()
                run.open(durability=level)
        else:
            run.kill(durability=level)


def rotations(run: Run) -> None:
    """A memtable that never fills, no sync: a chain of files that may have holes, up to its cap."""
    run.store.core.memtable_limit_bytes = 1 << 24
    for number in range(18):
        run.put_many({key + number: float(number) for key in range(180)})
        if number % 3:
            run.store._engine.journal.prepare_next()
        if number == 9:
            run.put(1, -1.0, durability="sync")


def anything(run: Run) -> None:
    for number in range(38):
        kind = run.rng.choices(
            ("put", "put_many", "delete", "delete_many", "delete_range", "load", "checkpoint",
             "compact", "reopen", "kill", "sync"),
            (14, 8, 3, 2, 3, 2, 1.5, 0.7, 1, 1.5, 1),
        )[0]  # fmt: skip
        key = run.rng.randrange(KEYS)
        if kind == "put":
            run.put(key, float(number))
        elif kind == "put_many":
            run.put_many(some_rows(run, 60))
        elif kind == "delete":
            run.delete(key)
        elif kind == "delete_many":
            run.delete_many([key, key + 1, key + 3])
        elif kind == "delete_range":
            run.delete_range(key, key + run.rng.randrange(30))
        elif kind == "load":
            run.bulk_load(some_rows(run, 50))
        elif kind == "reopen":
            run.close()
            run.open()
        else:
            getattr(run, kind)()


def text(run: Run) -> None:
    """Keys and values of any length, some of them beside the page."""
    for number in range(26):
        key = "k" * run.rng.choice((0, 3, 40, 700)) + str(run.rng.randrange(12))
        value = bytes([number]) * run.rng.choice((0, 5, 300, 3000))
        if number % 6 == 5:
            run.bulk_load({key + tail: value for tail in "abc"})
        elif number % 4 == 3:
            run.delete_range(key[:1], key)
        else:
            run.put(key, value)
        if number % 10 == 9:
            run.checkpoint()


def blobs(run: Run) -> None:
    """Values in blob files: flushed, loaded, merged as pointers, written anew, their files gone."""
    for number in range(24):
        key = run.rng.choice("abcdefgh")
        value = bytes([number]) * run.rng.choice((5, 64, 300, 1500))
        if number % 8 == 5:
            run.bulk_load({key: value, key + "1": value[:70], "z": value * 2})
        elif number % 8 == 3:
            run.delete_range(key, chr(ord(key) + 2))
        else:
            run.put_many({key: value, key + "3": value})
        if number % 3 == 2:
            run.checkpoint()
        if number % 7 == 6:
            run.compact()
    run.delete_range("b", None)
    run.checkpoint()
    run.compact()


def makes_new(run: Run) -> None:
    """A new store over an old one: one that was closed, and one whose process died."""
    run.put_many(some_rows(run, 30))
    run.bulk_load(dict.fromkeys(range(70, 90), 2.0))
    run.put(1, 1.0)
    run.close()
    run.open("n")
    for number in range(6):
        run.put(number, 5.0)
    run.checkpoint()
    run.put_many(dict.fromkeys(range(300), 6.0))  # a journal of several files
    for number in range(6):
        run.put(number, 7.0)
    run.kill("n")
    run.put(3, 8.0)
    run.checkpoint()
    run.put(4, 9.0)


def group(run: Run) -> None:
    """Three threads commit at once: the first syncs, held, while the others append and wait.

    Of those that wait one syncs for both.  Every step waits for the one before, so that the same
    seed makes the same events.
    """
    for number in range(8):
        syncs = run.files.calls["sync"]
        first, second = run.files.hold("sync"), run.files.hold("before sync", 2)

        def work(thread: int) -> None:
            if number % 2:
                run.put_many({10 * thread + key: -float(number) for key in range(3)})
            else:
                run.put(10 * thread + number, float(number))

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(3)]
        for thread in threads:
            before = run.store.sequence
            thread.start()
            _until(lambda: run.store.sequence > before)
            assert first.reached.wait(60), "nobody syncs"
        first.release.set()
        threads[0].join()
        assert second.reached.wait(60), "nobody syncs for those that appended meanwhile"
        second.release.set()
        for thread in threads[1:]:
            thread.join()
        run.seen["commits shared a sync"] += 3 - (run.files.calls["sync"] - syncs)
        if number == 3:
            run.checkpoint()


def tables(run: Run) -> None:
    """Commits in several tables and over them, loads, drops, and tables made again."""
    run.put_many(some_rows(run, 20))
    for number in range(34):
        name = run.rng.choice(("one", "two"))
        kind = run.rng.randrange(8)
        if kind < 3:
            run.put_into(name, some_rows(run, 25))
        elif kind == 3:
            run.load_into(name, some_rows(run, 40))
        elif kind == 4:
            run.empty_and_drop(name)
        elif kind == 5:
            run.put_into("", some_rows(run, 30))
        else:
            run.across({"": some_rows(run, 6), "one": some_rows(run, 6), "two": some_rows(run, 6)})
        if number % 11 == 6:
            run.checkpoint()
        if number % 17 == 12:
            run.compact()
        if number == 20:
            run.close()
            run.open()


def failures(run: Run) -> None:
    """A sync, a write or a rename fails, the process ends by that, and the next one goes on."""
    for number in range(6):
        for _ in range(3):
            run.put(run.rng.randrange(KEYS), float(number))
        run.put_that_fails(number, -1.0, "sync")
        run.kill()
        run.put_many(some_rows(run, 9))
        run.checkpoint_that_fails(*STEPS[number % len(STEPS)])
        run.kill()
        # The first write of an opening makes a journal file.
        run.put_that_fails(number, -3.0, ("rename", "create", "sync_file")[number % 3])
        run.kill()


def deaths(run: Run) -> None:
    """The process is killed in the midst of anything, and the next one goes on, in several ways."""
    for number in range(16):
        run.put_many(some_rows(run, 12))
        if number % 4 == 1:
            run.checkpoint()
            run.put_many(some_rows(run, 12))
        rows = some_rows(run, 20)
        nth = run.rng.randrange(1, 30)
        match run.rng.randrange(5):
            case 0:
                run.dies(lambda: run.store.bulk_load(list(rows), list(rows.values())), nth, rows)
            case 1:
                run.dies(lambda: run.store.put_many(list(rows), list(rows.values())), nth, rows)
            case 2:
                run.dies(lambda: run.store.compact(), nth)
            case _:
                run.dies(lambda: run.store.checkpoint(), nth)
        run.rng.choice((run.claim, run.sync, run.checkpoint, run.claim, lambda: None))()


# A checkpoint and a compaction are held at each of these steps: kind of the call, and which.
STEPS = (
    ("create", 1), ("write", 1), ("write", 2), ("sync", 1), ("sync", 2), ("sync_directory", 1),
    ("unlink", 1),
)  # fmt: skip


def meanwhile(run: Run) -> None:
    """Commits go on while another thread is in the midst of a checkpoint or a merge."""
    run.store.core.memtable_limit_bytes = 1 << 24
    for number, (kind, nth) in enumerate((*STEPS, *STEPS)):
        run.put_many(some_rows(run, 12))
        if number >= len(STEPS):
            run.bulk_load(some_rows(run, 12))
        hold = run.files.hold(kind, nth)
        keep = run.compact if number >= len(STEPS) else run.checkpoint
        keeper = threading.Thread(target=keep)
        keeper.start()
        _until(lambda: hold.reached.is_set() or not keeper.is_alive())
        run.seen["held in maintenance"] += hold.reached.is_set()
        if not hold.reached.is_set():
            hold.release.set()  # it had no such step
        run.put(run.rng.randrange(KEYS), float(number))
        run.delete_range(number, number + 3)
        loader = None
        if number % 3 == 2:  # makes room after its commit, so waits for what is held
            before, rows = run.store.sequence, some_rows(run, 12)
            loader = threading.Thread(target=run.bulk_load, args=(rows,))
            loader.start()
            _until(lambda: run.store.sequence > before)
        hold.release.set()
        keeper.join()
        if loader is not None:
            loader.join()
        run.put(run.rng.randrange(KEYS), -float(number))


def names(run: Run) -> None:
    """Checkpoints with names, between writes and merges; named and dropped by who may be killed."""
    text = run.options.key == "str"
    for number in range(7 if text else 10):
        if text:
            key = run.rng.choice("abcdef")
            run.put_many({key: bytes([number]) * 300, key + "1": b"small"})
        elif number % 5 == 3:
            run.bulk_load(some_rows(run, 40))
        else:
            run.put_many(some_rows(run, 25))
        if number % 6 == 1:
            run.delete_range("b" if text else 5, "d" if text else 25)
        if number % 4 == 2:
            run.compact()
        there = run.names
        dies_at = run.rng.randrange(1, 12) if number % 3 == 1 else 0
        if len(there) > 2 or (there and run.rng.random() < 0.4):
            run.drop(run.rng.choice(there), dies_at)
        else:
            run.name(f"number {number}", dies_at)
        if number == 5:
            run.kill()
        if number == 4:
            run.close()
            run.open()
    for name in run.names:
        run.drop(name)
    run.compact()


def _until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0)  # lets the other threads run


# Name: what is done, and the options of the run.
WORKLOADS: dict[str, tuple[Workload, dict[str, Any]]] = {
    "puts": (puts, {}),
    "puts-process": (puts, {"durability": "process"}),
    "batches": (batches, {}),
    "batches-process": (batches, {"durability": "process"}),
    "deletes": (deletes, {"durability": "process"}),
    "transactions": (transactions, {"durability": "process"}),
    "transactions-sync": (transactions, {}),
    "checkpoints": (checkpoints, {}),
    "merges": (merges, {}),
    "joins": (joins, {}),
    "loads": (loads, {"durability": "process"}),
    "reopenings": (reopenings, {"durability": "process"}),
    "kills": (kills, {"durability": "process"}),
    "levels": (levels, {"durability": "process"}),
    "intervals": (intervals, {"durability": "interval"}),
    "unjournaled": (unjournaled, {"durability": "none"}),
    "level-changes": (level_changes, {"durability": "process"}),
    "rotations": (rotations, {"durability": "process"}),
    "anything": (anything, {}),
    "anything-process": (anything, {"durability": "process"}),
    "text": (text, {"key": "str", "value": "bytes", "durability": "process"}),
    "blobs": (
        blobs,
        {"key": "str", "value": "bytes", "durability": "process", "blob_threshold": 64},
    ),
    "blobs-sync": (blobs, {"key": "str", "value": "bytes", "blob_threshold": 64}),
    "makes-new": (makes_new, {"durability": "process"}),
    "tables": (tables, {"durability": "process"}),
    "tables-sync": (tables, {}),
    "group": (group, {}),
    "meanwhile": (meanwhile, {}),
    "failures": (failures, {"durability": "process"}),
    "deaths": (deaths, {"durability": "process"}),
    "deaths-sync": (deaths, {}),
    "names": (names, {"durability": "process"}),
    "names-blobs": (
        names,
        {"key": "str", "value": "bytes", "durability": "process", "blob_threshold": 64},
    ),
}

# What must have been met in a workload, by its own doing or in its images.
ALWAYS = ("journal replayed", "hole in the journal", "opened read-only", "written to")
CORNERS: dict[str, tuple[str, ...]] = {
    "puts": (*ALWAYS, "rotation", "flush"),
    "puts-process": (*ALWAYS, "rotation", "hole with a frame after it"),
    "batches": (*ALWAYS, "rotation"),
    "batches-process": (*ALWAYS, "dead journal file behind a hole", "hole with a frame after it"),
    "deletes": (*ALWAYS, "flush"),
    "transactions": (*ALWAYS, "flush", "hole with a frame after it"),
    "checkpoints": (*ALWAYS, "manifest rewritten", "flush"),
    "merges": (*ALWAYS, "merge", "flush", "orphan removed"),
    "blobs": (*ALWAYS, "merge", "flush", "load", "orphan removed", "blob file reclaimed"),
    "blobs-sync": (*ALWAYS, "merge", "load", "orphan removed", "blob file reclaimed"),
    "joins": ("merge", "orphan removed"),
    "loads": (*ALWAYS, "load", "load of several runs", "orphan removed"),
    "reopenings": (*ALWAYS, "load"),
    "kills": (*ALWAYS, "killed", "rotation"),
    "levels": (*ALWAYS, "load"),
    "intervals": (*ALWAYS, "killed"),
    "unjournaled": ("flush", "load", "orphan removed"),
    "level-changes": (*ALWAYS, "killed", "flush"),
    "rotations": (*ALWAYS, "rotation", "dead journal file behind a hole"),
    "text": (*ALWAYS, "load", "flush"),
    "makes-new": (*ALWAYS, "made new", "orphan removed"),
    "tables": (*ALWAYS, "table dropped", "merge", "flush", "load", "hole with a frame after it"),
    "tables-sync": (*ALWAYS, "table dropped", "merge", "flush", "orphan removed"),
    "group": (*ALWAYS, "commits shared a sync"),
    "deaths": (*ALWAYS, "died in the midst", "merge", "load"),
    "deaths-sync": (*ALWAYS, "died in the midst"),
    "failures": (*ALWAYS, "failed call", "killed"),
    "meanwhile": (*ALWAYS, "held in maintenance", "merge", "load"),
    "names": (
        *ALWAYS,
        "merge",
        "load",
        "killed",
        "died in the midst",
        "orphan removed",
        "opened at a checkpoint",
        "checkpoint of its own files",
        "checkpoint dropped",
    ),
    "names-blobs": (
        *ALWAYS,
        "merge",
        "blob file reclaimed",
        "checkpoint of its own files",
        "checkpoint dropped",
    ),
}
