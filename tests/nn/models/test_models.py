"""Sequential and Model: building, graphs, configs, predict, summary."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same, flat

from streamrnn import Input, Model, Sequential, clear_session, layers, load_model
from streamrnn.errors import ConfigError, ModelFileError, ShapeError, UnsupportedError
from streamrnn.nn.models.runners import example_inputs, id_limits

RNG = np.random.default_rng(6)
X = RNG.normal(size=(5, 6, 4)).astype(np.float32)
IDS = RNG.integers(0, 7, (5, 3))


def shared() -> Model:
    """One LSTM on two inputs, several outputs, a nested model, states passed on."""
    a, b = Input((None, 4), name="a"), Input((None, 4), name="b")
    lstm = layers.LSTM(3, return_state=True, name="shared")
    y, h, c = lstm(a)
    z, _, _ = lstm(b, initial_state=[h, c])
    inner = Sequential([Input((3,)), layers.Dense(2, "relu")], name="inner")
    joined = layers.Concatenate(name="joined")([y, z, inner(z)])
    return Model([a, b], [joined, layers.Dense(1, name="out")(joined)], name="all")


def seq2seq() -> Model:
    """Encoder and decoder, from a list of symbols and to a single output."""
    source, target = Input((None,), name="source"), Input((None, 4), name="target")
    embedded = layers.Embedding(7, 3, mask_zero=True)(source)
    _, h, c = layers.LSTM(5, return_state=True)(embedded)
    y = layers.LSTM(5, return_sequences=True)(target, initial_state=[h, c])
    return Model([source, target], layers.Bidirectional(layers.GRU(2))(y))


def test_shared_layers_and_several_outputs() -> None:
    """The graph computes what the layers do when called one by one."""
    model, x, other = shared(), X, X[:, ::-1].copy()
    lstm, inner, dense = (model.get_layer(name) for name in ("shared", "inner", "out"))
    y, h, c = lstm(x)
    z, _, _ = lstm(other, initial_state=[h, c])
    joined = np.concatenate([y, z, inner(z)], axis=-1)
    result = model([x, other])
    assert isinstance(result, list)
    assert_same(result, [joined, dense(joined)])
    assert_same(model({"b": other, "a": x}), result)
    assert model.count_params() == sum(layer.count_params() for layer in (lstm, inner, dense))


@pytest.mark.parametrize("make", [shared, seq2seq])
def test_a_config_makes_the_same_model(make: Any) -> None:
    """Through JSON, with the same outputs, weights and fingerprint."""
    import json

    model = make()
    again = Model.from_config(json.loads(json.dumps(model.get_config())))
    again.set_weights(model.get_weights())
    assert again.fingerprint() == model.fingerprint()
    inputs = [X, X] if make is shared else [IDS, X]
    assert_same(again(inputs), model(inputs))
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]


def test_constant_initial_states_are_part_of_the_config() -> None:
    """Arrays given to a call on symbols are kept with the node."""
    state = RNG.normal(size=(5, 3)).astype(np.float32)
    x = Input((None, 4))
    model = Model(x, layers.GRU(3)(x, initial_state=[state]))
    again = Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    assert_same(again(X), model(X))
    assert_same(model(X), model.layers[1](X, initial_state=[state]))


def test_a_model_is_a_layer_on_symbols_and_on_arrays() -> None:
    """Called on another graph's symbols it infers its shape from them."""
    inner = Sequential([Input((None, 4)), layers.LSTM(3, return_sequences=True)])
    x = Input((7, 4))
    y = inner(x)
    assert y.shape == (None, 7, 3)
    outer = Model(x, layers.Flatten()(y))
    assert outer.output_shape == (None, 21)
    x7 = RNG.normal(size=(2, 7, 4)).astype(np.float32)
    assert_same(outer(x7), inner(x7).reshape(2, 21))
    assert outer.count_params() == inner.count_params()


def test_states_as_inputs_and_outputs_of_a_model() -> None:
    """The decoder of a loop that the caller writes: state in, state out, step by step."""
    x, h, c = Input((None, 4)), Input((3,), name="h"), Input((3,), name="c")
    lstm = layers.LSTM(3, return_sequences=True, return_state=True)
    model = Model([x, h, c], list(lstm(x, initial_state=[h, c])))
    y, *after = lstm(X)
    states, outputs = [np.zeros((5, 3)), np.zeros((5, 3))], []
    for t in range(X.shape[1]):
        output, *states = model([X[:, t : t + 1], *states])
        outputs.append(output)
    assert_same(np.concatenate(outputs, axis=1), y)
    assert_same(states, after)


