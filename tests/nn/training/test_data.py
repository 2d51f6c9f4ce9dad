"""fit and evaluate on batches, tables and steps: the same as arrays, or refused."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from nn.layers.kinds import assert_same, layer_at
from nn.training.trained import weighted

from streamrnn import Input, Model, Sequential, callbacks, layers, optimizers
from streamrnn.errors import ArgumentError, DataError, ShapeError

RNG = np.random.default_rng(8)
X = RNG.normal(size=(12, 3)).astype(np.float32)
Y = RNG.normal(size=(12, 1)).astype(np.float32)
W = RNG.random(12).astype(np.float32)
STEPS = RNG.normal(size=(12, 5, 3)).astype(np.float32)
LENGTHS = RNG.integers(1, 6, 12)


def dense(**options: Any) -> Sequential:
    model = weighted(Sequential([Input((3,)), layers.Dense(1)]))
    model.compile(optimizers.Adam(0.1), "mse", metrics=["mae"], **options)
    return model


def recurrent(**options: Any) -> Sequential:
    model = weighted(Sequential([Input((None, 3)), layers.GRU(4, **options), layers.Dense(1)]))
    model.compile(optimizers.Adam(0.1), "mse", metrics=["mae"])
    return model


def cuts() -> list[slice]:
    return [slice(0, 5), slice(5, 10), slice(10, 12)]


class Numbered:
    """Batches by number, as keras.utils.PyDataset."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.epochs = 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        self.read.append(number)
        return X[cuts()[number]], Y[cuts()[number]], W[cuts()[number]]

    def on_epoch_end(self) -> None:
        self.epochs += 1


class Loader:
    """Batches that can be run through again, as torch.utils.data.DataLoader."""

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        for cut in cuts():
            yield [X[cut], Y[cut], W[cut]]


def endless() -> Iterator[tuple[np.ndarray, ...]]:
    while True:
        yield from Loader()  # type: ignore[misc]


def result(model: Any, history: Any) -> list[Any]:
    return [*model.get_weights(), np.array([history.history[n] for n in ("loss", "mae")])]


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (lambda: [(X[c], Y[c], W[c]) for c in cuts()], {}),
        (Loader, {}),
        (Numbered, {}),
        (endless, {"steps_per_epoch": 3}),
    ],
    ids=["list", "loader", "numbered", "endless"],
)
def test_batches_train_as_arrays(data: Any, options: dict[str, Any]) -> None:
    one, other = dense(), dense()
    wanted = one.fit(X, Y, 5, 3, 0, sample_weight=W, shuffle=False)
    found = other.fit(data(), epochs=3, verbose=0, shuffle=False, **options)
    assert_same(result(one, wanted), result(other, found))
    assert (found.params or {})["steps"] == (None if data is Loader else 3)
    if not options:
        assert other.evaluate(data()) == one.evaluate(X, Y, 5, sample_weight=W)


def test_a_generator_gives_one_epoch() -> None:
    one, other = dense(), dense()
    one.fit(X, Y, 5, verbose=0, sample_weight=W, shuffle=False)
    other.fit(iter(Loader()), verbose=0)
    assert_same(one.get_weights(), other.get_weights())
    with pytest.raises(
        ArgumentError, match=r"iterator can be run through only once; .* fit\(list\("
    ):
        other.fit(iter(Loader()), epochs=2, verbose=0)


