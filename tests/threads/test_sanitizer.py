"""Under ThreadSanitizer (make tsan): it sees a race of two threads that do not hold the GIL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.threads

RACES = """
import ctypes, sys, threading
library = ctypes.CDLL(sys.argv[1])
library.spin.argtypes = [ctypes.c_long]
meeting = threading.Barrier(2)

def work():
    meeting.wait()
    library.spin(20_000_000)

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.skipif("tsan" not in os.environ.get("LD_PRELOAD", ""), reason="without the sanitizer")
def test_a_race_is_seen(tmp_path: Path) -> None:
    library = tmp_path / "race.so"
    source = Path(__file__).with_name("race.c")
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-fsanitize=thread", "-o", library, source],
        env=plain, check=True,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", RACES, library],
        env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1:exitcode=66"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 66 and "data race" in done.stderr and "spin" in done.stderr