def test_masks_pass_through_nested_models() -> None:
    """In and out, as through a layer."""
    inner = Sequential([Input((None, 3)), layers.LSTM(3, return_sequences=True)])
    embedding, gru = layers.Embedding(7, 3, mask_zero=True), layers.GRU(2)
    nested = Sequential([embedding, inner, gru])
    plain = Sequential([embedding, inner.layers[0], gru])
    assert_same(nested(IDS), plain(IDS))


def test_sequential_is_built_when_it_can_be() -> None:
    """By Input, input_shape, an Embedding or a model at once; else on the first call."""
    for first in (
        Input((None, 4)),
        layers.LSTM(3, input_shape=(None, 4)),
        layers.LSTM(3, batch_input_shape=(None, None, 4)),
        layers.Embedding(7, 4),
        Sequential([Input((4,)), layers.Dense(2)]),
    ):
        assert Sequential([first]).built
    waits = Sequential([layers.LSTM(3), layers.Dense(2)])
    assert not waits.built
    assert waits(X).shape == (5, 2)
    assert waits.input_specs == [(f"{waits.layers[0].name}_input", (None, 4), "float32")]
    by_hand = Sequential([layers.LSTM(3), layers.Dense(2)])
    by_hand.build((None, None, 4))
    by_hand.set_weights(waits.get_weights())
    assert_same(by_hand.predict(X), waits(X))
    assert Sequential([layers.Dense(2)]).predict(X).shape == (5, 6, 2)


def test_adding_and_taking_off() -> None:
    """add and pop keep the graph in step."""
    model = Sequential([Input((None, 4)), layers.LSTM(3)])
    model.add(layers.Dense(2))
    assert model(X).shape == (5, 2)
    model.pop()
    assert model(X).shape == (5, 3)
    assert len(model.layers) == 1
    with pytest.raises(ConfigError, match="no layers"):
        Sequential().pop()


def test_predict_does_not_depend_on_the_batch_size() -> None:
    """Any batch_size gives the bits of the call; masks and lengths are cut along."""
    model = seq2seq()
    whole = model([IDS, X])
    for size in (1, 2, 5, 100, None):
        assert_same(model.predict([IDS, X], batch_size=size), whole)
    lstm = Sequential([Input((None, 4)), layers.LSTM(3)])
    lengths = np.array([6, 0, 3, 1, 2])
    assert_same(lstm.predict(X, 2, lengths=lengths), lstm(X, lengths=lengths))
    assert lstm.predict(X[:0]).shape == (0, 3)
    with pytest.raises(ConfigError, match="batch_size must be 1 or more, received 0"):
        lstm.predict(X, 0)


def test_layers_and_symbols_of_a_model() -> None:
    """get_layer by name and index; inputs and outputs with shapes."""
    model = shared()
    assert model.get_layer("out") is model.get_layer(index=-1)
    assert model.input_shape == [(None, None, 4)] * 2
    assert model.output_shape == [(None, 8), (None, 1)]
    assert [s.layer.name for s in model.inputs] == ["a", "b"]
    assert [s.layer.name for s in model.outputs] == ["joined", "out"]
    with pytest.raises(ConfigError, match="received index 9"):
        model.get_layer(index=9)


def test_input_specs() -> None:
    """What a pipeline has to give: names, shapes, and integers for an Embedding, nested or not."""
    assert seq2seq().input_specs == [("source", (None,), "int64"), ("target", (None, 4), "float32")]
    inner = Sequential([layers.Embedding(7, 2)])
    x = Input((None,), name="ids")
    assert Model(x, inner(x)).input_specs == [("ids", (None,), "int64")]
    whole = Input((3,), dtype="int32", name="n")
    assert Model(whole, layers.Dense(1)(whole)).input_specs == [("n", (3,), "int64")]


def test_one_input_for_an_embedding_and_for_a_dense_layer() -> None:
    """Integers for the one, the same numbers as floats for the other."""
    x = Input((3,), name="ids")
    both = layers.Concatenate()([layers.Flatten()(layers.Embedding(7, 2)(x)), layers.Dense(2)(x)])
    model = Model(x, both)
    embedding, dense = (
        next(a for a in model.layers if isinstance(a, kind))
        for kind in (layers.Embedding, layers.Dense)
    )
    expected = [embedding(IDS).reshape(5, 6), dense(IDS)]
    assert_same(model(IDS), np.concatenate(expected, axis=-1))


