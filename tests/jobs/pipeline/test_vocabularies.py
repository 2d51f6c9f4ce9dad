"""Features with a vocabulary: rows and states are those of a model that is given the ids."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from jobs.engines.in_process import TasksHere

from streamrnn import Input, Model, Pipeline, Sequential, layers
from streamrnn.cli.fit import in_words as words_of_fit
from streamrnn.cli.run import in_words
from streamrnn.errors import CheckpointError, ConfigError, DataError, DTypeError
from streamrnn.jobs.engines import opening
from streamrnn.jobs.fitting import FitSummary
from streamrnn.outputs import read_states
from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.scoring.summary import Summary
from streamrnn.stream.sources import Faults, load_vocabulary, refuse_all_unknown

CARRIERS = ["AA", "B6", "DL", "UA"]


def _drawn(model: Any) -> Any:
    rng = np.random.default_rng(4)
    arrays = [rng.normal(0, 0.4, w.shape).astype(np.float32) for w in model.get_weights()]
    model.set_weights(arrays)
    return model


def _model() -> Model:
    ids, x = Input((None,), dtype="int64", name="ids"), Input((None, 1), name="x")
    both = layers.Concatenate()([layers.Embedding(6, 3, name="table")(ids), x])
    return _drawn(Model([ids, x], layers.Dense(1, name="score")(layers.GRU(4, name="rnn")(both))))


def _log(values: list[Any], kind: pa.DataType, rows: int = 300) -> pa.Table:
    rng = np.random.default_rng(5)
    chosen = [values[i] for i in rng.integers(0, len(values), rows)]
    return logs.random_log(rows, streams=7).append_column("carrier", pa.array(chosen, kind))


@pytest.fixture(autouse=True)
def base(workdir: Path) -> None:
    _model().save(workdir / "m.safetensors")
    Path("carriers.txt").write_text("\n".join(CARRIERS) + "\n")


def _config(path: str, out: str, carrier: Any, **source: Any) -> dict[str, Any]:
    source = {"features": [carrier, "a"], **source}
    inputs = {"ids": "carrier", "x": "a"}
    return logs.config(path, "m.safetensors", out, source=source, model={"inputs": inputs})


def _run(path: str, out: str, carrier: Any = "carrier", **source: Any) -> Summary:
    return Pipeline.from_dict(_config(path, out, carrier, **source)).run()


def _with(vocabulary: Any = "carriers.txt", oov: int = 1, **keys: Any) -> dict[str, Any]:
    return {"name": "carrier", "vocabulary": vocabulary, "oov": oov, **keys}


def _rows(out: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(part) for part in sorted(Path(out).glob("*.parquet"))])


def _as_ids(table: pa.Table, values: list[Any], oov: int = 1) -> pa.Table:
    """Ids by a plain dict."""
    ids = {value: i + oov for i, value in enumerate(values)}
    found = [None if v is None else ids.get(v, 0) for v in table["carrier"].to_pylist()]
    index = table.schema.names.index("carrier")
    return table.set_column(index, "carrier", pa.array(found, pa.int64()))


@pytest.mark.parametrize("nulls", ["previous", "skip", 3])
@pytest.mark.parametrize("oov", [0, 1])
def test_values_are_ids(nulls: Any, oov: int) -> None:
    """Bit for bit, in two runs; nulls are handled as for ids, unknown values have id 0."""
    log = _log([*CARRIERS, None] + ["XX", ""] * oov, pa.large_string())
    for name, table in (("text", log), ("ids", _as_ids(log, CARRIERS, oov))):
        for day in range(2):
            logs.write(table.slice(150 * day, 150), Path(f"{name}/{day}.parquet"))
    for path in ("text/0.parquet", "text"):
        found = _run(path, "out", _with(oov=oov, nulls=nulls), batch_rows=40)
    right = _run("ids", "right", {"name": "carrier", "nulls": nulls})
    assert (found.filled > 0) == (nulls != "skip")
    assert _rows("out").equals(_rows("right"))
    assert read_states("out").equals(read_states("right"))
    assert right.rows == 300


def test_files_may_have_the_values_in_any_type() -> None:
    """Text of any width, integers for a vocabulary of lines that are integers."""
    Path("numbers.txt").write_text("7\n12\n300\n")
    kinds = (pa.string(), pa.int64(), pa.large_string(), pa.int16())
    log = _log(["7", "12", "300"], pa.string(), 200)
    Path("in").mkdir()
    for day, kind in enumerate(kinds):
        piece = log.slice(50 * day, 50)
        piece = piece.set_column(5, "carrier", piece["carrier"].cast(kind))
        with pa.ipc.new_file(f"in/{day}.arrow", piece.schema) as writer:
            writer.write_table(piece)
    logs.write(_as_ids(log, ["7", "12", "300"], 0), Path("ids/0.parquet"))
    summary = _run("in", "out", _with("numbers.txt", 0), format="arrow")
    assert summary.cast == 150
    _run("ids", "right")
    assert _rows("out").equals(_rows("right"))


def test_an_unknown_value_is_an_error_with_row_and_value() -> None:
    log = _log([*CARRIERS, "ZZ"], pa.string())
    first = pc.index(log["carrier"], "ZZ").as_py()
    logs.write(log, Path("in/0.parquet"))
    with pytest.raises(DataError, match="column 'carrier': value 'ZZ' is not in the voc") as caught:
        _run("in", "out", _with(oov=0))
    message = str(caught.value)
    assert message.startswith(f"in/0.parquet: row {first} (from 0): stream id=")
    assert "([source] features: vocabulary of 'carrier')" in message
    assert "Fix the data, set oov = 1 for the column, or set [source] bad" in message
    summary = _run("in", "out", _with(oov=0), bad="reject")
    assert summary.rejected == pc.sum(pc.equal(log["carrier"], "ZZ")).as_py()
    assert set(_rows("out.rejects")["carrier"].to_pylist()) == {"ZZ"}


def test_unknown_values_are_counted_by_feature() -> None:
    """In the summary, in the texts of the command, and in the metrics, run by run."""
    log = _log([*CARRIERS, "XX"], pa.string())
    unknown = log["carrier"].to_pylist().count("XX")
    logs.write(log, Path("in/0.parquet"))
    job = Pipeline.from_dict(_config("in", "out", _with(), batch_rows=40))
    summary = job.run(metrics="m.prom")
    assert (summary.unknown, summary.unknown_by_feature) == (unknown, {"carrier": unknown})
    assert f"unknown {unknown}" in repr(summary)
    note = f"{unknown} values unknown in carrier: not in its vocabulary, with id 0"
    assert note in in_words(summary)
    fit = FitSummary(counts={"unknown": unknown, "unknown in carrier": unknown})
    assert words_of_fit(fit).endswith(f"\nnote     {note}")
    assert f'values_unknown_total{{pipeline="out"}} {unknown}\n' in Path("m.prom").read_text()
    assert not _run("in", "known", _with([*CARRIERS, "XX"])).unknown_by_feature


def _refused(values: list[Any], carrier: dict[str, Any], **source: Any) -> str:
    """The error of a run over a log of these values; it leaves no output."""
    logs.write(_log(values, pa.string()), Path("in/0.parquet"))
    with pytest.raises(DataError, match=r"feature 'carrier': none of its .* so far") as error:
        _run("in", "out", carrier, **source)
    assert error.value.exit_code == 65
    assert not list(Path("out").glob("*.parquet"))
    return str(error.value)


def test_a_vocabulary_that_has_no_value_of_the_data_is_an_error_unless_forced() -> None:
    text = _refused(["aa", "b6"], _with(), batch_rows=40)
    assert "none of its 300 values so far is in the vocabulary ([source] feat" in text
    assert "vocabulary of 'carrier': carriers.txt), so all have id 0. Received" in text
    assert "'b6'" in text
    assert "; the vocabulary has: 'AA', 'B6', 'DL', 'UA'. Received '" in text
    assert "' only in case. Correct the vocabulary or the column." in text
    assert text.endswith(
        "If these values are meant to be unknown, pass --force to `streamrnn run`; for a fit, "
        "leave the feature out, as nothing can be learned from it."
    )
    job = Pipeline.from_dict(_config("in", "out", _with(), batch_rows=40, late="apply"))
    assert job.run(force=True).unknown == 300
    logs.write(_log(["zz"], pa.string()), Path("in/1.parquet"))
    with pytest.raises(DataError, match="'zz'; the vocabulary has"):  # a later run, too
        job.run()
    logs.write(_log([*["zz"] * 9, "AA"], pa.string()), Path("in/1.parquet"))
    assert 0 < job.run().unknown < 300


def test_shards_are_judged_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that knows no value is no error while another does."""
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(1))
    log = _log(["zz"], pa.string())
    job = Pipeline.from_dict(
        {**_config("in", "out", _with()), "engine": {"type": "ray", "shards": 3, "epoch_rows": 200}}
    )
    logs.write(log, Path("in/0.parquet"))
    with pytest.raises(DataError, match="none of its 300 values so far"):
        job.run()
    one = pc.if_else(pc.equal(log["id"], log["id"][0]), "AA", "zz")
    logs.write(
        log.set_column(log.schema.names.index("carrier"), "carrier", one), Path("in/0.parquet")
    )
    summary = job.run()
    assert summary.unknown_by_feature == {"carrier": one.to_pylist().count("zz")}


