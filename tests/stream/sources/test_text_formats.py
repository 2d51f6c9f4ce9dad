"""CSV and NDJSON: types, places of errors, torn files, positions. (What all keep: contracts.)"""

import csv
import gzip
import io
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from selection import slow

from streamrnn.errors import DataError, DTypeError, StreamRNNError
from streamrnn.stream.sources import FileSource, list_files, suffixes_of
from streamrnn.stream.sources.formats.text import decompressed, infer, parse_texts, shows_rows


def _zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, "zstd", asbytes=True)
    return packed


def _gzip(data: bytes) -> bytes:
    """Pack without the time, which would stand in the names of tests: no two processes agree."""
    return gzip.compress(data, mtime=0)


PACKERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": _gzip, ".zst": _zstd}


def source(path: Path | str, *files: bytes, rows: int = 3, **options: Any) -> FileSource:
    """Files with these contents in a folder, as a source."""
    folder = Path(path)
    folder.mkdir(exist_ok=True)
    name = options.pop("name", ".csv")
    for i, data in enumerate(files):
        (folder / f"{i}{name}").write_bytes(data)
    kind = "csv" if "sv" in name else "ndjson"
    return FileSource(list_files(str(folder), suffixes_of(kind)), None, rows, **options)


def rows(of: FileSource) -> list[dict[str, Any]]:
    return [row for each in of.batches() for row in each.batch.to_pylist()]


# ---- types


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["7", "-12", ""], pa.int64()),
        (["007", "12"], pa.string()),
        (["-07"], pa.string()),
        (["0", "-0"], pa.int64()),
        (["0x1f"], pa.string()),
        (["9223372036854775808"], pa.string()),
        (["9223372036854775807"], pa.int64()),
        (["1.5", "NA", "nan"], pa.float64()),
        (["1e3"], pa.float64()),
        (["true", "False"], pa.bool_()),
        (["2013-01-01"], pa.date32()),
        (["2013-01-01", "2013-01-01 05:00"], pa.timestamp("us")),
        (["2013-01-01T05:00:00.5"], pa.timestamp("us")),
        (["2013-01-01 05:00:00+02:00"], pa.timestamp("us", "UTC")),
        (["2013-01-01 05:00:00.123456789"], pa.timestamp("ns")),
        (["2013-01-01 05:00:00", "2013-01-01 05:00:00Z"], pa.string()),
        (["A07", "7"], pa.string()),
        (["", None], pa.null()),
    ],
)
def test_the_type_of_texts_keeps_what_they_say(texts: list[str | None], kind: pa.DataType) -> None:
    assert infer(pa.array(texts, pa.string())) == kind


def test_values_are_those_that_python_reads() -> None:
    """Whatever the spelling of nulls beside them."""
    texts = ["1.5", "-2e-3", "", "NA", "NaN", "1e400", "inf", "3"]
    nulls = {"", "NA", "NaN"}
    expected = [None if text in nulls else float(text) for text in texts]
    assert parse_texts(pa.array(texts), pa.float64()).to_pylist() == expected
    for text in texts:
        alone = None if text in nulls else float(text)
        assert parse_texts(pa.array([text]), pa.float64()).to_pylist() == [alone]


def test_types_stay_those_of_the_first_file(tmp_path: Path) -> None:
    found = source(tmp_path / "in", b"id,x\na,1.5\n", b"x,id\n2,7\n")
    assert rows(found) == [{"id": "a", "x": 1.5}, {"id": "7", "x": 2.0}]
    later = source(tmp_path / "later", b"id,x\n7,2\n")
    later.earlier = {"id": "string", "x": "double"}
    assert rows(later) == [{"id": "7", "x": 2.0}]


def test_a_column_has_the_type_of_its_first_values(tmp_path: Path) -> None:
    """In the first blocks of a file, or in the next file."""
    long = b"id,x,y\n" + b"aaaaaaaaaaaaaaa,,1\n" * 100_000 + b"b,1.5,2\n"
    found = source(tmp_path / "one", long, rows=1_000_000)
    assert found.schema.field("x").type == pa.float64()
    assert rows(found)[-1] == {"id": "b", "x": 1.5, "y": 2}
    found = source(tmp_path / "two", b"id,x\n", b"id,x\na,\n", b"id,x\nb,2\n")
    assert found.schema == pa.schema([("id", pa.string()), ("x", pa.int64())])
    assert rows(found) == [{"id": "a", "x": None}, {"id": "b", "x": 2}]


