"""What a single call costs, in µs: one row and one step at a time, and a window.

    python tests/benchmarks/bench_calls.py [--rounds 15] [--units 16] [--markdown FILE …]

Medians; the sides take turns. Overhead, not arithmetic, decides at these sizes.
"""

import argparse

import numpy as np
import timing

from streamrnn import Sequential, layers

_FEATURES, _STEPS = 8, 50


def _built(layer: layers.RNN) -> layers.RNN:
    layer.build((None, None, _FEATURES))
    return layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--units", type=int, default=16)
    timing.add_markdown(parser)
    arguments = parser.parse_args()
    units = arguments.units

    rng = np.random.default_rng(0)
    row = rng.normal(size=(1, _FEATURES)).astype(np.float32)
    window = rng.normal(size=(1, _STEPS, _FEATURES)).astype(np.float32)
    step, one = row[:, None], np.zeros((1, units), np.float32)
    states = [one.copy(), one.copy()]

    plain, carried = _built(layers.LSTM(units)), _built(layers.LSTM(units, stateful=True))
    wrapped = _built(layers.RNN(layers.LSTMCell(units)))
    wrapped.set_weights(plain.get_weights())
    model = Sequential(
        [
            layers.Input((None, _FEATURES)),
            layers.LSTM(units, stateful=True),
            layers.Dense(1),
        ]
    )
    sides = {
        "LSTM.step, B=1": lambda: plain.step(row, states),
        "stateful LSTM, B=1, T=1": lambda: carried(step),
        "stateful Sequential(LSTM, Dense), B=1, T=1": lambda: model(step),
        f"LSTM, B=1, T={_STEPS}": lambda: plain(window),
        f"RNN(LSTMCell), B=1, T={_STEPS}": lambda: wrapped(window),
    }
    found = timing.in_turn(sides, rounds=arguments.rounds)
    rows = [(name, f"{time * 1e6:.1f}") for name, time in found.items()]
    about = f"{timing.machine('numpy', 'numba')}; {units} units, {_FEATURES} features"
    texts = {"calls": f"{about}\n\n{timing.table(['call', 'µs'], rows)}"}
    timing.publish(texts, arguments.markdown)


if __name__ == "__main__":
    main()
