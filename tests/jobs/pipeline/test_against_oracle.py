"""Whole pipelines against the row-by-row oracle: rows, nulls, values, steps."""

from collections.abc import Callable
from pathlib import Path

import logs
import naive
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rowwise

from streamrnn import Pipeline
from streamrnn.outputs import read_states

SETTINGS = {
    "plain": (
        {"nulls": 0.0},
        rowwise.Settings([rowwise.Column("a", 0.0), rowwise.Column("b", 0.0)]),
        {},
    ),
    "previous": (
        {"nulls": "previous"},
        rowwise.Settings([rowwise.Column("a", "previous"), rowwise.Column("b", "previous")]),
        {},
    ),
    "idle": (
        {"nulls": "previous", "reset": "new", "max_gap": "2h"},
        rowwise.Settings(
            [rowwise.Column("a", "previous"), rowwise.Column("b", "previous")],
            max_gap=7200e6,
            idle=1800e6,
            warmup=1,
        ),
        {"output": {"warmup": 1}, "state": {"idle": "30m"}, "checkpoint": {"every": 1}},
    ),
    "repeated": (
        {"nulls": "previous", "reset": "new", "late": "drop", "repeated": "skip"},
        rowwise.Settings(
            [rowwise.Column("a", "previous"), rowwise.Column("b", "previous")],
            late="drop",
            repeated="skip",
        ),
        {},
    ),
    "mixed": (
        {
            "features": [
                {"name": "a", "nulls": "skip", "valid": [-1.5, 1.5], "clip": [-1, 1]},
                {"name": "b", "nulls": "previous", "valid": [-2, 2]},
            ],
            "reset": "new",
            "max_gap": "1h",
            "late": "drop",
        },
        rowwise.Settings(
            [
                rowwise.Column("a", "skip", (-1.5, 1.5), (-1, 1)),
                rowwise.Column("b", "previous", (-2, 2)),
            ],
            late="drop",
            max_gap=3600e6,
            warmup=2,
        ),
        {"output": {"warmup": 2}},
    ),
}


def _rows(table: pa.Table) -> list[rowwise.Row]:
    rows = table.to_pylist()
    for row, tick in zip(rows, table.column("t").cast(pa.int64()).to_pylist(), strict=True):
        row["t"] = tick
    return rows


def _oracle(model: object) -> rowwise.Model:
    kernel, recurrent, bias, dense, offset = model.get_weights()  # type: ignore[attr-defined]
    return rowwise.Model(naive.gru(kernel, recurrent, bias), dense, offset)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    "window",
    [
        {"kind": "carry"},
        {"kind": "independent", "steps": 4},
        {"kind": "independent", "steps": 5, "stride": 2},
        {"kind": "independent", "steps": 2, "stride": 5},
    ],
    ids=str,
)
def test_every_row_is_as_the_oracle_says(
    tmp_path: Path, name: str, window: dict[str, object]
) -> None:
    """Two files, one after the other, small record batches; state goes on between them."""
    source, settings, tables = SETTINGS[name]
    jitter = 4 if settings.late == "drop" else 0
    resets = 0.03 if "reset" in source else 0.0
    table = logs.random_log(400, nulls=0.1, resets=resets, jitter=jitter)
    model = logs.small_model()
    model.save(tmp_path / "m.safetensors")
    if window["kind"] == "independent":
        steps = int(str(window["steps"]))
        settings.window = (steps, int(str(window.get("stride", steps))))
    else:
        settings.window = None
    streams: dict[object, rowwise.Stream] = {}
    expected = rowwise.score(_rows(table), _oracle(model), settings, streams)
    for cut in (table.slice(0, 150), table.slice(150)):
        number = len(list((tmp_path / "in").glob("*"))) if (tmp_path / "in").exists() else 0
        logs.write(cut, tmp_path / "in" / f"{number}.parquet", row_group=37)
        config = logs.config(
            str(tmp_path / "in"),
            str(tmp_path / "m.safetensors"),
            str(tmp_path / "out"),
            **{**tables, "window": window, "source": {**source, "batch_rows": 23}},
        )
        summary = Pipeline.from_dict(config).run()
        assert summary.rows == cut.num_rows
    got = pq.read_table(tmp_path / "out").to_pylist()
    assert len(got) == len(expected)
    kept = table.take([i for i, _, _ in expected])
    assert [r["id"] for r in got] == kept.column("id").to_pylist()
    assert [r["t"] for r in got] == kept.column("t").to_pylist()
    assert [r["score"] is None for r in got] == [y is None for _, y, _ in expected]
    values = [(r["score"], y[0]) for r, (_, y, _) in zip(got, expected, strict=True) if y]
    assert len(values) > 20
    np.testing.assert_allclose(*np.transpose(values), rtol=0, atol=1e-5)
    state = [(r["id"], r["steps"]) for r in read_states(str(tmp_path / "out")).to_pylist()]
    remembered = [(name, stream.steps) for name, stream in streams.items()]
    if settings.idle is None:
        assert state == remembered
    else:
        assert set(state) < set(remembered)  # some were dropped


def test_emit_last_and_final_count_across_two_runs(tmp_path: Path) -> None:
    """Every third step of a stream comes out, wherever a run ended; final is each run's own."""
    table = logs.random_log(300, nulls=0.05)
    model = logs.small_model()
    model.save(tmp_path / "m.safetensors")
    settings = rowwise.Settings([rowwise.Column("a", "skip"), rowwise.Column("b", "skip")])
    streams: dict[object, rowwise.Stream] = {}
    expected = rowwise.score(_rows(table), _oracle(model), settings, streams)
    last = [(i, y) for i, y, step in expected if step and step % 3 == 0]
    cuts = (table.slice(0, 110), table.slice(110))
    run = _runner(tmp_path, cuts)
    got = run("last", {"emit": "last", "last_of": 3})
    assert [r["t"] for r in got] == table.take([i for i, _ in last]).column("t").to_pylist()
    np.testing.assert_allclose([r["score"] for r in got], [y[0] for _, y in last if y], atol=1e-5)
    final = []
    for first, stop in ((0, 110), (110, 300)):
        ends: dict[str, tuple[int, list[float] | None]] = {}
        for i, y, step in expected:
            if first <= i < stop and (step or table.column("id")[i].as_py() not in ends):
                ends[table.column("id")[i].as_py()] = (i, y)
        final += sorted(ends.values())
    got = run("final", {"emit": "final"})
    assert [r["t"] for r in got] == table.take([i for i, _ in final]).column("t").to_pylist()
    for row, (_, y) in zip(got, final, strict=True):
        assert row["score"] == pytest.approx(None if y is None else y[0], abs=1e-5)


def _runner(
    tmp_path: Path, cuts: tuple[pa.Table, ...]
) -> Callable[[str, dict[str, object]], list[dict[str, object]]]:
    def run(name: str, output: dict[str, object]) -> list[dict[str, object]]:
        for number, cut in enumerate(cuts):
            logs.write(cut, tmp_path / name / f"{number}.parquet", row_group=20)
            config = logs.config(
                str(tmp_path / name),
                str(tmp_path / "m.safetensors"),
                str(tmp_path / f"{name}-out"),
                output=output,
                source={"nulls": "skip", "batch_rows": 17},
                checkpoint={"every": 2},
            )
            Pipeline.from_dict(config).run()
        rows: list[dict[str, object]] = pq.read_table(tmp_path / f"{name}-out").to_pylist()
        return rows

    return run
