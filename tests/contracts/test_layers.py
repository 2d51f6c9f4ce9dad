"""Every registered layer keeps its contracts, or its row says why not."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
from contracts import models
from contracts.declared import HOLDS, assert_declared, holding, reasoned
from contracts.rows_graphs import LAYERS
from contracts.rows_layers import NO_WEIGHTS, READS, RECURRENT, LayerRow, alone, inputs_of
from nn.layers.kinds import assert_same
from selection import first_quick

import streamrnn
from streamrnn import Model, layers
from streamrnn.errors import ModelMismatchError, StreamRNNError, UnsupportedError
from streamrnn.models import StepRunner
from streamrnn.nn.layers import registry

FILE = "tests/contracts/rows_layers.py or rows_graphs.py"
HOMES = (
    *("streamrnn.nn.layers", "streamrnn.nn.models", "streamrnn.nn.formats"),
    "streamrnn.plugins.onnx.model",
)


def registered() -> list[str]:
    """The layers of this package, wherever in it, without those that tests have registered."""
    for module in pkgutil.walk_packages(streamrnn.__path__, "streamrnn."):
        if module.name.startswith(HOMES):
            importlib.import_module(module.name)
    return [name for name in registry.names() if registry.is_own(registry.get(name))]


def test_every_layer_has_a_row_and_every_row_a_layer() -> None:
    assert_declared("layer", registered(), LAYERS, FILE)


@pytest.fixture
def new_layer(monkeypatch: pytest.MonkeyPatch) -> type[layers.Layer]:
    """A class as a developer adds it, registered until the end of the test."""
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(registry, "_builtins", set(registry._builtins))

    class Halving(layers.Layer):
        stepwise = True

        def apply(self, inputs: Any, context: Any) -> Any:
            return inputs / 2

    Halving.__module__ = "streamrnn.layers.halving"
    return registry.builtin_layer(Halving)


def test_a_new_layer_without_a_row_fails(new_layer: type[layers.Layer]) -> None:
    with pytest.raises(AssertionError, match=r"layer without a row.*\['Halving'\] to tests/contr"):
        test_every_layer_has_a_row_and_every_row_a_layer()


def test_a_row_without_a_layer_and_an_empty_reason_fail(new_layer: type[layers.Layer]) -> None:
    rows = {**LAYERS, "Halving": LayerRow(new_layer, oracle="")}
    with pytest.raises(AssertionError, match=r"'Halving': oracle must hold, or say.*it says ''"):
        assert_declared("layer", registered(), rows, FILE)
    rows["Halving"] = LayerRow(new_layer, oracle="No.")
    with pytest.raises(AssertionError, match=r"it says 'No\.'"):
        assert_declared("layer", registered(), rows, FILE)
    rows["Halving"] = LayerRow(new_layer, lambda _, x: x, cut=False)
    with pytest.raises(AssertionError, match=r"cut must hold.*it says False"):
        assert_declared("layer", registered(), rows, FILE)
    rows["Halving"] = rows["Thirding"] = LayerRow(new_layer, lambda _, x: x)
    with pytest.raises(AssertionError, match=r"no layer: take \['Thirding'\]"):
        assert_declared("layer", registered(), rows, FILE)


@pytest.mark.parametrize("name", LAYERS)
def test_a_row_is_of_its_class(name: str) -> None:
    assert type(LAYERS[name].layer()) is registry.get(name.partition("/")[0])


@pytest.mark.parametrize("name", holding(LAYERS, "config"))
def test_a_config_makes_the_same_layer(name: str) -> None:
    """Through JSON: the same name, options and, with the same weights, bits."""
    row = LAYERS[name]
    models.assert_config_round_trip(
        row.layer(), lambda layer: row.model(layer, row.reads), READS[row.reads]
    )


@pytest.mark.parametrize("name", holding(LAYERS, "saved"))
def test_a_layer_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    row = LAYERS[name]
    models.assert_saved(models.with_weights(row.made()), READS[row.reads], tmp_path)


@pytest.mark.parametrize("name", holding(LAYERS, "oracle"))
def test_a_layer_agrees_with_the_oracle(name: str) -> None:
    row = LAYERS[name]
    models.assert_close(models.with_weights(row.made()), READS[row.reads], row.oracle)


@pytest.mark.parametrize("name", holding(LAYERS, "cut"))
def test_a_layer_on_a_stream_is_cut_free(name: str) -> None:
    row = LAYERS[name]
    models.assert_cut_free(models.with_weights(row.made()), READS[row.reads])


@pytest.mark.parametrize("name", holding(LAYERS, "cut"))
def test_streams_of_a_layer_never_meet(name: str) -> None:
    row = LAYERS[name]
    models.assert_streams_apart(models.with_weights(row.made()), READS[row.reads])


@pytest.mark.parametrize("name", holding(LAYERS, "apart"))
def test_sequences_of_a_layer_never_meet(name: str) -> None:
    row = LAYERS[name]
    models.assert_rows_apart(models.with_weights(row.made()), READS[row.reads])


@pytest.mark.parametrize("name", reasoned(LAYERS, "cut"))
def test_a_layer_that_cannot_be_cut_is_refused_by_name(name: str) -> None:
    """A reason that has become wrong fails too."""
    layer = LAYERS[name].layer()
    with pytest.raises(ModelMismatchError, match=repr(layer.name)):
        StepRunner(LAYERS[name].model(layer, LAYERS[name].reads))


COMPILED = [name for name in RECURRENT if name != "LSTM"]
TRAINED = sorted(holding(LAYERS, "trained"), key=lambda name: name in COMPILED)


@pytest.mark.parametrize("name", first_quick(TRAINED, len(set(TRAINED) - set(COMPILED))))
def test_gradients_of_a_layer_are_those_of_the_oracle(name: str) -> None:
    """Slow: recurrent layers, each compiled for itself."""
    row = LAYERS[name]
    models.assert_gradients(behind_dense(row), READS[row.reads], naive_behind_dense(row))


def behind_dense(row: LayerRow) -> Model:
    """The row's model with a Dense before each input of floats: one layer, perhaps twice."""
    if READS[row.reads][0].dtype != np.float32:
        return models.with_weights(row.made())
    symbols = inputs_of(row.reads)
    dense = layers.Dense(symbols[0].shape[-1])
    read = [dense(symbol) for symbol in symbols]
    return models.with_weights(Model(symbols, row.made()(read if len(read) > 1 else read[0])))


