"""State files that are damaged: an error of ours that names the file, never a crash.

Damage that leaves a valid table with other values cannot be noticed: there is no checksum. For a
longer search: STREAMRNN_FUZZ=2000 pytest tests/stream/states/test_damaged_files.py (60 by default).
"""

import contextlib
import functools
import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import logs
import numpy as np
import pyarrow as pa
import pytest
from selection import slow
from stream.checkpoints.disks import HastyDisk

from streamrnn import Pipeline
from streamrnn.base.storage.local import LocalFiles
from streamrnn.cli import main
from streamrnn.errors import DataError, StateError, StreamRNNError
from streamrnn.outputs import read_states
from streamrnn.states import read_state_file, write_state_file

KINDS: list[dict[str, Any]] = [
    {},
    {"window": {"kind": "independent", "steps": 6, "stride": 4}},
    {"output": {"emit": "final"}},
]
LOG = logs.random_log(120, streams=9, nulls=0.1)


class Scene:
    """An output folder of one kind, a checkpoint of its state, and the pipeline they are of."""

    def __init__(self, tables: dict[str, Any], suffix: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        logs.small_model().save(self.folder / "m.safetensors")
        path = logs.write(LOG.slice(0, 80), self.folder / "in" / "1.parquet")
        source = {"nulls": "previous", "batch_rows": 60}
        config = logs.config(
            path, str(self.folder / "m.safetensors"), str(self.out), source=source, **tables
        )
        Pipeline.from_dict(config).run()
        shutil.copytree(self.out, self.folder / "kept")
        pipeline = Pipeline.from_dict({**config, "sink": {}})
        pipeline.process(LOG.slice(0, 80))
        self.file = self.folder / f"s{suffix}"
        pipeline.checkpoint(self.file)
        self.sound = self.file.read_bytes()
        self.config = {**config, "state": {"init": str(self.file)}}

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def restore(self) -> None:
        """The folder as it was, after an import that went well."""
        shutil.rmtree(self.out)
        shutil.copytree(self.folder / "kept", self.out)


@functools.cache
def scene(number: int) -> Scene:
    return Scene(KINDS[number % 3], (".arrow", ".arrow", ".parquet")[number // 3 % 3])


def attempt(case: int) -> bool:
    """Whether a damaged file was taken by any of those that read such files."""
    at = scene(case % 9)
    at.file.write_bytes(damage.damaged(at.sound, case))
    acts = (_show, _diff, _init, _resume, _import)
    return sum(_taken(act, at) for act in acts) > 0  # all of them, not up to the first


def _taken(act: Callable[[Scene], None], at: Scene) -> bool:
    try:
        act(at)
    except StreamRNNError as error:
        # The model that a checkpoint names is another file.
        named = str(at.file) in str(error) or "stream id=" in str(error)
        assert named or str(at.folder / "m") in str(error), repr(error)  # noqa: PT017
        return False
    return True


def _show(at: Scene) -> None:
    _command("state", "show", str(at.file))
    _command("state", "show", "--json", str(at.file))


def _diff(at: Scene) -> None:
    _command("state", "diff", str(at.file), str(at.out))
    _command("state", "diff", str(at.file), str(at.file))


def _init(at: Scene) -> None:
    Pipeline.from_dict({**at.config, "sink": {}}).process(LOG.slice(80))


def _resume(at: Scene) -> None:
    Pipeline.resume(at.file).process(LOG.slice(80))


def _import(at: Scene) -> None:
    before = read_states(str(at.out))
    try:
        _command("state", "import", str(at.file), str(at.out))
    except StreamRNNError:
        assert read_states(str(at.out)).equals(before, check_metadata=True)
        raise
    taken = dict(at.config, state={})
    path = logs.write(LOG.slice(80), at.folder / "later" / "2.parquet")
    taken["source"] = {**taken["source"], "path": path, "late": "apply"}
    Pipeline.from_dict(taken).run()  # no state that was taken is refused by the next run
    at.restore()


def _command(*words: str) -> None:
    """A command whose error is raised; it may not be one that nobody expected."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(words))
        except SystemExit as done:
            code = done.code
    assert "unexpected" not in err.getvalue(), err.getvalue()
    if code in (65, 78):
        raise StateError(err.getvalue())
    assert code == 0 or (words[1] == "diff" and code == 1), (words, code, err.getvalue())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for syncs."""
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())


@slow
def test_no_damage_ends_the_process_or_leaks() -> None:
    """Slow: every byte of the files, in a process of its own."""
    found = damage.survive(__file__, damage.CASES)
    assert found["refused"] > damage.CASES / 10
    assert found["taken"] > 0


@pytest.mark.parametrize("number", range(9))
def test_the_files_are_taken_where_they_are_not_damaged(number: int) -> None:
    at = scene(number)
    at.file.write_bytes(at.sound)
    for act in (_show, _diff, _init, _resume, _import):
        act(at)


def test_offsets_that_lead_anywhere_are_refused_before_they_are_followed(tmp_path: Path) -> None:
    path = str(tmp_path / "s.arrow")
    write_state_file(pa.table({"id": ["aa", "bb", "cc"]}), path)
    data = bytearray(Path(path).read_bytes())
    at = data.index(np.array([0, 2, 4, 6], np.int32).tobytes())
    data[at + 4 : at + 8] = np.int32(1 << 30).tobytes()
    Path(path).write_bytes(data)
    with pytest.raises(DataError, match=r"s\.arrow: not a readable state table: .*offset"):
        read_state_file(path)


def test_a_text_that_is_no_utf_8_is_refused_in_parquet_too(tmp_path: Path) -> None:
    """Parquet takes any bytes for text."""
    raw = pa.array([b"a", b"\xff\xfe"])
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    for suffix in (".parquet", ".arrow"):
        path = str(tmp_path / f"s{suffix}")
        write_state_file(pa.table({"id": text}), path)
        with pytest.raises(DataError, match=rf"s\{suffix}: not a readable state table: .*UTF8"):
            read_state_file(path)


def test_names_that_are_no_utf_8_and_unknown_time_zones_are_refused(tmp_path: Path) -> None:
    kind = pa.struct([pa.field("at", pa.timestamp("us", "Europe/Berlin"))])
    path = tmp_path / "s.arrow"
    write_state_file(pa.table({"name": [1], "held": pa.nulls(1, kind)}), str(path))
    sound = path.read_bytes()
    for old, new in ((b"name", b"n\xffme"), (b"Europe/Berlin", b"Europe/Bexlin")):
        path.write_bytes(sound.replace(old, new))
        with pytest.raises(DataError, match=r"s\.arrow: not a readable state table"):
            read_state_file(str(path))


if __name__ == "__main__":
    LocalFiles.disk = HastyDisk()
    damage.child(attempt)
