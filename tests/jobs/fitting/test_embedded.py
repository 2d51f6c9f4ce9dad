"""Ids that `embed` in [source] features joins to the other features."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.fitting import fits
from selection import slow

from streamrnn import Pipeline, layers, load_model
from streamrnn.errors import ConfigError

NAMES = ["AA", "B6", "UA"]
EMBED = {"name": "carrier", "vocabulary": NAMES, "oov": 1, "embed": 3}
FEATURES: list[Any] = ["a", EMBED, "b"]


def log(late: int | None = None) -> pa.Table:
    """A log with a carrier for each stream, which decides b a step later; garbage from a row on."""
    table = fits.log()
    number = np.array([int(name[1:]) for name in table["id"].to_pylist()])
    carriers = np.array([*NAMES, "ZZ"])[number % 4]
    if late is not None:
        carriers[late:] = "garbage"
    a = np.nan_to_num(table["a"].to_numpy())
    x = 3.0 * (number % 4) + 0.1 * a
    return table.append_column("carrier", pa.array(carriers)).append_column("x", pa.array(x))


def config(folder: Path, **tables: dict[str, Any]) -> dict[str, Any]:
    data = fits.config(folder, **tables)
    source = {**data["source"], "features": FEATURES, "nulls": 0, **tables.get("source", {})}
    return {**data, "source": source, "target": {"column": "x"}}


def fit(folder: Path, table: pa.Table | None = None, **tables: dict[str, Any]) -> Any:
    if not (folder / "in").exists():
        logs.write(log() if table is None else table, folder / "in/a.parquet", row_group=100)
    return Pipeline.from_dict(config(folder, **tables)).fit()


def test_a_run_is_that_of_the_equation(tmp_path: Path) -> None:
    """Row by row: the numbers of an id beside the normalized features, then the layers."""
    model = {"layers": [{"type": "Normalization"}, {"type": "Dense", "units": 1}]}
    fit(tmp_path, model=model)
    Pipeline.from_dict(config(tmp_path, model=model)).run()
    fitted = load_model(tmp_path / "model.safetensors")
    assert [(symbol.name, symbol.dtype) for symbol in fitted.inputs] == [
        ("input", "float32"),
        ("carrier_ids", "int64"),
    ]
    by_name = {layer.name: layer for layer in fitted.layers}
    (table,) = by_name["embed_carrier"].get_weights()
    assert table.shape == (4, 3)
    kernel, bias = by_name["dense"].get_weights()
    mean, variance, _ = by_name["normalization"].get_weights()
    scale = by_name["rescaling"]
    assert isinstance(scale, layers.Rescaling)
    rows = log().to_pylist()
    scores = pq.read_table(tmp_path / "out")["rescaling"].to_pylist()
    streams: dict[str, list[float]] = {}
    output = pq.read_table(tmp_path / "out").to_pylist()
    for row in output:
        streams.setdefault(row["id"], []).append(row["rescaling"])
    assert len(scores) == len(rows)
    for row in rows:
        values = [0.0 if row[name] is None else row[name] for name in ("a", "b")]
        step = [
            (v - m) / max(np.sqrt(q), 1e-7) for v, m, q in zip(values, mean, variance, strict=True)
        ]
        number = NAMES.index(row["carrier"]) + 1 if row["carrier"] in NAMES else 0
        step += table[number].tolist()
        dense = sum(v * float(k) for v, k in zip(step, kernel[:, 0], strict=True)) + float(bias[0])
        wanted = dense * float(scale.scale[0]) + float(scale.offset[0])
        assert streams[row["id"]].pop(0) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_the_ids_are_learned(tmp_path: Path) -> None:
    """What a stream's carrier decides is forecast with them, and not without."""
    train = {"epochs": 12, "validation": {"since": "2024-01-01T20:00"}}
    with_ids = fit(tmp_path / "with", train=train)
    without = fit(tmp_path / "without", train=train, source={"features": ["a", "b"]})
    assert with_ids.best["val_rmse"] < 0.4 * without.best["val_rmse"]


