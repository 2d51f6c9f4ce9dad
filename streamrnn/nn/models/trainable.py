"""Keras's methods that train a model. The code that trains is loaded when they are called."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from streamrnn.base.arrays import Floats
from streamrnn.base.provider import provided
from streamrnn.errors import ConfigError

if TYPE_CHECKING:
    from streamrnn.nn.training.callback import History
    from streamrnn.nn.training.loss import Loss
    from streamrnn.nn.training.metric import Metric
    from streamrnn.nn.training.optimizer import Optimizer

_NOT_RUN = ("train_step", "test_step", "compute_loss", "compute_metrics", "make_train_function")
"""Methods with which a class changes how Keras trains it."""


class Trainable:
    """Training in memory, with the names, arguments and defaults of Keras 3.

    Weights and losses have the same bits with any number of threads and on any CPU. What Keras has
    but this class does not compute is refused with an error that names it.
    """

    _trainer: Any = None

    def build_on(self, inputs: Any) -> None:
        """Build the model for inputs like these, if it is not yet built."""

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: object = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: object = "auto",
        auto_scale_loss: bool = True,
        *,
        seed: int = 0,
    ) -> None:
        """Set optimizer, loss and metrics for training, by name or as objects.

        With several outputs loss, loss_weights, metrics and weighted_metrics are lists or
        dictionaries by the outputs' names; an output with the loss None adds nothing to the total.
        seed: for dropout and the order of rows. jit_compile, auto_scale_loss, run_eagerly,
        steps_per_execution: no effect, as every update is one call.
        """
        if own := [name for name in _NOT_RUN if hasattr(type(self), name)]:
            raise ConfigError(
                f"{self}: its class has {own[0]}, which training does not run, as its steps are "
                "compiled. Pass a loss with a gradient, or write a loop that calls train_on_batch, "
                "or gradients() and optimizer.apply"
            )
        self._trainer = provided("Trainer")(
            self, optimizer, loss, loss_weights, metrics, weighted_metrics, seed=seed
        )

    def _compiled(self, method: str) -> Any:
        if self._trainer is None:
            raise ConfigError(f"{self}: call compile(optimizer, loss) before {method}")
        return self._trainer

    @property
    def optimizer(self) -> "Optimizer | None":
        """The optimizer passed to compile, or None."""
        return None if self._trainer is None else self._trainer.optimizer

    @property
    def loss(self) -> "Loss | list[Loss | None] | None":
        """The loss passed to compile (a list for several outputs), or None."""
        return None if self._trainer is None else self._trainer.loss

    @property
    def metrics(self) -> "list[Metric]":
        """The metrics passed to compile, as objects; none before the model is built."""
        return [] if self._trainer is None else list(self._trainer.metrics)

    @property
    def history(self) -> "History | None":
        """The History of the last or current fit, or None."""
        return None if self._trainer is None else self._trainer.history

    @history.setter
    def history(self, history: "History") -> None:
        self._compiled("fit").history = history

    @property
    def stop_training(self) -> bool:
        """Whether a fit ends after this batch or epoch; callbacks set it."""
        return self._trainer is not None and bool(self._trainer.stop_training)

    @stop_training.setter
    def stop_training(self, stop: bool) -> None:
        self._compiled("fit").stop_training = stop

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
        *,
        lengths: npt.ArrayLike | None = None,
    ) -> "History":
        """Train in batches of 32 rows by default; return losses and metrics by epoch.

        x, y: arrays; with several inputs or outputs, a list or dictionary of arrays. Or x alone: an
        iterable of batches (x, y[, sample_weight[, lengths]]), an object with a length that returns
        batches by index (keras.utils.PyDataset), or `Pipeline.windows()`. Or x is a pyarrow.Table,
        y and sample_weight are arrays or names of its columns, and its other columns are features.
        An iterator is run through once: for several epochs, it needs steps_per_epoch.

        sample_weight: (B,) or (B, T); with several outputs, for all or by output. class_weight:
        class -> weight of its samples or steps. lengths: steps of each row; later steps are
        ignored.
        validation_data: (x, y[, sample_weight[, lengths]]), or batches; validation_split: the share
        of rows, the last ones, that are held out for validation; validation_freq: n for every n-th
        epoch, or a list of epochs, numbered from 1. steps_per_epoch: the number of batches of an
        epoch (fewer, with a warning, where the data ends); the next epoch continues from there.
        verbose: 0 prints nothing, other values a line per epoch. callbacks: see
        streamrnn.callbacks.

        With stateful layers, row i of a batch continues row i of the batch before, so shuffle must
        be False for arrays. The states of these layers are reset before each epoch, and validation
        starts from initial states; Keras does neither. Lanes of a window that begin another stream
        start from the initial state. After the fit, layers have the states after its last batch.

        An exception, even in a callback, ends the fit between two updates: the model keeps the
        weights of the last update, and can be used and trained further.
        """
        history: History = provided("fit_arrays")(
            self._compiled("fit"),
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
            lengths=lengths,
        )
        return history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: object = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        *,
        lengths: npt.ArrayLike | None = None,
    ) -> Any:
        """Return the loss, or [loss, metrics…], or with return_dict a dictionary of these.

        x, y: what fit accepts. steps: the number of batches to use. verbose: no effect.
        """
        return provided("evaluate_arrays")(
            self._compiled("evaluate"),
            x,
            y,
            sample_weight,
            lengths,
            batch_size,
            steps,
            callbacks,
            return_dict,
        )

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
        *,
        lengths: npt.ArrayLike | None = None,
        reset: npt.ArrayLike | None = None,
    ) -> Any:
        """Update the weights once; return the loss and metrics of this batch, as `evaluate` does.

        Stateful layers carry their states to the next call; the gradient stops between calls.
        reset: (B,) bool, the rows whose states are reset to the initial ones before this batch.
        """
        return self._compiled("train_on_batch").on_batch(
            x, y, sample_weight, class_weight, lengths, reset, return_dict, train=True
        )

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
        *,
        lengths: npt.ArrayLike | None = None,
        reset: npt.ArrayLike | None = None,
    ) -> Any:
        """Return the loss and metrics of one batch, as `evaluate` does.

        reset: as in train_on_batch.
        """
        return self._compiled("test_on_batch").on_batch(
            x, y, sample_weight, None, lengths, reset, return_dict, train=False
        )

    def gradients(
        self,
        x: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        lengths: npt.ArrayLike | None = None,
        training: bool = False,
    ) -> dict[str, Floats]:
        """Return the gradient of the loss for each trainable weight, by name; change nothing.

        training: whether to apply dropout, as in the next call of train_on_batch.
        """
        by_weight: dict[str, Floats] = self._compiled("gradients").gradients(
            x, y, sample_weight, lengths, training
        )
        return by_weight