def test_numbered_batches_are_shuffled_and_told_of_epochs() -> None:
    data = Numbered()
    dense().fit(data, epochs=4, verbose=0)
    orders = [tuple(data.read[i : i + 3]) for i in range(0, 12, 3)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert len(set(orders)) > 1
    assert data.epochs == 4
    again = Numbered()
    dense().fit(again, epochs=4, verbose=0)
    assert again.read == data.read
    plain = Numbered()
    dense().fit(plain, epochs=1, verbose=0, shuffle=False)
    assert plain.read == [0, 1, 2]


def test_epochs_of_some_steps_go_on_where_the_last_one_ended() -> None:
    one, other = dense(), dense()
    with pytest.warns(UserWarning, match="after batch 1 of an epoch; steps_per_epoch=2") as warned:
        history = one.fit(X, Y, 4, 3, 0, shuffle=False, steps_per_epoch=2)
    assert len(warned) == 1
    for rows in (slice(0, 4), slice(4, 8), slice(8, 12), slice(0, 4), slice(4, 8)):
        other.train_on_batch(X[rows], Y[rows])
    assert_same(one.get_weights(), other.get_weights())  # the second epoch is what was left
    assert (history.params or {})["steps"] == 2


def test_validation_steps_begin_with_the_first_batch() -> None:
    one, other = dense(), dense()
    a = one.fit(
        X, Y, verbose=0, epochs=3, validation_data=(X, Y), validation_batch_size=4,
        validation_steps=2,
    )  # fmt: skip
    b = other.fit(X, Y, verbose=0, epochs=3, validation_data=(X[:8], Y[:8]))
    np.testing.assert_allclose(a.history["val_loss"], b.history["val_loss"], rtol=1e-6)
    batches = [(X[:4], Y[:4]), (X[4:8], Y[4:8])]
    c = dense().fit(X, Y, verbose=0, epochs=3, validation_data=batches)
    assert c.history == a.history


def test_which_epochs_are_judged() -> None:
    for frequency, count in ((2, 2), ([1, 5], 2), (1, 5)):
        history = dense().fit(
            X, Y, verbose=0, epochs=5, validation_data=(X, Y), validation_freq=frequency
        )
        assert len(history.history["val_loss"]) == count
    history = dense().fit(X, Y, verbose=0, epochs=5, initial_epoch=3)
    assert history.epoch == [3, 4]


def test_classes_have_weights() -> None:
    """By whole numbers, one-hot, and by step; the same as sample weights."""
    model = weighted(Sequential([Input((3,)), layers.Dense(3, activation="softmax")]))
    ids = RNG.integers(0, 3, 12)
    weight = np.array([1.0, 20.0, 1.0], np.float32)[ids]
    for loss, y in (
        ("sparse_categorical_crossentropy", ids),
        ("sparse_categorical_crossentropy", ids[:, None].astype(np.float32)),
        ("categorical_crossentropy", np.eye(3)[ids]),
    ):
        model.compile("sgd", loss)
        by_class = model.gradients(X, y, sample_weight=weight)
        start = model.get_weights()
        model.train_on_batch(X, y, class_weight={1: 20})
        moved = [(a - b) / 0.01 for a, b in zip(start, model.get_weights(), strict=True)]
        for gradient, step in zip(by_class.values(), moved, strict=True):
            np.testing.assert_allclose(step, gradient, atol=1e-4)
        model.set_weights(start)
        history = model.fit(X, y, verbose=0, class_weight={1: 20, 0: 1}, validation_split=0.5)
        plain = model.evaluate(X[6:], y[6:])
        assert history.history["val_loss"] == [pytest.approx(plain)]
    steps = weighted(Sequential([Input((None, 3)), layers.Dense(1, activation="sigmoid")]))
    steps.compile("sgd", "binary_crossentropy")
    y = RNG.integers(0, 2, (12, 5))
    wanted = steps.test_on_batch(STEPS, y, sample_weight=np.where(y == 1, 5, 1))
    assert steps.train_on_batch(STEPS, y[..., None], class_weight={1: 5}) == wanted


def test_a_table_has_a_row_for_each_sample() -> None:
    columns = {"a": X[:, 0], "b": X[:, 1], "y": Y[:, 0], "c": X[:, 2], "w": W}
    table = pa.table(columns)
    one, other, third = dense(), dense(), dense()
    one.fit(X, Y, 5, 2, 0, sample_weight=W)
    history = other.fit(
        table, "y", 5, 2, 0, sample_weight="w", validation_data=(table.drop("w"), "y")
    )
    assert_same(one.get_weights(), other.get_weights())
    assert history.history["val_loss"][-1] == pytest.approx(one.evaluate(X, Y)[0])
    features = table.select(["a", "b", "c"])
    third.fit(features, table["y"], 5, 2, 0, sample_weight=W)
    assert_same(one.get_weights(), third.get_weights())
    assert other.evaluate(table.drop("w"), "y") == other.evaluate(X, Y)
    late = Sequential([layers.Dense(1)])
    late.compile("sgd", "mse")
    late.fit(table.to_batches()[0].select(["a", "c"]), table["y"], verbose=0)
    assert late.get_weights()[0].shape == (2, 1)


def test_a_table_for_several_inputs() -> None:
    """By the names of the inputs; several labels are one y."""
    inputs = [Input((1,), name=name) for name in ("b", "a")]
    model = Model(inputs, layers.Dense(2)(layers.Concatenate()(inputs)))
    model.compile("sgd", "mse")
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "y": X[:, 2], "z": Y[:, 0]})
    found = model.test_on_batch(table, ["y", "z"])
    y = np.stack([X[:, 2], Y[:, 0]], axis=1)
    assert found == model.test_on_batch({"a": X[:, :1], "b": X[:, 1:2]}, y)
    assert found == model.evaluate([([X[:, 1:2], X[:, :1]], y)])


