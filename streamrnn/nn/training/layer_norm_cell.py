"""A window through LayerNormLSTMCell in training."""

from collections.abc import Sequence

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn.kernels import layer_norm_bptt as kernel
from streamrnn.nn.layers import LayerNormLSTMCell
from streamrnn.nn.training.cell_pass import CellGradients, CellPass, CellWindow, dropout_factors
from streamrnn.nn.training.recording import Recording, total_of


def run_layer_norm(
    cell: LayerNormLSTMCell, window: CellWindow, states: list[Floats], recording: Recording
) -> CellPass:
    """Run a window; `states` are advanced in place."""
    x, mask, zero, sequences = window
    lanes, steps, features = x.shape
    factors = dropout_factors(cell, recording, recording.number_call(), lanes, features)
    norms = [f"{norm}_{part}" for norm in cell.NORMS for part in ("gamma", "beta")]
    of_gates, of_c = cell.activations()
    y = recording.array((lanes, steps, cell.units)) if sequences else None
    kept = kernel.run_forward(
        cell.packed(), (of_gates, of_c), x, factors, mask, states, y, zero_masked=zero
    )
    own = recording.weights_of(cell)
    weights = kernel.NormWeights(
        own["kernel"],
        own["recurrent_kernel"],
        own.get("bias"),
        [own[name] for name in norms],
        cell.norm_epsilon,
    )

    def pullback(
        dy: Floats | None,
        dlast: Floats | None,
        ends: Sequence[Floats | None],
        inputs: bool,
        first: bool,
    ) -> CellGradients:
        reaching = [total_of([dlast, ends[0]]), ends[1]]
        gradients = kernel.run_back(
            weights,
            (of_gates, of_c),
            kept,
            factors,
            mask,
            None if dy is None else np.ascontiguousarray(dy),
            [None if end is None else np.ascontiguousarray(end) for end in reaching],
            zero_masked=zero,
            inputs=inputs,
        )
        names = ["kernel", "recurrent_kernel", "bias", *norms]
        for name, gradient in zip(names, gradients.weights, strict=True):
            recording.add(cell, name, gradient)
        return CellGradients(gradients.dx_BTF, gradients.states)

    return CellPass(y, states[0], pullback)
