"""Layer, the base of all layers: its call on arrays, or on symbols as part of a graph."""

from typing import Any

import numpy as np

from streamrnn.arrays import Array
from streamrnn.errors import ArgumentError, ConfigError, ShapeError
from streamrnn.layers.casts import cast_floats
from streamrnn.layers.context import CallContext, resolve_training
from streamrnn.layers.definition import LayerDefinition
from streamrnn.layers.keras_call import apply_by_call, own_call, shape_by_call
from streamrnn.layers.masked_array import MaskedArray
from streamrnn.layers.masks import carried, carry, joined_mask, joined_masks
from streamrnn.layers.symbol import Node, Symbol, map_lists, map_structure, symbols_in


class Layer(LayerDefinition):
    """A computation with weights.

    name: as it shows in summaries, states and files; made from the class if not given.
    trainable: whether training changes its weights. dtype: "float32".
    input_shape, batch_input_shape: as in Keras 2, for the first layer of a Sequential.
    Regularizers and constraints are accepted; training refuses them.

    A custom layer overrides `apply(inputs, context)`, and `build(input_shape)` if it has weights;
    `compute_output_shape` if its output has another shape than its input:

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

    The context has the mask (bool (B, T) or None), the initial_state and `training` of the call.
    A class written for Keras may keep its `call(self, inputs)`, with `mask` and `training` if it
    has these arguments; without compute_output_shape, zeros are passed through it to learn the
    shape. It is on streams in kind carry only if it says `stepwise = True`, and is not trained.
    """

    def children(self) -> dict[str, "Layer"]:
        """Return the layers inside this one, by the name that their weights have as a prefix.

        By default those in its attributes, and in lists there.
        """
        found: dict[str, Layer] = {}
        for name, value in vars(self).items():
            several = isinstance(value, list | tuple)
            for i, item in enumerate(value if several else [value]):
                if isinstance(item, Layer) and item not in found.values():
                    found[f"{name}/{i}" if several else name] = item
        return found

    # ---- what a class with Keras's `call` inherits

    def apply(self, inputs: Any, context: CallContext) -> Any:
        """Compute the outputs: arrays in, arrays out, in the structure of the output shape.

        context: mask, initial state, training, and what a model around this layer passes on.
        """
        return apply_by_call(self, inputs, context)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape, or list of shapes, of the outputs for an input of this shape."""
        if own_call(self) is None:
            return super().compute_output_shape(input_shape)
        return shape_by_call(self, input_shape)

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
        """Compute outputs from arrays; on symbols, add a node to the graph and return symbols.

        initial_state: recurrent layers. mask: bool (B, T), False where a step is to be left out;
        of several inputs a list with one (or None) each, or one for all. lengths: int (B,), a short
        form of a mask that leaves out each row's end. training: True applies dropout and noise, and
        BatchNormalization takes the moments of the batch; None is that of the layer around this
        one whose `call` makes this call, else False.

        Without `mask`, the inputs' own is used: an array that a layer returned carries the mask of
        its steps (`layers.MaskedArray`) if some are left out, to every call, also one with an
        initial_state (where Keras 3 forgets it). Where no step is left out, plain arrays are
        returned.
        """
        # The common case, a plain array alone, skips the search: calls of one step are short.
        plain = type(inputs) is np.ndarray and initial_state is None and mask is None
        if not plain and symbols_in([inputs, initial_state, mask]):
            if lengths is not None:
                raise ArgumentError(
                    f"{self}: lengths= belongs to data, not to the graph; pass it to the model's "
                    "call"
                )
            return self.connect(inputs, initial_state=initial_state, mask=mask, training=training)
        training = resolve_training(training)
        arrays = map_structure(self._cast, inputs) if _several(inputs) else self._cast(inputs)
        shape = [a.shape for a in arrays] if isinstance(arrays, list) else arrays.shape
        self.ensure_built(map_lists(lambda s: (None, *s[1:]), shape))
        self.check_input(shape)
        if initial_state is not None and not self.takes_state:
            return self._step_of_a_cell(arrays, initial_state, mask, lengths, training)
        if mask is not None or lengths is not None:
            mask = self.make_mask(shape, carried(inputs) if mask is None else mask, lengths)
        elif not plain:
            mask = carried(inputs)
        context = CallContext(mask, initial_state, training)
        try:
            outputs, masks = self.forward(arrays, context)
        except BaseException:
            context.undo()
            raise
        return outputs if masks is None else carry(outputs, masks)

    def forward(self, inputs: Any, context: CallContext) -> tuple[Any, Any]:
        """Return outputs and their masks: one node of a graph, or one call on arrays."""
        outputs = self.apply(inputs, context)
        if type(outputs) is MaskedArray:  # set by a layer that `apply` called
            return np.asarray(outputs), outputs._keras_mask
        return outputs, self.compute_mask(inputs, context.mask)

    def _step_of_a_cell(
        self, inputs: Array, states: Any, mask: object, lengths: object, training: bool
    ) -> Any:
        """Call a layer that Keras takes as a cell: cell(inputs, states), one step."""
        from streamrnn.layers.layer_cell import as_cell

        if not hasattr(self, "state_size"):
            raise ArgumentError(f"{self} has no state, so it takes no initial_state")
        if mask is not None or lengths is not None:
            raise ArgumentError(f"{self}: one step of a cell takes no mask and no lengths")
        return as_cell(self, str(self))(inputs, states, training=training)

    def make_mask(
        self, shape: tuple[int, ...] | list[tuple[int, ...]], mask: object, lengths: object
    ) -> Any:
        """Return a bool mask (B, T) of a mask and lengths, checked against the input's shape.

        Of several inputs, a list with one (or None) each.
        """
        if isinstance(shape, list):
            return joined_masks(str(self), shape, mask, lengths)
        return joined_mask(str(self), shape, mask, lengths)

    def _cast(self, x: object) -> Array:
        return cast_floats(str(self), x)

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
            if self.sequence_input:
                error.args = (f"{error}{_last_output_only(inputs)}",)
            raise
        if kwargs.get("initial_state") is not None:
            self.check_initial(kwargs["initial_state"])
        kept = {key: value for key, value in kwargs.items() if value is not None}
        node = Node(self, inputs, kept)
        return node.make_outputs(self.compute_output_shape(shape), "float32")

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


def _last_output_only(inputs: object) -> str:
    """Return the advice for inputs from a recurrent layer without return_sequences."""
    for symbol in symbols_in(inputs):
        if len(symbol.shape) == 2 and getattr(symbol.layer, "return_sequences", True) is False:
            return (
                f". {symbol.layer} before it returns its last output only; give it "
                "return_sequences=True"
            )
    return ""


def _several(inputs: object) -> bool:
    """Return whether this is a list of inputs, not one input given as nested numbers."""
    return (
        isinstance(inputs, list | tuple)
        and len(inputs) > 0
        and all(isinstance(item, np.ndarray) or hasattr(item, "__array__") for item in inputs)
    )
