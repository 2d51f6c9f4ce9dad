"""Write the folders of outputs that later versions must resume.

    python tests/landed/make.py

makes `tests/landed/layout-N/`, by the layout of today's manifest: one output folder for each kind
of window and emit mode, as a run left it that was stopped in its second file. `hashes.json` has the
rows, rejects and states that the run would have ended with, had it not been stopped. They are of
commit 9094e78, as are the log and the model.
"""

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
DAYS = ("day-1.parquet", "day-2.parquet")
KINDS = {"carry": {"steps": 16}, "independent": {"steps": 6, "stride": 4}, "whole": {}}
EMITS = {"every": {}, "last": {"last_of": 5}, "final": {}}
FOLDERS = {"out": "output", "out.rejects": "output.rejects"}
"""Folder of a run -> its name here (git ignores `out`)."""
CHAIN = "carry-chain"
"""A state written by deltas: small tables are written whole unless `SMALL` says otherwise."""


def cases() -> dict[str, dict[str, Any]]:
    """The pipeline of each case, by name, with paths relative to the folder that it runs in."""
    found = {}
    for kind, window in KINDS.items():
        for emit, options in EMITS.items():
            output = {"emit": emit, "warmup": 3, "names": ["y"]}
            # A window of kind independent gives one row already, and has no last_of.
            output |= {} if kind == "independent" else options
            found[f"{kind}-{emit}"] = _pipeline({"kind": kind, "lanes": 4, **window}, output)
    window = {"kind": "carry", "lanes": 4, "steps": 16}
    found[CHAIN] = _pipeline(window, {"names": ["y"]})
    return found


def _pipeline(window: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    features = ["a", {"name": "b", "valid": [-2, 2], "clip": [-1.5, 2], "nulls": 0.5}]
    return {
        "source": {
            "path": "in",
            "key": ["id", "unit"],
            "time": "t",
            "features": features,
            "time_features": ["hour"],
            "nulls": "previous",
            "reset": "new",
            "max_gap": "3h",
            "late": "reject",
            "batch_rows": 150,
        },
        "window": window,
        "model": {"path": "model.safetensors"},
        "output": output,
        "sink": {"path": "out"},
        "checkpoint": {"every": 1, "keep": 2},
    }


@contextmanager
def workplace(case: str, days: int, kept: bool = False) -> Iterator[Path]:
    """A folder with the first days of the log and the model, as the working directory."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as base:
        # A manifest names it: of a folder that is kept the name must say nothing of a machine.
        place = "/tmp/streamrnn" if kept else base
        (Path(place) / "in").mkdir(parents=True)
        for day in range(1, days + 1):
            add_day(Path(place), case, day)
        shutil.copy(HERE / "model.safetensors", place)
        os.chdir(place)
        try:
            yield Path(place)
        finally:
            os.chdir(before)
            shutil.rmtree(place)
            Path(base).mkdir(exist_ok=True)


def add_day(place: Path, case: str, day: int) -> None:
    """Put the log of a day beside those before it."""
    source = "in-whole" if case.startswith("whole") else "in"
    shutil.copy(HERE / source / DAYS[day - 1], place / "in")


def run(pipeline: dict[str, Any], stop_after: int = 0) -> None:
    """Run a pipeline in the working directory; stop it after so many record batches."""
    from streamrnn import Pipeline

    stop, batches = threading.Event(), 0

    def progress(_: Any) -> None:
        nonlocal batches
        batches += 1
        if batches == stop_after:
            stop.set()

    Pipeline.from_dict(pipeline).run(progress=progress, stop=stop)


def write_case(case: str, pipeline: dict[str, Any], target: Path) -> None:
    """The folder of an interrupted run."""
    with workplace(case, days=1, kept=True) as place:
        run(pipeline)
        add_day(place, case, 2)
        if not case.startswith("whole"):
            run(pipeline, stop_after=1)
        for name, stored in FOLDERS.items():
            shutil.copytree(name, target / stored, ignore=shutil.ignore_patterns("_lock"))


def undisturbed(case: str, pipeline: dict[str, Any]) -> dict[str, str]:
    """The hashes after two whole runs, one a day."""
    with workplace(case, days=1) as place:
        run(pipeline)
        add_day(place, case, 2)
        run(pipeline)
        return hashes()


def hashes() -> dict[str, str]:
    """SHA-256 of the rows, the rejects and the states in the working directory."""
    from streamrnn.stream.checkpoints import load_state

    state = load_state("out")
    found = {"rows": digest(_rows("out")), "rejects": digest(_rows("out.rejects"))}
    return found if state is None else {**found, "state": digest(state)}


def _rows(folder: str) -> pa.Table:
    parts = sorted(Path(folder).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts]) if parts else pa.table({})


def digest(table: pa.Table) -> str:
    """SHA-256 of names, types and values."""
    found = hashlib.sha256()
    for field, column in zip(table.schema, table.columns, strict=True):
        found.update(f"{field.name} {field.type}\n".encode())
        found.update(json.dumps(column.to_pylist(), default=str).encode())
    return found.hexdigest()


def main() -> None:
    from streamrnn.stream.checkpoints import versions
    from streamrnn.stream.checkpoints.manifest import LAYOUT

    small = versions.SMALL
    for case, pipeline in cases().items():
        versions.SMALL = 0 if case == CHAIN else small
        write_case(case, pipeline, HERE / f"layout-{LAYOUT}" / case)


if __name__ == "__main__":
    main()
