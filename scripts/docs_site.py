"""What mkdocs does besides turning docs/ into pages: a hook of mkdocs.yml.

Pages that have their text elsewhere are made of it: the overview is the README, the examples are
the notebooks, the reference is the docstrings.  Links are written for a reader of the repository;
here they are turned to where the site has the same.
"""

import os
import posixpath
import re
import sys
from pathlib import Path

import jupytext
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
from docs_reference import reference

ROOT = Path(__file__).parents[1]

# Of the repository: the page that has it, by its path in docs/.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "LICENSE",
    "docs/decisions": "decisions/index.md",
    "examples": "examples/index.md",
    "examples/README.md": "examples/index.md",
    **{
        f"examples/{path.name}": f"examples/{path.stem}.md"
        for path in sorted((ROOT / "examples").glob("*.py"))
    },
}


def on_files(files, config):
    def add(place, text):
        files.append(File.generated(config, place, content=text))

    for source, place in ELSEWHERE.items():
        path = ROOT / source
        if path.suffix == ".py":
            add(place, notebook(path))
        elif path.is_file():
            add(place, path.read_text())
    add("decisions/index.md", decisions())
    add("reference.md", reference())
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns each relative link, seen from where its text lies, to the page that has the target."""
    sources = {place: source for source, place in ELSEWHERE.items() if (ROOT / source).is_file()}
    here = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def turned(match):
        target, hash_mark, anchor = match[1].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        place = ELSEWHERE.get(found, found.removeprefix("docs/"))
        link = posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")
        return f"]({link}{hash_mark}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", turned, markdown)


def notebook(path):
    """The cells, without what they print: `make notebooks` makes pages with that."""
    text = jupytext.writes(jupytext.read(path), "md")
    return re.sub(r"^---\n.*?\n---\n", "", text, count=1, flags=re.DOTALL)


def decisions():
    lines = ["# Decisions", ""]
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        title = path.read_text().splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({os.path.basename(path)})")
    return "\n".join(lines) + "\n"
