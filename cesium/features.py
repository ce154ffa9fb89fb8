"""What a file may use that a reader must know of, by bit: see docs/format.md."""

from __future__ import annotations

from cesium.errors import Error
from cesium.state import DEFAULT_TABLE, FORMAT_VERSION, State

# Incompatible features by bit: names for errors; of these this version reads:
FEATURES = "blob log, compression, encryption, expiry, volumes, row frames, named versions, tables"
INCOMPATIBLE_FEATURES = FEATURES.split(", ")
BLOB_LOG = 1
NAMED_VERSIONS = 1 << 6
TABLES = 1 << 7
KNOWN_INCOMPATIBLE = BLOB_LOG | NAMED_VERSIONS | TABLES


def features_named(flags: int) -> str:
    """The names of incompatible features, for errors."""
    bits = [bit for bit in range(64) if flags >> bit & 1]
    return ", ".join(
        INCOMPATIBLE_FEATURES[bit] if bit < len(INCOMPATIBLE_FEATURES) else f"feature {bit}"
        for bit in bits
    )


def features_of(state: State) -> int:
    """The incompatible features that a state uses: what its manifest file says in the header."""
    used = NAMED_VERSIONS if state.named else 0
    # Also once all tables were dropped: the journal may have what was done to them.
    if state.next_table_id > DEFAULT_TABLE + 1:
        used |= TABLES
    records = [state.segments, *(version.segments for version in state.named.values())]
    if any(record.blobs for found in records for record in found.values()):
        used |= BLOB_LOG
    return state.incompatible_features & ~KNOWN_INCOMPATIBLE | used


def check_readable(
    path: str, version: int, incompatible: int, known: int = KNOWN_INCOMPATIBLE
) -> None:
    """Refuse, by name, what this version cannot read.  known: features in files of this kind."""
    if version != FORMAT_VERSION:
        raise Error(f"{path} has format version {version}; this cesium reads {FORMAT_VERSION}")
    if unknown := incompatible & ~known:
        raise Error(f"{path} uses what this cesium cannot read: {features_named(unknown)}")
