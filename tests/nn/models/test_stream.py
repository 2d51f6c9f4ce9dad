"""Models as pipelines run them: one step a row (StepRunner), or whole sequences."""

import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn.layers.kinds import KINDS, MinimalRNNCell, MixesRows, assert_same, built, layer_at

from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import ModelMismatchError
from streamrnn.models import SequenceRunner, StepRunner

RNG = np.random.default_rng(7)
X = RNG.normal(size=(4, 9, 3)).astype(np.float32)
LENGTHS = np.array([9, 0, 4, 1])


def randomized(model: Model) -> Model:
    """Normal weights; variances must be positive."""
    named = model.named_weights().items()
    drawn = {name: RNG.normal(size=w.shape) * 0.5 for name, w in named}
    model.set_weights([abs(w) + 0.1 if "variance" in n else w for n, w in drawn.items()])
    return model


def deep() -> Model:
    """Everything that streams, ending in a layer without return_sequences; masks from gaps."""
    inner = Sequential(
        [Input((None, 4)), layers.GRU(4, return_sequences=True, name="gru")], name="inner/one"
    )
    x = Input((None, 3), name="x")
    y = layers.Rescaling(2.0, 0.5)(x)
    y = layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="tanh", name="conv")(y)
    y = layers.Add()([layers.LayerNormalization()(y), layers.Dense(4, "relu")(x)])
    y = layers.RNN([layers.LSTMCell(5), layers.GRUCell(4)], return_sequences=True, name="rnn")(y)
    y = layers.TimeDistributed(layers.Dense(4))(inner(layers.Dropout(0.5)(y)))
    y = layers.Concatenate()([y, layers.ReLU()(y)])
    last = layers.LSTM(3, name="last")(layers.BatchNormalization()(y))
    return Model(x, [layers.Dense(2, "softmax", name="out")(last), last])


def masked() -> Model:
    """Masks from ids; a custom cell, whose held output is carried."""
    from nn.layers.kinds import MinimalGatedUnit

    return Sequential(
        [
            layers.Embedding(5, 3, mask_zero=True),
            layers.RNN(MinimalGatedUnit(3), return_sequences=True, name="custom"),
            layers.GRU(4, name="gru"),
        ]
    )


def of_layers() -> Model:
    """Cells that are layers, in NumPy: wide enough for products to depend on the batch, were they
    of one; one mixes the rows of its batch."""
    cells = [MinimalRNNCell(70), layers.GRUCell(40), MixesRows(50)]
    return Sequential(
        [Input((None, 3)), layers.Masking(), layers.RNN(cells), layers.Dense(2, name="out")]
    )


IDS = RNG.integers(0, 5, (4, 9)) * (RNG.random((4, 9)) < 0.6)
GAPPED = X * (RNG.random((4, 9, 1)) < 0.7).astype(np.float32)
MODELS: dict[str, tuple[Any, np.ndarray]] = {
    "deep": (deep, X),
    "masked": (masked, IDS),
    "layers": (of_layers, GAPPED),
}


def prefixes(model: Model, x: np.ndarray) -> list[np.ndarray]:
    """What the model says to x[:, :1], x[:, :2], …: what each row of a stream should get."""
    said = [model(np.ascontiguousarray(x[:, : t + 1])) for t in range(x.shape[1])]
    said = [s if isinstance(s, list) else [s] for s in said]
    return [np.stack([step[i] for step in said], axis=1) for i in range(len(said[0]))]


@pytest.mark.parametrize("name", MODELS)
def test_each_row_gets_what_the_model_would_say_if_the_stream_ended_there(name: str) -> None:
    """Bit for bit, also where the last layer has return_sequences=False."""
    make, x = MODELS[name]
    model = randomized(make())
    stream = StepRunner(model)
    states = stream.initial_state(4)
    outputs = stream.run([x], np.full(4, 9), states)
    assert_same(outputs, prefixes(model, x))


@pytest.mark.parametrize("name", MODELS)
@given(cuts=st.lists(st.integers(0, 9), max_size=4))
@settings(max_examples=10, deadline=None)
def test_cut_anywhere_same_bits(name: str, cuts: list[int]) -> None:
    """Rows of several lengths, cut at the same places; states and outputs equal one run."""
    make, x = MODELS[name]
    model = randomized(make())
    stream = StepRunner(model)
    states, whole = stream.initial_state(4), stream.initial_state(4)
    expected = stream.run([x], LENGTHS, whole)
    edges = [0, *sorted(cuts), 9]
    parts = []
    for a, b in pairwise(edges):
        lengths = np.clip(LENGTHS - a, 0, b - a)
        parts.append(stream.run([np.ascontiguousarray(x[:, a:b])], lengths, states))
    valid = np.arange(9) < LENGTHS[:, None]
    for i, output in enumerate(expected):
        assert_same(np.concatenate([part[i] for part in parts], axis=1)[valid], output[valid])
    assert_same(list(states.values()), list(whole.values()))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("name", MODELS)
