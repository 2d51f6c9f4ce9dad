"""The oracle: every layer from its equation, in plain Python floats, one number at a time.

It imports nothing of streamrnn and no numpy, so that it cannot share a mistake with what it judges.
Arguments are nested lists, or anything with `.tolist()` (arrays become Python floats, float64).
Results are nested lists. It is slow and is meant to be.

Notation of the equations: row vectors, `@` a matrix product, `*` elementwise, s the gate's
activation, g the candidate's. Weights are laid out as in Keras: kernel (F, gates * U), recurrent
kernel (U, gates * U), gates side by side.

A cell is a `Cell`; `sequence` runs one row, `layer` a batch of rows.

    cell = lstm(kernel, recurrent, bias)
    y_BTU, last_BU, states = layer(cell, x_BTF)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Vector = list[float]
States = list[Any]


def lists(values: Any) -> Any:
    """Nested lists from anything with `.tolist()`; lists, numbers and None as they are."""
    return values.tolist() if hasattr(values, "tolist") else values


# --- vectors ------------------------------------------------------------------------------------


def matmul(x: Vector, kernel: list[Vector], masks: Any = None) -> Vector:
    """x @ kernel for one row vector; with dropout, x times the mask of each block of columns."""
    columns, masks = len(kernel[0]), lists(masks) or [[1.0] * len(x)]
    block = columns // len(masks)
    return [
        sum(x[f] * masks[u // block][f] * kernel[f][u] for f in range(len(x)))
        for u in range(columns)
    ]


def add(*vectors: Vector) -> Vector:
    return [sum(numbers) for numbers in zip(*vectors, strict=True)]


def multiply(*vectors: Vector) -> Vector:
    return [math.prod(numbers) for numbers in zip(*vectors, strict=True)]


def split(z: Vector, gates: int) -> list[Vector]:
    """The gates of one row, which stand side by side."""
    units = len(z) // gates
    return [z[g * units : (g + 1) * units] for g in range(gates)]


def zeros(n: int) -> Vector:
    return [0.0] * n


# --- activations (definitions of keras.activations, Keras 3) --------------------------------------


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 or x != x else math.exp(max(x, -745.0))


def _clip(x: float, low: float, high: float) -> float:
    if x != x:
        return x
    return min(max(x, low), high)


def _relu(
    x: float, negative_slope: float = 0.0, threshold: float = 0.0, max_value: float = math.inf
) -> float:
    if x >= max_value:
        return max_value
    if x > threshold or x != x:
        return x
    return negative_slope * (x - threshold)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))  # log(1 + e^x) without overflow


def _gelu(x: float, approximate: float = 0.0) -> float:
    if approximate:
        return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0)))  # Hendrycks and Gimpel 2016, exact


def _elu(x: float, alpha: float = 1.0) -> float:
    return x if x > 0.0 or x != x else alpha * math.expm1(x)


# Klambauer et al. 2017, Self-Normalizing Neural Networks, equation 2
SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


def _sparse_plus(x: float) -> float:
    return 0.0 if x <= -1.0 else x if x >= 1.0 or x != x else (x + 1.0) ** 2 / 4.0


def _soft_shrink(x: float, threshold: float = 0.5) -> float:
    return x - _clip(x, -threshold, threshold)


ELEMENTWISE: dict[str, Callable[..., float]] = {
    "linear": lambda x: x,
    "tanh": math.tanh,
    "sigmoid": _sigmoid,
    "relu": _relu,
    "relu6": lambda x: _clip(x, 0.0, 6.0),
    "leaky_relu": lambda x, negative_slope=0.2: x if x > 0.0 or x != x else negative_slope * x,
    "elu": _elu,
    "selu": lambda x: SELU_SCALE * _elu(x, SELU_ALPHA),
    "softplus": _softplus,
    "softsign": lambda x: x / (1.0 + abs(x)),
    "exponential": _exp,
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * math.tanh(_softplus(x)),
    "gelu": _gelu,
    "hard_sigmoid": lambda x: _clip(x / 6.0 + 0.5, 0.0, 1.0),  # Keras 3: relu6(x + 3) / 6
    "hard_sigmoid_02": lambda x: _clip(0.2 * x + 0.5, 0.0, 1.0),  # Keras 1 and 2, ONNX's default
    "celu": lambda x, alpha=1.0: x if x > 0.0 or x != x else alpha * math.expm1(x / alpha),
    "hard_shrink": lambda x, threshold=0.5: 0.0 if abs(x) <= threshold else x,
    "hard_silu": lambda x: x * _clip(x / 6.0 + 0.5, 0.0, 1.0),
    "hard_tanh": lambda x: _clip(x, -1.0, 1.0),
    "log_sigmoid": lambda x: -_softplus(-x),
    "soft_shrink": _soft_shrink,
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda x: _clip(0.5 * x + 0.5, 0.0, 1.0),
    "squareplus": lambda x, b=4.0: (x + math.sqrt(x * x + b)) / 2.0,
    "tanh_shrink": lambda x: x - math.tanh(x),
    "threshold": lambda x, threshold=0.0, value=0.0: value if x <= threshold else x,
    # of ONNX, operator RNN, "activations"
    "affine": lambda x, alpha=1.0, beta=0.0: alpha * x + beta,
    "scaled_tanh": lambda x, alpha=1.0, beta=1.0: alpha * math.tanh(beta * x),
    "erf": math.erf,
    "log": lambda x: math.log(x) if x > 0 else -math.inf if x == 0 else math.nan,
    "thresholded_relu": lambda x, alpha=1.0: x if x >= alpha or x != x else 0.0,
}


def _softmax(x: Vector) -> Vector:
    largest = max(x)
    powers = [math.exp(v - largest) for v in x]
    return [p / sum(powers) for p in powers]


def _log_softmax(x: Vector) -> Vector:
    largest = max(x)
    logarithm = math.log(sum(math.exp(v - largest) for v in x))
    return [v - largest - logarithm for v in x]


def _sparsemax(x: Vector) -> Vector:
    """As in Keras 3, which adds up all sums of the largest 1, 2, … values of the support."""
    ordered = sorted(x, reverse=True)
    sums = [sum(ordered[:k]) for k in range(1, len(x) + 1)]
    support = [s for k, s in enumerate(sums) if ordered[k] - (s - 1.0) / (k + 1) > 0]
    above = (sum(support) - 1.0) / len(support)
    return [max(v - above, 0.0) for v in x]


ROW_WISE = {"softmax": _softmax, "log_softmax": _log_softmax, "sparsemax": _sparsemax}


def activate(name: str | None, x: Vector, **params: Any) -> Vector:
    """One row through an activation; softmax and its kind go across the row."""
    if name in ROW_WISE:
        return ROW_WISE[name](x)
    return [ELEMENTWISE[name or "linear"](v, **params) for v in x]


# --- cells --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One step, and what a row starts with.

    step(x, states) -> (output, new states); states is a list of vectors (of lists where stacked).
    start() gives the states of a new row; held(states) the output that a masked first step repeats.
    """

    step: Callable[[Vector, States], tuple[Vector, States]]
    start: Callable[[], States]
    held: Callable[[States], Vector]
    units: int


