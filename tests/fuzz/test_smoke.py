"""The fuzz targets without a fuzzer: sound inputs, what fuzzing found before, seeded mutations."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import fuzz_mutations as mutations
import hostile_stores as stores
from fuzz_targets import TARGETS, repair_store

CORPUS = Path(__file__).parent / "corpus"
ROUNDS = 150 if stores.SANITIZED else int(os.environ.get("CESIUM_FUZZ_MUTATIONS", "2000"))


@pytest.mark.parametrize("name", TARGETS)
def test_sound_inputs_open_and_read(name: str) -> None:
    """So the targets reach what they are for: all seeds but those named here give answers."""
    answers = [TARGETS[name](seed) for seed in mutations.SEEDS[name]()]
    unreadable = sum(answer <= 2 for answer in answers)
    assert unreadable == (2 if name == "manifest" else 0), answers  # no table; no such codecs
    assert max(answers) >= 19


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_before(name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert files
    with stores.little_memory():
        for file in files:
            try:
                TARGETS[name](file.read_bytes())
            except BaseException as error:
                error.add_note(f"input {file}")
                raise


@pytest.mark.parametrize("name", TARGETS)
def test_seeded_mutations(name: str) -> None:
    seeds, opened = mutations.SEEDS[name](), 0
    with stores.little_memory():
        for number in range(ROUNDS):
            rng = random.Random(f"{name} {number}")
            data = mutations.mutated(name, rng.choice(seeds), rng)
            try:
                opened += TARGETS[name](data) > 2
            except BaseException as error:
                error.add_note(f"mutation {number} of {name}")
                raise
    assert ROUNDS / 20 < opened < ROUNDS, f"{opened} of {ROUNDS} could be read: too dull"


@pytest.mark.parametrize("name", TARGETS)
def test_repairs(name: str) -> None:
    """What was found before and seeded mutations: a repair gives a sound store, or says why not."""
    seeds, made = mutations.SEEDS[name](), 0
    inputs = [file.read_bytes() for file in sorted((CORPUS / name).iterdir())]
    for number in range(ROUNDS // 20):
        rng = random.Random(f"repair {name} {number}")
        inputs.append(mutations.mutated(name, rng.choice(seeds), rng))
    for number, data in enumerate(inputs):
        try:
            made += TARGETS[name](data, repair_store)
        except BaseException as error:
            error.add_note(f"input {number} of the repairs of {name}")
            raise
    assert made > len(inputs)
