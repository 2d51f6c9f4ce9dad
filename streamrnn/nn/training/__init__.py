"""Training in memory: gradients, losses, optimizers, metrics, and the loop over epochs.

- `recording`   one pass: what is random in it, and the gradients it collects
- `rules`       for each class of layer: the call, and the backward pass; also in `elementwise`,
                `shapes`, `operations` and `recurrent`
- `passes`      forward and back through a model's graph; what is trained, regularized, refused
- `losses`, `optimizers`, `metrics`, `callbacks`   Keras's names; `streamrnn.losses` and so on
- `loss`        what losses share; `optimizer`: what optimizers share; `schedules`: of the learning
                rate; `gradient_check`: gradients that users write
- `metric`      what metrics share; `summed_metrics`: classes that are not means
- `objective`   losses and metrics of each output
- `data`, `batches`   what `fit` accepts, as batches
- `trainer`     a compiled model and one batch; `loop`: all epochs of a fit, and `evaluate`

Models reach this room by `Model.compile`, `fit`, `evaluate`, `train_on_batch`, `test_on_batch` and
`gradients`. No bit of a weight or a loss depends on threads, the CPU or its vectors: `kernels`
computes products and sums, and NumPy computes element by element. Only the sums of
BatchNormalization are NumPy's, in float64; they are rounded to float32.
"""

from streamrnn.nn.training import callbacks, losses, metrics, optimizers
from streamrnn.nn.training.callbacks import EarlyStopping, History
from streamrnn.nn.training.loop import evaluate_arrays, fit_arrays
from streamrnn.nn.training.loss import Loss
from streamrnn.nn.training.metric import MeanMetric, Metric
from streamrnn.nn.training.optimizer import Optimizer
from streamrnn.nn.training.trainer import Trainer

__all__ = [
    "EarlyStopping", "History", "Loss", "MeanMetric", "Metric", "Optimizer", "Trainer", "callbacks",
    "evaluate_arrays", "fit_arrays", "losses", "metrics", "optimizers",
]  # fmt: skip
