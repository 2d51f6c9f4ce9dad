"""Windows of `Pipeline.windows` as batches: lanes that continue, or start again."""

from typing import Any

import numpy as np

from streamrnn.errors import ArgumentError
from streamrnn.nn.layers import RNN, Bidirectional, Layer
from streamrnn.nn.training.batches import Batch, class_weights
from streamrnn.nn.training.lanes import memories
from streamrnn.nn.training.trainer import Trainer


def is_window(item: Any) -> bool:
    """Return whether this is a window; its room is above this one, so that it has no class here."""
    return all(hasattr(item, name) for name in ("inputs", "lengths", "reset", "resumes", "y"))


def batch_of_window(trainer: Trainer, window: Any, class_weight: Any) -> Batch:
    """Return the batch of a window: lanes with `reset` start from the initial state.

    Steps without a label add nothing to the loss, which is a mean over all steps, as in Keras, and
    count in no metric. Raises ArgumentError for windows without labels, for a model that does not
    carry its state, and for a lane that would start from a stored state.
    """
    model = trainer.model
    if window.y is None:
        raise ArgumentError(f"{model}: the windows have no labels; add [target] to the pipeline")
    if window.resumes.any():
        raise ArgumentError(
            f"{model}: a lane starts from the stored state of its stream, which fit does not read; "
            "make the windows of a pipeline without [state] init"
        )
    if forgetful := _forgetful(model):
        raise ArgumentError(
            f"{model}: {forgetful[0]} does not carry its state from window to window; "
            + (
                "make it with stateful=True"
                if isinstance(forgetful[0], RNN | Bidirectional)
                else "train the model with streamrnn fit, which carries it"
            )
        )
    missing = np.isnan(window.y)
    labelled = ~missing.any(axis=-1)
    y = np.where(missing, np.float32(0), window.y)
    weight = window.weight
    if class_weight is not None:
        weight = weight * class_weights(y, class_weight, y.ndim)
    batch = trainer.batch(window.inputs, y, weight, window.lengths)
    reset = window.reset if memories(model) else None
    return batch._replace(reset=reset, labelled=labelled.astype(np.float32))


def _forgetful(layer: Layer) -> list[Layer]:
    """Return the layers that start from zero in each call, and on a stream do not."""
    if isinstance(layer, RNN):
        return [] if layer.stateful else [layer]
    if not layer.children() and layer.built and layer.stream_states():
        return [layer]
    return [found for child in layer.children().values() for found in _forgetful(child)]
