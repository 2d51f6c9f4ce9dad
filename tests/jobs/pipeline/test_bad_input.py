"""Each kind of bad input gets one message that says what and where, and leaves no output."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fresh import python
from selection import slow

from streamrnn import Pipeline, Sequential, layers
from streamrnn.errors import StreamRNNError

Spoil = Callable[[Path, pa.Table], dict[str, Any] | None]
CASES: dict[str, tuple[Spoil, int, list[str]]] = {}


def case(exit_code: int, *words: str) -> Callable[[Spoil], Spoil]:
    """Register a way to spoil the folder `in`, or config keys to change."""

    def register(spoil: Spoil) -> Spoil:
        CASES[spoil.__name__] = (spoil, exit_code, list(words))
        return spoil

    return register


def _set(
    table: pa.Table, name: str, row: int, value: Any, kind: pa.DataType | None = None
) -> pa.Table:
    values = table.column(name).to_pylist()
    values[row] = value
    index = table.column_names.index(name)
    field = pa.field(name, kind or table.schema.field(name).type)
    return table.set_column(index, field, pa.array(values, field.type))


@case(66, "in/two.parquet", "no such file or directory")
def missing_file(base: Path, table: pa.Table) -> dict[str, Any]:
    return {"source": {"path": str(base / "in" / "two.parquet")}}


@case(65, "zero.parquet", "0 bytes")
def empty_file(base: Path, table: pa.Table) -> None:
    (base / "in" / "zero.parquet").write_bytes(b"")


@case(65, "zz.parquet", "not a readable Parquet file")
def torn_file(base: Path, table: pa.Table) -> None:
    whole = Path(logs.write(table, base / "t" / "whole.parquet")).read_bytes()
    (base / "in" / "zz.parquet").write_bytes(whole[: len(whole) // 2])


@case(65, "bad.parquet", "cannot be read", "damaged")
def flipped_pages(base: Path, table: pa.Table) -> None:
    path = Path(logs.write(table, base / "in" / "bad.parquet"))
    data = bytearray(path.read_bytes())
    data[200:1200] = os.urandom(1000)
    path.write_bytes(data)


@case(66, "empty", "no file to read", ".parquet or .pq", "[source] format")
def empty_directory(base: Path, table: pa.Table) -> dict[str, Any]:
    (base / "empty").mkdir()
    return {"source": {"path": str(base / "empty")}}


@case(65, "other.parquet", "'t'", "expected timestamp[us, tz=UTC]", "received int64", "one.parquet")
def schema_differs_from_the_first(base: Path, table: pa.Table) -> None:
    other = table.set_column(1, "t", table.column("t").cast(pa.int64()))
    logs.write(other, base / "in" / "other.parquet")


@case(65, "column 'aa' not found", "Did you mean 'a'?", "id, t, a, b, new")
def missing_column(base: Path, table: pa.Table) -> dict[str, Any]:
    return {"source": {"features": ["aa", "b"]}}


@case(65, "column 'id'", "expected number or boolean", "received string")
def text_as_feature(base: Path, table: pa.Table) -> dict[str, Any]:
    return {"source": {"features": ["id", "b"]}}


@case(65, "key", "'a'", "received double")
def float_key(base: Path, table: pa.Table) -> dict[str, Any]:
    return {"source": {"key": "a", "features": ["b", "new"]}}


@case(65, "row 30 (from 0)", "column 'id'", "key is null")
def null_key(base: Path, table: pa.Table) -> None:
    logs.write(_set(table, "id", 30, None), base / "in" / "one.parquet")


@case(65, "one.parquet: row 30 (from 0)", "'a'", "received NaN", "stream id=", 'nan = "null"')
def nan_feature(base: Path, table: pa.Table) -> None:
    logs.write(_set(table, "a", 30, float("nan")), base / "in" / "one.parquet")


@case(65, "row 31 (from 0)", "received infinity")
def infinite_feature(base: Path, table: pa.Table) -> None:
    logs.write(_set(table, "a", 31, float("inf")), base / "in" / "one.parquet")


@case(65, "row 32 (from 0)", "overflows float32")
def feature_overflows(base: Path, table: pa.Table) -> None:
    logs.write(_set(table, "a", 32, 1e39), base / "in" / "one.parquet")


@case(65, "row 33 (from 0)", "integer", "not exactly representable as float32")
def integer_too_fine(base: Path, table: pa.Table) -> None:
    logs.write(_set(table, "b", 33, 2**24 + 1), base / "in" / "one.parquet")


@case(65, "row 34 (from 0)", "column 'a'", 'nulls = "error"')
def null_feature(base: Path, table: pa.Table) -> None:
    logs.write(_set(table, "a", 34, None), base / "in" / "one.parquet")


@case(65, "one.parquet: row", "time goes backwards", "ORDER BY t, id", "stream id=")
def time_goes_backwards(base: Path, table: pa.Table) -> None:
    logs.write(table.take(list(range(59, -1, -1))), base / "in" / "one.parquet")


@case(65, "column 'id': expected once, found 2 times")
def duplicate_key_columns(base: Path, table: pa.Table) -> None:
    logs.write(table.append_column("id", table.column("id")), base / "in" / "one.parquet")


@case(78, "takes 2 features", "gives 1", "pipeline: a")
def width_is_not_the_models(base: Path, table: pa.Table) -> dict[str, Any]:
    return {"source": {"features": ["a"]}}


@case(78, "state of another model", "received:", "expected:", "[state] map")
def state_of_another_model(base: Path, table: pa.Table) -> dict[str, Any]:
    other = Sequential([layers.Input((None, 2)), layers.GRU(3, name="rnn"), layers.Dense(1)])
    other.save(base / "other.safetensors")
    config = logs.config(str(base / "in"), str(base / "other.safetensors"), str(base / "other"))
    config["state"] = {"save": str(base / "other.parquet")}
    Pipeline.from_dict(config).run()
    return {"state": {"init": str(base / "other.parquet")}}


@case(78, "bidirectional", "carry", "independent", "whole")
def bidirectional_in_carry(base: Path, table: pa.Table) -> dict[str, Any]:
    model = Sequential(
        [layers.Input((None, 2)), layers.Bidirectional(layers.LSTM(2)), layers.Dense(1)]
    )
    model.save(base / "both.safetensors")
    return {"model": {"path": str(base / "both.safetensors")}}


@case(78, "overlap")
def source_holds_the_sink(base: Path, table: pa.Table) -> dict[str, Any]:
    return {"sink": {"path": str(base / "in" / "out")}}


@case(1, "is not empty")
def output_folder_of_somebody_else(base: Path, table: pa.Table) -> dict[str, Any]:
    (base / "mine").mkdir()
    (base / "mine" / "thesis.txt").write_text("months of work")
    return {"sink": {"path": str(base / "mine")}}


@case(65, "max_rejects = 2", "3 rejected rows", "set a larger max_rejects")
def too_many_rejects(base: Path, table: pa.Table) -> dict[str, Any]:
    for row in (5, 6, 7):
        table = _set(table, "a", row, float("nan"))
    logs.write(table, base / "in" / "one.parquet")
    return {"source": {"bad": "reject", "max_rejects": 2}}


@case(78, "names", "1 value", "2 name")
def wrong_number_of_names(base: Path, table: pa.Table) -> dict[str, Any]:
    return {"output": {"names": ["x", "y"]}}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, exit_code, words = CASES[name]
    table = logs.random_log(60, streams=4)
    logs.write(table, tmp_path / "in" / "one.parquet")
    logs.small_model().save(tmp_path / "m.safetensors")
    config = logs.config(
        str(tmp_path / "in"), str(tmp_path / "m.safetensors"), str(tmp_path / "out")
    )
    for key, values in (spoil(tmp_path, table) or {}).items():
        config[key] = {**config.get(key, {}), **values}
    with pytest.raises(StreamRNNError) as caught:
        Pipeline.from_dict(config).run()
    message = str(caught.value)
    assert caught.value.exit_code == exit_code, message
    for word in words:
        assert word in message, message
    assert not list((tmp_path / "out").rglob("*.parquet"))
    assert not (tmp_path / "out" / "_streamrnn" / "_manifest.json").exists()


def test_a_file_of_no_rows_writes_an_empty_output_with_the_schema(tmp_path: Path) -> None:
    logs.write(logs.random_log(5).slice(0, 0), tmp_path / "in" / "none.parquet")
    logs.small_model().save(tmp_path / "m.safetensors")
    config = logs.config(
        str(tmp_path / "in"), str(tmp_path / "m.safetensors"), str(tmp_path / "out")
    )
    summary = Pipeline.from_dict(config).run()
    assert summary.rows == 0
    out = pq.read_table(tmp_path / "out")
    assert out.num_rows == 0
    assert out.schema.names == ["id", "t", "score"]
    assert out.schema.field("score").type == pa.float32()


def test_rejected_rows_are_kept_beside_and_the_rest_is_as_without_them(tmp_path: Path) -> None:
    table = logs.random_log(80, streams=5)
    spoilt = _set(_set(table, "a", 20, float("nan")), "id", 41, None)
    logs.write(spoilt, tmp_path / "in" / "one.parquet")
    keep = np.setdiff1d(np.arange(80), [20, 41])
    logs.write(table.take(keep), tmp_path / "clean" / "one.parquet")
    logs.small_model().save(tmp_path / "m.safetensors")
    model = str(tmp_path / "m.safetensors")
    config = logs.config(
        str(tmp_path / "in"), model, str(tmp_path / "out"), source={"bad": "reject"}
    )
    summary = Pipeline.from_dict(config).run()
    assert (summary.rows, summary.rows_out, summary.rejected) == (80, 78, 2)
    Pipeline.from_dict(logs.config(str(tmp_path / "clean"), model, str(tmp_path / "two"))).run()
    assert pq.read_table(tmp_path / "out") == pq.read_table(tmp_path / "two")
    rejects = pq.read_table(tmp_path / "out.rejects").to_pylist()
    assert [r["row"] for r in rejects] == [20, 41]
    assert "NaN" in rejects[0]["reason"]
    assert rejects[1]["id"] is None
    assert rejects[0]["file"].endswith("one.parquet")


def test_a_failing_batch_of_process_counts_for_nothing(tmp_path: Path) -> None:
    table = logs.random_log(60, streams=6).combine_chunks()
    logs.small_model().save(tmp_path / "m.safetensors")
    config = logs.config("unused", str(tmp_path / "m.safetensors"), None)
    config["source"].pop("path")
    one, two = Pipeline.from_dict(config), Pipeline.from_dict(config)
    one.process(table.slice(0, 20))
    two.process(table.slice(0, 20))
    with pytest.raises(StreamRNNError, match="NaN"):
        two.process(_set(table, "a", 50, float("nan")).slice(20))
    assert two.process(table.slice(20)) == one.process(table.slice(20))
    assert pa.table(one.state) == pa.table(two.state)


def test_nan_from_a_model_is_refused_before_it_is_carried(tmp_path: Path) -> None:
    """A relu RNN that explodes."""
    model = logs.small_model("SimpleRNN", activation="relu")
    model.set_weights([np.full(w.shape, 9e9, np.float32) for w in model.get_weights()])
    model.save(tmp_path / "m.safetensors")
    logs.write(logs.random_log(60, streams=2), tmp_path / "in" / "one.parquet")
    config = logs.config(
        str(tmp_path / "in"), str(tmp_path / "m.safetensors"), str(tmp_path / "out")
    )
    with pytest.raises(StreamRNNError, match=re.compile("row .*the model returned (inf|nan) for")):
        Pipeline.from_dict(config).run()


@slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Resident size of a child process, on a file and on one ten times as long. Slow: a file of 1.6
    million rows."""
    logs.small_model(units=16).save(tmp_path / "m.safetensors")
    table = logs.random_log(40_000, streams=50)
    peaks = []
    for times in (4, 40):
        long = pa.concat_tables([table] * times)
        shift = pc.multiply(pa.array(np.repeat(np.arange(times), table.num_rows)), 10**13)
        ticks = pc.add(long.column("t").cast(pa.int64()), shift)
        long = long.set_column(1, "t", ticks.cast(table.schema.field("t").type))
        source = logs.write(long, tmp_path / f"{times}.parquet", row_group=20_000)
        config = logs.config(source, str(tmp_path / "m.safetensors"), str(tmp_path / str(times)))
        code = (
            f"import resource; from streamrnn import Pipeline\nc = {config}\n"
            "c['source']['batch_rows'] = 4096; c['checkpoint'] = {'every': 4}\n"
            "Pipeline.from_dict(c).run()\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        peaks.append(int(python("-c", code).stdout))
    assert pq.ParquetFile(tmp_path / "40.parquet").metadata.num_rows == 1_600_000
    assert peaks[1] < 1.1 * peaks[0], peaks
