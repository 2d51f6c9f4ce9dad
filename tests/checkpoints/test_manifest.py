"""What a manifest of an earlier version says in the words of this one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from landed import make

from streamrnn.checkpoints import Manifest, Shard, read_manifest

COMMITS = {"9094e78": 1, "d0130c8": 2}


@pytest.mark.parametrize(("commit", "version"), COMMITS.items())
def test_an_earlier_manifest_has_one_shard_and_staged_names_that_follow_from_parts(commit, version):
    out = make.HERE / commit / "carry-chain" / "output"
    written = json.loads((out / "_streamrnn/manifest.json").read_text())
    assert written["version"] == version
    found = read_manifest(str(out))
    (shard,) = found.shards
    assert [vars(file) for file in shard.files] == written["state"]
    assert shard.rows == found.state_rows == written["state_rows"]
    for part, before in zip(found.parts, written["parts"], strict=True):
        assert part.staged == f"{before['commit']:05d}-{before['name']}.tmp"
    kept = [each["state_rows"] for each in written["kept"]]
    assert [each.state_rows for each in found.kept] == kept
    assert all(len(each.shards) == 1 for each in found.kept)


def test_a_manifest_of_several_shards_reads_back_as_it_was():
    found = read_manifest(str(Path(make.HERE) / "9094e78" / "carry-chain" / "output"))
    (shard,) = found.shards
    sharded = replace(found, shards=(shard, Shard(0, shard.files[:1]), shard))
    sharded = replace(sharded, kept=(sharded.as_kept(),))
    again = Manifest.from_bytes(sharded.to_bytes(), "manifest.json")
    assert again == sharded
    assert again.state_rows == 2 * shard.rows
    assert again.state_names() == {file.name for file in shard.files}
