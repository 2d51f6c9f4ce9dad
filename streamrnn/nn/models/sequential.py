"""Sequential: a stack of layers."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from streamrnn.errors import ArgumentError, ConfigError, DTypeError, ShapeError
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.embedding import Embedding
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.operation import InputLayer
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.layers.symbol import Symbol, symbols_in
from streamrnn.nn.models.graph import Graph
from streamrnn.nn.models.model import Model


@builtin_layer
class Sequential(Model):
    """A stack of layers with one input and one output.

    It is built at once if the first layer determines the input's shape (Input, input_shape=, an
    Embedding, a model), else on the first call or by build(input_shape).
    """

    def __init__(self, layers: Sequence[Layer | Symbol] | None = None, **kwargs: Any) -> None:
        Layer.__init__(self, **kwargs)
        self._stack: list[Layer] = []
        self._graph: Graph | None = None
        self._input_structure = self._output_structure = None
        for layer in layers or ():
            self.add(layer)

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the input."""
        return list(self._stack)

    def children(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self._stack}

    def add(self, layer: object) -> None:
        """Append a layer; the first one may be an Input."""
        if isinstance(layer, Symbol) and isinstance(layer.layer, InputLayer):
            layer = layer.layer
        if not isinstance(layer, Layer):
            received = type(layer).__name__
            if isinstance(layer, type):
                received = f"the class {layer.__name__}; call it, as in {layer.__name__}(…)"
            raise DTypeError(f"{self}: expected a layer, received {received}")
        if isinstance(layer, InputLayer):
            if self._stack or self._graph is not None:
                raise ConfigError(
                    f"{self}: an Input must be the first layer"
                    + ("; this model already has one" if self._graph is not None else "")
                )
            self._start(layer.symbol)
            return
        if layer.name in self.children():
            raise ConfigError(
                f"{self}: layer names must be unique, but {layer.name!r} is already used; pass "
                "name="
            )
        if self._graph is None and not self._stack and (shape := _first_shape(layer)) is not None:
            self._start(InputLayer(batch_shape=shape, name=f"{layer.name}_input").symbol)
        self.adopt(layer)
        self._stack.append(layer)
        if self._graph is not None:
            self._extend(layer)

    def pop(self) -> None:
        """Remove the last layer."""
        if not self._stack:
            raise ConfigError(f"{self} has no layers to remove")
        self._stack.pop()
        if self._graph is not None:
            stack, self._stack = self._stack, []
            self._start(self._input_structure)
            for layer in stack:
                self.add(layer)

    def build(self, input_shape: Shape) -> None:
        """Build all layers for inputs of this shape (batch first, None where unknown)."""
        if self._graph is None:
            name = f"{self._stack[0].name}_input" if self._stack else None
            calls = [len(layer.nodes) for layer in self._stack]
            self._start(InputLayer(batch_shape=(None, *input_shape[1:]), name=name).symbol)
            try:
                for layer in self._stack:
                    self._extend(layer)
            except Exception:  # restore the state before the call
                for layer, count in zip(self._stack, calls, strict=True):
                    del layer.nodes[count:]
                self._graph = self._input_structure = self._output_structure = None
                self.built = False
                raise
        self.built = True

    def _start(self, symbol: Symbol) -> None:
        self._input_structure = symbol
        self._set_end(symbol)

    def _extend(self, layer: Layer) -> None:
        output = layer(self._output_structure)
        if len(symbols_in(output)) != 1:
            raise ConfigError(
                f"{self}: {layer} returns several outputs, but layers of a Sequential have one "
                "output; use Model(inputs, outputs)"
            )
        self._set_end(output)

    def _set_end(self, symbol: Symbol) -> None:
        self._output_structure = symbol
        self._graph = Graph([self._input_structure], [symbol])
        self.built = True

    def __call__(self, inputs: object, initial_state: object = None, **kwargs: Any) -> Any:
        if self._graph is None and not symbols_in(inputs):
            self.build_on(inputs)
        return super().__call__(inputs, initial_state, **kwargs)

    def predict(self, x: object, *args: Any, **kwargs: Any) -> Any:
        if self._graph is None:
            self.build_on(x)
        return super().predict(x, *args, **kwargs)

    def build_on(self, inputs: Any) -> None:
        if self._graph is not None:
            return None
        if not self._stack:
            raise ConfigError(f"{self} has no layers; call add(layer) first")
        shape = self._stack[0]._cast(inputs).shape
        if len(shape) < 3:
            return self.build((None, *shape[1:]))
        try:
            self.build((None, None, *shape[2:]))
        except (ShapeError, ArgumentError):  # a layer needs the number of steps: Dense on Flatten
            self.build((None, *shape[1:]))

    def get_config(self) -> dict[str, object]:
        stack = [registry.serialize(layer) for layer in self._stack]
        if self._graph is not None:
            stack.insert(0, registry.serialize(self._input_structure.layer))
        return {"name": self.name, "trainable": self.trainable, "layers": stack}

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | Sequence[Mapping[str, object]]) -> Self:
        if not isinstance(config, Mapping):  # the form of Keras 1 and early Keras 2
            config = {"layers": config}
        model = cls(name=config.get("name"), trainable=config.get("trainable", True))
        for layer in config["layers"]:
            model.add(registry.deserialize(layer))
        if model._graph is None and (shape := config.get("build_input_shape")):
            model.build(tuple(shape))
        return model


def _first_shape(layer: Layer) -> Shape | None:
    """Return the input shape of a first layer, None if unknown; for an Embedding, as in Keras 2."""
    if layer.batch_input_shape is not None:
        return layer.batch_input_shape
    if isinstance(layer, Embedding):
        return (None, layer.input_length)
    if isinstance(layer, Model) and layer._graph is not None and len(layer.inputs) == 1:
        return layer.inputs[0].shape
    return None
