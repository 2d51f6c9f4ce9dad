"""Formats of parts: an output is committed, resumed, cut, merged and verified in each of them."""

from pathlib import Path
from typing import Any, get_args

import logs
import pyarrow as pa
import pytest
from contracts.rows_files import read_parts

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError
from streamrnn.outputs import compact, history, rewind, verify
from streamrnn.stream.config.schema import SinkSection
from streamrnn.stream.sinks import PART_FORMATS, name_of, number_of, width_for

LOG = logs.random_log(400, nulls=0.1, jitter=3)


@pytest.fixture
def base(model_dir: Path) -> Path:
    """A model and a log of two files, in the working directory."""
    for day in (1, 2):
        logs.write(LOG.slice(200 * day - 200, 200), model_dir / "in" / f"{day}.parquet")
    return model_dir


def _run(name: str, path: str = "in", out: str = "out") -> None:
    config: dict[str, Any] = {
        "source": {"nulls": "previous", "late": "reject", "batch_rows": 60},
        "output": {"warmup": 4},
        "sink": {"format": name},
        "checkpoint": {"every": 1, "keep": 9},
    }
    Pipeline.from_dict(logs.config(path, "m.safetensors", out, **config)).run()


def _read(folder: str, name: str) -> pa.Table:
    return read_parts(Path(folder), name, PART_FORMATS[name].suffix)


def test_the_pipeline_file_knows_all_formats() -> None:
    assert set(get_args(SinkSection.model_fields["format"].annotation)) == set(PART_FORMATS)
    assert len({each.suffix for each in PART_FORMATS.values()}) == len(PART_FORMATS)


@pytest.mark.parametrize("name", PART_FORMATS)
def test_an_output_is_the_same_rows_in_every_format(base: Path, name: str) -> None:
    """Committed, resumed, merged, gone back and verified."""
    _run("parquet", out="right")
    _run(name, "in/1.parquet")
    _run(name)
    for folder in ("", ".rejects"):
        assert _read(f"out{folder}", name).equals(_read(f"right{folder}", "parquet"))
    verify("out")
    compact("out")
    verify("out")
    assert _read("out", name).equals(_read("right", "parquet"))
    assert len(list(Path("out").glob("part-*"))) == 1
    rows = {each.commit: each.rows for each in history("out")}
    target = min(rows)
    rewind("out", target)
    assert _read("out", name).equals(_read("right", "parquet").slice(0, rows[target]))
    _run(name)
    assert _read("out", name).equals(_read("right", "parquet"))


def test_an_output_keeps_its_format(base: Path) -> None:
    _run("parquet")
    with pytest.raises(CheckpointError, match=r'sink\.format: was "parquet", is now "arrow"'):
        _run("arrow")


def test_names_of_parts_sort_as_their_numbers_do() -> None:
    suffixes = [each.suffix for each in PART_FORMATS.values()]
    assert all(number_of(name_of(n, s, 5)) == n for n in (0, 7, 99_999) for s in suffixes)
    assert all(number_of(name_of(n, s, 8)) == n for n in (0, 7, 99_999_999) for s in suffixes)
    assert [width_for(n) for n in (0, 99_999, 100_000, 99_999_999)] == [5, 5, 8, 8]
    assert (width_for(0, least=8), width_for(100_000_000)) == (8, None)
    assert number_of("part-00000.csv") is None
    assert number_of("part-0.parquet") is None
    assert number_of("part-000000.parquet") is None
