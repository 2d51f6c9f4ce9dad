"""reset= and windows of a pipeline: lanes that continue, lanes that start again."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import logs
import numpy as np
import pytest
from nn.layers.kinds import assert_same, layer_at
from nn.training.trained import weighted

import streamrnn
from streamrnn import Input, Model, Sequential, callbacks, layers, optimizers
from streamrnn.errors import ArgumentError, ConfigError, ShapeError

if TYPE_CHECKING:
    from streamrnn.pipeline import Pipeline, SourceWindow

RNG = np.random.default_rng(12)
X = RNG.normal(size=(4, 6, 2)).astype(np.float32)
Y = RNG.normal(size=(4, 6, 1)).astype(np.float32)
ROWS = np.array([False, True, False, True])

OPTIONS: dict[str, Any] = {"stateful": True, "return_sequences": True}
KINDS: dict[str, Any] = {
    "gru": lambda: layers.GRU(3, **OPTIONS),
    "lstm": lambda: layers.LSTM(3, **OPTIONS),
    "bidirectional": lambda: layers.Bidirectional(layers.GRU(3, **OPTIONS)),
    "inside": lambda: Sequential([Input((None, 2)), layers.LSTM(3, **OPTIONS)]),
}


def stateful(kind: str = "gru", **options: Any) -> Sequential:
    model = weighted(Sequential([Input((None, 2)), KINDS[kind](), layers.Dense(1)]))
    model.compile(optimizers.SGD(0.1), "mse", **options)
    return model


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_reset_start_again(kind: str, train: bool) -> None:
    """Loss, weights and states are those of rows whose states were never touched."""
    model, other = stateful(kind), stateful(kind)
    for one in (model, other):
        one.test_on_batch(X * 2, Y)
    carried = other.get_state()
    other.reset_state()
    other.test_on_batch(np.zeros((4, 0, 2), np.float32), np.zeros((4, 0, 1), np.float32))
    other.set_state(mixed(carried, other.get_state(), ROWS))
    call = "train_on_batch" if train else "test_on_batch"
    found = getattr(model, call)(X, Y, reset=ROWS)
    assert found == getattr(other, call)(X, Y)
    assert_same(model.get_weights(), other.get_weights())
    assert_same(*(flat(one.get_state()) for one in (model, other)))
    fresh = stateful(kind)
    fresh.set_weights(model.get_weights())
    model.test_on_batch(X, Y, reset=~np.zeros(4, bool))
    fresh.test_on_batch(X, Y)
    assert_same(*(flat(one.get_state()) for one in (model, fresh)))


def flat(states: Any) -> list[np.ndarray]:
    """The arrays in nested states."""
    if isinstance(states, np.ndarray):
        return [states]
    parts = states.values() if isinstance(states, dict) else states
    return [array for part in parts for array in flat(part)]


def mixed(old: Any, new: Any, rows: np.ndarray) -> Any:
    """Rows of one nested state in another."""
    if isinstance(old, dict):
        return {name: mixed(old[name], new[name], rows) for name in old}
    if isinstance(old, list):
        return [mixed(a, b, rows) for a, b in zip(old, new, strict=True)]
    return np.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old)


def test_a_reset_returns_to_the_state_given_to_reset_state() -> None:
    model = stateful()
    begin = RNG.normal(size=(4, 3)).astype(np.float32)
    layer_at(model).reset_state([begin])
    model.test_on_batch(X, Y)
    before = layer_at(model).states[0]
    model.test_on_batch(X[:, :0], Y[:, :0], reset=ROWS)
    assert_same(layer_at(model).states[0], np.where(ROWS[:, None], begin, before))


class Average(layers.Cell):
    """A cell whose last output is held where steps are masked."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape: Any) -> None:
        self.add_weight("rate", (self.units,), "ones")

    @staticmethod
    def step(x: Any, states: Any, weights: Any, y: Any) -> None:
        (h,), (rate,) = states, weights
        for i in range(h.size):
            h[i] += (x[i] - h[i]) * rate[i]
            y[i] = h[i] + 1


def test_a_reset_clears_the_output_that_a_cell_holds() -> None:
    rnn = layers.RNN(Average(2), stateful=True, return_sequences=True, trainable=False)
    model = Sequential([Input((None, 2)), rnn, layers.Dense(1)])
    model.compile("sgd", "mse")
    model.test_on_batch(X, Y)
    state, held = rnn.get_state()
    assert_same(held, state + 1)
    model.test_on_batch(X, Y, lengths=np.zeros(4, int), reset=ROWS)
    for before, after in zip((state, held), rnn.get_state(), strict=True):
        assert_same(after, np.where(ROWS[:, None], np.float32(0), before))