def _cell(step: Callable[..., Any], sizes: list[int]) -> Cell:
    """A cell whose output is its first state."""
    return Cell(step, lambda: [zeros(n) for n in sizes], lambda states: list(states[0]), sizes[0])


def simple_rnn(
    kernel: Any,
    recurrent: Any,
    bias: Any = None,
    activation: str = "tanh",
    masks: Any = (None, None),
) -> Cell:
    """Elman 1990: h' = g(x @ K + b + h @ R). masks: of x and h, where they are dropped."""
    kernel, recurrent = lists(kernel), lists(recurrent)
    units = len(recurrent)
    b = lists(bias) if bias is not None else zeros(units)

    def step(x: Vector, states: States) -> tuple[Vector, States]:
        z = add(matmul(x, kernel, masks[0]), b, matmul(states[0], recurrent, masks[1]))
        h = activate(activation, z)
        return h, [h]

    return _cell(step, [units])


def lstm(
    kernel: Any,
    recurrent: Any,
    bias: Any = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    masks: Any = (None, None),
) -> Cell:
    """Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000; gates i, f, c, o."""
    kernel, recurrent = lists(kernel), lists(recurrent)
    units = len(recurrent)
    b = lists(bias) if bias is not None else zeros(4 * units)

    def step(x: Vector, states: States) -> tuple[Vector, States]:
        h, c = states
        zi, zf, zc, zo = split(
            add(matmul(x, kernel, masks[0]), b, matmul(h, recurrent, masks[1])), 4
        )
        i = activate(recurrent_activation, zi)  # i = s(x @ Ki + bi + h @ Ri)
        f = activate(recurrent_activation, zf)  # f = s(x @ Kf + bf + h @ Rf)
        o = activate(recurrent_activation, zo)  # o = s(x @ Ko + bo + h @ Ro)
        c = add(multiply(f, c), multiply(i, activate(activation, zc)))  # c' = f * c + i * g(zc)
        h = multiply(o, activate(activation, c))  # h' = o * g(c')
        return h, [h, c]

    return _cell(step, [units, units])


