"""Equal runs give equal files: parts, rejects, states, checkpoints; manifests but for times, the
place of the output and the names that are drawn for it and for files of the state. Exported states
have the used files, checkpoints have paths: those are of the place, too."""

from pathlib import Path
from typing import Any

import logs
import pytest
from fresh import printed
from selection import first_quick, slow

from streamrnn import Pipeline
from streamrnn.outputs import export_state
from streamrnn.states import read_state_file, write_state_file

CODE = """
import hashlib, json, os, re, sys, tempfile
from pathlib import Path

import logs
from streamrnn import Pipeline
from streamrnn.outputs import export_state
from streamrnn.states import read_state_file, write_state_file


def placeless(path):
    table = read_state_file(str(path))
    metadata = dict(table.schema.metadata)
    sources = json.loads(metadata.pop(b"streamrnn.sources", b'{"sources": [0]}'))["sources"]
    assert len(sources) == 1
    text = metadata.pop(b"streamrnn.session", b"").decode().replace(os.getcwd(), "")
    checksum = json.loads(metadata.pop(b"streamrnn.checksum", b"{}"))
    metadata["values"] = checksum.get("values", "")
    copy = path.with_name("copy" + path.suffix)
    write_state_file(table.replace_schema_metadata({**metadata, "session": text}), str(copy))
    content = copy.read_bytes()
    copy.unlink()
    return content


def settled(path):
    if path.parent == Path() and path.suffix in (".arrow", ".parquet") and path.stem != "log":
        return placeless(path)
    if path.name in ("_lock", "_owner"):  # a process; the output's name
        return b""
    if path.name != "_manifest.json":
        return path.read_bytes()
    found = json.loads(path.read_bytes())
    for table in (found, *found.get("kept", ()), *found["sources"]):
        for name in ("sha256", "output", "time", "mtime_ns"):
            table.pop(name, None)
    return without_tokens(json.dumps(found)).replace(os.getcwd(), "").encode()


def without_tokens(text):
    return re.sub("-[0-9a-f]{16}[.]", "-TOKEN.", text)


with tempfile.TemporaryDirectory() as base:
    os.chdir(base)
    table = logs.random_log(1500, streams=90, nulls=0.1, resets=0.02, jitter=3)
    logs.small_model("LSTM", units=9).save("m.safetensors")
    logs.write(table, Path("log.parquet"))
    policy = {"nulls": "previous", "reset": "new", "late": "reject", "batch_rows": 200}
    for name in sys.argv[1:]:
        kind, emit, suffix = name.split("-")
        config = logs.config(
            "log.parquet", "m.safetensors", name, source=policy, window={"kind": kind, "steps": 6},
            output={"emit": emit}, checkpoint={"every": 2}, state={"save": f"{name}.{suffix}"},
        )
        Pipeline.from_dict(config).run()
        export_state(name, f"{name}-exported.{suffix}")
        if kind != "whole":
            pipeline = Pipeline.from_dict(config)
            pipeline.process(table)
            pipeline.checkpoint(f"{name}-checkpoint.{suffix}")
    for path in [path for path in sorted(Path().rglob("*")) if path.is_file()]:
        print(without_tokens(str(path)), hashlib.sha256(settled(path)).hexdigest())
"""


@slow
def test_a_run_in_another_process_writes_the_same_files() -> None:
    """Slow: two processes that compile in another order."""
    names = ["carry-every-arrow", "carry-final-parquet"]
    names += ["independent-every-parquet", "whole-every-arrow"]
    first, *others = printed(CODE, *names)
    assert all(lines == first for lines in others)
    paths = [line.split()[0] for line in first]
    for name in names:
        assert f"{name}/part-00000.parquet" in paths
        assert f"{name}.rejects/part-00000.parquet" in paths
        assert f"{name}/_streamrnn/_manifest.json" in paths
    digests = dict(line.split() for line in first)
    for file in ("carry-every-arrow{}.arrow", "carry-final-parquet{}.parquet"):
        assert digests[file.format("")] == digests[file.format("-exported")]
        assert digests[file.format("")] != digests[file.format("-checkpoint")]


def _saved(model: Path, folder: Path, suffix: str, cut: int, window: dict[str, Any]) -> list[bytes]:
    """The state at the end of two runs, the second from row `cut` on: as saved and as exported."""
    table = logs.random_log(1500, streams=90, nulls=0.3, resets=0.05)
    files = [folder / f"s{suffix}", folder / f"e{suffix}"]
    config = logs.config(
        str(folder / "log"),
        str(model),
        str(folder / "out"),
        source={"nulls": "previous", "reset": "new", "batch_rows": 100 + cut},
        window=window,
        state={"save": str(files[0])},
        checkpoint={"every": 2},
    )
    logs.write(table.slice(0, cut), folder / "log" / "a.parquet")
    Pipeline.from_dict(config).run()
    logs.write(table.slice(cut), folder / "log" / "b.parquet")
    Pipeline.from_dict(config).run()
    export_state(str(folder / "out"), str(files[1]))
    for path in files:
        table = read_state_file(str(path))
        metadata = {k: v for k, v in table.schema.metadata.items() if k != b"streamrnn.sources"}
        write_state_file(table.replace_schema_metadata(metadata), str(path))
    return [path.read_bytes() for path in files]


@pytest.mark.parametrize("suffix", first_quick([".arrow", ".parquet"]))
@pytest.mark.parametrize("kind", ["carry", "independent"])
def test_a_state_file_does_not_tell_how_the_work_was_cut(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    """A value before a reset stayed under the null after it, but for who read it from a file.

    Slow: files of Parquet.
    """
    model = tmp_path / "m.safetensors"
    logs.small_model("LSTM", units=9).save(model)
    found = []
    for cut in (1, 700, 1499):
        window = {"kind": kind, "steps": 6}
        found += _saved(model, tmp_path / str(cut), suffix, cut, window)
    assert found == [found[0]] * 6
