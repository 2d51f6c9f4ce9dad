"""stateful=True: what is carried, what a reset goes back to, and what is refused."""

from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import KINDS, assert_same, built, flat, layer_at

from streamrnn import Model, Sequential, layers
from streamrnn.errors import ShapeError, StateError

EACH_KIND = pytest.mark.parametrize("kind", KINDS)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 4)).astype(np.float32)


def random_states(layer: layers.RNN, rows: int = 3) -> list[Any]:
    return layer.runner.nest(
        [
            RNG.normal(size=(rows, *shape)).astype(np.float32)
            for shape in layer.runner.state_shapes().values()
        ]
    )


@EACH_KIND
def test_states_are_copies_nested_as_initial_state_takes_them(kind: str) -> None:
    """Writing into what `states` gives changes nothing; giving it back goes on from there."""
    layer = built(kind, 5, 4, stateful=True)
    assert layer.states is None
    layer(X)
    other = built(kind, 5, 4)
    following = other(X, initial_state=layer.states)
    for state in flat(layer.states):
        state += 1
    assert_same(layer(X), following)


@EACH_KIND
def test_reset_equals_a_fresh_layer(kind: str) -> None:
    """Also for stacked cells, which crash in Keras; the batch size is free again."""
    layer, fresh = built(kind, 5, 4, stateful=True), built(kind, 5, 4, stateful=True)
    layer(X)
    layer.reset_state()
    assert layer.get_state() is None
    initial = layer.runner.get_initial_state(len(X))
    for state, start in zip(flat(layer.states), flat(initial), strict=True):
        assert_same(state, start)  # as in Keras: users index it
    assert_same(layer(X[:2]), fresh(X[:2]))
    layer.reset_states()
    assert_same(layer(X), built(kind, 5, 4)(X))


@EACH_KIND
def test_a_reset_row_equals_a_fresh_one(kind: str) -> None:
    """One row set back to zeros begins anew; the others go on."""
    layer = built(kind, 5, 4, stateful=True)
    layer(X)
    state = layer.get_state()
    for array in flat(state):
        array[1] = 0
    going_on = layer(X)
    layer.set_state(state)
    y = layer(X)
    assert_same(y[1], built(kind, 5, 4)(X)[1])
    assert_same(y[[0, 2]], going_on[[0, 2]])


@EACH_KIND
def test_reset_goes_back_to_the_state_it_began_with(kind: str) -> None:
    """The guide's promise: the initial_state of the first call, not zeros."""
    layer = built(kind, 5, 4, stateful=True)
    begun = random_states(layer)
    first = layer(X, initial_state=begun)
    layer(X)
    layer(X, initial_state=random_states(layer))  # later ones are not the origin
    layer.reset_state()
    assert_same(layer.states, begun)
    assert_same(layer(X), first)


@EACH_KIND
def test_reset_to_given_states(kind: str) -> None:
    """reset_state(states=…) begins there, and a later reset comes back to it."""
    layer = built(kind, 5, 4, stateful=True)
    layer(X)
    states = random_states(layer)
    layer.reset_state(states=states)
    first = layer(X)
    layer.reset_state()
    assert_same(layer(X), first)
    assert_same(first, built(kind, 5, 4)(X, initial_state=states))


@EACH_KIND
def test_get_and_set_state_carry_on_in_another_layer(kind: str) -> None:
    """A hand-over in the middle of a gap changes no bit, held outputs of custom cells included."""
    options = {"stateful": True, "return_sequences": True}
    one, other = built(kind, 5, 4, **options), built(kind, 5, 4, **options)
    one(X)
    other.set_state(one.get_state())
    gap = np.zeros((3, 5), np.bool_)
    gap[:, 3:] = True
    assert_same(other(X, mask=gap), one(X, mask=gap))
    other.set_state(None)
    assert other.states is None


