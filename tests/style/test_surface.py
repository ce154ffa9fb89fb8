"""The public surface is what `__all__` says: sorted, complete, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import types

import cesium

# Each costs milliseconds; they are imported where they are used.
HEAVY = (
    "IPython",
    "asyncio",
    "click",
    "concurrent.futures",
    "logging",
    "matplotlib",
    "msgpack",
    "pandas",
    "polars",
    "pyarrow",
    "rich",
    "secrets",
)


def test_all_is_sorted() -> None:
    assert list(cesium.__all__) == sorted(cesium.__all__)


def test_all_is_complete() -> None:
    public = {
        name
        for name, value in vars(cesium).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and name != "annotations"
    }
    assert public == {name for name in cesium.__all__ if not name.startswith("__")}


def test_every_public_object_says_what_it_is() -> None:
    silent = [
        name
        for name in cesium.__all__
        if callable(getattr(cesium, name)) and not (getattr(cesium, name).__doc__ or "").strip()
    ]
    assert not silent, f"no docstring: {', '.join(silent)}"


def test_every_error_is_one_tree_and_also_a_builtin() -> None:
    errors = [
        value
        for name in cesium.__all__
        if isinstance(value := getattr(cesium, name), type)
        and issubclass(value, Exception)
        and not issubclass(value, Warning)
    ]
    assert cesium.Error in errors
    for error in errors:
        assert issubclass(error, cesium.Error)
        if error is not cesium.Error:
            assert any(base.__module__ == "builtins" for base in error.__mro__[1:-3]), error


def test_importing_is_light() -> None:
    """A notebook or a script waits for nothing that only the command line or a load needs."""
    code = (
        "import sys, numpy; before = set(sys.modules); import cesium; "
        f"print(*sorted(set({HEAVY!r}) & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
