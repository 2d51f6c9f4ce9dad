"""What has to change in a table is one difference of sets; types that tables lack are named."""

import sys
from dataclasses import replace
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.base.storage import open_files
from streamrnn.errors import ConfigError
from streamrnn.jobs.outputs import Publisher, publisher
from streamrnn.jobs.outputs.publisher import TableContents, TableFile, changes
from streamrnn.plugins.lakes import publish_delta
from streamrnn.plugins.lakes.parts import delta_type, iceberg_type, lake_schema
from streamrnn.plugins.lakes.publish_delta import delta_statistics
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.checkpoints.manifest import NamedOutput
from streamrnn.stream.sinks import Part


def part(number: int, commit: int, rows: int = 5, width: int = 5) -> Part:
    name = f"part-{number:0{width}d}.parquet"
    return Part(name, rows, 10 * rows, "", commit, f"_{commit}-{number}.parquet.tmp")


def output(*parts: Part, commit: int) -> Manifest:
    return Manifest(
        output="o", commit=commit, time="", complete=True, model="", config={}, schema="",
        outputs={"rows": NamedOutput(parts)},
    )  # fmt: skip


def table(*parts: Part, commit: int | None, **facts: Any) -> TableContents:
    files = {item.name: TableFile(item.bytes, item.rows, item.name) for item in parts}
    return TableContents(files, commit, **{"same_schema": True, "version": "1", **facts})


def difference(manifest: Manifest, found: TableContents | None) -> tuple[list[int], list[str]]:
    wanted = changes(manifest, found)
    return [item.number for item in wanted.add], sorted(wanted.remove)


def test_a_table_gets_what_it_lacks_and_loses_what_the_output_has_not() -> None:
    a, b, c = part(0, 1), part(1, 2), part(2, 3)
    assert difference(output(a, b, c, commit=3), None) == ([0, 1, 2], [])
    assert difference(output(a, b, c, commit=3), table(a, commit=1)) == ([1, 2], [])
    assert difference(output(a, commit=4), table(a, b, c, commit=3)) == ([], [b.name, c.name])
    assert not changes(output(a, b, commit=2), table(a, b, commit=2))
    assert not changes(output(a, b, commit=5), table(a, b, commit=2))  # commits without parts
    unknown = replace(a, rows=None)  # type: ignore[arg-type]  # the log has no statistics
    assert not changes(output(a, commit=1), table(unknown, commit=1))


def test_a_name_that_is_used_again_is_another_file() -> None:
    a, b = part(0, 1), part(1, 2)
    again = part(1, 4)  # after a rewind, of the same size
    assert difference(output(a, again, commit=4), table(a, b, commit=2)) == ([1], [])
    merged = part(0, 3, rows=10)
    assert difference(output(merged, commit=3), table(a, b, commit=2)) == ([0], [b.name])


@pytest.mark.parametrize("facts", [{"commit": None}, {"commit": 9}, {"commit": 2, "rows": 4}])
def test_a_table_that_others_changed_is_registered_anew(facts: dict[str, Any]) -> None:
    """Or one that is ahead of a folder from a backup, or whose file has other rows."""
    a, b = part(0, 1), part(1, 2)
    listed = replace(b, rows=facts.pop("rows", b.rows))
    found = table(a, listed, **facts)
    assert difference(output(a, b, commit=2), found)[0][-1] == 1


def test_only_a_name_of_more_digits_is_no_news() -> None:
    old = [part(number, 1, width=1) for number in range(3)]
    new = [part(number, 1, width=2) for number in range(3)] + [part(10, 2, width=2)]
    wanted = changes(output(*new, commit=2), table(*old, commit=1))
    assert len(wanted.add) == 4
    assert len(wanted.remove) == 3
    assert wanted.moved == {item.name for item in (*old, *new[:3])}


def test_merged_parts_are_no_news_if_nothing_else_happened() -> None:
    a, b = part(0, 1), part(1, 2)
    wanted = changes(output(part(0, 3, 10), commit=3), table(a, b, commit=2), merged=True)
    assert wanted.moved == {a.name, b.name}


