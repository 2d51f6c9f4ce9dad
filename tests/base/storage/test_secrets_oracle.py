"""URIs with options and credentials on an S3 server, in every command: nothing keeps a secret."""

import json
import logging
import re
import signal
import subprocess
import sys
import time

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from base.storage.s3_server import Proxy, empty_bucket, environment, options
from pyarrow import fs as arrow_fs

from streamrnn import Pipeline, errors
from streamrnn.base.display import location
from streamrnn.base.storage import remote
from streamrnn.cli.app import main
from streamrnn.outputs import read_states, verify
from streamrnn.stream.checkpoints import read_manifest

pytest.importorskip("moto.server", reason="needs the oracles extra")

USER = "KEYOFMINE:SECRETOFMINE@"
SECRET = re.compile("KEYOFMINE|SECRETOFMINE")
PIPELINE = """
[source]
path = "s3://{user}bucket/{name}/in?{options}"
key = "id"
time = "t"
features = ["a", "b"]
late = "reject"
batch_rows = 20
[model]
path = "{model}"
[sink]
path = "s3://{user}bucket/{name}/out?{options}"
[state]
save = "s3://{user}bucket/{name}/end.parquet?{options}"
[checkpoint]
every = 1
"""


@pytest.fixture(scope="module")
def proxy():
    with empty_bucket() as (_, port):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        yield Proxy("127.0.0.1", port)


@pytest.fixture
def bucket(proxy, request, tmp_path):
    """A folder of the bucket for one test: the log of a source, without its last rows."""

    class Bucket:
        name = request.node.name
        options = options(proxy.port)
        fs, _ = arrow_fs.FileSystem.from_uri(f"s3://bucket/x?{options}&allow_bucket_creation=true")
        model = str(tmp_path / "m.safetensors")
        log = logs.random_log(120, jitter=60)

        def put(self, name, table):
            with self.fs.open_output_stream(f"bucket/{self.name}/{name}") as stream:
                pq.write_table(table, stream)

        def write(self, user=USER, options=None):
            path = tmp_path / "p.toml"
            options = options or self.options
            path.write_text(
                PIPELINE.format(user=user, name=self.name, model=self.model, options=options)
            )
            return str(path)

        def uri(self, name="out", user=USER):
            return f"s3://{user}bucket/{self.name}/{name}?{self.options}"

        def respelled(self, name="out"):
            return f"s3://bucket/{self.name}/{name}?{'&'.join(self.options.split('&')[::-1])}"

        def objects(self):
            infos = self.fs.get_file_info(
                arrow_fs.FileSelector(f"bucket/{self.name}", recursive=True)
            )
            return {
                info.path: self.fs.open_input_file(info.path).read()
                for info in infos
                if info.is_file
            }

    found = Bucket()
    found.fs.create_dir("bucket")
    logs.small_model().save(found.model)
    found.put("in/1.parquet", found.log.slice(0, 100))
    return found


@pytest.fixture
def call(capsys, caplog):
    """Run a command; all that it prints and logs, without a secret."""
    caplog.set_level(logging.DEBUG)

    def call(*arguments, code=0):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        printed = captured.out + captured.err + caplog.text
        assert ended.value.code == code, printed
        assert not SECRET.search(printed), arguments
        assert not SECRET.search(repr(ended.value.__context__))
        caplog.clear()
        return printed

    return call


def test_no_command_prints_or_stores_a_secret(bucket, call, tmp_path):
    path, out = bucket.write(), bucket.uri()
    shown = f"s3://bucket/{bucket.name}/out?endpoint_override="
    call("validate", path)
    assert shown in call("explain", path)
    assert shown in call("run", path, "-v")
    call("run", path)
    bucket.put("in/2.parquet", bucket.log.slice(100))
    summary = json.loads(call("run", path, "--json", "-q"))
    assert summary["rejected"] > 0
    assert summary["output"].startswith(shown)
    assert summary["rejects"].startswith(f"s3://bucket/{bucket.name}/out.rejects?")
    call("explain", path)
    call("run", path, "--limit", "3")
    assert "is intact" in call("verify", out)
    end = bucket.uri("end.parquet")
    before = call("state", "show", out)
    assert call("state", "show", end) == before
    call("state", "diff", out, end)
    local = str(tmp_path / "s.parquet")
    call("state", "export", out, "-o", local)
    call("state", "export", out, "-o", bucket.uri("s.arrow"))
    call("state", "drop", out, "--key", "s1")
    call("state", "diff", out, end, code=1)
    call("state", "import", bucket.uri("s.arrow"), out)
    call("state", "reset", out, "--key", "s1")
    call("state", "compact", out, "--idle", "90d")
    call("state", "gc", out)
    call("compact", out)
    call("rewind", out)
    call("rewind", out, "--to", "6")
    call("run", path, "--reload")
    call("run", path, "--set", "output.warmup=3", code=1)
    call("run", path, "--set", f"sink.path={bucket.uri('out/inside')}", code=78)
    call("run", path, "--set", "source.key=nothing", code=65)
    call("run", path, "--set", f"state.save={bucket.uri('end.csv')}", code=78)
    call("run", path, "--set", f"source.path={bucket.uri('nothing')}", code=66)
    call(
        "run",
        path,
        "--set",
        f"state.init={bucket.uri('nothing.parquet')}",
        "--full-refresh",
        code=66,
    )
    call("run", path, "--set", f"sink.path={bucket.uri()}&secret_key=SECRETOFMINE", code=78)
    call("run", path, "--set", "sink.path=s3://KEYOFMINE:SECRETO FMINE@bucket/x", code=78)
    call("run", path, "--set", "source.path=s3://KEYOFMINE:SECRET/OFMINE@bucket/x", code=78)
    call("verify", bucket.uri("nothing"), code=66)
    call("state", "show", bucket.uri("nothing"), code=66)
    objects = bucket.objects()
    assert len(objects) > 6
    assert [name for name, data in objects.items() if SECRET.search(data.decode("latin-1"))] == []
    rejects = next(name for name in objects if ".rejects/part" in name)
    table = pq.read_table(pa.BufferReader(objects[rejects]))
    assert table["file"].to_pylist()[0].startswith(f"s3://bucket/{bucket.name}/in/")


