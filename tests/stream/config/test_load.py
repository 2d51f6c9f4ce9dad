"""The pipeline file: defaults, forms that a key may take, and what is refused in which words."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from streamrnn.errors import ConfigError
from streamrnn.stream.config.load import Config

MINIMAL = """\
[source]
path = "log.parquet"
key = "device"
features = ["a", "b"]
[model]
path = "m.safetensors"
[sink]
path = "out/scores"
"""


@pytest.fixture
def load(workdir):
    """Load TOML text by the short name `p.toml`."""

    def load(text, *overrides):
        Path("p.toml").write_bytes(text.encode())
        return Config.load("p.toml", overrides)

    return load


FEATURE = {
    "from_": (),
    "valid": None,
    "clip": None,
    "nulls": None,
    "nan": None,
    "vocabulary": None,
    "oov": 0,
    "embed": 0,
}


def message_of(load, text, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    assert caught.value.exit_code == 78
    return str(caught.value)


def test_defaults_are_those_of_the_design(load):
    config = load(MINIMAL)
    assert config.source.model_dump() == {
        "path": "log.parquet",
        "format": "auto",
        "version": None,
        "delimiter": "",
        "null_values": (),
        "types": {},
        "order": "path",
        "after": None,
        "sort": "none",
        "key": ("device",),
        "time": None,
        "features": ({"name": "a", **FEATURE}, {"name": "b", **FEATURE}),
        "rename": {},
        "time_zone": "",
        "time_features": (),
        "nulls": "error",
        "nan": "error",
        "reset": None,
        "max_gap": None,
        "late": "error",
        "repeated": "score",
        "bad": "error",
        "max_rejects": 1000,
        "batch_rows": 131072,
    }
    assert config.window.model_dump() == {"kind": "carry", "lanes": 64, "steps": 128, "stride": 128}
    assert config.model.model_dump() == {
        "path": "m.safetensors",
        "on_change": "error",
        "replay": "all",
        "precision": "auto",
        "threads": 0,
        "inputs": {},
        "state": {},
        "layers": (),
    }
    assert config.output.model_dump() == {
        "emit": "every",
        "last_of": None,
        "columns": None,
        "names": None,
        "warmup": 0,
        "quantiles": None,
        "sort": False,
        "calibrate": False,
        "model_column": None,
    }
    assert config.sink.model_dump() == {
        "path": "out/scores",
        "format": "parquet",
        "partition_by": (),
        "rejects": "out/scores.rejects",
    }
    assert config.state.model_dump() == {"init": None, "map": {}, "save": None, "idle": None}
    assert config.checkpoint.model_dump() == {"every": 16, "keep": 7}
    assert config.engine.model_dump() == {
        "type": "local",
        "address": "local",
        "shards": 0,
        "epoch_rows": 20_000_000,
    }


def test_every_key_in_its_longest_form(load):
    config = load("""
        [source]
        path = "-"
        key = ["site", "device"]
        time = "at"
        features = ["a", { name = "b", valid = [0, inf], clip = [-1, 60.5], nulls = 0 }, "token"]
        time_features = ["hour", "day_of_week", "day_of_year"]
        nulls = "previous"
        reset = "new_session"
        max_gap = "1h30m"
        late = "reject"
        bad = "reject"
        max_rejects = 0
        batch_rows = 1000
        [window]
        kind = "independent"
        lanes = 3
        steps = 12
        stride = 4
        [model]
        path = "m.onnx"
        threads = 2
        inputs = { ids = "token", x = ["a", "b", "hour_sin", "hour_cos", "day_of_week_sin",
                   "day_of_week_cos", "day_of_year_sin", "day_of_year_cos"] }
        state = { h = "hn" }
        [output]
        emit = "last"
        columns = "*"
        names = "forecast"
        warmup = 5
        [sink]
        path = "-"
        rejects = "bad"
        [state]
        init = "before.parquet"
        map = { decoder = "encoder" }
        save = "after.arrow"
        [checkpoint]
        every = 1
        keep = 0
        [engine]
        type = "ray"
        address = "ray://head:10001"
        shards = 64
        epoch_rows = 1_000_000
    """)
    a, b, _ = config.source.features
    assert config.source.key == ("site", "device")
    assert (b.valid, b.clip, b.nulls) == ((0, float("inf")), (-1, 60.5), 0.0)
    assert (config.source.nulls_of(a), config.source.nulls_of(b)) == ("previous", 0.0)
    assert config.source.max_gap == timedelta(minutes=90)
    assert config.window.stride == 4
    assert config.model.inputs["ids"] == ("token",)
    assert config.output.names == ("forecast",)
    assert config.columns is None


def test_stride_is_steps_by_default(load):
    assert load(MINIMAL + "[window]\nkind = 'independent'\nsteps = 12").window.stride == 12


def test_columns_are_key_and_time_by_default(load):
    assert load(MINIMAL).columns == ("device",)
    assert load(MINIMAL, "source.time=at").columns == ("device", "at")
    assert load(MINIMAL, "output.columns=['x']").columns == ("x",)


def test_layers_of_weights_pass_through(load):
    layers = load(
        MINIMAL
        + """
        [[model.layers]]
        type = "LSTM"
        units = 8
        weights = "encoder.lstm"
        [[model.layers]]
        type = "Dense"
        units = 1
        """
    ).model.layers
    assert layers == (
        {"type": "LSTM", "units": 8, "weights": "encoder.lstm"},
        {"type": "Dense", "units": 1},
    )


def test_all_problems_are_told_at_once_with_their_lines(load):
    message = message_of(
        load,
        """\
