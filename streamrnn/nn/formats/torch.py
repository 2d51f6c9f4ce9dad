"""PyTorch's weights: a state_dict as a .safetensors file, with tables of the layers.

Layouts (docs of torch.nn): weights are (gates * U, F), the transpose of Keras's, with the gates in
the order of `TORCH_CELLS`; there are two biases, which are summed unless the cell here has two.
"""

from collections.abc import Callable, Mapping, Sequence

from streamrnn.errors import UnsupportedError
from streamrnn.nn.formats.assignment import Assignment, Loaded, assign_weights
from streamrnn.nn.formats.guard import Budget
from streamrnn.nn.formats.tables import TORCH_CELLS, LayerTable, stack
from streamrnn.nn.formats.torch_group import Arrays, Group, TorchLayer, make, with_prefixes
from streamrnn.nn.formats.torch_recurrent import derived_values, recurrent_layers
from streamrnn.nn.layers import initializers
from streamrnn.nn.layers.layer import Layer

_EPSILON = 1e-5
"""The default of LayerNorm and BatchNorm1d; Keras's is 1e-3."""
AFFINE = {"weight": "gamma", "bias": "beta"}
STATISTICS = {"running_mean": "moving_mean", "running_var": "moving_variance"}
"""PyTorch's names of the weights of normalizations -> Keras's."""


def load_state_dict(arrays: Arrays, tables: Sequence[LayerTable]) -> Loaded:
    """Build a Sequential of the tables' layers, with weights from the arrays.

    A table without a prefix takes the only arrays that can be its own, or the next ones of an
    nn.Sequential. Raises ModelFileError (a missing array, or one of an invalid shape),
    UnsupportedError (a type without a PyTorch layout, proj_size on too many units), ConfigError (a
    prefix that no array has, or none where several fit).
    """
    stored = sum(int(array.size) for array in arrays.values()) + derived_values(arrays)
    layers: list[TorchLayer] = []
    used: set[str] = set()
    with initializers.replaced_by(Budget(stored).zeros):
        for table in with_prefixes(tables, arrays, _READERS):
            reader = _READERS.get(table.kind)
            if reader is None:
                layers.append(TorchLayer(_plain(table), []))
                continue
            group = Group(table, arrays)
            layers += reader(group)
            used |= group.used
    features = next((layer.features for layer in layers if layer.weights), None)
    model = stack([layer.layer for layer in layers], features, stored)
    assignments = [
        Assignment(source, f"{layer.layer.name}/{name}", array)
        for layer in layers
        for source, name, array in layer.weights
    ]
    left = [name for name in arrays if name not in used]
    return Loaded(model, assign_weights(model, assignments), left)


def _plain(table: LayerTable) -> Layer:
    """Build a layer whose type has no weights in PyTorch."""
    if table.weights is not None:
        raise UnsupportedError(
            f"{table}: weights of PyTorch are read for {', '.join(_READERS)} and PyTorch's names "
            "of these"
        )
    return table.make(table.config())


def _dense(group: Group) -> list[TorchLayer]:
    kernel = group.use("weight", 2)
    weights = [(group.name("weight"), "kernel", kernel.T)]
    bias = "bias" in group.full
    if bias:
        weights.append((group.name("bias"), "bias", group.use("bias", 1)))
    layer = make(group, {"units": kernel.shape[0], "use_bias": bias})
    return [TorchLayer(layer, weights, kernel.shape[1])]


def _embedding(group: Group) -> list[TorchLayer]:
    table = group.use("weight", 2)
    layer = make(group, {"input_dim": table.shape[0], "output_dim": table.shape[1]})
    return [TorchLayer(layer, [(group.name("weight"), "embeddings", table)])]


def _layer_norm(group: Group) -> list[TorchLayer]:
    return [_norm(group, AFFINE)]


def _batch_norm(group: Group) -> list[TorchLayer]:
    if "num_batches_tracked" in group.full:  # for training only
        group.used.add(group.name("num_batches_tracked"))
    return [_norm(group, AFFINE | STATISTICS)]


def _norm(group: Group, names: Mapping[str, str]) -> TorchLayer:
    optional = {"weight": "scale", "bias": "center"}
    present = {argument: short in group.full for short, argument in optional.items()}
    required = [short for short in names if short not in optional or short in group.full]
    weights = [(group.name(short), names[short], group.use(short, 1)) for short in required]
    layer = make(group, {**present, "epsilon": _EPSILON})
    return TorchLayer(layer, weights, weights[0][2].shape[0] if weights else None)


_READERS: dict[str, Callable[[Group], list[TorchLayer]]] = {
    **dict.fromkeys(TORCH_CELLS, recurrent_layers),
    "Dense": _dense,
    "Embedding": _embedding,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
}
