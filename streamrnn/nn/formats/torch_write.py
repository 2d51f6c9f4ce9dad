"""Models as a state_dict of PyTorch, and as the source of a module that loads it.

The layers are a list: array `layers.1.weight_ih_l0` belongs to the second layer with weights. The
file's metadata has [[model.layers]] for all layers, from which this package reads the file again.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as to_bytes

from streamrnn.base.arrays import Array
from streamrnn.errors import ConfigError, UnsupportedError
from streamrnn.nn import layers as ours
from streamrnn.nn.formats.guard import checked_target, refuse_integers, write_atomically
from streamrnn.nn.formats.tables import TORCH_CELLS
from streamrnn.nn.formats.torch import AFFINE, STATISTICS, gates_in_order
from streamrnn.nn.layers import activations, registry
from streamrnn.nn.layers.activations import LEAST_DEVIATION
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.models import Model

TORCH_ACTIVATIONS = {
    "linear": "",
    "tanh": "torch.tanh(x)",
    "sigmoid": "torch.sigmoid(x)",
    "relu": "torch.relu(x)",
    "exponential": "torch.exp(x)",
    "softmax": "torch.softmax(x, -1)",
    "log_softmax": "torch.log_softmax(x, -1)",
    "leaky_relu": "functional.leaky_relu(x, {0})",
    "elu": "functional.elu(x, {0})",
    "hard_sigmoid": "functional.hardsigmoid(x)",
    "hard_silu": "functional.hardswish(x)",
    "gelu": "functional.gelu(x)",
    "mish": "functional.mish(x)",
    "relu6": "torch.clamp(x, 0.0, {0})",
    "selu": "functional.selu(x)",
    "silu": "functional.silu(x)",
    "softplus": "functional.softplus(x)",
    "softsign": "functional.softsign(x)",
    "celu": "functional.celu(x, {0})",
    "hard_tanh": "functional.hardtanh(x)",
    "log_sigmoid": "functional.logsigmoid(x)",
    "hard_shrink": "functional.hardshrink(x, {0})",
    "soft_shrink": "functional.softshrink(x, {0})",
    "tanh_shrink": "functional.tanhshrink(x)",
}
_OF_NORMS = {keras: torch for torch, keras in (AFFINE | STATISTICS).items()}
_DEFAULTS = {
    "leaky_relu": 0.2, "elu": 1.0, "relu6": 6.0, "celu": 1.0, "hard_shrink": 0.5,
    "soft_shrink": 0.5,
}  # fmt: skip
_RECURRENT = {registry.get(layer): cell for layer, cell in TORCH_CELLS.items()}
_MODULE = '''"""What the model of WEIGHTS computes, in PyTorch. Written by streamrnn convert."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

WEIGHTS = Path(__file__).parent / {path}