def test_a_row_without_steps_keeps_its_bytes(name: str, wrong: float) -> None:
    """Whatever garbage stands past a row's length (NaN, infinities, ids that do not exist);
    and without a warning (they are errors in the tests)."""
    make, x = MODELS[name]
    stream = StepRunner(randomized(make()))
    states = {k: RNG.normal(size=v.shape).astype("f4") for k, v in stream.initial_state(4).items()}
    before = {key: value.copy() for key, value in states.items()}
    garbage = x.copy()
    garbage[1] = wrong if x.dtype == np.float32 else -7
    stream.run([garbage], LENGTHS, states)
    for key, state in states.items():
        assert_same(state[1], before[key][1])
        assert np.isfinite(state).all()


def test_names_and_sizes_of_states() -> None:
    """In order, as the state table has them; a slash in a name is %2F."""
    stream = StepRunner(deep())
    assert stream.state_spec == {
        "conv/x": 12,
        "rnn/0/h": 5,
        "rnn/0/c": 5,
        "rnn/1/h": 4,
        "inner%2Fone/gru/h": 4,
        "last/h": 3,
        "last/c": 3,
    }
    assert stream.outputs == [("out", 2), ("last", 3)]
    assert StepRunner(masked()).state_spec == {"custom/s0": 3, "custom/y": 3, "gru/h": 4}
    unmasked = Sequential([Input((None, 3)), *masked().layers[1:]])
    assert StepRunner(unmasked).state_spec == {"custom/s0": 3, "gru/h": 4}


def test_initial_states_come_from_the_cell() -> None:
    """A cell's get_initial_state, for any number of streams."""

    class Begins(layers.GRUCell):
        def get_initial_state(self, batch_size: int | None = None) -> Any:
            return np.full((batch_size, self.units), 5, np.float32)

    model = Sequential([Input((None, 3)), layers.RNN(Begins(2), name="rnn")])
    states = StepRunner(model).initial_state(3)
    assert_same(states["rnn/h"], np.full((3, 2), 5, np.float32))
    assert StepRunner(model).initial_state(0)["rnn/h"].shape == (0, 2)


def test_a_layer_called_twice_has_two_states() -> None:
    """One for each call."""
    x = Input((None, 3))
    gru = layers.GRU(3, return_sequences=True, name="gru")
    model = randomized(Model(x, gru(gru(x))))
    stream = StepRunner(model)
    assert stream.state_spec == {"gru/h": 3, "gru@1/h": 3}
    assert_same(stream.run([X], None, stream.initial_state(4)), [model(X)])


def refused() -> dict[str, tuple[Any, str]]:
    def of(*stack: Any) -> Model:
        return Sequential([Input((9, 3)), *stack])

    x = Input((9, 3), name="x")
    _, h = layers.GRU(3, return_state=True, name="encoder")(x)
    state_used = Model(x, layers.Dense(1)(h))
    start = Input((3,), name="start")
    state_given = Model([x, start], layers.GRU(3, name="begun")(x, initial_state=[start]))
    joins = Model(
        [x, start],
        layers.Add(name="joins")([layers.Dense(3)(x), layers.Reshape((1, 3), name="r")(start)]),
    )
    nested = Sequential([Input((9, 3)), layers.Flatten(name="flat")], name="nested")
    return {
        "bidirectional": (of(layers.Bidirectional(layers.GRU(2), name="both")), "'both'.*end"),
        "backwards": (of(layers.LSTM(2, go_backwards=True, name="back")), "'back'.*backwards"),
        "flatten": (of(layers.Flatten(name="flat")), "'flat'.*whole time axis"),
        "repeat": (of(layers.GRU(2), layers.RepeatVector(3, name="again")), "'again'.*sequence"),
        "reshape": (of(layers.Reshape((3, 9), name="turn")), "'turn'.*whole time axis"),
        "time": (
            Model(x, layers.Concatenate(axis=1, name="long")([x, x])),
            "'long'.*along the time axis",
        ),
        "padding": (
            of(layers.SeparableConv1D(2, 2, name="ahead")),
            "'ahead'.*; train a Dense after a DepthwiseConv1D with padding=\"causal\"",
        ),
        "state used": (state_used, "'encoder'.*state at the end"),
        "state given": (state_given, "'begun'.*initial state is passed"),
        "joins": (joins, "'r'|'joins'"),
        "nested": (of(nested), "'nested/flat'.*whole time axis"),
    }


@pytest.mark.parametrize("why", list(refused()))
def test_what_needs_more_than_the_past_is_refused(why: str) -> None:
    """With the layer's name, the reason, and the kinds of window that can have it."""
    model, message = refused()[why]
    with pytest.raises(ModelMismatchError, match=message):
        StepRunner(model)
    SequenceRunner(model)
    operators = pytest.importorskip("streamrnn.stream.operators", reason="needs streams")
    with pytest.raises(ModelMismatchError, match=message) as caught:
        operators.CarryOperator.runner(model)
    assert '"independent" or "whole"' in str(caught.value)


