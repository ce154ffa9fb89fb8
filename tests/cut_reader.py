"""A process that reads a store over and over until its files are cut off under it.

    python cut_reader.py PATH FORM FILE...

Each line of its input names a read of cut_stores.reads_of.  It opens the store, says `ready`, and
reads until one of the files is shorter than it was and it has read once more, or until it is told
of the damage.  Then it says `told`, `right`, or how it was wrong.  A read that does not end within
HANGS seconds ends the process, with a traceback.
"""

from __future__ import annotations

import faulthandler
import os
import sys

import cesium
from cut_stores import DAMAGE, reads_of

HANGS = 120.0


def read_until_cut(path: str, form: str, files: list[str], name: str) -> str:
    read = reads_of(form)[name]
    lengths = [os.stat(file).st_size for file in files]
    with cesium.open(path, flag="r") as store:
        expected = read(store)
        print("ready", flush=True)
        cut = False
        while not cut:
            cut = [os.stat(file).st_size for file in files] != lengths
            try:
                answer = read(store)
            except DAMAGE:
                return "told"
            if answer != expected:
                return f"wrong: {answer!r:.200}"
    return "right"


if __name__ == "__main__":
    for line in sys.stdin:
        faulthandler.dump_traceback_later(HANGS, exit=True)
        print(read_until_cut(sys.argv[1], sys.argv[2], sys.argv[3:], line.strip()), flush=True)
