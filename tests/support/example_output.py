"""The output folder that the examples of streamrnn.outputs work on: two commits, three streams.

A plugin that `conftest.py` registers: a fixture of the tests does not reach the package. Alone,
those examples run as `pytest tests/conftest.py streamrnn/outputs.py`.
"""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _example_output(request: pytest.FixtureRequest) -> None:
    """Run the weather pipeline twice, in a temporary folder, for doctests of that room only."""
    is_example = isinstance(request.node, pytest.DoctestItem)
    if not (is_example and ".outputs" in request.node.name):
        return
    import pyarrow.parquet as pq

    from streamrnn import Pipeline  # not there where `streamrnn.nn` is tested alone

    tmp_path: Path = request.getfixturevalue("tmp_path")  # made for these only
    request.getfixturevalue("monkeypatch").chdir(tmp_path)
    log = pq.read_table(ROOT / "data/weather.parquet")
    (tmp_path / "in").mkdir()
    pipeline = Pipeline.from_toml(
        ROOT / "pipelines/weather.toml",
        ["source.path=in", f"model.path={ROOT}/pipelines/weather/model.safetensors"],
    )
    for name, rows in (("1", log.slice(0, 50)), ("2", log.slice(50, 30))):
        pq.write_table(rows, f"in/{name}.parquet")
        pipeline.run()