def test_flatten_of_single_values_streams() -> None:
    """After a recurrent layer's last output there is no time axis to flatten."""
    model = randomized(
        Sequential([Input((None, 3)), layers.GRU(2), layers.Flatten(), layers.Dense(1)])
    )
    assert_same(
        StepRunner(model).run([X], None, StepRunner(model).initial_state(4)), prefixes(model, X)
    )


def test_a_model_of_single_values_streams() -> None:
    """Input((3,)): each row by itself."""
    model = randomized(Sequential([Input((3,)), layers.Dense(4, "tanh"), layers.Softmax()]))
    (y,) = StepRunner(model).run([X], None, {})
    assert_same(y[:, 5], model(X[:, 5]))


class Total(layers.Layer):
    """A layer written for Keras, which reads all steps."""

    def call(self, x: np.ndarray) -> np.ndarray:
        return x.sum(axis=1)


class Twice(layers.Layer):
    """One that makes a sequence longer."""

    def call(self, x: np.ndarray) -> np.ndarray:
        return np.concatenate([x, x], axis=1)


def whole_models() -> dict[str, Any]:
    encoder = layers.LSTM(3, return_state=True)
    x = Input((None, 3))
    _, h, c = encoder(x)
    states = Model(x, layers.LSTM(3, return_sequences=True)(x, initial_state=[h, c]))
    return {
        "bidirectional": Sequential(
            [
                Input((None, 3)),
                layers.Masking(),
                layers.Bidirectional(layers.GRU(3, return_sequences=True)),
                layers.Bidirectional(layers.LSTM(2), merge_mode="sum"),
            ]
        ),
        "backwards": Sequential(
            [Input((None, 3)), layers.GRU(3, go_backwards=True, return_sequences=True)]
        ),
        "states": states,
        "conv": Sequential(
            [Input((None, 3)), layers.Conv1D(2, 2, padding="causal"), layers.GRU(2)]
        ),
        "repeat": Sequential(
            [Input((None, 3)), layers.LSTM(3), layers.RepeatVector(4), layers.GRU(2)]
        ),
        "time": Model(x, layers.LSTM(2)(layers.Concatenate(axis=1)([x, x]))),
        "total": Sequential([Input((None, 3)), Total()]),
        "twice": Sequential([Input((None, 3)), Twice(), layers.GRU(2)]),
        "zeros": Sequential(
            [Input((None, 3)), layers.Masking(), layers.GRU(2, zero_output_for_mask=True)]
        ),
        "zeros, backwards": Sequential(
            [
                Input((None, 3)),
                layers.Masking(),
                layers.LSTM(2, zero_output_for_mask=True, go_backwards=True),
            ]
        ),
    }


@pytest.mark.parametrize("name", whole_models())
def test_whole_gives_each_row_its_own_length(name: str) -> None:
    """Rows of several lengths in one batch equal each row alone, with poison past their ends."""
    model = randomized(whole_models()[name])
    whole = SequenceRunner(model)
    x = X.copy()
    x[np.arange(9) >= LENGTHS[:, None]] = np.nan
    x[0, 3:5] = x[0, 0] = 0  # gaps, for the models that mask
    x[2, 3] = 0  # at the end of its row
    (y,) = whole.run([x], LENGTHS)
    for b, length in enumerate(LENGTHS):
        alone = model(np.ascontiguousarray(x[b : b + 1, :length]))
        assert_same(y[b : b + 1, :length] if whole.sequences[0] else y[b : b + 1], alone)


def test_whole_with_a_fixed_number_of_steps() -> None:
    """Flatten over known steps: all rows have that length."""
    model = randomized(Sequential([Input((9, 3)), layers.Flatten(), layers.Dense(2)]))
    assert_same(SequenceRunner(model).run([X], np.full(4, 9)), [model(X)])
    assert_same(SequenceRunner(model).run([X]), [model(X)])
    assert SequenceRunner(model).run([X[:0]], np.zeros(0, np.int64))[0].shape == (0, 2)


def test_whole_starts_fresh_and_carries_nothing() -> None:
    """stateful=True in a file changes nothing here, and the layer's own state is left alone."""
    model = randomized(Sequential([Input((None, 3)), layers.GRU(3, stateful=True)]))
    first = SequenceRunner(model).run([X])
    assert_same(SequenceRunner(model).run([X]), first)
    StepRunner(model).run([X], None, StepRunner(model).initial_state(4))
    assert layer_at(model).states is None


@pytest.mark.parametrize("kind", KINDS)
def test_threads_may_share_a_model(kind: str) -> None:
    """Eight threads at once, from unpacked weights on: all get the bits of one alone."""
    layer = built(kind, 5, 3, return_sequences=True)
    layer.set_weights(layer.get_weights())
    stream = StepRunner(Sequential([Input((None, 3)), layer, layers.Dense(2)]))
    results: list[Any] = [None] * 8
    barrier = threading.Barrier(8)

    def work(i: int) -> None:
        states = stream.initial_state(4)
        barrier.wait()
        results[i] = stream.run([X], None, states) + list(states.values())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results[1:]:
        assert_same(result, results[0])
