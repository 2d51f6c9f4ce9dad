"""Layers along the time axis beside Keras itself: files that Keras writes, masks, signatures."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras

import streamrnn
from streamrnn import layers

pytestmark = pytest.mark.filterwarnings("ignore")

X = np.random.default_rng(1).normal(size=(3, 8, 6)).astype(np.float32)
MAKERS: list[Callable[[Any], Any]] = [
    *[
        lambda k, p=padding, s=strides, size=size: k.Conv1D(4, size, s, p, activation="silu")
        for padding in ("valid", "same", "causal")
        for strides in (1, 2, 3)
        for size in (1, 2, 4)
    ],
    *[
        lambda k, p=padding: k.Conv1D(6, 3, padding=p, dilation_rate=2, groups=3, use_bias=False)
        for padding in ("valid", "same", "causal")
    ],
    lambda k: k.DepthwiseConv1D(3, 2, "same", depth_multiplier=2, activation="relu"),
    lambda k: k.DepthwiseConv1D(2, dilation_rate=3, use_bias=False),
    lambda k: k.SeparableConv1D(5, 3, 2, "same", depth_multiplier=2, activation="tanh"),
    *[
        lambda k, kind=kind, p=padding, s=strides: getattr(k, kind)(3, s, p)
        for kind in ("MaxPooling1D", "AveragePooling1D")
        for padding in ("valid", "same")
        for strides in (None, 2)
    ],
    *[
        lambda k, kind=kind, keep=keep: getattr(k, kind)(keepdims=keep)
        for kind in ("GlobalMaxPooling1D", "GlobalAveragePooling1D")
        for keep in (False, True)
    ],
    lambda k: k.ZeroPadding1D((2, 1)),
    lambda k: k.Cropping1D((0, 3)),
    lambda k: k.UpSampling1D(3),
    lambda k: k.Permute((2, 1)),
    lambda k: k.LayerNormalization(axis=1),
    lambda k: k.LayerNormalization(axis=[1, 2]),
    lambda k: k.BatchNormalization(axis=1),
    lambda k: k.RMSNormalization(),
    lambda k: k.RMSNormalization(axis=[1, 2]),
    lambda k: k.UnitNormalization(),
    lambda k: k.UnitNormalization(axis=[1, 2]),
    lambda k: k.GroupNormalization(3),
    lambda k: k.GroupNormalization(2, axis=1, scale=False),
]


@pytest.fixture(scope="module")
def theirs() -> Any:
    """All of them in one model, with random weights."""
    x = keras.Input((8, 6))
    flat = [keras.layers.Flatten()(make(keras.layers)(x)) for make in MAKERS]
    model = keras.Model(x, keras.layers.Concatenate()(flat))
    rng = np.random.default_rng(2)
    model.set_weights([np.abs(rng.normal(size=w.shape)) * 0.5 for w in model.weights])
    return model


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_of_keras_load_and_give_its_numbers(theirs: Any, suffix: str, tmp_path: Path) -> None:
    """And what is saved again gives the same bits."""
    theirs.save(tmp_path / f"m{suffix}")
    ours = streamrnn.load_model(tmp_path / f"m{suffix}")
    y = ours(X)
    np.testing.assert_allclose(y, theirs(X), rtol=1e-5, atol=2e-6)
    ours.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(streamrnn.load_model(tmp_path / "m.safetensors")(X), y)


MASK = np.array([[1, 1, 0, 1, 0, 0, 0, 0], [1] * 8, [0] * 7 + [1]], bool)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: k.GlobalAveragePooling1D(),
        lambda k: k.GlobalMaxPooling1D(),
        lambda k: k.MaxPooling1D(2),
        lambda k: k.ZeroPadding1D(1),
        lambda k: k.Conv1D(2, 3, padding="same", kernel_initializer="ones"),
        lambda k: k.LayerNormalization(),
        lambda k: k.UnitNormalization(),
    ],
)
def test_masks_are_used_and_passed_on_as_in_keras(make: Callable[[Any], Any]) -> None:
    """A masked GRU behind shows whether the mask arrives there."""
    outputs = []
    for library in (keras.layers, layers):
        model = (keras.Sequential if library is keras.layers else streamrnn.Sequential)(
            [
                (keras.Input if library is keras.layers else streamrnn.Input)((8, 6)),
                library.Masking(),
                make(library),
                *([] if "Global" in str(make(library)) else [library.GRU(3)]),
            ]
        )
        rng = np.random.default_rng(3)
        model.set_weights([rng.normal(size=w.shape) * 0.5 for w in model.get_weights()])
        outputs.append(np.asarray(model(np.where(MASK[..., None], X, 0))))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["DepthwiseConv1D", "SeparableConv1D"])
def test_causal_padding_is_zeros_before_the_first_step(kind: str) -> None:
    """Keras 3 has it in a layer of its own."""
    options: dict[str, Any] = {"depth_multiplier": 2, "dilation_rate": 2, "activation": "tanh"}
    sizes = (3,) if kind == "DepthwiseConv1D" else (5, 3)
    with pytest.raises(ValueError, match="causal"):
        getattr(keras.layers, kind)(*sizes, padding="causal")
    theirs = keras.Sequential(
        [keras.layers.ZeroPadding1D((4, 0)), getattr(keras.layers, kind)(*sizes, **options)]
    )
    expected = theirs(X)
    ours = getattr(layers, kind)(*sizes, padding="causal", **options)
    ours.build(X.shape)
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(ours(X), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "name",
    [
        "Conv1D",
        "Cropping1D",
        "DepthwiseConv1D",
        "GlobalAveragePooling1D",
        "GroupNormalization",
        "MaxPooling1D",
        "AveragePooling1D",
        "Permute",
        "RMSNormalization",
        "SeparableConv1D",
        "UnitNormalization",
        "UpSampling1D",
        "ZeroPadding1D",
    ],
)
def test_signatures_are_those_of_keras(name: str) -> None:
    """The same arguments in the same order, with the same defaults, but for those of training."""
    ours, theirs = (
        {
            argument: parameter.default
            for argument, parameter in inspect.signature(getattr(library, name)).parameters.items()
            if not argument.endswith(("_regularizer", "_constraint"))
            and argument not in ("name", "kwargs")
        }
        for library in (layers, keras.layers)
    )
    assert list(ours.items()) == list(theirs.items())
