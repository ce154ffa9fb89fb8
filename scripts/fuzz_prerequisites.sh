#!/bin/sh
# Says in one line what `make fuzz` lacks; installs atheris where it can.  Silent when all is there.
# Usage: fuzz_prerequisites.sh PYTHON CLANG
set -u
python=$1
clang=$2

missing() {
    echo "cesium: $1" >&2
    exit 1
}

command -v "$clang" >/dev/null 2>&1 ||
    missing "make fuzz needs clang and '$clang' was not found: install it (Debian: clang), or name it: make fuzz CLANG=clang-19"

"$python" -c 'import atheris' >/dev/null 2>&1 ||
    "$python" -m pip --disable-pip-version-check -q install 'atheris>=3' >/dev/null 2>&1 ||
    missing "make fuzz needs atheris, which could not be installed for '$python': pip install atheris (it has wheels for CPython on Linux)"
