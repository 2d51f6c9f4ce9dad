"""The blocks of the README that read an output with DuckDB and Polars: needs the oracles extra."""

from pathlib import Path

import pytest
from readme import READERS, blocks, make_clone, run_python, shell

READING = [block for _, block in blocks("README.md") if READERS.search(block)]


def test_the_output_is_read_as_the_readme_says(tmp_path: Path) -> None:
    """Three airports in each, from the output of the first command."""
    for library in ("duckdb", "polars", "deltalake"):
        pytest.importorskip(library, reason="needs the oracles extra")
    clone = make_clone(tmp_path)
    shell("streamrnn run pipelines/weather.toml -q", clone)
    assert len(READING) == 3
    for block in READING:
        printed = run_python(block, clone)
        assert all(airport in printed for airport in ("EWR", "JFK", "LGA")), printed
