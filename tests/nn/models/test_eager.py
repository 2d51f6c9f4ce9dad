"""A subclass of Model with its own call: what it has, and what it refuses by name."""

from abc import ABC
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pytest

from streamrnn import Input, Model, Sequential, layers, load_model, optimizers
from streamrnn.errors import (
    ArgumentError,
    ConfigError,
    ModelFileError,
    ShapeError,
    UnsupportedError,
)
from streamrnn.models import StepRunner

X = np.random.default_rng(1).normal(size=(5, 6, 3))


class Stack(Model):
    """Layers in a list; the states of the last one can be given and returned."""

    def __init__(self, units: int = 4) -> None:
        super().__init__(name="stack")
        self.blocks = [layers.GRU(units, return_sequences=True) for _ in range(2)]
        self.drop = layers.Dropout(0.5)
        self.last = layers.GRU(units, return_state=True)

    def call(self, x: Any, states: Any = None, training: bool = False) -> Any:
        for block in self.blocks:
            x = block(x)
        y, state = self.last(self.drop(x, training=training), initial_state=states)
        return {"y": y, "state": state}


class Inherited(Stack):
    """Has the call of its base."""


class Doubled(Stack):
    """Has one of its own above that."""

    def call(self, x: Any, states: Any = None, training: bool = False) -> Any:
        return super().call(x, states, training)["y"] * 2


class Scaled(Model):
    """Makes its weights itself, and reads two inputs."""

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight("scale", input_shape["x"][-1:], "ones")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        assert inputs["ids"].dtype == np.int64
        return inputs["x"] * self.scale + inputs["ids"][:, None, None].astype("f4")


def test_a_call_is_that_of_the_layers_and_takes_more_arguments() -> None:
    model: Any = Inherited()
    out = model(X)
    x = model.blocks[1](model.blocks[0](X))
    np.testing.assert_array_equal(out["y"], model.last(x)[0])
    again = model(X, states=out["state"])
    np.testing.assert_array_equal(again["y"], model.last(x, initial_state=out["state"])[0])
    assert not (again["y"] == out["y"]).all()
    assert not (model(X, training=True)["y"] == out["y"]).all()
    assert isinstance(Inherited(), Model)
    assert model.layers == [*model.blocks, model.drop, model.last]


def test_predict_has_the_bits_of_a_call_whatever_the_batches() -> None:
    model = Stack()
    for size in (None, 2, 5):
        outputs = model.predict(X, batch_size=size, verbose=0)
        for name, output in model(X).items():
            np.testing.assert_array_equal(outputs[name], output)
    doubled = Doubled()
    doubled(X)
    doubled.set_weights(model.get_weights())
    np.testing.assert_array_equal(doubled.predict_on_batch(X), 2 * model(X)["y"])
    with pytest.raises(ArgumentError, match=r"layer 'stack' \(Stack\): predict of a model with"):
        model.predict(X, samples=3)


def test_its_call_may_change_its_inputs() -> None:
    """The caller's rows stay as they are."""

    class Doubling(Model):
        def call(self, x: Any) -> Any:
            x *= 2
            return x

    rows, model = X.astype(np.float32), Doubling()
    for _ in range(2):
        assert (model(rows) == 2 * rows).all()
        assert (model.predict(rows, batch_size=2) == 2 * rows).all()


def test_its_call_may_write_into_one_array() -> None:
    """predict joins what it returned for each batch."""

    class Buffered(Model):
        def call(self, x: Any) -> Any:
            buffer = vars(self).setdefault("buffer", np.zeros((1, *x.shape[1:])))
            buffer[...] = 2 * x
            return buffer

    rows = X.astype(np.float32)
    assert (Buffered().predict(rows, batch_size=1) == 2 * rows).all()


def test_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    """After a call, or a build: its zeros leave no trace in states."""
    model, other = Stack(), Stack()
    model(X)
    model.save_weights(tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="has no weights yet: call it on data"):
        other.load_weights(tmp_path / "w.safetensors")
    other.build((None, None, 3))
    other.load_weights(tmp_path / "w.safetensors")
    assert other(X)["y"].tobytes() == model(X)["y"].tobytes()
    assert list(model.named_weights())[:2] == [
        "blocks/0/cell/kernel",
        "blocks/0/cell/recurrent_kernel",
    ]
    with pytest.raises(ArgumentError, match="exists; set overwrite=True"):
        model.save_weights(tmp_path / "w.safetensors", overwrite=False)
    with pytest.raises(ConfigError, match="has no weights yet"):
        Stack().save_weights(tmp_path / "w.safetensors")
    with pytest.raises(ModelFileError, match="no config in its metadata"):
        load_model(tmp_path / "w.safetensors")
    with pytest.raises(UnsupportedError, match=r"pass model\.get_weights"):
        model.load_weights(tmp_path / "w.weights.h5")


