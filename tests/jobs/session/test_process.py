"""Pipeline.process: Arrow in, the like out; its state checkpointed, resumed and pickled."""

import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numba import cloudpickle

from streamrnn import Pipeline
from streamrnn.errors import ConfigError, DataError, DTypeError, StateError
from streamrnn.stream.scoring import Scorer
from streamrnn.stream.sources import Origin
from streamrnn.stream.states import StateTable


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    logs.small_model().save(tmp_path / "m.safetensors")
    data = logs.config("unused", str(tmp_path / "m.safetensors"), None)
    data["source"].pop("path")
    data["source"] |= {"max_gap": "2h", "nulls": "previous"}
    return data


class Capsule:
    """An object that only speaks the PyCapsule interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def test_the_like_comes_out(config: dict[str, Any]) -> None:
    table = logs.random_log(50).combine_chunks()
    whole = Pipeline.from_dict(config).process(table)
    assert isinstance(whole, pa.Table)
    batch = Pipeline.from_dict(config).process(table.to_batches()[0])
    assert isinstance(batch, pa.RecordBatch)
    assert pa.Table.from_batches([batch]) == whole
    assert Pipeline.from_dict(config).process(Capsule(table)) == whole
    with pytest.raises(DTypeError, match="PyCapsule"):
        Pipeline.from_dict(config).process([1, 2])


def test_data_that_arrow_cannot_hold_as_a_table_are_refused(config: dict[str, Any]) -> None:
    class Mixed:
        """As a DataFrame of pandas with numbers and text in one column."""

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pa.array([1, "a"]).__arrow_c_stream__()

    pipeline = Pipeline.from_dict(config)
    with pytest.raises(DTypeError, match=r"received Mixed: .*'a'.* Pass only the columns"):
        pipeline.process(Mixed())
    with pytest.raises(DTypeError, match=r"received DoubleArray: .*non-struct type"):
        pipeline.process(pa.array([1.0]))
    assert pipeline.process(logs.random_log(5)).num_rows == 5


def test_a_batch_without_rows_gives_none(config: dict[str, Any]) -> None:
    table = logs.random_log(50)
    pipeline = Pipeline.from_dict(config)
    assert pipeline.process(table.slice(0, 0)).num_rows == 0
    assert len(pipeline.state) == 0


def test_checkpoint_and_resume_go_on_bit_for_bit(config: dict[str, Any], tmp_path: Path) -> None:
    table = logs.random_log(200, nulls=0.1)
    one = Pipeline.from_dict(config)
    one.process(table.slice(0, 80))
    one.checkpoint(tmp_path / "c.arrow")
    expected = one.process(table.slice(80))
    two = Pipeline.resume(tmp_path / "c.arrow")
    assert two.process(table.slice(80)) == expected
    assert pa.table(two.state) == pa.table(one.state)


def test_resume_refuses_what_is_no_checkpoint_or_another_model(
    config: dict[str, Any], tmp_path: Path
) -> None:
    pipeline = Pipeline.from_dict(config)
    with pytest.raises(ConfigError, match="before the first call"):
        pipeline.checkpoint(tmp_path / "c.arrow")
    pipeline.process(logs.random_log(30))
    pipeline.checkpoint(tmp_path / "c.arrow")
    logs.small_model(units=6).save(tmp_path / "m.safetensors")
    with pytest.raises(StateError, match="another model"):
        Pipeline.resume(tmp_path / "c.arrow")
    (tmp_path / "torn.arrow").write_bytes((tmp_path / "c.arrow").read_bytes()[:200])
    with pytest.raises(DataError, match="not a readable state table"):
        Pipeline.resume(tmp_path / "torn.arrow")


def _work(pipeline: Pipeline, table: pa.Table) -> pa.Table:
    return pipeline.process(table)


def test_it_survives_pickling_to_a_worker(config: dict[str, Any]) -> None:
    table = logs.random_log(120)
    pipeline = Pipeline.from_dict(config)
    fresh = pickle.loads(pickle.dumps(pipeline))
    assert fresh.process(table.slice(0, 60)) == pipeline.process(table.slice(0, 60))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = pool.submit(_work, pipeline, table.slice(60)).result()
    assert there == pipeline.process(table.slice(60))


def test_a_pickle_for_another_machine_has_no_code(config: dict[str, Any]) -> None:
    """cloudpickle, which Spark and Ray use, copies what it cannot import by name."""
    pipeline = Pipeline.from_dict(config)
    pipeline.process(logs.random_log(20))
    assert b".py" not in cloudpickle.dumps(pipeline)


def test_a_thread_each_on_its_own_pipeline(config: dict[str, Any]) -> None:
    table = logs.random_log(400)
    expected = Pipeline.from_dict(config).process(table)
    found: list[pa.Table] = []

    def work() -> None:
        pipeline = Pipeline.from_dict(config)
        pieces = [pipeline.process(table.slice(i, 7)) for i in range(0, 400, 7)]
        found.append(pa.concat_tables(pieces).combine_chunks())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected.combine_chunks()] * 4


def test_final_rows_come_with_finish(config: dict[str, Any]) -> None:
    table = logs.random_log(100)
    every = Pipeline.from_dict(config).process(table)
    config["output"] = {"emit": "final"}
    pipeline = Pipeline.from_dict(config)
    assert pipeline.finish() is None
    assert pipeline.process(table.slice(0, 50)).num_rows == 0
    pipeline.process(table.slice(50))
    final = pipeline.finish()
    assert final is not None
    last = {row["id"]: row for row in every.to_pylist()}
    assert {row["id"]: row for row in final.to_pylist()} == last


def test_a_type_that_cannot_be_read_is_named(config: dict[str, Any]) -> None:
    table = logs.random_log(20)
    pipeline = Pipeline.from_dict(config)
    pipeline.process(table)
    other = table.set_column(2, "a", table.column("a").cast(pa.string()))
    with pytest.raises(
        DTypeError, match=r"the batch: .* 'a': expected number or boolean, received"
    ):
        pipeline.process(other)


def test_rejected_rows_are_counted_on_after_a_checkpoint(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["source"] |= {"bad": "reject", "nulls": "error", "max_rejects": 4}
    table = logs.random_log(100)
    a = table.column("a").to_pylist()
    a[3] = a[40] = a[60] = a[80] = a[90] = float("nan")
    table = table.set_column(2, "a", pa.array(a, from_pandas=False))
    pipeline = Pipeline.from_dict(config)
    pipeline.process(table.slice(0, 50))
    pipeline.checkpoint(tmp_path / "c.arrow")
    for again in (pickle.loads(pickle.dumps(pipeline)), Pipeline.resume(tmp_path / "c.arrow")):
        with pytest.raises(DataError, match="5 rejected rows, more than"):
            again.process(table.slice(50))
    pipeline.process(table.slice(50, 35))


def test_a_smaller_limit_of_a_resumed_run_stops_at_its_next_rejected_row(
    config: dict[str, Any],
) -> None:
    config["source"] |= {"bad": "reject", "nulls": "error", "max_rejects": 2}
    batch = logs.random_log(20).combine_chunks().to_batches()[0]
    bound = Pipeline.from_dict(config).loaded.bind(batch.schema, "log")
    scorer = Scorer(bound, StateTable(bound.layout, bound.initial()))
    scorer.resume_counts({"rows_read": 50, "rejected": 3})
    origin = Origin.consecutive("log", 0, 20)
    scorer.score(bound.loaded.contract.read(batch, origin))
    bad = batch.set_column(2, "a", pa.nulls(20, pa.float32()))
    with pytest.raises(DataError, match="23 rejected rows, more than"):
        scorer.score(bound.loaded.contract.read(bad, origin))


def test_names_of_rejected_columns_stay_apart(config: dict[str, Any]) -> None:
    config["source"] |= {"bad": "reject", "nulls": "error"}
    config["output"] = {"columns": "*"}
    table = logs.random_log(5)
    a = [1.0, float("nan"), 1.0, 1.0, 1.0]
    table = table.set_column(2, "a", pa.array(a, from_pandas=False))
    for name in ("reason_", "reason", "row"):
        table = table.append_column(name, pa.array([name] * 5))
    pipeline = Pipeline.from_dict(config)
    pipeline.process(table)
    (row,) = pipeline.rejects.to_pylist()
    assert (row["reason_"], row["reason__"], row["row"], row["row_"]) == (
        "reason_",
        "reason",
        1,
        "row",
    )


@pytest.mark.parametrize("emit", [{"emit": "last", "last_of": 2}, {"emit": "every"}])
def test_runs_views_and_dictionaries_are_carried_as_their_values(
    config: dict[str, Any], emit: dict[str, Any]
) -> None:
    """Of which Arrow cannot select rows; here some are rejected."""
    config["source"] |= {"bad": "reject", "nulls": "error"}
    config["output"] = {"columns": ["id", "note"], **emit}
    table = logs.random_log(30).combine_chunks()
    a = table.column("a").to_pylist()
    a[7] = float("inf")
    table = table.set_column(2, "a", pa.array(a))
    notes = pa.array([f"n{i // 3}" for i in range(30)])
    views = pa.DictionaryArray.from_arrays(
        notes.dictionary_encode().indices, notes.unique().cast(pa.string_view())
    )  # a Categorical of Polars
    runs = pa.RunEndEncodedArray.from_arrays(pa.array(range(1, 31), pa.int32()), views)
    found = []
    for column in (notes, pc.run_end_encode(notes), notes.cast(pa.string_view()), views, runs):
        pipeline = Pipeline.from_dict(config)
        scored = pipeline.process(table.append_column("note", column))
        found.append((scored.to_pylist(), pipeline.rejects.to_pylist()))
    assert found == [found[0]] * 5


def test_a_column_of_which_arrow_cannot_choose_rows_is_refused_by_name(
    config: dict[str, Any],
) -> None:
    config["output"] = {"columns": ["id", "note"], "emit": "last", "last_of": 2}
    table = logs.random_log(30).combine_chunks()
    views = pa.StructArray.from_arrays([pa.array(["x"] * 30).cast(pa.string_view())], ["v"])
    pipeline = Pipeline.from_dict(config)
    with pytest.raises(DTypeError, match=r"column 'note': Arrow cannot select rows of struct"):
        pipeline.process(table.append_column("note", views))