@pytest.mark.parametrize("bad", ["A07", "007", "2.5", "9223372036854775808", "0x7"])
def test_a_value_of_another_type_is_named_with_its_place(bad: str, tmp_path: Path) -> None:
    """Also below a value that spans lines, and a blank line."""
    text = f'id,text\n7,"two\nlines"\n\n8,x\n{bad},x\n9,x\n'
    other = "float64" if bad == "2.5" else "string"
    with pytest.raises(
        DataError,
        match=rf"1\.csv: row 2 \(from 0\), line 6: column 'id': expected int64, received '{bad}'; "
        rf'the type comes from .*0\.csv\. Correct .* types = {{ id = "{other}" }}',
    ):
        rows(source(tmp_path / "in", b"id,text\n5,x\n", text.encode(), rows=50))
    alone = source(tmp_path / "alone", text.encode(), types={"id": "string"})
    assert rows(alone)[2]["id"] == bad


def test_a_declared_integer_may_have_leading_zeros(tmp_path: Path) -> None:
    assert rows(source(tmp_path / "in", b"id\n007\n", types={"id": "int64"})) == [{"id": 7}]


@pytest.mark.parametrize("columns", [None, ["id"]])
def test_a_type_for_a_column_that_no_file_has_is_refused(
    columns: list[str] | None, tmp_path: Path
) -> None:
    made = source(tmp_path / "in", b"id,x\n7,1\n", types={"ids": "string"})
    made.columns = columns
    with pytest.raises(DataError, match=r"types: .*'ids' not found\. Did you mean 'id'\?"):
        rows(made)


# ---- what is in a file


