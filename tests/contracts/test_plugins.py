"""Engines and published tables are chosen by the names of their plug-ins, and by no other."""

from typing import get_args, get_type_hints

from streamrnn.base.plugin import plugin_names
from streamrnn.cli.run import run
from streamrnn.stream.config.schema import PUBLISH_KEYS
from streamrnn.stream.config.values import EngineType


def test_every_engine_is_named_in_the_schema_and_on_the_command_line() -> None:
    engines = {"local", *plugin_names("engine")}
    option, _ = get_args(get_type_hints(run)["engine"])
    assert set(get_args(EngineType)) == engines == set(get_args(option))


def test_every_published_table_has_a_key() -> None:
    assert set(PUBLISH_KEYS) == {f"publish.{name}" for name in plugin_names("publish")}
