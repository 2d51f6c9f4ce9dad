"""What a message advises works when it is followed word for word, and loses and repeats no row.

Each piece of advice is a row of ADVICE: a command, what stops it, words of the message, what a user
does who obeys, and the rows that the output has then. After that a run finds nothing new.
"""

import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline, Sequential, layers
from streamrnn.cli import main

LOG = logs.random_log(300, streams=6)
FIRST, SECOND, THIRD = (LOG.slice(start, 100) for start in (0, 100, 200))
RUN = ("run", "p.toml")
FIT = ("fit", "p.toml")
MAP = 'map = { "gru" = "rnn" }'
LAYERS = """
layers = [{ type = "GRU", units = 3, return_sequences = true }, { type = "Dense", units = 1 }]
"""
PIPELINE = """
[source]
path = "in"
key = "id"
time = "t"
features = ["a", "b"]
[window]
kind = "carry"
[model]
path = "m.safetensors"
[output]
columns = ["id", "t"]
[target]
column = "a"
rows = 1
[sink]
path = "out"
"""


class Job:
    """A pipeline in the current folder, with a run for each of two files, and a third file."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.model()
        Path("p.toml").write_text(PIPELINE)
        for name, rows in (("1", FIRST), ("2", SECOND)):
            self.file(name, rows)
            self.does(*RUN)
        self.file("3", THIRD)

    def command(self, *arguments: str) -> tuple[object, str]:
        """Exit code and all that is printed."""
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        shown = self.capsys.readouterr()
        return ended.value.code, shown.out + shown.err

    def does(self, *arguments: str) -> str:
        code, text = self.command(*arguments)
        assert code == 0, text
        return text

    def file(self, name: str, rows: pa.Table) -> None:
        logs.write(rows, Path("in") / f"{name}.parquet")

    def model(self, units: int = 5, name: str = "rnn", seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        gru = layers.GRU(units, name=name)
        model = Sequential([layers.Input((None, 2)), gru, layers.Dense(1, name="score")])
        model.set_weights([rng.normal(0, 0.6, w.shape) for w in model.get_weights()])
        model.save("m.safetensors")

    def edit(self, old: str, new: str) -> None:
        text = Path("p.toml").read_text()
        assert old in text
        Path("p.toml").write_text(text.replace(old, new))


def rows(folder: str = "out") -> list[dict[str, object]]:
    """The rows of an output, and their scores."""
    table = pq.read_table(folder) if any(Path(folder).glob("*.parquet")) else pa.table({"t": []})
    return sorted(table.to_pylist(), key=lambda row: (row["t"], row["id"]))


def with_other_values(table: pa.Table) -> pa.Table:
    return table.set_column(2, "a", pa.array(np.arange(float(len(table)))))


def with_first(value: float | None) -> pa.Table:
    """The third file, its first value replaced."""
    values = pa.array([value, *THIRD["a"].to_pylist()[1:]], pa.float64())
    return THIRD.set_column(2, "a", values)


# ---- what stops a command


def changed(job: Job) -> None:
    job.file("2", with_other_values(SECOND))


def changed_in_the_first_run(job: Job) -> None:
    job.file("1", with_other_values(FIRST))


def grown(job: Job) -> None:
    """As a file does that is written to after it was read."""
    Path("in/3.parquet").unlink()
    job.file("2", pa.concat_tables([SECOND, THIRD]))


def merged(job: Job) -> None:
    job.does(*RUN)
    for name in "23":
        Path(f"in/{name}.parquet").rename(f"{name}.parquet")
    job.file("2and3", pa.concat_tables([SECOND, THIRD]))


def changed_and_another_gone(job: Job) -> None:
    job.does(*RUN)
    changed(job)
    Path("in/3.parquet").rename("3.parquet")


def out_of_order(job: Job) -> None:
    """A first run over files whose names are not in the order of their times."""
    shutil.rmtree("out")
    Path("in/3.parquet").rename("in/0.parquet")


def earlier_than_used(job: Job, name: str = "2") -> None:
    """A file that arrives after a later one was read."""
    shutil.rmtree("out")
    Path("in/2.parquet").unlink()
    job.does(*RUN, "--set", "source.path=in/1.parquet")
    job.does(*RUN)
    job.file(name, SECOND)


def earlier_under_a_later_name(job: Job) -> None:
    earlier_than_used(job, "4")


def one_of_a_few_files(job: Job) -> None:
    """As a task for one day sets it."""
    job.edit('path = "in"', 'path = "in/2.parquet"')
    for name in "13":
        Path(f"in/{name}.parquet").rename(f"{name}.parquet")


def null(job: Job) -> None:
    shutil.rmtree("out")
    job.file("3", with_first(None))


def null_later(job: Job) -> None:
    job.file("3", with_first(None))


def nan(job: Job) -> None:
    shutil.rmtree("out")
    job.file("3", with_first(float("nan")))


def too_many_rejects(job: Job) -> None:
    job.file("3", with_first(None))
    job.edit("[window]", 'bad = "reject"\nmax_rejects = 0\n[window]')


def renamed(job: Job) -> None:
    job.file("3", THIRD.rename_columns(["id", "t", "aa", "b", "new"]))


def other_weights(job: Job) -> None:
    job.model(seed=2)


def other_names(job: Job) -> None:
    job.model(name="gru")


def other_sizes(job: Job) -> None:
    job.model(units=7)


def another_pipeline(job: Job) -> None:
    job.edit('"id", "t"]', '"id", "t", "b"]')


def rows_of_another_model(job: Job) -> None:
    """The file's rows were scored by the first model."""
    job.model(seed=2)
    job.does(*RUN, "--new-model", "carry")
    changed(job)