def test_names_quotes_newlines_and_marks_are_read(tmp_path: Path) -> None:
    text = '\ufeffid,"a ""b"""\r\n"x,\r\ny",\r\n"",2\r\nNA,3\r\n'.encode()
    for name, pack in PACKERS.items():
        found = source(tmp_path / f"in{name}", pack(text), name=f".csv{name}")
        assert rows(found) == [
            {"id": "x,\r\ny", 'a "b"': None},
            {"id": "", 'a "b"': 2},
            {"id": "NA", 'a "b"': 3},
        ]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("a,b", ["a", "b"]),
        ('"a","b ""x"""', ["a", 'b "x"']),
        ('"a,\nb",c', ["a,\nb", "c"]),
        ('a,"b"x', ["a", "bx"]),
        ('5" pipe,b', ['5" pipe', "b"]),
        ("\n\r\n a,b ", [" a", "b "]),
    ],
)
def test_a_small_file_is_parsed_once(
    header: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a header that is not one line of plain or quoted names."""
    calls: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(pacsv, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return real(*arguments, **options)

        return call

    for name in ("open_csv", "read_csv"):
        monkeypatch.setattr(pacsv, name, noted(name))
    found = source(tmp_path / "in", f"{header}\n1,2\n".encode())
    file = found.files[0]
    assert found.content(file).rows == 1
    calls.clear()
    assert found.content(file).rows == 1
    assert found.schema.names == names
    again = header in ('"a,\nb",c', 'a,"b"x')
    assert calls == ["open_csv"] * again + ["read_csv"]


def test_delimiters_are_those_of_the_name_or_the_key(tmp_path: Path) -> None:
    assert rows(source(tmp_path / "t", b"a\tb\n1\t2\n", name=".tsv")) == [{"a": 1, "b": 2}]
    found = source(tmp_path / "s", b"a;b\n1;2,5\n", delimiter=";")
    assert rows(found) == [{"a": 1, "b": "2,5"}]


def test_a_delimiter_is_proposed_for_a_header_of_one_column(tmp_path: Path) -> None:
    text = b"a;b\n1;2,5\n"
    with pytest.raises(DataError, match=r"one column, 'a;b'. Set \[source\] delimiter = \";\" if"):
        assert source(tmp_path / "s", text).schema
    assert rows(source(tmp_path / "t", b"a;b\n1\n", delimiter=",")) == [{"a;b": 1}]


def test_the_format_goes_by_the_suffix_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "A.TSV").write_bytes(b"a\tb\n1\t2\n")
    assert rows(FileSource(list_files(str(tmp_path / "A.TSV")), None, 3)) == [{"a": 1, "b": 2}]


NULLS = ["", "None", "-", "n/a "]


@pytest.mark.parametrize("mark", ["", '"'])
@pytest.mark.parametrize("size", [1, 200_000], ids=["one block", "many blocks"])
def test_spellings_of_null_are_null_in_every_column(tmp_path: Path, mark: str, size: int) -> None:
    """Also quoted, and where the type of a column is inferred; the oracle is Python's csv."""
    cells = [["a", "1.5", "7"], ["None", "-", "n/a "], ["", "None", "-"], ["none", "2", ""]]
    lines = ["id,x,n", *(",".join(f"{mark}{cell}{mark}" for cell in row) for row in cells * size)]
    text = "\n".join([*lines, ""])
    found = source(tmp_path / "in", text.encode(), rows=1 << 20, null_values=NULLS)
    assert found.schema.types == [pa.string(), pa.float64(), pa.int64()]
    read = list(csv.DictReader(io.StringIO("\n".join([*lines[: len(cells) + 1], ""]))))
    kinds = {"id": str, "x": float, "n": int}
    expected = [{k: None if v in NULLS else kinds[k](v) for k, v in row.items()} for row in read]
    given = rows(found)
    assert given[:4] == given[-4:] == expected
    assert len(given) == 4 * size


def test_only_the_spellings_of_the_key_are_null_in_text(tmp_path: Path) -> None:
    """NA is a value of a text column, and null among numbers, with the key or without."""
    text = b"id,x\nNA,NA\n-,1\nUS,2\n"
    assert rows(source(tmp_path / "a", text))[0] == {"id": "NA", "x": None}
    assert rows(source(tmp_path / "b", text, null_values=["-"]))[:2] == [
        {"id": "NA", "x": None},
        {"id": None, "x": 1},
    ]


@pytest.mark.parametrize("options", [{"numbers": ["x"]}, {"types": {"x": "int64"}}], ids=str)
def test_an_unreadable_word_names_the_key_that_makes_it_null(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """The list that the message proposes is read, and lets the file pass."""
    text = b"x\n1\nNone\nn.a.\n"
    proposed = []
    for word in ("None", "n.a."):
        found = source(tmp_path / "in", text, **options, null_values=proposed)
        with pytest.raises((DataError, DTypeError), match=f"received '{word}'") as refused:
            rows(found)
        toml = re.search(r"\[source\] (null_values = \[.*?\]) if", str(refused.value))
        assert toml is not None
        proposed = tomllib.loads(toml[1])["null_values"]
    assert proposed == ["", "None", "n.a."]
    found = source(tmp_path / "in", text, **options, null_values=proposed)
    assert rows(found) == [{"x": 1}, {"x": None}, {"x": None}]
    for name, data in ((".csv", b"x\n1\nA07\n"), (".ndjson", b'{"x": 1}\n{"x": "None"}\n')):
        found = source(tmp_path / name[1:], data, name=name, **options)
        with pytest.raises((DataError, DTypeError)) as refused:
            rows(found)
        assert "null_values" not in str(refused.value)


def test_an_empty_field_is_null_and_a_quoted_one_is_not(tmp_path: Path) -> None:
    found = source(tmp_path / "in", b'id,x\n,1\n"",2\na,3\n')
    assert [row["id"] for row in rows(found)] == [None, "", "a"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"id,te", r"the header does not end with a newline: .* append a newline"),
        (b'"id","te', r"the header does not end with a newline"),
        (b'"id","te\n1,2\n', r"the header is cut off: a quote is not closed"),
        (_zstd(b"id,te"), r"the header does not end with a newline"),
        (b"\r\n\n", r"it has no header"),
        (b"a,b\n1,2\n3\n", r"line 3: expected 2 values, as in the header, received 1: 3"),
        (b"a,b\n1,2\n3,4,5\n", r"line 3: expected 2 values, .* received 3: 3,4,5"),
        (b"a,b\n1,2\n3,4", r"the last line does not end with a newline"),
        (b'a,b\n1,"2\n', r"cut off: a quote is not closed"),
        ("a,b\n1,2\n".encode("utf-16"), r"expected text in UTF-8"),
        (b"a,b\nx,\xff\n", r"invalid UTF8"),
        (b"a,a\n1,2\n", r"column 'a': expected once, found 2 times"),
        (b"a,b\n1," + b"x" * (1 << 21) + b"\n", r"a row is longer than 1,048,576 bytes"),
        (_gzip(b"a,b\n" + b"1,2\n" * 9)[:-9], r"Truncated compressed stream"),
        (_zstd(b"a,b\n" + b"1,2\n" * 9)[:-3], r"Truncated compressed stream"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    data: bytes, message: str, tmp_path: Path
) -> None:
    found = source(tmp_path / "in", data)
    with pytest.raises(StreamRNNError, match=message):
        rows(found)


def test_a_torn_file_is_not_complete_at_any_byte(tmp_path: Path) -> None:
    """Except where a row ends: nothing tells that more will follow."""
    text = b'id,x\na,1\n"b\nb",2\nc,3\n'
    whole = [{"id": "a", "x": 1}, {"id": "b\nb", "x": 2}, {"id": "c", "x": 3}]
    ends = {9: 1, 17: 2, 21: 3}
    for size in range(len(text) + 1):
        found = source(tmp_path / "in", text[:size], types={"x": "int64"})
        complete = found.is_complete(found.files[0])
        assert complete == (size in ends), text[:size]
        if complete:
            assert rows(found) == whole[: ends[size]]


@pytest.mark.parametrize("last", [b'"', b'"say ""', b'"hello\r', b'"a""b""'])
@pytest.mark.parametrize("names", [b"b", b"a,b"])
def test_a_file_that_ends_in_a_quoted_value_is_cut_off(
    last: bytes, names: bytes, tmp_path: Path
) -> None:
    before = b"x," if b"," in names else b""
    whole = names + b"\r\n" + before + b'"y\r\n"\r\n'
    torn = whole + before + last + (b"" if last.endswith(b"\r") else b"\n")
    found = source(tmp_path / "in", torn)
    assert not found.is_complete(found.files[0])
    with pytest.raises(DataError, match="cut off: a quote is not closed"):
        rows(found)
    complete = source(tmp_path / "whole", whole)
    assert complete.is_complete(complete.files[0])
    assert [row["b"] for row in rows(complete)] == ["y\r\n"]
    inches = source(tmp_path / "inches", names + b"\n" + before + b'5" pipe\n')
    assert [row["b"] for row in rows(inches)] == ['5" pipe']


def test_rows_that_are_appended_during_the_read_are_left(tmp_path: Path) -> None:
    found = source(tmp_path / "in", b"id,x\na,1\nb,2\n", rows=1)
    batches = found.batches()
    read = next(batches).batch.to_pylist()
    with (tmp_path / "in/0.csv").open("ab") as file:
        file.write(b"c,3\n" * 10)
    read += [row for each in batches for row in each.batch.to_pylist()]
    assert read == [{"id": "a", "x": 1}, {"id": "b", "x": 2}]


def test_a_last_value_may_end_with_a_newline(tmp_path: Path) -> None:
    """In quotes: then no quote is open at the end, and blank lines may follow."""
    for text in (b'"c ""\n"\n', b'"c\r\n"\r\n', b'"c\n"' + b"\n" * 9, b'"\n"\n'):
        for name, pack in PACKERS.items():
            found = source(tmp_path / f"in{name}", pack(b"a,b\n1," + text), name=f".csv{name}")
            assert len(rows(found)) == 1


ENDS = """
import sys
import tomllib
from streamrnn.stream.sources import FileSource, list_files, suffixes_of
source = FileSource(list_files(sys.argv[1], suffixes_of("csv")), None, 100)
if sys.argv[2] == "stop":
    next(source.batches())
else:
    list(source.batches())
"""


@slow
@pytest.mark.parametrize("end", ["error", "stop"])
@pytest.mark.parametrize("name", PACKERS)
def test_a_process_may_end_while_arrow_reads_ahead(tmp_path: Path, name: str, end: str) -> None:
    """It aborts if one of Arrow's threads needs Python then. (It did in half of such runs.)

    Slow: large files, and several processes that end.
    """
    text = b"a,b\n" + b"1,2\n" * 30 + b"1\n" * (end == "error") + b"1,2\n" * 1_500_000
    (tmp_path / f"log.csv{name}").write_bytes(PACKERS[name](text))
    command = [sys.executable, "-c", ENDS, str(tmp_path), end]
    for _ in range(4):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == (end == "error"), done.stderr
        assert ("line 32: expected 2 values" in done.stderr) == (end == "error")


# ---- NDJSON


def _lines(*values: Any) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in values).encode()


def test_json_has_numbers_texts_times_and_lists(tmp_path: Path) -> None:
    """A text stays one, even if it looks like a number; a key that is missing is null."""
    first = {"id": "007", "t": "2013-01-01T00:00:00+01:00", "x": 1.5, "l": [1, 2], "b": True}
    for name, pack in PACKERS.items():
        data = pack(_lines(first, {"id": "8", "x": 2}) + b"\n")
        found = source(tmp_path / f"in{name}", data, name=f".jsonl{name}")
        assert found.schema.field("t").type == pa.timestamp("us", "UTC")
        made = rows(found)
        assert made[0]["t"].isoformat() == "2012-12-31T23:00:00+00:00"
        assert [row["id"] for row in made] == ["007", "8"]
        assert [(row["x"], row["l"], row["b"]) for row in made] == [
            (1.5, [1, 2], True),
            (2.0, None, None),
        ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "x"}', r"line 4: column 'id': expected int64, received \"x\""),
        (b'{"id": 2.5}', r"line 4: column 'id': expected int64, received 2.5.*float64"),
        (b'{"id": 18446744073709551615}', r"line 4: column 'id': expected int64"),
        (b'{"id": 1', r"line 4: invalid JSON"),
        (b"[1]", r"line 4: expected one object a line, received list"),
        (b'{"id": 1} {"id": 2}', r"line 4: invalid JSON"),
        (b'{"id": 1, "id": 2}', r"line 4: .* a key is given twice"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    first = _lines({"id": 1})
    found = source(
        tmp_path / "in", first, first + b"\n" + first + line + b"\n", name=".ndjson", rows=9
    )
    with pytest.raises(DataError, match=rf"1\.ndjson.*row 2 \(from 0\), {message}"):
        rows(found)


@slow
@pytest.mark.parametrize("time", ["t", None])
def test_another_type_is_proposed_only_where_it_could_be_used(
    tmp_path: Path, time: str | None
) -> None:
    """Not text for a column of times; and the origin of a type is not a run that never was.

    Slow: a file of many blocks.
    """
    text = b"t\n" + b"2024-01-01 05:00:00\n" * 60_000 + b"oops\n"
    with pytest.raises(DataError) as refused:
        rows(source(tmp_path / "in", text, time=time))
    message = str(refused.value)
    assert "expected timestamp[us], received 'oops'; the type comes from the first rows" in message
    assert ('types = { t = "string" }' in message) == (time is None)
    assert ("or remove the row." in message) == (time is not None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "t,a\n1,2.5\n2,-\n3,x\n",
            r"row 1 \(from 0\), line 3: column 'a': .* double, received '-'",
        ),
        ("t,a\n1,UA\n2,DL\n", r"row 0 .*line 2: column 'a'.*received 'UA'.*vocabulary = "),
        ("t,a\n1,1\nnow,1\n", r"row 1 .*line 3: column 't': expected int64, received 'now'"),
        (
            "t,a\n2013-01-01T05:00-05:00,1\n2013-01-01T06:00-05:00,1\nnow,1\n",
            r"row 2 .*line 4: column 't': expected timestamp\[us, tz=UTC\], received 'now'",
        ),
        ("t,a\n01/31/2013 08:00,1\n", r"row 0 .*received '01/31/2013 08:00'.*such as 2013-01-31"),
        ("t,a\n1,007\n", None),
    ],
)
def test_text_among_numbers_or_times_is_named(
    text: str, message: str | None, tmp_path: Path
) -> None:
    """One such value makes a column text, which its type alone does not explain."""
    opened = source(tmp_path / "in", text.encode(), time="t", numbers=["a"])
    if message is None:
        assert pa.types.is_string(opened.schema.field("a").type)
        return
    with pytest.raises(DTypeError, match=message):
        assert opened.schema


