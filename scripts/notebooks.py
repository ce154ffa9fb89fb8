"""Runs the notebooks in examples/, and writes them with their pictures, as .ipynb and .html.

Usage: python scripts/notebooks.py FOLDER [NAME...]
"""

import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

EXAMPLES = Path(__file__).parents[1] / "examples"


def main(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(EXAMPLES.glob("*.py")):
        if names and path.stem not in names:
            continue
        start = time.monotonic()
        notebook = jupytext.read(path)
        NotebookClient(notebook, timeout=None, kernel_name="python3").execute()
        nbformat.write(notebook, folder / f"{path.stem}.ipynb")
        page, _ = HTMLExporter().from_notebook_node(notebook)
        (folder / f"{path.stem}.html").write_text(page)
        print(f"{path.stem}: {time.monotonic() - start:.0f} s, {folder / path.stem}.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
