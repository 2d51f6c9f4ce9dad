"""The JSON Schema judged by an independent validator: it takes what the tables take."""

import json
import tomllib
from datetime import date
from pathlib import Path

import pytest

from streamrnn.stream.config.load import json_schema
from streamrnn.stream.config.toml_text import sample

PIPELINES = sorted((Path(__file__).parents[3] / "pipelines").rglob("*.toml"))


@pytest.fixture(scope="module")
def validator():
    """The import takes a second, so it is not done when tests are collected."""
    jsonschema = pytest.importorskip("jsonschema", reason="needs the oracles extra")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_sample_is_valid(validator):
    validator.validate(tomllib.loads(sample()))


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_pipelines_are_valid(validator, file):
    """JSON has no dates: a date of TOML is text to a JSON Schema, as in editors."""
    data = tomllib.loads(file.read_text())
    if "source" in data:
        validator.validate(json.loads(json.dumps(data, default=date.isoformat)))


@pytest.mark.parametrize("kind", ["carry", "independent", "whole"])
def test_every_kind_of_window_is_valid(validator, kind):
    validator.validate(tomllib.loads(sample()) | {"window": {"kind": kind}})


@pytest.mark.parametrize(
    "wrong", ["kind = 'carri'\n", "lanes = 0\n", "lanes = '3'\n", "lane = 3\n"]
)
def test_wrong_keys_are_not(validator, wrong):
    data = tomllib.loads(sample()) | {"window": tomllib.loads(wrong)}
    assert not validator.is_valid(data)