class Model(nn.Module):
    """Inputs are (batch, steps, features), or ids (batch, steps), as in streamrnn."""

    def __init__(self, weights=WEIGHTS):
        super().__init__()
        self.layers = nn.ModuleList([
{modules}        ])
        self.load_state_dict(load_file(weights))
        self.eval()

    def forward(self, x):
{calls}        return x
'''


@dataclass
class _Written:
    """The parts of the result: arrays by name, the layers' tables, lines of the module."""

    arrays: dict[str, Array] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def add(self, layer: Layer, kind: str, module: str, arrays: dict[str, Array]) -> str:
        """Add a layer with weights, and return the expression that calls it."""
        prefix = f"layers.{len(self.members)}"
        self.tables.append({"type": kind, "weights": prefix, **_arguments(layer)})
        self.arrays |= {f"{prefix}.{name}": array for name, array in arrays.items()}
        self.members.append(f"nn.{module},  # {layer.name!r}")
        return f"self.layers[{len(self.members) - 1}]"

    def plain(self, layer: Layer, call: str) -> None:
        """Add a layer that has no weights in PyTorch, and the call that computes it."""
        self.tables.append({"type": type(layer).__name__, **_arguments(layer)})
        self.call(call)

    def call(self, call: str) -> None:
        """Add a computation on x to the module, or nothing for an empty text."""
        if call:
            self.calls.append(f"x = {call}")


def _arguments(layer: Layer) -> dict[str, Any]:
    return {key: value for key, value in layer.get_config().items() if value is not None}


def save_torch(model: Model, path: str | Path, module: str | Path | None = None) -> None:
    """Write a model as a state_dict, and the source of its module to the file `module`, if set.

    Raises UnsupportedError, naming the layer, if PyTorch does not have it in this form, ConfigError
    for several inputs or outputs, SinkError where no file can be written, OSError if writing one
    fails. Then neither is written, or only the state_dict, which is moved to its place before the
    module is.
    """
    path = checked_target(path, ".safetensors", "a PyTorch state_dict")
    refuse_integers(model, "a PyTorch state_dict")
    written = _Written()
    for layer, shape in _chain(model):
        writer = _WRITERS.get(type(layer))
        if writer is None:
            raise _refused(layer, "a layer of this type cannot be written for PyTorch")
        writer(written, layer, shape)
    source = None if module is None else checked_target(module, ".py", "a Python module")
    metadata = {"layers": json.dumps(written.tables)}
    arrays = {name: np.ascontiguousarray(array) for name, array in written.arrays.items()}
    files = {path: to_bytes(arrays, metadata)}
    if source is not None:
        relative = Path(os.path.relpath(path, source.parent)).as_posix()
        text = _MODULE.format(
            path=repr(relative),
            modules="".join(f"            {line}\n" for line in written.members),
            calls="".join(f"        {line}\n" for line in written.calls),
        )
        files[source] = text.encode()
    write_atomically(files)


def _chain(model: Model) -> list[tuple[Layer, tuple[int | None, ...]]]:
    """Return the layers in the order of their calls, each with the shape of its input."""
    last, chain = model.graph.inputs[0], []
    for step in model.graph.steps:
        node = step.node
        if node.inputs is not last or node.kwargs or len(node.outputs) != 1:
            raise _refused(
                node.layer, "it must read only the layer before it, without a state or mask"
            )
        chain.append((node.layer, last.shape))
        last = node.outputs[0]
    if len(model.inputs) != 1 or model.graph.outputs != [last]:
        raise ConfigError(f"{model}: for PyTorch, a model must have one input and one output")
    return chain


def _refused(layer: Layer, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"layer {layer.name!r} ({type(layer).__name__}): {why}. Write .onnx, which PyTorch users "
        "can run with ONNX Runtime, or train a model without this layer"
    )


def _activation(layer: Layer, spec: Any) -> str:
    name, *numbers = [spec] if isinstance(spec, str) else spec
    written = TORCH_ACTIVATIONS.get(name)
    if written is None or len(numbers) > written.count("{0}"):
        raise _refused(layer, f"the activation {spec!r} cannot be written for PyTorch")
    return written.format(_literal(float(numbers[0])) if numbers else _DEFAULTS.get(name))


def _dense(written: _Written, layer: ours.Dense, shape: Any) -> None:
    weights = layer.named_weights()
    arrays = {"weight": weights["kernel"].T}
    if layer.use_bias:
        arrays["bias"] = weights["bias"]
    units, features = arrays["weight"].shape
    module = f"Linear({features}, {units}, bias={bool(layer.use_bias)})"
    written.call(f"{written.add(layer, 'Dense', module, arrays)}(x)")
    written.call(_activation(layer, layer.activation))


def _embedding(written: _Written, layer: ours.Embedding, shape: Any) -> None:
    if layer.mask_zero:
        raise _refused(layer, "mask_zero=True makes a mask, which layers of PyTorch do not take")
    table = layer.named_weights()["embeddings"]
    module = f"Embedding({table.shape[0]}, {table.shape[1]})"
    written.call(f"{written.add(layer, 'Embedding', module, {'weight': table})}(x)")


def _norm(written: _Written, layer: Any, shape: Any) -> None:
    is_batch = isinstance(layer, ours.BatchNormalization)
    if len(layer.axes) > 1 or layer.axes[0] != -1:
        raise _refused(layer, "for PyTorch, axis must be the last axis")
    if layer.scale != layer.center:
        raise _refused(layer, "for PyTorch, scale and center must be both True or both False")
    if not is_batch and not layer.scale:
        raise _refused(layer, "without scale and center it has no array for a state_dict to hold")
    arrays = {
        _OF_NORMS[name]: array for name, array in layer.named_weights().items() if name in _OF_NORMS
    }
    kind, option = ("BatchNorm1d", "affine") if is_batch else ("LayerNorm", "elementwise_affine")
    if is_batch:
        arrays["num_batches_tracked"] = np.array(0)
    epsilon = _literal(float(layer.epsilon))
    module = f"{kind}({layer.features}, {epsilon}, {option}={bool(layer.scale)})"
    call = written.add(layer, type(layer).__name__, module, arrays)
    steps = is_batch and len(shape) == 3
    written.call(f"{call}(x.transpose(1, 2)).transpose(1, 2)" if steps else f"{call}(x)")


def _recurrent(written: _Written, layer: Any, shape: Any) -> None:
    both = isinstance(layer, ours.Bidirectional)
    rnn = layer.forward_layer if both else layer
    if both and (layer.merge_mode != "concat" or layer.return_state or not _mirrored(layer)):
        raise _refused(
            layer,
            "for PyTorch, both directions must have the same arguments, with merge_mode='concat' "
            "and without return_state",
        )
    options = _options(layer, rnn)
    if rnn.go_backwards:
        raise _refused(
            layer, "in PyTorch, only the second direction of a bidirectional layer goes backwards"
        )
    arrays = _direction(rnn, "_l0")
    if both:
        arrays |= _direction(layer.backward_layer, "_l0_reverse")
    kernel = rnn.cell.named_weights()["kernel"]
    kind = _RECURRENT[type(rnn)].name
    module = f"{kind}({kernel.shape[0]}, {rnn.units}, batch_first=True{options})"
    if both:
        module = f"{module[:-1]}, bidirectional=True)"
    call = written.add(layer, type(rnn).__name__, module, arrays)
    written.calls.append(f"x, _ = {call}(x)")
    if both:
        own = {key: written.tables[-1][key] for key in ("type", "weights", "name")}
        written.tables[-1] = _arguments(rnn) | own
    if not rnn.return_sequences:
        half = rnn.units
        last = f"torch.cat([x[:, -1, :{half}], x[:, 0, {half}:]], -1)"
        written.call(last if both else "x[:, -1]")


def _mirrored(layer: ours.Bidirectional) -> bool:
    """Return whether both directions have the same arguments."""
    forward, backward = (
        {k: v for k, v in side.get_config().items() if k not in ("name", "go_backwards")}
        for side in (layer.forward_layer, layer.backward_layer)
    )
    return type(layer.forward_layer) is type(layer.backward_layer) and forward == backward


def _options(layer: Layer, rnn: Any) -> str:
    """Return the options of PyTorch's layer, as source. Raises UnsupportedError if it lacks one."""
    cell = _RECURRENT.get(type(rnn))
    if cell is None:
        raise _refused(layer, f"PyTorch has no layer like {type(rnn).__name__}")
    if rnn.return_state or rnn.stateful:
        raise _refused(layer, "return_state and stateful are not supported in a chain of layers")
    config, bias = rnn.get_config(), f", bias={bool(rnn.use_bias)}"
    for argument, value in cell.implied.items():
        if config[argument] != value:
            raise _refused(layer, f"PyTorch's {cell.name} has {argument}={value}")
    if config["activation"] in cell.nonlinearities:
        return f', nonlinearity="{config["activation"]}"{bias}'
    if (config["activation"], config.get("recurrent_activation")) != ("tanh", "sigmoid"):
        raise _refused(
            layer, "PyTorch's recurrent layers have tanh and sigmoid, but an RNN can have relu"
        )
    return bias


def _direction(rnn: Any, ending: str) -> dict[str, Array]:
    """Return the arrays of one direction; a second bias of -0.0 changes no bit when added."""
    weights, theirs = rnn.cell.named_weights(), _RECURRENT[type(rnn)].gates

    def order(rows: Array) -> Array:
        return gates_in_order(rows, rnn.cell.kind.gates, theirs)

    arrays = {
        f"weight_ih{ending}": order(weights["kernel"].T),
        f"weight_hh{ending}": order(weights["recurrent_kernel"].T),
    }
    if rnn.use_bias:
        bias = weights["bias"]
        first, second = bias if bias.ndim == 2 else (bias, np.full_like(bias, -0.0))
        arrays |= {f"bias_ih{ending}": order(first), f"bias_hh{ending}": order(second)}
    return arrays


def _normalized(written: _Written, layer: ours.Normalization, shape: Any) -> None:
    weights = layer.named_weights()
    mean = weights["mean"] if layer.mean is None else layer.mean
    variance = weights["variance"] if layer.variance is None else layer.variance
    first, second = _numbers(mean), _numbers(layer.deviation())
    written.plain(layer, f"{first} + x * {second}" if layer.invert else f"(x - {first}) / {second}")
    written.tables[-1] |= {"mean": mean.tolist(), "variance": variance.tolist()}


def _numbers(array: Array) -> str:
    return f"x.new_tensor({_literal(np.asarray(array).tolist())})"


def _literal(value: Any) -> str:
    """Return a float, or lists of floats, as Python source code."""
    return re.sub("(inf|nan)", r'float("\1")', repr(value))


def _moments(written: _Written, layer: ours.Gaussian, shape: Any) -> None:
    half = shape[-1] // 2
    deviation = f"functional.softplus(x[..., {half}:]) + {_literal(float(LEAST_DEVIATION))}"
    written.plain(layer, f"torch.cat([x[..., :{half}], {deviation}], -1)")


_WRITERS: dict[type[Layer], Callable[[_Written, Any, Any], None]] = {
    **dict.fromkeys([*_RECURRENT, ours.Bidirectional], _recurrent),
    **dict.fromkeys(
        (ours.Activation, ours.ELU, ours.LeakyReLU, ours.ReLU, ours.Softmax),
        lambda written, layer, _: written.plain(layer, _activation(layer, activations.get(layer))),
    ),
    ours.BatchNormalization: _norm,
    ours.Dense: _dense,
    ours.Dropout: lambda written, layer, _: written.plain(
        layer, f"functional.dropout(x, {_literal(float(layer.rate))}, self.training)"
    ),
    ours.Embedding: _embedding,
    ours.Gaussian: _moments,
    ours.LayerNormalization: _norm,
    ours.Normalization: _normalized,
    ours.Rescaling: lambda written, layer, _: written.plain(
        layer, f"x * {_numbers(layer.scale)} + {_numbers(layer.offset)}"
    ),
}
