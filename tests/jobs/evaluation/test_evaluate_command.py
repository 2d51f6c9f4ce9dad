"""`streamrnn evaluate`: tables, JSON, files, errors and exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_command
from jobs.evaluation.evaluated import PIPELINE, log, model, write
from selection import slow

from streamrnn import Pipeline
from streamrnn.jobs.evaluation.measures import Ranks


@pytest.fixture(autouse=True)
def base(workdir: Path) -> Path:
    model("linear", 1)
    return workdir


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    return run_command(capsys, "evaluate", "p.toml", *arguments)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A table, JSON, a Parquet file; --quiet prints nothing."""
    write(log())
    Path("p.toml").write_text(PIPELINE)
    code, _, err = command(capsys)
    assert (code, "no such output folder" in err) == (66, True)
    pipeline = Pipeline.from_toml("p.toml")
    pipeline.run()
    found = pipeline.evaluate("stream")
    code, out, _ = command(capsys, "--by", "stream")
    assert code == 0
    lines = out.splitlines()
    columns = "id output target rows mae rmse rmse persistence rmse mean better"
    assert lines[0].split() == columns.split()
    assert lines[1].split()[:4] == ["all", "score", "x", str(found.rows)]
    assert lines[1].split()[5] == f"{found.table['rmse'][0].as_py():.4g}"
    end = len(found.table) + 1
    whole = found.table.to_pylist()[0]
    model, still = whole["rmse_where_persistence"], whole["rmse_persistence"]
    share = round(100 * whole["better"])
    assert (share < 0, whole["best_baseline"]) == (False, "persistence")
    assert lines[1].split()[-1] == f"{share}%"
    assert lines[end:] == [
        "",
        f"score: {share}% better than the best baseline, persistence (rmse {model:.4g} against "
        f"{still:.4g}, {whole['rows_persistence']} rows)",
        "persistence: the value at the row itself",
        "mean: the mean of the labels compared, known only afterwards",
        f"{found.rows} rows of out compared; not compared: {found.no_label} without a label",
    ]
    code, out, _ = command(capsys, "--by", "stream", "--json")
    assert (out.count("\n"), out[-1]) == (1, "\n")
    printed = json.loads(out)
    assert printed["figures"] == found.table.to_pylist()
    assert {name: printed[name] for name in found.counts()} == found.counts()
    assert printed["baselines"] == found.baselines
    code, out, _ = command(capsys, "--by", "stream", "-o", "figures.parquet", "--quiet")
    assert (code, out) == (0, "")
    assert pq.read_table("figures.parquet") == found.table
    Pipeline.from_toml("p.toml").evaluate("stream", file=Path("again.parquet"))
    assert pq.read_table("again.parquet") == found.table
    code, out, _ = command(capsys, "--since", "2024-01-01T02:00", "-o", "f.parquet")
    assert out.endswith("\nwrote f.parquet\n")
    assert out.splitlines()[1].split()[2] == str(pq.read_table("f.parquet")["rows"][0])


