"""`streamrnn fit`: progress, summary, JSON, signals, errors and exit codes."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import logs
import pyarrow.parquet as pq
import pytest
from command_line import run_command
from jobs.fitting import fits
from selection import first_quick, slow

PIPELINE = """
[source]
path = "in"
key = "id"
time = "t"
features = ["a", "b"]
reset = "new"
nulls = "previous"
[window]
lanes = 4
steps = 8
[model]
path = "made/model.safetensors"
layers = [{ type = "Normalization" }, { type = "GRU", units = 6 }, { type = "Dense", units = 1 }]
[output]
names = ["y"]
[sink]
path = "out"
[target]
column = "b"
rows = 1
[train]
epochs = 3
optimizer = { name = "adam", learning_rate = 0.02 }
validation = { since = 2024-01-01T20:00:00 }
"""


@pytest.fixture(autouse=True)
def base(workdir: Path) -> Path:
    logs.write(fits.log(), Path("in/a.parquet"))
    Path("p.toml").write_text(PIPELINE)
    return workdir


def test_find_rate_proposes_one_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_command(capsys, "fit", "p.toml", "--find-rate", "--limit", "600")
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "learning rate  loss")
    assert re.match(r"1e-06 +[\d.]+$", lines[1])
    rate = re.match(r"start from learning_rate = ([\d.e-]+) in \[train\] optimizer", lines[-1])
    assert rate is not None
    assert 1e-5 < float(rate[1]) < 1
    assert not Path("made").exists()
    code, out, _ = run_command(capsys, "fit", "p.toml", "--find-rate", "--json")
    found = json.loads(out)
    assert found["rates"][0][0] == 1e-6
    assert found["good_rate"] in [pytest.approx(rate / 10) for rate, _ in found["rates"]]


def test_fit_run_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    """A line per epoch on stderr, a summary against baselines, and files that a run reads."""
    code, out, err = run_command(capsys, "fit", "p.toml")
    assert code == 0
    epochs = err.splitlines()
    assert [line.split(":")[0] for line in epochs] == [f"epoch {n}/3" for n in (1, 2, 3)]
    assert all("loss" in line and "val_loss" in line for line in epochs)
    lines = out.splitlines()
    assert re.match(r"900 rows of 7 streams, \d+ labels to train on, \d+ rows for valid", lines[0])
    assert lines[1].startswith("result   epoch ")
    assert re.fullmatch(
        r"errors   RMSE [\d.]+, MAE [\d.]+: \d+% (better|worse) than the best baseline, \w+",
        lines[2],
    )
    assert re.fullmatch(r"against  RMSE of persistence [\d.]+, mean [\d.]+", lines[3])
    assert lines[4:6] == [
        "model    made/model.safetensors",
        "history  made/model.safetensors.fit/history.parquet",
    ]
    assert "made/model.safetensors.fit/state.parquet" in lines[6]
    assert len(pq.read_table("made/model.safetensors.fit/history.parquet")) == 3
    code, out, _ = run_command(capsys, "fit", "p.toml")
    assert (code, out.splitlines()[0]) == (0, "Nothing new since the last fit.")
    assert run_command(capsys, "run", "-q", "p.toml")[0] == 0
    assert run_command(capsys, "evaluate", "p.toml")[0] == 0


def test_json_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_command(capsys, "fit", "p.toml", "--json")
    found = json.loads(out)
    assert (code, found["epochs"], len(found["history"])) == (0, 3, 3)
    assert found["best"]["epoch"] == found["best_epoch"]
    best = found["best"]
    share = 1 - best["val_rmse_where_persistence"] / best["persistence_rmse"]
    assert found["better"]["persistence"] == share
    assert run_command(capsys, "fit", "p.toml", "--quiet", "--full-refresh") == (0, "", "")


def test_limit(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_command(capsys, "fit", "p.toml", "--limit", "200", "--set", "train.epochs=1")
    assert code == 0
    assert out.startswith("200 rows of ")
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--set", "target.column=gone"], 65, "gone"),
        (["--set", "train.loss=mze"], 78, "train.loss"),
        (["--set", "train.pieces=0"], 78, 'expected "auto" or an integer from 1'),
        (["--set", "model.path=made/model.keras", "--set", "model.layers=[]"], 78, ".safetensors"),
        (["--set", "source.path=nowhere"], 66, "nowhere"),
        (["--continue"], 78, "there is no fit"),
        (["--continue", "--full-refresh"], 2, "cannot be combined"),
        (["--find-rate", "--seeds", "2"], 2, "cannot be combined with"),
        (["--set", 'train.validation={since="soon"}'], 78, "validation.since"),
        (["--set", "train.until=2024-13-01"], 78, "[train] until"),
        (["--set", 'train.metrics=["x"]'], 78, "metric 'x'"),
        (["--set", "window.kind=independent", "--set", "train.pieces=2"], 78, "pieces"),
        (["--set", "model.layers=[{type='Conv1D',filters=2,kernel_size=2}]"], 78, "Conv1D"),
        (["--set", "model.layers=[{type='GRU',units=3}]", "--set", "output.names=[]"], 78, "names"),
        (
            ["--set", "model.layers=[{type='GRU',units=3}]", "--set", "output.names=['a','b','c']"],
            78,
            "3 outputs",
        ),
        (["--set", "source.path=-"], 78, "not stdin"),
        (["--set", "target.weight=a"], 65, "weight"),
    ],
)
def test_errors_are_one_message(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = run_command(capsys, "fit", "p.toml", *arguments)
    assert (found, out) == (code, "")
    assert text in err
    assert "Traceback" not in err


@slow
def test_two_fits_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The second one names the process of the first.

    Slow: two processes; the lock is the one of two runs at once.
    """
    code = "import time; from streamrnn.jobs.fitting import FitFolder; from pathlib import Path\n"
    code += "with FitFolder(Path('made/model.safetensors')).locked():\n"
    code += "    print('locked', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        found, _, err = run_command(capsys, "fit", "p.toml")
        other.kill()
    assert found == 1
    assert f"pid {other.pid}" in err
    assert run_command(capsys, "fit", "p.toml")[0] == 0


@pytest.mark.parametrize("number", first_quick([signal.SIGTERM, signal.SIGINT]))
def test_a_signal_commits_and_the_same_command_resumes(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slow: the other signal."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "import sys; sys.argv = ['streamrnn', 'fit', 'p.toml', '--set', 'train.epochs=5000']\n"
    code += "from streamrnn.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("epoch 1/5000")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted after a commit; rerun the same command to resume." in out
    assert "Traceback" not in err
    args = ["fit", "p.toml", "--set", "train.epochs=5000", "--set", "train.patience=1"]
    found, _, err = run_command(capsys, *args)
    assert (found, "train.patience: 0 then, 1 now" in err) == (1, True)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Resumed in epoch")
    process.kill()
    process.wait()
    process.stderr.close()
