"""Activations as ONNX operators, and as the attributes of recurrent nodes."""

from collections.abc import Callable, Sequence

from streamrnn.nn.kernels.activation import Spec, split_spec
from streamrnn.nn.layers import activations
from streamrnn.plugins.onnx.activation_names import NAMES
from streamrnn.plugins.onnx.export_call import LayerCall

_WRITTEN_AS = {"elu": "selu", "hard_sigmoid": "hard_sigmoid_02"}
"""Activations that equal another one with certain parameters."""
_IN_NODES = {
    "linear": NAMES["affine"],
    **{name: row for name, row in NAMES.items() if row.in_nodes},
    "hard_sigmoid": NAMES["hard_sigmoid_02"],
}


def activated(call: LayerCall, spec: Spec, x: str) -> str:
    """Append the nodes of an activation, and return the name of its output."""
    name, numbers = split_spec(spec)
    if name == "linear":
        return x
    if name == "softmax":
        return call.add("Softmax", x, axis=-1)
    if name in ("relu", "gelu"):
        if numbers != split_spec(name)[1]:
            raise call.refused(f"ONNX has no operator for the activation {spec!r}")
        numbers = ()
    if name in _COMPOSED:
        return _COMPOSED[name](call, x, numbers)
    row = NAMES.get(_WRITTEN_AS.get(name, name))
    if row is None:
        raise call.refused(f"ONNX has no operator for the activation {name!r}")
    return call.add(row.operator, x, **dict(zip(row.attributes, numbers, strict=False)))


def _gelu(call: LayerCall, x: str, numbers: Sequence[float]) -> str:
    """Append x Phi(x) = x (1 + erf(x / sqrt(2))) / 2, as opset 17 has no Gelu."""
    numbers_of = {"half": 0.5, "one": 1.0, "root": 0.5**0.5}
    half, one, root = (call.constant(f"gelu_{name}", n) for name, n in numbers_of.items())
    error = call.add("Erf", call.add("Mul", x, root))
    return call.add("Mul", call.add("Mul", x, half), call.add("Add", error, one))


def clipped_relu(call: LayerCall, x: str, top: float) -> str:
    """Append a ReLU with a largest value."""
    bounds = (call.constant("zero", 0), call.constant("largest", top))
    return call.add("Clip", x, *bounds)


_COMPOSED: dict[str, Callable[[LayerCall, str, Sequence[float]], str]] = {
    "silu": lambda call, x, _: call.add("Mul", x, call.add("Sigmoid", x)),
    "mish": lambda call, x, _: call.add("Mul", x, call.add("Tanh", call.add("Softplus", x))),
    "gelu": _gelu,
    "relu6": lambda call, x, numbers: clipped_relu(call, x, numbers[0]),
}


WRITTEN = {*NAMES, *_WRITTEN_AS, *_COMPOSED, "linear", "softmax"}
"""All activations that a model may have outside recurrent nodes."""


def node_activations(call: LayerCall, specs: Sequence[Spec]) -> dict[str, list[str] | list[float]]:
    """Return the attributes activations, activation_alpha and activation_beta of a node."""
    names: list[str] = []
    parameters: list[tuple[float, ...]] = []
    for spec in specs:
        name, numbers = split_spec(spec)
        if name == "linear":
            numbers = (1.0, 0.0)
        if name == "elu" and numbers[1] == 1:
            numbers = numbers[:1]
        if name == "relu" and numbers == split_spec(name)[1]:
            numbers = ()
        row = _IN_NODES.get(name)
        if row is None or len(numbers) > len(row.attributes):
            supported = [name for name in _IN_NODES if name in activations.__all__]
            raise call.refused(
                f"no recurrent node of ONNX has the activation {spec!r}; they have "
                f"{', '.join(supported)}"
            )
        names.append(row.operator)
        parameters.append(numbers)
    alphas = [numbers[0] for numbers in parameters if numbers]
    betas = [numbers[1] for numbers in parameters if len(numbers) > 1]
    numbers_by_attribute = {"activation_alpha": alphas, "activation_beta": betas}
    return {
        "activations": names,
        **{key: values for key, values in numbers_by_attribute.items() if values},
    }
