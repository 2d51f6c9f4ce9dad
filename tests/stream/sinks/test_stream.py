"""Rows as an Arrow stream."""

import io
import os
import subprocess
import sys

import pyarrow as pa
import pytest

from streamrnn.errors import PipeClosed, SinkError
from streamrnn.stream.sinks import StreamSink

SCHEMA = pa.schema([("y", pa.float32())])


def batch(*values):
    return pa.record_batch([pa.array(values, pa.float32())], schema=SCHEMA)


def test_batches_come_back_as_they_were_given():
    stream = io.BytesIO()
    sink = StreamSink(SCHEMA, stream)
    sink.write(batch(1, 2))
    sink.write(batch(3))
    sink.close()
    found = pa.ipc.open_stream(stream.getvalue())
    assert [each.to_pydict() for each in found] == [{"y": [1, 2]}, {"y": [3]}]


def test_each_batch_is_there_at_once():
    stream = io.BufferedWriter(raw := io.BytesIO(), buffer_size=1 << 20)
    sink = StreamSink(SCHEMA, stream)
    sink.write(batch(1))
    before = len(raw.getvalue())
    sink.write(batch(2))
    assert 0 < before < len(raw.getvalue())
    sink.close()


def test_no_rows_still_say_their_schema():
    stream = io.BytesIO()
    StreamSink(SCHEMA, stream).close()
    assert pa.ipc.open_stream(stream.getvalue()).read_all().schema == SCHEMA


def test_a_run_that_fails_does_not_end_the_stream_as_if_it_were_whole():
    stream = io.BytesIO()

    def fail():
        StreamSink(SCHEMA, stream).write(batch(1))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not stream.getvalue().endswith(b"\xff\xff\xff\xff\x00\x00\x00\x00")


def test_a_reader_that_went_away_is_told_apart_from_a_failure():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        sink = StreamSink(SCHEMA, pipe)
        with pytest.raises(PipeClosed) as caught:
            sink.write(batch(1))
    assert caught.value.exit_code == 0


def test_a_stream_that_cannot_be_written_says_why():
    """It has no commit to resume from."""
    with open("/dev/full", "wb", buffering=0) as full:
        sink = StreamSink(SCHEMA, full)
        with pytest.raises(SinkError, match="No space") as caught:
            sink.write(batch(1))
    assert "rerun the same command; it writes the stream from its beginning" in str(caught.value)


QUIET = """
import sys, pyarrow as pa
from streamrnn.errors import PipeClosed
from streamrnn.stream.sinks import StreamSink
schema = pa.schema([("y", pa.int64())])
try:
    sink = StreamSink(schema)
    for start in range(1000):
        sink.write(pa.record_batch([list(range(10000))], schema=schema))
except PipeClosed:
    sys.exit(0)
sys.exit(9)
"""


def test_a_broken_pipe_ends_quietly():
    writer = subprocess.Popen(
        [sys.executable, "-c", QUIET],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    writer.stdout.read(1000)
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait() == 0