def lost_part(job: Job) -> None:
    """The rows of the second run."""
    job.does(*RUN)
    Path("out/part-00001.parquet").unlink()


def damaged_part(job: Job) -> None:
    job.does(*RUN)
    with open("out/part-00001.parquet", "r+b") as file:
        file.seek(50)
        file.write(b"damage")


def lost_state(job: Job) -> None:
    for path in Path("out/_streamrnn").glob("_state-00002*"):
        path.unlink()


def damaged_manifest(job: Job) -> None:
    Path("out/_streamrnn/_manifest.json").write_text("{}")


def sink_in_the_source(job: Job) -> None:
    job.edit('path = "out"', 'path = "in/out"')


def other_metrics(job: Job) -> None:
    Path("m").write_text("mine")


def no_model(job: Job) -> None:
    shutil.rmtree("out")
    Path("m.safetensors").unlink()
    job.edit("[output]", f"{LAYERS}[output]")


def to_be_fitted(job: Job) -> None:
    """Beside a model that no fit wrote."""
    job.edit("[output]", f"{LAYERS}[output]")


def fitted(job: Job) -> None:
    to_be_fitted(job)
    Path("in/3.parquet").rename("3.parquet")
    job.does(*FIT, "--overwrite")
    Path("3.parquet").rename("in/3.parquet")


def fitted_otherwise(job: Job) -> None:
    fitted(job)
    Path("in/3.parquet").unlink()
    job.edit("[sink]", "[train]\nepochs = 2\n[sink]")


def no_key_in_the_output(job: Job) -> None:
    shutil.rmtree("out")
    job.edit('columns = ["id", "t"]', 'columns = ["a"]')
    job.does(*RUN)


def no_source(job: Job) -> None:
    shutil.rmtree("out")
    for name in "123":
        Path(f"in/{name}.parquet").rename(f"{name}.parquet")


def nothing(job: Job) -> None:
    """The command itself is wrong."""


def no_run_yet(job: Job) -> None:
    shutil.rmtree("out")


# ---- what a user does

Do = Callable[[Job], object]


def give(*options: str) -> Do:
    """Run with options that the message names."""
    return lambda job: job.does(*RUN, *options)


def call(*commands: str) -> Do:
    def follow(job: Job) -> None:
        for command in commands:
            job.does(*command.split())

    return follow


def edit(old: str, new: str) -> Do:
    """Change the pipeline file."""
    return lambda job: job.edit(old, new)


def add(table: str, line: str) -> Do:
    return edit(f"[{table}]\n", f"[{table}]\n{line}\n")


def go_back_in_order_of_time(job: Job) -> None:
    add("source", 'order = "time"')(job)
    call("rewind out --before 3.parquet", "run p.toml")(job)


def restore_old_files(job: Job) -> None:
    Path("in/2and3.parquet").unlink()
    for name in "23":
        Path(f"{name}.parquet").rename(f"in/{name}.parquet")


def restore_and_reload(job: Job) -> None:
    Path("3.parquet").rename("in/3.parquet")
    job.does(*RUN, "--reload")


def map_states(job: Job) -> None:
    job.edit("[sink]", f"[state]\n{MAP}\n[sink]")
    job.does(*RUN, "--new-model", "carry")


