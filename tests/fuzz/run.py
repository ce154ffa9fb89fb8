"""One fuzz target under libFuzzer, by way of atheris: run.py TARGET [libFuzzer's options].

Run by `make fuzz`, under AddressSanitizer, with a build of the compiled core that tells the fuzzer
which branches ran.  Half of the mutations are libFuzzer's own, half know the fields.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["cesium"]):
    import fuzz_mutations as mutations
    import fuzz_targets as targets

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    name, options = sys.argv[1], sys.argv[2:]
    build = Path("build/fuzz")
    corpus = build / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(mutations.SEEDS[name]()):
        (corpus / f"seed-{number:03}").write_bytes(seed)

    def mutate(data: bytes, size_most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, size_most))
        return mutations.mutated(name, bytes(data), rng)[:size_most]

    def target(data: bytes) -> None:
        targets.TARGETS[name](data)

    kept = [str(CORPUS / name)] if (CORPUS / name).is_dir() else []
    size_most = 1 + targets.PAGES_MOST * targets.PAGE_BYTES
    arguments = [
        sys.argv[0], f"-max_len={size_most}", "-rss_limit_mb=2048", "-malloc_limit_mb=1024",
        "-timeout=20", f"-artifact_prefix={build}{os.sep}{name}-", *options, str(corpus), *kept,
    ]  # fmt: skip
    atheris.Setup(arguments, target, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
