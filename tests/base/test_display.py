"""What objects say of themselves in a console and in a notebook: short, plain, without secrets."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from readme import make_clone
from selection import with_plugins

from streamrnn import Input, Model, Pipeline, Sequential, StateTable, layers, load_model
from streamrnn.base.display import location, uri_fault, without_credentials
from streamrnn.pipeline import Summary
from streamrnn.states import Layout

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """In a clone without an output."""
    monkeypatch.chdir(make_clone(tmp_path))
    return Pipeline.from_toml("pipelines/weather.toml")


def test_a_pipeline_says_what_it_reads_runs_and_writes(pipeline: Pipeline) -> None:
    """First what the file says; when the model is loaded, what is in it; then its streams too."""
    said = repr(pipeline)
    assert said == (
        "<Pipeline: model pipelines/weather/model.safetensors; source data/weather.parquet; "
        "key origin; features temp, dewp, humid, wind_speed, pressure, …, hour; "
        "window carry, 24 lanes x 48 steps; sink out/weather; state none yet>"
    )
    pipeline.process(pq.read_table("data/weather.parquet").slice(0, 80))
    assert "model <Sequential 'sequential': normalize (Normalization), gru (GRU)" in repr(pipeline)
    assert repr(pipeline).endswith("state 3 streams>")
    html = pipeline._repr_html_()
    assert html.startswith("<table><caption>Pipeline</caption>")
    assert "<tr><th>state</th><td>3 streams</td></tr>" in html
    assert "&lt;Sequential" in html


def test_a_pipeline_is_shown_without_a_look_at_any_file(pipeline: Pipeline) -> None:
    """A path that does not exist is shown as any other; credentials in a URI are not shown."""
    data = pipeline.config.model_dump(exclude_unset=True)
    data["model"]["path"] = "nowhere/model.safetensors"
    data["source"]["path"] = "s3://KEY:SECRET@logs/2013?session_token=TOKEN"
    data["sink"]["path"] = "s3://KEY:SECRET@scores/2013?session_token=TOKEN"
    hidden = Pipeline.from_dict(data)
    for said in (repr(hidden), hidden._repr_html_()):
        assert "nowhere/model.safetensors" in said
        assert "s3://logs/2013" in said
        assert "s3://scores/2013" in said
        assert "SECRET" not in said
        assert "TOKEN" not in said


def test_a_summary_names_the_counts_that_are_not_zero() -> None:
    summary = Summary(
        rows=26115,
        rows_out=26115,
        streams=3,
        new_streams=3,
        seconds=1.234,
        filled=2737,
        files=1,
        commits=2,
        output="out/w",
    )
    assert repr(summary) == (
        "<Summary: 26,115 rows in, 26,115 rows out, 3 streams, 1 file, 2 commits; output out/w; "
        "filled 2,737>"
    )
    html = summary._repr_html_()
    assert "<tr><th>streams</th><td>3 (3 new)</td></tr>" in html
    assert "<tr><th>filled</th><td>2,737</td></tr>" in html
    assert "skipped" not in html


def test_a_summary_says_how_the_run_ended_and_hides_credentials() -> None:
    summary = Summary(interrupted=True, output="s3://KEY:SECRET@scores/a")
    assert repr(summary).endswith("output s3://scores/a; interrupted yes>")
    assert "nothing new yes" in repr(Summary(nothing_new=True))
    assert "SECRET" not in summary._repr_html_()


def test_a_state_table_names_its_keys_and_columns() -> None:
    keys = (pa.field("id", pa.string()), pa.field("day", pa.date32()))
    table = StateTable(Layout(keys, pa.timestamp("s", "UTC"), {"lstm/h": 4, "lstm/c": 4}))
    assert repr(table) == (
        "<StateTable: 0 streams by id, day; id, day, steps, last_time, lstm/h (4), lstm/c (4)>"
    )
    table.find([pa.array(["a", "b"]), pa.array([0, 0], pa.date32())])
    html = table._repr_html_()
    assert "<caption>StateTable: 2 streams by id, day</caption>" in html
    assert "<tr><th>last_time</th><td>timestamp[s, tz=UTC]</td></tr>" in html


def test_a_state_table_within_a_change_can_be_shown() -> None:
    """A debugger shows what it stops at: that must neither complete nor undo the change."""
    table = StateTable(Layout((pa.field("id", pa.string()),), None, {"h": 1}))
    said: list[str] = []

    def work() -> tuple[None, Any]:
        table.find([pa.array(["a"])])
        said.append(repr(table))
        return None, lambda: None

    table.change(work)
    assert said == ["<StateTable: 1 stream by id; id, steps, h (1)>"]
    assert len(table) == 1


def test_a_model_names_its_layers_shapes_and_parameters() -> None:
    x = Input((None, 8), name="x")
    model = Model(x, layers.Dense(2, name="out")(layers.LSTM(4, name="lstm")(x)), name="small")
    assert repr(model) == (
        "<Model 'small': x (InputLayer), lstm (LSTM), out (Dense); (None, None, 8) to (None, 2); "
        "218 parameters>"
    )
    html = model._repr_html_()
    assert "<caption>Model small: 218 parameters</caption>" in html
    assert "<tr><th>lstm</th><td>LSTM</td><td>(None, 4)</td><td>208</td></tr>" in html


def test_a_model_that_is_not_built_says_so() -> None:
    model = Sequential([layers.LSTM(4, name="lstm")], name="later")
    assert repr(model) == "<Sequential 'later': lstm (LSTM); not built>"
    assert "<tr><th>lstm</th><td>LSTM</td><td>?</td><td>0</td></tr>" in model._repr_html_()
    assert repr(Sequential(name="empty")) == "<Sequential 'empty': no layers; not built>"


def test_of_many_layers_the_first_and_the_last_are_named() -> None:
    model = Sequential([Input((3,)), *(layers.Dense(3, name=f"d{i}") for i in range(20))], name="m")
    assert "d4 (Dense), …, d19 (Dense);" in repr(model)


@with_plugins
def test_an_onnx_model_is_shown_before_its_states_are_known() -> None:
    """To find out which input carries which output may fail, and then says so: not here."""
    pytest.importorskip("onnx", reason="needs the onnx extra")
    model = load_model(ROOT / "pipelines" / "origins" / "weather.onnx")
    assert repr(model) == "<OnnxModel 'weather': graph (OnnxGraph); 2,491 parameters>"
    assert "<tr><th>graph</th><td>OnnxGraph</td><td>?</td><td>2,491</td></tr>" in (
        model._repr_html_()
    )


def test_names_are_escaped() -> None:
    """A layer's or a column's name comes from a file."""
    model = Sequential([layers.Dense(1, name="<script>")], name="<b>")
    assert "<script>" not in model._repr_html_()
    assert "&lt;script&gt;" in model._repr_html_()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://KEY:SECRET@logs/2013?region=x", "s3://logs/2013?region=x"),
        ("s3://KEY:SEC/R@ET@logs/2013?region=x", "s3://logs/2013?region=x"),
        ("s3://KEY:SEC?RET@logs/2013", "s3://logs/2013"),
        ("s3://KEY:/SEC RET@logs", "s3://logs"),
        ("s3://KEY:SECRET/logs/2013", "s3://logs/2013"),
        ("s3:KEY:SECRET@logs/2013", "s3:logs/2013"),
        (" S3:///KEY:SECRET@logs", "S3:///logs"),
        ("https://host:9000/a?sig=SECRET&region=x", "https://host:9000/a?region=x"),
        ("https://KEY:12/SECRET@host/a", "https://host/a"),
        ("s3://logs/a?endpoint_override=u:SECRET%40host&scheme=http", "s3://logs/a?scheme=http"),
        ("postgresql+psycopg2://u:SECRET@host:5432/db", "postgresql+psycopg2://host:5432/db"),
        ("s3;//KEY:SECRET@logs/2013?region=x&sig=SECRET", "logs/2013?region=x"),
        ("s33:/KEY:SEC/R@ET@logs", "logs"),
        ("r2:KEY:SECRET@logs/x", "logs/x"),
        ("s3;//KEY%3ASECRET%40logs/x", "logs/x"),
        ("s3://KEY%3ASECRET%40logs/x", "s3://logs/x"),
        ("s3://KEY:SECRET@logs/a%40b", "s3://logs/a%40b"),
        ("s3://logs/a%40b", "s3://logs/a%40b"),
        ("s3:;//KEY:SECRET@logs/x", "s3:logs/x"),
        ("./s3://KEY:SECRET@logs/x", "logs/x"),
        ("s3://logs/a?region=x%26sig=SECRET&scheme=http%3Bsig=SECRET", "s3://logs/a"),
        (
            "s3://a?endpoint_override=http%3A%2F%2Fh%3A90",
            "s3://a?endpoint_override=http%3A%2F%2Fh%3A90",
        ),
        *(
            (path, path)
            for path in (
                "out/x",
                "./a:b@c",
                "/a:b@c",
                "s3://logs/a@b",
                "file:///a:b@c",
                "hdfs:///a",
            )
        ),
        *((path, path) for path in ("sqlite:////a/b", "iceberg:lake/a.b", "hdfs://host:8020/x")),
    ],
)
def test_of_a_uri_only_what_holds_no_secret_is_shown(uri: str, shown: str) -> None:
    assert location(uri) == shown


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("s3:/logs/x", "two slashes in a URI: s3://"),
        ("s3:logs/x", "two slashes"),
        ("s3:///logs/x", "two slashes"),
        ("s3//logs/x", "two slashes"),
        (" s3://logs/x", "white space or quotes before it"),
        ("s3://KEY:SECRET\n@logs/x", "ends with white space"),
        ("s3://KEY :SECRET@logs/x", "a blank is %20"),
        ("s3://KEY:SEC/RET@logs/x", "'/' is %2F"),
        ("s3://KEY:SEC%RET@logs/x", "percent-encoded"),
        ("s3://KEY:SECRET@logs/a@b", "'@' is %40"),
        ("s3://KEY:SECRET/logs/x", "scheme://user:password@host/path"),
        ("s3://lo[gs/x", "no brackets"),
        ("r2:KEY:SECRET@logs/x", "expected a URI such as s3://user:password@host/path; a path on"),
        ("s3:;//KEY:SECRET@logs/x", "two slashes"),
    ],
)
def test_a_misspelled_uri_is_refused_with_how_to_spell_it(uri: str, fault: str) -> None:
    assert fault in (uri_fault(uri) or "")


@pytest.mark.parametrize(
    "path",
    [
        *("s3://KEY:SEC%2FRET@logs/x", "s3://logs/a@b", "s3://logs/a b", "hdfs:///x", "out/a b"),
        *("./a:b@c", "../a:b@c", "/a//b@c", "a/b@c", "a:b"),
        *("abfss://c@host/x", "file:///a b", "gs://anonymous@logs/x", "s3", "iceberg:lake/a.b"),
    ],
)
def test_other_paths_have_no_fault(path: str) -> None:
    assert uri_fault(path) is None


def test_a_file_whose_name_looks_like_a_uri_is_shown(workdir: Path) -> None:
    Path("a:b@c").touch()
    assert location("a:b@c") == "a:b@c"
    assert uri_fault("a:b@c") is None


@pytest.mark.parametrize(
    "text",
    [
        "s3://logs/2013/a@b: no such bucket",
        "http://127.0.0.1:9000/a: refused",
        "hdfs://host:8020/x and /y@z",
        "s3://logs: no such bucket. See s3://other/x",
        "http://host: refused, see a@b",
    ],
)
def test_a_text_without_secrets_stays(text: str) -> None:
    assert without_credentials(text) == text
