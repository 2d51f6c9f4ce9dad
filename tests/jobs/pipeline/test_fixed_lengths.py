"""Models whose layers need one number of steps: no other windows or sequences reach them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import logs
import pytest

from streamrnn import Input, Model, Pipeline, Sequential, layers
from streamrnn.errors import DataError, ModelMismatchError
from streamrnn.nn.models.runners import fixed_steps


def _flat() -> Sequential:
    return Sequential([Input((5, 2)), layers.Flatten(name="flat"), layers.Dense(1, name="y")])


def _nested() -> Model:
    """The layer that depends on the steps is in a model, whose output does not."""
    x = Input((5, 2))
    inner = Sequential([Input((5, 2)), layers.Flatten(name="flat"), layers.Dense(3)], name="inner")
    return Model(x, layers.Dense(1, name="y")(inner(x)))


def _reshaped() -> Sequential:
    return Sequential([Input((6, 2)), layers.Reshape((3, 4)), layers.GRU(2), layers.Dense(1)])


def _of_any_length(kind: str) -> Sequential:
    """A number of steps is declared, but no layer depends on it."""
    first = layers.Conv1D(3, 2, padding="causal") if kind == "conv" else layers.LSTM(3)
    middle = [layers.GRU(2)] if kind == "conv" else []
    return Sequential([Input((5, 2)), first, *middle, layers.Dense(1)])


@pytest.mark.parametrize(("make", "steps"), [(_flat, 5), (_nested, 5), (_reshaped, 6)])
def test_layers_that_depend_on_the_steps(make: Callable[[], Model], steps: int) -> None:
    found = fixed_steps(make())
    assert found is not None
    assert found[0] == steps


@pytest.mark.parametrize("kind", ["conv", "lstm"])
def test_layers_that_do_not(kind: str) -> None:
    assert fixed_steps(_of_any_length(kind)) is None


def _pipeline(made: Model, base: Path, **window: Any) -> Pipeline:
    made.save(base / "m.safetensors")
    paths = str(base / "in"), str(base / "m.safetensors"), str(base / "out")
    return Pipeline.from_dict(logs.config(*paths, window=window))


@pytest.mark.parametrize("make", [_flat, _nested])
@pytest.mark.parametrize("steps", [4, 6, 128])
def test_windows_of_other_steps_are_refused(
    tmp_path: Path, make: Callable[[], Model], steps: int
) -> None:
    """They would read weights, or memory, of others: by `validate` as by `run`."""
    logs.write(logs.random_log(40, streams=3), tmp_path / "in" / "1.parquet")
    messages = set()
    for verb in ("validate", "run"):
        with pytest.raises(ModelMismatchError) as caught:
            getattr(_pipeline(make(), tmp_path, kind="independent", steps=steps), verb)()
        messages.add(str(caught.value))
    (message,) = messages
    assert "accepts windows of 5 steps only, as layer 'flat' (Flatten) depends" in message
    assert message.endswith(f"received {steps}. Set steps = 5")
    assert _pipeline(make(), tmp_path, kind="independent", steps=5).run().rows == 40


def test_sequences_of_another_length_are_refused(tmp_path: Path) -> None:
    """With the first row of the sequence; those of the right length are scored."""
    log = logs.random_log(200, streams=4)
    keys = log["id"].to_pylist()
    rank = [keys[:i].count(key) for i, key in enumerate(keys)]
    whole = {key for key in keys if keys.count(key) >= 5}
    rows = [i for i, key in enumerate(keys) if key in whole and rank[i] < 5]
    logs.write(log.take(rows), tmp_path / "in" / "1.parquet")
    model = _flat()
    assert _pipeline(model, tmp_path, kind="whole").run().rows == 5 * len(whole)
    logs.write(log.take(rows[:-1]), tmp_path / "in" / "1.parquet")
    last = keys[rows[-1]]
    first = [keys[row] for row in rows].index(last)
    text = (
        rf"row {first} .from 0.: stream id='{last}': a sequence of 4 rows begins here, .* 5 steps"
    )
    with pytest.raises(DataError, match=text):
        _pipeline(model, tmp_path, kind="whole").run(full_refresh=True, force=True)
