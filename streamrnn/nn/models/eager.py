"""Eager: a model whose class has its own `call`, which computes in Python."""

import inspect
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import numpy as np

from streamrnn.errors import ArgumentError, ConfigError, ShapeError, UnsupportedError
from streamrnn.nn.layers.arguments import cast_floats
from streamrnn.nn.layers.context import resolve_training, training_inside
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.structure import Shape, filled, leaves, map_lists, map_structure, several
from streamrnn.nn.layers.symbol import symbols_in
from streamrnn.nn.models.graph import Graph
from streamrnn.nn.models.model import Model


class Eager(Model):
    """The base of model classes with their own `call(self, inputs)`.

    A call of the model runs the method `call` on arrays. The weights belong to layers: attributes
    of the model, or items of lists and dictionaries that are attributes. What needs a graph of
    layers raises ConfigError.
    """

    def __init__(self, inputs: object = None, outputs: object = None, **kwargs: Any) -> None:
        Layer.__init__(self, **kwargs)
        if inputs is not None or outputs is not None:
            raise ConfigError(f"{self} has its own `call`, so it takes no inputs and outputs")
        self._graph = None

    @property
    def graph(self) -> Graph:
        """Raises ConfigError: the model has no graph."""
        raise ConfigError(
            f"{self} computes in Python, in its own call: it can be called, and has predict, "
            "weights, save_weights and load_weights. To train it, run it on streams, show its "
            "summary or config, save it whole or use it in another model, a graph of layers is "
            "needed. If its call only calls layers, Model(x, model.call(x)) with x = Input(…) is "
            "such a graph, with the same weights"
        )

    @property
    def layers(self) -> list[Layer]:
        return list(self.children().values())

    def children(self) -> dict[str, Layer]:
        return Layer.children(self)

    def build(self, input_shape: Shape) -> None:
        """Make the weights: pass zeros of this shape through `call`, with 2 for unknown sizes."""
        if self._has_own_build():
            self.built = True
        else:
            self(map_lists(lambda shape: np.zeros([n or 2 for n in shape], "f4"), input_shape))
            self.reset_state()

    def _has_own_build(self) -> bool:
        return type(self).build is not Eager.build

    def __call__(self, inputs: Any, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Return what `call` returns for arrays; other arguments are passed on to `call`."""
        if symbols_in(inputs):
            return self.graph
        inputs = self._arrays(inputs)
        if not self.built and self._has_own_build():
            self.build(map_structure(np.shape, inputs))
        call = self.call  # type: ignore[attr-defined]  # a subclass has it
        training = resolve_training(training)
        if "training" in inspect.signature(call).parameters:
            kwargs["training"] = training
        with training_inside(training):  # a copy, which `call` may change in place
            outputs = call(map_structure(lambda x: x.copy(), inputs), *args, **kwargs)
        self.built = True
        return outputs

    def _arrays(self, inputs: Any) -> Any:
        """Return arrays: float64 as float32, others as they are, for lookups and embeddings."""

        def array(x: Any) -> Any:
            x = x if isinstance(x, np.ndarray) else np.asarray(x)
            return cast_floats(str(self), x) if x.dtype == np.float64 else x

        together = isinstance(inputs, dict) or several(inputs)
        return map_structure(array, inputs) if together else array(inputs)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: object = None,
        steps: None = None,
        callbacks: None = None,
        **options: Any,
    ) -> Any:
        """Return the outputs for many rows, `batch_size` at a time (all at once by default)."""
        if steps is not None or callbacks is not None or options:
            raise ArgumentError(
                f"{self}: predict of a model with its own call takes only x and "
                "batch_size; model(x, training=True) is a call in training"
            )
        arrays = self._arrays(x)
        rows = len(next(leaves(arrays)))
        if any(len(array) != rows for array in leaves(arrays)):
            received = ", ".join(str(len(array)) for array in leaves(arrays))
            raise ShapeError(
                f"{self}: predict: all inputs must have the same number of rows, "
                f"received {received}"
            )
        size = self.batch_size_of(rows, batch_size)
        cuts = [slice(start, start + size) for start in range(0, max(rows, 1), size)]
        # Copies: `call` may write each output into the same array.
        parts = [map_structure(np.copy, self(map_structure(itemgetter(c), arrays))) for c in cuts]
        joined = [np.concatenate(of) for of in zip(*map(leaves, parts), strict=True)]
        return filled(parts[0], joined)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a model from the arguments of its constructor."""
        return cls(**config)

    def save(self, path: str | Path) -> None:
        """Raise ConfigError: a file cannot hold the Python code of `call`."""
        self.graph  # noqa: B018 (raises)

    def save_weights(self, filepath: str | Path, overwrite: bool = True) -> None:
        self._require_built()
        super().save_weights(filepath, overwrite)

    def load_weights(self, path: str | Path) -> None:
        """Set the weights from what `save_weights` wrote."""
        self._require_built()
        if not str(path).lower().endswith(".safetensors"):
            raise UnsupportedError(
                f"{path}: {self} has its own `call`, and Keras stores the layers of such a model "
                "in groups that the file does not explain. Load the file in Keras, and pass "
                "model.get_weights() to set_weights here"
            )
        super().load_weights(path)

    def _require_built(self) -> None:
        if not self.built:
            raise ConfigError(
                f"{self} has no weights yet: call it on data, or call build(input_shape)"
            )
