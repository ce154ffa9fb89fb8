"""Counts the instructions of the kernels with callgrind and compares them with recorded counts.

    instructions.py [--record] [--where-possible] [--file FILE] [--functions KERNEL]

Only instructions of cesium's own modules count: not those of the interpreter, numpy and the C
library, which belong to other versions and, through their dispatch, to another processor.  Each
level of dispatch that valgrind can run (portable and AVX2; it has no AVX-512) is a run of its own.
What is left are the compiler, its flags, Cython and Python's headers, which are recorded too:

- where they are equal, a kernel whose count rose by more than 5 % fails the run;
- where one differs, the counts are shown beside the recorded ones, nothing is judged, and a line
  says so.

Exit codes: 0; 1: a count rose, a kernel was not recorded, or the kernels failed; 3: nothing could
be counted here, for valgrind or its header is missing (with --where-possible 0, and a line).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
RECORD = HERE / "instructions.json"
DRIVER = HERE / "counted_kernels.py"
MARKS = HERE / "callgrind_marks.c"
LEVELS = ("portable", "avx2")
RISE_MAX_PERCENT = 5
TIMEOUT_SECONDS = 900

Counts = dict[str, int]
COST = re.compile(r"(?:[+-]?\d+|\*) (\d+)$")


EXIT_FAILED = 1
EXIT_MISSING = 3


class Missing(Exception):
    """Something that counting needs is not on this machine."""


def compiler() -> str:
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]


def versions() -> dict[str, str]:
    """What the counts depend on beside the sources."""

    def says(option: str) -> str:
        done = subprocess.run([compiler(), option], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    flags = str(sysconfig.get_config_var("CFLAGS")).split()
    return {
        "compiler": ("clang " if "clang" in says("--version") else "gcc ")
        + says("-dumpfullversion" if "clang" not in says("--version") else "-dumpversion"),
        "flags": " ".join(flag for flag in flags if re.fullmatch(r"-[fmO][\w-]+", flag)),
        "cython": importlib.metadata.version("cython"),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
    }


def compiled_marks(directory: Path) -> Path:
    """The marks as a library; valgrind's header comes with valgrind."""
    library = directory / "marks.so"
    command = [compiler(), "-shared", "-fPIC", "-O2", "-o", str(library), str(MARKS)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[0]
        raise Missing(f"the marks do not compile (valgrind's header is needed): {reason}")
    return library


def levels_here() -> list[str]:
    """The levels of dispatch that this processor has, of those that valgrind can run."""
    code = "from cesium import _kernels; print(_kernels.level())"
    found = []
    for level in LEVELS:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(level), capture_output=True, text=True
        )
        if done.stdout.strip() == level:
            found.append(level)
    return found


def environment(level: str) -> dict[str, str]:
    asked = "1" if level == "portable" else level
    return dict(os.environ) | {"CESIUM_PORTABLE": asked, "PYTHONHASHSEED": "0"}


def run(level: str, directory: Path) -> dict[str, dict[str, Counts]]:
    """Instructions by kernel, object and function at one level of dispatch."""
    subprocess.run(
        ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no",
         f"--callgrind-out-file={directory / level}",
         sys.executable, str(DRIVER), str(compiled_marks(directory)), level],
        env=environment(level), timeout=TIMEOUT_SECONDS, check=True,
    )  # fmt: skip
    found = {}
    parts = directory.glob(f"{level}.*")
    for part in sorted(parts, key=lambda path: int(path.suffix[1:])):
        text = part.read_text()
        if name := re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE):
            found[name[1]] = parse(text)
    return found


def parse(text: str) -> dict[str, Counts]:
    """A dump's own instructions (not those of what was called) by object file and function.

    Names are given once, as "(id) name", and by "(id)" from then on.
    """
    names: dict[tuple[str, str], str] = {}
    costs: dict[str, Counts] = {}
    current = {"ob": "", "fn": ""}
    called = False
    for line in text.splitlines():
        if name := re.match(r"(c?)(ob|fn)=\((\d+)\)(?: (.+))?$", line):
            of_callee, kind, number, given = name.groups()
            if given:
                names[kind, number] = given
            if not of_callee:
                current[kind] = names[kind, number]
        elif line.startswith("calls="):
            called = True  # the next line is what the call cost, not this function
        elif cost := COST.match(line):
            if not called:
                functions = costs.setdefault(current["ob"], {})
                functions[current["fn"]] = functions.get(current["fn"], 0) + int(cost[1])
            called = False
    return costs