def refresh_with_the_key(job: Job) -> None:
    job.edit('columns = ["a"]', 'columns = ["a", "id", "t"]')
    job.does(*RUN, "--full-refresh")
    job.does("evaluate", "p.toml")


def follow_until_files_came(job: Job) -> None:
    """They come at the first look, and the run is stopped at the second."""

    class Looks(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if not list(Path("in").iterdir()):
                for name in "123":
                    Path(f"{name}.parquet").rename(f"in/{name}.parquet")
            elif list(Path("out").glob("*.parquet")):
                self.set()
            return self.is_set()

    Pipeline.from_toml("p.toml").run(follow=True, poll=0.01, stop=Looks())


ALL = "as a run over the source from scratch"
ONCE = "each row of the source once"
DONE = ""

REFRESH = give("--full-refresh")
ANEW = "start over with --full-refresh"
BACK = call("rewind out --to 1", "run p.toml")
RENAME = 'set [source] rename = { a = "aa" }'
ADVICE: list[tuple[str, Callable[[Job], None], str, Do, str]] = [
    ("run p.toml", changed, "With --reload, score it again", give("--reload"), ALL),
    ("run p.toml", changed, ANEW, REFRESH, ALL),
    ("run p.toml", changed, "score no other row of it with --force", give("--force"), ONCE),
    ("run p.toml", changed_in_the_first_run, ANEW, REFRESH, ALL),
    ("run p.toml", changed_in_the_first_run, "of it with --force", give("--force"), ONCE),
    ("run p.toml", grown, "With --reload, score it again", give("--reload"), ALL),
    ("run p.toml", grown, ANEW, REFRESH, ALL),
    ("run p.toml", merged, "Count the new files as used with --force", give("--force"), ALL),
    ("run p.toml", merged, "restore the old files", restore_old_files, ALL),
    ("run p.toml", merged, ANEW, REFRESH, ALL),
    (
        "run p.toml --reload",
        changed_and_another_gone,
        "streamrnn rewind out --to 1, then",
        BACK,
        ALL,
    ),
    (
        "run p.toml --reload",
        changed_and_another_gone,
        "Restore it and rerun",
        restore_and_reload,
        ALL,
    ),
    (
        "run p.toml",
        out_of_order,
        'with [source] order = "time"',
        add("source", 'order = "time"'),
        ALL,
    ),
    (
        "run p.toml",
        earlier_than_used,
        "go back with `streamrnn rewind out --before ",
        call("rewind out --before 3.parquet", "run p.toml"),
        ALL,
    ),
    (
        "run p.toml",
        earlier_under_a_later_name,
        'set [source] order = "time", go back with `streamrnn rewind out --before ',
        go_back_in_order_of_time,
        ALL,
    ),
    (
        "run p.toml --full-refresh",
        one_of_a_few_files,
        "or give these rows up with --full-refresh --force",
        give("--full-refresh", "--force"),
        ALL,
    ),
    ("run p.toml", null, "set `nulls` for the column", add("source", 'nulls = "previous"'), ALL),
    ("run p.toml", null, 'set [source] bad = "reject"', add("source", 'bad = "reject"'), ALL),
    ("run p.toml", null_later, 'set [source] bad = "reject"', add("source", 'bad = "reject"'), ALL),
    ("run p.toml", nan, 'set [source] bad = "reject"', add("source", 'bad = "reject"'), ALL),
    ("run p.toml", too_many_rejects, "set a larger max_rejects", edit("cts = 0", "cts = 1"), ALL),
    ("run p.toml", renamed, RENAME, add("source", RENAME.removeprefix("set [source] ")), ALL),
    ("run p.toml", other_weights, "--new-model carry: ", give("--new-model", "carry"), ONCE),
    ("run p.toml", other_weights, "--new-model replay: ", give("--new-model", "replay"), ONCE),
    ("run p.toml", other_weights, "--new-model reset: ", give("--new-model", "reset"), ONCE),
    ("run p.toml", other_weights, ANEW, REFRESH, ALL),
    ("run p.toml --new-model carry", other_sizes, ANEW, REFRESH, ALL),
    ("run p.toml --new-model carry", other_names, f"set [state] {MAP}", map_states, ONCE),
    ("run p.toml", another_pipeline, ANEW, REFRESH, ALL),
    (
        "run p.toml",
        another_pipeline,
        "undo the change",
        edit(', "b"]\n[target]', "]\n[target]"),
        ALL,
    ),
    (
        "run p.toml --reload",
        rows_of_another_model,
        "with --reload --new-model replay, carry or reset;",
        give("--reload", "--new-model", "carry"),
        ONCE,
    ),
    ("run p.toml", lost_part, ANEW, REFRESH, ALL),
    ("run p.toml", lost_part, "(`streamrnn rewind OUT` lists them)", BACK, ALL),
    ("run p.toml", lost_state, ANEW, REFRESH, ALL),
    ("run p.toml", lost_state, "(`streamrnn rewind OUT` lists them)", BACK, ALL),
    ("verify out", damaged_part, ANEW, REFRESH, ALL),
    ("verify out", damaged_part, "(`streamrnn rewind OUT` lists them)", BACK, ALL),
    ("run p.toml", damaged_manifest, ANEW, REFRESH, ALL),
    ("rewind out --to 9", nothing, "Retained commits: 1;", BACK, ALL),
    ("run p.toml", sink_in_the_source, "a path outside the source", edit("in/out", "out"), ALL),
    ("run p.toml", no_source, "wait for files with --follow", follow_until_files_came, ALL),
    ("run q.toml", nothing, "`streamrnn init q.toml` writes a sample", call("init q.toml"), DONE),
    ("run p.toml --metrics m", other_metrics, "another file", call("run p.toml --metrics n"), ALL),
    ("run p.toml", no_model, "streamrnn fit PIPELINE", call("fit p.toml", "run p.toml"), ALL),
    ("fit p.toml", to_be_fitted, "--overwrite", call("fit p.toml --overwrite"), DONE),
    (
        "fit p.toml",
        fitted,
        "the new rows alone with --continue",
        call("fit p.toml --continue"),
        DONE,
    ),
    ("fit p.toml", fitted, "again with --full-refresh", call("fit p.toml --full-refresh"), DONE),
    (
        "fit p.toml",
        fitted_otherwise,
        "with --full-refresh",
        call("fit p.toml --full-refresh"),
        DONE,
    ),
    (
        "evaluate p.toml",
        no_run_yet,
        "Run its pipeline first",
        call("run p.toml", "evaluate p.toml"),
        ALL,
    ),
    (
        "evaluate p.toml",
        no_key_in_the_output,
        "to [output] columns, and score again",
        refresh_with_the_key,
        ALL,
    ),
]


@pytest.mark.parametrize(
    ("command", "stops", "says", "follow", "outcome"),
    [pytest.param(*case, id=f"{case[1].__name__}: {case[2]}") for case in ADVICE],
)
def test_advice_works_and_loses_and_repeats_no_row(
    workdir: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    stops: Callable[[Job], None],
    says: str,
    follow: Do,
    outcome: str,
) -> None:
    job = Job(capsys)
    stops(job)
    code, text = job.command(*command.split())
    assert code not in (0, 70)
    assert says in text
    follow(job)
    if outcome == DONE:
        return
    job.does(*RUN)
    assert "Nothing new" in job.does(*RUN)
    scored, rejected = rows("out"), rows("out.rejects")
    assert len(scored) + len(rejected) == sum(
        len(pq.read_table(path)) for path in Path("in").iterdir()
    )
    job.does(*RUN, "--set", "sink.path=scratch")
    scratch = rows("scratch")
    if outcome == ONCE:  # some of them by another model, or with other values
        scored, scratch = ([(row["id"], row["t"]) for row in x] for x in (scored, scratch))
    assert scored == scratch


def test_a_reload_is_advised_only_where_a_commit_before_the_file_is_retained(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(capsys)
    changed_in_the_first_run(job)
    _, text = job.command(*RUN)
    assert "No retained commit is old enough to score it again" in text
    assert "--reload" not in text


def test_too_few_open_files_are_named_and_more_of_them_resume_the_run(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A partition that is being written has a file of its own."""
    job = Job(capsys)
    job.edit('path = "out"', 'path = "parted"\npartition_by = ["id"]')
    code = "from streamrnn.cli import main; main(['run', 'p.toml'])"
    few = ["bash", "-c", f'ulimit -n 8; exec {shlex.quote(sys.executable)} -c "$0"', code]
    done = subprocess.run(few, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Too many open files. Allow more open files (ulimit -n) and rerun" in done.stderr
    job.does(*RUN)
    assert "Nothing new" in job.does(*RUN)
    assert sum(len(pq.read_table(path)) for path in Path("parted").rglob("*.parquet")) == 300
