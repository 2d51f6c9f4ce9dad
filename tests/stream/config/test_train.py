"""Messages of the table [train]."""

from pathlib import Path

import pytest

from streamrnn.errors import ConfigError
from streamrnn.nn.training.losses import loss_of
from streamrnn.stream.config import Config, json_schema, whole_schedule
from streamrnn.stream.config.training import LOSSES, REGRESSIONS, SCALED

WEATHER = Path(__file__).parents[3] / "pipelines" / "weather.toml"


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ('validation={sinc="2013-01-01"}', 'unknown key; did you mean "since"? (known here: since'),
        ("validation={streams=2.0}", "expected a number below 1"),
        ("burn_in=-1", "expected an integer from 0 to"),
        ("epochs=0", "expected an integer from 1 to"),
        ("clip_norm=-1", "expected a number above 0"),
        ("state=1", "expected true or false"),
        ("loss={quantile=[0.9, 0.1]}", "in ascending order and each once"),
        ('loss="mze"', 'did you mean "mse"?'),
        ("pieces=0", 'expected "auto" or an integer from 1'),
        ("metrics=[3]", "expected a list of names"),
        ("optimizer=[3]", "expected a name, or a table"),
        ('schedule="cosin"', 'did you mean "cosine"?'),
        ("schedule=3", "expected one of constant, cosine, exponential, step, plateau"),
        ('schedule={name="step", on=[0.5]}', "on: unknown key of schedule step"),
        (
            'schedule={name="step", at=[0.5, 0.2]}',
            "at: expected one or more shares of the training",
        ),
        ('schedule={name="cosine", warmup=1.5}', "warmup: expected a share of the training"),
        ('schedule={name="plateau", patience=0}', "patience: expected a number of epochs, 1 or"),
        ('schedule={name="plateau", factor=0}', "factor: expected a number above 0, at most 1"),
        ('schedule={name="plateau", min_rate=-1}', "min_rate: expected a number, 0 or more"),
        ("class_weight=3", 'such as { "0" = 1, "1" = 20 }, received the integer 3'),
        ('class_weight={"one"=1}', "one: expected the number of a class"),
        ('class_weight={"1"=-1}', "1: expected a number, 0 or more"),
        ('class_weight={"1"=2, "01"=3}', "01: expected the number of a class"),
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


def test_a_schedule_is_a_name_or_a_table() -> None:
    """A table of a name alone is that name."""
    for given, kept in (
        ('"cosine"', "cosine"),
        ('{name="cosine"}', "cosine"),
        ('{name="step", at=[0.5]}', {"name": "step", "at": (0.5,)}),
    ):
        assert Config.load(WEATHER, [f"train.schedule={given}"]).train.schedule == kept
    assert whole_schedule("plateau") == {
        "name": "plateau",
        "warmup": 0.0,
        "factor": 0.5,
        "patience": 3,
        "min_rate": 0.0,
    }


def test_the_schema_of_a_schedule_takes_what_is_taken() -> None:
    schema = json_schema()["$defs"]["TrainSection"]["properties"]["schedule"]
    _, table = schema["anyOf"]
    assert set(table["properties"]) == {"name", "warmup", "factor", "at", "patience", "min_rate"}


def test_losses_have_the_names_of_the_room_that_computes_them() -> None:
    assert [loss_of(name) for name in LOSSES]
    assert set(SCALED) < set(REGRESSIONS) < set(LOSSES)