def own(costs: Mapping[str, Counts]) -> Counts:
    """Instructions by function, of cesium's modules alone."""
    total: Counts = {}
    for file, functions in costs.items():
        if Path(file).parent.name == "cesium":
            for function, count in functions.items():
                total[function] = total.get(function, 0) + count
    return total


def counted() -> dict[str, dict[str, Counts]]:
    """Instructions of cesium's own functions, by level and kernel."""
    if shutil.which("valgrind") is None:
        raise Missing("valgrind was not found (Debian: valgrind)")
    with tempfile.TemporaryDirectory(prefix="cesium-instructions-") as directory:
        return {
            level: {name: own(costs) for name, costs in run(level, Path(directory)).items()}
            for level in levels_here()
        }


def totals(counts: Mapping[str, Mapping[str, Counts]]) -> dict[str, Counts]:
    return {
        level: {name: sum(functions.values()) for name, functions in kernels.items()}
        for level, kernels in counts.items()
    }


def compare(found: Mapping[str, Counts], recorded: Mapping[str, Counts], strict: bool) -> bool:
    """Prints counts beside the recorded ones; whether none rose too far and all are known."""
    table = Table(title="instructions of the kernels", title_justify="left")
    for column in ("kernel", "level"):
        table.add_column(column)
    for column in ("recorded", "now", "change"):
        table.add_column(column, justify="right")
    table.add_column("")
    good = True
    for level, kernels in found.items():
        before = recorded.get(level, {})
        for name in [*kernels, *(name for name in before if name not in kernels)]:
            old, new = before.get(name), kernels.get(name)
            change = None if old is None or new is None else new / old - 1
            verdict = verdict_of(old, new)
            good = good and verdict in ("", "fewer")
            table.add_row(
                name, level, *("" if each is None else f"{each:,}" for each in (old, new)),
                "" if change is None else f"{change:+.2%}", verdict if strict else "not judged",
            )  # fmt: skip
    Console(width=100).print(table)
    return good


def verdict_of(old: int | None, new: int | None) -> str:
    if old is None or new is None:
        return "not recorded" if old is None else "not counted"
    if new * 100 > old * (100 + RISE_MAX_PERCENT):
        return "ROSE"
    return "fewer" if new * 100 < old * (100 - RISE_MAX_PERCENT) else ""


def check(file: Path, found: Mapping[str, Counts]) -> int:
    """Compares with the record; the exit code."""
    record = json.loads(file.read_text())
    here = versions()
    differing = [
        f"{name} {record['versions'].get(name)} then, {version} now"
        for name, version in here.items()
        if record["versions"].get(name) != version
    ]
    good = compare(found, record["counts"], strict=not differing)
    for level in record["counts"].keys() - found.keys():
        print(f"instructions: level {level} was NOT COUNTED: this processor does not have it")
    if differing:
        print(
            "instructions: NOT COMPARED, for the record was made with other versions "
            f"({'; '.join(differing)}); record with these: make bench-instructions-record"
        )
        return 0
    if not good:
        print(
            f"instructions: a count rose by more than {RISE_MAX_PERCENT} %, or the kernels are not "
            "those recorded; if that is meant: make bench-instructions-record"
        )
        return EXIT_FAILED
    print(f"instructions: no count rose by more than {RISE_MAX_PERCENT} %")
    return 0


def show_functions(counts: Mapping[str, Mapping[str, Counts]], kernel: str) -> None:
    """The functions in which a kernel's instructions are."""
    for level, kernels in counts.items():
        functions = sorted(kernels[kernel].items(), key=lambda item: -item[1])
        whole = sum(kernels[kernel].values())
        for function, count in functions[:12]:
            print(f"{level:9} {count:13,} {count / whole:6.1%}  {function}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="write the counts down")
    parser.add_argument(
        "--where-possible", action="store_true", help="no failure where valgrind is missing"
    )
    parser.add_argument("--file", type=Path, default=RECORD, help="of the recorded counts")
    parser.add_argument("--functions", metavar="KERNEL", help="where a kernel's instructions are")
    asked = parser.parse_args()
    try:
        counts = counted()
    except Missing as error:
        print(f"instructions: NOT COUNTED: {error}")
        return 0 if asked.where_possible else EXIT_MISSING
    except subprocess.SubprocessError as error:
        print(f"instructions: {error}", file=sys.stderr)
        return EXIT_FAILED
    if asked.functions:
        show_functions(counts, asked.functions)
        return 0
    if asked.record:
        record = {"versions": versions(), "counts": totals(counts)}
        asked.file.write_text(json.dumps(record, indent=1) + "\n")
        print(f"instructions: recorded in {asked.file}")
        return 0
    return check(asked.file, totals(counts))


if __name__ == "__main__":
    sys.exit(main())