def test_shuffled_labels_are_not_learned(tmp_path: Path) -> None:
    """Unless the ids are planted: those of the labels themselves."""
    table, train = log(), {"epochs": 12, "validation": {"since": "2024-01-01T20:00"}}
    x = np.random.default_rng(6).permutation(table["x"].to_numpy())
    judged = table["t"].to_numpy() >= np.datetime64("2024-01-01T20:00")
    planted = pa.array(np.array(["ZZ", *NAMES])[np.argsort(np.argsort(x)) * 4 // len(x)])
    for name, ids in (("shuffled", table["carrier"]), ("planted", planted)):
        shuffled = table.set_column(table.column_names.index("x"), "x", pa.array(x))
        shuffled = shuffled.set_column(table.column_names.index("carrier"), "carrier", ids)
        tables = {"train": train, "target": {"column": "x"}}
        ratio = fit(tmp_path / name, shuffled, **tables).best["val_rmse"] / x[judged].std()
        assert ratio > 0.95 if name == "shuffled" else ratio < 0.7


def test_garbage_in_the_validation_changes_no_weight(tmp_path: Path) -> None:
    weights = []
    for name, late in (("one", None), ("two", 700)):
        since = log()["t"][700].as_py().isoformat()
        train = {"epochs": 1, "validation": {"since": since}}
        assert fit(tmp_path / name, log(late), train=train).validation_rows == 200
        weights.append(load_model(tmp_path / name / "model.safetensors").get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


@slow
def test_all_seeds_as_one_model_and_a_second_run(tmp_path: Path) -> None:
    """The list of layers is compared with the file, behind the embeddings.

    Slow: a fit of several seeds.
    """
    train = {"epochs": 1, "seeds": 2, "keep": "all", "validation": {"streams": 0.3}}
    fit(tmp_path, train=train)
    assert Pipeline.from_dict(config(tmp_path, train=train)).run().rows == fits.ROWS
    assert Pipeline.from_dict(config(tmp_path, train=train)).run().rows == 0


@pytest.mark.parametrize(
    ("source", "model", "message"),
    [
        ([{"name": "a", "embed": 2}], {}, r"features\[0\]\.embed: needs vocabulary"),
        ([{**EMBED, "embed": -1}], {}, r"features\[0\]\.embed: expected an integer from 0"),
        (FEATURES, {"inputs": {"x": ["a"]}}, r"model\.inputs: the ids of a feature with embed"),
        (
            FEATURES,
            {"layers": [{"type": "Embedding", "input_dim": 4, "output_dim": 2}]},
            r"number 1 \(Embedding\): it reads ids, but receives the numbers that `embed`",
        ),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    source: list[Any], model: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, source={"features": source}, model=model)


def test_another_width_than_the_files_is_refused(tmp_path: Path) -> None:
    """So is `embed` for a model that embeds nothing."""
    fit(tmp_path)
    wider = {"features": ["a", {**EMBED, "embed": 8}, "b"]}
    message = r"'carrier' has embed = 8, but the model in .* embeds its ids in 3 numbers\. Fit it"
    with pytest.raises(ConfigError, match=message):
        Pipeline.from_dict(config(tmp_path, source=wider)).run()
    layered = {"features": ["a", "b"]}
    fit(tmp_path / "other", source=layered)
    with pytest.raises(ConfigError, match=r"embeds its ids in 0 numbers"):
        Pipeline.from_dict(config(tmp_path / "other")).run()


@pytest.mark.parametrize("features", [["a", "b"], ["a", {**EMBED, "embed": 0}, "b"]])
def test_a_second_pipeline_without_embed_is_told_of_it(features: list[Any], tmp_path: Path) -> None:
    """It was told to list the features of each input in [model] inputs, which embed makes."""
    fit(tmp_path)
    message = r"embeds the ids of 'carrier' in 3 numbers: set embed = 3 in its feature"
    second = config(tmp_path, source={"features": features})
    del second["model"]["layers"]
    with pytest.raises(ConfigError, match=message):
        Pipeline.from_dict(second).run()
    second["source"]["features"] = FEATURES
    assert Pipeline.from_dict(second).run().rows == log().num_rows


def test_layers_that_name_their_inputs_read_embedded_ids_too(tmp_path: Path) -> None:
    """Behind a Normalization that comes first, else as "input"; a run compares the file."""
    block = [
        {"type": "GRU", "units": 4, "name": "gru", "return_sequences": True},
        {"type": "Dense", "units": 4, "name": "skip", "inputs": ["first"]},
        {"type": "Add", "inputs": ["gru", "skip"]},
        {"type": "Dense", "units": 1},
    ]
    for kind in ("Normalization", "Dense"):
        first = {"type": kind, "name": "first"} | ({"units": 3} if kind == "Dense" else {})
        for features, folder in ((FEATURES, tmp_path / kind), ([EMBED], tmp_path / f"{kind}-ids")):
            if kind == "Normalization" and features == [EMBED]:
                continue  # there are no numbers to normalize
            tables = {"model": {"layers": [first, *block]}, "source": {"features": features}}
            fit(folder, **tables)
            pipeline = Pipeline.from_dict(config(folder, **tables))
            assert pipeline.run().rows == fits.ROWS
            joined = {node.layer.name: node.symbols for node in pipeline.loaded.model.graph.nodes}
            reads = [symbol.name for symbol in joined["embed"]]
            numbers = (
                [] if features == [EMBED] else ["first" if kind == "Normalization" else "input"]
            )
            assert reads == [*numbers, "embed_carrier"]
