"""The contracts of layers hold in every precision, and what cannot be trained says so.

Slow: all of it, each layer compiled for itself.
"""

from pathlib import Path

import pytest
from contracts import models
from contracts.declared import holding
from contracts.rows_graphs import LAYERS
from contracts.rows_layers import READS
from selection import slow

from streamrnn import Model
from streamrnn.errors import UnsupportedError
from streamrnn.nn.kernels import integers
from streamrnn.nn.kernels.integers import PRECISIONS
from streamrnn.nn.layers.precision import packable_layers, precision_of, set_precision

pytestmark = slow
TOLERANCES = {"int16": 2e-3, "int8": 0.2}
PACKABLE = {name for name, row in LAYERS.items() if list(packable_layers(row.made()))}


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense and Conv1D in integers, though these are too small to gain."""
    monkeypatch.setattr(integers, "LEAST_INPUTS", 1)
    monkeypatch.setattr(integers, "LEAST_UNITS", 1)


def both(contract: str) -> pytest.MarkDecorator:
    """Each row with a cell that is packed and keeps a contract, in each lower precision."""
    names = [name for name in holding(LAYERS, contract) if name in PACKABLE]
    lower = [precision for precision in PRECISIONS if precision != "float32"]
    pairs = [(name, precision) for precision in lower for name in names]
    return pytest.mark.parametrize(("name", "precision"), pairs)


def packed(name: str, precision: str) -> Model:
    model = models.with_weights(LAYERS[name].made())
    set_precision(model, precision)
    assert precision_of(model) == precision
    return model


@both("saved")
def test_a_packed_layer_is_saved_and_loaded(name: str, precision: str, tmp_path: Path) -> None:
    models.assert_saved(packed(name, precision), READS[LAYERS[name].reads], tmp_path)


@both("oracle")
def test_a_packed_layer_is_near_the_oracle(name: str, precision: str) -> None:
    row = LAYERS[name]
    models.assert_close(
        packed(name, precision), READS[row.reads], row.oracle, TOLERANCES[precision]
    )


@both("cut")
def test_a_packed_layer_on_a_stream_is_cut_free(name: str, precision: str) -> None:
    models.assert_cut_free(packed(name, precision), READS[LAYERS[name].reads])


@both("cut")
def test_streams_of_a_packed_layer_never_meet(name: str, precision: str) -> None:
    models.assert_streams_apart(packed(name, precision), READS[LAYERS[name].reads])


@both("apart")
def test_sequences_of_a_packed_layer_never_meet(name: str, precision: str) -> None:
    models.assert_rows_apart(packed(name, precision), READS[LAYERS[name].reads])


@both("trained")
def test_a_packed_layer_is_not_trained(name: str, precision: str) -> None:
    with pytest.raises(UnsupportedError, match=f"has weights in {precision}, which cannot be tr"):
        packed(name, precision).compile("sgd", "mse")
