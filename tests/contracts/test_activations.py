"""Every activation keeps its contracts, or its row says why not."""

import math
from pathlib import Path
from typing import Any

import naive_backward
import numpy as np
import pytest
from contracts import models
from contracts.declared import HOLDS, assert_declared, holding, reasoned
from contracts.rows_activations import ACTIVATIONS
from naive_backward import flat
from nn.layers.kinds import assert_same
from selection import first_quick

from streamrnn import Input, Sequential, layers
from streamrnn.errors import UnsupportedError
from streamrnn.nn.formats import torch_write
from streamrnn.nn.kernels import activation as kernel
from streamrnn.nn.kernels import dense
from streamrnn.nn.kernels.gradients import times_derivative
from streamrnn.nn.layers import activations

FILE = "tests/contracts/rows_activations.py"
X = np.random.default_rng(5).normal(scale=3, size=(7, 21)).astype(np.float32)
FAR = np.array([[-100, -3.1, -1, -0.2, 0, 0.3, 1, 2.9, 60]], np.float32)


def registered() -> set[str]:
    """What kernels compute, and the functions that `streamrnn.activations` offers."""
    functions = {f.__name__ for f in vars(activations).values() if _is_activation(f)}
    return set(kernel.ACTIVATIONS) | functions


def _is_activation(value: object) -> bool:
    try:
        return callable(value) and bool(activations.get(value))
    except UnsupportedError:
        return False


def test_every_activation_has_a_row_and_every_row_an_activation() -> None:
    assert len(registered()) >= 20
    assert_declared("activation", registered(), ACTIVATIONS, FILE)


