"""What a manifest stores, and reads back."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

from stream.checkpoints.small_run import run

from streamrnn.stream import checkpoints
from streamrnn.stream.checkpoints import Manifest, Shard, read_manifest
from streamrnn.stream.states.positions import from_json, to_json

WRITTEN = {
    *("sha256", "layout", "output", "commit", "time", "model", "config", "schema", "home"),
    *("complete", "outputs", "position", "shards", "counters"),
}


def stored(out):
    return json.loads(Path(out, "_streamrnn/_manifest.json").read_bytes())


def test_what_a_run_does_not_use_is_not_written(tmp_path):
    """Neither an output without rows nor a default, in retained commits and parts either."""
    out = tmp_path / "out"
    run(out, steps=1)
    assert stored(out).keys() == WRITTEN
    assert stored(out)["outputs"].keys() == {"rows"}
    run(out, steps=2, where="seen >= 2")
    found = stored(out)
    assert found.keys() == WRITTEN | {"kept"}
    assert found["outputs"].keys() == {"rows", "rejects", "alerts"}
    assert all(output.keys() == {"parts"} for output in found["outputs"].values())
    assert ["model" in output["parts"][0] for output in found["outputs"].values()] == [
        name == "rows" for name in found["outputs"]
    ]
    (kept,) = found["kept"]
    assert kept["outputs"] == {"rows": 2}
    assert "positions" not in kept
    assert "done" not in kept["position"]


def test_the_package_describes_each_field():
    described = re.findall(
        r"``(\w+)``", checkpoints.__doc__.partition("The manifest has layout")[2]
    )
    assert {field.name for field in fields(Manifest)} | {"layout"} <= set(described)


def test_a_manifest_with_every_field_reads_back_as_it_was(tmp_path):
    out = tmp_path / "out"
    run(out, steps=2, where="seen >= 2")
    found = read_manifest(str(out))
    (shard,) = found.shards
    full = replace(
        found,
        table="7c1e",
        complete=True,
        end_of_run=False,
        positions=to_json({0: 41, "b": b"\x00", 2: "x"}),
        shards=(shard, Shard(0, shard.files[:1]), shard),
    )
    full = replace(full, kept=(replace(full, positions=to_json([3, 4])).as_kept(), full.as_kept()))
    again = Manifest.from_bytes(full.to_bytes(), "_manifest.json", lambda *_: [])
    assert again == full
    assert from_json(again.positions) == {0: 41, "b": b"\x00", 2: "x"}
    assert [from_json(kept.positions) for kept in again.kept] == [[3, 4], from_json(full.positions)]
    assert again.state_rows == 2 * shard.rows
    assert again.state_names() == {file.name for file in shard.files}
