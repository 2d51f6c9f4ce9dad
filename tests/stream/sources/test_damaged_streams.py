"""Arrow streams that are damaged or cut: an error of ours, never a crash, and nothing committed.

Damage that leaves valid Arrow with other values cannot be noticed: there is no checksum. For a
longer search: STREAMRNN_FUZZ=2000 pytest tests/stream/sources/test_damaged_streams.py (60 by
default).
"""

import functools
import io
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import damage
import logs
import numpy as np
import pyarrow as pa
import pytest

from streamrnn import Pipeline
from streamrnn.errors import DataError, StreamRNNError
from streamrnn.stream.scoring import starting_table
from streamrnn.stream.scoring.scorer import Scorer
from streamrnn.stream.sources import StreamSource

MARK = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def stream(table: pa.Table, **options: Any) -> bytes:
    """As a producer writes it, in small record batches."""
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=20)
    return out.getvalue()


def varied_log() -> pa.Table:
    """Strings, dictionaries, lists, structs, views, decimals, nulls, times."""
    log = logs.random_log(60, streams=5, nulls=0.1)
    ids, rows = log.column("id").combine_chunks(), range(60)
    more = {
        "text": ids,
        "view": ids.cast(pa.string_view()),
        "large": ids.cast(pa.large_string()),
        "list": pa.array([[i, None] * (i % 3) if i % 7 else None for i in rows]),
        "struct": pa.array([{"u": i, "v": str(i)} if i % 5 else None for i in rows]),
        "amount": pa.array(rows).cast(pa.decimal128(21, 2)),
        "words": pa.array([["p", "q"]] * 60, pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        "pair": pa.array([[1.0, 2.0]] * 60, pa.list_(pa.float32(), 2)),
    }
    table = log.set_column(0, "id", ids.dictionary_encode())
    for name, column in more.items():
        table = table.append_column(name, column)
    return table


class Cases:
    """Pipelines over the log, and the stream as it should be, with and without compression."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp())
        logs.small_model().save(folder / "m.safetensors")
        codecs = [None, *(c for c in ("lz4", "zstd") if pa.Codec.is_available(c))]
        self.sound = [stream(varied_log(), compression=codec) for codec in codecs]
        config = logs.config("-", str(folder / "m.safetensors"), "-", source={"nulls": "previous"})
        reject = {"source": {**config["source"], "bad": "reject", "late": "apply"}, "sink": {}}
        self.pipelines = [
            Pipeline.from_dict({**config, "output": {"columns": "*", **emit}, **extra})
            for emit in ({}, {"emit": "last", "last_of": 2}, {"emit": "final"})
            for extra in ({}, reject)
        ]


@functools.cache
def cases() -> Cases:
    return Cases()


def attempt(case: int) -> bool:
    """Whether a damaged stream was scored to its end."""
    sound = cases().sound[case % len(cases().sound)]
    pipeline = cases().pipelines[case // 3 % len(cases().pipelines)]
    data = damage.damaged(sound, case)
    try:
        if pipeline.config.source.bad == "error":
            _run(pipeline, data)
        else:
            _score(pipeline, data)
    except StreamRNNError as error:
        assert "stdin" in str(error)  # noqa: PT017 - both ways out are right
        return False
    return True


def _run(pipeline: Pipeline, data: bytes) -> None:
    """As `streamrnn run` does it, from stdin to stdout."""
    before = sys.stdin, sys.stdout
    out = io.BytesIO()
    stdin: Any = SimpleNamespace(buffer=io.BytesIO(data))
    stdout: Any = SimpleNamespace(buffer=out)
    sys.stdin, sys.stdout = stdin, stdout
    try:
        pipeline.run()
    except StreamRNNError:
        assert not out.getvalue().endswith(MARK)
        raise
    finally:
        sys.stdin, sys.stdout = before
    assert out.getvalue().endswith(MARK)


def _score(pipeline: Pipeline, data: bytes) -> None:
    """Rows that break the contract are taken out, and said of why."""
    loaded = pipeline.loaded
    source = StreamSource(loaded.columns, 1000, io.BytesIO(data))
    bound = loaded.bind(source.schema, "stdin")
    scorer = Scorer(bound, starting_table(bound, None, ""))
    for each in source.batches():
        scorer.score(loaded.contract.read(each.batch, each.origin))
    list(scorer.finish())


def test_no_damage_ends_the_process_or_leaks() -> None:
    found = damage.survive(__file__, damage.CASES)
    assert found["refused"] > damage.CASES / 3
    assert found["taken"] > 0


def test_the_streams_are_taken_where_they_are_not_damaged() -> None:
    for sound in cases().sound:
        for pipeline in cases().pipelines:
            (_run if pipeline.config.source.bad == "error" else _score)(pipeline, sound)


LEGACY = {"use_legacy_format": True, "metadata_version": pa.ipc.MetadataVersion.V4}


def _rows(data: bytes) -> int:
    return sum(each.batch.num_rows for each in StreamSource(None, 7, io.BytesIO(data)).batches())


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["now", "legacy"])
def test_a_stream_without_the_mark_of_its_end_is_refused(options: dict[str, Any]) -> None:
    """pyarrow takes the end of the file for it: where a producer was killed between two batches."""
    table = logs.random_log(60)
    data = stream(table, **options)
    mark = 4 if options else 8
    assert _rows(data) == 60
    with pytest.raises(
        DataError, match=r"stdin: .* after row 60: expected the end-of-stream marker"
    ):
        _rows(data[:-mark])
    ends = [at for at in range(len(data)) if _is_between_two(data[:at], table.schema)]
    assert len(ends) == 4  # behind the schema, and behind each batch but the last
    for row, end in enumerate(ends):
        with pytest.raises(
            DataError, match=f"after row {20 * row}: expected the end-of-stream marker"
        ):
            _rows(data[:end])


def _is_between_two(data: bytes, schema: pa.Schema) -> bool:
    """Whether pyarrow takes it for a whole stream, though it is not."""
    try:
        return pa.ipc.open_stream(data).read_all().schema == schema
    except (pa.ArrowInvalid, OSError):
        return False


def test_what_stands_behind_the_mark_of_a_given_stream_is_left_alone() -> None:
    """As Arrow does it: the next stream may begin there."""
    data = stream(logs.random_log(60))
    rest = io.BytesIO(data + data)
    assert sum(each.batch.num_rows for each in StreamSource(None, 100, rest).batches()) == 60
    assert sum(each.batch.num_rows for each in StreamSource(None, 100, rest).batches()) == 60
    assert rest.read() == b""


@pytest.mark.parametrize("rest", [stream(logs.random_log(9)), b"x"], ids=["stream", "byte"])
def test_nothing_may_follow_the_stream_on_stdin(
    rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cat a.arrows b.arrows` would score the first one alone."""
    data = stream(logs.random_log(60))
    for more in (b"", rest):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data + more)))
        source = StreamSource(None, 100)
        if not more:
            assert sum(each.batch.num_rows for each in source.batches()) == 60
            continue
        with pytest.raises(
            DataError, match=r"extra bytes after the end of the Arrow stream, .* 60 rows"
        ):
            list(source.batches())