[source]
path = "log.parquet"
key = 5
features = [
  "a",                        # a comment = with ["marks"]
  { name = "b", valid = [9, 3], nulls = "prevous" },
  { nam = "c" },
]
late = "dorp"
batch_rows = "12"
max_gap = "6x"
lanes = 4

[windows]
[window]
"kind" = "carri"
steps = 0
[[model.layers]]
type = "LSTM"
[[model.layers]]
typ = "LSTM"
""",
        "window.lanes=abc",
    )
    known = (
        "known here: path, format, version, delimiter, null_values, types, order, after, sort, "
        "key, time, features, rename, time_zone, time_features, nulls, nan, "
    )
    assert message.split("\n  ") == [
        "p.toml has 15 problems:",
        "p.toml:3: source.key: expected a name or a list of names, received the integer 5",
        "p.toml:6: source.features[1].valid: expected low <= high, received [9.0, 3.0]",
        'p.toml:6: source.features[1].nulls: expected "error", "previous", "skip" or a number, '
        'received the string "prevous"; did you mean "previous"?',
        "p.toml:7: source.features[2].name: required but missing: the column",
        'p.toml:7: source.features[2].nam: unknown key; did you mean "name"? '
        "(known here: name, from, valid, clip, nulls, nan, vocabulary, oov, embed)",
        'p.toml:9: source.late: expected "error", "drop", "reject" or "apply", '
        'received the string "dorp"; did you mean "drop"?',
        "p.toml:10: source.batch_rows: expected an integer from 1 to 2147483647, "
        'received the string "12"',
        'p.toml:11: source.max_gap: expected a duration such as "6h", "90s", "1d" or '
        '"1h30m" (units w, d, h, m, s, ms, us), received "6x"',
        f"p.toml:12: source.lanes: unknown key; it belongs to [window] ({known}"
        "reset, max_gap, late, repeated, bad, max_rejects, batch_rows)",
        'p.toml:14: windows: unknown key; did you mean "window"? '
        "(known here: source, window, model, output, sink, publish, alerts, target, train, state, "
        "checkpoint, engine, serve)",
        'p.toml:16: window.kind: expected "carry", "independent" or "whole", received the string '
        '"carri"; did you mean "carry"?',
        "p.toml:17: window.steps: expected an integer from 1 to 2147483647, received the integer 0",
        "p.toml:18: model.path: required but missing: file or URI: .safetensors, .keras, .h5, "
        ".hdf5 or .onnx",
        'p.toml:18: model.layers: [[model.layers]] number 2 needs a type, such as type = "LSTM"; '
        "received the keys ['typ']",
        "--set window.lanes=abc: window.lanes: expected an integer from 1 to 2147483647, "
        'received the string "abc"',
    ]


@pytest.mark.parametrize(
    "text", ["2013-01-01", "2013", "nan", "inf", "1e3", "true", "2013-01-01T00:00:00Z", "07:30:00"]
)
def test_text_that_toml_reads_as_another_type_is_text_where_the_key_takes_text(load, text):
    """`sink.path=$(date +%F)` is what a daily job types."""
    keys = ("source.path", "sink.path", "sink.rejects", "source.key", "source.reset")
    config = load(MINIMAL, *(f"{key}={text}" for key in keys), f"source.rename.a={text}x")
    found = (config.source.path, config.sink.path, config.sink.rejects, *config.source.key)
    assert (*found, config.source.reset) == (text,) * 5
    assert load(MINIMAL, f"source.time={text}").source.time == text
    assert config.source.rename == {"a": (f"{text}x",)}
    config = load(MINIMAL, f"model.state.h={text}", f"output.names={text}", "model.path=m.onnx")
    assert config.model.state == {"h": text}
    assert config.output.names == (text,)


def test_a_key_that_takes_a_number_as_well_gets_the_number(load):
    config = load(MINIMAL, "source.nulls=7", "window.lanes=3", "source.nulls=7.5")
    assert (config.source.nulls, config.window.lanes) == (7.5, 3)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("source.max_gap='6h'", "source.max_gap: needs source.time"),
        ("source.time_features=['hour']", "source.time_features: needs source.time"),
        ("source.late='drop'", "source.late: needs source.time"),
        ("source.time='device'", '"device" is also a key'),
        ("source.key=['a', 'a']", '"a" is given more than once'),
        ("source.key=[]", "source.key: expected at least one name, received an empty list"),
        ("source.key='steps'", '"steps" is reserved for a column of the state table'),
        ("source.features=[]", "source.features: expected at least one feature"),
        ("source.features=['a', 'b', 'a']", 'source.features[2]: "a" is already feature 0'),
        ("source.features='a'", "expected a list of columns, received the string"),
        ("source.features=[3]", "source.features[0]: expected a table, received the integer 3"),
        ("source.features=[{name='a', clip=[0]}]", "expected two numbers [low, high]"),
        ("source.features=[{name='a', clip=[0, nan]}]", "expected two numbers [low, high]"),
        ("source.features=[{name='a', valid=[true, 2]}]", "expected two numbers [low, high]"),
        ("source.time_features=['hours']", 'did you mean "hour"?'),
        ("source.nulls=true", "received the boolean true"),
        ("source.nulls=nan", "expected a number within the range of float32"),
        ("source.nulls=1e39", "expected a number within the range of float32"),
        (
            "source.batch_rows=1.5",
            "expected an integer from 1 to 2147483647, received the number 1.5",
        ),
        ("source.batch_rows=true", "received the boolean true"),
        ("source.max_rejects=-1", "expected an integer from 0 to 2147483647"),
        ("engine.shards=4097", "engine.shards: expected an integer from 0 to 4096, received"),
        ("source.version=9223372036854775808", "an integer from 0 to 9223372036854775807, "),
        ("source.batch_rows=99999999999999999999", "expected an integer from 1 to 2147483647"),
        ("source.path=''", "source.path: expected a non-empty string"),
        ("source.max_gap='0s'", "expected a duration above zero"),
        ("source.max_gap=6", "expected a duration such as"),
        ("window.stride=4", 'only kind = "independent" has a stride, but kind is "carry"'),
        ("output.emit='last'", 'emit = "last" needs last_of'),
        ("output.last_of=4", 'only emit = "last" counts steps, but emit is "every"'),
        ("output.names=['device']", '"device" is also a column copied from the source'),
        ("output.names=['x', 'x']", '"x" is given more than once'),
        ("output.columns=['*', 'x']", '"*" means all columns; give it alone'),
        ("output.model_column='device'", '"device" is also a column copied from the source'),
        ("model.inputs={x = ['a', 'c']}", '"c" is not a feature'),
        ("model.inputs={x = 'a'}", 'no input uses "b"; add each feature to an input'),
        ("model.state={h = 'hn'}", "applies to ONNX graphs only"),
        ("model.layers=[3]", "expected a table [[model.layers]] per layer"),
        (
            "source.after.pth=x",
            'source.after.pth: unknown key; did you mean "path"? (known here: path, partition, '
            "time)",
        ),
        ("source.after.key=x", "it belongs to [source] (known here: path, partition, time)"),
        ("source=3", "source: expected a table [source], received the integer 3"),
    ],
)
def test_what_is_refused_is_named(load, override, expected):
    message = message_of(load, MINIMAL, override)
    assert message.startswith(f"--set {override}: "), message
    assert expected in message
    assert "\n" not in message, "one mistake must give one problem"


def test_what_after_names_is_not_on_stdin(load):
    for after in ("path='a.parquet'", "partition='date=2013-01-05'", "time='2013-01-05'"):
        text = MINIMAL.replace("[source]\n", f"[source]\ntime = 't'\nafter = {{ {after} }}\n")
        assert load(text, "source.path=in").source.after is not None
        message = message_of(load, text, "source.path=-")
        assert message == (
            'p.toml:3: source.after: chooses files, but path is "-": all rows of stdin are scored; '
            "remove after"
        )


@pytest.mark.parametrize(
    ("overrides", "received"),
    [
        ({"window": {"lanes": 32}}, "dict. Pipeline.from_dict takes the tables of a pipeline file"),
        ([{"window": {"lanes": 32}}], "dict {'window': {'lanes': 32}}"),
        ("window.lanes=32", "'window.lanes=32'"),
        (["window.lanes=32", 7], "int 7"),
        (7, "7"),
    ],
    ids=["dict", "list of dicts", "text", "number", "no list"],
)
def test_overrides_are_a_list_of_strings(tmp_path, overrides, received):
    file = tmp_path / "p.toml"
    file.write_text(MINIMAL)
    expected = 'overrides: expected a list of strings such as ["window.lanes=32"], received '
    with pytest.raises(ConfigError, match=re.escape(expected + received)):
        Config.load(file, overrides)


def test_last_of_is_not_for_independent_windows(load):
    text = MINIMAL + "[window]\nkind = 'independent'\n[output]\nemit = 'last'\n"
    assert load(text).output.last_of is None
    assert 'kind = "independent" already gives one row per window' in message_of(
        load, text, "output.last_of=2"
    )


def test_a_filter_is_checked_whatever_the_path_of_the_rows_is(load):
    """Names of keys are refused in their order."""
    text = MINIMAL.replace('"device"', '["last_time", "steps"]')
    message = message_of(load, text, "sink.path=''", "alerts.where=y >>> 3")
    assert re.findall(r": ([a-z]+\.[a-z]+): (\S+)", message) == [
        ("source.key", '"last_time"'),
        ("source.key", '"steps"'),
        ("sink.path", "expected"),
        ("alerts.where", "character"),
    ]


@pytest.mark.parametrize("length", [timedelta(), timedelta(hours=-1)])
def test_a_length_of_time_from_python_is_above_zero(length: timedelta) -> None:
    """As text is: a gap of less would be none, without a word."""
    data = {
        "source": {"path": "in", "key": "k", "time": "t", "features": ["a"], "max_gap": length},
        "model": {"path": "m.safetensors"},
    }
    with pytest.raises(ConfigError, match=r"source\.max_gap: expected a duration"):
        Config.parse(data)