def naive_behind_dense(row: LayerRow) -> Any:
    """The oracle of `behind_dense`."""
    if READS[row.reads][0].dtype != np.float32:
        return row.oracle
    return lambda w, *x: row.oracle(w[2:], *(naive.dense(each, *w[:2]) for each in x))


@pytest.mark.parametrize(
    "name", [name for name in reasoned(LAYERS, "trained") if LAYERS[name].trained != NO_WEIGHTS]
)
def test_a_layer_that_cannot_be_trained_is_refused(name: str) -> None:
    """A reason that has become wrong fails too."""
    row = LAYERS[name]
    model = row.made() if name == "OnnxModel" else behind_dense(row)
    with pytest.raises(UnsupportedError, match="training"):
        model.compile("sgd", "mse")


@pytest.mark.parametrize("name", holding(LAYERS, "training"))
def test_a_call_in_training_is_the_same_call_or_what_the_row_says(name: str) -> None:
    """Of the weights it changes those of a layer that has moving statistics, and no others."""
    row = LAYERS[name]
    model, inputs = models.with_weights(row.made()), READS[row.reads]
    before = model.get_weights()
    outputs = model(list(inputs), training=True)
    model.reset_state()
    if row.training is HOLDS:
        assert_same(outputs, model(list(inputs)))
    else:
        x = models.naive_lists(inputs)
        expected = row.training(row.layer(), models.naive_lists(before), *x)
        np.testing.assert_allclose(outputs, np.array(expected), rtol=1e-5, atol=1e-5)
    moves = any(holder.moves_in_training and holder.trainable for holder, _, _ in model.holders())
    after = model.get_weights()
    assert any((a != b).any() for a, b in zip(before, after, strict=True)) == moves


@pytest.mark.parametrize("name", reasoned(LAYERS, "training"))
def test_a_layer_that_cannot_be_in_training_refuses_it_by_name(name: str) -> None:
    """A reason that has become wrong fails too."""
    model = LAYERS[name].made()
    with pytest.raises(StreamRNNError, match=f"{model.name!r}.*training"):
        model(list(READS[LAYERS[name].reads]), training=True)


def takes_training(layer: type) -> bool:
    """Whether code of the class, or of one above it, reads `training`."""
    bodies = [
        function.__code__
        for kind in layer.__mro__
        if kind not in layers.Layer.__mro__
        for function in vars(kind).values()
        if inspect.isfunction(function)
    ]
    return any("training" in (*body.co_names, *body.co_varnames) for body in bodies)


def test_a_layer_that_takes_training_has_a_row_that_says_what_it_computes(
    new_layer: type[layers.Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {name.partition("/")[0] for name, row in LAYERS.items() if row.training is not HOLDS}
    taking = {name for name in registered() if takes_training(registry.get(name))}
    assert taking <= said, f"add a row with training= to {FILE} for {sorted(taking - said)}"
    monkeypatch.setattr(new_layer, "apply", layers.Dropout.apply)
    assert takes_training(new_layer)


def test_stepwise_is_a_promise_that_some_row_keeps() -> None:
    """A class that says so is on a stream in the contracts above."""
    promised = {name for name in registered() if registry.get(name).stepwise}
    kept = {name.partition("/")[0] for name in holding(LAYERS, "cut")}
    assert promised <= kept


class Lying(layers.Layer):
    """Says that it needs one step only, and takes the mean over the steps it happens to see."""

    stepwise = True

    def apply(self, inputs: Any, context: Any) -> Any:
        return inputs - inputs.mean(axis=1, keepdims=True)


class Mixing(layers.Layer):
    """Takes the mean over streams."""

    stepwise = True

    def apply(self, inputs: Any, context: Any) -> Any:
        return inputs - inputs.mean(axis=0)


class Forgetting(layers.Layer):
    """Its config lacks an argument."""

    stepwise = True

    def __init__(self, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def apply(self, inputs: Any, context: Any) -> Any:
        return inputs * self.factor

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


def test_a_forgotten_argument_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_classes", {**registry._classes, "Forgetting": Forgetting})
    x = READS["features"]
    with pytest.raises(AssertionError):
        models.assert_config_round_trip(Forgetting(2.0), lambda made: alone(made, "features"), x)
    with pytest.raises(AssertionError):
        models.assert_saved(alone(Forgetting(2.0), "features"), x, tmp_path)


def test_contracts_fail_for_layers_that_do_not_keep_them() -> None:
    x = READS["features"]
    with pytest.raises(AssertionError):
        models.assert_cut_free(alone(Lying(), "features"), x)
    for check in (models.assert_cut_free, models.assert_rows_apart, models.assert_streams_apart):
        with pytest.raises(AssertionError):
            check(alone(Mixing(), "features"), x)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        models.assert_close(alone(Mixing(), "features"), x, lambda _, given: given)