def test_an_empty_stream_needs_its_mark_too() -> None:
    data = stream(logs.SCHEMA.empty_table())
    assert _rows(data) == 0
    with pytest.raises(DataError, match="after row 0: expected the end-of-stream marker"):
        _rows(data[:-8])


def test_offsets_that_lead_anywhere_are_refused_before_they_are_followed() -> None:
    table = pa.table({"id": pa.array(["aa", "bb", "cc"]), "x": [1.0, 2.0, 3.0]})
    data = bytearray(stream(table))
    at = data.index(np.array([0, 2, 4, 6], np.int32).tobytes())
    data[at + 4 : at + 8] = np.int32(1 << 30).tobytes()
    with pytest.raises(DataError, match="stdin: the Arrow stream is damaged"):
        _rows(bytes(data))


def test_columns_that_are_not_used_are_not_checked() -> None:
    """What nobody touches costs nothing, and can do no harm."""
    table = pa.table({"x": [1.0, 2.0, 3.0], "note": pa.array(["aa", "bb", "cc"])})
    data = bytearray(stream(table))
    at = data.index(np.array([0, 2, 4, 6], np.int32).tobytes())
    data[at + 4 : at + 8] = np.int32(1 << 30).tobytes()
    source = StreamSource(["x"], 7, io.BytesIO(bytes(data)))
    assert [each.batch.num_rows for each in source.batches()] == [3]


if __name__ == "__main__":
    damage.child(attempt)