def test_batches_of_several_inputs_and_outputs() -> None:
    """By name and as lists; the same as arrays by name."""

    def make() -> Model:
        a, b = Input((3,), name="a"), Input((None, 3), name="b")
        both = layers.Concatenate()([a, layers.GRU(4, name="gru")(b)])
        outputs = [layers.Dense(1, name="one")(both), layers.Dense(2, name="two")(both)]
        model = weighted(Model([a, b], outputs))
        model.compile(optimizers.Adam(0.1), {"one": "mse", "two": "mae"})
        return model

    def batches(named: bool) -> list[Any]:
        found: list[Any] = []
        for cut in cuts():
            x, y, w = [X[cut], STEPS[cut]], [Y[cut], X[cut, :2]], [W[cut], None]
            if named:
                found.append(({"b": x[1], "a": x[0]}, {"two": y[1], "one": y[0]}, {"one": w[0]}))
            else:
                found.append((x, y, w))
        return found

    one, other, third = make(), make(), make()
    whole = {"a": X, "b": STEPS}, {"one": Y, "two": X[:, :2]}
    history = one.fit(
        *whole, 5, 2, 0, shuffle=False, sample_weight={"one": W}, validation_data=whole
    )
    for model, named in ((other, True), (third, False)):
        model.fit(batches(named), epochs=2, verbose=0)
        assert_same(one.get_weights(), model.get_weights())
    assert list(history.history) == [
        *("loss", "one_loss", "two_loss", "val_loss", "val_one_loss", "val_two_loss")
    ]
    split = make()
    split.fit(*whole, 5, 2, 0, validation_split=0.25)
    assert not np.array_equal(split.get_weights()[0], make().get_weights()[0])


@pytest.mark.parametrize(
    ("make", "table", "error", "message"),
    [
        (recurrent, {"a": [1.0]}, ArgumentError, r"Pipeline.windows\(\) makes sequences"),
        (dense, {"a": [1.0], "b": [1.0]}, ShapeError, "a table with 3 columns of features, rec"),
        (dense, {"a": [1.0], "b": [None], "c": [1.0]}, DataError, r"column 'b' has nulls \(1\)"),
        (dense, {"a": [1.0], "b": ["x"], "c": [1.0]}, DataError, "must have numbers, received st"),
    ],
)
def test_tables_that_are_refused(make: Any, table: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make().fit(pa.table({**table, "yy": [1.0]}), "yy", verbose=0)
    with pytest.raises(ArgumentError, match=r"no column 'y'; did you mean 'yy'\? It has"):
        dense().fit(pa.table({"yy": [1.0]}), "y")
    late = Sequential([layers.GRU(2)])
    late.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match=r"Pipeline.windows\(\)"):
        late.fit(pa.table({"a": [1.0], "y": [1.0]}), "y")


