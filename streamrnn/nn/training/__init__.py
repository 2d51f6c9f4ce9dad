"""Training in memory: gradients, losses, optimizers, metrics, and the loop over epochs.

`loop` runs the epochs of a fit over the batches that `data` makes of what a caller passes;
`trainer` trains on one batch. `passes` goes forward and back through the graph of a model, by a
rule for each class of layer (`rules`, `simple_rules`, `operations`, `recurrent`), and a `recording`
collects the gradients. `objective` has the losses and metrics of each output. `loss`, `metric`,
`optimizer` and `callback` hold what losses, metrics, optimizers and callbacks have in common.

Models reach this room by `Model.compile`, `fit`, `evaluate`, `train_on_batch`, `test_on_batch` and
`gradients`. No bit of a weight or a loss depends on threads, the CPU or its vector size: `kernels`
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
