"""The operators beside LSTM and GRU, ragged lengths and masks, against ONNX Runtime and PyTorch.

    python tests/benchmarks/bench_operators.py [--threads 1 2] [--markdown FILE …]

A window of 64 lanes x 64 steps, 64 features, 128 units. Every side is checked against numpy in
float64, then all sides are timed in turn, and the machine with them. `rate` is the share of the
multiply-adds a second that a loop of nothing else reaches, counting those of live steps only. A
peer without a figure cannot do it. Needs `pip install -e '.[bench]' onnx`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import limits
import numpy as np
import operator_peers as peers
import timing

from streamrnn.nn.kernels import (
    conv1d,
    dense,
    recurrent,
    set_threads,
)
from streamrnn.nn.kernels.swept import PLAIN_LSTM, SIMPLE_RNN, pack_gru

LANES, FEATURES, UNITS, STEPS, TAPS, IDS = 64, 64, 128, 64, 3, 10_000
ROWS = LANES * STEPS
RNG = np.random.default_rng(5)
Side = Callable[[], np.ndarray]


class Case(NamedTuple):
    """Sides give outputs (B, T, U) from a state of zeros; steps that are absent are not judged."""

    live_BT: np.ndarray
    products: int
    """Multiply-adds of a live step of a lane."""
    wanted: np.ndarray
    sides: dict[str, Side]


def random(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / 12).astype(np.float32)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def lstm_step(z: np.ndarray, states: list[np.ndarray]) -> list[np.ndarray]:
    i, f, g, o = np.split(z, 4, axis=1)
    c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def recurrent_oracle(step: Any, x_BTF: np.ndarray, live_BT: np.ndarray) -> np.ndarray:
    """Outputs in float64: `step` takes x and states, and gives states, of which the first is h."""
    states = [np.zeros((LANES, UNITS)) for _ in range(2)]
    y_BTU = np.zeros((LANES, STEPS, UNITS))
    for t in range(STEPS):
        new = step(x_BTF[:, t].astype(np.float64), states)
        states = [np.where(live_BT[:, t, None], *pair) for pair in zip(new, states, strict=False)]
        y_BTU[:, t] = states[0]
    return y_BTU


def ours(
    pack: Any, weights: list[np.ndarray], x_BTF: np.ndarray, options: Any, *absent: Any
) -> Side:
    packed = pack(*weights, **options)
    lengths, mask = absent or (None, None)
    names = ("tanh",) if pack == SIMPLE_RNN.pack else ("sigmoid", "tanh")
    y_BTU = np.zeros((LANES, STEPS, UNITS), np.float32)
    zeros = [
        np.zeros((LANES, UNITS), np.float32) for _ in range(2 if pack == PLAIN_LSTM.pack else 1)
    ]
    states = [state.copy() for state in zeros]

    def run() -> np.ndarray:
        for state, zero in zip(states, zeros, strict=True):
            state[:] = zero
        recurrent.run(packed, names, x_BTF, lengths, mask, states, y_BTU)
        return y_BTU

    return run


def recurrences(threads: int) -> dict[str, Case]:
    x_BTF = (random(LANES, STEPS, FEATURES) * 12).astype(np.float32)
    everywhere = np.ones((LANES, STEPS), bool)
    found = {}

    four = [random(FEATURES, 4 * UNITS), random(UNITS, 4 * UNITS), random(4 * UNITS)]

    def lstm_of(x: np.ndarray, states: list[np.ndarray]) -> list[np.ndarray]:
        return lstm_step(x @ four[0] + states[0] @ four[1] + four[2], states)

    products = four[0].size + four[1].size
    lengths = np.sort(RNG.integers(1, STEPS + 1, LANES))[::-1].copy()
    ragged = np.arange(STEPS) < lengths[:, None]
    half = RNG.random((LANES, STEPS)) < 0.5
    kinds = {
        "LSTM": (
            everywhere,
            ours(PLAIN_LSTM.pack, four, x_BTF, {}),
            peers.lstm(four, x_BTF, threads),
        ),
        "LSTM, ragged lengths": (
            ragged,
            ours(PLAIN_LSTM.pack, four, x_BTF, {}, lengths, None),
            peers.lstm(four, x_BTF, threads, lengths),
        ),
        "LSTM, half of the steps masked": (
            half,
            ours(PLAIN_LSTM.pack, four, x_BTF, {}, None, half),
            {},
        ),
        "LSTM, all steps masked": (
            ~everywhere,
            ours(PLAIN_LSTM.pack, four, x_BTF, {}, None, ~everywhere),
            {},
        ),
    }
    for name, (live, mine, others) in kinds.items():
        wanted = recurrent_oracle(lstm_of, x_BTF, live)
        found[name] = Case(live, products, wanted, {"streamrnn": mine, **others})

    three = [random(FEATURES, 3 * UNITS), random(UNITS, 3 * UNITS), random(3 * UNITS)]

    def gru_of(x: np.ndarray, states: list[np.ndarray]) -> list[np.ndarray]:
        xz, xr, xh = np.split(x @ three[0] + three[2], 3, axis=1)
        kz, kr, kh = np.split(three[1], 3, axis=1)
        h = states[0]
        z, r = sigmoid(xz + h @ kz), sigmoid(xr + h @ kr)
        return [z * h + (1 - z) * np.tanh(xh + (r * h) @ kh)]

    before = {"reset_after": False}
    found["GRU, reset_after=False"] = Case(
        everywhere,
        three[0].size + three[1].size,
        recurrent_oracle(gru_of, x_BTF, everywhere),
        {
            "streamrnn": ours(pack_gru, three, x_BTF, before),
            **peers.gru_before(three, x_BTF, threads),
        },
    )

    one = [random(FEATURES, UNITS), random(UNITS, UNITS), random(UNITS)]

    def simple_of(x: np.ndarray, states: list[np.ndarray]) -> list[np.ndarray]:
        return [np.tanh(x @ one[0] + states[0] @ one[1] + one[2])]

    found["SimpleRNN"] = Case(
        everywhere,
        one[0].size + one[1].size,
        recurrent_oracle(simple_of, x_BTF, everywhere),
        {
            "streamrnn": ours(SIMPLE_RNN.pack, one, x_BTF, {}),
            **peers.simple_rnn(one, x_BTF, threads),
        },
    )
    return found


def feedforward(threads: int) -> dict[str, Case]:
    x_BTF = (random(LANES, STEPS, FEATURES) * 12).astype(np.float32)
    x_NF, everywhere = x_BTF.reshape(ROWS, FEATURES), np.ones((LANES, STEPS), bool)
    found = {}
    for units in (UNITS, 1):
        kernel, bias = random(FEATURES, units), random(units)
        packed, y_NU = dense.pack(kernel, bias), np.empty((ROWS, units), np.float32)

        def dense_run(packed: Any = packed, y_NU: Any = y_NU) -> np.ndarray:
            dense.run(packed, x_NF, y_NU)
            return y_NU.reshape(LANES, STEPS, -1)

        wanted = x_BTF.astype(np.float64) @ kernel + bias
        sides = {"streamrnn": dense_run, **peers.dense(kernel, bias, x_NF, LANES, threads)}
        found[f"Dense({units})"] = Case(everywhere, FEATURES * units, wanted, sides)

    taps, bias = random(TAPS, FEATURES, UNITS), random(UNITS)
    convolution, y_BTU = conv1d.pack(taps, bias), np.empty((LANES, STEPS, UNITS), np.float32)
    past = np.zeros((LANES, TAPS - 1, FEATURES), np.float32)

    def conv_run() -> np.ndarray:
        past[:] = 0
        conv1d.run(convolution, x_BTF, None, None, past, y_BTU)
        return y_BTU

    padded = np.pad(x_BTF.astype(np.float64), ((0, 0), (TAPS - 1, 0), (0, 0)))
    wanted = sum(padded[:, k : k + STEPS] @ taps[k] for k in range(TAPS)) + bias
    sides = {"streamrnn": conv_run, **peers.conv1d(taps, bias, x_BTF, threads)}
    found[f"Conv1D({UNITS}, {TAPS})"] = Case(everywhere, taps.size, wanted, sides)

    table_VE, ids_BT = random(IDS, UNITS), RNG.integers(0, IDS, (LANES, STEPS))
    y_NE = np.empty((ROWS, UNITS), np.float32)

    def embed() -> np.ndarray:
        dense.embed(table_VE, ids_BT.reshape(-1), y_NE)
        return y_NE.reshape(LANES, STEPS, UNITS)

    sides = {"streamrnn": embed, **peers.embedding(table_VE, ids_BT, threads)}
    found[f"Embedding({IDS}, {UNITS})"] = Case(everywhere, 0, table_VE[ids_BT], sides)
    return found


def measure(name: str, case: Case, threads: int) -> list[str]:
    """Check and time one operator: a line of the table."""
    for side_name, side in case.sides.items():
        error = np.abs(side() - case.wanted)[case.live_BT].max(initial=0)
        if not error <= (5e-6 if side_name == "streamrnn" else 1e-4):
            raise SystemExit(f"{side_name}, {name}: error {error}")
    limit_side, limit_work = limits.multiply_adds(threads)
    rounds, pause = timing.turns(threads)
    seconds = timing.in_turn(case.sides | {"limit": limit_side}, rounds, pause=pause)
    live = int(case.live_BT.sum())
    work = case.products * live
    rate = work / seconds["streamrnn"] / (limit_work / seconds["limit"])
    others = {n: seconds[n] for n in case.sides if n != "streamrnn"}
    ratio = min(others.values(), default=0) / seconds["streamrnn"]
    columns = [1e6 * seconds["streamrnn"], *(1e6 * others.get(n, 0) for n in peers.NAMES)]
    return [
        name,
        f"{live:,}",
        *(f"{micros:.0f}" if micros else "" for micros in columns),
        f"{ratio:.2f}" if others else "",
        f"{rate:.0%}" if work else "",
    ]


def main() -> None:
    options = timing.parser_of(__doc__, threads=[1, 2]).parse_args()
    parts = [timing.machine("numba", *peers.NAMES)]
    for threads in options.threads:
        set_threads(threads)
        cases = recurrences(threads) | feedforward(threads)
        lines = [measure(name, case, threads) for name, case in cases.items()]
        head = ["", "live steps", "streamrnn", *peers.NAMES, "ratio", "rate"]
        parts += [
            f"**{threads} thread{'s' * (threads > 1)}**, µs a window",
            timing.table(head, lines),
        ]
    timing.publish({"operators": "\n\n".join(parts)}, options.markdown)


if __name__ == "__main__":
    main()
