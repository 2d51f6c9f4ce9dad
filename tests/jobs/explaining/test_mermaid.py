"""`explain --mermaid`: the pipeline as a flowchart."""

import re
from pathlib import Path
from typing import Any

import logs
import pytest
from command_line import run_command

from streamrnn import Input, Model, Pipeline, Sequential, layers

EXPECTED = """\
flowchart TB
    source[("source<br/>in<br/>1 file, 1 of them new<br/>100 rows")]
    features["features<br/>a, b<br/>key: id<br/>time: t"]
    window["window: carry<br/>64 lanes × 128 steps"]
    subgraph model["model<br/>m.safetensors"]
        layer0["x<br/>InputLayer<br/>(None, None, 2)<br/>0 parameters"]
        layer1["rnn<br/>GRU<br/>(None, None, 5)<br/>135 parameters"]
        layer2["score<br/>Dense<br/>(None, None, 1)<br/>6 parameters"]
        layer0 --> layer1
        layer1 --> layer2
    end
    outputs["outputs<br/>score<br/>emit: every"]
    sink[("sink<br/>out")]
    source --> features --> window
    window --> layer0
    layer2 --> outputs
    outputs --> sink
    state[("state<br/>0 streams<br/>44 bytes each")]
    state <--> model
    state -.- sink"""


@pytest.fixture
def pipeline(workdir: Path) -> Any:
    """Make a pipeline over `in` with a model."""
    logs.write(logs.random_log(rows=100, streams=3), Path("in/a.parquet"))

    def make(model: Any = None, **tables: Any) -> Pipeline:
        usual = [Input((None, 2), name="x"), layers.GRU(5, return_sequences=True, name="rnn")]
        made = model or Sequential([*usual, layers.Dense(1, name="score")])
        made.save("m.safetensors")
        return Pipeline.from_dict(logs.config("in", "m.safetensors", "out", **tables))

    return make


def test_the_chart_has_each_part_with_its_facts(pipeline: Any) -> None:
    assert pipeline().mermaid() == EXPECTED


def test_after_a_run_the_chart_has_its_commit_and_its_streams(pipeline: Any) -> None:
    made = pipeline(source={"bad": "reject"})
    made.run()
    chart = made.mermaid()
    assert '[("sink<br/>out<br/>commit 1<br/>100 rows")]' in chart
    assert '[("state<br/>3 streams<br/>44 bytes each")]' in chart
    assert "1 file, 0 of them new" in chart
    assert 'rejects[("rejects<br/>out.rejects")]' in chart
    assert "features -->|rejected rows| rejects" in chart


def test_arrows_are_those_of_a_model_that_branches(pipeline: Any) -> None:
    """A layer that is called twice has two boxes; the window feeds the input, two feed outputs."""
    x = Input((None, 2), name="x")
    shared = layers.Dense(2, name="shared")
    y = layers.GRU(2, return_sequences=True, name="gru")(shared(shared(x)))
    both = layers.Add(name="sum")([x, y])
    chart = pipeline(Model(x, [both, layers.Dense(1, name="d")(y)])).mermaid()
    names = dict(re.findall(r'(layer\d)\["(.+?)<br/>', chart))
    arrows = {(names[a], names[b]) for a, b in re.findall(r"(layer\d) --> (layer\d)", chart)}
    assert arrows == {
        ("x", "shared (call 1)"),
        ("shared (call 1)", "shared (call 2)"),
        ("shared (call 2)", "gru"),
        ("x", "sum"),
        ("gru", "sum"),
        ("gru", "d"),
    }
    assert [names[name] for name in re.findall(r"(layer\d) --> outputs", chart)] == ["sum", "d"]


def test_names_cannot_break_a_label(pipeline: Any) -> None:
    """What means something to Mermaid is an entity of its own."""
    name = 'a "b"] <i> #1; %%{x} `c`\\n'
    x = Input((None, 2), name="x")
    chart = pipeline(Model(x, layers.GRU(2, return_sequences=True, name=name)(x))).mermaid()
    shown = "a #34;b#34;] #60;i#62; #35;1#59; #37;#37;{x} #96;c#96;#92;n"
    assert f'["{shown}<br/>GRU<br/>' in chart
    assert chart.count('"') % 2 == 0


def test_the_command_prints_the_chart(pipeline: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline()
    Path("p.toml").write_text(
        '[source]\npath = "in"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\n'
        '[model]\npath = "m.safetensors"\n[sink]\npath = "out"\n'
    )
    code, out, _ = run_command(capsys, "explain", "p.toml", "--mermaid")
    assert (code, out) == (0, EXPECTED + "\n")
    assert run_command(capsys, "explain", "p.toml", "--mermaid", "--json")[0] == 2
