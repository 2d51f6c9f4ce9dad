"""LSTM, GRU and SimpleRNN as recurrent nodes, whose states are inputs and outputs of the graph.

For the operators, the order of their gates, and reading them back, see `recurrent`.
"""

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.nn.layers import PeepholeLSTMCell
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.plugins.onnx.export_activations import node_activations
from streamrnn.plugins.onnx.export_call import LayerCall
from streamrnn.plugins.onnx.graph import Value
from streamrnn.plugins.onnx.recurrent import RECURRENT

_OPERATORS = {cell: op for op, operator in RECURRENT.items() for cell in operator.cells}
_PEEPHOLES = ("input", "output", "forget")


def recurrent_node(call: LayerCall) -> list[str]:
    """Append the node of a layer; return its output, and with return_state its final states."""
    layer, cell = call.layer, call.layer.cell
    op = _OPERATORS.get(type(cell))
    if op is None:
        supported = ", ".join(kind.__name__ for kind in _OPERATORS)
        raise call.refused(f"ONNX has no node for {cell}; it has nodes for {supported}")
    if layer.go_backwards:
        raise call.refused(
            "with go_backwards=True it reads each window from its end, so that no state can be "
            "carried to the next one"
        )
    specs = cell.activations()
    if op == "LSTM":
        specs = (cell.recurrent_activation, cell.activation, cell.activation)
    attributes: dict[str, object] = {"hidden_size": cell.units, **node_activations(call, specs)}
    if option := RECURRENT[op].before_reset:
        attributes["linear_before_reset"] = int(getattr(cell, option))
    before, after = _states(call, cell)
    inputs = [call.add("Transpose", call.inputs[0], perm=[1, 0, 2]), *_weights(call, cell, op)]
    inputs += ["", *before]  # no sequence_lens
    if type(cell) is PeepholeLSTMCell:
        own = cell.named_weights()
        weights = [own[f"{gate}_gate_peephole_weights"] for gate in _PEEPHOLES]
        inputs.append(call.constant("P", np.concatenate(weights)[None]))
    y = call.builder.fresh(f"{call.path}/y") if layer.return_sequences else ""
    name = call.builder.fresh(f"{call.path}/{op}")
    call.builder.node(op, inputs, [y, *after], name, **attributes)
    if layer.return_sequences:
        steps = call.add("Squeeze", y, call.builder.axis(1))
        outputs = [call.add("Transpose", steps, perm=[1, 0, 2])]
    else:
        outputs = [call.add("Squeeze", after[0], call.builder.axis(0))]
    if layer.return_state:
        outputs += [call.add("Squeeze", state, call.builder.axis(0)) for state in after]
    return outputs


def _states(call: LayerCall, cell: GatedCell) -> tuple[list[str], list[str]]:
    """Return the names of the initial and the final states, which become inputs and outputs."""
    before, after = [], []
    for kind in cell.kind.states:
        names = [call.builder.fresh(f"{call.path}/{kind}{suffix}") for suffix in ("", "_out")]
        first, last = (Value(name, "float32", (1, None, cell.units)) for name in names)
        call.builder.states.append((first, last))
        before.append(first.name)
        after.append(last.name)
    return before, after


def _weights(call: LayerCall, cell: GatedCell, op: str) -> list[str]:
    """Return the names of W (1, G U, F), R (1, G U, U) and B (1, 2 G U), "" without biases."""
    blocks = cell.kind.columns(RECURRENT[op].gates)

    def ordered(columns: Array) -> Array:
        parts = np.split(columns, len(blocks), axis=-1)
        return np.concatenate([parts[i] for i in blocks], axis=-1)

    w = cell.named_weights()
    names = [
        call.constant("W", ordered(w["kernel"]).T[None]),
        call.constant("R", ordered(w["recurrent_kernel"]).T[None]),
    ]
    if "bias" not in w:
        return [*names, ""]
    bias = w["bias"]
    both = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
    return [*names, call.constant("B", ordered(both).reshape(1, -1))]
