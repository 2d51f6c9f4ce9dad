"""Callbacks: what they see, write and refuse, and what is left after an exception in one."""

import csv
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same, layer_at
from nn.training.trained import weighted

from streamrnn import Input, Model, Sequential, callbacks, layers, load_model, metrics, optimizers
from streamrnn.errors import (
    ArgumentError,
    CheckpointError,
    DivergedError,
    ModelMismatchError,
    SinkError,
)

RNG = np.random.default_rng(3)
X = RNG.normal(size=(12, 4)).astype(np.float32)
Y = X[:, :1] * 2 - 1


def linear(**options: Any) -> Sequential:
    model = weighted(Sequential([Input((4,)), layers.Dense(1)]))
    model.compile(optimizers.SGD(0.05), "mse", **options)
    return model


def fit(model: Sequential, *given: Any, **options: Any) -> Any:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 4, "verbose": 0, "shuffle": False}
    return model.fit(X, Y, callbacks=list(given), **(settings | options))


class Recorder(callbacks.Callback):
    """All calls, and the names in their logs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *args, **logs: self._add(name, *args, *logs.values())
        return super().__getattribute__(name)

    def _add(self, *call: Any) -> None:
        self.calls.append((*call[:-1], sorted(call[-1])))


def test_callbacks_extend_the_history() -> None:
    def extend(epoch: int, logs: dict[str, float]) -> None:
        model.history.history.setdefault("mine", []).append(epoch)

    model = linear()
    history = fit(model, callbacks.LambdaCallback(on_epoch_end=extend), epochs=3)
    assert history.history["mine"] == [0, 1, 2]
    assert len(history.history["loss"]) == 3


def test_callbacks_are_called_in_this_order() -> None:
    seen = Recorder()
    model = linear()
    history = fit(model, seen, epochs=1, batch_size=8, validation_data=(X[:2], Y[:2]))
    assert seen.model is model
    assert model.history is history
    assert seen.calls == [
        ("on_train_begin", []),
        ("on_epoch_begin", 0, []),
        ("on_train_batch_begin", 0, []),
        ("on_train_batch_end", 0, []),
        ("on_train_batch_begin", 1, []),
        ("on_train_batch_end", 1, []),
        ("on_test_begin", []),
        ("on_test_batch_begin", 0, []),
        ("on_test_batch_end", 0, []),
        ("on_test_end", ["loss"]),
        ("on_epoch_end", 0, ["loss", "val_loss"]),
        ("on_train_end", ["loss", "val_loss"]),
    ]


def test_logs_of_batches_are_those_of_the_epoch_so_far() -> None:
    model, found = linear(metrics=["mae"]), []
    watch = callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: found.append(dict(logs)))
    history = fit(model, watch, epochs=1)
    assert [sorted(logs) for logs in found] == [["loss", "mae"]] * 3
    assert found[-1] == {name: values[0] for name, values in history.history.items()}
    again = linear(metrics=["mae"])
    first = again.train_on_batch(X[:4], Y[:4])[0]
    second = again.train_on_batch(X[4:8], Y[4:8])[0]
    assert found[1]["loss"] == pytest.approx((first + second) / 2)


def test_a_callback_ends_a_fit_after_a_batch_or_an_epoch() -> None:
    model = linear()
    stop = callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", batch == 1)
    )
    history = fit(model, stop, validation_data=(X, Y))
    assert model.optimizer.iterations == 2
    assert sorted(history.history) == ["loss", "val_loss"]
    assert len(fit(model).epoch) == 3  # and the next fit begins anew


@pytest.mark.parametrize("method", ["on_train_batch_end", "on_test_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_after_an_exception_the_model_goes_on(method: str, error: type[BaseException]) -> None:
    """Weights as after the last update, states as training left them, scores of those weights."""

    def interrupt(number: int, logs: Any) -> None:
        raise error

    def make() -> Sequential:
        model = weighted(
            Sequential([Input((None, 4)), layers.GRU(3, stateful=True), layers.Dense(1)])
        )
        model.compile("sgd", "mse")
        return model

    x, model, other = X.reshape(3, 4, 4), make(), make()
    model.predict(x)
    model.reset_state()
    cut = callbacks.LambdaCallback(**{method: interrupt})
    with pytest.raises(error):
        model.fit(
            x, Y[:3], shuffle=False, verbose=0, validation_data=(x * 2, Y[:3]), callbacks=[cut]
        )
    other.train_on_batch(x, Y[:3])
    assert_same(model.get_weights(), other.get_weights())
    assert_same(layer_at(model).states, layer_at(other).states)
    assert_same([model.predict(x)], [other.predict(x)])
    model.train_on_batch(x, Y[:3])
    other.train_on_batch(x, Y[:3])
    assert_same(model.get_weights(), other.get_weights())


def test_checkpoints_are_whole_models(tmp_path: Path) -> None:
    path = tmp_path / "new" / "{epoch:02d}-{val_loss:.3f}.safetensors"
    model, found = linear(), []
    watch = callbacks.LambdaCallback(on_epoch_end=lambda *_: found.append(model.get_weights()))
    history = fit(model, watch, callbacks.ModelCheckpoint(path), validation_data=(X, Y))
    names = [f"{i + 1:02d}-{v:.3f}" for i, v in enumerate(history.history["val_loss"])]
    assert sorted(p.stem for p in path.parent.iterdir()) == names
    for name, weights in zip(names, found, strict=True):
        assert_same(load_model(path.parent / f"{name}.safetensors").get_weights(), weights)


def test_a_checkpoint_keeps_the_best_model(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    model = linear()
    keep = callbacks.ModelCheckpoint(path, "loss", save_best_only=True, save_weights_only=True)
    rate = callbacks.LearningRateScheduler(lambda epoch: 0.05 if epoch < 2 else 50.0)
    found: list[Any] = []
    watch = callbacks.LambdaCallback(on_epoch_end=lambda *_: found.append(model.get_weights()))
    history = fit(model, rate, keep, watch)
    best = int(np.argmin(history.history["loss"]))
    assert best < 2
    assert keep.best == history.history["loss"][best]
    assert_same(load_model(path).get_weights(), found[best])
    path.unlink()
    none = callbacks.ModelCheckpoint(
        path, "loss", save_best_only=True, initial_value_threshold=1e-30
    )
    fit(linear(), none)
    assert not path.exists()


def test_a_checkpoint_after_some_batches(tmp_path: Path) -> None:
    """Batches count on from epoch to epoch."""
    path = tmp_path / "{epoch}-{batch}.safetensors"
    fit(linear(), callbacks.ModelCheckpoint(path, save_freq=2))
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["1-2", "2-1", "2-3", "3-2"]


@pytest.mark.parametrize("rate", [0.05, optimizers.schedules.ExponentialDecay(0.05, 3, 0.9)])
@pytest.mark.parametrize("optimizer", [optimizers.Adam, optimizers.RMSprop, optimizers.Nadam])
def test_an_interrupted_fit_goes_on_with_the_same_bits(
    tmp_path: Path, optimizer: Any, rate: Any
) -> None:
    """Shuffled, with dropout, interrupted in the middle of an epoch; in a new model."""

    def make() -> Sequential:
        model = weighted(Sequential([Input((4,)), layers.Dropout(0.3), layers.Dense(1)]))
        model.compile(optimizer(rate), "mse")
        return model

    def interrupt(batch: int, logs: Any) -> None:
        if model.optimizer.iterations == 8:
            raise KeyboardInterrupt

    whole, model, again = make(), make(), make()
    fit(whole, epochs=5, shuffle=True)
    keep = callbacks.BackupAndRestore(tmp_path / "backup")
    cut = callbacks.LambdaCallback(on_train_batch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, keep, cut, epochs=5, shuffle=True)
    assert [p.name for p in keep.path.parent.iterdir()] == ["latest.npz"]
    history = fit(again, callbacks.BackupAndRestore(keep.backup_dir), epochs=5, shuffle=True)
    assert history.epoch == [2, 3, 4]
    assert_same(again.get_weights(), whole.get_weights())
    assert again.optimizer.iterations == whole.optimizer.iterations
    assert not keep.path.exists()


def test_a_backup_is_of_one_model(tmp_path: Path) -> None:
    keep = callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    fit(linear(), keep)
    other = weighted(Sequential([Input((4,)), layers.Dense(1, use_bias=False)]))
    other.compile("sgd", "mse")
    with pytest.raises(ModelMismatchError, match=r"\(optimizer SGD\) does not fit .*: the model"):
        fit(other, callbacks.BackupAndRestore(tmp_path))
    assert fit(linear(), callbacks.BackupAndRestore(tmp_path)).epoch == []


@pytest.mark.parametrize(
    "facts",
    [None, b"", b"PK", [], {}, {"shapes": [[4, 1]], "optimizer": "SGD", "slots": {}}],
    ids=["array", "empty", "cut", "list", "none", "no weights"],
)
def test_a_damaged_backup_is_refused(tmp_path: Path, facts: Any) -> None:
    model, keep = linear(), callbacks.BackupAndRestore(tmp_path)
    with keep.path.open("wb") as file:
        if isinstance(facts, bytes):
            file.write(facts)
        elif facts is None:
            np.save(file, np.ones(2))
        else:
            np.savez(file, facts=np.array(json.dumps(facts)))
    with pytest.raises(CheckpointError, match=r"latest\.npz is damaged, or is not a backup"):
        fit(model, keep)


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 99)], ids=["encrypted", "packed"])
def test_a_backup_with_a_damaged_directory_is_refused(
    tmp_path: Path, place: int, value: int
) -> None:
    """Python's zipfile raises RuntimeError or NotImplementedError."""
    keep = callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    fit(linear(), keep)
    data = bytearray(keep.path.read_bytes())
    data[data.index(b"PK\x01\x02") + place] = value
    keep.path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged, or is not a backup"):
        fit(linear(), keep)


