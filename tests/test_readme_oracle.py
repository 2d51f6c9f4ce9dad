"""What the README does with DuckDB, Polars and vl-convert: needs the oracles extra."""

import re
from pathlib import Path

import pytest
from readme import READERS, blocks, located, make_clone, run_python, shell

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


def test_the_page_of_the_readme_is_written(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="needs the oracles extra")
    (command,) = re.findall(
        r"^streamrnn report .*$", located("README.md").read_text(), re.MULTILINE
    )
    clone = make_clone(tmp_path)
    shell("streamrnn run pipelines/weather.toml -q", clone)
    assert shell(command, clone) == "wrote weather.html: 11 pictures\n"
    assert 800_000 < (clone / "weather.html").stat().st_size < 6_000_000
