"""Which files of a table hold unread rows, whatever its versions did to them."""

import random
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pytest

from streamrnn.base.storage import open_store
from streamrnn.errors import CheckpointError
from streamrnn.stream.sources import SourceFile, Table
from streamrnn.stream.sources.tables import Commit

STORE = open_store(".")[0]


def _file(folder: Path, number: int, part: int) -> SourceFile:
    path = folder / f"{number}.parquet"
    path.touch()
    values = (("p", pa.scalar(part)),)
    return SourceFile(str(path), str(path), 0, 0, STORE, str(path), values)


@dataclass
class Simulated:
    """A table whose files hold numbered rows, and what a pipeline has used of it."""

    folder: Path
    commits: list[Commit] = field(default_factory=list)
    active: dict[str, SourceFile] = field(default_factory=dict)
    rows: dict[str, frozenset[int]] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    done: list[int] = field(default_factory=list)
    files: int = 0

    def _add(self, part: int, rows: frozenset[int]) -> SourceFile:
        self.files += 1
        file = _file(self.folder, self.files, part)
        self.rows[file.name] = rows
        self.active[file.name] = file
        return file

    def append(self, chance: random.Random) -> None:
        count = sum(map(len, self.rows.values()))
        added = [
            self._add(chance.randrange(2), frozenset({10 * count + 100 * self.files + i}))
            for i in range(chance.randint(1, 3))
        ]
        self.commits.append(Commit(f"append {len(self.commits)}", tuple(added), (), True))

    def rewrite(self, chance: random.Random) -> None:
        """Some files of each partition become one or two."""
        old = [file for file in self.active.values() if chance.random() < 0.6]
        added = []
        for part in range(2):
            rows = [row for file in old if _part(file) == part for row in self.rows[file.name]]
            chance.shuffle(rows)
            cut = chance.randint(0, len(rows))
            added += [self._add(part, frozenset(half)) for half in (rows[:cut], rows[cut:]) if half]
        for file in old:
            del self.active[file.name]
        name = f"rewrite {len(self.commits)}"
        # A log need not name the partitions of removed files.
        named = tuple(replace(file, partitions=()) for file in old)
        self.commits.append(
            Commit(name, tuple(added), named if chance.random() < 0.3 else tuple(old), False)
        )

    def vacuum(self) -> None:
        for path in self.folder.iterdir():
            if str(path) not in self.active:
                path.unlink()

    def table(self) -> Table:
        return Table(f"{self.folder}/", "the version", [], self.commits)

    def run(self, most: int) -> None:
        """Read at most so many files, and commit that. Raises CheckpointError."""
        found = self.table().listing(self.used, self.gone, "")
        assert not found.changed
        listed = {file.name for file in found.files}
        covered = {file.name for file in found.covered}
        new = [file.name for file in found.files if file.name not in {*self.used, *covered}]
        for name in new[:most]:
            assert Path(name).exists()
            self.done += self.rows[name]
        self.used += [*covered, *new[:most]]
        self.gone = {name for name in self.used if name not in listed}

    def run_or_refuse(self, most: int) -> bool:
        """Return whether the run was not refused."""
        with suppress(CheckpointError):
            self.run(most)
            return True
        return False


def _part(file: SourceFile) -> int:
    value: int = file.partitions[0][1].as_py()
    return value


@pytest.mark.parametrize("seed", range(150))
def test_each_row_is_read_once_whatever_is_rewritten(seed: int, tmp_path: Path) -> None:
    """Or, where merged files were deleted before all were read, the run is refused."""
    chance = random.Random(seed)
    table = Simulated(tmp_path)
    vacuums = seed % 2
    for _ in range(12):
        step = chance.choice(["append", "append", "rewrite", "run", "run", "vacuum"])
        if step == "append":
            table.append(chance)
        elif step == "rewrite":
            table.rewrite(chance)
        elif step == "vacuum":
            if vacuums:
                table.vacuum()
        else:
            if not table.run_or_refuse(chance.randint(0, 4)):
                assert vacuums
                return
        assert len(set(table.done)) == len(table.done)
    if not table.run_or_refuse(100):
        assert vacuums
        return
    everything = {row for name in table.active for row in table.rows[name]}
    assert sorted(table.done) == sorted(everything)


def test_files_come_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    """A rewritten one comes where the first that it replaces came."""
    a, b, c, d = (_file(tmp_path, i, 0) for i in range(4))
    commits = [
        Commit("append", (a,), (), True),
        Commit("append", (b, c), (), True),
        Commit("rewrite", (d,), (b, a), False),
    ]
    assert Table("", "v", [], commits[:2]).files == [a, b, c]
    assert Table("", "v", [], commits).files == [d, c]
    assert Table("", "v", [c], commits[:1]).files == [c, a]


def test_changed_rows_are_named_with_the_version_that_changed_them(tmp_path: Path) -> None:
    """Those of used files; what happened to others before they were read does not matter."""
    a, b, c, d = (_file(tmp_path, i, 0) for i in range(4))
    commits = [
        Commit("append", (a, b), (), True),
        Commit("rewrite", (c,), (a,), False),
        Commit("UPDATE in version 2", (d,), (c,), True),
    ]
    table = Table("", "v", [], commits)
    assert table.listing([b.name], [], "").changed == {}
    found = table.listing([a.name], [], "")
    assert found.changed == {a.name: "removed by UPDATE in version 2"}
    assert found.taken == [d]
    found = table.listing([a.name, c.name], [a.name], "")
    assert found.changed == {c.name: "removed by UPDATE in version 2"}
    assert table.listing([a.name, c.name], [a.name, c.name], "").changed == {}


def test_a_partly_read_file_goes_on_where_it_was(tmp_path: Path) -> None:
    a, b, c = (_file(tmp_path, i, 0) for i in range(3))
    commits = [Commit("append", (a, b), (), True), Commit("rewrite", (c,), (a, b), False)]
    table = Table("", "v", [], commits)
    found = table.listing([a.name, b.name], [], b.name)
    assert (found.files, found.covered) == ([b], [])
    assert table.listing([a.name, b.name], [], "").covered == [c]
    Path(b.path).unlink()
    with pytest.raises(CheckpointError, match=r"1\.parquet had rows that have not been read"):
        table.listing([a.name, b.name], [], b.name)


def test_a_used_file_that_the_log_does_not_explain_is_refused(tmp_path: Path) -> None:
    a, b = (_file(tmp_path, i, 0) for i in range(2))
    table = Table(f"{tmp_path}/", "version 9", [b], [])
    with pytest.raises(CheckpointError, match=r"version 9 of the table lacks files.*cleaned up"):
        table.listing([a.name], [], "")
    assert table.listing([a.name], [a.name], "").files == [b]
    assert table.listing(["/elsewhere/x.parquet"], [], "").files == [b]