def test_a_batch_that_is_refused_resets_nothing() -> None:
    model = stateful()
    model.train_on_batch(X, Y)
    states, weights = layer_at(model).states, model.get_weights()
    for call in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ShapeError):
            call(X, Y[:, :2], reset=ROWS)
        with pytest.raises(ShapeError, match=r"reset must be an array of bool with the shape \(4"):
            call(X, Y, reset=[1, 0, 1, 0])
        with pytest.raises(ShapeError, match=r"it carries the state of 4 rows .*, received 2"):
            call(X[:2], Y[:2], reset=ROWS[:2])
    assert_same(layer_at(model).states, states)
    assert_same(model.get_weights(), weights)
    plain = weighted(Sequential([Input((None, 2)), layers.GRU(3)]))
    plain.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match="reset= needs a layer that carries state"):
        plain.train_on_batch(X, Y[:, 0], reset=ROWS)


# ---- windows of a pipeline


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> "list[SourceWindow]":
    return list(pipeline(tmp_path_factory.mktemp("log")).windows())


def pipeline(folder: Path, target: bool = True) -> "Pipeline":
    """Nine streams on four lanes, with resets, gaps, and labels that are missing."""
    pytest.importorskip("streamrnn.jobs", reason="needs pipelines")
    logs.small_model().save(folder / "m.safetensors")
    logs.write(logs.random_log(300, streams=9, nulls=0.1, resets=0.04), folder / "in/0.parquet")
    config = logs.config(
        f"{folder}/in",
        f"{folder}/m.safetensors",
        f"{folder}/out",
        source={"nulls": "previous", "reset": "new", "max_gap": "40m"},
        window={"lanes": 4, "steps": 6},
        **({"target": {"column": "b", "rows": 1}} if target else {}),
    )
    return streamrnn.Pipeline.from_dict(config)


def by_hand(model: Sequential, windows: "list[SourceWindow]", epochs: int) -> list[float]:
    """The loop that fit replaces: states are set by the caller; return the last epoch's losses."""
    losses: list[float] = []
    layer = layer_at(model)
    for _ in range(epochs):
        losses.clear()
        layer.reset_state()
        for window in windows:
            if layer.states is not None:
                layer.set_state([np.where(window.reset[:, None], 0, s) for s in layer.states])
            y = np.nan_to_num(window.y)
            losses.append(
                model.train_on_batch(window.inputs, y, window.weight, lengths=window.lengths)
            )
    return losses


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_windows_train_as_a_loop_by_hand(kind: str, windows: "list[SourceWindow]") -> None:
    assert sum(window.reset[1:].any() for window in windows[1:]) > 2
    model, other = stateful(kind), stateful(kind)
    history = model.fit(windows, epochs=2, verbose=0)
    losses = by_hand(other, windows, 2)
    assert_same(model.get_weights(), other.get_weights())
    assert_same(layer_at(model).states, layer_at(other).states)
    assert history.history["loss"][1] == pytest.approx(np.mean(losses))
    again, iterated = stateful(kind), stateful(kind)
    again.fit(windows, verbose=0)
    iterated.fit(iter(windows), verbose=0)
    assert_same(again.get_weights(), iterated.get_weights())


def test_windows_come_straight_from_a_pipeline(tmp_path: Path) -> None:
    source = pipeline(tmp_path)
    model, other = stateful(), stateful()
    model.fit(source.windows(), verbose=0)
    other.fit(list(source.windows()), verbose=0)
    assert_same(model.get_weights(), other.get_weights())
    with pytest.raises(ArgumentError, match=r"run through only once; .* fit\(list\(batches\)\)"):
        model.fit(source.windows(), epochs=2)


def test_streams_never_meet(windows: "list[SourceWindow]") -> None:
    """After each window, a lane has the state of its stream alone since its last reset."""
    model = stateful()
    model.optimizer.learning_rate = 0.0
    x = Input((None, 2))
    alone = Model(x, layers.GRU(3, return_state=True)(x))
    alone.set_weights(model.get_weights()[:3])
    lanes: list[list[np.ndarray]] = [[] for _ in range(4)]
    checked = 0

    def check(number: int, logs: Any) -> None:
        nonlocal checked
        window, states = windows[number], layer_at(model).states[0]
        for lane, steps in enumerate(lanes):
            if window.reset[lane]:
                steps.clear()
            steps.extend(window.inputs[0][lane, : window.lengths[lane]])
            if steps and window.lengths[lane]:
                _, wanted = alone(np.array(steps)[None])
                assert_same(states[lane], wanted[0])
                checked += 1

    model.fit(windows, verbose=0, callbacks=callbacks.LambdaCallback(on_train_batch_end=check))
    assert checked > 40


