"""streamrnn.utils beside keras.utils."""

import inspect
import os
from typing import Any

import numpy as np
import pytest

from streamrnn import utils

os.environ.setdefault("KERAS_BACKEND", "torch")  # compiles nothing
keras: Any = pytest.importorskip("keras", reason="needs the oracles extra")

RNG = np.random.default_rng(4)
SEQUENCES = [[1], [2, 3, 4], [], [5, 6, 7, 8]]
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("to_categorical", ([[1], [0], [2]],), {}),
    ("to_categorical", ([[1, 0], [2, 2]], 4), {}),
    ("to_categorical", (np.float32([1, 0]),), {}),
    *(
        ("pad_sequences", (SEQUENCES,), {"maxlen": n, "padding": a, "truncating": b, "value": 9})
        for n in (None, 2, 6)
        for a in ("pre", "post")
        for b in ("pre", "post")
    ),
    ("pad_sequences", ([[[1, 2]], [[3, 4], [5, 6]]],), {"dtype": "float32"}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), CALLS)
def test_arrays_are_those_of_keras(name: str, arguments: Any, options: Any) -> None:
    ours = getattr(utils, name)(*arguments, **options)
    theirs = np.asarray(getattr(keras.utils, name)(*arguments, **options))
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", utils.__all__)
def test_arguments_and_defaults_are_those_of_keras(name: str) -> None:
    """But for `format`, which names a library of Keras's."""
    ours, theirs = (inspect.signature(getattr(of, name)).parameters for of in (utils, keras.utils))
    assert [(p.name, p.default) for p in ours.values()] == [
        (p.name, p.default) for p in theirs.values() if p.name != "format"
    ]
