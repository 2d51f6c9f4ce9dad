"""Every format of model files keeps its contracts, or its row says why not."""

from pathlib import Path

import numpy as np
import pytest
from contracts import models
from contracts.declared import assert_declared, holding, reasoned
from contracts.rows_models import FILES, FORMATS

import streamrnn
from streamrnn import Model
from streamrnn.errors import ModelMismatchError, UnsupportedError
from streamrnn.models import StepRunner
from streamrnn.nn.formats import dispatch

FILE = "tests/contracts/rows_models.py"


def registered() -> list[str]:
    """The endings that load_model knows, as it lists them."""
    with pytest.raises(UnsupportedError, match="unknown suffix") as caught:
        streamrnn.load_model("model.unknown")
    return str(caught.value).rpartition("expected one of ")[2].split(", ")


def test_every_format_has_a_row_and_every_row_a_format() -> None:
    assert_declared("format of models", registered(), FORMATS, FILE)


def test_a_new_format_without_a_row_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_SUFFIXES", (*dispatch._SUFFIXES, ".new"))
    with pytest.raises(AssertionError, match=r"format of models without a row.*\['\.new'\]"):
        test_every_format_has_a_row_and_every_row_a_format()


def test_every_model_file_has_a_row() -> None:
    """Of those that frameworks wrote."""
    endings = tuple(registered())
    files = {path.name for path in FILES.iterdir() if path.name.endswith(endings)}
    assert files <= {row.file for row in FORMATS.values()}


@pytest.fixture
def model(name: str, tmp_path: Path) -> Model:
    return FORMATS[name].model(tmp_path, name.partition("/")[0])


@pytest.mark.parametrize("name", holding(FORMATS, "recorded"))
def test_a_model_computes_what_its_framework_recorded(name: str, model: Model) -> None:
    row = FORMATS[name]
    arrays, wanted = row.arrays("x"), row.arrays("y")
    made = model(arrays if len(arrays) > 1 else arrays[0])
    made = list(made.values()) if isinstance(made, dict) else made
    made = made if isinstance(made, list) else [made]
    for ours, theirs in zip(made, wanted, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", holding(FORMATS, "config"))
def test_the_config_makes_the_same_model(name: str, model: Model) -> None:
    weights = model.get_weights()
    models.assert_config_round_trip(model, lambda each: each, FORMATS[name].inputs(model))
    assert len(weights) == len(model.get_weights()) > 0


@pytest.mark.parametrize("name", holding(FORMATS, "saved"))
def test_saved_in_the_native_format_it_keeps_its_bits(
    name: str, model: Model, tmp_path: Path
) -> None:
    models.assert_saved(model, FORMATS[name].inputs(model), tmp_path)


@pytest.mark.parametrize("name", holding(FORMATS, "cut"))
def test_on_a_stream_it_is_cut_free_and_streams_never_meet(name: str, model: Model) -> None:
    models.assert_cut_free(model, FORMATS[name].inputs(model))
    models.assert_streams_apart(model, FORMATS[name].inputs(model))


@pytest.mark.parametrize("name", reasoned(FORMATS, "cut"))
def test_what_cannot_be_cut_is_refused(name: str, model: Model) -> None:
    """A reason that has become wrong fails too."""
    with pytest.raises(ModelMismatchError, match="one step per row"):
        StepRunner(model)


@pytest.mark.parametrize("name", holding(FORMATS, "apart"))
def test_rows_never_meet(name: str, model: Model) -> None:
    models.assert_rows_apart(model, FORMATS[name].inputs(model))
