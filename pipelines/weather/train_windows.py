"""Train a Keras model on the windows of the weather pipeline, with carried state.

    pip install 'streamrnn[keras-jax]'
    python pipelines/weather/train_windows.py out/mine.keras
    streamrnn run pipelines/weather.toml \
        --set model.path=out/mine.keras --set 'model.layers=[]' --set sink.path=out/mine
    streamrnn evaluate pipelines/weather.toml --by stream --since 2013-10-01 \
        --set model.path=out/mine.keras --set 'model.layers=[]' --set sink.path=out/mine

`Pipeline.windows` prepares rows, labels and weights as pipelines/weather.toml says, for any
framework: `[source]` is the same as in production, and `[target]` the same as in the evaluation. A
lane continues where it stopped, so that the model is trained on the kind of state that it will be
served with. Only the rows before October are read; their last labels would lie in October, and are
missing.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamrnn import Pipeline
from streamrnn.pipeline import SourceWindow

ROOT = Path(__file__).parents[2]
LANES, STEPS = 3, 48
UNITS, EPOCHS, RATE = 24, 20, 0.005
UNTIL = pa.scalar("2013-10-01").cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))


def windows(root: Path = ROOT) -> list[SourceWindow]:
    """Return the windows of January to September."""
    log = pq.read_table(root / "data" / "weather.parquet")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/before.parquet"
        pq.write_table(log.filter(pc.less(log["time_hour"], UNTIL)), path)
        pipeline = Pipeline.from_toml(
            root / "pipelines" / "weather.toml",
            [
                f"source.path={path}",
                f"model.path={root}/pipelines/weather/model.safetensors",  # for its inputs only
                f"window.lanes={LANES}",
                f"window.steps={STEPS}",
            ],
        )
        return list(pipeline.windows())


def labels(window: SourceWindow) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and weights, which windows have if the pipeline has a [target]."""
    assert window.y is not None
    assert window.weight is not None
    return window.y, window.weight


def scales(found: list[SourceWindow]) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return mean and variance of the features, mean and deviation of the labels."""
    x = np.concatenate([w.inputs[0][w.rows >= 0] for w in found]).astype(np.float64)
    y = np.concatenate([y[weight > 0] for y, weight in map(labels, found)]).astype(np.float64)
    return x.mean(axis=0), x.var(axis=0), float(y.mean()), float(y.std())


def train(found: list[SourceWindow], epochs: int = EPOCHS) -> keras.Sequential:
    """Train on the windows in their order, and return a model without lanes."""
    keras.utils.set_random_seed(0)
    features = found[0].inputs[0].shape[-1]
    mean, variance, middle, deviation = scales(found)
    scaled = keras.layers.Normalization(mean=mean, variance=variance, name="normalize")
    gru = keras.layers.GRU(UNITS, return_sequences=True, stateful=True, name="gru")
    dense = keras.layers.Dense(1, name="dense")
    x = keras.Input(batch_shape=(LANES, STEPS, features))
    model = keras.Model(x, dense(gru(scaled(x))))
    rate = keras.optimizers.schedules.CosineDecay(RATE, epochs * len(found))
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss="mse")
    for epoch in range(epochs):
        losses = []
        for window in found:
            state = np.array(keras.ops.convert_to_numpy(gru.states[0]))
            state[window.reset] = 0
            gru.states[0].assign(state)
            y, weight = labels(window)
            y = np.nan_to_num((y - middle) / deviation)  # without a label the weight is 0
            losses.append(model.train_on_batch(window.inputs[0], y, weight))
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
    outputs = keras.Sequential(
        [
            keras.Input((None, features)),
            keras.layers.Normalization(mean=mean, variance=variance, name="normalize"),
            keras.layers.GRU(UNITS, return_sequences=True, name="gru"),
            keras.layers.Dense(1, name="dense"),
            keras.layers.Rescaling(deviation, middle, name="temp_3h"),
        ]
    )
    outputs.get_layer("gru").set_weights(gru.get_weights())
    outputs.get_layer("dense").set_weights(dense.get_weights())
    return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a Keras model on windows of the weather.")
    parser.add_argument("out", type=Path, help="the .keras file to write")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    train(windows()).save(arguments.out)


if __name__ == "__main__":
    main()