def gru(
    kernel: Any,
    recurrent: Any,
    bias: Any = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    reset_after: bool = True,
    masks: Any = (None, None),
) -> Cell:
    """Cho et al. 2014 (arXiv 1406.1078), gates z, r, h.

    The bias is (2, 3U) with reset_after (row 0 of x, row 1 of h), else (3U,).
    """
    kernel, recurrent = lists(kernel), lists(recurrent)
    units = len(recurrent)
    of_x, of_h = zeros(3 * units), zeros(3 * units)
    if bias is not None:
        of_x, of_h = lists(bias) if reset_after else (lists(bias), of_h)
    recurrent_h = [row[2 * units :] for row in recurrent]

    def step(x: Vector, states: States) -> tuple[Vector, States]:
        (h,) = states
        xz, xr, xh = split(add(matmul(x, kernel, masks[0]), of_x), 3)
        hz, hr, hh = split(add(matmul(h, recurrent, masks[1]), of_h), 3)
        z = activate(recurrent_activation, add(xz, hz))  # z = s(x @ Kz + h @ Rz + b)
        r = activate(recurrent_activation, add(xr, hr))  # r = s(x @ Kr + h @ Rr + b)
        # Equation 8 of the paper is (r * h) @ Rh; cuDNN, and Keras since 2.3, r * (h @ Rh + b1).
        last = None if masks[1] is None else lists(masks[1])[-1:]
        inner = multiply(r, hh) if reset_after else matmul(multiply(r, h), recurrent_h, last)
        candidate = activate(activation, add(xh, inner))
        h = [z[u] * h[u] + (1.0 - z[u]) * candidate[u] for u in range(units)]  # equation 7
        return h, [h]

    return _cell(step, [units])


