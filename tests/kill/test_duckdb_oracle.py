"""DuckDB, globbing over an output at every commit and after a crash, sees committed rows only."""

import pytest
from kill import case

duckdb = pytest.importorskip("duckdb", reason="needs the oracles extra")


def counted(out):
    found = duckdb.sql(f"select count(*) from read_parquet('{out}/**/*.parquet')")
    return found.fetchall()[0][0]


def test_duckdb_sees_commits_only(tmp_path):
    folder = case.make(tmp_path)
    case.run(folder, tmp_path / "undisturbed")
    whole = case.rows(tmp_path / "undisturbed")
    out, seen = tmp_path / "out", []

    def look(progress):
        if list(out.glob("*.parquet")):
            seen.append(counted(out))
        if progress.rows > 1800:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        case.run(folder, out, progress=look)
    assert len(set(seen)) > 3
    assert seen == sorted(seen)
    assert counted(out) == seen[-1] < whole.num_rows
    assert case.is_prefix(case.rows(out), whole)
    case.run(folder, out)
    assert counted(out) == whole.num_rows