def test_text_in_place_of_numbers_is_named_in_ndjson_and_under_an_old_name(tmp_path: Path) -> None:
    text = _lines({"old": "7"}, {"old": "x"})
    opened = source(tmp_path / "in", text, name=".ndjson", numbers=["a"], renames={"a": ["old"]})
    with pytest.raises(DTypeError, match=r"row 0.*line 1: column 'old': .*\"7\"\. Correct the"):
        assert opened.schema


def test_text_is_not_proposed_for_a_number_that_is_also_copied(tmp_path: Path) -> None:
    opened = source(tmp_path / "in", b"a\n1\n-\n", types={"a": "double"}, numbers=["a"])
    with pytest.raises(DataError, match=r"received '-'.*if it means null, or remove the row\.$"):
        rows(opened)


def test_integers_that_would_be_rounded_are_refused(tmp_path: Path) -> None:
    data = _lines({"id": 2**64 - 1})
    with pytest.raises(DataError, match=r'types = { id = "uint64" }'):
        rows(source(tmp_path / "in", data, name=".ndjson"))
    found = source(tmp_path / "in", data, name=".ndjson", types={"id": "uint64"})
    assert rows(found) == [{"id": 2**64 - 1}]


def test_torn_json_is_not_complete_at_any_byte(tmp_path: Path) -> None:
    text = _lines({"id": 1}, {"id": 22})
    for size in range(len(text) + 1):
        found = source(tmp_path / "in", text[:size], name=".ndjson")
        assert found.is_complete(found.files[0]) == (size > 0 and text[:size].endswith(b"\n"))
    found = source(tmp_path / "in", text + text[:-1] + b"\r", name=".ndjson")
    assert not found.is_complete(found.files[0])


