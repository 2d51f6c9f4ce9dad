"""[[model.layers]] as the architecture of a model to train, or beside a native file."""

from pathlib import Path

import pytest

from streamrnn import load_model
from streamrnn.errors import ConfigError
from streamrnn.nn.formats import untrained
from streamrnn.nn.formats.torch_tables import MAX_TABLES, tables_of


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"type": "GRU", "unit": 4}, "units is missing; 'unit' is given, did you mean 'units'?"),
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
    for layers, text in (
        (same[:1], "has 1 layers, the model file 2"),
        ([{"type": "LSTM", "units": 4}, same[1]], "the model file has a GRU there"),
        ([{"type": "GRU", "units": 5}, same[1]], "units is 5 here and 4 in the model file"),
        ([{"type": "GRU", "units": 4, "reset_after": False}, same[1]], "reset_after is False"),
    ):
        with pytest.raises(ConfigError, match=text):
            load_model(tmp_path / "m.safetensors", layers=layers)


def test_a_large_state_dict_suggests_its_first_tables() -> None:
    arrays = {f"l{i}.{name}": shape for i in range(60) for name, shape in
              (("weight", (2, 2)), ("bias", (2,)))}  # fmt: skip
    tables = tables_of(arrays)
    assert tables.count("[[model.layers]]") == MAX_TABLES
    assert tables.endswith("# … and 20 more")