def test_a_fit_refuses_a_feature_without_a_value_of_the_vocabulary() -> None:
    """In the words of a run, before it trains; what is within its limit counts."""
    said = _refused(["zz"], _with())
    config = _config("in", "fitted", _with(), reset="new")
    config["model"] = {"path": "n.safetensors", "layers": [{"type": "Dense", "units": 1}]}
    config |= {"target": {"column": "a", "rows": 1}, "train": {"epochs": 1, "optimizer": "adam"}}
    job = Pipeline.from_dict(config)
    with pytest.raises(DataError) as refused:
        job.fit()
    assert str(refused.value) == said
    with pytest.raises(DataError, match="none of its 100 values so far"):
        job.fit(limit=100)
    assert not Path("n.safetensors").exists()
    logs.write(_log([*["zz"] * 9, "AA"], pa.string()), Path("in/0.parquet"))
    assert job.fit().epochs == 1


@pytest.mark.parametrize(
    ("values", "listed", "said"),
    [
        (["AA "], CARRIERS, "'AA ' differs from 'AA' only in blanks at the ends. Correct"),
        (["ua\r"], CARRIERS, r"'ua\r' differs from 'UA' only in case and blanks at the ends. Cor"),
        (
            ["AA"],
            ["AA ", "UA\t", "DL"],
            "differs from 'AA ' only in blanks at the ends. The vocabulary has values with blanks "
            "at the ends: 2, such as 'AA '. Correct",
        ),
        (["1", "2"], CARRIERS, "'DL', 'UA'. Correct the vocabulary"),
    ],
)
def test_the_error_says_how_values_differ(values: Any, listed: Any, said: str) -> None:
    assert said in _refused(values, _with(listed))


