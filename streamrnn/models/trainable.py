"""The methods of Keras that train a model. They import the room `training` when they are called."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from streamrnn.arrays import Floats
from streamrnn.errors import ConfigError

if TYPE_CHECKING:
    from streamrnn.training import History, Loss, Metric, Optimizer


class Trainable:
    """Training in memory, with the names, arguments and defaults of Keras 3.

    Weights and losses have the same bits on any number of threads and on any CPU. What Keras has
    and this class does not compute is refused with an error that names it.
    """

    _trainer: Any = None

    def build_on(self, inputs: Any) -> None:
        """Build for inputs of this kind, if that has not been done."""

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
        """Set optimizer (adam, adamw, rmsprop, sgd), loss and metrics for training.

        seed: of dropout and of the order of rows. jit_compile, auto_scale_loss: no effect.
        """
        self._trainer = _training().Trainer(
            self,
            optimizer,
            loss,
            metrics,
            weighted_metrics,
            seed=seed,
            refused={
                "loss_weights": (loss_weights, None),
                "run_eagerly": (run_eagerly, False),
                "steps_per_execution": (steps_per_execution, 1),
            },
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
    def loss(self) -> "Loss | None":
        """The loss passed to compile, or None."""
        return None if self._trainer is None else self._trainer.loss

    @property
    def metrics(self) -> "list[Metric]":
        """The metrics passed to compile; those by name after the first batch."""
        return [] if self._trainer is None else list(self._trainer.metrics)

    @property
    def history(self) -> "History | None":
        """The History of the last fit, or of the one that runs, or None."""
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
        class_weight: object = None,
        sample_weight: npt.ArrayLike | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: None = None,
        validation_steps: None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        *,
        lengths: npt.ArrayLike | None = None,
    ) -> "History":
        """Train on arrays, in batches of 32 rows by default; return losses and metrics by epoch.

        y: the truth, in the shape of the outputs. sample_weight: (B,) or (B, T). lengths: steps of
        each row; later ones count for nothing. callbacks: see streamrnn.callbacks. validation_data:
        (x, y) or (x, y, sample_weight); validation_split: the share of rows, the last ones.
        verbose: 0 prints nothing, others a line per epoch.

        With stateful layers row i of a batch continues row i of the batch before, so shuffle must
        be False. Their states are reset before each epoch, and validation starts from fresh ones;
        both are different in Keras. After the fit they are those after its last batch.

        An exception, also one in a callback, ends the fit between two updates: the weights are
        those after the last one, and the model can be used and trained further.
        """
        self.build_on(x)
        history: History = _training().fit_arrays(
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
            sample_weight=sample_weight,
            initial_epoch=initial_epoch,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
            lengths=lengths,
            refused={
                "class_weight": (class_weight, None),
                "steps_per_epoch": (steps_per_epoch, None),
                "validation_steps": (validation_steps, None),
            },
        )
        return history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: object = "auto",
        sample_weight: npt.ArrayLike | None = None,
        steps: None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        *,
        lengths: npt.ArrayLike | None = None,
    ) -> Any:
        """Return the loss, or [loss, metrics…], or a dictionary of them. verbose: no effect."""
        self.build_on(x)
        refused = {"steps": (steps, None)}
        return _training().evaluate_arrays(
            self._compiled("evaluate"),
            x,
            y,
            sample_weight,
            lengths,
            batch_size,
            callbacks,
            return_dict,
            refused,
        )

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: None = None,
        return_dict: bool = False,
        *,
        lengths: npt.ArrayLike | None = None,
    ) -> Any:
        """Update the weights once; return the loss and metrics of this batch, as `evaluate` does.

        Stateful layers carry their states to the next call; the gradient stops between calls.
        """
        self.build_on(x)
        refused = {"class_weight": (class_weight, None)}
        trainer = self._compiled("train_on_batch")
        return trainer.on_batch(x, y, sample_weight, lengths, return_dict, refused, train=True)

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: npt.ArrayLike | None = None,
        return_dict: bool = False,
        *,
        lengths: npt.ArrayLike | None = None,
    ) -> Any:
        """Return the loss and metrics of one batch, as `evaluate` does."""
        self.build_on(x)
        trainer = self._compiled("test_on_batch")
        return trainer.on_batch(x, y, sample_weight, lengths, return_dict, {}, train=False)

    def gradients(
        self,
        x: Any,
        y: Any,
        sample_weight: npt.ArrayLike | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        training: bool = False,
    ) -> dict[str, Floats]:
        """Return the gradient of the loss by each trainable weight, by name; change nothing.

        training: with dropout, as the next call of train_on_batch.
        """
        self.build_on(x)
        made: dict[str, Floats] = self._compiled("gradients").gradients(
            x, y, sample_weight, lengths, training
        )
        return made


def _training() -> ModuleType:
    """Import the room `training`, which is above this one."""
    return import_module("streamrnn.training")
