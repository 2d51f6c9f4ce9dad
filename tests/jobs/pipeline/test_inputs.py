"""Models with several inputs, integer features, and string features, in pipelines of kind carry."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Input, Model, Pipeline, Sequential, layers
from streamrnn.errors import ConfigError, DataError, DTypeError, ModelMismatchError
from streamrnn.outputs import export_state, read_states


def _drawn(model: Any) -> Any:
    rng = np.random.default_rng(4)
    arrays = [rng.normal(0, 0.4, w.shape).astype(np.float32) for w in model.get_weights()]
    model.set_weights(arrays)
    return model


def _two_inputs() -> Model:
    ids = Input((None,), dtype="int64", name="ids")
    x = Input((None, 2), name="x")
    seen = layers.Conv1D(3, 3, padding="causal", name="conv")(x)
    both = layers.Concatenate()([layers.Embedding(9, 4, name="table")(ids), seen])
    cells = layers.RNN([layers.LSTMCell(5), layers.GRUCell(3)], name="rnn")
    return _drawn(Model([ids, x], layers.Dense(1, name="score")(cells(both))))


def _table() -> pa.Table:
    table = logs.random_log(220, streams=6)
    rng = np.random.default_rng(2)
    return table.append_column("token", pa.array(rng.integers(0, 9, 220)))


def _process(made: Any, tmp_path: Path, table: pa.Table, **tables: Any) -> pa.Table:
    made.save(tmp_path / "m.safetensors")
    config = logs.config("unused", str(tmp_path / "m.safetensors"), None, **tables)
    config["source"].pop("path")
    pipeline = Pipeline.from_dict(config)
    pieces = [pipeline.process(table.slice(i, 31)) for i in range(0, table.num_rows, 31)]
    return pa.concat_tables(pieces)


def test_each_row_is_what_the_model_says_of_its_streams_rows_so_far(tmp_path: Path) -> None:
    """Embedding, causal convolution and stacked cells, bit for bit against the model in Python."""
    table, model = _table(), _two_inputs()
    got = _process(
        model,
        tmp_path,
        table,
        source={"features": ["token", "a", "b"]},
        model={"inputs": {"ids": "token", "x": ["a", "b"]}},
    )
    ids = table.column("id").to_numpy()
    x = np.column_stack([table.column(n).to_numpy() for n in "ab"]).astype(np.float32)
    token, score = table.column("token").to_numpy(), got.column("score").to_numpy()
    for key in np.unique(ids):
        rows = np.flatnonzero(ids == key)
        for n in (1, 2, len(rows) // 2, len(rows)):
            some = rows[:n]
            expected = model([token[some][None], x[some][None]])
            assert score[rows[n - 1]] == expected[0, 0]


def test_an_integer_feature_of_an_embedding_model(tmp_path: Path) -> None:
    """A null is filled as an integer, a token out of range stops the run."""
    model = _drawn(
        Sequential(
            [layers.Embedding(9, 4, input_shape=(None,)), layers.GRU(3), layers.Dense(1, name="y")]
        )
    )
    table = _table()
    tokens = table.column("token").to_pylist()
    tokens[40] = None
    spoilt = table.set_column(5, "token", pa.array(tokens))
    features = [{"name": "token", "nulls": 8}]
    filled = _process(model, tmp_path, spoilt, source={"features": features})
    tokens[40] = 8
    whole = table.set_column(5, "token", pa.array(tokens))
    assert filled == _process(model, tmp_path, whole, source={"features": ["token"]})
    tokens[40] = 9
    beyond = table.set_column(5, "token", pa.array(tokens))
    with pytest.raises(ValueError, match="9"):
        _process(model, tmp_path, beyond, source={"features": ["token"]})


@pytest.mark.parametrize("kind", ["previous", "skip"])
def test_nulls_of_integers(tmp_path: Path, kind: str) -> None:
    model = _drawn(
        Sequential(
            [layers.Embedding(9, 4, input_shape=(None,)), layers.GRU(3), layers.Dense(1, name="y")]
        )
    )
    table = _table()
    tokens = table.column("token").to_pylist()
    ids = table.column("id").to_pylist()
    last, filled = {}, []
    rng = np.random.default_rng(1)
    for i, key in enumerate(ids):
        if rng.random() < 0.2:
            tokens[i] = None
        filled.append(tokens[i] if tokens[i] is not None else last.get(key))
        last[key] = filled[-1]
    spoilt = table.set_column(5, "token", pa.array(tokens))
    got = _process(model, tmp_path, spoilt, source={"features": [{"name": "token", "nulls": kind}]})
    values = filled if kind == "previous" else tokens
    there = np.array([v is not None for v in values])
    whole = table.set_column(5, "token", pa.array(values)).filter(pa.array(there))
    expected = _process(model, tmp_path, whole, source={"features": ["token"]})
    assert got.column("y").is_valid().to_pylist() == there.tolist()
    assert got.filter(pa.array(there)).column("y") == expected.column("y")


@pytest.mark.parametrize("kind", ["carry", "independent", "whole"])
def test_a_model_that_reads_ids_only(tmp_path: Path, kind: str) -> None:
    """In each kind of window, in two runs: there is no matrix of numbers, of a width 0."""
    model = _drawn(
        Sequential(
            [layers.Embedding(9, 4, input_shape=(None,)), layers.GRU(3), layers.Dense(1, name="y")]
        )
    )
    model.save(tmp_path / "m.safetensors")
    table = _table()
    sizes = {"steps": 4, "stride": 3} if kind == "independent" else {}
    tables = {"source": {"features": ["token"]}, "window": {"kind": kind, **sizes}}
    paths = str(tmp_path / "in"), str(tmp_path / "m.safetensors"), str(tmp_path / "out")
    for day in range(2 if kind != "whole" else 1):
        rows = table.slice(110 * day, 110) if kind != "whole" else table
        logs.write(rows, tmp_path / "in" / f"{day}.parquet")
        pipeline = Pipeline.from_dict(logs.config(*paths, **tables))
        assert pipeline.explain()["memory"]["total"] > 0
        pipeline.run()
    scored = pa.concat_tables(map(pq.read_table, sorted((tmp_path / "out").glob("*.parquet"))))
    key, token, score = (
        t[n].to_numpy() for t, n in ((table, "id"), (table, "token"), (scored, "y"))
    )
    assert scored["id"].to_pylist() == table["id"].to_pylist()
    ids = np.flatnonzero(key == key[0])
    for n in range(1, len(ids) + 1):
        found = score[ids[n - 1]]
        if kind == "carry" or (kind == "whole" and n == len(ids)):
            assert found == model(token[ids[:n]][None])[0, 0]
        elif kind == "independent" and n >= 4 and (n - 4) % 3 == 0:
            assert found == model(token[ids[n - 4 : n]][None])[0, 0]
        else:
            assert np.isnan(found)
    if kind == "independent":
        export_state(str(tmp_path / "out"), str(tmp_path / "s.parquet"))
        assert read_states(str(tmp_path / "out")).equals(read_states(str(tmp_path / "s.parquet")))


def test_inputs_are_checked_by_name(tmp_path: Path) -> None:
    table, model = _table(), _two_inputs()
    source = {"features": ["token", "a", "b"]}
    with pytest.raises(ModelMismatchError, match="list the features of each one"):
        _process(model, tmp_path, table, source=source)
    wrong = {"ids": "token", "y": ["a", "b"]}
    with pytest.raises(ModelMismatchError, match=r"\(ids, x\), received ids, y"):
        _process(model, tmp_path, table, source=source, model={"inputs": wrong})
    short = {"ids": "token", "x": ["a"]}
    with pytest.raises(ConfigError, match='no input uses "b"'):
        _process(model, tmp_path, table, source=source, model={"inputs": short})
    text = {"features": ["id", "a", "b"]}
    names = {"ids": "id", "x": ["a", "b"]}
    with pytest.raises(DTypeError, match="expected integer, received string"):
        _process(model, tmp_path, table, source=text, model={"inputs": names})


def test_ids_that_became_doubles_are_refused_with_what_to_do(tmp_path: Path) -> None:
    """pandas makes double of a column of integers with a null; what it advises works."""
    table = _table()
    ids = table["token"].to_pylist()
    doubles = pa.array([None, *map(float, ids[1:])], pa.float64())
    source = {"features": ["token", "a", "b"], "nulls": 0}
    tables = {"source": source, "model": {"inputs": {"ids": "token", "x": ["a", "b"]}}}
    index = table.schema.get_field_index("token")
    changed = table.set_column(index, "token", doubles)
    with pytest.raises(DTypeError, match=r"'token': expected integer, received double\.") as caught:
        _process(_two_inputs(), tmp_path, changed, **tables)
    assert 'astype("Int64")' in str(caught.value)
    cast = table.set_column(index, "token", doubles.cast(pa.int64()))
    plain = table.set_column(index, "token", pa.array([0, *ids[1:]]))
    assert _process(_two_inputs(), tmp_path, cast, **tables) == _process(
        _two_inputs(), tmp_path, plain, **tables
    )


def _embedding(size: int = 9) -> Sequential:
    first = layers.Embedding(size, 4, input_shape=(None,), name="table")
    return _drawn(Sequential([first, layers.GRU(3), layers.Dense(1, name="y")]))


def _run(made: Any, tmp_path: Path, table: pa.Table, token: Any, **source: Any) -> Any:
    made.save(tmp_path / "m.safetensors")
    path = logs.write(table, tmp_path / "in" / "1.parquet")
    model, out = str(tmp_path / "m.safetensors"), str(tmp_path / "out")
    tables: dict[str, Any] = {"source": {"features": [token], **source}}
    if type(made) is Model:
        tables = {"source": {"features": [token, "a", "b"], **source}}
        tables["model"] = {"inputs": {"ids": "token", "x": ["a", "b"]}}
    return Pipeline.from_dict(logs.config(path, model, out, **tables)).run()


def _nested() -> Model:
    """An Embedding in a model inside the model, and a smaller one beside it."""
    ids, x = Input((None,), dtype="int64", name="ids"), Input((None, 2), name="x")
    inner_ids = Input((None,), dtype="int64")
    inner = Model(inner_ids, layers.Embedding(9, 4, name="table")(inner_ids), name="inner")
    beside = layers.Embedding(12, 2, name="wide")(ids)
    both = layers.Concatenate()([inner(ids), beside, x])
    return _drawn(Model([ids, x], layers.Dense(1, name="score")(layers.GRU(3)(both))))


@pytest.mark.parametrize("value", [9, -1, 2**62, -(2**63)])
@pytest.mark.parametrize("make", [_embedding, _two_inputs, _nested])
def test_an_id_that_the_model_does_not_have(tmp_path: Path, make: Any, value: int) -> None:
    """One message with file, row, stream and column; or the row is rejected."""
    table = _table()
    tokens = table["token"].to_pylist()
    tokens[150] = value
    table = table.set_column(5, "token", pa.array(tokens))
    with pytest.raises(DataError) as caught:
        _run(make(), tmp_path, table, "token")
    key = table["id"][150].as_py()
    assert f"in/1.parquet: row 150 (from 0): stream id='{key}'" in str(caught.value)
    reason = f"column 'token': expected an id from 0 to 8, as the model has, received {value}"
    assert reason in str(caught.value)
    summary = _run(make(), tmp_path, table, "token", bad="reject")
    assert (summary.rows_out, summary.rejected) == (219, 1)
    rejects = pq.read_table(tmp_path / "out.rejects")
    assert rejects["reason"].to_pylist() == [reason]


def test_a_vocabulary_or_a_fill_beyond_the_ids_of_the_model(tmp_path: Path) -> None:
    """It is refused when the model is loaded, before a row is read."""
    table = _table().set_column(5, "token", pa.array(["v3"] * 220))
    words = [f"v{i}" for i in range(9)]
    assert _run(_embedding(9), tmp_path, table, {"name": "token", "vocabulary": words}).rows == 220
    with pytest.raises(
        ConfigError, match=r"'token': the vocabulary \(.*\) has ids up to 9 .oov = 1 "
    ):
        _run(_embedding(9), tmp_path, table, {"name": "token", "vocabulary": words, "oov": 1})
    with pytest.raises(ConfigError, match=r"layer 'table' \(Embedding\) has ids from 0 to 7"):
        _run(_embedding(8), tmp_path, table, {"name": "token", "vocabulary": words})
    for nulls in (9, -1):
        with pytest.raises(ConfigError, match=rf"{nulls} cannot replace a null of 'token': layer"):
            _run(_embedding(9), tmp_path, _table(), {"name": "token", "nulls": nulls})


@pytest.mark.parametrize("kind", ["int64", "string"])
def test_ids_and_text_may_be_missing_from_a_whole_batch(kind: str, tmp_path: Path) -> None:
    """Then Arrow has a column without a type: its nulls are those of a column with one."""
    ids = Input((None,), dtype=kind, name="ids")
    number = ids if kind == "int64" else layers.StringLookup(vocabulary=["p", "q"])(ids)
    x = Input((None, 1), name="x")
    both = layers.Concatenate()([layers.Embedding(4, 3)(number), x])
    model = _drawn(Model([ids, x], layers.GRU(2, return_sequences=True)(both)))
    some: list[Any] = [1, None, 2] if kind == "int64" else ["p", None, "q"]
    arrow = pa.int64() if kind == "int64" else pa.string()
    found = []
    for nothing in (pa.nulls(3), pa.nulls(3, arrow)):
        model.save(tmp_path / "m.safetensors")
        pipeline = Pipeline.from_dict(
            {
                "source": {"key": "k", "features": ["i", "x"], "nulls": "previous"},
                "model": {
                    "path": str(tmp_path / "m.safetensors"),
                    "inputs": {"ids": "i", "x": ["x"]},
                },
            }
        )
        columns = {"k": ["a", "b", "a"], "x": [0.5, 1.0, 2.0]}
        rows = [
            pipeline.process(pa.table({**columns, "i": values})).to_pylist()
            for values in (nothing, pa.array(some, arrow), nothing)
        ]
        found.append((rows, pa.table(pipeline.state)))
    assert found[0] == found[1]
