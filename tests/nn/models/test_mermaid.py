"""`summary --mermaid`: the graph of a model as a flowchart."""

import re
from pathlib import Path

import pytest

from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import ConfigError
from streamrnn.models import calls_of, model_mermaid

EXPECTED = """\
flowchart TB
    layer0["x<br/>InputLayer<br/>(None, None, 2)<br/>0 parameters"]
    layer1["gru<br/>GRU<br/>(None, 3)<br/>63 parameters"]
    layer2["y<br/>Dense<br/>(None, 1)<br/>4 parameters"]
    layer0 --> layer1
    layer1 --> layer2"""


def straight() -> Model:
    return Sequential(
        [Input((None, 2), name="x"), layers.GRU(3, name="gru"), layers.Dense(1, name="y")]
    )


def branched() -> Model:
    """Two inputs, two outputs, a state handed over, an arrow past three rows."""
    source, target = Input((None, 8), name="source"), Input((None, 3), name="target")
    encoded, h, c = layers.LSTM(4, return_state=True, name="encoder")(source)
    decoded = layers.LSTM(4, return_sequences=True, name="decoder")(target, initial_state=[h, c])
    a = layers.Dense(3, name="a")(decoded)
    both = layers.Add(name="sum")([a, target])
    return Model([source, target], [both, layers.Dense(1, name="b")(encoded)])


def shared() -> Model:
    x = Input((None, 2), name="x")
    twice = layers.Dense(2, name="shared")
    return Model(x, layers.Concatenate(name="all")([twice(twice(x)), x, x]))


def test_a_box_says_name_class_shape_and_parameters() -> None:
    assert model_mermaid(straight()) == EXPECTED


def test_arrows_are_the_edges_of_the_graph() -> None:
    """Each call has a box of its own, and reads another once however often it is passed."""
    for model, edges in [
        (branched(), "source>encoder target>decoder encoder>decoder decoder>a a>sum target>sum "
         "encoder>b"),
        (shared(), "x>shared (call 1) shared (call 1)>shared (call 2) shared (call 2)>all x>all"),
    ]:  # fmt: skip
        chart = model_mermaid(model)
        names = dict(re.findall(r'(layer\d)\["(.+?)<br/>', chart))
        assert list(names.values()) == [call.name for call in calls_of(model.graph)]
        arrows = [
            f"{names[a]}>{names[b]}" for a, b in re.findall(r"(layer\d) --> (layer\d)", chart)
        ]
        name = r"\w+(?: \(call \d\))?"
        assert sorted(arrows) == sorted(re.findall(f"{name}>{name}", edges))


def test_a_model_without_a_graph_is_refused() -> None:
    with pytest.raises(ConfigError):
        model_mermaid(Sequential([layers.GRU(3)]))


def test_the_command_prints_the_chart(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = pytest.importorskip("streamrnn.cli", reason="the command line").main
    straight().save("m.safetensors")
    with pytest.raises(SystemExit) as end:
        main(["summary", "m.safetensors", "--mermaid"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{EXPECTED}\n"
