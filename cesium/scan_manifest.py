"""What the manifests of a directory still say, whole or damaged.

`scan_manifest` reads the newest one as opening does; where that fails, every frame that is sound by
itself, in that file and in older ones, still tells of tables, segments and numbers: hints, with
which a State can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cesium.checksum import crc32c
from cesium.errors import CorruptionError
from cesium.files import Files
from cesium.manifest import (
    FILE_HEADER,
    FRAME_HEADER,
    MAGIC,
    SNAPSHOT,
    Manifest,
    manifest_name,
    numbers_of,
)
from cesium.state import (
    FORMAT_VERSION,
    NUMBERS,
    Json,
    SegmentRecord,
    State,
    TableRecord,
    parse_json,
)


@dataclass(frozen=True, slots=True)
class Place:
    """One damaged place of a file, or one worth knowing of."""

    offset: int | None
    message: str


@dataclass(slots=True)
class Hints:
    """What sound frames say, the latest last; nothing of it is known to be complete."""

    uuid: bytes | None = None
    generation: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    tables: dict[int, TableRecord] = field(default_factory=dict)
    records: dict[int, SegmentRecord] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)  # segments that an edit dropped
    named: list[str] = field(default_factory=list)  # versions
    dropped: set[int] = field(default_factory=set)  # and tables
    options: Json = field(default_factory=dict)

    def take(self, kind: int, generation: int, payload: Json) -> None:
        """One sound frame; what makes no sense in it is passed over."""
        self.generation = max(self.generation, generation)
        changed = payload if kind == SNAPSHOT else payload.get("set", {})
        for name in NUMBERS:
            value = changed.get(name) if isinstance(changed, dict) else None
            if type(value) is int and value >= 0:
                self.numbers[name] = max(value, self.numbers.get(name, 0))
        if isinstance(changed, dict) and isinstance(changed.get("options"), dict):
            self.options = changed["options"]
        for item in _items(payload, "remove_segments"):
            if type(item) is int:
                self.removed.add(item)
                self.records.pop(item, None)
        for item in _items(payload, "remove_tables"):
            if type(item) is int:
                self.tables.pop(item, None)
                self.dropped.add(item)
        self._take_versions(payload)
        for item in [*_items(payload, "tables"), *_items(payload, "put_tables")]:
            table = _made(TableRecord.from_json, item)
            if table is not None:
                self.tables[table.id] = table
        for item in [*_items(payload, "segments"), *_items(payload, "put_segments")]:
            record = _made(SegmentRecord.from_json, item)
            if record is not None:
                self.records[record.id] = record

    def _take_versions(self, payload: Json) -> None:
        """The names of versions; the segments that they alone have are none of the store's."""
        for item in _items(payload, "named_segments"):
            record = _made(SegmentRecord.from_json, item)
            if record is not None:
                self.removed.add(record.id)
        named, made = payload.get("named_versions"), payload.get("name_version")
        names = [*named] if isinstance(named, dict) else []
        names += [made["name"]] if isinstance(made, dict) and "name" in made else []
        gone = _items(payload, "remove_versions")
        self.named = [name for name in self.named if name not in gone]
        self.named += [name for name in names if name not in self.named]


def _items(payload: Json, name: str) -> list[Any]:
    items = payload.get(name, [])
    return items if isinstance(items, list) else []


def _made(make: Callable[[Json], Any], item: Any) -> Any:
    try:
        return make(item)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


@dataclass(slots=True)
class ManifestScan:
    """name: of the newest file, None without any.  state: None when it cannot be known."""

    name: str | None = None
    bytes: int = 0
    frames: int = 0
    state: State | None = None
    problems: list[Place] = field(default_factory=list)
    notes: list[Place] = field(default_factory=list)
    hints: Hints = field(default_factory=Hints)


def scan_manifest(files: Files, names: list[str]) -> ManifestScan:
    """Reads all manifests.  Error names what this version cannot read; FileNotFoundError: one went
    meanwhile."""
    result = ManifestScan()
    numbers = numbers_of(names, "manifest")
    for number in numbers:
        _take_hints(result.hints, files.read_all(manifest_name(number)), number)
    if not numbers:
        result.problems.append(Place(None, "there is no manifest"))
        return result
    result.name = manifest_name(numbers[-1])
    data = files.read_all(result.name)
    result.bytes = len(data)
    sound = list(sound_frames(data))
    result.frames = len(sound)
    try:
        manifest = Manifest.load(files, [result.name])
        assert manifest is not None
    except CorruptionError as error:
        result.problems.append(Place(error.offset, str(error)))
        return result
    if not manifest.state.tables:
        result.problems.append(Place(None, "the manifest names no table"))
        return result
    result.state = manifest.state
    if manifest.torn:
        end = sound[-1][0] + sound[-1][1]
        result.notes.append(
            Place(end, f"the last {len(data) - end} bytes are an edit that was cut off")
        )
    return result


def _take_hints(hints: Hints, data: bytes, number: int) -> None:
    if len(data) >= FILE_HEADER.size:
        magic, checksum, version, _, _, uuid, found = FILE_HEADER.unpack_from(data)
        if (
            magic == MAGIC
            and version == FORMAT_VERSION
            and found == number
            and crc32c(data[12 : FILE_HEADER.size]) == checksum
        ):
            hints.uuid = uuid
    for _, _, kind, generation, payload in sound_frames(data):
        hints.take(kind, generation, payload)


def sound_frames(data: bytes) -> Iterator[tuple[int, int, int, int, Json]]:
    """Frames that are sound by themselves: (position, length, type, generation, payload)."""
    position = FILE_HEADER.size
    while position + FRAME_HEADER.size <= len(data):
        frame = _sound_frame(data, position)
        if frame is None:
            position += 8
            continue
        yield (position, *frame)
        position += frame[0]


def _sound_frame(data: bytes, start: int) -> tuple[int, int, int, Json] | None:
    header = data[start : start + FRAME_HEADER.size]
    (checksum, length, kind, flags, codec, _, key_id, generation, _, payload_checksum,
     payload_bytes, _) = FRAME_HEADER.unpack(header)  # fmt: skip
    if not FRAME_HEADER.size <= length <= len(data) - start or length % 8:
        return None
    if crc32c(header[4:], start) != checksum or codec or key_id or flags:
        return None
    padded = data[start + FRAME_HEADER.size : start + length]
    if crc32c(padded) != payload_checksum or payload_bytes > len(padded):
        return None
    try:
        payload = parse_json(padded[:payload_bytes])
    except ValueError:
        return None
    return (length, kind, generation, payload) if isinstance(payload, dict) else None