def test_a_key_that_no_row_has_is_missing(tmp_path: Path) -> None:
    """A renamed one would be null in silence; one that is null is not missing."""
    first = _lines({"id": 1, "x": 1.5})
    with pytest.raises(DataError, match=r"1\.ndjson: column 'x' not found"):
        rows(source(tmp_path / "in", first, _lines({"id": 2, "y": 1.5}), name=".ndjson"))
    found = source(tmp_path / "in", first, _lines({"id": 2, "x": None}), name=".ndjson")
    assert rows(found)[1] == {"id": 2, "x": None}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=["plain", "gz", "zst"])
def test_two_passes_over_a_file_do_not_share_a_position(pack: Callable[[bytes], bytes]) -> None:
    """Arrow reads ahead in a thread, also when the next pass has begun."""
    content = np.random.default_rng(1).integers(0, 256, 300_000, np.uint8).tobytes()
    stream = pa.BufferReader(pack(content))
    one, other = decompressed(stream), decompressed(stream)
    parts: list[list[bytes]] = [[], []]
    while data := one.read(70_000):
        parts[0].append(data)
        parts[1].append(other.read(50_000))
    parts[1].append(other.read())
    assert b"".join(parts[0]) == b"".join(parts[1]) == content


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"", False),
        (b"a,b\n", False),
        (b"\n\na,b\n\n \n", False),
        (b'"a,\nb",c\n', False),
        (b"a,b\n1,2", True),
        (b"a,b\r1,2\r", True),
        (b'"a ""x""",b\n1,2\n', True),
        (_gzip(b"a,b\n1,2\n"), True),
        (_gzip(b"a,b\n1,2\n")[:-12], False),
    ],
)
def test_that_a_file_has_rows_is_told_by_its_first_lines(text: bytes, shown: bool) -> None:
    """A file of which they do not tell is counted."""
    assert shows_rows(pa.BufferReader(text), header=1) is shown
