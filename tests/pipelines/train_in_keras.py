"""Train the layers of the weather model in Keras. Needs keras.

A GRU reads an airport's log row by row and forecasts at each row the temperature three hours later.
It is trained on January to September 2013; October to December is reserved for the evaluation. Rows
are prepared as in pipelines/weather.toml, by code of its own: a null is replaced by the airport's
previous value, and a wind speed outside 0 to 150 mph is a null.

Training cuts the log into windows of a week, each from a zero state. The first day of a window has
no weight in the loss, so that the GRU is trained with a settled state, as in a pipeline that
carries it.
"""

from pathlib import Path

import keras
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

READINGS = ["temp", "dewp", "humid", "wind_speed", "pressure", "precip"]
VALID = {"wind_speed": (0.0, 150.0)}
CLIP = {"wind_speed": (0.0, 40.0), "precip": (0.0, 0.3)}
BEGIN, OCTOBER, END = (
    np.datetime64(f"{month}-01T00:00") for month in ("2013-01", "2013-10", "2014-01")
)
AHEAD = np.timedelta64(3, "h")
UNITS = 24
STEPS, STRIDE, SETTLING = 168, 24, 24
# Chosen on held-out months of January to September: an LSTM, weight decay, dropout, 30, 90 epochs
# were worse; 32 units were 0.03 degF better in winter and 0.01 worse in late summer.
EPOCHS, BATCH, RATE = 50, 64, 0.01


def previous(values: np.ndarray) -> np.ndarray:
    """Replace each NaN by the last number before it; leading NaNs stay."""
    last = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))))
    return values[last]


def read(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Read each airport's times (N,), features (N, 8) float32, and temperature 3 hours later (N,).

    The target is NaN where there is no row, or no reading, exactly three hours later.
    """
    table = pq.read_table(path)
    airports = {}
    for origin in sorted(pc.unique(table["origin"]).to_pylist()):
        rows = table.filter(pc.equal(table["origin"], origin))
        times = rows["time_hour"].to_numpy().astype("datetime64[us]")
        columns = []
        for name in READINGS:
            values = rows[name].to_numpy().astype(np.float64)
            if name in VALID:
                low, high = VALID[name]
                values = np.where((values >= low) & (values <= high), values, np.nan)
            values = previous(values)
            columns.append(np.clip(values, *CLIP.get(name, (-np.inf, np.inf))))
        hour = times.astype("datetime64[h]").astype(np.int64) % 24
        columns += [np.sin(2 * np.pi * hour / 24), np.cos(2 * np.pi * hour / 24)]

        temp = rows["temp"].to_numpy().astype(np.float64)
        at = np.searchsorted(times, times + AHEAD)
        found = (at < len(times)) & (times[np.minimum(at, len(times) - 1)] == times + AHEAD)
        target = np.where(found, temp[np.minimum(at, len(times) - 1)], np.nan)
        airports[origin] = times, np.column_stack(columns).astype(np.float32), target
    return airports


def windows(
    airports: dict, since: np.datetime64, until: np.datetime64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x (W, T, 8), target (W, T, 1) and the weight of each step in the loss (W, T, 1)."""
    x, y, weight = [], [], []
    for times, features, target in airports.values():
        first = int(np.searchsorted(times, since))
        end = int(np.searchsorted(times + AHEAD, until))  # the target too lies before `until`
        for start in range(first, end - STEPS + 1, STRIDE):
            cut = slice(start, start + STEPS)
            counted = ~np.isnan(target[cut])
            counted[:SETTLING] = False
            x.append(features[cut])
            y.append(np.nan_to_num(target[cut]))
            weight.append(counted)
    return np.stack(x), np.stack(y)[..., None], np.stack(weight)[..., None].astype(np.float32)


def train(airports: dict, since: np.datetime64, until: np.datetime64) -> keras.Sequential:
    keras.utils.set_random_seed(0)
    x, y, weight = windows(airports, since, until)
    mean, deviation = np.float64(y[weight > 0].mean()), np.float64(y[weight > 0].std())
    normalization = keras.layers.Normalization(name="normalize")
    normalization.adapt(x.reshape(-1, x.shape[-1]))
    core = keras.Sequential(
        [
            keras.Input((None, x.shape[-1])),
            normalization,
            keras.layers.GRU(UNITS, return_sequences=True, name="gru"),
            keras.layers.Dense(1, name="dense"),
        ]
    )
    # The loss is taken before the Rescaling to degF: errors near 1 suit Adam.
    rate = keras.optimizers.schedules.CosineDecay(RATE, EPOCHS * -(-len(x) // BATCH))
    core.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss="mse")
    core.fit(
        x, (y - mean) / deviation, sample_weight=weight, batch_size=BATCH, epochs=EPOCHS, verbose=0
    )
    rescaling = keras.layers.Rescaling(float(deviation), float(mean), name="temp_3h")
    return keras.Sequential([keras.Input((None, x.shape[-1])), *core.layers, rescaling])


def rmse(model: keras.Sequential, airports: dict, since: np.datetime64, to: np.datetime64) -> dict:
    """Return the RMSE of the model and of persistence, over each airport's whole log."""
    scores = {}
    for origin, (times, features, target) in airports.items():
        forecasts = np.asarray(model(features[None]))[0, :, 0]
        counted = (times >= since) & (times < to) & ~np.isnan(target)
        error = forecasts[counted] - target[counted]
        persistence = features[counted, 0] - target[counted]
        scores[origin] = np.sqrt((error**2).mean()), np.sqrt((persistence**2).mean())
    return scores
