"""Imports run one way, from the bottom of `LAYERS` up, and never in a circle.

A module may import those of its own layer and of the layers above it in this list.  A module that
is not listed fails the test: giving it a place is part of adding it.  Imports for type checking
alone are free.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cesium"

# Bottom first.  Modules of one layer may import each other, though never in a circle.
LAYERS = [
    ["errors", "extras", "order_statistics", "typed"],
    ["_native", "_layout", "_counters", "_files", "_frames", "_lock", "_faults", "_advice"],
    ["_histogram", "_ring", "_arrow", "_arrow_export", "_arrow_import"],
    ["_records", "collector"],
    ["lock", "io_errors"],
    ["file_system", "files", "casting", "columns", "checksum"],
    ["_key_arrays", "_keys", "_key_texts", "_key_times", "_key_tuples"],
    ["_values", "_variable_values"],
    ["_page", "_page_writer", "_kernels", "_interval", "_blobs"],
    ["_arena", "_directory", "_draft", "_view", "_vector", "_memtable"],
    [
        "_fences",
        "_footer",
        "_packer",
        "_segment",
        "_segment_verify",
        "_segment_view",
        "_builder",
        "_whole_page",
        "_salvage",
        "_blob_writer",
    ],
    ["_journal"],
    ["_segment_run", "_batch_ahead"],
    ["_gap", "_cursor", "_rows", "_scan_ahead", "_version"],
    ["_merge_fixed", "_merge", "_engine", "_sweep"],
    ["_turn", "_memory"],
    ["_ranges", "_range_arrays", "_range_columns", "_reduce", "_row_iterator", "_lookup"],
    ["arrow_values"],
    ["pandas_columns"],
    ["incoming"],
    ["_operations"],
    ["_reads", "_core"],
    ["_drafts"],
    ["_recovery", "_load", "_blob_view", "_outline", "_transaction"],
    ["options", "pace", "figures", "tiers", "directory"],
    ["showing", "progress"],
    ["report", "sharing", "exclusion", "upkeep", "durability"],
    ["worker", "syncing", "background"],
    ["keys", "key_names", "time_bounds", "values", "records", "state", "features", "named"],
    ["schema", "origin", "events", "blob_files", "large"],
    ["manifest", "frames", "replay", "journal_files", "journal"],
    ["scan_segment", "scan_values", "scan_manifest", "scan_journal", "scrub", "bounds"],
    ["table_engine"],
    ["host", "recovery"],
    ["refreshing"],
    ["engine"],
    ["overlap", "hidden", "journal_reader"],
    ["loaded_rows"],
    ["memory"],
    ["budget"],
    ["segment_output"],
    ["reclaim", "checkpoint", "merging", "maintenance", "loader", "verify", "stats"],
    ["copies", "lost_schemas", "rebuild", "salvage", "repair", "transfer", "backup"],
    ["opening", "naming"],
    ["looks", "spread"],
    ["arrow_types", "range_columns"],
    ["range_frames", "reductions", "frame_rows"],
    ["load_stream"],
    ["ranges", "ordered", "snapshot"],
    ["catalog"],
    ["revisions", "transactions", "feed", "plots"],
    ["tables"],
    ["store"],
    ["from_frame"],
    ["aio"],
    ["__init__"],
    ["doctor"],
    ["benchmark"],
    ["cli"],
    ["__main__"],
]

# Two files that are one noun: a method of the first, when it is called, hands over to the second.
ONE_NOUN = {("_segment", "_segment_verify")}

LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}

CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<source>(?:cesium|\.)[\w.]*)\s+c?import\s+(?P<names>[^#\n]+)"
    r"|c?import\s+(?P<module>cesium[\w.]*))",
    re.MULTILINE,
)


def module_of(path: Path) -> str:
    """The first name below the package: `cesium/cli/get.py` belongs to `cli`."""
    return path.relative_to(PACKAGE).parts[0].split(".")[0]


def targets_of(source: str, names: list[str]) -> set[str]:
    """The modules that `from source import names` reaches, named as in LAYERS."""
    if source != "cesium":
        return {source.split(".")[1]}
    return {name if is_module(name) else "__init__" for name in names}


def is_module(name: str) -> bool:
    return (PACKAGE / name).is_dir() or any(PACKAGE.glob(f"{name}.p*"))


def python_imports(path: Path) -> set[str]:
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "cesium"]
            for name in names:
                found |= {name.split(".")[1]} if "." in name else {"__init__"}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parent = path.relative_to(PACKAGE.parent).parts[: -node.level]
                source = ".".join([*parent, *filter(None, [source])])
            if source.split(".")[0] == "cesium":
                found |= targets_of(source, [alias.name for alias in node.names])
        waiting.extend(ast.iter_child_nodes(node))
    return found


def cython_imports(path: Path) -> set[str]:
    found: set[str] = set()
    text = re.sub(
        r"\\\n|\(\s*\n|,\s*\n", lambda match: match[0].replace("\n", " "), path.read_text()
    )
    for match in CYTHON_IMPORT.finditer(text):
        if match["source"]:
            names = re.findall(r"(\w+)(?:\s+as\s+\w+)?\s*(?:,|$|\))", match["names"])
            source = re.sub(r"^\.(?=\w)", "cesium.", match["source"])  # `from .errors import`
            found |= targets_of("cesium" if source == "." else source, names)
        else:
            found |= {match["module"].split(".")[1]} if "." in match["module"] else {"__init__"}
    return found


def imports_of(module: str) -> set[str]:
    """What a module imports of this package; all of a folder's files count as one module."""
    paths = [path for path in PACKAGE.rglob("*.p*") if module_of(path) == module]
    found: set[str] = set()
    for path in paths:
        if path.suffix == ".py":
            found |= python_imports(path)
        elif path.suffix in (".pyx", ".pxd"):
            found |= cython_imports(path)
    return found - {module}


MODULES = sorted(
    {module_of(path) for path in PACKAGE.rglob("*.p*") if path.suffix in (".py", ".pyx", ".pxd")}
)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    assert module in LAYER_OF, f"cesium/{module} has no place in LAYERS: add it where it belongs"
    upward = sorted(name for name in imports_of(module) if LAYER_OF[name] > LAYER_OF[module])
    assert not upward, f"cesium/{module} imports from above: {', '.join(upward)}"


def test_no_circles() -> None:
    graph = {
        module: {name for name in imports_of(module) if (module, name) not in ONE_NOUN}
        for module in MODULES
    }
    while graph:
        free = [module for module, needs in graph.items() if not needs & graph.keys()]
        assert free, f"these import each other in a circle: {sorted(graph)}"
        for module in free:
            del graph[module]


def test_the_reader_sees_every_form(tmp_path: Path) -> None:
    """The two readers of imports, on each spelling that occurs."""
    folder = PACKAGE / "cli"
    source = tmp_path / "sample.pyx"
    source.write_text(
        "from cesium._layout cimport PAGE_BYTES\n"
        "from cesium cimport _segment\n"
        "cimport cesium._memtable as memtable\n"
        "    from .errors import Error\n"
        "from . import store\n"
        "from cesium._page cimport (\n    Key, Shape,\n    Value)\n"
    )
    assert cython_imports(source) == {
        *("_layout", "_segment", "_memtable", "errors", "_page"),
        "store" if is_module("store") else "__init__",
    }
    tree = "from __future__ import annotations\nfrom cesium.errors import Error\nimport cesium\n"
    python = tmp_path / "sample.py"
    python.write_text(tree)
    assert python_imports(python) == {"errors", "__init__"}
    assert module_of(folder / "get.py") == "cli"
