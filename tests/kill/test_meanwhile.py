"""What others do while a run is at work: read its output, start another, bring files."""

import shutil
import threading

import pyarrow.dataset as ds
import pytest
from kill import case

from streamrnn.errors import CheckpointError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return case.make(tmp_path_factory.mktemp("meanwhile"))


@pytest.fixture(scope="module")
def undisturbed(folder):
    case.run(folder, folder / "undisturbed")
    return case.Outcome(folder / "undisturbed")


def test_a_reader_sees_a_growing_prefix_whenever_it_looks(folder, undisturbed, tmp_path):
    seen, done = [], threading.Event()

    def look():
        while not done.is_set():
            if (tmp_path / "out").exists():
                found = ds.dataset(tmp_path / "out", format="parquet").to_table()
                seen.append(found)

    reader = threading.Thread(target=look)
    reader.start()
    case.run(folder, tmp_path / "out")
    done.set()
    reader.join()
    lengths = [table.num_rows for table in seen]
    assert lengths == sorted(lengths)
    assert all(case.is_prefix(table, undisturbed.rows) for table in seen if table.num_rows)


def test_a_second_run_on_the_same_output_is_refused_and_disturbs_nothing(
    folder, undisturbed, tmp_path
):
    refused = []

    def start_another(progress):
        if progress.rows > 500 and not refused:
            with pytest.raises(CheckpointError, match=r"in use by another run \(host .*, pid \d+"):
                case.run(folder, tmp_path / "out")
            refused.append(progress.rows)

    case.run(folder, tmp_path / "out", progress=start_another)
    assert refused
    assert case.Outcome(tmp_path / "out").differs(undisturbed) == []


def test_files_that_arrive_during_a_run_are_for_the_next(folder, undisturbed, tmp_path):
    shutil.copytree(folder, tmp_path / "some", ignore=shutil.ignore_patterns("undisturbed*"))
    (tmp_path / "some" / "in" / "2.parquet").rename(tmp_path / "late.parquet")

    def arrive(progress):
        if (tmp_path / "late.parquet").exists():
            (tmp_path / "late.parquet").rename(tmp_path / "some" / "in" / "2.parquet")

    out = tmp_path / "out"
    assert case.run(tmp_path / "some", out, progress=arrive).files == len(case.FILES) - 1
    assert case.run(tmp_path / "some", out).files == 1
    assert case.run(tmp_path / "some", out).nothing_new
    found = case.Outcome(out)
    assert case.same(found.rows, undisturbed.rows)
    assert case.same(found.state, undisturbed.state)
    whole, rejects = (  # the folder is another one
        outcome.rejects.drop_columns(["file"]) for outcome in (undisturbed, found)
    )
    assert case.same(rejects, whole)