def peephole_lstm(
    kernel: Any,
    recurrent: Any,
    bias: Any,
    peephole: Any,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    masks: Any = (None, None),
) -> Cell:
    """Gers et al. 2002 (Graves 2013, equations 7 to 11): gates i, f, c, o.

    The rows of peephole (3, U) are i, f, o; i and f see the old c, o the new one.
    """
    kernel, recurrent = lists(kernel), lists(recurrent)
    p_i, p_f, p_o = lists(peephole)
    units = len(recurrent)
    b = lists(bias) if bias is not None else zeros(4 * units)

    def step(x: Vector, states: States) -> tuple[Vector, States]:
        h, c = states
        zi, zf, zc, zo = split(
            add(matmul(x, kernel, masks[0]), b, matmul(h, recurrent, masks[1])), 4
        )
        i = activate(recurrent_activation, add(zi, multiply(p_i, c)))
        f = activate(recurrent_activation, add(zf, multiply(p_f, c)))
        c = add(multiply(f, c), multiply(i, activate(activation, zc)))
        o = activate(recurrent_activation, add(zo, multiply(p_o, c)))
        h = multiply(o, activate(activation, c))
        return h, [h, c]

    return _cell(step, [units, units])


def layer_norm_lstm(
    kernel: Any,
    recurrent: Any,
    bias: Any,
    *norms: Any,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    epsilon: float = 1e-3,
    masks: Any = (None, None),
) -> Cell:
    """Ba et al. 2016, equations 20 to 22: gates i, f, c, o.

    `norms`: gamma and beta of what comes from x (4U), of what comes from h (4U), and of c (U). As
    in TensorFlow Addons the c that is carried is the normalised one.
    """
    kernel, recurrent = lists(kernel), lists(recurrent)
    units = len(recurrent)
    b = lists(bias) if bias is not None else zeros(4 * units)
    of_x, of_h, of_c = norms[:2], norms[2:4], norms[4:]

    def normal(row: Vector, norm: Any) -> Vector:
        found: Vector = layer_normalization([row], *norm, epsilon=epsilon)[0]
        return found

    def step(x: Vector, states: States) -> tuple[Vector, States]:
        h, c = states
        from_x, from_h = matmul(x, kernel, masks[0]), matmul(h, recurrent, masks[1])
        z = add(normal(from_x, of_x), normal(from_h, of_h), b)
        zi, zf, zc, zo = split(z, 4)
        i, f = activate(recurrent_activation, zi), activate(recurrent_activation, zf)
        c = normal(add(multiply(f, c), multiply(i, activate(activation, zc))), of_c)
        h = multiply(activate(recurrent_activation, zo), activate(activation, c))
        return h, [h, c]

    return _cell(step, [units, units])


def minimal_gated_unit(kernel: Any, recurrent: Any, bias: Any) -> Cell:
    """Zhou et al. 2016 (arXiv 1603.09420, equation 10): gates f, h; one gate does both jobs."""
    kernel, recurrent, b = lists(kernel), lists(recurrent), lists(bias)
    units = len(recurrent)
    recurrent_f = [row[:units] for row in recurrent]
    recurrent_h = [row[units:] for row in recurrent]

    def step(x: Vector, states: States) -> tuple[Vector, States]:
        (h,) = states
        xf, xh = split(add(matmul(x, kernel), b), 2)
        f = activate("sigmoid", add(xf, matmul(h, recurrent_f)))
        candidate = activate("tanh", add(xh, matmul(multiply(f, h), recurrent_h)))
        h = [(1.0 - f[u]) * h[u] + f[u] * candidate[u] for u in range(units)]
        return h, [h]

    return _cell(step, [units])


def custom(step: Callable[..., Any], sizes: list[int], units: int) -> Cell:
    """A cell whose output need not be a state: a masked first step repeats zeros."""
    return Cell(step, lambda: [zeros(n) for n in sizes], lambda _: zeros(units), units)


def stacked(*cells: Cell) -> Cell:
    """Cells on top of each other in one step; states are nested, one list a cell."""

    def step(x: Vector, states: States) -> tuple[Vector, States]:
        after = []
        for cell, state in zip(cells, states, strict=True):
            x, state = cell.step(x, state)
            after.append(state)
        return x, after

    return Cell(
        step,
        lambda: [cell.start() for cell in cells],
        lambda states: cells[-1].held(states[-1]),
        cells[-1].units,
    )


# --- sequences ----------------------------------------------------------------------------------


