"""The base of all layers: names, weights, building, and the call on arrays or on symbols.

A layer says what it is in a few methods: `build` makes the weights, `apply` computes (and touches
no attribute, except that a stateful layer carries its state from call to call),
`compute_output_shape` and `compute_mask` say what comes out, `get_config` how to make it again.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any, Self

import numpy as np

from streamrnn.arrays import Array, Floats
from streamrnn.errors import ArgumentError as ArgumentError
from streamrnn.errors import ConfigError, DTypeError, ShapeError
from streamrnn.layers import initializers, naming, registry
from streamrnn.layers.arguments import given_arguments
from streamrnn.layers.casts import cast_floats
from streamrnn.layers.context import CallContext
from streamrnn.layers.masked_array import MaskedArray
from streamrnn.layers.masks import carried, carry, joined_mask, joined_masks
from streamrnn.layers.symbol import Node, Shape, Symbol, map_lists, map_structure, symbols_in

_REFUSED_ARGUMENTS = {
    "time_major": "arrays are (batch, time, features); transpose them first",
    "weights": "call set_weights on the built layer",
    "lora_rank": "merge the LoRA weights into the kernel first",
    "quantization_config": "weights are float32",
    "use_cudnn": "there is no GPU",
    "autocast": "everything is float32",
    "sparse": "inputs are dense arrays",
    "ragged": "give a padded array and lengths=",
    "constants": "pass what is constant as features",
}
_FOR_TRAINING = ("_regularizer", "_constraint")


class Layer:
    """A computation with weights.

    name: as it shows in summaries, states and files; made from the class if not given.
    trainable: only counted in summaries. dtype: "float32".
    input_shape, batch_input_shape: as in Keras 2, for the first layer of a Sequential.
    Regularizers and constraints are accepted, as they matter only to training.
    """

    input_dtype: str = "float32"
    """What it reads: "float32", "int64" or "string"."""

    ragged: bool = True
    """Are rows of different lengths right in one batch? (Not if the time axis changes.)"""

    stepwise: bool = False
    """Does each step's output need that step only, or what has passed (`stream_states`)?"""

    makes_mask: bool = False
    """Does it mask steps that came unmasked?"""

    takes_state: bool = False
    """Does a call accept initial_state?"""

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        layer = super().__new__(cls)
        layer._made_with = args, kwargs
        return layer

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        input_shape: Sequence[int | None] | None = None,
        batch_input_shape: Sequence[int | None] | None = None,
        **unknown: Any,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise ArgumentError(f"{type(self).__name__}: name must be a string, received {name!r}")
        self.name = name or self._automatic_name()
        self.trainable = trainable
        self.built = False
        self.nodes: list[Node] = []
        self._weights: dict[str, Floats] = {}
        self._not_trainable: set[str] = set()
        self.batch_input_shape: Shape | None = None
        if batch_input_shape is not None:
            self.batch_input_shape = tuple(batch_input_shape)
        elif input_shape is not None:
            self.batch_input_shape = (None, *input_shape)
        self._check_dtype(dtype)
        self._check_unknown(unknown)

    def _automatic_name(self) -> str:
        return naming.unique(naming.snake_case(type(self).__name__))

    def _check_dtype(self, dtype: Any) -> None:
        if isinstance(dtype, Mapping):
            dtype = dtype.get("config", {}).get("name")
        if dtype not in (None, "float32", np.float32):
            raise ArgumentError(
                f"{self}: dtype must be 'float32', received {dtype!r}; all layers compute in "
                "float32"
            )

    def _check_unknown(self, unknown: Mapping[str, Any]) -> None:
        for argument, value in unknown.items():
            if argument.endswith(_FOR_TRAINING):
                continue
            if argument in _REFUSED_ARGUMENTS:
                if value in (None, False) or value == "auto":
                    continue
                raise ArgumentError(
                    f"{self}: the Keras argument {argument}={value!r} is refused: "
                    f"{_REFUSED_ARGUMENTS[argument]}"
                )
            raise ArgumentError(f"{self}: unknown argument {argument!r}")

    def __str__(self) -> str:
        return f"layer {self.name!r} ({type(self).__name__})"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name} built={self.built}>"

    # ---- what a layer defines

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape (batch first, None where unknown)."""
        self.built = True

    def apply(self, inputs: Any, context: CallContext) -> Any:
        """Compute the outputs: arrays in, arrays out, in the structure of the output shape.

        context: mask, initial state, training, and what a model around this layer passes on.
        """
        raise NotImplementedError(f"{self} does not say how it computes")

    def forward(self, inputs: Any, context: CallContext) -> tuple[Any, Any]:
        """Outputs and their masks: one node of a graph, or one call on arrays."""
        outputs = self.apply(inputs, context)
        if type(outputs) is MaskedArray:  # a layer called inside has said which steps count
            return np.asarray(outputs), outputs._keras_mask
        return outputs, self.compute_mask(inputs, context.mask)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape, or list of shapes, that comes out for an input of this shape."""
        return input_shape

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the outputs, given that of the inputs: by default it passes through."""
        return mask

    def children(self) -> dict[str, "Layer"]:
        """Layers inside this one, by the name their weights stand under.

        By default those in its attributes, and in lists there.
        """
        found: dict[str, Layer] = {}
        for name, value in vars(self).items():
            several = isinstance(value, list | tuple)
            for i, item in enumerate(value if several else [value]):
                if isinstance(item, Layer) and item not in found.values():
                    found[f"{name}/{i}" if several else name] = item
        return found

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-able.

        By default, those that a class of yours was made with.
        """
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable}
        if type(self).get_config is Layer.get_config and not registry.is_own(type(self)):
            config = given_arguments(self, *self._made_with) | config
        if self.batch_input_shape is not None:
            config["batch_input_shape"] = list(self.batch_input_shape)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a layer from what `get_config` returned, here or in Keras."""
        return cls(**config)

    # ---- as part of a stream (models.Stream)

    def why_not_stepwise(self, input_shape: Any) -> str | None:
        """Why this layer cannot give each row its output as it comes, or None if it can."""
        return None if self.stepwise else "it may need the whole time axis"

    def stream_states(self) -> dict[str, tuple[int, ...]]:
        """What it carries from step to step: name -> shape of one stream's."""
        return {}

    def stream_initial(self, n: int) -> dict[str, Floats]:
        """The states of n streams that have not begun, (n, *shape) each."""
        return {
            name: np.zeros((n, *shape), np.float32) for name, shape in self.stream_states().items()
        }

    # ---- as part of a graph

    @property
    def input(self) -> Any:
        """The symbol (or structure) it was called on. ConfigError if not called exactly once."""
        return self._only_node().inputs

    @property
    def output(self) -> Any:
        """The symbol it made, a list if several. ConfigError if not called exactly once."""
        outputs: list[Symbol] = self._only_node().outputs
        return outputs[0] if len(outputs) == 1 else list(outputs)

    def _only_node(self) -> Node:
        if len(self.nodes) != 1:
            raise ConfigError(
                f"{self}: input and output are those of its one call in a graph; it has "
                f"{len(self.nodes)} calls"
            )
        return self.nodes[0]

    # ---- weights

    def add_weight(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Any = "glorot_uniform",
        *,
        trainable: bool = True,
        dtype: Any = None,
        regularizer: Any = None,
        constraint: Any = None,
    ) -> Floats:
        """Make a weight and return it: float32, read-only, its values change by set_weights.

        regularizer, constraint: taken, as they matter only to training. dtype: "float32" or None.
        """
        self._check_dtype(dtype)
        weight = np.array(initializers.get(initializer)(tuple(shape)), np.float32, order="C")
        weight.flags.writeable = False
        self._weights[name] = weight
        if not trainable:
            self._not_trainable.add(name)
        return weight

    def weights_changed(self) -> None:
        """Called after weights were set: drop what was made from the old ones."""

    def named_weights(self) -> dict[str, Floats]:
        """All weights, own first, then those of the layers inside: "cell/kernel" -> array."""
        found = dict(self._weights)
        for prefix, child in self.children().items():
            found |= {f"{prefix}/{name}": w for name, w in child.named_weights().items()}
        return found

    def _holders(self) -> list[tuple["Layer", str, bool]]:
        """(layer, weight name, trainable) of all weights, in the order of named_weights."""
        own = [(self, name, self._trains(name)) for name in self._weights]
        for child in self.children().values():
            own += [
                (layer, name, trains and self.trainable) for layer, name, trains in child._holders()
            ]
        return own

    def _trains(self, name: str) -> bool:
        return self.trainable and name not in self._not_trainable

    @property
    def weights(self) -> list[Floats]:
        """All weights, read-only, in Keras's order."""
        return list(self.named_weights().values())

    def get_weights(self) -> list[Floats]:
        """Copies of all weights, in Keras's order."""
        return [weight.copy() for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace the values of all weights, in place (a cell may keep `self.kernel`).

        Casts to float32. Raises ShapeError where number or shapes differ, DTypeError for what is
        no list of numbers.
        """
        if isinstance(weights, str | bytes) or not isinstance(weights, Iterable):
            raise DTypeError(
                f"{self}: expected a list of arrays, one a weight, received {weights!r:.80}"
            )
        weights = list(weights)
        names = list(self.named_weights())
        if len(weights) != len(names):
            raise ShapeError(
                f"{self}: expected {len(names)} weights ({', '.join(names) or 'none'}), received "
                f"{len(weights)}" + ("" if self.built else "; the layer is not built yet")
            )
        arrays: list[Array] = [np.asarray(weight) for weight in weights]
        holders = self._holders()
        for (layer, key, _), name, array in zip(holders, names, arrays, strict=True):
            expected = layer._weights[key].shape
            if array.shape != expected:
                raise ShapeError(
                    f"{self}: weight {name!r} has shape {expected}, received {array.shape}"
                )
            if array.dtype.kind not in "fiub":
                raise DTypeError(f"{self}: weight {name!r} must be numbers, got {array.dtype}")
        # All are copied before the first is written: they may be views of these very weights.
        values = [np.array(array, dtype=np.float32) for array in arrays]
        for (layer, key, _), value in zip(holders, values, strict=True):
            _write(layer._weights[key], value)
        for layer in {id(layer): layer for layer, _, _ in holders}.values():
            layer.weights_changed()

    def count_params(self) -> int:
        """The number of weights' values."""
        return sum(weight.size for weight in self.weights)

    def trainable_params(self) -> int:
        """The number of values in trainable weights."""
        return sum(layer._weights[key].size for layer, key, trains in self._holders() if trains)

    # ---- the call

    def __call__(
        self,
        inputs: Any,
        initial_state: Any = None,
        *,
        mask: Any = None,
        training: bool | None = None,
        lengths: Any = None,
    ) -> Any:
        """Arrays in, arrays out; on symbols it adds a node to the graph and returns symbols.

        initial_state: recurrent layers. mask: bool (B, T), False where a step is to be left out;
        of several inputs a list with one (or None) each, or one for all. lengths: int (B,), a short
        form of a mask that leaves out each row's end. training: True applies dropout.

        Without `mask`, the inputs' own is used: an array that a layer returned carries the mask of
        its steps (`layers.MaskedArray`) if some are left out, to every call, also one with an
        initial_state (where Keras 3 forgets it). Where no step is left out, plain arrays come out.
        """
        # A plain array alone, the common case, is known at a glance: calls of one step are short.
        plain = type(inputs) is np.ndarray and initial_state is None and mask is None
        if not plain and symbols_in([inputs, initial_state, mask]):
            if lengths is not None:
                raise ArgumentError(
                    f"{self}: lengths= belongs to data, not to the graph; give it to the model's "
                    "call"
                )
            return self.connect(inputs, initial_state=initial_state, mask=mask, training=training)
        arrays = map_structure(self._cast, inputs) if _several(inputs) else self._cast(inputs)
        shape = [a.shape for a in arrays] if isinstance(arrays, list) else arrays.shape
        self.ensure_built(map_lists(lambda s: (None, *s[1:]), shape))
        self.check_input(shape)
        if initial_state is not None and not self.takes_state:
            return self._step_of_a_cell(arrays, initial_state, mask, lengths, bool(training))
        if mask is not None or lengths is not None:
            mask = self.make_mask(shape, carried(inputs) if mask is None else mask, lengths)
        elif not plain:
            mask = carried(inputs)
        context = CallContext(mask, initial_state, bool(training))
        try:
            outputs, masks = self.forward(arrays, context)
        except BaseException:
            context.undo()
            raise
        return outputs if masks is None else carry(outputs, masks)

    def _step_of_a_cell(
        self, inputs: Any, states: Any, mask: Any, lengths: Any, training: bool
    ) -> Any:
        """cell(inputs, states) of a layer that Keras takes as a cell: one step, as of a Cell."""
        from streamrnn.layers.layer_cell import as_cell

        if not hasattr(self, "state_size"):
            raise ArgumentError(f"{self} has no state, so it takes no initial_state")
        if mask is not None or lengths is not None:
            raise ArgumentError(f"{self}: one step of a cell takes no mask and no lengths")
        return as_cell(self, str(self))(inputs, states, training=training)

    def connect(self, inputs: Any, **kwargs: Any) -> Any:
        """Add a node to the graph; inputs and other arguments may be nested lists of symbols."""
        if not self.takes_state and kwargs.get("initial_state") is not None:
            raise ArgumentError(f"{self} has no state, so it takes no initial_state")
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        shape = map_structure(lambda symbol: symbol.shape, inputs)
        self.ensure_built(shape)
        self.check_input(shape)
        if kwargs.get("initial_state") is not None:
            self.check_initial(kwargs["initial_state"])
        kept = {key: value for key, value in kwargs.items() if value is not None}
        node = Node(self, inputs, kept)
        return node.make_outputs(self.compute_output_shape(shape), "float32")

    def ensure_built(self, input_shape: Any) -> None:
        """Build on the first use."""
        if not self.built:
            self.build(input_shape)
            self.built = True

    def check_input(self, shape: Any) -> None:
        """Raise ShapeError where an input of this shape cannot be right."""

    def check_initial(self, states: Any) -> None:
        """Raise ShapeError where symbols cannot be the states to start from."""

    def expect_features(self, shape: Shape, features: int, *, rank: int | None = None) -> None:
        """The check most layers need: the last axis, and the number of axes if given."""
        if rank is not None and len(shape) != rank:
            axes = {2: "(batch, features)", 3: "(batch, time, features)"}.get(rank, "")
            raise ShapeError(f"{self}: expected {rank} axes {axes}, received shape {shape}")
        if not shape or shape[-1] != features:
            raise ShapeError(
                f"{self}: expected {features} features on the last axis, received shape {shape}"
            )

    def known_features(self, shape: Shape) -> int:
        """The size of the last axis, which building needs. Raises ShapeError if it is unknown."""
        if not isinstance(shape, tuple) or not shape or shape[-1] is None:
            raise ShapeError(
                f"{self}: the last axis of its input must be known to build it, received {shape}"
            )
        return int(shape[-1])

    def make_mask(self, shape: Any, mask: Any, lengths: Any) -> Any:
        """A bool mask (B, T) of a mask and lengths, checked against the input's shape.

        Of several inputs, a list with one (or None) each.
        """
        if isinstance(shape, list):
            return joined_masks(str(self), shape, mask, lengths)
        return joined_mask(str(self), shape, mask, lengths)

    def _cast(self, x: Any) -> Array:
        return cast_floats(str(self), x)


def positive_integer(who: str, argument: str, value: Any) -> int:
    """A size, 1 or more, NumPy's integers included. Raises ArgumentError naming the layer."""
    try:
        number = 0 if isinstance(value, bool) else index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ArgumentError(f"{who}: {argument} must be a positive integer, received {value!r}")
    return number


def _several(inputs: Any) -> bool:
    """Is this a list of inputs, or one input given as nested numbers?"""
    return (
        isinstance(inputs, list | tuple)
        and len(inputs) > 0
        and all(isinstance(item, np.ndarray) or hasattr(item, "__array__") for item in inputs)
    )


def _write(weight: Floats, value: Floats) -> None:
    weight.flags.writeable = True
    try:
        weight[...] = value
    finally:
        weight.flags.writeable = False
