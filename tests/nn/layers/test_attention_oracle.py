"""Attention and Dot beside Keras itself: a grid of arguments, in files that Keras writes."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import h5py
import keras
from keras import layers as k

import streamrnn
from streamrnn.nn.formats.keras.write import save_keras

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(5)
QUERIES, VALUES = (RNG.normal(size=(4, n, 3)).astype(np.float32) for n in (6, 7))
QUERIES[0, 4:] = QUERIES[2, 1] = VALUES[0, :2] = VALUES[1, 5:] = VALUES[2, 3] = 0  # masked
PRESENT = (QUERIES != 0).any(axis=-1)
Call = Callable[..., Any]

ATTENTION: dict[str, Call] = {
    f"{kind.__name__} {options} {'causal ' * causal}{'keys' * keys}": (
        lambda q, v, u, kind=kind, options=options, causal=causal, keys=keys: kind(**options)(
            [q, v, u] if keys else [q, v], **({"use_causal_mask": True} if causal else {})
        )
    )
    for kind, grid in (
        (
            k.Attention,
            [
                {},
                {"use_scale": True, "dropout": 0.3, "seed": 1},
                {"score_mode": "concat"},
                {"score_mode": "concat", "use_scale": True},
            ],
        ),
        (k.AdditiveAttention, [{}, {"use_scale": False, "dropout": 0.2}]),
    )
    for options in grid
    for causal in (False, True)
    for keys in (False, True)
}
DOTS: dict[str, Call] = {
    f"Dot {axes} {normalize}": (
        lambda q, v, u, axes=axes, normalize=normalize: k.Dot(axes, normalize=normalize)([v, u])
    )
    for axes in (1, 2, -1, (1, 1), (2, -1), (-2, 1))
    for normalize in (False, True)
} | {
    "Dot of vectors": lambda q, v, u: k.Dot(1)([last(q), last(v)]),
    "Dot of cosines": lambda q, v, u: k.Dot(-1, normalize=True)([last(q), last(v)]),
    "Dot of steps and a vector": lambda q, v, u: k.Dot((2, 1))([v, last(q)]),
    "Dot of a vector and steps": lambda q, v, u: k.Dot((1, 2))([last(q), v]),
    "weighted by hand": lambda q, v, u: k.Dot(1)(
        [k.Softmax(axis=1)(k.Conv1D(1, 2, padding="same")(v)), u]
    ),
}


def last(x: Any) -> Any:
    return k.GRU(5)(x)


def theirs_with(*calls: Call) -> Any:
    """A model of Keras, each call an output, behind recurrent layers that pass masks on."""
    keras.backend.clear_session()
    inputs = [keras.Input((x.shape[1], 3)) for x in (QUERIES, VALUES)]
    queries, values = (k.Masking()(x) for x in inputs)
    q, v, u = (k.GRU(5, return_sequences=True)(x) for x in (queries, values, values))
    model = keras.Model(inputs, [call(q, v, u) for call in calls])
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(size=w.shape) * 0.7 for w in model.get_weights()])
    return model


def outputs_of(model: Any) -> list[np.ndarray]:
    made = model([QUERIES, VALUES])
    return [keras.ops.convert_to_numpy(y) for y in (made if isinstance(made, list) else [made])]


def assert_equal(theirs: Any, folder: Path, suffix: str, *, present: bool = False) -> Any:
    """The file loads, and gives Keras's numbers; what is saved again gives the same bits.

    present: compare steps that are not masked alone.
    """
    theirs.save(folder / f"m{suffix}")
    ours = streamrnn.load_model(folder / f"m{suffix}")
    found = outputs_of(ours)
    for y, other in zip(found, outputs_of(theirs), strict=True):
        where = PRESENT if present else ...
        np.testing.assert_allclose(y[where], other[where], rtol=2e-5, atol=2e-5)
    ours.save(folder / "again.safetensors")
    again = streamrnn.load_model(folder / "again.safetensors")
    for y, same in zip(found, outputs_of(again), strict=True):
        np.testing.assert_array_equal(y, same)
    return ours


HEADS: dict[str, Call] = {
    f"{options} {'causal ' * causal}{'keys' * keys}": (
        lambda q, v, u, options=options, causal=causal, keys=keys: k.MultiHeadAttention(**options)(
            q, v, **({"key": u} if keys else {}), **({"use_causal_mask": True} if causal else {})
        )
    )
    for options in (
        {"num_heads": 1, "key_dim": 4},
        {"num_heads": 3, "key_dim": 2, "value_dim": 5, "use_bias": False},
        {"num_heads": 2, "key_dim": 3, "output_shape": 4, "attention_axes": (1,)},
        {"num_heads": 2, "key_dim": 3, "output_shape": (2, 3), "dropout": 0.3, "seed": 1},
    )
    for causal in (False, True)
    for keys in (False, True)
} | {
    "one by name": lambda q, v, u: k.MultiHeadAttention(2, 3)(query=q, value=v),
    "of itself, twice": lambda q, v, u: k.MultiHeadAttention(2, 3)(q, k.Add()([q, q])),
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", HEADS)
def test_several_heads_give_its_numbers(name: str, suffix: str, tmp_path: Path) -> None:
    """A masked query may see nothing, of which the backends of Keras make one thing or another."""
    ours = assert_equal(theirs_with(HEADS[name]), tmp_path, suffix, present=True)
    save_keras(ours, tmp_path / "written.keras")
    again = keras.models.load_model(tmp_path / "written.keras")
    for y, other in zip(outputs_of(ours), outputs_of(again), strict=True):
        np.testing.assert_allclose(y[PRESENT], other[PRESENT], rtol=2e-5, atol=2e-5)


def test_files_of_the_first_keras_3_have_other_groups(tmp_path: Path) -> None:
    """Attributes of MultiHeadAttention began with an underscore."""
    theirs = theirs_with(HEADS["one by name"])
    assert_equal(theirs, tmp_path, ".keras", present=True)
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with h5py.File(weights := io.BytesIO(members["model.weights.h5"]), "r+") as file:
        group = file["layers/multi_head_attention"]
        for name in [name for name in group if name.endswith("_dense")]:
            group.move(name, f"_{name}")
    members["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(tmp_path / "old.keras", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    new, old = (streamrnn.load_model(tmp_path / f"{name}.keras") for name in ("m", "old"))
    for y, other in zip(outputs_of(new), outputs_of(old), strict=True):
        np.testing.assert_array_equal(y, other)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", [*ATTENTION, *DOTS])
def test_files_of_keras_give_its_numbers(name: str, suffix: str, tmp_path: Path) -> None:
    assert_equal(theirs_with({**ATTENTION, **DOTS}[name]), tmp_path, suffix)