def sequence(
    cell: Cell,
    x_TF: Any,
    states: States | None = None,
    mask_T: Any = None,
    length: int | None = None,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    held: Vector | None = None,
) -> tuple[list[Vector], Vector, States]:
    """One row: its outputs in the order they were computed, the held output, the states.

    A masked step keeps all states and repeats the previous output (`held` before a first valid
    step: by default the h the row started from, zeros for a custom cell). Steps at or past `length`
    are masked. go_backwards turns the input and its mask round, as Keras does. With
    zero_output_for_mask the outputs of masked steps are zeros, and what is held is not touched.
    To go on from where a row ended, give its held output and its states.
    """
    x_TF = [lists(x) for x in lists(x_TF)]
    states = cell.start() if states is None else lists(states)
    mask = [True] * len(x_TF) if mask_T is None else [bool(m) for m in lists(mask_T)]
    if length is not None:
        mask = [m and t < length for t, m in enumerate(mask)]
    if go_backwards:
        x_TF, mask = x_TF[::-1], mask[::-1]
    y = cell.held(states) if held is None else list(held)
    outputs = []
    for x, valid in zip(x_TF, mask, strict=True):
        if valid:
            y, states = cell.step(x, states)
        outputs.append(list(y) if valid or not zero_output_for_mask else zeros(cell.units))
    return outputs, y, states


def layer(
    cell: Cell,
    x_BTF: Any,
    states: States | None = None,
    mask_BT: Any = None,
    lengths_B: Any = None,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
) -> tuple[list[list[Vector]], list[Vector], States]:
    """A batch of rows, each for itself: outputs (B, T, U), last outputs (B, U), states [(B, U), …].

    The last output is what return_sequences=False gives. states are given and returned as in Keras,
    one (B, U) for each state (nested where stacked).
    """
    x_BTF = lists(x_BTF)
    rows = []
    for b, x_TF in enumerate(x_BTF):
        rows.append(
            sequence(
                cell,
                x_TF,
                None if states is None else _row(states, b),
                None if mask_BT is None else lists(mask_BT)[b],
                None if lengths_B is None else int(lengths_B[b]),
                go_backwards,
                zero_output_for_mask,
            )
        )
    return (
        [outputs for outputs, _, _ in rows],
        [outputs[-1] if outputs else held for outputs, held, _ in rows],
        _batch([after for _, _, after in rows], cell.start()),
    )


def _row(states: Any, b: int) -> Any:
    """Row b of states that are (B, U) each, nested or not."""
    if isinstance(states, (list, tuple)) and not is_matrix(states):
        return [_row(state, b) for state in states]
    return lists(states)[b]


def is_matrix(states: Any) -> bool:
    """[[number, …], …] rather than a list of such."""
    first = states[0] if len(states) else None
    return (
        isinstance(first, (list, tuple)) and bool(len(first)) and isinstance(first[0], (int, float))
    )


def _batch(rows: list[Any], like: Any) -> Any:
    """Turn states of rows round: from one nest a row to one nest of (B, U)."""
    if like and isinstance(like[0], list):
        return [_batch([row[i] for row in rows], like[i]) for i in range(len(like))]
    return rows


MERGES: dict[str, Callable[[Vector, Vector], Vector]] = {
    "concat": lambda f, b: f + b,
    "sum": lambda f, b: [p + q for p, q in zip(f, b, strict=True)],
    "mul": lambda f, b: [p * q for p, q in zip(f, b, strict=True)],
    "ave": lambda f, b: [(p + q) / 2.0 for p, q in zip(f, b, strict=True)],
}


