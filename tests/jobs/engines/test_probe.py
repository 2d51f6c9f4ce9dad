"""What a node of a cluster reports about itself before a run."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import logs
import pytest

from streamrnn import Pipeline, __version__
from streamrnn.jobs.engines.probe import FolderToken, probe
from streamrnn.jobs.engines.shard import OutputPlace
from streamrnn.stream.checkpoints import OutputFolder
from streamrnn.stream.sources import list_files

SHARED = "Use a folder that all nodes share, or the URI of an object store"


@pytest.fixture
def found(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The arguments of a probe on a node that sees everything."""
    log = logs.write(logs.random_log(50), tmp_path / "in/0.parquet")
    logs.small_model().save(tmp_path / "m.safetensors")
    out = tmp_path / "out"
    pipeline = Pipeline.from_dict(logs.config(log, str(tmp_path / "m.safetensors"), str(out)))
    with OutputFolder.open(str(out)) as folder, folder.rows.token() as token:
        yield {
            "loaded": pipeline.loaded,
            "version": __version__,
            "place": OutputPlace({"rows": str(out)}, "parquet"),
            "token": FolderToken(*token),
            "file": list_files(log)[0],
        }


def problem(found: dict[str, Any], **changes: Any) -> str:
    node, text = probe(**{**found, **changes})
    assert node == socket.gethostname()
    return text


def test_nothing_is_wrong(found: dict[str, Any]) -> None:
    assert problem(found) == ""
    assert problem(found, file=None) == ""


def test_another_version(found: dict[str, Any]) -> None:
    text = problem(found, version="0.0.1")
    assert text == f"it has streamrnn {__version__}, the driver has 0.0.1. Install the same version"


def test_a_source_that_is_not_there(found: dict[str, Any], tmp_path: Path) -> None:
    Path(found["file"].path).unlink()
    text = problem(found)
    assert text.startswith(f"it cannot read the source {tmp_path}/in/0.parquet: ")
    assert text.endswith(SHARED)


def test_an_output_that_is_not_there(found: dict[str, Any], tmp_path: Path) -> None:
    place = replace(found["place"], folders={"rows": str(tmp_path / "elsewhere")})
    text = problem(found, place=place)
    assert text.startswith(f"it does not see the output {tmp_path}/elsewhere: ")
    assert text.endswith(SHARED)
    assert not (tmp_path / "elsewhere").exists()


def test_another_folder_at_the_same_path(found: dict[str, Any], tmp_path: Path) -> None:
    token = FolderToken(found["token"].name, "of another folder")
    text = problem(found, token=token)
    assert text == f"its {tmp_path}/out is not the driver's: {SHARED}"