def test_a_model_is_built_by_the_first_batch() -> None:
    for data in (Numbered(), Loader(), iter(Loader())):
        model = Sequential([layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(data, verbose=0)
        assert model.optimizer is not None
        assert model.optimizer.iterations == 3


def test_validation_with_lengths_and_weights() -> None:
    model = recurrent()
    history = model.fit(
        STEPS, Y, verbose=0, lengths=LENGTHS, validation_data=(STEPS, Y, W, LENGTHS)
    )
    wanted = model.evaluate(STEPS, Y, sample_weight=W, lengths=LENGTHS)
    assert [history.history["val_loss"][0], history.history["val_mae"][0]] == wanted
    assert wanted != model.evaluate(STEPS, Y, sample_weight=W)
    batches = [(STEPS, Y, W, LENGTHS)]
    assert model.evaluate(batches) == wanted
    other, third = recurrent(), recurrent()
    other.fit(STEPS, Y, verbose=0, lengths=LENGTHS, validation_split=0.25, shuffle=False)
    third.fit(STEPS[:9], Y[:9], verbose=0, lengths=LENGTHS[:9], shuffle=False)
    assert_same(other.get_weights(), third.get_weights())


def test_an_optimizer_goes_on_in_the_next_fit() -> None:
    one, other = dense(), dense()
    one.fit(X, Y, 4, 4, 0, shuffle=False)
    for begin in (0, 2):
        other.fit(X, Y, 4, begin + 2, 0, shuffle=False, initial_epoch=begin)
    assert_same(one.get_weights(), other.get_weights())
    assert other.optimizer.iterations == 12


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.fit(Loader(), Y), ArgumentError, "y cannot be given with batches"),
        (lambda m: m.fit(Loader(), batch_size=3), ArgumentError, "batch_size cannot be given"),
        (lambda m: m.fit(Loader(), sample_weight=W), ArgumentError, "sample_weight cannot be gi"),
        (lambda m: m.fit(Loader(), lengths=LENGTHS), ArgumentError, "lengths cannot be given"),
        (lambda m: m.fit(Loader(), validation_split=0.5), ArgumentError, "split needs arrays"),
        (lambda m: m.fit([(X,), (X,)]), ArgumentError, r"a batch must be \(x, y\).* tuple of 1"),
        (lambda m: m.fit(x for x in [X]), ArgumentError, "a batch must be .* received ndarray"),
        (lambda m: m.fit(iter([])), DataError, "no more batches; pass more batches, or data"),
        (
            lambda m: m.fit(iter(Loader()), steps_per_epoch=2, epochs=2),
            DataError,
            "after batch 1 of an epoch; steps_per_epoch=2 needs more batches; pass more batches",
        ),
        (
            lambda m: m.fit(iter(Loader()), steps_per_epoch=3, epochs=2),
            DataError,
            "no more batches: an epoch needs steps_per_epoch=3; pass more batches, or data",
        ),
        (
            lambda m: m.fit(X, Y, epochs=2, validation_data=iter(Loader())),
            ArgumentError,
            "validation_data is an iterator",
        ),
        (lambda m: m.fit(Numbered(), steps_per_epoch=4), ArgumentError, "at most 3, .* received 4"),
        (lambda m: m.fit(X, Y, class_weight={0: 1}), DataError, "y must be classes"),
        (lambda m: m.fit(X, Y, class_weight={"1": 2}), ArgumentError, "received '1'"),
        (lambda m: m.fit(X, Y, batch_size=2.5), ArgumentError, "batch_size .* received 2.5"),
        (lambda m: m.fit(X, Y, epochs=-1), ArgumentError, "epochs .* received -1"),
        (lambda m: m.fit(Loader(), steps_per_epoch=True), ArgumentError, "received True"),
        (lambda m: m.fit(X, Y, class_weight={1: -2}), ArgumentError, "0 or more, received -2"),
        (lambda m: m.fit(X, Y, class_weight={1: "a"}), ArgumentError, "received 'a'"),
        (lambda m: m.fit(X, pa.array([None] * 12)), DataError, r"the output .* nulls \(12\)"),
        (lambda m: m.fit(X, Y, sample_weight=["a"] * 12), DataError, "as sample_weight, .*<U1"),
        (lambda m: m.fit(X, Y, sample_weight=[None, *W[1:]]), DataError, "received object"),
    ],
)
def test_what_is_refused(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call(dense())


def test_an_iterator_as_validation_data() -> None:
    """Once, or some steps of it at a time."""
    model = dense()
    once = model.fit(X, Y, verbose=0, validation_data=iter(Loader()))
    assert once.history["val_loss"][0] == model.evaluate(Loader())[0]
    model.fit(X, Y, verbose=0, epochs=3, validation_data=endless(), validation_steps=3)


def test_a_stateful_fit_on_batches() -> None:
    """In their order, from fresh states in each epoch; numbered batches must not be shuffled."""
    batches = [(STEPS[:6], Y[:6]), (STEPS[6:], Y[6:])]
    one, other = recurrent(stateful=True), recurrent(stateful=True)
    seen: list[Any] = []
    watch = callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: seen.append(np.any(layer_at(one).states)),
        on_epoch_end=lambda *_: None,
    )
    one.fit(batches, epochs=2, verbose=0, callbacks=watch)
    assert seen == [False, False]
    for _ in range(2):
        other.reset_state()
        for x, y in batches:
            other.train_on_batch(x, y)
    assert_same(one.get_weights(), other.get_weights())
    assert_same(layer_at(one).states, layer_at(other).states)
    with pytest.raises(ArgumentError, match="needs shuffle=False"):
        one.fit(Numbered())
