"""Which features go to which input of a model."""

import numpy as np
import pytest

from streamrnn.errors import ModelMismatchError
from streamrnn.stream.operators import choose_inputs, feature_kinds, plan_inputs

X = ("x", (None, 2), "float32")
IDS = ("ids", (None,), "int64")


def test_one_input_takes_all_features_and_several_are_named() -> None:
    """Float columns by index, an identifier by name."""
    assert choose_inputs([X], ["a", "b"], {}) == {"x": ["a", "b"]}
    wanted = {"ids": ["token"], "x": ["b", "a"]}
    chosen = choose_inputs([X, IDS], ["a", "b", "token"], wanted)
    assert feature_kinds([X, IDS], chosen) == {"b": "float32", "a": "float32", "token": "int64"}
    plan = plan_inputs([X, IDS], chosen, ["a", "b"])
    features = np.array([[1, 2], [3, 4]], np.float32)
    x, ids = plan.arrays(features, {"token": np.array([7, 8])})
    assert x.tolist() == [[2, 1], [4, 3]]
    assert x.flags.c_contiguous
    assert ids.tolist() == [7, 8]


@pytest.mark.parametrize(
    ("specs", "names", "wanted", "message"),
    [
        ([X, IDS], ["a", "b"], {}, "has 2 inputs .*x, ids.*: list the features of each"),
        ([X], ["a", "b"], {"y": ["a", "b"]}, r"\(x\), received y"),
    ],
)
def test_inputs_that_do_not_fit_are_told(
    specs: list[object], names: list[str], wanted: dict[str, list[str]], message: str
) -> None:
    """Both sides are named."""
    with pytest.raises(ModelMismatchError, match=message):
        choose_inputs(specs, names, wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("specs", "chosen", "message"),
    [
        ([X], {"x": ["a"]}, r"takes 2 features, but the pipeline gives 1"),
        ([IDS], {"ids": ["a", "b"]}, "takes one column of int64, received 2: a, b"),
        ([X, IDS], {"x": ["a", "b"], "ids": ["a"]}, "'a' is read as float32 by one input and as"),
    ],
)
def test_widths_and_kinds_that_do_not_fit_are_told(
    specs: list[object], chosen: dict[str, list[str]], message: str
) -> None:
    """Before anything is read."""
    with pytest.raises(ModelMismatchError, match=message):
        feature_kinds(specs, chosen)  # type: ignore[arg-type]
