"""Which format a file has, by its name; text files opened for reading and for writing.

Text is UTF-8, plain or compressed: `.gz` and `.zst` either way, `.zip` (of one file) for reading.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

CSV, TSV, JSONL, PARQUET, ARROW = FORMATS = ("csv", "tsv", "jsonl", "parquet", "arrow")
SUFFIXES = {
    ".csv": CSV, ".tsv": TSV, ".tab": TSV, ".jsonl": JSONL, ".ndjson": JSONL,
    ".parquet": PARQUET, ".pq": PARQUET, ".arrow": ARROW, ".feather": ARROW, ".ipc": ARROW,
}  # fmt: skip
COMPRESSED = (".gz", ".zst", ".zip")
UNFINISHED = ".part"


def format_of(path: Path, wanted: str | None, default: str | None = None) -> str:
    """The format that is wanted, or that the name says; wrong usage where neither does."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSED
    if compressed:
        suffixes.pop()
    found = wanted or SUFFIXES.get(suffixes[-1] if suffixes else "", default)
    if found is None:
        raise click.UsageError(f"no format is known by the name '{path.name}': say --format")
    if compressed and found in (PARQUET, ARROW):
        raise click.UsageError(f"{path.name}: a {found} file is compressed inside, not as a whole")
    return found


def needed(package: str, extra: str) -> Any:
    """An optional package, or an error of one line that says how to get it."""
    from cesium.extras import needed as imported

    try:
        return imported(package, extra)
    except ImportError as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def open_text(path: Path) -> Iterator[tuple[TextIO, Callable[[], int], int]]:
    """The text of a file, a function that says how far it was read, and how long it is in bytes."""
    with open_bytes(path) as (binary, position, bytes_total):
        with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            yield text, position, bytes_total


@contextmanager
def open_bytes(path: Path) -> Iterator[tuple[Any, Callable[[], int], int]]:
    """The same in bytes, those that were compressed."""
    with path.open("rb") as raw:
        position: Callable[[], int] = raw.tell
        bytes_total = path.stat().st_size
        binary: Any = raw
        broken: tuple[type[Exception], ...] = (
            gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError,
        )  # fmt: skip
        try:
            if path.suffix == ".gz":
                binary = gzip.open(raw)  # noqa: SIM115 - closed below
            elif path.suffix == ".zst":
                zstandard = needed("zstandard", "zst")
                broken = (*broken, zstandard.ZstdError)
                binary = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            elif path.suffix == ".zip":
                archive = zipfile.ZipFile(raw)
                members = archive.infolist()
                if len(members) != 1:
                    raise click.ClickException(f"{path} holds {len(members)} files instead of one")
                binary = archive.open(members[0])
                position, bytes_total = binary.tell, members[0].file_size
            with binary:
                yield binary, position, bytes_total
        except broken as error:
            raise click.ClickException(f"{path}: {error}") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside the file's, which becomes it at a good end, and is removed at any other."""
    making = path.with_name(path.name + UNFINISHED)
    try:
        yield making
        with making.open("rb") as made:
            os.fsync(made.fileno())
        making.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            making.unlink()
        raise


@contextmanager
def text_writer(path: Path, name: str) -> Iterator[TextIO]:
    """Text to a file, compressed as its final name says."""
    with path.open("wb") as raw:
        binary: Any = raw
        if name.endswith(".gz"):
            binary = gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0)
        elif name.endswith(".zst"):
            binary = needed("zstandard", "zst").ZstdCompressor().stream_writer(raw, closefd=False)
        elif name.endswith(".zip"):
            raise click.UsageError("a zip file is not written: .gz or .zst")
        text = io.TextIOWrapper(binary, encoding="utf-8", newline="")
        yield text
        text.flush()
        if binary is raw:
            text.detach()
        else:
            text.close()
