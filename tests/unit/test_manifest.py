"""The manifest: edits add up, tears are ignored, and any other damage is found."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cesium import manifest as module
from cesium._records import records_at
from cesium.checksum import crc32c
from cesium.errors import CorruptionError, Error, PoisonedError
from cesium.features import features_named
from cesium.files import Files, MemoryFiles
from cesium.manifest import Edit, Manifest, SegmentRecord, State, TableRecord
from cesium.state import SEGMENTS, BlobShare, json_bytes, parse_json, parse_snapshot

UUID = bytes(range(16))
NAME = "manifest-000001"


def segment(number: int, **changes: object) -> SegmentRecord:
    record = SegmentRecord(
        number, 1, 0, b"\0low", b"\xffhigh", 100, 1, 2, number, number + 1, 40960, 10, 0xDEADBEEF
    )
    return replace(record, **changes)  # type: ignore[arg-type]


TABLE = TableRecord(1, "default", ["u8"], [["price", "f8"]])
EDITS = [
    Edit(put_tables=(TABLE,), next_table_id=2),
    Edit(put_segments=(segment(1), segment(2)), next_segment_id=3, sequence=5, flushed_sequence=4),
    Edit(remove_segments=(1,), put_segments=(segment(2, tier=1), segment(3)), next_segment_id=4),
    Edit(put_tables=(TableRecord(2, "Händel ♪", {"a": 1}, None, 7),), epoch=2),
    Edit(remove_tables=(2,), options={"memory_limit": 1 << 30}, sequence=9),
]


def made(files: Files, edits: list[Edit] = EDITS) -> list[State]:
    """A manifest of these edits; the state after each of them."""
    manifest = Manifest.create(files, State(UUID))
    states = [manifest.state, *(manifest.append(edit) for edit in edits)]
    manifest.close()
    return states


def loaded(files: Files) -> State:
    manifest = Manifest.load(files)
    assert manifest is not None
    return manifest.state


def with_content(data: bytes, name: str = NAME) -> MemoryFiles:
    files = MemoryFiles()
    fd = files.create(name)
    files.write_all(fd, data, 0)
    files.close(fd)
    return files


def test_edits_add_up_and_reload(tmp_path: Path) -> None:
    files = Files(tmp_path)
    states = made(files)
    assert loaded(files) == states[-1]
    last = states[-1]
    assert last.generation == len(EDITS)
    assert last.segments == {2: segment(2, tier=1), 3: segment(3)}
    assert last.tables == {1: TABLE}
    assert [table.name for table in states[4].tables.values()] == ["default", "Händel ♪"]
    assert (last.sequence, last.flushed_sequence, last.epoch) == (9, 4, 2)
    assert last.options == {"memory_limit": 1 << 30}
    assert states[0] == State(UUID), "older states are not touched"


def test_a_manifest_says_that_tables_were_made_in_a_file_of_its_own() -> None:
    files = MemoryFiles()
    manifest = Manifest.create(files, State(UUID, tables={1: TABLE}, next_table_id=2))
    two = Edit(put_tables=(TableRecord(2, "two", "u8", "f8"),), next_table_id=3)
    assert manifest.append(two).incompatible_features == 1 << 7
    assert files.list() == ["manifest-000002"]
    assert manifest.append(Edit(remove_tables=(2,))).incompatible_features == 1 << 7
    manifest.close()
    assert loaded(files).tables == {1: TABLE} and loaded(files).incompatible_features == 1 << 7
    assert features_named(1 << 7) == "tables"


def test_segments_of_no_table_are_refused() -> None:
    state = State(UUID, tables={1: TABLE})
    with pytest.raises(ValueError, match="segment 1 is of table 7: there is none"):
        Edit(put_segments=(segment(1, table=7),)).apply(state)
    snapshot = State(UUID, tables={1: TABLE}, segments={1: segment(1, table=7)}).to_json()
    with pytest.raises(ValueError, match="segment 1 is of table 7: there is none"):
        State.from_json(snapshot, UUID, 1, 1, 0, 0)


def test_tables_of_one_name_are_refused() -> None:
    state = State(UUID, tables={1: TABLE})
    with pytest.raises(ValueError, match="two tables have the same name"):
        Edit(put_tables=(replace(TABLE, id=2),)).apply(state)


def test_no_manifest_is_none(tmp_path: Path) -> None:
    assert Manifest.load(Files(tmp_path)) is None


def test_removing_a_table_removes_its_segments() -> None:
    state = State(UUID, tables={1: TABLE}, segments={1: segment(1), 2: segment(2, table=5)})
    assert Edit(remove_tables=(1,)).apply(state).segments == {2: segment(2, table=5)}


@pytest.mark.parametrize(
    "edit",
    [Edit(remove_segments=(77,)), Edit(remove_tables=(77,)), Edit(sequence=3), Edit(epoch=0)],
)
def test_an_edit_that_does_not_fit_changes_nothing(tmp_path: Path, edit: Edit) -> None:
    files = Files(tmp_path)
    manifest = Manifest.create(files, State(UUID, sequence=4, epoch=1))
    before = files.read_all(NAME)
    with pytest.raises(ValueError):
        manifest.append(edit)
    assert manifest.state == State(UUID, sequence=4, epoch=1)
    assert files.read_all(NAME) == before


def test_rewrite_when_the_edits_outgrow_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REWRITE_BYTES", 600)
    files = Files(tmp_path)
    manifest = Manifest.create(files, State(UUID, tables={1: TABLE}))
    numbers = set()
    for number in range(1, 40):
        manifest.append(Edit(put_segments=(segment(number),), next_segment_id=number + 1))
        numbers.add(manifest.number)
        assert files.list() == [f"manifest-{manifest.number:06d}"]
        assert loaded(files) == manifest.state
    assert 3 < len(numbers) < 30
    manifest.rewrite()
    assert loaded(files) == manifest.state
    assert manifest.state.generation == 40


def test_truncation_anywhere_gives_a_prefix_or_is_found() -> None:
    files = MemoryFiles()
    states = made(files)
    data = files.read_all(NAME)
    prefixes = set()
    for size in range(len(data)):
        cut = with_content(data[:size])
        try:
            state = loaded(cut)
        except CorruptionError:
            assert size < 64 + 40 + 300, "only the snapshot cannot be done without"
            continue
        assert state in states
        prefixes.add(state.generation)
    assert prefixes == set(range(len(EDITS)))


def test_a_torn_tail_goes_to_a_new_file() -> None:
    files = MemoryFiles()
    states = made(files)
    data = files.read_all(NAME)
    torn = with_content(data[:-9])
    manifest = Manifest.load(torn)
    assert manifest is not None and manifest.state == states[-2]
    manifest.append(EDITS[-1])
    assert torn.list() == ["manifest-000002"]
    assert loaded(torn) == states[-1]


def test_zeros_from_a_sector_on_are_a_tear() -> None:
    files = MemoryFiles()
    states = made(files)
    whole = files.read_all(NAME)
    wide = Edit(options={"text": "x" * 2000})
    manifest = Manifest.load(files)
    assert manifest is not None
    manifest.append(wide)
    data = files.read_all(NAME)
    torn = 0
    for boundary in range(0, len(data), 512):
        if len(whole) <= boundary:
            zeroed = data[:boundary] + bytes(len(data) - boundary)
            assert loaded(with_content(zeroed)) == states[-1]
            torn += 1
    assert torn >= 2
    assert loaded(with_content(whole + bytes(len(data) - len(whole)))) == states[-1]
    with pytest.raises(CorruptionError):
        loaded(with_content(data[: len(whole) + 600] + b"\1" + data[len(whole) + 601 :]))


def test_any_sectors_of_the_last_append_may_be_missing() -> None:
    """A power cut leaves any of the sectors that an append wrote, and the file of any length."""
    for length in range(300, 2300, 89):
        files = MemoryFiles()
        states = made(files)
        old = len(files.read_all(NAME))
        manifest = Manifest.load(files)
        assert manifest is not None
        after = manifest.append(Edit(options={"text": "x" * length}))
        data = files.read_all(NAME)
        starts = [old, *range(-(-old // 512) * 512, len(data), 512)]
        spans = list(zip(starts, [*starts[1:], len(data)]))
        for kept in range(1 << len(spans)):
            left = bytearray(data)
            for place, (start, end) in enumerate(spans):
                if not kept >> place & 1:
                    left[start:end] = bytes(end - start)
            whole = kept == (1 << len(spans)) - 1
            assert loaded(with_content(bytes(left))) == (after if whole else states[-1])
            for cut in (old, old + 8, old + 512, len(data) - 8):
                if old <= cut < len(data):
                    assert loaded(with_content(bytes(left[:cut]))) == states[-1]


def test_a_lost_sector_below_a_later_edit_is_damage() -> None:
    """What was synced before the last append is no tear: it would take the later edits with it."""
    files = MemoryFiles()
    manifest = Manifest.create(files, State(UUID))
    ends = [len(files.read_all(NAME))]
    for text in "xyz":
        manifest.append(Edit(options={"text": text * 1200}))
        ends.append(len(files.read_all(NAME)))
    data = files.read_all(NAME)
    for sector in range(0, ends[2], 512):
        with pytest.raises(CorruptionError):
            loaded(with_content(data[:sector] + bytes(512) + data[sector + 512 :]))


def test_every_flipped_bit_is_found() -> None:
    files = MemoryFiles()
    made(files)
    data = bytearray(files.read_all(NAME))
    state = loaded(files)
    harmless = 0
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        try:
            harmless += loaded(with_content(bytes(data))) == state
        except (CorruptionError, Error):
            pass
        else:
            assert loaded(with_content(bytes(data))) == state, f"bit {bit}"
        data[bit // 8] ^= 1 << bit % 8
    assert harmless == 0, "every byte is under a checksum"


@given(st.data())
def test_any_bytes_are_refused_or_make_sense(data: st.DataObject) -> None:
    files = MemoryFiles()
    made(files)
    content = bytearray(files.read_all(NAME))
    start = data.draw(st.integers(0, len(content) - 1))
    content[start : start + data.draw(st.integers(0, 50))] = data.draw(st.binary(max_size=60))
    try:
        loaded(with_content(bytes(content)))
    except Error:
        pass


def test_sound_checksums_over_nonsense_are_corruption() -> None:
    for payload in (b"[]", b"{}", b'{"tables": 3}', b"\xff", b'{"segments": [{"id": -1}]}'):
        header = module.FILE_HEADER.pack(module.MAGIC, 0, 1, 0, 0, UUID, 1)[12:]
        checksum = crc32c(header)
        padded = payload + bytes(-len(payload) % 8)
        rest = module.FRAME_HEADER.pack(
            0, 40 + len(padded), 1, 0, 0, 0, 0, 0, checksum, crc32c(padded), len(payload), 0
        )[4:]
        frame = crc32c(rest, 64).to_bytes(4, "little") + rest + padded
        data = module.MAGIC + checksum.to_bytes(4, "little") + header + frame
        with pytest.raises(CorruptionError) as caught:
            loaded(with_content(data))
        assert caught.value.offset == 64 and str(caught.value.file).endswith(NAME)


def test_an_unknown_incompatible_feature_is_named() -> None:
    files = MemoryFiles()
    Manifest.create(files, State(UUID, incompatible_features=1 << 2 | 1 << 40))
    with pytest.raises(Error, match="encryption, feature 40"):
        Manifest.load(files)
    files = MemoryFiles()
    Manifest.create(files, State(UUID, format_version=2))
    with pytest.raises(Error, match="format version 2"):
        Manifest.load(files)
    files = MemoryFiles()
    Manifest.create(files, State(UUID, compatible_features=1 << 5))
    assert loaded(files).compatible_features == 1 << 5


def test_the_newest_file_counts_and_its_damage_is_not_passed_over() -> None:
    files = MemoryFiles()
    made(files)
    data = files.read_all(NAME)
    fd = files.create("manifest-000002")
    files.write_all(fd, data, 0)
    files.close(fd)
    with pytest.raises(CorruptionError, match="another's name"):
        Manifest.load(files)


class FailingFiles(MemoryFiles):
    """Fails the Nth of all writes, syncs and renames."""

    def __init__(self, fail_at: int) -> None:
        super().__init__()
        self.left = fail_at

    def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(5, os.strerror(5))

    def write_all(self, *arguments: object, **named: object) -> None:
        self._step()
        super().write_all(*arguments, **named)  # type: ignore[arg-type]

    def sync_data(self, *arguments: object, **named: object) -> None:
        self._step()
        super().sync_data(*arguments, **named)  # type: ignore[arg-type]

    def publish(self, name: str) -> None:
        self._step()
        super().publish(name)


def test_a_failure_at_every_step_leaves_the_old_state_or_the_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REWRITE_BYTES", 500)
    poisoned = retried = 0
    for fail_at in range(3, 14):
        files = FailingFiles(fail_at)
        manifest = Manifest.create(files, State(UUID))
        for edit in EDITS:
            before = manifest.state
            after = edit.apply(before)
            try:
                assert manifest.append(edit) == after
                continue
            except OSError:
                pass
            assert manifest.state == before
            assert loaded(files) in (before, after)
            try:
                assert manifest.append(edit) == after
                retried += 1
            except PoisonedError:
                poisoned += 1
                with pytest.raises(PoisonedError):
                    manifest.rewrite()
                assert loaded(files) in (before, after)
                break
        else:
            assert loaded(files) == made(MemoryFiles())[-1]
    assert poisoned >= 8 and retried >= 1


def test_loading_a_small_manifest_is_quick(tmp_path: Path) -> None:
    files = Files(tmp_path)
    made(files)

    def seconds() -> float:
        start = time.perf_counter()
        loaded(files)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(200)) < 500e-6


# -- records in the form that this version writes


def read_both_ways(payload: bytes) -> list[object]:
    """The state that a snapshot's payload says, or "refused": as opening reads it, and by json."""
    found: list[object] = []
    for parse in (
        lambda: parse_snapshot(payload),
        lambda: parse_json(payload),
    ):
        try:
            found.append(State.from_json(parse(), UUID, 1, 1, 0, 0))
        except (KeyError, TypeError, ValueError, AttributeError):
            found.append("refused")
    return found


