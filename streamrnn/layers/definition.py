"""What a layer defines: name, config, weights, computation and shapes.

`build` makes the weights. `apply` computes and changes no attribute, except that a stateful layer
carries its state from call to call. `compute_output_shape` and `compute_mask` describe the outputs,
`get_config` holds the arguments to make the layer again.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from streamrnn.arrays import Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.layers import naming, registry, regularizers
from streamrnn.layers.arguments import (
    FOR_TRAINING,
    check_dtype,
    check_unknown,
    given_arguments,
)
from streamrnn.layers.context import CallContext
from streamrnn.layers.missing import INTERNAL, explain_missing, missing_in
from streamrnn.layers.registry import ConfigDict
from streamrnn.layers.symbol import Node, Shape
from streamrnn.layers.variable import WEIGHT_NAMES, NamedWeights
from streamrnn.layers.weights import WeightSet


class _MadeWith:
    """Keeps the arguments of the constructor. A base, so that `__init__` gives the signature."""

    _made_with: tuple[tuple[object, ...], dict[str, object]]

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        made = super().__new__(cls)
        made._made_with = args, kwargs
        return made


class LayerDefinition(NamedWeights, WeightSet, _MadeWith):
    """The methods that a layer overrides, and what they share.

    Here `inputs` and shapes are those of any layer: one or a list. An override annotates what it
    accepts.
    """

    input_dtype: str = "float32"
    """The dtype of its inputs: "float32", "int64" or "string"."""

    ragged: bool = True
    """Whether a batch may mix rows of different lengths. (Not if the time axis changes.)"""

    stepwise: bool = False
    """Whether a step's output needs that step alone, or also the past (`stream_states`)."""

    makes_mask: bool = False
    """Whether it masks steps that came unmasked."""

    sequence_input: bool = False
    """Whether its input must have a time axis."""

    supports_masking: bool = True
    """Whether it passes a mask on, as Keras has it; nothing here depends on it."""

    takes_state: bool = False
    """Whether a call accepts initial_state."""

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: object = None,
        input_shape: Sequence[int | None] | None = None,
        batch_input_shape: Sequence[int | None] | None = None,
        **unknown: object,
    ) -> None:
        super().__init__(trainable=trainable)
        _check_name(type(self).__name__, name)
        self.name = name or self._automatic_name()
        self.nodes: list[Node] = []
        self.batch_input_shape: Shape | None = None
        if batch_input_shape is not None:
            self.batch_input_shape = tuple(batch_input_shape)
        elif input_shape is not None:
            self.batch_input_shape = (None, *input_shape)
        check_dtype(self, dtype)
        check_unknown(self, unknown)

    def _automatic_name(self) -> str:
        return naming.unique(naming.snake_case(type(self).__name__))

    def __str__(self) -> str:
        return f"layer {self.name!r} ({type(self).__name__})"

    def __dir__(self) -> list[str]:
        absent = {name for name in WEIGHT_NAMES if not hasattr(self, name)}
        hidden = INTERNAL | missing_in(type(self)) | absent
        return [name for name in super().__dir__() if name not in hidden]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name} built={self.built}>"

    @classmethod
    def is_built_in(cls) -> bool:
        """Return whether this is a class of the package, not a subclass by a user."""
        return registry.is_own(cls)

    # ---- weights and outputs

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape (batch first, None where unknown)."""
        self.built = True

    def ensure_built(self, input_shape: Any) -> None:
        """Build on the first use."""
        if not self.built:
            self.build(input_shape)
            self.built = True

    def apply(self, inputs: Any, context: CallContext) -> Any:
        """Compute the outputs: arrays in, arrays out, in the structure of the output shape.

        context: mask, initial state, training, and what a model around this layer passes on.
        """
        raise NotImplementedError(f"{self} must implement `apply`")

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape, or list of shapes, of the outputs for an input of this shape."""
        return input_shape

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the mask of the outputs, given that of the inputs: by default the same."""
        return mask

    def regularization(self) -> dict[str, object]:
        """Return the regularizers and constraints that it was made with, by argument."""
        args, kwargs = self._made_with
        given = inspect.signature(type(self)).bind(*args, **kwargs).arguments
        named = {**given, **given.get("kwargs", {})}
        return {
            name: value
            for name, value in named.items()
            if name.endswith(FOR_TRAINING) and value is not None
        }

    # ---- checks of inputs

    def check_input(self, shape: Any) -> None:
        """Raise ShapeError if an input of this shape is invalid."""

    def check_initial(self, states: Any) -> None:
        """Raise ShapeError if symbols cannot be the states to start from."""

    def expect_features(self, shape: Shape, features: int, *, rank: int | None = None) -> None:
        """Check the size of the last axis, and the number of axes if given. Raises ShapeError."""
        if rank is not None and len(shape) != rank:
            axes = {2: "(batch, features)", 3: "(batch, time, features)"}.get(rank, "")
            raise ShapeError(f"{self}: expected {rank} axes {axes}, received shape {shape}")
        if not shape or shape[-1] != features:
            raise ShapeError(
                f"{self}: expected {features} features on the last axis, received shape {shape}"
            )

    def known_features(self, shape: Shape) -> int:
        """Return the size of the last axis. Raises ShapeError if it is unknown."""
        if not isinstance(shape, tuple) or not shape or shape[-1] is None:
            raise ShapeError(
                f"{self}: the last axis of its input must be known to build it, received {shape}"
            )
        return int(shape[-1])

    # ---- config

    def get_config(self) -> ConfigDict:
        """Return the constructor's arguments, JSON-able.

        By default, those that an object of a custom class was made with.
        """
        config: ConfigDict = {"name": self.name, "trainable": self.trainable}
        generic = type(self).get_config is LayerDefinition.get_config
        if generic and not registry.is_own(type(self)):
            config = given_arguments(self, *self._made_with) | config
        for argument, value in self.regularization().items():
            if (kept := _as_config(value)) is not None:
                config.setdefault(argument, kept)
        if self.batch_input_shape is not None:
            config["batch_input_shape"] = list(self.batch_input_shape)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a layer from what `get_config` returned, here or in Keras."""
        return cls(**config)

    # ---- as part of a stream (models.StepRunner)

    def why_not_stepwise(self, input_shape: Any) -> str | None:
        """Return why this layer cannot give each row its output at once, or None if it can."""
        return None if self.stepwise else "it may need the whole time axis"

    def stream_states(self) -> dict[str, tuple[int, ...]]:
        """Return what is carried from step to step: name -> shape of one stream's."""
        return {}

    def stream_classes(self) -> dict[str, str]:
        """Return the class that gives each of these states its meaning, where one is known."""
        return dict.fromkeys(self.stream_states(), type(self).__name__)

    def stream_initial(self, n: int) -> dict[str, Floats]:
        """Return the states of n new streams, (n, *shape) each."""
        return {
            name: np.zeros((n, *shape), np.float32) for name, shape in self.stream_states().items()
        }


def _as_config(value: object) -> object:
    """Return a regularizer or constraint as a config holds it; None for what none can hold."""
    if isinstance(value, regularizers.Regularizer):
        return regularizers.serialize(value)
    # Kept even if training will refuse it.
    return value if isinstance(value, (str, Mapping, list, tuple, int, float)) else None


def _check_name(class_name: str, name: object) -> None:
    if name is not None and not isinstance(name, str):
        raise ArgumentError(f"{class_name}: name must be a string, received {name!r}")


explain_missing(LayerDefinition)
