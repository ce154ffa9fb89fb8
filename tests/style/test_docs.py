"""The documents: the examples run and print what they say; every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cesium

ROOT = Path(__file__).parents[2]
# The package that the tests see, wherever they run.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(cesium.__file__).parents[1])}
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


# What a clock or a drive says differs from run to run, so these print more than they promise.
FREE = {"docs/changes.md", "docs/checkpoints.md"}
WITH_CODE = [str(path.relative_to(ROOT)) for path in DOCUMENTS if python_blocks(path.read_text())]


@pytest.mark.parametrize("document", WITH_CODE)
def test_the_examples_run_and_print_what_they_say(tmp_path: Path, document: str) -> None:
    """All blocks of a document, one after another, as one program in an empty directory."""
    program = "\n".join(python_blocks((ROOT / document).read_text()))
    promised = re.findall(r"^ *print\(.*\)  # (.+)$", program, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    if document in FREE:
        lines = iter(printed)
        assert all(line in lines for line in promised), done.stdout
    else:
        assert printed == promised


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        found = document if not path else (document.parent / path).resolve()
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


def test_files_named_in_the_documents_exist() -> None:
    """A path of the package in back quotes, such as `cesium/_page.pyx`, is a file that is there."""
    for document in DOCUMENTS:
        for name in re.findall(r"`((?:cesium|tests|bench|docs)/[\w./-]+)`", document.read_text()):
            assert "NNNN" in name or (ROOT / name).exists(), f"{document.name}: {name}"


def test_decisions_are_numbered_without_gap() -> None:
    names = [path.name for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert names
    assert [name[:5] for name in names] == [f"{number:04d}-" for number in range(1, len(names) + 1)]
    for name in names:
        text = (ROOT / "docs" / "decisions" / name).read_text()
        for heading in ("## Context", "## Choice", "## Consequence"):
            assert heading in text, f"{name} has no {heading}"