def bidirectional(
    forward: Cell,
    backward: Cell,
    x_BTF: Any,
    merge_mode: str | None = "concat",
    return_sequences: bool = True,
    states: States | None = None,
    mask_BT: Any = None,
    lengths_B: Any = None,
) -> tuple[Any, States]:
    """Schuster and Paliwal 1997: output and states (forward's, then backward's).

    The output is (B, T, U) or (B, U), a pair of them with merge_mode None. With return_sequences
    masked outputs are zeros, as in Keras, and the backward outputs are in the order of the input.
    """
    half = None if states is None else len(states) // 2
    y_f, last_f, s_f = layer(
        forward,
        x_BTF,
        None if states is None else states[:half],
        mask_BT,
        lengths_B,
        zero_output_for_mask=return_sequences,
    )
    y_b, last_b, s_b = layer(
        backward,
        x_BTF,
        None if states is None else states[half:],
        mask_BT,
        lengths_B,
        go_backwards=True,
        zero_output_for_mask=return_sequences,
    )
    f, b = (y_f, [row[::-1] for row in y_b]) if return_sequences else (last_f, last_b)
    if merge_mode is None:
        return (f, b), s_f + s_b
    merge = MERGES[merge_mode]
    if not return_sequences:
        return [merge(p, q) for p, q in zip(f, b, strict=True)], s_f + s_b
    merged = [
        [merge(p, q) for p, q in zip(fr, br, strict=True)] for fr, br in zip(f, b, strict=True)
    ]
    return merged, s_f + s_b


# --- layers without a state -----------------------------------------------------------------------


def last_axis(function: Callable[[Vector], Vector], x: Any) -> Any:
    """A function of a vector over the last axis of nested lists."""
    x = lists(x)
    if isinstance(x[0], (list, tuple)) or hasattr(x[0], "tolist"):
        return [last_axis(function, row) for row in x]
    return function(list(x))


def activation(x: Any, name: str, **params: Any) -> Any:
    return last_axis(lambda row: activate(name, row, **params), x)


def dense(x: Any, kernel: Any, bias: Any = None, activation: str | None = None) -> Any:
    """g(x @ K + b) over the last axis."""
    kernel = lists(kernel)
    b = lists(bias) if bias is not None else zeros(len(kernel[0]))
    return last_axis(lambda row: activate(activation, add(matmul(row, kernel), b)), x)


def embedding(ids: Any, table: Any) -> Any:
    """Row ids[…] of the table, in the place of each id."""
    table = lists(table)
    return last_axis(lambda row: [list(table[int(i)]) for i in row], ids)


def prelu(x: Any, alpha: Any) -> Any:
    """He et al. 2015: max(0, x) + alpha * min(0, x), alpha (F,)."""
    alpha = lists(alpha)
    return last_axis(
        lambda row: [max(0.0, v) + alpha[f] * min(0.0, v) for f, v in enumerate(row)], x
    )


def normalization(x: Any, mean: Any, variance: Any) -> Any:
    """keras.layers.Normalization: (x - mean) / max(sqrt(variance), 1e-7)."""
    mean, variance = lists(mean), lists(variance)
    deviation = [max(math.sqrt(v), 1e-7) for v in variance]
    return last_axis(lambda row: [(v - mean[f]) / deviation[f] for f, v in enumerate(row)], x)


def mean_and_deviation(x: Any) -> Any:
    """The first half of the features, then softplus of the others + 0.001."""

    def both(row: Vector) -> Vector:
        half = len(row) // 2
        return [*row[:half], *(activate("softplus", [v])[0] + 0.001 for v in row[half:])]

    return last_axis(both, x)


def rescaling(x: Any, scale: Any, offset: Any = 0.0) -> Any:
    """x * scale + offset, each a number or one a feature."""
    scale, offset = lists(scale), lists(offset)

    def rescale(row: Vector) -> Vector:
        scales = scale if isinstance(scale, (list, tuple)) else [scale] * len(row)
        offsets = offset if isinstance(offset, (list, tuple)) else [offset] * len(row)
        return [v * s + o for v, s, o in zip(row, scales, offsets, strict=True)]

    return last_axis(rescale, x)