def test_the_same_output_by_another_spelling(bucket, call):
    """Options in another order, and credentials from the environment; rejects are found again."""
    call("run", bucket.write(), "-q")
    bucket.put("in/2.parquet", bucket.log.slice(100))
    path = bucket.write("", bucket.respelled().partition("?")[2])
    call("run", path, "-q", "--set", f"source.path={bucket.uri('in')}")
    manifest = read_manifest(bucket.uri())
    assert manifest.complete
    assert len(manifest.sources) == 2
    assert manifest.named("rejects").rows > 0
    assert verify(bucket.uri(user="")).rejected == manifest.named("rejects").rows


def test_checkpoints_and_objects_hold_no_secret(bucket, tmp_path):
    """`process` needs no source; a resumed pipeline reads it with the environment's credentials."""
    pipeline = Pipeline.from_toml(bucket.write())
    assert not SECRET.search(repr(pipeline))
    assert not SECRET.search(repr(pipeline.config))
    pipeline.process(bucket.log.slice(0, 50))
    for path in (str(tmp_path / "c.arrow"), bucket.uri("c.arrow"), bucket.uri("c.parquet")):
        pipeline.checkpoint(path, include_model=True)
        resumed = Pipeline.resume(path)
        assert resumed.state.to_arrow() == pipeline.state.to_arrow()
        assert resumed.config.source.path == location(bucket.uri("in"))
        assert not SECRET.search(str(read_states(path).schema.metadata))
        assert not SECRET.search(str(resumed.config))
    assert not SECRET.search((tmp_path / "c.arrow").read_bytes().decode("latin-1"))
    assert resumed.config.sink.rejects == location(bucket.uri("out.rejects"))


def test_a_pipeline_starts_from_a_state_in_a_bucket(bucket, call):
    """[state] init by a table, and by an output; the same with options in another order."""
    call("run", bucket.write(), "-q")
    bucket.put("in/2.parquet", bucket.log.slice(100))
    path = bucket.write()
    for name in ("end.parquet", "out"):
        target = f"sink.path={bucket.uri('from-' + name)}"
        for uri in (bucket.uri(name), bucket.respelled(name)):
            call(
                "run",
                path,
                "-q",
                "--set",
                f"state.init={uri}",
                "--set",
                target,
                "--set",
                f"state.save={bucket.uri('other.parquet')}",
            )


def test_errors_of_any_kind_hold_no_secret():
    uri = "s3://KEYOFMINE:SECRETOFMINE@b/x"
    for kind in (errors.SinkError, errors.MissingFileError, errors.ConfigError):
        error = kind(f"{uri}?secret_key=SECRETOFMINE&region=x: refused")
        assert not SECRET.search(repr(error) + str(error))
        assert "s3://b/x" in str(error)
    assert not SECRET.search(repr(errors.LateRowError("a", "b", uri, 3)))
    with pytest.raises(pa.ArrowInvalid) as caught:
        remote.connect("s3://KEYOFMINE:SECRET OFMINE@b/x")
    assert not re.search("KEYOFMINE|OFMINE", repr(caught.value))
    assert caught.value.__cause__ is None


def test_slow_answers_are_waited_for(bucket, proxy, call, monkeypatch):
    """Each answer takes most of the time that a silent server gets."""
    call("run", bucket.write(), "-q", "--set", "source.batch_rows=100")
    shown = call("state", "show", bucket.uri("end.parquet"))
    monkeypatch.setattr(remote, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(proxy, "delay", 0.7)
    assert call("state", "show", bucket.uri("end.parquet")) == shown
    assert "error: " in call("state", "show", bucket.uri("no.parquet"), code=66)


RUN = """
import sys
from streamrnn.cli import process
from streamrnn.stream.checkpoints.reading import MANIFEST
from streamrnn.cli.app import main
from streamrnn.base.display import location
process.WAITS = 2
main(["run", sys.argv[1], "-q"])
"""


def test_a_server_that_stops_answering_leaves_the_state_intact(bucket, proxy, call):
    """SIGTERM while it is silent; the next run ends as an undisturbed one."""
    path = bucket.write()
    asked = len(proxy.requests)
    command = [sys.executable, "-c", RUN, path]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as run:
        end = time.monotonic() + 60
        while time.monotonic() < end and not any(
            "manifest.json" in line and "PUT" in line for line in proxy.requests[asked:]
        ):
            time.sleep(0.01)
        proxy.silence()
        try:
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=30)
        finally:
            proxy.answer()
    assert run.returncode == 130
    call("run", path, "-q")
    call("run", path, "-q", "--set", f"sink.path={bucket.uri('undisturbed')}")
    assert read_states(bucket.uri()) == read_states(bucket.uri("undisturbed"))
    assert verify(bucket.uri()).rows == verify(bucket.uri("undisturbed")).rows
