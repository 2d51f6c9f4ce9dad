"""pipelines/blocks: the residual block in a pipeline file, and the comparison."""

import runpy
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from selection import slow

from streamrnn import Pipeline

ROOT = Path(__file__).parents[2]
FILE = "pipelines/blocks/weather.toml"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def block(folder: Path, *settings: str) -> Pipeline:
    paths = f"model.path={folder / 'm.safetensors'}", f"sink.path={folder / 'out'}"
    return Pipeline.from_toml(FILE, [*paths, *settings])


@slow
def test_the_block_is_trained_and_run_from_its_file(tmp_path: Path) -> None:
    """Its state, that of the convolution too, is carried: cut anywhere, the same bits. Slow: an
    epoch of the weather."""
    pipeline = block(tmp_path, "train.epochs=1")
    pipeline.fit()
    rows = pq.read_table("data/weather.parquet").slice(0, 60).to_batches()[0]
    first, rest = (pipeline.process(rows.slice(*part)) for part in ((0, 25), (25,)))
    whole = block(tmp_path).process(rows)
    assert [*first.column("temp_3h"), *rest.column("temp_3h")] == [*whole.column("temp_3h")]
    assert {"conv1d/x", "past/h"} <= set(pipeline.state.to_arrow().column_names)
    assert block(tmp_path).run().rows_out == 26_115


def test_the_comparison_has_the_same_block() -> None:
    compare = runpy.run_path("pipelines/blocks/compare.py")
    model = compare["untrained"](compare["DATA"]["weather"], compare["block"], 0)
    layers = Pipeline.from_toml(FILE).config.model.layers
    assert sorted(table["type"] for table in layers) == sorted(
        type(layer).__name__ for layer in model.layers[1:]
    )
    assert {table["units"] for table in layers if "units" in table} == {15, 1}


@slow
def test_its_error_is_that_of_the_page(tmp_path: Path) -> None:
    """Slow: a fit of 60 epochs. It shows the number on the page, which the quick fit does not."""
    pipeline = block(tmp_path)
    pipeline.fit()
    pipeline.run()
    table = pipeline.evaluate(since="2013-10-01").table
    assert round(table["rmse"][0].as_py(), 2) == 2.64
