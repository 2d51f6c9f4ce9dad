"""`streamrnn convert --precision --check`: the error on the user's own rows, and its growth."""

from pathlib import Path

import numpy as np
import pytest
from cli.test_convert_command import convert
from selection import slow

from streamrnn import Input, Sequential, layers
from streamrnn.nn.models.rounding import RoundingError

STEPS = 300


def write(folder: Path, model: Sequential, mean: float = 0) -> None:
    x = np.random.default_rng(2).normal(mean, size=(2, STEPS, 3)).astype(np.float32)
    model.save(folder / "in.safetensors")
    np.savez(folder / "check.npz", x=x, y=model(x))


def checked(folder: Path) -> str:
    done = convert(
        *(folder / "in.safetensors", folder / "out.safetensors", "--precision", "int16"),
        *("--check", folder / "check.npz"),
    )
    assert done.returncode == 0, done.stderr
    text: str = done.stdout
    return text


@slow
def test_a_check_shows_the_error_and_that_it_does_not_grow(tmp_path: Path) -> None:
    """Slow: processes that compile kernels in two precisions."""
    lstm = layers.LSTM(8, return_sequences=True, stateful=True, name="lstm")
    model = Sequential([Input((None, 3)), lstm])
    write(tmp_path, model)
    said = checked(tmp_path)
    assert "checked: lstm in int16: largest difference from float32 " in said
    assert "times as large in the last tenth of the steps as in the first" in said
    assert "checked: lstm (2, 300, 8): largest difference" in said
    assert "warning" not in said


@slow
def test_a_model_that_does_not_forget_is_warned_of(tmp_path: Path) -> None:
    """Its forget gate is exactly 1: each step's error stays in c.

    Slow: a model whose errors add up.
    """
    lstm = layers.LSTM(4, return_sequences=True)
    model = Sequential([Input((None, 3)), lstm])
    _, recurrent, bias = model.get_weights()
    kernel = np.random.default_rng(3).normal(size=(3, 16)).astype(np.float32)
    bias[4:8], bias[12:] = 99, 99
    recurrent[:] = 0
    kernel[:, 4:8], kernel[:, 12:] = 0, 0
    kernel[:, 8:12] /= 500  # c stays where tanh is steep
    model.set_weights([kernel, recurrent, bias])
    write(tmp_path, model, mean=1)
    said = checked(tmp_path)
    assert "this model does not forget (a gate that is exactly 1?)" in said
    assert "Stay with float32" in said


def test_a_nan_in_one_of_the_two_is_an_infinite_difference() -> None:
    exact, rounded = np.array([1.0, np.nan, np.inf]), np.array([1.0, np.nan, np.inf])
    assert RoundingError.of("y", "int16", exact, rounded, None).largest == 0
    rounded[0] = np.nan
    assert RoundingError.of("y", "int16", exact, rounded, None).largest == np.inf


@pytest.mark.parametrize(("last", "warned"), [(2.9, False), (3.1, True)])
def test_the_warning_begins_at_three_times(last: float, warned: bool) -> None:
    exact = np.full((50, 2), 9.0)
    rounded = exact + 1
    rounded[-5:] = exact[-5:] + last
    error = RoundingError.of("y", "int16", exact, rounded, 0)
    assert error.growth == pytest.approx(last)
    assert (error.warning() is not None) == warned
    assert RoundingError.of("y", "int16", exact[:9], rounded[:9], 0).growth is None


def test_an_error_that_grows_from_zero_states_and_then_stays_is_no_warning() -> None:
    exact = np.full((50, 2), 9.0)
    rounded = exact + 1
    rounded[:5] -= 0.9
    error = RoundingError.of("y", "int16", exact, rounded, 0)
    assert error.growth == pytest.approx(10)
    assert error.warning() is None
    rounded[:5] = exact[:5]
    assert RoundingError.of("y", "int16", exact, rounded, 0).growth is None
    assert RoundingError.of("y", "int16", exact, exact, 0).growth is None