TYPES: list[tuple[pa.DataType, pa.DataType | str, pa.DataType | str]] = [
    (pa.int8(), pa.int8(), pa.int32()),
    (pa.uint8(), pa.int16(), pa.int32()),
    (pa.uint32(), pa.int64(), pa.int64()),
    (pa.uint64(), "cast it to int64", "cast it to int64"),
    (pa.float16(), "cast it to float", "cast it to float"),
    (pa.large_string(), pa.string(), pa.string()),
    (pa.dictionary(pa.int32(), pa.string()), pa.string(), pa.string()),
    (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
    (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us", "Europe/Berlin"), pa.timestamp("us", "UTC"), "timestamp[us, tz=UTC]"),
    (pa.timestamp("ns"), "cast it to timestamp[us]", "cast it to timestamp[us]"),
    (pa.date64(), "cast it to date32", "cast it to date32"),
    (pa.time64("us"), "an integer or text", pa.time64("us")),
    (pa.duration("us"), "an integer or text", "an integer or text"),
    (pa.decimal128(10, 2), pa.decimal128(10, 2), pa.decimal128(10, 2)),
    (pa.decimal256(40, 2), "decimal128", "decimal128"),
    (pa.list_(pa.float32(), 3), pa.list_(pa.float32()), pa.list_(pa.float32())),
    (pa.list_(pa.uint64()), "cast it to int64", "cast it to int64"),
    (pa.struct([("a", pa.uint8())]), pa.struct([("a", pa.int16())]), None or
     pa.struct([("a", pa.int32())])),
    (pa.null(), "give it a type", "give it a type"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "in_delta", "in_iceberg"), TYPES, ids=lambda kind: str(kind))
def test_each_type_has_one_in_a_table_or_is_refused_with_the_cast_to_make(
    found: pa.DataType, in_delta: pa.DataType | str, in_iceberg: pa.DataType | str
) -> None:
    for format, rule, wanted in (
        ("Delta", delta_type, in_delta), ("Iceberg", iceberg_type, in_iceberg),
    ):  # fmt: skip
        schema = pa.schema([("ok", pa.int64()), ("x", found)])
        if isinstance(wanted, str):
            with pytest.raises(ConfigError) as refused:
                lake_schema(schema, rule, format)
            assert f"column 'x' has the type {found}" in str(refused.value)
            assert wanted in str(refused.value)
        else:
            assert lake_schema(schema, rule, format).field("x").type == wanted


def test_statistics_are_those_of_the_footer(tmp_path) -> None:
    """Without bounds of floats, as Parquet's leave out NaN, and of long texts."""
    time = pa.array([0, None, 5_000_000], pa.int64()).cast(pa.timestamp("us", "Europe/Berlin"))
    rows = pa.table(
        {
            "i": pa.array([3, None, -1], pa.int32()),
            "s": ["b", "a", None],
            "long": ["x" * 100, "y", "z"],
            "t": time,
            "f": [1.0, float("nan"), 2.0],
            "b": [True, False, None],
            "l": [[1], [2], None],
        }
    )
    pq.write_table(rows, tmp_path / "x.parquet", row_group_size=2)
    assert delta_statistics(pq.read_metadata(tmp_path / "x.parquet")) == (
        '{"numRecords": 3, '
        '"minValues": {"i": -1, "s": "a", "long": "x", "t": "1970-01-01T00:00:00.000000Z"}, '
        '"maxValues": {"i": 3, "s": "b", "long": "z", "t": "1970-01-01T00:00:05.000000Z"}, '
        '"nullCount": {"i": 1, "s": 1, "long": 0, "t": 1, "f": 0, "b": 1}}'
    ).replace('"long": "x", ', "")


@pytest.mark.parametrize(
    ("library", "tables", "advice"),
    [
        ("deltalake", {"delta": True}, "pip install 'streamrnn[delta]'"),
        ("pyiceberg", {"iceberg": {"catalog": "c", "table": "n.t"}},
         "pip install 'streamrnn[iceberg]'"),
    ],
)  # fmt: skip
def test_a_missing_library_is_told_before_the_first_row(
    library: str, tables: dict[str, Any], advice: str, tmp_path, monkeypatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    pq.write_table(logs.random_log(20), tmp_path / "log.parquet")
    logs.small_model().save(str(tmp_path / "m.safetensors"))
    pipeline = Pipeline.from_dict(
        {
            "source": {
                "path": str(tmp_path / "log.parquet"), "key": "id", "features": ["a", "b"]
            },
            "model": {"path": str(tmp_path / "m.safetensors")},
            "sink": {"path": str(tmp_path / "out")},
            "publish": tables,
        }
    )  # fmt: skip
    for act in (pipeline.run, pipeline.validate):
        with pytest.raises(ConfigError) as refused:
            act()
        assert advice in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_names_that_a_delta_table_cannot_have_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(publish_delta, "_library", lambda: None)
    log = publish_delta.DeltaLog(open_files(str(tmp_path)), "out")
    with pytest.raises(ConfigError, match="'dep time'"):
        log.check(pa.schema([("dep time", pa.int64())]))
    with pytest.raises(ConfigError, match="'p', 'P' are the same name"):
        log.check(pa.schema([("p", pa.int64()), ("P", pa.int64())]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach s3://bucket/x, sorry\nTraceback (most recent\n a",
         "cannot reach s3://bucket/x, sorry"),
        ("Generic error\n  \x1b[31m↳\x1b[0m Unable to open file /out/x\n \x1b[31m↳\x1b[0m Denied\n",
         "Generic error: Unable to open file /out/x: Denied"),
        ("no file\n(Background on this error at: https://sqlalche.me/e/21/e3q8)", "no file"),
        ("ServerError: down.\n\tat org.x.Main(Main.java:9)\n\tat b(c)", "ServerError: down"),
        ("a" * 600 + ":\nthe cause", "a" * 250 + " … " + "a" * 239 + ": the cause"),
        ("", ""),
    ],
    ids=["python", "causes", "link", "trace", "long", "empty"],
)  # fmt: skip
def test_a_failure_is_told_with_its_causes_and_no_more(text: str, shown: str) -> None:
    assert publisher._reason(OSError(), text) == f"OSError: {shown}".rstrip(": ") + "."


def test_an_output_without_tables_needs_no_library(tmp_path) -> None:
    assert Publisher.of({}, str(tmp_path)).publish(output(commit=1)) == []
