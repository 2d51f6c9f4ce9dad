"""Values of initializers: those of NumPy and LAPACK, and for a seed the same on any CPU."""

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same

from streamrnn import initializers
from streamrnn.errors import ArgumentError, ShapeError, UnsupportedError
from streamrnn.nn.kernels.random import orthonormal
from streamrnn.nn.layers.initializers import normal, uniform

SHAPES = [(1, 1), (2, 2), (3, 5), (5, 3), (1, 7), (7, 1), (16, 64), (64, 64), (3, 4, 5), (128, 512)]
HASHES = {
    "RandomUniform": "46875a68ae516916",
    "RandomNormal": "0532c5654ae5a0d0",
    "TruncatedNormal": "1c75d0bc0f587955",
    "VarianceScaling": "4642cf0db914b930",
    "GlorotUniform": "c5c7a541837821a4",
    "GlorotNormal": "6f5c2fa8f2c7689a",
    "HeUniform": "2a1aef64756d47fc",
    "HeNormal": "e9a401405536aec8",
    "LecunUniform": "8487c69870fba659",
    "LecunNormal": "4642cf0db914b930",
    "Orthogonal": "c4b1dc36d54d9633",
}
"""Of float32 values that an earlier version drew, with LAPACK."""


def by_lapack(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The orthogonal matrix of a seed in float64."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    tall = (max(rows, columns), min(rows, columns))
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal(tall))
    q = q * np.sign(np.diagonal(r))
    return (q if rows >= columns else q.T).reshape(shape)


@pytest.mark.parametrize("name", HASHES)
def test_a_seed_keeps_its_values(name: str) -> None:
    bits = hashlib.sha256()
    for shape in SHAPES:
        for seed in range(4):
            bits.update(np.ascontiguousarray(getattr(initializers, name)(seed=seed)(shape)))
    assert bits.hexdigest()[:16] == HASHES[name]


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_values_are_those_of_lapack(shape: tuple[int, ...]) -> None:
    for seed in range(4):
        found = initializers.Orthogonal(seed=seed).draw(shape)
        np.testing.assert_allclose(found, by_lapack(seed, shape), rtol=0, atol=2e-14)


def test_a_matrix_with_zeros_is_reflected_too() -> None:
    """Columns that need no reflection, and signs of either kind."""
    q = orthonormal(np.array([[-2.0, 1.0], [0.0, 3.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(q, [[-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])


@pytest.mark.parametrize("seed", range(3))
def test_normal_values_are_those_of_numpy(seed: int) -> None:
    """The tail too, whose logarithms are exact here: to the last place of a float64."""
    found = normal(np.random.default_rng(seed), (400, 500))
    wanted = np.random.default_rng(seed).standard_normal((400, 500))
    tail = np.abs(wanted) > 3.6541528853610088
    assert tail.sum() > 30
    assert_same(found[~tail], wanted[~tail])
    np.testing.assert_array_max_ulp(found[tail], wanted[tail], 1)


def test_draws_leave_the_generator_as_numpy_does() -> None:
    one, other = np.random.default_rng(8), np.random.default_rng(8)
    draws: Any = (normal(one, (3, 4000)), uniform(one, -0.5, 2.0, (5,)))
    wanted = (other.standard_normal((3, 4000)), other.uniform(-0.5, 2.0, (5,)))
    assert_same(draws[1], wanted[1])
    assert one.bit_generator.state == other.bit_generator.state


@pytest.mark.parametrize("name", [*HASHES, "Zeros", "Ones", "Identity"])
def test_a_config_makes_the_same_initializer(name: str) -> None:
    cls = getattr(initializers, name)
    made = cls.from_config(cls().get_config())
    assert made.get_config() == cls().get_config()


def test_an_array_is_a_constant_of_its_shape() -> None:
    made = initializers.Constant.from_config(initializers.get(np.eye(2)).get_config())
    assert_same(made((2, 2), dtype="float32"), np.eye(2, dtype=np.float32))
    with pytest.raises(ShapeError, match=r"Expected `shape` to be \(2, 2\)"):
        made((3, 3))
    with pytest.raises(ArgumentError, match="dtype must be 'float32'"):
        made((2, 2), dtype="float16")


def test_named_axes_make_the_fans() -> None:
    """Keras's formula: scale / the product of the sizes."""
    shape = (300, 4, 2)
    given = initializers.VarianceScaling(seed=1, input_axes=[0], output_axes=[1, 2])
    again = initializers.get(initializers.serialize(given))
    usual = initializers.VarianceScaling(seed=1)(shape)
    assert_same(again(shape), given(shape))
    np.testing.assert_allclose(given(shape), usual * math.sqrt(4), rtol=1e-6)
    assert "input_axes" not in initializers.VarianceScaling().get_config()
    with pytest.raises(ShapeError, match=r"out of bounds for a weight of shape \(2, 3\)"):
        initializers.VarianceScaling(input_axes=[0], output_axes=[2])((2, 3))


def test_a_seed_is_an_integer() -> None:
    with pytest.raises(ArgumentError, match="`seed` must be an integer or None"):
        initializers.HeNormal(seed="1")((2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "config", [{}, {"config": {}}, {"class_name": 3}, {"class_name": "Zeros", "config": 3}]
)
def test_a_config_that_names_no_initializer_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=r"initializer \{.*\} is not known; known: "):
        initializers.get(config)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("identity", (3,)), ("identity", (2, 3, 4)), ("orthogonal", (3,)), ("orthogonal", ())],
)
def test_a_matrix_is_no_vector(name: str, shape: tuple[int, ...]) -> None:
    """Keras refuses the same shapes."""
    with pytest.raises(ShapeError, match=r"dimensional|2D matrices, received shape"):
        initializers.get(name)(shape)
