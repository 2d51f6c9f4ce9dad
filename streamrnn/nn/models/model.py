"""Model: a graph of layers between symbols, and the methods of all models."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.base.provider import provided
from streamrnn.errors import ArgumentError, ConfigError, ShapeError, StateError
from streamrnn.nn.layers.arguments import cast_input, without_training
from streamrnn.nn.layers.context import CallContext, resolve_training
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.masks import carried, carry
from streamrnn.nn.layers.precision import packed_weights, precision_of
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape, T, filled, map_structure, unshared
from streamrnn.nn.layers.symbol import Symbol, symbols_in
from streamrnn.nn.models import config as model_config
from streamrnn.nn.models.graph import Graph, one_fixed, positions_of
from streamrnn.nn.models.summary import Print, html_summary, in_one_line, print_summary
from streamrnn.nn.models.trainable import Trainable


@builtin_layer
class Model(Trainable, Layer):
    """Model(inputs, outputs): each is a symbol, or a list or dictionary of symbols.

    A call returns the structure of `outputs`. A model is a layer: it can be called on symbols,
    in another model. A subclass with its own `call(self, inputs)` is computed in Python, as in
    Keras; what needs a graph is refused.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "predict_step"):
            raise ConfigError(
                f"{cls.__name__}: predict does not run a predict_step: override predict instead"
            )
        if hasattr(cls, "call") and not issubclass(cls, eager := provided("Eager")):
            graphs = (base for base in cls.__mro__[1:] if issubclass(base, Model))
            built_in = next(base for base in graphs if base.is_built_in())
            if built_in is not Model:
                raise ConfigError(
                    f"{cls.__name__}: {built_in.__name__} does not run the `call` of a "
                    "subclass: derive the class from Model"
                )
            bases = tuple(eager if base is Model else base for base in cls.__bases__)
            cls.__bases__ = bases if eager in bases else (*bases, eager)

    def __init__(self, inputs: object = None, outputs: object = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if inputs is None or outputs is None:
            raise ConfigError(f"{self}: expected inputs and outputs, as in Model(inputs, outputs)")
        symbols = symbols_in(inputs), symbols_in(outputs)
        if not all(symbols):
            raise ConfigError(f"{self}: inputs and outputs must be symbols, from Input or a layer")
        self._input_structure: Any = map_structure(lambda symbol: symbol, inputs)
        self._output_structure: Any = map_structure(lambda symbol: symbol, outputs)
        self._graph: Graph | None = Graph(*symbols)
        names = [layer.name for layer in self._graph.layers]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(
                f"{self}: layer names must be unique, but some are used more than once: "
                f"{', '.join(repeated)}"
            )
        self.built = True

    # ---- parts

    @property
    def graph(self) -> Graph:
        """The sorted calls. Raises ConfigError if the model is not built."""
        if self._graph is None:
            raise ConfigError(
                f"{self} is not built: its input size is unknown. Call it on data, pass "
                "input_shape= to the first layer, or call build(input_shape)"
            )
        return self._graph

    @property
    def layers(self) -> list[Layer]:
        """The layers, in Keras's order."""
        return list(self.graph.layers)

    @property
    def inputs(self) -> list[Symbol]:
        """The input symbols."""
        return list(self.graph.inputs)

    @property
    def outputs(self) -> list[Symbol]:
        """The output symbols."""
        return list(self.graph.outputs)

    @property
    def input(self) -> Any:
        """The input symbol, or the structure of symbols that was passed to the constructor."""
        symbols = self.graph.inputs  # first, because it raises if the model is not built
        return filled(self._input_structure, symbols)

    @property
    def output(self) -> Any:
        """The output symbol, or the structure of symbols that was passed to the constructor."""
        return self._structured(self.graph.outputs)

    @property
    def input_shape(self) -> Shape | list[Shape]:
        """The shape of the input, or a list of shapes if there are several."""
        shapes = [symbol.shape for symbol in self.graph.inputs]
        return shapes[0] if len(shapes) == 1 else shapes

    @property
    def output_shape(self) -> Shape | list[Shape]:
        """The shape of the output, or a list of shapes if there are several."""
        shapes = [symbol.shape for symbol in self.graph.outputs]
        return shapes[0] if len(shapes) == 1 else shapes

    @property
    def input_specs(self) -> list[tuple[str, Shape, str]]:
        """(name, shape without the batch, "float32" | "int64" | "string") of each input."""
        graph = self.graph
        if graph.specs is None:
            graph.specs = [
                (symbol.layer.name, symbol.shape[1:], _input_dtype(graph, symbol))
                for symbol in graph.inputs
            ]
        return list(graph.specs)

    @property
    def input_steps(self) -> dict[str, int | None]:
        """The number of steps that each input declares, by its name; None if it takes any."""
        vectors = ((), "float32"), ((1,), "float32")
        return {n: None if (s, of) in vectors else s[0] for n, s, of in self.input_specs}

    @property
    def declared_steps(self) -> int | None:
        """The number of steps, above 1, that the inputs declare.

        None if they declare no such number, or more than one; and for a stateful model, as its
        windows continue one another.
        """
        shapes = [shape for _, shape, _ in self.input_specs if shape]
        return None if self.stateful_layers() else one_fixed(shape[0] for shape in shapes)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return the layer of this name or index. Raises ConfigError if there is none."""
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ConfigError(
                    f"{self}: the number of layers is {len(layers)}, received index {index}"
                )
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in layers)
        raise ConfigError(f"{self} has no layer {name!r}; it has: {names}")

    def children(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers} if self._graph else {}

    def build(self, input_shape: Shape) -> None:
        """Do nothing: the constructor builds the model."""

    def compute_output_shape(self, input_shape: object) -> Any:
        shapes = self._listed(input_shape)
        return self._structured(self.graph.infer(shapes if isinstance(shapes, list) else [shapes]))

    def _structured(self, flat: Iterable[object]) -> Any:
        return filled(self._output_structure, flat)

    # ---- calls

    def __call__(  # type: ignore[override]
        self,
        inputs: object,
        initial_state: object = None,
        *,
        mask: object = None,
        training: bool | None = None,
        lengths: object = None,
    ) -> Any:
        """Return the outputs for arrays; if called on symbols, become a layer of their graph.

        inputs: an array, a list of arrays, or a dictionary by the inputs' names. mask, lengths: for
        every input that has a time axis. Masks that arrays carry are used and returned as in the
        call of a layer.
        """
        plain = type(inputs) is np.ndarray  # the common case is fast: calls of one step are short
        if not plain and symbols_in(inputs):
            return super().__call__(
                self._listed(inputs), initial_state, mask=mask, training=training, lengths=lengths
            )
        if initial_state is not None:
            raise ArgumentError(
                f"{self}: a model takes no initial_state; make it an Input and pass it to the layer"
            )
        arrays = self.check_arrays(inputs)
        own = None if plain or mask is not None else carried(self._listed(inputs))
        if plain and mask is None and lengths is None:
            masks: list[Array | None] = [None] * len(arrays)
        elif own is None or lengths is not None:
            mask = mask if own is None else own
            masks = self.make_mask([array.shape for array in arrays], mask, lengths)
        else:  # not checked: ids without a time axis have a mask (B,)
            masks = own if isinstance(own, list) else [own]
        context = CallContext(training=resolve_training(training))
        with context:
            outputs, output_masks = self.graph.run(arrays, masks, context)
        outputs = unshared(outputs, arrays)
        if any(output_mask is not None for output_mask in output_masks):
            outputs = carry(outputs, output_masks)
        return self._structured(outputs)

    def forward(self, inputs: Any, context: CallContext) -> tuple[Any, Any]:
        inputs = self._listed(inputs)
        arrays = inputs if isinstance(inputs, list) else [inputs]
        mask = context.mask
        masks = mask if isinstance(mask, list) else [mask] * len(arrays)
        outputs, output_masks = self.graph.run(arrays, masks, context)
        return self._structured(outputs), self._structured(output_masks)

    def apply(self, inputs: Any, context: CallContext) -> Any:
        return self.forward(inputs, context)[0]

    def check_arrays(self, inputs: Any) -> list[Array]:
        """Return one array per input, cast and checked against its shape."""
        specs = self.input_specs
        names = [name for name, _, _ in specs]
        if isinstance(inputs, Mapping):
            inputs = self._listed(inputs)
        elif len(names) == 1:
            one = isinstance(inputs, list | tuple) and len(inputs) == 1
            inputs = [inputs[0] if one and np.ndim(inputs[0]) else inputs]
        if len(inputs) != len(names):
            raise ShapeError(
                f"{self}: the number of inputs must be {len(names)} ({', '.join(names)}), "
                f"received {len(inputs)}"
            )
        arrays = [
            cast_input(f"{self}, input {name!r}", shape, dtype, array)
            for (name, shape, dtype), array in zip(specs, inputs, strict=True)
        ]
        if len({len(array) for array in arrays}) > 1:
            rows = [len(array) for array in arrays]
            raise ShapeError(
                f"{self}: all inputs must have the same number of rows, received {rows}"
            )
        return arrays

    def _listed(self, inputs: object) -> Any:
        """Return inputs as they are, but a dictionary as a list.

        The dictionary's keys are the names of the inputs, or the keys that the constructor
        received. Raises ShapeError for other keys.
        """
        if not isinstance(inputs, Mapping):
            return inputs
        names = [symbol.layer.name for symbol in self.graph.inputs]
        if set(inputs) == set(names):
            return [inputs[name] for name in names]
        structure = self._input_structure
        if isinstance(structure, dict) and set(inputs) == set(structure):
            return [inputs[key] for key in structure]
        raise ShapeError(f"{self}: expected inputs {names}, received {sorted(inputs)}")

    def predict_on_batch(self, x: object) -> Any:
        """Return the outputs for one batch of rows; a stateful model continues its rows."""
        return self.predict(x)

    def predict(
        self,
        x: object,
        batch_size: int | None = None,
        verbose: object = None,
        steps: None = None,
        callbacks: None = None,
        *,
        training: bool = False,
        samples: int | None = None,
        mask: object = None,
        lengths: object = None,
    ) -> Any:
        """Return the outputs for many rows, `batch_size` at a time (all at once by default).

        No bit depends on batch_size, except with training=True, where it can change the order in
        which dropout masks are drawn, and in a stateful model: there, row i of a batch continues
        row i of the previous batch, as in Keras, so all batches must have the same number of rows,
        else ShapeError. verbose is ignored; steps and callbacks must be None. A mask that x carries
        is not used, as in Keras; pass it as mask=.

        training=True, samples=n: Monte Carlo dropout. The model is run n times, each time with new
        dropout masks; returns (mean, standard deviation) of the n outputs (Gal & Ghahramani 2016),
        each in the model's output structure. A BatchNormalization must be frozen (trainable=False),
        else ConfigError, because the batches would change it.
        """
        if steps is not None or callbacks is not None:
            raise ArgumentError(f"{self}: predict takes no steps= and no callbacks=")
        arrays = self.check_arrays(x)
        masks = self.make_mask([array.shape for array in arrays], mask, lengths)
        if training and (
            moving := [h for h, _, _ in self.holders() if h.moves_in_training and h.trainable]
        ):
            raise ConfigError(
                f"{self}: predict(training=True) draws dropout and noise, and changes no weight; "
                f"{moving[0]} would use the mean and variance of each batch, and change its moving "
                "ones. Set trainable = False on that layer"
            )
        if samples is None:
            return self._structured(self._in_batches(arrays, masks, batch_size, training))
        if not training or samples < 1:
            raise ConfigError(
                f"{self}: samples (received {samples}) must be 1 or more, and needs training=True: "
                "without training there is no dropout, and all samples are equal"
            )
        drawn = [self._in_batches(arrays, masks, batch_size, True) for _ in range(samples)]
        stacked = [np.stack(output) for output in zip(*drawn, strict=True)]
        mean = [output.mean(axis=0, dtype=np.float64).astype(np.float32) for output in stacked]
        deviation = [output.std(axis=0, dtype=np.float64).astype(np.float32) for output in stacked]
        return self._structured(mean), self._structured(deviation)

    def batch_size_of(self, rows: int, batch_size: int | None) -> int:
        """Return how many rows are computed at a time. Raises ConfigError."""
        size = max(rows, 1) if batch_size is None else batch_size
        if size < 1:
            raise ConfigError(f"{self}: batch_size must be 1 or more, received {batch_size}")
        return size

    def _in_batches(
        self, arrays: list[Array], masks: list[Array | None], batch_size: int | None, training: bool
    ) -> list[Array]:
        rows = len(arrays[0])
        size = self.batch_size_of(rows, batch_size)
        if rows > size and rows % size and self.stateful_layers():
            raise ShapeError(
                f"{self}: {rows} rows cannot be split into batches of batch_size={size}: each row "
                "of a stateful model continues the same row of the previous batch"
            )
        return self.graph.run_in_batches(arrays, masks, size, training)

    # ---- state

    def stateful_layers(self) -> dict[str, Any]:
        """Return the layers that carry state between calls, by name."""
        return {
            layer.name: layer
            for layer in self.layers
            if any(getattr(inner, "stateful", False) for inner in flat_layers(layer))
        }

    def get_state(self) -> dict[str, object]:
        """Return copies of the states by layer name; None for a layer that carries none yet."""
        return {name: layer.get_state() for name, layer in self.stateful_layers().items()}

    def set_state(self, state: Mapping[str, object]) -> None:
        """Set the states that get_state returned. Raises StateError if the layers differ."""
        layers = self.stateful_layers()
        if set(state) != set(layers):
            raise StateError(
                f"{self}: expected the states of {sorted(layers)}, received {sorted(state)}"
            )
        for name, layer in layers.items():
            layer.set_state(state[name])

    def reset_state(self) -> None:
        """Reset every stateful layer: see RNN.reset_state."""
        for layer in self.stateful_layers().values():
            layer.reset_state()

    reset_states = reset_state

    # ---- as part of a stream

    def stream_states(self) -> dict[str, tuple[int, ...]]:
        return self._by_path(lambda layer: layer.stream_states())

    def stream_classes(self) -> dict[str, str]:
        return self._by_path(lambda layer: layer.stream_classes())

    def stream_initial(self, n: int) -> dict[str, Floats]:
        return self._by_path(lambda layer: layer.stream_initial(n))

    def _by_path(self, values: Callable[[Layer], Mapping[str, T]]) -> dict[str, T]:
        """Return the values of all calls, each under its path in the graph."""
        return {
            f"{step.path}/{name}": value
            for step in self.graph.steps
            for name, value in values(step.node.layer).items()
        }

    # ---- summary, config, file

    def summary(self, line_length: int | None = None, print_fn: Print | None = None) -> None:
        """Print layers, shapes and parameters as Keras 2.8 does; print_fn receives each line."""
        print_summary(self, line_length, print_fn or print)

    def __repr__(self) -> str:
        """Return name, layers, shapes and parameters in one line.

        >>> from streamrnn import Input, Sequential, layers
        >>> Sequential([Input((None, 8)), layers.GRU(4, name="gru")], name="small")
        <Sequential 'small': gru (GRU); (None, None, 8) to (None, 4); 168 parameters>
        """
        return in_one_line(self, self._graph)

    def _repr_html_(self) -> str:
        return html_summary(self, self._graph)

    def get_config(self) -> dict[str, object]:
        return model_config.functional_config(self)

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        return cls(**model_config.functional_arguments(config))

    def save(self, path: str | Path) -> None:
        """Write the native format: one .safetensors file, with the config in its metadata."""
        provided("save")(self, path)

    def save_weights(self, filepath: str | Path, overwrite: bool = True) -> None:
        """Write the weights, with the config, to a .safetensors file, for `load_weights`.

        Raises ArgumentError if the file exists and overwrite is False.
        """
        if not overwrite and Path(filepath).exists():
            raise ArgumentError(
                f"save_weights: {filepath} exists; set overwrite=True to replace it"
            )
        provided("save")(self, filepath)

    def load_weights(self, path: str | Path) -> None:
        """Set the weights from a file in the native format or in one of Keras's formats.

        Weights that are integers in the file stay integers: the model has the file's precision from
        then on.
        """
        provided("load_weights")(self, path)

    def check_weights(self) -> None:
        """Raise ModelFileError if the model cannot compute with the weights of its file.

        Most models can compute with any weights.
        """

    def layer_shapes(self) -> dict[str, dict[str, Any]]:
        """Return the class of each layer and the shapes of its weights, by layer name, for JSON."""
        return {
            layer.name: {
                "class": type(layer).__name__,
                "weights": {name: list(w.shape) for name, w in layer.named_weights().items()},
            }
            for layer in self.children().values()
        }

    @property
    def precision(self) -> str:
        """The lowest precision of the weights: float32, unless layers are packed in a lower one."""
        return precision_of(self)

    def fingerprint(self) -> str:
        """Return a sha256 (hex) of the config and the weights, names and precision included.

        Regularizers and constraints, which only affect training, do not change it.
        """
        digest = hashlib.sha256()
        config = without_training(self.get_config())
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for name, weight in self.named_weights().items():
            digest.update(f"{name} {weight.shape}".encode())
            digest.update(weight.astype("<f4", copy=False).tobytes())
        for name, integers in packed_weights(self).items():
            digest.update(f"{name} {integers.precision} {integers.top}".encode())
            digest.update(integers.scales.astype("<f4", copy=False).tobytes())
            digest.update(integers.exponents.tobytes())
        return digest.hexdigest()


def flat_layers(layer: Layer) -> Iterator[Layer]:
    """Yield the layers of a model and of the models inside it; for another layer, that layer."""
    if isinstance(layer, Model):
        for inner in layer.layers:
            yield from flat_layers(inner)
    else:
        yield layer


def _input_dtype(graph: Graph, symbol: Symbol) -> str:
    """Return the dtype that a reader of an input requires (int64, text), else the declared one."""
    required = set()
    for node in graph.consumers(symbol):
        if isinstance(node.layer, Model):
            specs = node.layer.input_specs
            required |= {specs[position][2] for position in positions_of(symbol, node)}
        else:
            required.add(node.layer.input_dtype)
    for dtype in ("string", "int64"):
        if dtype in required:
            return dtype
    declared = {"int32": "int64", "int64": "int64", "string": "string"}
    return declared.get(symbol.dtype, "float32")