def test_a_symbol_that_a_model_inside_reads_twice() -> None:
    """Each of the two inputs inside says what it takes."""
    a, b, x, words = Input((3,)), Input((3,)), Input((3,)), Input((3,), dtype="string")
    inner = Model([a, b], [a, layers.StringLookup(vocabulary=["blue"])(b)])
    (example,) = example_inputs(Model(words, inner([words, words])), 1, 2)
    assert example.tolist() == [["blue", "blue"]]
    inner = Model([a, b], [layers.Embedding(9, 2)(a), layers.Embedding(5, 2)(b)])
    assert [limit.size for limit in id_limits(Model(x, inner([x, x]))).values()] == [5]
    inner = Model([a, b], [layers.Dense(2)(a), layers.Embedding(5, 2)(b)])
    assert Model(x, inner([x, x])).input_specs[0][2] == "int64"


def test_fingerprint_sees_weights_and_options() -> None:
    """Equal for a copy; another for one changed value, option or name."""

    def make(**options: Any) -> Sequential:
        return Sequential(
            [Input((None, 4), name="x"), layers.LSTM(3, **{"name": "l", **options})], name="m"
        )

    model = make()
    prints = {model.fingerprint()}
    for other in (make(), make(activation="relu"), make(name="k")):
        other.set_weights(model.get_weights())
        prints.add(other.fingerprint())
    changed = make()
    weights = model.get_weights()
    weights[0][0, 0] += 1
    changed.set_weights(weights)
    prints.add(changed.fingerprint())
    assert len(prints) == 4


def test_layer_shapes() -> None:
    """JSON-able: class and weights of each layer."""
    assert shared().layer_shapes()["shared"] == {
        "class": "LSTM",
        "weights": {"cell/kernel": [4, 12], "cell/recurrent_kernel": [3, 12], "cell/bias": [12]},
    }


def test_summary_of_a_given_width() -> None:
    """Nothing is longer than the line; a shared layer lists the calls that feed it."""
    model = shared()
    lines: list[str] = []
    model.summary(line_length=80, print_fn=lines.append)
    assert max(map(len, lines)) == 80
    text = "\n".join(lines)
    for part in ("shared[0][1]", "shared[1][0]", "inner (Sequential)"):
        assert part in text
    assert f"Total params: {model.count_params()}" in text


def test_summary_counts_what_does_not_train() -> None:
    """Non-trainable parameters on their own line; thousands are separated."""
    model = Sequential([Input((None, 400)), layers.BatchNormalization(), layers.Dense(3)])
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    assert lines[-4:-1] == [
        "Total params: 2,803",
        "Trainable params: 2,003",
        "Non-trainable params: 800",
    ]


def test_summary_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """To stdout, if no print_fn is given."""
    clear_session()
    Sequential([Input((4,)), layers.Dense(2)]).summary()
    assert capsys.readouterr().out.startswith('Model: "sequential"\n____')


def test_damaged_configs() -> None:
    """A node that needs what no layer makes; an output of a layer that is not there."""
    config: Any = seq2seq().get_config()
    config["output_layers"] = ["nowhere", 0, 0]
    with pytest.raises(ModelFileError, match="which does not exist"):
        Model.from_config(config)
    config = seq2seq().get_config()
    config["layers"] = [entry for entry in config["layers"] if entry["class_name"] != "Embedding"]
    with pytest.raises(ModelFileError, match=r"needs 'embedding.*that call is missing"):
        Model.from_config(config)
    config["layers"][0]["class_name"] = "Lambda"
    with pytest.raises(UnsupportedError, match="Lambda"):
        Model.from_config(config)


def test_outputs_keep_their_structure() -> None:
    """A dictionary or nested list of outputs comes back as such."""
    x = Input((None, 4))
    y, h = layers.GRU(3, return_state=True)(x)
    result = Model(x, {"y": y, "states": [h]})(X)
    assert list(result) == ["y", "states"]
    assert_same(flat([result["y"], *result["states"]]), [result["y"], result["y"]])


