"""However a log is divided among shards, epochs, days and engines: the bits of one single run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import logs
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jobs.engines.in_process import TasksHere
from jobs.engines.same import assert_same
from selection import slow

from streamrnn import Pipeline
from streamrnn.jobs.engines import opening

LOG = logs.random_log(1200, streams=40, nulls=0.1, resets=0.02, jitter=3)
FILES = 6
KINDS: dict[str, dict[str, Any]] = {
    "carry": {"window": {"kind": "carry"}, "output": {"warmup": 2}},
    "carry-last": {"window": {"kind": "carry"}, "output": {"emit": "last", "last_of": 3}},
    "carry-final": {"window": {"kind": "carry"}, "output": {"emit": "final"}},
    "independent": {"window": {"kind": "independent", "steps": 8, "stride": 3}},
    "independent-final": {
        "window": {"kind": "independent", "steps": 4},
        "output": {"emit": "final"},
    },
    "whole": {"window": {"kind": "whole"}},
}
POLICY = {
    "nulls": "previous",
    "reset": "new",
    "max_gap": "2h",
    "late": "reject",
    "repeated": "reject",
    "bad": "reject",
    "max_rejects": 1200,
}


def days(name: str) -> list[range]:
    """The files of each run: kind whole cannot resume a stream."""
    return [range(FILES)] if name == "whole" else [range(2), range(2, 5), range(5, 6)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and the log in files with row groups of their own."""
    folder = tmp_path_factory.mktemp("cut")
    logs.small_model("LSTM", units=7).save(folder / "m.safetensors")
    size = len(LOG) // FILES
    for index in range(FILES):
        part = LOG.slice(index * size, size)
        logs.write(part, folder / f"log/{index}.parquet", row_group=(60, 1000, 170)[index % 3])
    return folder


def run(place: Path, name: str, out: Path, files: range, **tables: dict[str, Any]) -> None:
    """Run the first files of the log, those of earlier days included."""
    source = out.parent / f"{out.name}.log"
    source.mkdir(exist_ok=True)
    for index in files:
        link = source / f"{index}.parquet"
        if not link.exists():
            link.symlink_to(place / f"log/{index}.parquet")
    merged = {**KINDS[name], **{k: {**KINDS[name].get(k, {}), **v} for k, v in tables.items()}}
    merged["source"] = {**POLICY, **merged.get("source", {})}
    config = logs.config(str(source), str(place / "m.safetensors"), str(out), **merged)
    Pipeline.from_dict(config).run()


@pytest.fixture(scope="module")
def single(place: Path) -> Callable[[str], Path]:
    """The same days in one process, once for each kind."""

    def of(name: str) -> Path:
        out = place / f"single-{name}"
        if not out.exists():
            for files in days(name):
                run(place, name, out, files)
        return out

    return of


ENGINES = st.one_of(st.just(0), st.integers(1, 9))
"""Shards of a day; 0: in one process."""


@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # smaller cases would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(sorted(KINDS)),
    shards=st.lists(ENGINES, min_size=3, max_size=3).filter(any),
    epoch_rows=st.sampled_from([1, 150, 400, 10**6]),
    batch_rows=st.sampled_from([7, 90, 1000]),
    seed=st.integers(0, 10**6),
)
@slow
def test_any_order_any_number_of_shards_any_epochs(
    place: Path,
    single: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    shards: list[int],
    epoch_rows: int,
    batch_rows: int,
    seed: int,
) -> None:
    """Each day in one process or in shards, whose tasks run in any order, some twice. Slow: cuts at
    random; the quick tests have chosen ones."""
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(seed))
    out = tmp_path_factory.mktemp("day") / "out"
    for number, files in zip(shards, days(name), strict=False):
        engine = {"type": "ray", "shards": number, "epoch_rows": epoch_rows}
        run(
            place,
            name,
            out,
            files,
            engine=engine if number else {"type": "local"},
            source={"batch_rows": batch_rows},
        )
    assert_same(single(name), out)
