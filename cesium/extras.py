"""Optional packages, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any


def needed(package: str, extra: str) -> Any:
    """The package, or an ImportError that says which extra brings it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise  # it is there, and lacks something of its own
        raise ModuleNotFoundError(
            f"this needs the package {package}: pip install 'cesiumdb[{extra}]'", name=package
        ) from error