def layer_normalization(x: Any, gamma: Any = None, beta: Any = None, epsilon: float = 1e-3) -> Any:
    """Ba et al. 2016, equation 4, over the last axis."""
    gamma, beta = lists(gamma), lists(beta)

    def normalize(row: Vector) -> Vector:
        mean = sum(row) / len(row)
        variance = sum((v - mean) ** 2 for v in row) / len(row)
        scaled = [(v - mean) / math.sqrt(variance + epsilon) for v in row]
        scaled = multiply(scaled, gamma) if gamma is not None else scaled
        return add(scaled, beta) if beta is not None else scaled

    return last_axis(normalize, x)


def batch_normalization(
    x: Any, mean: Any, variance: Any, gamma: Any = None, beta: Any = None, epsilon: float = 1e-3
) -> Any:
    """Ioffe and Szegedy 2015, algorithm 2: the moving mean and variance, as in inference."""
    mean, variance, gamma, beta = lists(mean), lists(variance), lists(gamma), lists(beta)

    def normalize(row: Vector) -> Vector:
        scaled = [
            (v - m) / math.sqrt(s + epsilon) for v, m, s in zip(row, mean, variance, strict=True)
        ]
        scaled = multiply(scaled, gamma) if gamma is not None else scaled
        return add(scaled, beta) if beta is not None else scaled

    return last_axis(normalize, x)


def moments(x: Any, mask_BT: Any = None) -> tuple[Vector, Vector]:
    """Mean and variance of each feature over rows and steps: algorithm 1 of the same paper."""
    x, mask = lists(x), lists(mask_BT)
    kept = [
        step for b, row in enumerate(x) for t, step in enumerate(row) if mask is None or mask[b][t]
    ]
    means = [sum(values) / len(kept) for values in zip(*kept, strict=True)]
    variances = [
        sum((v - mean) ** 2 for v in values) / len(kept)
        for values, mean in zip(zip(*kept, strict=True), means, strict=True)
    ]
    return means, variances


def moved(moving: Vector, moment: Vector, momentum: float) -> Vector:
    """A moving mean or variance after one more batch, as in Keras."""
    return [m * momentum + v * (1.0 - momentum) for m, v in zip(moving, moment, strict=True)]


def conv1d_causal(
    x_BTF: Any,
    kernel_KFU: Any,
    bias: Any = None,
    dilation: int = 1,
    activation: str | None = None,
    past_BCF: Any = None,
) -> list[list[Vector]]:
    """van den Oord et al. 2016: y[t] = g(b + sum over k of x[t - (K - 1 - k) * dilation] @ W[k]).

    past_BCF holds the C = (K - 1) * dilation inputs before the first, oldest first; default zeros.
    """
    x_BTF, kernel = lists(x_BTF), lists(kernel_KFU)
    taps, features, units = len(kernel), len(kernel[0]), len(kernel[0][0])
    b = lists(bias) if bias is not None else zeros(units)
    reach = (taps - 1) * dilation
    batch = []
    for row, x_TF in enumerate(x_BTF):
        past = [zeros(features)] * reach if past_BCF is None else lists(past_BCF)[row]
        seen = list(past) + list(x_TF)
        outputs = []
        for t in range(len(x_TF)):
            z = list(b)
            for k in range(taps):
                z = add(z, matmul(seen[t + k * dilation], kernel[k]))
            outputs.append(activate(activation, z))
        batch.append(outputs)
    return batch


def masking(x_BTF: Any, mask_value: float = 0.0) -> tuple[Any, list[list[bool]]]:
    """keras.layers.Masking: a step whose features all are mask_value is masked, and zeroed."""
    mask = [[any(v != mask_value for v in x) for x in row] for row in lists(x_BTF)]
    x = [
        [list(x) if m else zeros(len(x)) for x, m in zip(row, valid, strict=True)]
        for row, valid in zip(lists(x_BTF), mask, strict=True)
    ]
    return x, mask
