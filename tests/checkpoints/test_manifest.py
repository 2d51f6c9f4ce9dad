"""What a manifest stores, and reads back."""

from dataclasses import replace

from checkpoints.small_run import run

from streamrnn.checkpoints import Manifest, Shard, read_manifest


def test_a_manifest_of_several_shards_reads_back_as_it_was(tmp_path):
    run(tmp_path / "out")
    found = read_manifest(str(tmp_path / "out"))
    (shard,) = found.shards
    sharded = replace(found, shards=(shard, Shard(0, shard.files[:1]), shard))
    sharded = replace(sharded, kept=(sharded.as_kept(),))
    again = Manifest.from_bytes(sharded.to_bytes(), "_manifest.json")
    assert again == sharded
    assert again.state_rows == 2 * shard.rows
    assert again.state_names() == {file.name for file in shard.files}