@EACH_KIND
def test_explicit_initial_state_counts_for_its_call_and_is_carried_on(kind: str) -> None:
    """Unlike in tf-keras, at any call."""
    layer, plain = built(kind, 5, 4, stateful=True), built(kind, 5, 4, return_state=True)
    layer(X)
    states = random_states(layer)
    y, *after = plain(X, initial_state=states)
    assert_same(layer(X, initial_state=states), y)
    assert_same(layer.states, after)


def test_a_stateless_layer_forgets() -> None:
    """Two calls give the same, and there is no state to reset."""
    layer = built("lstm", 5, 4)
    assert_same(layer(X), layer(X))
    assert layer.states is None
    with pytest.raises(StateError, match="stateful=True"):
        layer.reset_state()


def test_a_changed_number_of_rows_is_refused() -> None:
    """Never broadcast: not one row to many, nor many to one."""
    layer = built("gru", 5, 4, stateful=True)
    layer(X)
    for rows in (1, 2):
        with pytest.raises(ShapeError, match=r"'gru.*' \(GRU\).*state of 3 rows .*, received"):
            layer(X[:rows])
    with pytest.raises(ShapeError, match="state of 3 rows"):
        layer(X[:1], initial_state=[np.zeros((1, 5), np.float32)])
    assert layer(X).shape == (3, 5)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([np.zeros((3, 5))], r"number of states must be 2 \(h, c\), received 1"),
        ([np.zeros((3, 5))] * 3, "number of states must be 2 .* received 3"),
        ([np.zeros((3, 5)), np.zeros((3, 4))], r"state 'c' must have shape \(3, 5\).*\(3, 4\)"),
        ([np.zeros((1, 5))] * 2, r"state 'h' must have shape \(3, 5\), received \(1, 5\).*each"),
        ([np.zeros((3, 5)), "no"], "state 'c'"),
    ],
)
def test_wrong_initial_states_are_refused(states: list[Any], message: str) -> None:
    """Number, shape, a row for many: expected and received, with the layer's name."""
    layer = built("lstm", 5, 4, stateful=True, name="memory")
    for use in (
        lambda: layer(X, initial_state=states),
        lambda: built("lstm", 5, 4, name="memory")(X, initial_state=states),
    ):
        with pytest.raises((ShapeError, TypeError), match=message) as caught:
            use()
        assert "memory" in str(caught.value)
    assert layer.states is None


def test_own_initial_state_of_a_cell() -> None:
    """get_initial_state is where rows begin, and where a reset goes (Keras writes zeros)."""

    class Begins(layers.GRUCell):
        def get_initial_state(self, batch_size: int | None = None) -> Any:
            return np.full((batch_size, self.units), 5, np.float32)

    layer = layers.RNN(Begins(2), stateful=True)
    plain = layers.RNN(layers.GRUCell(2))
    plain.build((None, None, 4))
    layer.build((None, None, 4))
    plain.set_weights(layer.get_weights())
    expected = plain(X, initial_state=np.full((3, 2), 5))
    assert_same(layer(X), expected)
    layer.reset_state()
    assert_same(layer(X), expected)


def model_of(stateful: bool) -> Model:
    inner = Sequential([layers.Input((None, 4)), layers.GRU(3, stateful=stateful, name="deep")])
    x = layers.Input((None, 4), name="x")
    y = layers.LSTM(4, stateful=stateful, return_sequences=True, name="lstm")(x)
    y = layers.Bidirectional(
        layers.SimpleRNN(2, stateful=stateful, return_sequences=True, name="rnn"), name="both"
    )(layers.Concatenate()([y, x]))
    z = inner(layers.Dense(4)(y))
    return Model(x, z)


