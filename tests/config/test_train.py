"""Messages of the table [train]."""

from pathlib import Path

import pytest

from streamrnn.config import Config
from streamrnn.errors import ConfigError

WEATHER = Path(__file__).parents[2] / "pipelines" / "weather.toml"


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ('validation={sinc="2013-01-01"}', 'unknown key; did you mean "since"? (known here: since'),
        ("validation={streams=2.0}", "expected a number below 1"),
        ("settle=-1", "expected an integer from 0 to"),
        ("epochs=0", "expected an integer from 1 to"),
        ("clip_norm=-1", "expected a number above 0"),
        ("state=1", "expected true or false"),
        ("loss={quantile=[0.9, 0.1]}", "in rising order"),
        ('loss="mze"', 'did you mean "mse"?'),
        ("pieces=0", 'expected "auto" or a number from 1'),
        ("metrics=[3]", "expected a list of names"),
        ("optimizer=[3]", "expected a name, or a table"),
    ],
)
def test_messages(override: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(WEATHER, [f"train.{override}"])
    assert text in str(caught.value)


@pytest.mark.parametrize("table", ["{ learning_rate = 0.01 }", '{ name = "sgd" }', '"adamw"'])
def test_the_name_of_an_optimizer_has_a_default(table: str) -> None:
    name = Config.load(WEATHER, [f"train.optimizer={table}"]).train.optimizer["name"]
    assert name == {"{ l": "adam", "{ n": "sgd"}.get(table[:3], "adamw")


def test_a_key_of_the_optimizer_can_be_set_alone() -> None:
    keys = Config.load(WEATHER, ["train.optimizer.learning_rate=0.01"]).train.optimizer
    assert keys == {"name": "adam", "learning_rate": 0.01}