def test_a_new_activation_without_a_row_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether kernels or the module of functions have it."""
    new = r"activation without a row of contracts: add one for \['bent'\]"
    with monkeypatch.context() as patch:
        patch.setitem(kernel.ACTIVATIONS, "bent", kernel.ACTIVATIONS["tanh"])
        with pytest.raises(AssertionError, match=new):
            test_every_activation_has_a_row_and_every_row_an_activation()

    def bent(x: Any) -> np.ndarray:
        return activations.linear(x)

    monkeypatch.setattr(activations, "bent", bent, raising=False)
    monkeypatch.setitem(activations._FUNCTIONS, "bent", bent)
    with pytest.raises(AssertionError, match=new):
        test_every_activation_has_a_row_and_every_row_an_activation()


WITHOUT_TORCH = {
    "hard_sigmoid_02": "its hard sigmoid has other numbers",
    "sparse_plus": "it has none",
    "sparse_sigmoid": "it has none",
    "sparsemax": "it has none",
    "squareplus": "it has none",
}


def test_every_activation_of_a_layer_is_written_for_torch_or_torch_has_none() -> None:
    """Those that no layer takes are not written."""
    named = {name for name, row in ACTIVATIONS.items() if row.named is HOLDS}
    assert named - {*torch_write.TORCH_ACTIVATIONS} == {*WITHOUT_TORCH}


def applied(spec: kernel.Spec, x: np.ndarray) -> np.ndarray:
    return activations.compute(spec, x)


def specs(name: str) -> list[kernel.Spec]:
    """With default parameters and, if it has any, with those of the row."""
    given = ACTIVATIONS[name].parameters
    return [name, (name, *given)] if given else [name]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_row_has_all_parameters_of_its_activation(name: str) -> None:
    defaults = tuple(kernel.parameters_of(name).values())
    assert len(ACTIVATIONS[name].parameters) == len(defaults)
    assert not set(ACTIVATIONS[name].parameters) & set(defaults)


@pytest.mark.parametrize("name", holding(ACTIVATIONS, "oracle"))
def test_an_activation_agrees_with_the_oracle(name: str) -> None:
    """Within a few units of the last place."""
    for spec in specs(name):
        _, parameters = kernel.split_spec(spec)
        given = parameters if isinstance(spec, tuple) else ()
        for x in (X, FAR):
            wanted = [ACTIVATIONS[name].oracle(row, *given) for row in x.tolist()]
            np.testing.assert_allclose(applied(spec, x), wanted, rtol=3e-6, atol=3e-7)


@pytest.mark.parametrize("name", holding(ACTIVATIONS, "named"))
def test_a_config_and_a_native_file_keep_an_activation(name: str, tmp_path: Path) -> None:
    """Its name and its parameters."""
    inputs = [np.ascontiguousarray(X[None, :, :4])]
    for spec in specs(name):
        layer = layers.Activation(spec)
        models.assert_config_round_trip(layer, _of, inputs)
        models.assert_saved(_of(layers.Activation(spec)), inputs, tmp_path)
    function = getattr(activations, name)
    assert activations.get(function) == name
    assert_same(function(X), applied(name, X))


def _of(layer: layers.Layer) -> Sequential:
    return Sequential([Input((None, 4)), layer])


@pytest.mark.parametrize("name", reasoned(ACTIVATIONS, "named"))
def test_an_activation_that_layers_do_not_take_is_refused(name: str) -> None:
    """A reason that has become wrong fails too."""
    with pytest.raises(UnsupportedError, match=f"'{name}' is not supported"):
        layers.Dense(3, activation=name)


@pytest.mark.parametrize("name", first_quick(holding(ACTIVATIONS, "inside"), 8))
def test_a_layer_that_ends_in_it_gives_the_bits_of_the_function(name: str) -> None:
    """x @ I is x: only the activation is left of the dense kernel.

    With four units, as the golden cases have, so that it is compiled once. Slow: most activations,
    as each is a kernel of its own.
    """
    x = np.ascontiguousarray(X[:, :4])
    y = np.empty_like(x)
    dense.run(dense.pack(np.eye(4, dtype=np.float32)), x, y, activation=name)
    assert_same(y, applied(name, x))


@pytest.mark.parametrize("name", holding(ACTIVATIONS, "cut"))
def test_bits_do_not_depend_on_the_place_in_an_array(name: str) -> None:
    """Rows by themselves; unless in ROW_WISE every piece of a row: a vector ends anywhere in it."""
    whole = applied(name, X)
    for first in range(len(X)):
        for end in range(first, len(X) + 1):
            assert_same(applied(name, X[first:end]), whole[first:end])
    if name in kernel.ROW_WISE:
        return
    for first in range(X.shape[1]):
        for end in range(first + 1, X.shape[1] + 1):
            assert_same(applied(name, X[0, first:end]), whole[0, first:end])


@pytest.mark.parametrize("name", holding(ACTIVATIONS, "apart"))
def test_poison_stays_where_it_is(name: str) -> None:
    """NaN comes out as NaN; all other values keep their bits."""
    clean = applied(name, X)
    for wrong in (np.nan, np.inf, -np.inf):
        x = X.copy()
        x[3, 8] = wrong
        spoilt, touched = applied(name, x), np.zeros(X.shape, bool)
        touched[3, slice(None) if name in kernel.ROW_WISE else 8] = True
        assert_same(spoilt[~touched], clean[~touched])
        assert not np.isnan(wrong) or np.isnan(spoilt[touched]).all()


@pytest.mark.parametrize("name", holding(ACTIVATIONS, "trained"))
def test_the_derivative_is_that_of_the_oracle(name: str) -> None:
    """By central differences, in every vector of a row and beyond."""
    dy = np.random.default_rng(6).normal(size=X.shape).astype(np.float32)
    for spec in specs(name):
        source = kernel.derivative_source(spec)
        assert source is not None
        given = kernel.split_spec(spec)[1] if isinstance(spec, tuple) else ()
        x = X.tolist()

        def loss(given: tuple[float, ...] = given, x: Any = x) -> float:
            rows = [ACTIVATIONS[name].oracle(row, *given) for row in x]
            return math.fsum(a * b for a, b in zip(flat(rows), flat(dy.tolist()), strict=True))

        wanted = np.array([naive_backward.central(loss, x, row) for row in range(len(x))])
        kept = X if source == "input" else applied(spec, X)
        found = times_derivative(spec, kept, dy)
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", reasoned(ACTIVATIONS, "trained"))
def test_an_activation_without_a_derivative_is_known(name: str) -> None:
    assert kernel.derivative_source(name) is None
