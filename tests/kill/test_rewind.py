"""Yesterday's bad load, run again as of yesterday."""

import pyarrow.parquet as pq
from kill import case

from streamrnn.outputs import compact, history, rewind


def test_a_bad_load_is_taken_back_and_run_again(tmp_path):
    folder, out = case.make(tmp_path), tmp_path / "out"
    case.run(folder, tmp_path / "undisturbed")
    good = folder / "in" / "2.parquet"
    good.rename(tmp_path / "good.parquet")
    case.run(folder, out)
    before = case.Outcome(out)
    yesterday = history(str(out))[-1].commit
    pq.write_table(pq.read_table(tmp_path / "good.parquet").slice(100), good)  # rows are missing
    case.run(folder, out)
    assert "rows" in case.Outcome(out).differs(before)
    compact(str(out))
    rewind(str(out), yesterday)
    assert case.Outcome(out).differs(before) == []
    (tmp_path / "good.parquet").rename(good)
    assert case.run(folder, out).files == 1
    assert case.Outcome(out).differs(case.Outcome(tmp_path / "undisturbed")) == []