def test_what_is_not_in_the_table_is_not_explained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of quantiles, the error of an exact area; an error above 0 is a note."""
    write(log())
    Path("p.toml").write_text(PIPELINE)
    assert command(capsys)[0] == 66
    Pipeline.from_toml("p.toml").run()
    _, out, _ = command(capsys, "--quantiles", "0.5")
    assert "\npersistence: " in out
    assert "mean: " not in out
    model("sigmoid", 1)
    columns = ["--set", "target.column=flag", "--set", "sink.path=other"]
    assert run_command(capsys, "run", "p.toml", *columns[2:])[0] == 0
    for limit, noted in ((1 << 20, False), (20, True)):
        monkeypatch.setattr(Ranks.__init__, "__defaults__", (limit,))
        _, out, _ = command(capsys, *columns)
        assert "average precision" in out
        assert "auc error" not in out
        assert ("auc is exact to 0.0" in out) == noted
    assert "base rate: the share of each class" in out


def test_only_an_earlier_evaluation_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    """No row of the source or of the output, no other file; and no file is added to them."""
    write(log())
    Path("p.toml").write_text(PIPELINE.replace('"in"', '"in/*.parquet"'))
    Pipeline.from_toml("p.toml").run()
    Path("link.parquet").symlink_to("in/0.parquet")
    pq.write_table(log(), "other.parquet")
    Path("text.parquet").write_text("mine")
    part = next(Path("out").glob("*.parquet"))
    files = ["in/0.parquet", str(part), "link.parquet", "other.parquet", "text.parquet"]
    before = {name: Path(name).read_bytes() for name in files}
    for name in [*files, "in/new.parquet", "out/new.parquet"]:
        code, _, err = command(capsys, "-o", name)
        assert (code, "evaluate:" in err, "Choose" in err) == (78, True, True), name
    assert {name: Path(name).read_bytes() for name in files} == before
    assert not list(Path().glob("*/new.parquet"))
    for _ in range(2):
        assert command(capsys, "-o", "figures.parquet")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "target.column=y"], 65, "column 'y' not found"),
        (["--set", "target.column=id"], 65, "expected number or boolean, received string"),
        (["--set", "target.rows=2"], 78, "horizon is set too"),
        (["--by", "year"], 2, "'stream', 'month'"),
        (["--since", "soon"], 78, "since: expected a value of type timestamp[us, tz=UTC]"),
        (["--quantiles", "0.1,a"], 78, "quantiles: expected numbers above 0 and below 1"),
        (["--quantiles", "0.5,1.5"], 78, "quantiles: expected numbers between 0 and 1"),
        (["-o", "figures.csv"], 78, "figures.csv: expected a file name ending in .parquet"),
        (["-o", "p.toml/x.parquet"], 1, "p.toml/x.parquet: cannot write the evaluation"),
    ],
)
def test_errors_of_the_command(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(log())
    Path("p.toml").write_text(PIPELINE)
    Pipeline.from_toml("p.toml").run()
    found, _, err = command(capsys, *arguments)
    assert found == code
    assert message in err.replace("\n", " ").replace("│", "")
    assert "Traceback" not in err


@slow
def test_a_closed_pipe_ends_quietly() -> None:
    """Slow: three processes; `test_cli_real.py` closes the pipe of a run."""
    write(log())
    Path("p.toml").write_text(PIPELINE)
    Pipeline.from_toml("p.toml").run()
    call = f"{sys.executable} -c 'from streamrnn.cli import main; main()' evaluate p.toml"
    for options in ("--by stream", "--json"):
        line = f"{call} {options} | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert done.stderr == ""


def test_a_season_is_a_baseline_and_worse_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """The weather a day before; what is too wide for a terminal is in --json."""
    hours = 24 * 30
    times = pa.array(np.arange(hours) * 3_600_000_000, pa.timestamp("us"))
    x = np.sin(2 * np.pi * np.arange(hours) / 24) + np.random.default_rng(2).normal(0, 0.01, hours)
    logs.write(
        pa.table({"id": ["s"] * hours, "t": times, "a": x, "b": x, "x": x}), Path("in/a.parquet")
    )
    Path("p.toml").write_text(PIPELINE.replace('"3m"', '"3h"'))
    Pipeline.from_toml("p.toml").run()
    code, out, _ = command(capsys, "--set", "target.season=24h", "--since", "1970-01-10")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    (verdict,) = [line for line in out.splitlines() if line.startswith("score: ")]
    assert "worse, with " in verdict
    assert "times the error of the best baseline, seasonal" in verdict
    assert "\nseasonal: the value 1d, or a multiple of it, before the label\n" in out
    _, out, _ = command(capsys, "--set", "target.season=24h", "--json")
    (line,) = json.loads(out)["figures"]
    assert line["rows_persistence"] == line["rows"] == hours - 3
    assert line["rows_seasonal"] == hours - 24
    assert line["best_baseline"] == "seasonal"
    assert line["better"] == line["better_seasonal"] < 0


def test_a_season_is_a_duration(capsys: pytest.CaptureFixture[str]) -> None:
    write(log())
    Path("p.toml").write_text(PIPELINE)
    Pipeline.from_toml("p.toml").run()
    code, _, err = command(capsys, "--set", "target.season=day")
    assert (code, 'expected a duration such as "6h"' in err) == (78, True)


def test_months_say_that_they_are_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    """As --since and --until are, without an offset."""
    write(log())
    Path("p.toml").write_text(PIPELINE)
    Pipeline.from_toml("p.toml").run()
    _, out, _ = command(capsys, "--by", "month")
    assert out.startswith("month (UTC)  output")
    _, out, _ = command(capsys, "--help")
    assert out.count("UTC") == 3