def test_state_of_a_model() -> None:
    """get_state, set_state and reset_state reach nested models and Bidirectional."""
    model = model_of(stateful=True)
    first = model(X)
    state = model.get_state()
    assert list(state) == ["lstm", "both", model.layers[-1].name]
    second = model(X)
    assert (first != second).any()
    model.set_state(state)
    assert_same(model(X), second)
    model.reset_states()
    assert_same(model(X), first)
    with pytest.raises(StateError, match="expected the states of"):
        model.set_state({"lstm": state["lstm"]})


def test_reset_of_a_stateless_model_does_nothing() -> None:
    """There is nothing to reset, and nothing to get."""
    model = model_of(stateful=False)
    model.reset_state()
    assert model.get_state() == {}


def test_stateful_predict_goes_on() -> None:
    """predict takes all rows at once, and carries as a call does."""
    model = Sequential([layers.Input((None, 4)), layers.LSTM(3, stateful=True)])
    whole = model.predict(np.concatenate([X, X], axis=1))
    model.reset_state()
    model.predict(X)
    assert_same(model.predict(X), whole)


def test_states_given_to_a_call_begin_without_an_output() -> None:
    """A masked first step must not show the output of the call before."""
    layer = built("custom", 5, 4, stateful=True, return_sequences=True)
    layer(X)
    mask = np.ones((3, 5), bool)
    mask[:, 0] = False
    y = layer(X, initial_state=random_states(layer), mask=mask)
    assert not y[:, 0].any()


def test_a_call_that_fails_leaves_the_state_as_it_was() -> None:
    """Also where a layer before the failing one has carried on."""

    class Fails(layers.Layer):
        fail = False

        def apply(self, inputs: Any, context: Any) -> Any:
            if self.fail:
                raise ArithmeticError
            return inputs

    fails = Fails()
    lstm = layers.LSTM(3, stateful=True, return_sequences=True)
    inner = Sequential([layers.Input((None, 4)), lstm, fails])
    model = Sequential([layers.Input((None, 4)), inner, layers.GRU(2, stateful=True)])
    for begun in (False, True):
        if begun:
            model(X)
        before, fails.fail = model.get_state(), True
        for call in (model, model.predict, lambda x: model.predict(x, verbose=0)):
            with pytest.raises(ArithmeticError):
                call(X)
        fails.fail = False
        assert_same(flat_states(model.get_state()), flat_states(before))


def flat_states(state: Any) -> list[np.ndarray]:
    """The arrays of a model's state; zeros where nothing is carried."""
    if isinstance(state, dict):
        return [array for part in state.values() for array in flat_states(part)]
    return [np.zeros(1, np.float32)] if state is None else flat(state)


def test_predict_checks_the_batches_of_a_stateful_model_first() -> None:
    """A last batch of fewer rows would fail after the others have gone on."""
    model = Sequential([layers.Input((None, 4)), layers.LSTM(3, stateful=True)])
    with pytest.raises(ShapeError, match=r"3 rows .* batch_size=2"):
        model.predict(X, batch_size=2)
    assert layer_at(model).get_state() is None
    model.predict(np.concatenate([X, X]), batch_size=3)
    twice = model.get_state()
    model.reset_state()
    model(X)
    model(X)
    assert_same(flat_states(model.get_state()), flat_states(twice))


@pytest.mark.parametrize("wrap", [lambda layer: layer, layers.Bidirectional])
def test_symbols_that_cannot_be_states_are_refused(wrap: Any) -> None:
    """When the graph is built, not when it runs."""
    layer, x = wrap(layers.LSTM(3, name="it")), layers.Input((None, 4))
    right, wrong = layers.Input((3,)), layers.Input((2,))
    copies = 1 if layer.name == "it" else 2
    with pytest.raises(ShapeError, match=r"(number of|expected 4) states"):
        layer(x, initial_state=[right])
    with pytest.raises(ShapeError, match=r"state 'c' must have shape \(batch, 3\).*\(None, 2\)"):
        layer(x, initial_state=[right, wrong] * copies)
    assert layer(x, initial_state=[right, right] * copies).shape == (None, 3 * copies)
