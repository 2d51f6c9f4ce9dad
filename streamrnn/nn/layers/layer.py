"""Layer, the base of all layers: what it defines, and its call on arrays, or on symbols in a graph.

`build` makes the weights, `apply` computes the outputs, `compute_output_shape` and `compute_mask`
describe the outputs, and `get_config` returns the arguments that make the layer again.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.errors import ArgumentError, ConfigError, ShapeError
from streamrnn.nn.layers import initializers, registry, regularizers
from streamrnn.nn.layers.arguments import (
    CASTS,
    FOR_TRAINING,
    cast_floats,
    check_dtype,
    check_unknown,
    given_arguments,
    passed_arguments,
)
from streamrnn.nn.layers.context import CallContext, resolve_training
from streamrnn.nn.layers.declared import arguments_of
from streamrnn.nn.layers.keras_call import (
    INTERNAL,
    WHY_MISSING,
    explain_missing,
    require_constructor,
    run_call,
    shape_of_call,
)
from streamrnn.nn.layers.masks import carried, carry, joined_mask, joined_masks
from streamrnn.nn.layers.registry import ConfigDict, Configurable
from streamrnn.nn.layers.structure import Shape, leaves, map_lists, map_structure, several, unshared
from streamrnn.nn.layers.symbol import Node, Symbol, symbols_in
from streamrnn.nn.layers.weights import WEIGHT_NAMES, NamedWeights, WeightSet


class Layer(NamedWeights, WeightSet, Configurable):
    """A computation with weights.

    name: as shown in summaries, states and files; by default derived from the name of the class.
    trainable: whether training changes its weights. dtype: "float32". input_shape,
    batch_input_shape: as in Keras 2, for the first layer of a Sequential. Regularizers and
    constraints only affect training, which refuses constraints and activity_regularizer with an
    error that names them.

    A custom layer overrides `apply(inputs, context)`, and `build(input_shape)` if it has weights;
    `compute_output_shape` if the shape of its output differs from its input's:

    >>> import numpy as np
    >>> from streamrnn import layers
    >>> class Scale(layers.Layer):
    ...     stepwise = True  # a step's output needs that step alone, so it can run on streams
    ...
    ...     def build(self, input_shape):
    ...         self.add_weight("factor", input_shape[-1:], "ones")
    ...
    ...     def apply(self, inputs, context):
    ...         return inputs * self.weights[0]
    >>> Scale()(np.ones((2, 5, 3))).shape
    (2, 5, 3)

    The context has the mask (bool (B, T) or None), the initial_state and `training` of the call. A
    class written for Keras may keep its `call(self, inputs)`, which receives copies of the inputs,
    so that it may change them, and `mask` and `training` if it has these arguments. Without
    compute_output_shape, zeros are passed through `call` to learn the shape. Such a layer runs on
    streams in kind carry only if it sets `stepwise = True`, and cannot be trained. Where it
    multiplies matrices (`@`), the last bits of a row may depend on the rows beside it, and so on
    how a log is cut.
    """

    input_dtype: str = "float32"
    """The dtype of its inputs: "float32", "int64" or "string"."""

    ragged: bool = True
    """Whether rows of a batch may differ in length: no step past a row's end affects the row.

    For a custom layer, this counts only if the layer is also `stepwise`.
    """

    stepwise: bool = False
    """Whether a step's output needs only that step and the past (kept in `stream_states`)."""

    makes_mask: bool = False
    """Whether it masks steps that were unmasked."""

    sequence_input: bool = False
    """Whether its input must have a time axis."""

    supports_masking: bool = True
    """Keras's flag for passing a mask on; nothing here depends on it."""

    takes_state: bool = False
    """Whether a call accepts initial_state."""

    call_options: tuple[str, ...] = ()
    """The names of further arguments of a call, which `apply` finds in `context.options`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if own := vars(cls).get("build"):  # which sets `built` at its end, as in Keras

            @functools.wraps(own)
            def build(self: Layer, *args: Any, **kwargs: Any) -> None:
                own(self, *args, **kwargs)
                if type(self).build is build:  # no subclass makes more weights
                    self.built = True

            cls.build = build  # type: ignore[method-assign]

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
        if name is not None and not isinstance(name, str):
            raise ArgumentError(f"{type(self).__name__}: name must be a string, received {name!r}")
        self.name = name or registry.unique(registry.snake_case(type(self).__name__))
        self.nodes: list[Node] = []
        self.batch_input_shape: Shape | None = None
        if batch_input_shape is not None:
            self.batch_input_shape = tuple(batch_input_shape)
        elif input_shape is not None:
            self.batch_input_shape = (None, *input_shape)
        check_dtype(self, dtype)
        check_unknown(self, unknown)

    def __str__(self) -> str:
        return f"layer {self.name!r} ({type(self).__name__})"

    def __dir__(self) -> list[str]:
        absent = {name for name in WEIGHT_NAMES | WHY_MISSING.keys() if not hasattr(self, name)}
        return [name for name in super().__dir__() if name not in INTERNAL | absent]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name} built={self.built}>"

    @classmethod
    def is_built_in(cls) -> bool:
        """Return whether this is a class of the package, not a subclass by a user."""
        return registry.is_own(cls)

    def children(self) -> dict[str, "Layer"]:
        """Return the layers in this layer's attributes, by the prefix of their weights' names."""
        children: dict[str, Layer] = {}
        for attribute, value in vars(self).items():
            for name, layer in layers_in(attribute, value):
                if layer not in children.values():
                    children[name] = layer
        return children

    # ---- weights and outputs

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape (batch first, None where unknown)."""
        self.built = True

    def ensure_built(self, input_shape: Any) -> None:
        """Build on the first use."""
        if not self.built:
            weights = dict(self._weights)
            try:
                self.build(input_shape)
            except BaseException:  # `build` may be called again
                self._weights.clear()
                self._weights.update(weights)
                raise
            self.built = True

    def apply(self, inputs: Any, context: CallContext) -> Any:
        """Compute the outputs: arrays in, arrays out, in the structure of the output shape.

        context: mask, initial state, training, and what a model around this layer passes on.
        """
        call = self._keras_call()
        if call is None:
            raise NotImplementedError(
                f"{self} must implement `apply(inputs, context)`, or Keras's `call(inputs)`"
            )
        return run_call(self, call, inputs, context)

    def _keras_call(self) -> Callable[..., Any] | None:
        """Return the method `call` of a custom class; None without one, or for a cell."""
        call: Callable[..., Any] | None = getattr(self, "call", None)
        return None if hasattr(self, "state_size") else call

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape, or list of shapes, of the outputs for an input of this shape."""
        if self._keras_call() is None:
            return input_shape
        return shape_of_call(self, input_shape)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the outputs' mask for the inputs' `mask`: by default the same."""
        return mask

    def regularization(self) -> dict[str, object]:
        """Return the regularizers and constraints that were passed, by argument."""
        passed = passed_arguments(self).items()
        return {
            name: value
            for name, value in passed
            if name.endswith(FOR_TRAINING) and value is not None
        }

    # ---- checks of inputs

    def check_input(self, shape: Any) -> None:
        """Raise ShapeError if an input of this shape is invalid."""

    def check_initial(self, states: Any) -> None:
        """Raise ShapeError if symbols cannot be the states to start from."""

    def expect_features(self, shape: Shape, features: int, *, rank: int | None = None) -> None:
        """Raise ShapeError for another size of the last axis, or another number of axes (rank)."""
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
                f"{self}: the size of its input's last axis must be known, received shape {shape}"
            )
        return int(shape[-1])

    # ---- the call

    def __call__(
        self,
        inputs: Any,
        initial_state: Any = None,
        *,
        mask: Any = None,
        training: bool | None = None,
        lengths: Any = None,
        **options: Any,
    ) -> Any:
        """Compute outputs from arrays; on symbols, add a node to the graph and return symbols.

        initial_state: for recurrent layers. mask: bool (B, T), False where a step is to be left
        out; for several inputs, a list with one mask (or None) for each, or one mask for all.
        lengths: int (B,), a short form of a mask that leaves out the end of each row. training:
        True applies dropout and noise, and BatchNormalization takes mean and variance of the batch;
        None stands for the value of the layer whose `call` makes this call, or for False if there
        is none.

        Without `mask`, a mask that the inputs carry is used, even with an initial_state (where
        Keras 3 drops the mask). A layer that passes the mask on returns an array that carries the
        mask (`layers.MaskedArray`) or, if no step is left out, a plain array.
        """
        if options and (unknown := options.keys() - self.call_options):
            raise ArgumentError(f"{self}: its call takes no argument {min(unknown)!r}; remove it")
        # The common case, a plain array alone, skips the search: calls of one step are short.
        plain = type(inputs) is np.ndarray and initial_state is None and mask is None
        if not plain and symbols_in([inputs, initial_state, mask]):
            if lengths is not None:
                raise ArgumentError(
                    f"{self}: lengths= needs a call on arrays, not on symbols; pass it to the "
                    "model's call"
                )
            kwargs = {"initial_state": initial_state, "mask": mask, "training": training}
            return self.connect(inputs, **kwargs, **options)
        training = resolve_training(training)
        arrays = map_structure(self._cast, inputs) if several(inputs) else self._cast(inputs)
        shape = [a.shape for a in arrays] if isinstance(arrays, list) else arrays.shape
        self.ensure_built(map_lists(lambda s: (None, *s[1:]), shape))
        self.check_input(shape)
        if initial_state is not None and not self.takes_state:
            return self._step_of_a_cell(arrays, initial_state, mask, lengths, training)
        if mask is not None or lengths is not None:
            mask = self.make_mask(shape, carried(inputs) if mask is None else mask, lengths)
        elif not plain:
            mask = carried(inputs)
        context = CallContext(mask, initial_state, training, options=options)
        with context:
            outputs, masks = self.forward(arrays, context)
        outputs = unshared(outputs, arrays)
        return outputs if masks is None else carry(outputs, masks)

    def forward(self, inputs: Any, context: CallContext) -> tuple[Any, Any]:
        """Return outputs and their masks: one node of a graph, or one call on arrays."""
        outputs = self.apply(inputs, context)
        masks = carried(outputs)
        if masks is not None:  # set by a layer that `apply` called
            return map_structure(np.asarray, outputs), masks
        masks = self.compute_mask(inputs, context.mask)
        if masks is None or registry.is_own(_definer(type(self), "compute_mask")):
            return outputs, masks
        shapes = map(np.shape, leaves(outputs))

        def checked(mask: Any) -> Bools | None:
            shape = next(shapes, ())
            if mask is None:
                return None
            if np.ndim(mask) < 2 or np.shape(mask) != shape[: np.ndim(mask)]:
                raise ShapeError(
                    f"{self}: compute_mask must return a mask of shape {shape[:2]} for an output "
                    f"of shape {shape}, received {np.shape(mask)}"
                )
            return np.ascontiguousarray(mask, np.bool_)

        return outputs, map_structure(checked, masks)

    def _step_of_a_cell(
        self, inputs: Array, states: Any, mask: object, lengths: object, training: bool
    ) -> Any:
        """Compute one step of a layer that Keras uses as a cell: cell(inputs, states)."""
        from streamrnn.nn.layers.cell import as_cell  # noqa: PLC0415 - a cell is a layer

        if not hasattr(self, "state_size"):
            raise ArgumentError(
                f"{self} has no state, so it takes no initial_state; pass several inputs as a list"
            )
        if mask is not None or lengths is not None:
            raise ArgumentError(f"{self}: one step of a cell takes no mask and no lengths")
        return as_cell(self, self)(inputs, states, training=training)

    def make_mask(
        self, shape: tuple[int, ...] | list[tuple[int, ...]], mask: object, lengths: object
    ) -> Any:
        """Return mask and lengths as one checked mask (B, T), or a list for several inputs."""
        if isinstance(shape, list):
            return joined_masks(self, shape, mask, lengths)
        return joined_mask(self, shape, mask, lengths)

    def _cast(self, x: object) -> Array:
        return CASTS.get(self.input_dtype, cast_floats)(self, x)

    # ---- as part of a graph

    def connect(self, inputs: Any, **kwargs: Any) -> Any:
        """Add a node to the graph; inputs and other arguments may be nested lists of symbols."""
        if not self.takes_state and kwargs.get("initial_state") is not None:
            raise ArgumentError(f"{self} has no state, so it takes no initial_state")
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        shape = map_structure(lambda symbol: symbol.shape, inputs)
        try:
            self.ensure_built(shape)
            self.check_input(shape)
        except ShapeError as error:
            for symbol in symbols_in(inputs) if self.sequence_input else ():
                last_only = getattr(symbol.layer, "return_sequences", True) is False
                if last_only and len(symbol.shape) == 2:
                    error.args = (
                        f"{error}. The input is from {symbol.layer}, which returns only its last "
                        "output; give it return_sequences=True",
                    )
                    break
            raise
        if kwargs.get("initial_state") is not None:
            self.check_initial(kwargs["initial_state"])
        kept = {key: value for key, value in kwargs.items() if value is not None}
        node = Node(self, inputs, kept)
        return node.make_outputs(self.compute_output_shape(shape), "float32")

    @property
    def input(self) -> Any:
        """The input symbols of its call in a graph. Raises ConfigError unless there is one call."""
        return self._only_node().inputs

    @property
    def output(self) -> Any:
        """The symbol, or list of symbols, that its call made. Raises ConfigError as for `input`."""
        outputs: list[Symbol] = self._only_node().outputs
        return outputs[0] if len(outputs) == 1 else list(outputs)

    def _only_node(self) -> Node:
        if len(self.nodes) != 1:
            raise ConfigError(
                f"{self}: input and output need exactly one call in a graph, but the layer "
                f"has {len(self.nodes)} calls; use the symbols of each call instead"
            )
        return self.nodes[0]

    def __copy__(self) -> Self:
        """Return a deep copy.

        A shallow copy would share the weights, but keep its packed weights when the weights change.
        """
        return copy.deepcopy(self)

    # ---- config

    def get_config(self) -> ConfigDict:
        """Return the constructor's arguments, in a form that JSON can hold.

        By default, these are the arguments that an object of a custom class was made with, and all
        arguments that a layer of the package declares for its config.
        """
        config: ConfigDict = {"name": self.name, "trainable": self.trainable}
        declared = arguments_of(type(self))
        cls = _definer(type(self), "get_config")
        if registry.is_own(cls) and not registry.is_own(type(self)):
            base = next(cls for cls in type(self).__mro__ if registry.is_own(cls))
            taken = {*declared, *inspect.signature(base).parameters}
            config = given_arguments(self, taken) | config
        for argument, value in self.regularization().items():
            if isinstance(value, regularizers.Regularizer):
                config.setdefault(argument, regularizers.serialize(value))
            elif isinstance(value, (str, Mapping, list, tuple, int, float)):
                config.setdefault(argument, value)  # even if training will refuse it
        if self.batch_input_shape is not None:
            config["batch_input_shape"] = list(self.batch_input_shape)
        return config | {
            name: _plain(getattr(self, name))
            for name, argument in declared.items()
            if argument.in_config
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a layer from what `get_config` returned, here or in Keras."""
        return cls(**config)

    # ---- as part of a stream (models.StepRunner)

    def why_not_stepwise(self, input_shape: Any) -> str | None:
        """Return why the layer cannot compute a row's output when the row arrives, or None."""
        return None if self.stepwise else "it may need the whole time axis"

    def stream_states(self) -> dict[str, tuple[int, ...]]:
        """Return the states that are carried from step to step: name -> shape for one stream."""
        return {}

    def stream_classes(self) -> dict[str, str]:
        """Return state -> name of the class that defines its meaning, for states that have one."""
        return dict.fromkeys(self.stream_states(), type(self).__name__)

    def bind(self, inputs: Any, context: CallContext) -> tuple[Array, Callable[[], object]]:
        """Return an array of outputs, and a function that computes them again from `inputs`.

        Only for a class of the package that returns one array, without masks.
        """
        outputs: Array = self.apply(inputs, context)
        if any(np.may_share_memory(outputs, x) for x in leaves(inputs)):
            return outputs, lambda: None  # they are views of the inputs
        quietly = np.errstate(all="ignore")
        return outputs, quietly(lambda: np.copyto(outputs, self.apply(inputs, context)))

    def stream_initial(self, n: int) -> dict[str, Floats]:
        """Return the states of n new streams, (n, *shape) each."""
        return {
            name: np.zeros((n, *shape), np.float32) for name, shape in self.stream_states().items()
        }


def _definer(cls: type, method: str) -> type:
    """Return the class, this one or a base, that defines a method."""
    return next(base for base in cls.__mro__ if method in vars(base))


def layers_in(name: str, value: object) -> Iterator[tuple[str, Layer]]:
    """Yield the layers in an attribute's value, lists and dicts included, with their names."""
    if isinstance(value, Layer):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        # Their types first, which takes 30 ns an item: it may be a vocabulary.
        kinds = set(map(type, value.values() if isinstance(value, dict) else value))
        if any(issubclass(kind, Layer | list | tuple | dict) for kind in kinds):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from layers_in(f"{name}/{key}", item)


def _plain(value: object) -> object:
    """Convert a constructor's argument to the form that a config holds."""
    if isinstance(value, initializers.Initializer):
        return initializers.serialize(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


explain_missing(Layer)
require_constructor(Layer, "name", "built", "_weights")
