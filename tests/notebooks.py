"""Running notebooks with a real kernel, which sees the package that the tests see."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cesium

PACKAGE = str(Path(cesium.__file__).parents[1])
TIMEOUT_SECONDS = 300  # of a cell, on a busy machine


def run(notebook: Any, folder: Path, environment: dict[str, str] | None = None) -> Any:
    """Runs all cells in a folder, in order; CellExecutionError for the first that fails."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class Kernel(AsyncKernelManager):
        """This interpreter, whatever kernels are installed for the user."""

        @property
        def kernel_spec(self) -> KernelSpec:
            command = [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="here", language="python")

    variables = {
        **os.environ, "PYTHONPATH": PACKAGE, "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"), **(environment or {}),
    }  # fmt: skip
    client = NotebookClient(notebook, timeout=TIMEOUT_SECONDS, km=Kernel())
    client.execute(cwd=str(folder), env=variables, cleanup_kc=True)
    return notebook


def run_cells(cells: list[str], folder: Path) -> list[Any]:
    """The cells of a notebook of these sources, with their outputs."""
    from nbformat import v4

    notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in cells])
    return list(run(notebook, folder).cells)
