"""Names that a file does not have: the same in each load, whatever was made before."""

from pathlib import Path

import logs
import numpy as np
import pytest
from safetensors.numpy import save_file

from streamrnn import clear_session, layers, load_model

TABLES = [{"type": "GRU", "weights": "rnn"}, {"type": "Activation", "activation": "relu"}]


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A state_dict of PyTorch: no name of a layer or a model is in it."""
    rng = np.random.default_rng(7)
    shapes = {"weight_ih_l0": (12, 2), "weight_hh_l0": (12, 4), "bias_ih_l0": 12, "bias_hh_l0": 12}
    arrays = {f"rnn.{n}": rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    save_file(arrays, tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


def test_a_file_has_one_fingerprint_in_a_process(weights: str) -> None:
    """Its automatic names are not counted on, and count nothing for models made by hand."""
    clear_session()
    assert layers.GRU(3).name == "gru"
    first = load_model(weights, layers=TABLES)
    assert layers.GRU(3).name == "gru_1"
    second = load_model(weights, layers=TABLES)
    assert layers.GRU(3).name == "gru_2"
    assert second.get_config() == first.get_config()
    assert second.fingerprint() == first.fingerprint()
    assert (first.name, first.layers[-1].name) == ("sequential", "activation")


def test_an_output_is_resumed_in_the_process_that_began_it(weights: str, tmp_path: Path) -> None:
    """It was refused: the second model was another one by its name."""
    pytest.importorskip("streamrnn.jobs", reason="needs pipelines")
    from streamrnn import Pipeline

    log = logs.random_log(60)
    logs.write(log.slice(0, 40), tmp_path / "in" / "0.parquet")
    data = logs.config(str(tmp_path / "in"), weights, str(tmp_path / "out"))
    data["model"]["layers"] = TABLES
    first = Pipeline.from_dict(data)
    assert first.run().rows == 40
    assert Pipeline.from_dict(data).run().nothing_new
    scored = Pipeline.from_dict(data, state=first.state).process(log.slice(40))
    assert scored.num_rows == 20
