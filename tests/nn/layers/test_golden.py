"""Every layer against values of Keras, kept in tests/golden: defaults, layouts, numbers."""

import numpy as np
import pytest
from golden.cases import CASES, Case, build, flat, inputs_of, results_of, weights_of
from selection import slow

from streamrnn import Sequential, initializers, layers

QUICK = [case for case in CASES if not case.name.endswith("/activations")]
SLOW = [pytest.param(case, marks=slow) for case in CASES if case not in QUICK]


class Library:
    """Layers, with the initialisers among them."""

    def __getattr__(self, name: str) -> object:
        return getattr(layers, name, None) or getattr(initializers, name)


@pytest.mark.parametrize("case", QUICK + SLOW, ids=lambda case: case.name)
def test_layer_agrees_with_keras(case: Case) -> None:
    """The same arguments and weights give the same results within 1e-5. Slow: cells of other
    activations, each compiled for itself."""
    x, mask, states = inputs_of(case)
    built = [build(Library(), spec) for spec in case.layers]
    layer = built[0] if len(built) == 1 else Sequential(built)
    layer.build(x.shape)
    weights = weights_of(case)
    assert [array.shape for array in layer.get_weights()] == [array.shape for array in weights]
    if case.initial:
        for mine, keras in zip(layer.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(mine, keras)
    layer.set_weights(weights)

    call = {"mask": mask} if case.mask else {}
    call |= {"initial_state": states} if case.initial_state else {}
    ours, golden = flat(layer(x, **call)), results_of(case)
    assert len(ours) == len(golden) > 0
    for mine, keras in zip(ours, golden, strict=True):
        assert (mine.shape, mine.dtype) == (keras.shape, np.float32)
        np.testing.assert_allclose(mine, keras, rtol=1e-5, atol=1e-5)