def test_a_model_can_be_pickled_and_copied() -> None:
    """The copy gives the same bits and shares nothing with the original."""
    inner = Sequential([layers.Input((None, 2)), layers.GRU(3, return_sequences=True)])
    x = Input((None, 2))
    model = Model(x, layers.Dense(1)(layers.LSTM(4)(inner(x))))
    values = np.random.default_rng(7).normal(size=(2, 5, 2)).astype(np.float32)
    expected = model(values)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert (other(values) == expected).all()
        other.set_weights([np.zeros_like(w) for w in other.get_weights()])
        assert (model(values) == expected).all()


def named() -> Model:
    """Dictionaries in and out, under keys that are not the inputs' names."""
    a, b = Input((None, 4), name="a"), Input((None, 4), name="b")
    y = layers.LSTM(3, name="first")(a)
    z = layers.LSTM(3, name="second")(b)
    return Model({"left": a, "right": b}, {"y": y, "both": layers.Subtract()([y, z])})


def test_dictionaries_come_back_from_a_config_and_a_file(tmp_path: Any) -> None:
    """By the keys, by the inputs' names or as a list in their order."""
    model, other = named(), X[:, ::-1].copy()
    y = model({"right": other, "left": X})
    assert list(y) == ["y", "both"]
    model.save(tmp_path / "model.safetensors")
    again = Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    for made in (model, again, load_model(tmp_path / "model.safetensors")):
        for inputs in ({"left": X, "right": other}, {"b": other, "a": X}, [X, other]):
            result = made(inputs)
            assert list(result) == ["y", "both"]
            assert_same(list(result.values()), list(y.values()))
    with pytest.raises(ShapeError, match="expected inputs"):
        model({"left": X, "b": other})


def test_a_model_of_dictionaries_is_a_layer() -> None:
    """Called on symbols, in a dictionary or a list; its config comes back."""
    model, other = named(), X[:, ::-1].copy()
    p, q = Input((None, 4), name="p"), Input((None, 4), name="q")
    y = model([X, other])
    for call in ({"right": q, "left": p}, {"b": q, "a": p}, [p, q]):
        inner = model(call)
        outer = Model([p, q], [inner["both"], inner["y"]])
        again = Model.from_config(outer.get_config())
        again.set_weights(outer.get_weights())
        for made in (outer, again):
            assert_same(made([X, other]), [y["both"], y["y"]])


def test_lengths_of_symbols_are_refused() -> None:
    """They were dropped without a word."""
    x = Input((None, 4))
    for layer in (layers.LSTM(3), Sequential([Input((None, 4)), layers.LSTM(3)])):
        with pytest.raises(UnsupportedError, match="pass it to the model's call"):
            layer(x, lengths=np.array([1]))


def test_training_given_in_the_graph_goes_before_the_call() -> None:
    """False as well as True; None leaves it to the call."""
    x = Input((4,))
    for given, call, drops in (
        (False, True, False),
        (True, False, True),
        (None, True, True),
        (None, False, False),
    ):
        model = Model(x, layers.Dropout(0.5, seed=1)(x, training=given))
        assert bool((model(X[:, 0], training=call) != X[:, 0]).any()) is drops


@pytest.mark.parametrize("width", [1, 5, 20])
def test_a_summary_too_narrow_is_refused(width: int) -> None:
    """It would never come to an end."""
    with pytest.raises(ConfigError, match=f"line_length={width}"):
        shared().summary(line_length=width, print_fn=lambda _: None)


def test_the_narrowest_summary_ends() -> None:
    """At the width that the message names."""
    for model in (shared(), Sequential([Input((4,)), layers.Dense(2)])):
        lines: list[str] = []
        model.summary(line_length=32, print_fn=lines.append)
        assert lines


def test_a_deferred_sequential_keeps_the_steps_a_layer_needs() -> None:
    """Flatten under Dense fixes them; without it any number goes."""
    model = Sequential([layers.LSTM(3, return_sequences=True), layers.Flatten(), layers.Dense(2)])
    assert model(X).shape == (5, 2)
    assert model.input_shape == (None, 6, 4)
    assert all(len(layer.nodes) == 1 for layer in model.layers)
    free = Sequential([layers.LSTM(3), layers.RepeatVector(2), layers.LSTM(2)])
    free(X)
    assert free.input_shape == (None, None, 4)


