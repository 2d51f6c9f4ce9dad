"""The sample, the schema and the tables tell of the same keys."""

import json
import re
import tomllib
from typing import get_args

import pytest

from streamrnn.stream.config.load import Config, json_schema
from streamrnn.stream.config.schema import FeatureSection, Sections
from streamrnn.stream.config.toml_text import sample

TABLES = {name: field.annotation for name, field in Sections.model_fields.items()}
SCHEMA = json_schema()
FIELDS = {name: kind.by_key() for name, kind in TABLES.items()}
KEYS = [(table, key) for table, fields in FIELDS.items() for key in fields]


def shown_as_set():
    """The sample with every comment that holds a key turned into that key."""
    return re.sub(r"^#(?! |$)", "", sample(), flags=re.MULTILINE)


def test_the_sample_is_a_pipeline_file(tmp_path):
    file = tmp_path / "p.toml"
    file.write_text(sample())
    config = Config.load(file)
    config.require_run()
    assert config.window.lanes == 64


def test_the_sample_shows_every_key_and_no_other():
    shown = {(table, key) for table, keys in tomllib.loads(shown_as_set()).items() for key in keys}
    assert shown == set(KEYS)


def test_what_the_sample_shows_is_what_holds_by_default():
    """A commented key without an example of its own shows the default."""
    shown = tomllib.loads(shown_as_set())
    for table, key in KEYS:
        field = FIELDS[table][key]
        if not field.examples:
            default = field.get_default()
            value = tuple(shown[table][key]) if isinstance(default, tuple) else shown[table][key]
            assert value == default, f"{table}.{key}"


def test_every_key_is_explained_in_one_line():
    lines = sample().splitlines()
    at = [i for i, line in enumerate(lines) if re.match(r"#?(\w+ = |\[\[)", line)]
    explained = [i for i in at if lines[i - 1].startswith("# ")]
    # The keys of the example below [[model.layers]] are a layer's, not ours.
    assert len(explained) == len(KEYS)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_the_schema_has_every_key(table, key):
    entry = SCHEMA["$defs"][TABLES[table].__name__]
    assert list(entry["properties"]) == list(FIELDS[table])
    assert entry["additionalProperties"] is False
    field = FIELDS[table][key]
    assert entry["properties"][key]["description"] == field.description
    assert (key in entry.get("required", [])) == field.is_required()
    options = [option for option in get_args(field.annotation) if isinstance(option, str)]
    if options and key != "nulls":
        # A kind of window that was renamed may be given by its old name as well.
        found = entry["properties"][key]
        assert found.get("anyOf", [found])[0]["enum"] == options


def test_the_schema_knows_the_keys_of_a_feature():
    items = SCHEMA["$defs"]["SourceSection"]["properties"]["features"]["items"]
    fields = FeatureSection.model_fields.items()
    assert list(items["anyOf"][1]["properties"]) == [spec.alias or name for name, spec in fields]
    assert json.loads(json.dumps(json_schema())) == json_schema()
