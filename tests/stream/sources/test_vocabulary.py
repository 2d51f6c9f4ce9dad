"""Vocabularies: ids are those of the lookup layers; files, and what is wrong with them."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import layers
from streamrnn.errors import ConfigError, DTypeError, StreamRNNError
from streamrnn.stream.sources import Faults, load_vocabulary
from streamrnn.stream.sources.vocabulary import Vocabulary

TEXT = (pa.string(), pa.large_string())
INTEGERS = (pa.int8(), pa.int16(), pa.int64(), pa.uint8(), pa.uint64())


def _ids(vocabulary: Vocabulary, array: pa.Array) -> tuple[list[int | None], list[int], Faults]:
    faults = Faults.of_rows(len(array))
    vocabulary.check(array.type, "x", "f")
    found, seen = vocabulary.look_up(array, "x", faults)
    assert seen.values == len(array) - array.null_count
    assert seen.unknown == (found.to_pylist().count(0) if vocabulary.oov else 0)
    assert found.type == pa.int64()
    return found.to_pylist(), np.flatnonzero(faults.codes).tolist(), faults


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("oov", [0, 1])
def test_ids_are_those_of_the_lookup_layers(seed: int, oov: int) -> None:
    """For strings and integers of every width, with the special token first or without it."""
    rng = random.Random(seed)
    strings = seed % 2 == 0
    pool: list[Any] = [f"v{i}" for i in range(40)] + ["", "ü", "a b"] if strings else [*range(90)]
    values = rng.sample(pool, rng.randrange(1, 20))
    special: list[Any] = (["[UNK]"] if strings else [-1]) * (oov and rng.randrange(2))
    layer = (layers.StringLookup if strings else layers.IntegerLookup)(
        vocabulary=special + values, num_oov_indices=oov
    )
    rows = rng.choices(pool if oov else values, k=50)
    for kind in TEXT if strings else INTEGERS:
        array = pa.array(rows, kind)
        found, bad, _ = _ids(load_vocabulary(special + values, oov, "x"), array)
        assert found == np.asarray(layer(np.array(rows))).tolist()
        assert not bad
        nulls = [None if rng.random() < 0.3 else row for row in rows]
        found, _, _ = _ids(load_vocabulary(special + values, oov, "x"), pa.array(nulls, kind))
        assert [i is None for i in found] == [row is None for row in nulls]


@pytest.mark.parametrize(
    "values", [["a", "b", "a"], [1, 2, 1], ["a", "[UNK]"], [1, -1], ["a", "[UNK]", "b"]], ids=str
)
@pytest.mark.parametrize("oov", [0, 1])
def test_what_the_layers_refuse_is_refused(values: list[Any], oov: int) -> None:
    layer = layers.StringLookup if isinstance(values[0], str) else layers.IntegerLookup
    with pytest.raises(StreamRNNError):
        layer(vocabulary=values, num_oov_indices=oov)
    with pytest.raises(ConfigError, match=r"vocabulary of 'x': .*(twice|special token)"):
        load_vocabulary(values, oov, "x")


def test_a_special_token_has_no_place_without_oov() -> None:
    with pytest.raises(ConfigError, match=r"'\[UNK\]' is the special token"):
        load_vocabulary(["[UNK]", "a"], 0, "x")
    with pytest.raises(ConfigError, match="expected at least one value"):
        load_vocabulary(["[UNK]"], 1, "x")


def test_an_unknown_value_is_a_fault_with_its_value() -> None:
    array = pa.array(["b", "y", None, "a", "z", "y"])
    vocabulary = load_vocabulary(["a", "b"], 0, "x")
    found, bad, faults = _ids(vocabulary, array)
    assert found == [1, 0, None, 0, 0, 0]
    assert bad == [1, 4, 5]
    assert faults.reason(4) == (
        "column 'x': value 'z' is not in the vocabulary ([source] features: vocabulary of 'x')"
    )
    assert faults.reason(5) == faults.reason(1) != faults.reason(4)
    assert faults.how_to_fix(1) == "Fix the data, set oov = 1 for the column,"
    first = Faults.of_rows(6)
    first.add(np.arange(6) == 4, "first")
    vocabulary.look_up(array, "x", first)
    assert first.reason(4) == "first"
    assert "'y'" in first.reason(5)


def test_values_outside_a_narrow_type_are_no_values_of_the_column() -> None:
    """And text that is not UTF-8 is an unknown value."""
    vocabulary = load_vocabulary([300, 5, 2**63 - 1], 1, "x")
    assert _ids(vocabulary, pa.array([5, 44], pa.int8()))[0] == [2, 0]
    assert _ids(vocabulary, pa.array([2**63 - 1, 2**64 - 1], pa.uint64()))[0] == [3, 0]
    raw = pa.array([b"\xff", b"a"]).view(pa.string())
    assert _ids(load_vocabulary(["a"], 1, "x"), raw)[0] == [0, 1]
    faults = _ids(load_vocabulary(["a"], 0, "x"), raw)[2]
    assert "b'\\xff'" in faults.reason(0)
    assert _ids(vocabulary, pa.nulls(2))[0] == [None, None]


def _files(folder: Path, values: list[Any], ids: list[int]) -> list[str]:
    """The same vocabulary as a file of each form."""
    named = {name: str(folder / name) for name in ("v.txt", "crlf", "v.csv", "h.CSV", "v.parquet")}
    lines = [str(value) for value in values]
    Path(named["v.txt"]).write_text("\n".join(lines))
    Path(named["crlf"]).write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    rows = [f'"{value}",{i}\n' for value, i in zip(lines, ids, strict=True)]
    Path(named["v.csv"]).write_text("".join(reversed(rows)))
    Path(named["h.CSV"]).write_text("value,id\n" + "".join(rows))
    encoded = pa.array(values).dictionary_encode()
    small = pa.array(ids, pa.int16())
    pq.write_table(pa.table({"any": encoded, "name": small}), named["v.parquet"])
    if isinstance(values[0], str):
        named["views"] = str(folder / "views.parquet")
        views = pa.array(values, pa.string_view())  # as Polars writes text
        pq.write_table(pa.table({"any": views, "name": small}), named["views"])
    return [*named.values(), f"file://{named['v.txt']}"]


@pytest.mark.parametrize("values", [["a", "b,c", "ü"], [7, -3, 12]], ids=["text", "integers"])
@pytest.mark.parametrize("oov", [0, 1])
def test_every_form_of_file_is_the_same_vocabulary(
    tmp_path: Path, values: list[Any], oov: int
) -> None:
    """A fingerprint is that of the content, whatever holds it."""
    right = load_vocabulary(values, oov, "x")
    array = pa.array([values[2], values[0], values[1]])
    for path in _files(tmp_path, values, [i + oov for i in range(3)]):
        found = load_vocabulary(path, oov, "x")
        assert _ids(found, array)[:2] == ([2 + oov, oov, 1 + oov], [])
        assert found.fingerprint == right.fingerprint
        assert str(path) in found.label
        again = load_vocabulary(found.as_table(), oov, "x")
        assert _ids(again, array)[0] == _ids(found, array)[0]
        assert again.fingerprint == right.fingerprint
    others = (values[::-1], values[:2], [*values[:2], values[2] * 2])
    assert right.fingerprint not in {load_vocabulary(v, oov, "x").fingerprint for v in others}
    assert load_vocabulary(values, 1 - oov, "x").fingerprint != right.fingerprint


def test_ids_of_a_table_are_its_own(tmp_path: Path) -> None:
    """With gaps and groups; with the special token at 0."""
    (tmp_path / "v.csv").write_text("[UNK],0\na,5\nb,5\nc,2\n")
    found = load_vocabulary(str(tmp_path / "v.csv"), 1, "x")
    assert _ids(found, pa.array(["a", "b", "c", "d"]))[0] == [5, 5, 2, 0]
    (tmp_path / "w.csv").write_text("a,0\nb,1\n")
    with pytest.raises(ConfigError, match="value 'a' has id 0, which oov = 1 gives to unknown"):
        load_vocabulary(str(tmp_path / "w.csv"), 1, "x")


WRONG = {
    "none.txt": (None, "cannot be read: No such file"),
    "gap.txt": (b"a\n\nb\n", "line 2 is empty"),
    "empty.txt": (b"", "line 1 is empty"),
    "bytes.txt": (b"a\n\xff\n", "expected UTF-8, which byte 2 is not"),
    "three.csv": (b"a,1\nb,2,3\n", "line 2: expected two columns, values and ids, received 3"),
    "id.csv": (b"value,id\na,1\nb,x\n", "line 3: expected an integer id, received 'x'"),
    "negative.csv": (b"a,-1\n", "expected ids from 0, received -1"),
    "quote.csv": (b'"a,1\n', "line 1: invalid CSV"),
    "header.csv": (b"value,id\n", "expected at least one value"),
    "no.parquet": (b"PAR1", "not a readable Parquet file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_file_is_refused(tmp_path: Path, name: str) -> None:
    """With feature, file and line."""
    data, message = WRONG[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=f"vocabulary of 'x': .*{name}: {message}"):
        load_vocabulary(str(tmp_path / name), 0, "x")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"v": ["a"]}, "expected two columns, values and ids, received 1"),
        ({"v": ["a"], "i": [1.0]}, r"ids \(integer\), received string and double"),
        ({"v": [1.5], "i": [1]}, "received double and int64"),
        ({"v": ["a", None], "i": [1, 2]}, "without nulls"),
    ],
)
def test_an_invalid_table_is_refused(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    with pytest.raises(ConfigError, match=message):
        load_vocabulary(str(tmp_path / "v.parquet"), 0, "x")


def test_a_column_has_the_type_of_the_values(tmp_path: Path) -> None:
    """Lines of text are integers for a column of integers, if they all are."""
    (tmp_path / "zero.txt").write_text("7\n08\n")
    text, zero = load_vocabulary(["7"], 0, "x"), load_vocabulary(str(tmp_path / "zero.txt"), 0, "x")
    assert _ids(zero, pa.array(["08"]))[0] == [1]
    for vocabulary, kind, expected in (
        (text, pa.int64(), "expected string, as are the values of its vocabulary"),
        (zero, pa.int64(), "expected string, as are the values of its vocabulary"),
        (load_vocabulary([7], 0, "x"), pa.string(), "expected integer, as are the values"),
        (text, pa.float64(), "expected string or integer, as it has a vocabulary, received double"),
    ):
        with pytest.raises(DTypeError, match=rf"f: \[source\] features: column 'x': {expected}"):
            vocabulary.check(kind, "x", "f")