def test_input_and_output_of_models_and_layers() -> None:
    """Keras's names: the one symbol, or the structure."""
    x = Input((None, 4))
    lstm, dense = layers.LSTM(3, return_state=True), layers.Dense(2)
    y, h, c = lstm(x)
    out = dense(y)
    model = Model({"x": x}, [out, h])
    assert model.input == {"x": x}
    assert model.output == [out, h]
    assert lstm.input is x
    assert lstm.output == [y, h, c]
    assert (dense.input, dense.output) == (y, out)
    stack = Sequential([x, layers.LSTM(2)])
    assert stack.input is x
    assert stack.output is stack.layers[0].output
    with pytest.raises(ConfigError, match="has 0 calls"):
        _ = layers.Dense(2).input
    with pytest.raises(ConfigError, match="not built"):
        _ = Sequential([layers.LSTM(2)]).output


def test_predict_takes_the_arguments_of_keras() -> None:
    """verbose is ignored; what would change something is refused."""
    model = Sequential([layers.LSTM(2)])
    assert_same(model.predict(X, 2, 0), model.predict(X, verbose="auto", steps=None))
    for argument in ("steps", "callbacks"):
        with pytest.raises(UnsupportedError, match="takes no steps"):
            model.predict(X, **{argument: 1})


def test_one_of_several_outputs_of_a_call_may_be_an_input() -> None:
    """As in Keras: what comes before it is no part of the model; its other outputs then miss."""
    x = layers.Input((None, 3))
    y, h, _ = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(x)
    last = Model(y, layers.Dense(2)(y))
    assert last.predict(np.zeros((2, 5, 4), np.float32)).shape == (2, 5, 2)
    with pytest.raises(ConfigError, match="output 1 of layer 'lstm' is needed"):
        Model(y, layers.Dense(2)(h))


def test_a_mask_of_another_length_is_refused() -> None:
    """A kernel would read beside it."""
    x, mask = Input((None, 3)), Input((None,), dtype="bool")
    model = Model([x, mask], layers.GRU(4, name="gru")(x, mask=mask))
    model([np.zeros((2, 10, 3)), np.ones((2, 10), bool)])
    for steps in (2, 11):
        with pytest.raises(ShapeError, match=rf"gru.*\(2, 10\), received \(2, {steps}\)"):
            model([np.zeros((2, 10, 3)), np.ones((2, steps), bool)])


class Sliced(layers.Layer):
    """Some elements of its input, as a view of other elements too."""

    def call(self, inputs: Any) -> Any:
        return inputs[..., ::2]


class Turned(layers.Layer):
    """Time and features exchanged, in float64."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], input_shape[2], input_shape[1])

    def apply(self, inputs: Any, context: Any) -> Any:
        return inputs.astype(np.float64).transpose(0, 2, 1)


@pytest.mark.parametrize("custom", [Sliced, Turned, lambda: layers.TimeDistributed(Sliced())])
@pytest.mark.parametrize(
    "behind",
    [
        lambda: layers.Dense(3),
        lambda: layers.GRU(2),
        lambda: layers.Conv1D(2, 2),
        lambda: layers.LayerNormalization(),
    ],
)
def test_layers_behind_a_custom_layer_read_its_values(custom: Any, behind: Any) -> None:
    """Not its memory, which may be a view, or float64."""
    layer, second, x = custom(), behind(), Input((4, 4))
    rows = np.random.default_rng(8).normal(size=(3, 4, 4)).astype(np.float32)
    model = Model(x, second(layer(x)))
    expected = second(np.ascontiguousarray(layer(rows), np.float32))
    assert_same(model(rows), expected)
    model.compile("sgd", "mse")
    assert model.test_on_batch(rows, expected) == 0
    assert model.train_on_batch(rows, expected) == 0


def test_a_custom_layer_may_return_one_number() -> None:
    """Its shape in a graph is the one that the layer gives it."""

    class Total(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs.sum()

    x, rows = Input((3,)), np.ones((2, 3), np.float32)
    total = Model(x, Total()(x))
    assert total.output_shape == total(rows).shape == ()


def test_a_custom_layer_of_another_shape_than_it_says_is_refused() -> None:
    """A Dense behind it would read past the end of its rows."""

    class Some(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs[:, ::4]

        def compute_output_shape(self, input_shape: Any) -> Any:
            return (input_shape[0], 2, *input_shape[2:])

    x = Input((None, 3))
    model = Model(x, layers.Dense(2)(layers.Flatten()(Some()(x))))
    assert model(np.ones((2, 8, 3), np.float32)).shape == (2, 2)
    with pytest.raises(ShapeError, match=r"flatten.*expected 6 as the last size.*\(2, 15\)"):
        model(np.ones((2, 20, 3), np.float32))
