"""TensorBoard: losses, metrics and learning rates for its pages."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.errors import ArgumentError, UnsupportedError
from streamrnn.nn.training.callbacks import Callback

_Logs = dict[str, Any] | None


class TensorBoard(Callback):
    """Writes scalars with the names and folders of Keras: log_dir/train and log_dir/validation.

    Needs the package tensorboard (pip install 'streamrnn[tensorboard]'), but not TensorFlow.
    update_freq: "epoch", "batch", or the number of batches from one value to the next. Histograms,
    images, profiles and embeddings are refused; write_graph has no effect.
    """

    def __init__(
        self,
        log_dir: Any = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: object = None,
    ) -> None:
        super().__init__()
        refused = {
            "histogram_freq": histogram_freq,
            "write_images": write_images,
            "profile_batch": profile_batch,
            "embeddings_freq": embeddings_freq,
            "embeddings_metadata": embeddings_metadata,
        }
        for argument, value in refused.items():
            if value:
                raise ArgumentError(
                    f"TensorBoard: {argument}={value!r} is not supported; it writes scalars only"
                )
        if update_freq not in ("epoch", "batch") and (
            not isinstance(update_freq, int) or update_freq < 1
        ):
            raise ArgumentError(
                "TensorBoard: update_freq must be 'epoch', 'batch' or a number of batches, 1 or "
                f"more, received {update_freq!r}"
            )
        self.log_dir = str(log_dir)
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = 1 if update_freq == "batch" else update_freq
        self._writers: dict[str, Any] = {}
        self._batches = self._epoch_batches = 0
        self._begun = 0.0
        _summary()

    def on_train_begin(self, logs: _Logs = None) -> None:
        self._batches = 0

    def on_train_end(self, logs: _Logs = None) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def on_epoch_begin(self, epoch: int, logs: _Logs = None) -> None:
        self._epoch_batches, self._begun = self._batches, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: _Logs = None) -> None:
        self._batches += 1
        if self.update_freq != "epoch" and (self._batches - 1) % int(self.update_freq) == 0:
            named = {f"batch_{name}": value for name, value in (logs or {}).items()}
            self._write("train", named, self._batches - 1)

    def on_test_end(self, logs: _Logs = None) -> None:
        named = {f"evaluation_{name}_vs_iterations": v for name, v in (logs or {}).items()}
        self._write("validation", named, self.model.optimizer.iterations)

    def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
        values = dict(logs or {})
        values["learning_rate"] = float(self.model.optimizer.learning_rate)
        if self.write_steps_per_second:
            steps = self._batches - self._epoch_batches
            values["steps_per_second"] = steps / max(time.perf_counter() - self._begun, 1e-9)
        train = {f"epoch_{n}": v for n, v in values.items() if not n.startswith("val_")}
        validation = {f"epoch_{n[4:]}": v for n, v in values.items() if n.startswith("val_")}
        self._write("train", train, epoch)
        self._write("validation", validation, epoch)

    def _write(self, folder: str, values: dict[str, Any], step: int) -> None:
        if not values:
            return
        if folder not in self._writers:
            self._writers[folder] = _summary().Writer(str(Path(self.log_dir) / folder))
        for name, value in values.items():
            if np.ndim(value):  # a number for each class
                for number, item in enumerate(value):
                    self._writers[folder].add_scalar(f"{name}_{number}", item, step)
            else:
                self._writers[folder].add_scalar(name, value, step)
        self._writers[folder].flush()


def _summary() -> Any:
    try:
        import tensorboard.summary as summary
    except ImportError as error:
        raise UnsupportedError(
            "TensorBoard needs the package tensorboard: pip install 'streamrnn[tensorboard]'"
        ) from error
    return summary