def scanned(payload: bytes) -> list[SegmentRecord] | None:
    start = payload.find(SEGMENTS) + len(SEGMENTS)
    return records_at(payload, start, SegmentRecord, BlobShare)


COUNTS = st.integers(0, 2**63 - 1)
SHARES = st.builds(BlobShare, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
RECORDS = st.builds(
    SegmentRecord, COUNTS, st.integers(1, 2**32 - 1), COUNTS,
    st.binary(max_size=20), st.binary(max_size=20),
    COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS,
    st.lists(SHARES, max_size=3).map(tuple), st.integers(1, 2**63 - 1),
)  # fmt: skip


@given(st.lists(RECORDS, min_size=1, max_size=5, unique_by=lambda record: record.id))
def test_records_are_read_as_they_were_written(records: list[SegmentRecord]) -> None:
    tables = {
        record.table: TableRecord(record.table, f"{record.table}", 0, 0) for record in records
    }
    state = State(UUID, 1, tables=tables, segments={record.id: record for record in records})
    payload = json_bytes(state.to_json())
    assert scanned(payload) == records
    assert read_both_ways(payload) == [state, state]


PAYLOAD = json_bytes(
    State(
        UUID, sequence=9, tables={1: TABLE},
        segments={4: segment(4), 7: segment(7, blobs=(BlobShare(7, 1, 2, 3, 4, 5),), run=4)},
    ).to_json()
)  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"id":4', b'"id": 4'), (b'"id":4', b'"id":04'), (b'"id":4', b'"id":-4'),
        (b'"id":4', b'"id":4.0'), (b'"id":4', b'"id":"4"'), (b'"id":4', b'"id":true'),
        (b'"id":4', b'"id":9223372036854775808'), (b'"id":4', b'"id":99999999999999999999'),
        (b'"id":4', b'"id":'), (b'"rows":100', b'"rows":100,"more":[1,{"a":"]}"}]'),
        (b'"run":4}', b'"run":0}'), (b',"run":4}', b"}"), (b',"volume":0', b""),
        (b'"AGxvdw=="', b'"AGxvdw="'), (b'"AGxvdw=="', b'"AGxvdw"'), (b'"AGxvdw=="', b'"A=xvdw=="'),
        (b'"AGxvdw=="', b'"AGxv=w=="'), (b'"AGxvdw=="', b'"===="'), (b'"AGxvdw=="', b'""'),
        (b'"AGxvdw=="', b'"AGx\\/dw=="'), (b'"AGxvdw=="', b'"AGx\xc3\xa4dw=="'),
        (b'"live":4', b'"live":4,"x":0'), (b'"live":4,', b""), (b'"blobs":[', b'"blobs":[,'),
        (b'"rows":5}]}', b'"rows":5}]},'), (b'"rows":5}]}]}', b'"rows":5}]}]}}'),
        (b'"rows":5}]}]}', b'"rows":5}]}],"sequence":12}'), (b'"segments":[', b'"segments":[ '),
        (b'"options":{}', b'"options":{"a":1,"segments":[]}'),
        (b'"options":{}', b'"options":{"a":1,"segments":[{"id":1}]}'),
        (b'"named_versions":{}', b'"named_versions":{"a":1,"segments":[]}'),
        (b'{"sequence"', b'[{"sequence"'), (b'{"sequence":9', b'{"x":{"sequence":9'),
    ],
)  # fmt: skip
def test_records_in_another_form_are_read_as_json_reads_them(old: bytes, new: bytes) -> None:
    assert scanned(PAYLOAD) is not None and old in PAYLOAD
    changed = PAYLOAD.replace(old, new, 1)
    mine, theirs = read_both_ways(changed)
    assert mine == theirs


@pytest.mark.parametrize("cut", range(1, 700, 7))
def test_records_that_are_cut_off_are_no_records(cut: int) -> None:
    assert scanned(PAYLOAD[: max(PAYLOAD.find(SEGMENTS) + 20, len(PAYLOAD) - cut)]) is None
    assert read_both_ways(PAYLOAD[:-cut]) == ["refused", "refused"]


def test_records_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="no place 9999"):
        records_at(PAYLOAD, 9999, SegmentRecord, BlobShare)
    state = State(UUID, 1)
    assert read_both_ways(json_bytes(state.to_json())) == [state, state]
