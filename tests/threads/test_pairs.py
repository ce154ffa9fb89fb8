"""Every operation of a store beside every other, in two threads.

CESIUM_THREAD_ROUNDS scales the rounds: 10 for a long run, 0.2 for the slow sanitizer builds.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from typing import Any

import pytest

from cesium.errors import ClosedError
from threads.operations import OPERATIONS, Fixed, Subject, Variable, run_together

SCALE = float(os.environ.get("CESIUM_THREAD_ROUNDS", "1"))
NAMES = list(OPERATIONS)
FORMS = [Fixed, Variable]


def rounds(name: str) -> int:
    return max(2, int(OPERATIONS[name] * SCALE))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__.lower())
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_beside_each(tmp_path: Any, form: Any, name: str) -> None:
    subject = Subject(tmp_path / "store", form)
    # Both forms see all pairs once, and each pair is seen in both orders over the two.
    place = NAMES.index(name)
    others = NAMES[place:] if form is Fixed else NAMES[: place + 1]

    def body(operation: str, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(rounds(operation)):
            getattr(subject, operation)(chance)

    for other in others:
        try:
            run_together(lambda: body(name, 1), lambda other=other: body(other, 2))
            subject.settle()
            if len(others) < 4 or NAMES.index(other) % 4 == place % 4:
                subject.reopen()
        except Exception as failure:
            failure.add_note(f"{name} beside {other}")
            raise
    subject.reopen()
    subject.settle()
    subject.store.close()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__.lower())
@pytest.mark.parametrize("name", NAMES)
def test_close_beside_each(tmp_path: Any, form: Any, name: str) -> None:
    """A call either does its work or raises ClosedError, and after close all raise that."""
    for seed in range(max(1, int(3 * SCALE))):
        subject = Subject(tmp_path / f"store-{seed}", form)
        under_way = threading.Event()
        closed = threading.Event()

        def work(
            subject: Subject = subject,
            seed: int = seed,
            under_way: threading.Event = under_way,
            closed: threading.Event = closed,
        ) -> None:
            chance = random.Random(seed)
            ended = False
            for turn in itertools.count():  # a store that stays open is what run_together ends
                if turn == seed:
                    under_way.set()
                ended = closed.is_set()
                try:
                    getattr(subject, name)(chance)
                except ClosedError:
                    break
                assert not ended, "a call on a closed store came back"
            under_way.set()

        def close(
            subject: Subject = subject,
            under_way: threading.Event = under_way,
            closed: threading.Event = closed,
        ) -> None:
            under_way.wait()
            subject.store.close()
            closed.set()

        run_together(work, close)
        with pytest.raises(ClosedError):
            getattr(subject, name)(random.Random(0))
        subject.store = subject.open()
        subject.settle()
        subject.store.close()


def test_all_at_once(tmp_path: Any) -> None:
    """Four writers and readers of all kinds, on one store."""
    subject = Subject(tmp_path / "store", Fixed)

    def body(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(max(10, int(150 * SCALE))):
            getattr(subject, chance.choice(NAMES))(chance)

    run_together(*[lambda seed=seed: body(seed) for seed in range(4)])
    subject.settle()
    subject.reopen()
    subject.settle()
    counters = subject.store.core.live_counters()
    assert counters["retired"] == 0, "an ended read left its pin"
    subject.store.close()