def test_a_stateful_layer_carries_its_state() -> None:
    class Carrying(Model):
        def __init__(self) -> None:
            super().__init__()
            self.gru = layers.GRU(2, stateful=True, return_sequences=True, name="gru")

        def call(self, x: Any) -> Any:
            return self.gru(x)

    model = Carrying()
    model.build((5, 6, 3))
    parts = np.concatenate([model(X[:, :2]), model(X[:, 2:])], axis=1)
    model.reset_state()
    np.testing.assert_array_equal(model(X), parts)
    assert list(model.get_state()) == ["gru"]


def test_it_can_build_itself_and_integers_stay_integers() -> None:
    model, ids = Scaled(), np.arange(5)
    outputs = model.predict({"x": X, "ids": ids}, batch_size=2)
    np.testing.assert_array_equal(outputs, (X.astype("f4") + ids[:, None, None].astype("f4")))
    assert [w.shape for w in model.weights] == [(3,)]


def test_a_call_of_layers_alone_makes_a_graph_of_the_same_weights() -> None:
    model, x = Stack(), Input((None, 3))
    graph = Model(x, model.call(x))
    assert graph(X)["y"].tobytes() == model(X)["y"].tobytes()
    model.set_weights([w * 2 for w in model.get_weights()])
    assert graph.predict(X)["y"].tobytes() == model(X)["y"].tobytes()


REFUSED: dict[str, Callable[[Model], object]] = {
    "fit": lambda model: model.compile("adam", "mse"),
    "streams": StepRunner,
    "file": lambda model: model.save("never.safetensors"),
    "summary": lambda model: model.summary(),
    "config": lambda model: model.get_config(),
    "input": lambda model: model.input,
    "output": lambda model: model.output,
    "part of a graph": lambda model: model(Input((None, 3))),
    "part of a Sequential": lambda model: Sequential([Input((None, 3)), model]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_a_graph_is_refused_by_name(name: str) -> None:
    model = Stack()
    model(X)
    with pytest.raises(ConfigError, match=r"layer 'stack' \(Stack\) computes in Python, in its ow"):
        REFUSED[name](model)
    assert not Path("never.safetensors").exists()


def test_a_graph_has_no_call_of_its_own() -> None:
    x = Input((None, 3))

    class Both(Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ConfigError, match="has its own `call`, so it takes no inputs and outputs"):
        Both(x, layers.Dense(1)(x))
    with pytest.raises(ConfigError, match=r"as in Model\(inputs, outputs\)$"):
        Model()


def test_steps_that_would_not_be_run_are_refused() -> None:
    """Training and predict went on without them; a model without training may have them."""

    class Stepped(Model):
        def train_step(self, data: Any) -> Any:
            raise NotImplementedError

    x = Input((None, 3))
    model = Stepped(x, layers.Dense(1)(x))
    assert model.predict(X).shape == (5, 6, 1)
    with pytest.raises(ConfigError, match=r"Stepped.*train_step, which training does not run"):
        model.compile("sgd", "mse")
    with pytest.raises(ConfigError, match="Other: predict does not run a predict_step"):
        type("Other", (Model,), {"predict_step": Stepped.train_step})
    with pytest.raises(ArgumentError, match="Half: an optimizer does not run an update_step"):
        type("Half", (optimizers.SGD,), {"update_step": Stepped.train_step})


def test_a_call_that_would_not_be_run_is_refused() -> None:
    class Named(Sequential):
        pass

    for base in (Sequential, Named):
        with pytest.raises(ConfigError, match="Twice: Sequential does not run the `call` of a"):
            type("Twice", (base,), {"call": lambda self, x: x})


def test_layers_in_dicts_and_lists_of_lists_have_weights(tmp_path: Path) -> None:
    class Heads(Model):
        def __init__(self) -> None:
            super().__init__()
            self.heads = {"1h": layers.Dense(1), "3h": layers.Dense(1)}
            self.nested = [[layers.Dense(2)]]

        def call(self, x: Any) -> Any:
            return {name: head(self.nested[0][0](x)) for name, head in self.heads.items()}

    one, other = Heads(), Heads()
    expected = one(X)
    other(X)
    assert len(one.weights) == 6
    one.save_weights(tmp_path / "w.safetensors")
    other.load_weights(tmp_path / "w.safetensors")
    np.testing.assert_equal(other(X), expected)


def test_other_bases_stand_where_they_are_written() -> None:
    class Predicts:
        def predict(self, x: Any) -> str:
            return "mixin"

    class Calls:
        def call(self, x: Any) -> Any:
            return 2 * x

    class Last(Model, Predicts, ABC):
        def call(self, x: Any) -> Any:
            return x

    class First(Calls, Model, Generic[TypeVar("T")]):  # type: ignore[misc]
        pass

    assert Last().predict(X).shape == X.shape
    np.testing.assert_array_equal(First()(X), 2 * X.astype("f4"))


def test_inputs_of_unequal_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="must have the same number of rows, received 2, 3"):
        Scaled().predict({"x": X[:2], "ids": np.arange(3)}, batch_size=1)
    for size in (0, -1):
        with pytest.raises(ConfigError, match=f"batch_size must be 1 or more, received {size}"):
            Scaled().predict(X, batch_size=size)