def test_the_folder_of_a_backup_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "backup").touch()
    with pytest.raises(SinkError, match="backup: this is a file, not a folder"):
        fit(linear(), callbacks.BackupAndRestore(tmp_path / "backup"))


def test_a_backup_is_of_one_kind_of_optimizer(tmp_path: Path) -> None:
    """Adam keeps one array more of each weight with amsgrad."""
    one, other = linear(), linear()
    one.compile(optimizers.Adam(amsgrad=True), "mse")
    other.compile(optimizers.Adam(), "mse")
    fit(one, callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False))
    with pytest.raises(ModelMismatchError, match=r"\(optimizer Adam\) does not fit"):
        fit(other, callbacks.BackupAndRestore(tmp_path))


def test_a_backup_is_of_whole_epochs(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="BackupAndRestore with steps_per_epoch=1"):
        linear().fit(X, Y, 4, 2, 0, callbacks.BackupAndRestore(tmp_path), steps_per_epoch=1)


def test_weights_are_in_use_if_an_update_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was packed for scoring is older than the weights."""
    model = weighted(Sequential([Input((None, 4)), layers.GRU(3), layers.Dense(1)]))
    model.compile("sgd", "mse")
    x = X.reshape(3, 4, 4)
    before = model.predict(x)
    change = model.optimizer.change

    def interrupted(changes: Any) -> None:
        change(changes)
        raise KeyboardInterrupt

    monkeypatch.setattr(model.optimizer, "change", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, Y[:3], verbose=0)
    other = weighted(Sequential([Input((None, 4)), layers.GRU(3), layers.Dense(1)]))
    other.set_weights(model.get_weights())
    assert_same([model.predict(x)], [other.predict(x)])
    assert not (model.predict(x) == before).all()


def test_a_metric_of_one_output_is_followed() -> None:
    x = Input((4,))
    model = Model(x, [layers.Dense(1, name="a")(x), layers.Dense(1, name="b")(x)])
    model.compile("sgd", "mse", metrics={"b": ["accuracy"]})
    stop = callbacks.EarlyStopping("b_accuracy", patience=1)
    history = model.fit(X, [Y, Y > 0], epochs=4, verbose=0, callbacks=stop)
    assert stop.best == max(history.history["b_accuracy"])


def test_arguments_that_change_nothing() -> None:
    one, other = linear(), linear()
    other.compile(
        optimizers.SGD(0.05),
        "mse",
        loss_weights=[1.0],
        run_eagerly=True,
        steps_per_execution=4,
        jit_compile=False,
        auto_scale_loss=False,
    )
    fit(one)
    fit(other)
    assert_same(one.get_weights(), other.get_weights())


def test_a_plateau_reduces_the_learning_rate() -> None:
    model = linear()
    model.optimizer.learning_rate = 1e-6
    reduce = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1, min_lr=2e-7)
    history = fit(model, reduce, epochs=5)
    rates = history.history["learning_rate"]
    np.testing.assert_allclose(rates, [1e-6, 1e-6, 5e-7, 2.5e-7, 2e-7])


def test_a_schedule_may_use_the_last_rate() -> None:
    history = fit(linear(), callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2))
    np.testing.assert_allclose(history.history["learning_rate"], [0.025, 0.0125, 0.00625])


def test_a_schedule_has_one_argument_or_two() -> None:
    rates = [0.5, 0.25, 0.125]
    for schedule in (rates.__getitem__, partial(lambda a, epoch: a[epoch], rates)):
        history = fit(linear(), callbacks.LearningRateScheduler(schedule))
        assert history.history["learning_rate"] == rates


def test_a_schedule_that_fails_is_not_called_again() -> None:
    """Not even if it could be called with the epoch alone."""

    def schedule(epoch: int, rate: Any = None) -> float:
        seen.append(rate)
        return float(rate + "a")

    seen: list[Any] = []
    with pytest.raises(TypeError, match="unsupported operand"):
        fit(linear(), callbacks.LearningRateScheduler(schedule))
    assert seen == [0.05]


def test_a_reduction_is_printed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[Any] = []
    monkeypatch.setattr("builtins.print", lambda *text, **options: printed.append((text, options)))
    fit(linear(), callbacks.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=1e9, verbose=1))
    assert printed[0] == (("Epoch 2: the learning rate is reduced to 0.025",), {"flush": True})


def test_a_csv_file_is_complete_after_each_epoch(tmp_path: Path) -> None:
    path, seen = tmp_path / "log.csv", []
    read = callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(len(rows(path))))
    fit(linear(), callbacks.CSVLogger(path, separator=";"), read)
    assert seen == [2, 3, 4]
    fit(linear(), callbacks.CSVLogger(path, separator=";", append=True), epochs=1)
    assert [row[0] for row in rows(path)] == ["epoch", "0", "1", "2", "0"]
    assert rows(path)[0] == ["epoch", "loss", "val_loss"]
    assert rows(path)[1][2] == "NA"
    fit(linear(), callbacks.CSVLogger(path, separator=";"), epochs=1)
    assert len(rows(path)) == 2


@pytest.mark.parametrize("header", ["epoch;loss", "epoch;mae;loss", "epoch,loss,val_loss"])
def test_a_csv_file_with_other_columns_is_not_appended_to(tmp_path: Path, header: str) -> None:
    """Where Keras writes values below the names of others."""
    path = tmp_path / "log.csv"
    path.write_text(f"{header}\n")
    logger = callbacks.CSVLogger(path, separator=";", append=True)
    with pytest.raises(SinkError, match=r"expected the columns epoch, loss, val_loss, .*another"):
        fit(linear(), logger)
    assert path.read_text() == f"{header}\n"


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter=";"))


def test_a_loss_that_is_not_finite_ends_the_fit(capsys: pytest.CaptureFixture[str]) -> None:
    model = linear()
    y = np.full_like(Y, np.nan)
    history = model.fit(
        X, y, epochs=3, batch_size=4, verbose=0, callbacks=callbacks.TerminateOnNaN()
    )
    assert math.isnan(history.history["loss"][0])
    assert model.optimizer.iterations == 1
    assert "Batch 0: Invalid loss" in capsys.readouterr().out
    with pytest.raises(DivergedError, match="the loss is nan in batch 0; set a lower"):
        model.fit(X, y, verbose=0, callbacks=callbacks.TerminateOnNaN(raise_error=True))


def test_a_metric_says_which_value_is_better() -> None:
    model = linear(metrics=["mae", "accuracy"])
    for monitor, larger in (("val_mae", False), ("accuracy", True), ("val_loss", False)):
        stop = callbacks.EarlyStopping(monitor)
        stop.set_model(model)
        assert stop.improves(2.0, 1.0) is larger
        assert stop.improves(1.0, 2.0) is not larger
        assert not stop.improves(math.nan, None)


def test_an_epoch_without_validation_does_not_count() -> None:
    model = linear()
    stop = callbacks.EarlyStopping(patience=2, min_delta=1e9)
    history = fit(model, stop, epochs=20, validation_data=(X, Y), validation_freq=2)
    assert history.epoch[-1] == stop.stopped_epoch == 5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: callbacks.ModelCheckpoint("a.keras"), ArgumentError, "must end in .safetensors"),
        (lambda: callbacks.ModelCheckpoint("a.safetensors", save_freq=0), ArgumentError, "save_fr"),
        (lambda: callbacks.BackupAndRestore("a", save_freq=3), ArgumentError, "save_freq=3 is not"),
        (lambda: callbacks.ReduceLROnPlateau(factor=1.0), ArgumentError, "factor must be above 0"),
        (
            lambda: callbacks.LambdaCallback(on_epoch_enter=print),
            ArgumentError,
            "method 'on_epoch_enter' is not supported; did you mean 'on_epoch_end'",
        ),
        (
            lambda: fit(linear(), callbacks.ModelCheckpoint("{mae}.safetensors")),
            ArgumentError,
            "names a value that is not reported .'mae'.; the reported names are: epoch, loss",
        ),
        (
            lambda: fit(linear(), callbacks.ModelCheckpoint("{loss:.2q}.safetensors")),
            ArgumentError,
            "cannot be formatted: Unknown format code 'q'",
        ),
        (
            lambda: fit(linear(), callbacks.ModelCheckpoint("a.safetensors", save_best_only=True)),
            ArgumentError,
            "ModelCheckpoint: monitor='val_loss' is not reported",
        ),
        (
            lambda: fit(linear(), callbacks.ReduceLROnPlateau()),
            ArgumentError,
            "ReduceLROnPlateau: monitor='val_loss' is not reported",
        ),
        (
            lambda: fit(linear(), callbacks.LearningRateScheduler(lambda epoch: 1)),
            ArgumentError,
            "schedule must return a float, received 1 for epoch 0",
        ),
        (lambda: fit(linear(), callbacks.CSVLogger("none/a.csv")), SinkError, "create it first"),
        (lambda: fit(linear(), verbose=3), ArgumentError, "verbose must be"),
    ],
)
def test_what_is_refused(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_metric_of_an_unknown_direction_needs_a_mode() -> None:
    class Own(metrics.Metric):
        """The largest error; it does not say which value is better."""

        def __init__(self) -> None:
            super().__init__("own")
            self.most = self.add_weight()

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.most.assign(max(self.most, np.abs(y_true - y_pred).max()))

        def result(self) -> Any:
            return self.most

    class Better(Own):
        """The same, and it says so."""

        direction = "up"

    model = linear(metrics=[Own()])
    with pytest.raises(ArgumentError, match=r"monitor='own' .* pass mode='max' or mode='min'"):
        fit(model, callbacks.EarlyStopping("own"), epochs=2)
    fit(model, callbacks.EarlyStopping("own", mode="min"), epochs=2)
    stop = callbacks.EarlyStopping("own", patience=1)
    fit(linear(metrics=[Better()]), stop, epochs=9)
    assert stop.stopped_epoch == 1  # the error only falls


def test_a_metric_with_a_number_for_each_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is printed and written; what follows one number refuses it."""
    ids = RNG.integers(0, 2, 12)
    y = np.eye(2, dtype=np.float32)[ids]

    def make() -> Sequential:
        model = weighted(Sequential([Input((4,)), layers.Dense(2, activation="softmax")]))
        model.compile("sgd", "categorical_crossentropy", metrics=[metrics.F1Score()])
        return model

    path = tmp_path / "log.csv"
    history = make().fit(X, y, callbacks=callbacks.CSVLogger(path, separator=";"))
    scores = history.history["f1_score"][0]
    assert scores.shape == (2,)
    assert f"f1_score: [{scores[0]:.4g}, {scores[1]:.4g}]" in capsys.readouterr().out
    assert rows(path)[1][1] == f'"[{scores[0]}, {scores[1]}]"'
    for callback in (
        callbacks.EarlyStopping("f1_score"),
        callbacks.ModelCheckpoint(tmp_path / "{f1_score:.2f}.safetensors"),
    ):
        with pytest.raises(ArgumentError, match=r"a value for each class|cannot be formatted"):
            make().fit(X, y, verbose=0, callbacks=callback)
