"""Whatever a pipeline file holds, it is a config or a ConfigError, never another exception."""

from datetime import date, datetime, time

from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.errors import ConfigError
from streamrnn.stream.config.load import Config
from streamrnn.stream.config.schema import Sections

WORDS = [
    "a",
    "b",
    "-",
    "*",
    "",
    "hour",
    "skip",
    "6h",
    "carry",
    "independent",
    "last",
    "reject",
    "m.onnx",
]
scalars = st.one_of(
    st.sampled_from(WORDS),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.sampled_from([date(2024, 1, 1), datetime(2024, 1, 1, 5), time(3)]),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "valid", "clip", "type", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
TABLES = {name: list(field.annotation.by_key()) for name, field in Sections.model_fields.items()}
tables = {
    name: st.one_of(values, st.dictionaries(st.sampled_from([*keys, "x"]), values))
    for name, keys in TABLES.items()
}
GOOD = {"source": {"key": "k", "features": ["a", "b"]}, "model": {"path": "m.safetensors"}}


def outcome(make, *arguments):
    """The config and no message, or no config and the message."""
    try:
        return make(*arguments), ""
    except ConfigError as error:
        return None, str(error)


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional={**tables, "x": values}))
def test_any_tables(data):
    """Each problem stands on its own line, or begins there."""
    config, message = outcome(Config.parse, data)
    if config is not None:
        config.canonical()
    first, *rest = message.split("\n")
    assert all(line.startswith("  ") for line in rest)
    problems = [line for line in rest if line[2] != " "]  # others show the place in a filter
    assert not rest or first.endswith(f" has {len(problems)} problems:")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_one_key_changed_in_a_good_config(data):
    name = data.draw(st.sampled_from(list(TABLES)))
    key = data.draw(st.sampled_from(TABLES[name]))
    changed = {**GOOD, name: {**GOOD.get(name, {}), key: data.draw(values)}}
    config, message = outcome(Config.parse, changed)
    if config is None:
        assert f"{name}." in message
    else:
        keys = {f"{table}.{key}" for table in TABLES for key in TABLES[table]}
        assert config.canonical().keys() >= keys


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="source=[].\"'{}key \n#$\\1", max_size=80))
def test_any_text(text, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "fuzz.toml"
    file.write_text(text, encoding="utf-8")
    config, message = outcome(Config.load, file, [text])
    assert config is None
    assert str(file) in message or message.startswith("--set ")
