"""A byte that is not as it was written is noticed, and the file is named."""

import json
import os

import pytest
from stream.checkpoints.disks import HastyDisk
from stream.checkpoints.small_run import expected, outcome, run

from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import CheckpointError
from streamrnn.outputs import history, rewind, verify
from streamrnn.stream.checkpoints import Manifest, load_state, read_manifest, versions


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    monkeypatch.setattr(versions, "SMALL", 0)
    run(tmp_path / "out", steps=3)
    return tmp_path / "out"


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x20
    path.write_bytes(data)


def state_files(out):
    (shard,) = read_manifest(str(out)).shards
    return [out / "_streamrnn" / file.name for file in shard.files]


def places(path, pieces=40):
    size = path.stat().st_size
    return sorted({*range(0, size, max(1, size // pieces)), size - 1})


def test_the_manifest_is_json_for_others(out):
    found = json.loads((out / "_streamrnn/_manifest.json").read_bytes())
    assert found["commit"] == 3
    assert [part["name"] for part in found["outputs"]["rows"]["parts"]] == sorted(
        p.name for p in out.glob("*.parquet")
    )


def test_any_flipped_byte_of_the_manifest_is_noticed(out):
    path = out / "_streamrnn/_manifest.json"
    good = path.read_bytes()
    for at in range(len(good)):
        bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        with pytest.raises(CheckpointError, match=r"manifest\.json is damaged.*--full-refresh"):
            Manifest.from_bytes(bad, str(path), lambda *_: [])
    for at in range(0, len(good), 97):
        flip(path, at)
        with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
            run(out)
        path.write_bytes(good)


def test_a_manifest_cut_anywhere_is_noticed(out):
    path = out / "_streamrnn/_manifest.json"
    good = path.read_bytes()
    for size in range(0, len(good), 53):
        path.write_bytes(good[:size])
        with pytest.raises(CheckpointError, match="is damaged"):
            run(out)


def test_any_region_of_the_state_flipped_or_cut_is_noticed(out):
    assert len(state_files(out)) == 2  # a whole one and changes
    for path in state_files(out):
        good = path.read_bytes()
        for at in places(path):
            flip(path, at)
            with pytest.raises(CheckpointError, match=f"{path.name} is damaged.*rewind"):
                run(out, steps=4)
            path.write_bytes(good[:at])
            with pytest.raises(CheckpointError, match=f"{path.name} is damaged"):
                run(out, steps=4)
            path.write_bytes(good)
    run(out, steps=4)
    assert outcome(out) == expected(4)


def test_any_region_of_the_state_flipped_is_noticed_by_who_only_looks_at_it(out):
    """As `streamrnn state show` does: Arrow would follow damaged offsets wherever they lead."""
    for path in state_files(out):
        good = path.read_bytes()
        for at in places(path):
            flip(path, at)
            with pytest.raises(CheckpointError, match=f"{path.name} is damaged.*sha256"):
                load_state(str(out))
            path.write_bytes(good)
    assert load_state(str(out)) is not None


def test_a_missing_state_is_named(out):
    os.unlink(state_files(out)[-1])
    with pytest.raises(CheckpointError, match=r"_state-00003-000-\w+\.arrow is .*found no file"):
        run(out, steps=4)
    with pytest.raises(CheckpointError, match=r"_state-00003-000-\w+\.arrow is damaged"):
        load_state(str(out))


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_part_that_was_cut_is_named_at_the_next_start(out, cut):
    path = out / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[: -cut - 1])
    message = r"part-00001\.parquet has \d+ bytes; expected \d+ bytes"
    with pytest.raises(CheckpointError, match=message):
        run(out, steps=4)


def test_a_part_or_rejects_that_are_gone_are_named(out):
    os.unlink(out / "part-00002.parquet")
    with pytest.raises(CheckpointError, match=r"part-00002\.parquet is missing"):
        run(out, steps=4)


def test_rejects_that_are_gone_are_named(out):
    os.unlink(f"{out}.rejects/part-00000.parquet")
    with pytest.raises(CheckpointError, match=r"out\.rejects/part-00000\.parquet is missing"):
        run(out, steps=4)


def test_verify_names_every_flipped_file(out):
    flip(out / "part-00000.parquet", 50)
    flip(out / "part-00002.parquet", 50)
    flip(out.with_name("out.rejects") / "part-00000.parquet", 50)
    state = state_files(out)[0]
    flip(state, 50)
    with pytest.raises(CheckpointError) as caught:
        verify(str(out))
    wrong = str(caught.value)
    assert wrong.count("is damaged") == 4
    assert "out/part-00000.parquet" in wrong
    assert "out/part-00002.parquet" in wrong
    assert "out.rejects/part-00000.parquet" in wrong
    assert str(state) in wrong


def test_verify_says_what_it_read(out):
    found = verify(str(out))
    rows, rejects, state = expected(3)
    assert (found.rows, found.rejected) == (len(rows), len(rejects))
    assert found.state_rows == len(state["seen"])
    assert found.commit == found.parts == 3
    assert found.bytes > 2000


def test_full_refresh_mends_everything(out):
    (out / "_streamrnn/_manifest.json").write_bytes(b"{}")
    os.unlink(out / "part-00001.parquet")
    run(out, steps=2, full_refresh=True)
    assert outcome(out) == expected(2)
    verify(str(out))


def test_rewind_mends_what_the_earlier_commit_does_not_need(out):
    os.unlink(out / "part-00002.parquet")
    flip(state_files(out)[-1], 100)
    assert [kept.commit for kept in history(str(out))] == [2, 3]
    with pytest.raises(CheckpointError):
        run(out, steps=3)
    rewind(str(out), 2)
    run(out, steps=3)
    assert outcome(out) == expected(3)