def test_few_values_may_all_be_unknown() -> None:
    """And nulls are no values; nor is a text that is not UTF-8 a reason to fail otherwise."""
    log = _log(["zz", None], pa.string(), rows=150)
    log = log.slice(0, 99 + log["carrier"].slice(0, 99).null_count)
    assert len(log) - log["carrier"].null_count < 100
    logs.write(log, Path("in/0.parquet"))
    assert _run("in", "out", _with(nulls="skip")).unknown == len(log) - log["carrier"].null_count
    seen = pa.array([b"\xff\xfe"] * 100, pa.binary()).view(pa.string())
    vocabulary = load_vocabulary(CARRIERS, 1, "x")
    with pytest.raises(DataError, match="Received: '��'"):
        refuse_all_unknown(
            {"c": vocabulary}, {"c": vocabulary.look_up(seen, "c", Faults.of_rows(100))[1]}
        )


def test_process_never_refuses_unknown_values() -> None:
    log = _log(["zz"], pa.string())
    scored = Pipeline.from_dict(_config("in", "out", _with())).process(log)
    assert len(scored) == 300


def test_a_model_that_takes_ids_as_numbers() -> None:
    """One input of float32: ids beside other features."""
    logs.small_model().save("m.safetensors")
    log = _log(CARRIERS, pa.string())
    logs.write(log, Path("text/0.parquet"))
    logs.write(_as_ids(log, CARRIERS), Path("ids/0.parquet"))
    for path, carrier in (("text", _with()), ("ids", "carrier")):
        config = _config(path, f"{path}.out", carrier)
        del config["model"]["inputs"]
        Pipeline.from_dict(config).run()
    assert _rows("text.out").equals(_rows("ids.out"))


