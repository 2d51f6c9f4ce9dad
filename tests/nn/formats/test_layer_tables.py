"""[[model.layers]] as the architecture of a model to train, or beside a native file."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from streamrnn import Input, Model, initializers, layers, load_model
from streamrnn.errors import ConfigError
from streamrnn.nn.formats import untrained
from streamrnn.nn.formats.tables import MAX_TABLES, tables_of


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"type": "GRU", "unit": 4}, "units is missing; received 'unit': did you mean 'units'?"),
        ({"type": "GRU"}, "number 1 (GRU): units is missing"),
    ],
)
def test_a_missing_argument_is_named(table: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        untrained([table], 3, 0)
    assert text in str(caught.value)


def test_layers_beside_a_native_file_are_compared(tmp_path: Path) -> None:
    model = untrained([{"type": "GRU", "units": 4}, {"type": "Dense", "units": 1}], 3, 0)
    model.save(tmp_path / "m.safetensors")
    same = [{"type": "GRU", "units": 4}, {"type": "Dense", "units": 1}]
    found = load_model(tmp_path / "m.safetensors", layers=same)
    assert found.fingerprint() == model.fingerprint()
    for tables, text in (
        (same[:1], "has 1 layers, but the model file has 2"),
        ([{"type": "LSTM", "units": 4}, same[1]], "the model file has a GRU there"),
        ([{"type": "GRU", "units": 5}, same[1]], "units is 5 here and 4 in the model file"),
        ([{"type": "GRU", "units": 4, "reset_after": False}, same[1]], "reset_after is False"),
    ):
        with pytest.raises(ConfigError, match=text):
            load_model(tmp_path / "m.safetensors", layers=tables)


GATED: list[dict[str, object]] = [
    {"type": "Normalization"},
    {"type": "Dense", "units": 4, "name": "wide"},
    {"type": "GRU", "units": 4, "return_sequences": True},
    {"type": "Dense", "units": 4, "activation": "gelu", "inputs": "wide", "name": "gate"},
    {"type": "Multiply", "inputs": ["gru", "gate"]},
    {"type": "Add", "inputs": ["wide", "multiply"]},
    {"type": "Concatenate", "inputs": ["add", "input"]},
    {"type": "Dense", "units": 1},
]


def changed(number: int, **arguments: object) -> list[dict[str, object]]:
    return [*GATED[:number], {**GATED[number], **arguments}, *GATED[number + 1 :]]


def test_layers_read_those_that_their_inputs_name() -> None:
    with initializers.seeded(3):
        x = Input((None, 3), name="input")
        wide = layers.Dense(4)(layers.Normalization()(x))
        gru, gate = layers.GRU(4, return_sequences=True), layers.Dense(4, "gelu")
        gated = layers.Multiply()([gru(wide), gate(wide)])
        joined = layers.Concatenate()([layers.Add()([wide, gated]), x])
        by_hand = Model(x, layers.Dense(1)(joined))
    model = untrained(GATED, 3, 3)
    values = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    assert model(values).tobytes() == by_hand(values).tobytes()


def test_tables_with_inputs_are_compared_with_a_file(tmp_path: Path) -> None:
    untrained(GATED, 3, 0).save(tmp_path / "m.safetensors")
    load_model(tmp_path / "m.safetensors", layers=GATED)
    for tables, text in (
        (changed(5, inputs=["multiply", "wide"]), "have other names or inputs"),
        (changed(3, inputs="normalization"), "have other names or inputs"),
        (changed(3, activation="relu"), r"number 4 \(Dense\): activation is"),
    ):
        with pytest.raises(ConfigError, match=text):
            load_model(tmp_path / "m.safetensors", layers=tables)


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        (changed(3, inputs="wdie"), "no layer before it has the name 'wdie'. Did you mean 'wide'?"),
        (changed(2, inputs="gate"), "no layer before it has the name 'gate'"),
        (changed(3, inputs=[]), "inputs must be the name of a layer before it, or a list of"),
        (changed(3, inputs=[1]), "inputs must be the name of a layer before it, or a list of"),
        (
            changed(3, name="wide"),
            "a layer before it already has the name 'wide': set another name",
        ),
        (changed(6, inputs=["input", "wide"]), "no layer reads 'add'"),
    ],
)
def test_tables_that_cannot_be_connected_are_refused(
    tables: list[dict[str, object]], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        untrained(tables, 3, 0)
    assert text in str(caught.value)


def test_weights_alone_have_layers_in_a_row(tmp_path: Path) -> None:
    arrays = {"weight": np.zeros((1, 3), np.float32), "bias": np.zeros(1, np.float32)}
    save_file(arrays, tmp_path / "m.safetensors")
    table: dict[str, object] = {"type": "Dense", "units": 1}
    load_model(tmp_path / "m.safetensors", layers=[table])
    with pytest.raises(ConfigError, match="`inputs` are for a model that is to be trained"):
        load_model(tmp_path / "m.safetensors", layers=[{**table, "inputs": "input"}])


def test_a_large_state_dict_suggests_its_first_tables() -> None:
    arrays = {f"l{i}.{name}": shape for i in range(60) for name, shape in
              (("weight", (2, 2)), ("bias", (2,)))}  # fmt: skip
    tables = tables_of(arrays)
    assert tables.count("[[model.layers]]") == MAX_TABLES
    assert tables.endswith("# … and 20 more")


def test_a_member_without_weights_is_named_in_its_place() -> None:
    """It may be an activation: without it the layers compute other values, and nothing fails."""
    shapes = {"weight": (2, 2), "bias": (2,)}
    prefixes = ("0", "2", "head.0.inner", "head.1", "last.3")
    tables = tables_of({f"{p}.{name}": shape for p in prefixes for name, shape in shapes.items()})
    place = "# {} has no weights: if it is an activation, its table goes here.\n[[model.layers]]\n"
    for missing, prefix in (("1", "2"), ("last.2", "last.3")):
        assert f'{place.format(missing)}type = "Linear"\nweights = "{prefix}"' in tables
    assert tables.count("has no weights") == 2
