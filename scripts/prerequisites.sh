#!/bin/sh
# Says in one line what is missing before anything is built; silent when all is there.
# Usage: prerequisites.sh PYTHON
set -u
python=$1

missing() {
    echo "cesium: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    missing "'$python' was not found: install Python 3.11 or later, or name it: make PYTHON=/path/to/python3"

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    missing "'$python' does not run: install Python 3.11 or later, or name it: make PYTHON=/path/to/python3"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    missing "Python 3.11 or later is needed and '$python' is $version; name another: make PYTHON=/path/to/python3"

"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    missing "'$python' cannot make virtual environments: install its venv package (Debian: python$version-venv)"

compiler=$("$python" -c 'import os, sysconfig; print((os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0])')
command -v "$compiler" >/dev/null 2>&1 ||
    missing "no C compiler ('$compiler'): install gcc (Debian: build-essential), or name one in the variable CC"

header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
[ -f "$header" ] ||
    missing "Python.h of '$python' is missing: install its headers (Debian: python$version-dev)"