def test_it_is_fixed_by_content() -> None:
    """A list, or another file, with the same ids is the same; an edited file is refused."""
    log = _log(CARRIERS, pa.string())
    for day in range(3):
        logs.write(log.slice(100 * day, 100), Path(f"in/{day}.parquet"))
    _run("in/0.parquet", "out", _with())
    assert _run("in/1.parquet", "out", _with(CARRIERS)).rows == 100
    Path("carriers.txt").write_text("\n".join([*CARRIERS, "WN"]))
    message = r'source\.features\.carrier\.vocabulary: was "4 values, .*", is now "5 values, sha'
    with pytest.raises(CheckpointError, match=message):
        _run("in", "out", _with())
    assert "would_refuse" in Pipeline.from_dict(_config("in", "out", _with())).explain()
    with pytest.raises(CheckpointError, match=r"carrier\.oov: was 1, is now 0"):
        _run("in", "out", _with(CARRIERS, oov=0))
    assert read_manifest("out").config["source.features.carrier.oov"] == 1


@pytest.mark.parametrize("form", ["text", "list", "table"])
def test_a_checkpoint_holds_the_content(form: str) -> None:
    """It is resumed where there is no such file, and whatever became of it."""
    log = _log([*CARRIERS, "XX"], pa.string())
    forms = {"text": "carriers.txt", "list": CARRIERS, "table": {"UA": 5, "B6": 2, "AA": 1}}
    pipeline = Pipeline.from_dict(_config("-", "-", _with(forms[form])))
    pipeline.process(log.slice(0, 100))
    pipeline.checkpoint("c.arrow")
    rest = pipeline.process(log.slice(100))
    Path("carriers.txt").write_text("UA\nAA\nB6\nDL\n")
    again = Pipeline.resume("c.arrow")
    assert again.process(log.slice(100)).equals(rest)
    Path("carriers.txt").unlink()
    again.checkpoint("d.arrow")
    other = Pipeline.resume("d.arrow")
    later = log.slice(299)
    assert other.process(later).equals(again.process(later))


def test_text_without_a_vocabulary_is_told_of_it() -> None:
    logs.write(_log(CARRIERS, pa.large_string()), Path("in/0.parquet"))
    with pytest.raises(DTypeError, match=r"expected integer, received large_string\. To") as got:
        _run("in", "out")
    assert 'vocabulary = "values.txt"' in str(got.value)


@pytest.mark.parametrize(
    ("carrier", "message"),
    [
        ({"name": "carrier", "oov": 1}, r"features\[0\]\.oov: needs vocabulary"),
        (
            _with(valid=[0, 1]),
            r"features\[0\]\.valid: applies to features read as float32, not to ids",
        ),
        (_with(nan="null"), r"features\[0\]\.nan: applies to features read as float32"),
        (_with(["a", 1]), r"\.vocabulary: expected a file, a list of strings or of integ"),
        (_with([]), r"\.vocabulary: expected a file, .* received an empty list"),
        (_with([True]), r"\.vocabulary: expected a file"),
        (
            _with({"a": True}),
            r"\.vocabulary: expected .* or a table of value = id, received a table",
        ),
        (_with(oov=2), r"\.oov: expected 0 or 1, received the integer 2"),
        (_with("none.txt"), r"vocabulary of 'carrier': none\.txt: cannot be read: No such file"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused(carrier: dict[str, Any], message: str) -> None:
    logs.write(_log(CARRIERS, pa.string()), Path("in/0.parquet"))
    with pytest.raises(ConfigError, match=message):
        Pipeline.from_dict(_config("in", "out", carrier)).validate()


def test_a_model_that_looks_up_strings_needs_none() -> None:
    model = Sequential(
        [
            layers.Input((None,), dtype="string"),
            layers.StringLookup(vocabulary=CARRIERS),
            layers.Embedding(5, 3),
            layers.GRU(2, name="score"),
        ]
    )
    _drawn(model).save("m.safetensors")
    config = _config("in", "out", _with(), features=[_with()])
    del config["model"]["inputs"]
    with pytest.raises(ConfigError, match="has a vocabulary, but the model looks up strings"):
        Pipeline.from_dict(config).validate()