def test_steps_without_a_label_count_for_nothing(windows: "list[SourceWindow]") -> None:
    """In metrics, too, whatever stands there; and weights are used."""
    assert any(np.isnan(w.y).any() and (w.weight > 0).any() for w in windows if w.y is not None)
    model = stateful(metrics=["mae"], weighted_metrics=["mse"])
    found = model.evaluate(windows, return_dict=True)
    model.reset_state()
    error = square = count = 0.0
    for window in windows:
        layer = layer_at(model)
        if layer.states is not None:
            layer.set_state([np.where(window.reset[:, None], 0, s) for s in layer.states])
        y = model(window.inputs, lengths=window.lengths)
        assert window.y is not None
        real = ~np.isnan(window.y)
        error += np.abs(np.asarray(y)[real] - window.y[real]).sum()
        square += ((np.asarray(y)[real] - window.y[real]) ** 2).sum()
        count += real.sum()
    assert found["mae"] == pytest.approx(error / count, rel=1e-5)
    assert found["mse"] == pytest.approx(square / count, rel=1e-5)
    heavy = [replace(w, weight=w.weight * 2) for w in windows]
    model.reset_state()
    assert model.evaluate(heavy)[0] == pytest.approx(2 * found["loss"])


def test_windows_as_validation_data(windows: "list[SourceWindow]") -> None:
    """From fresh states; those of the training stay."""
    model, other = stateful(), stateful()
    history = model.fit(windows, epochs=2, verbose=0, validation_data=windows)
    other.fit(windows, epochs=2, verbose=0)
    assert_same(model.get_weights(), other.get_weights())
    assert_same(layer_at(model).states, layer_at(other).states)
    other.reset_state()
    assert history.history["val_loss"][-1] == other.evaluate(windows)


def test_windows_with_class_weights(windows: "list[SourceWindow]") -> None:
    """By the class of each label, times the weight of the step."""
    classes, other = [], []
    for window in windows:
        assert window.y is not None
        y = np.where(np.isnan(window.y), np.nan, window.y > 0)
        classes.append(replace(window, y=y))
        other.append(replace(window, y=y, weight=window.weight * np.where(y[..., 0] > 0, 3, 1)))
    found = []
    for data, weight in ((classes, {1: 3}), (other, None)):
        model = weighted(
            Sequential([Input((None, 2)), KINDS["gru"](), layers.Dense(1, activation="sigmoid")])
        )
        model.compile("sgd", "binary_crossentropy")
        model.fit(data, verbose=0, class_weight=weight)
        found.append(model.get_weights())
    assert_same(*found)


def test_windows_that_are_refused(tmp_path: Path, windows: "list[SourceWindow]") -> None:
    model = stateful()
    with pytest.raises(ArgumentError, match=r"the windows have no labels; add \[target\]"):
        model.fit(pipeline(tmp_path, target=False).windows())
    resumed = replace(windows[0], resumes=windows[0].reset)
    with pytest.raises(ArgumentError, match="a lane starts from the stored state"):
        model.fit([resumed])
    plain = weighted(Sequential([Input((None, 2)), layers.GRU(3, return_sequences=True)]))
    plain.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match=r"\(GRU\) does not carry its state .*stateful=True"):
        plain.fit(windows)
    with pytest.raises(ConfigError, match="call compile"):
        Sequential([Input((None, 2)), layers.Dense(1)]).fit(windows)
    rows = weighted(Sequential([Input((None, 2)), layers.Dense(1)]))
    rows.compile("sgd", "mse")
    assert rows.fit(windows, verbose=0).history["loss"][0] > 0  # nothing to carry


def test_a_layer_that_would_start_from_zero_in_each_window_is_refused(tmp_path: Path) -> None:
    """`streamrnn fit` carries what Conv1D keeps; a call of the model does not."""
    stack = [layers.Conv1D(2, 2, padding="causal"), layers.GRU(2, **OPTIONS), layers.Dense(1)]
    model = Sequential([Input((None, 2)), *stack])
    model.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match=r"\(Conv1D\) does not carry .* streamrnn fit"):
        model.fit(pipeline(tmp_path).windows(), verbose=0)


def test_steps_of_an_epoch_of_a_stateful_model_are_all() -> None:
    """Else states would be reset in the middle of the data."""
    model = stateful()
    batches = [(X, Y), (X, Y)]
    with pytest.raises(ArgumentError, match="in the middle of the data"):
        model.fit(batches, steps_per_epoch=1, epochs=2, shuffle=False, verbose=0)
    model.fit(batches, steps_per_epoch=2, epochs=2, shuffle=False, verbose=0)


def test_a_frozen_layer_with_dropout_keeps_the_mask_of_its_call() -> None:
    """It draws in training, where no gradient passes: the masked steps are NaN."""
    x, present = Input((None, 2)), Input((None,))
    lstm = layers.LSTM(3, dropout=0.5, trainable=False)
    y = layers.Dense(1)(lstm(x, mask=layers.NotEqual(0)(present)))
    model = Model([x, present], y)
    model.compile("sgd", "mse")
    steps = np.array([[1, 1, 0, 0], [1, 1, 1, 0]])
    rows = np.where(steps[..., None], np.ones((2, 4, 2)), np.nan)
    assert np.isfinite(model.train_on_batch([rows, steps], np.zeros((2, 1))))
