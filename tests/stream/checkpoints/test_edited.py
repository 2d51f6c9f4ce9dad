"""Every value of a manifest replaced by one of another type, with a valid checksum: one error."""

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import logs
import pytest
from selection import slow

from streamrnn.base.display import count
from streamrnn.errors import CheckpointError, StreamRNNError
from streamrnn.outputs import (
    export_state,
    history,
    import_state,
    read_states,
    reset_streams,
    rewind,
    verify,
)
from streamrnn.pipeline import Pipeline

MANIFEST = Path("out/_streamrnn/_manifest.json")
Place = tuple[str | int, ...]
ROWS = f"rows of part-00000.parquet in rows: expected 0 to {2**63 - 1}"
OTHERS: list[Any] = [None, 5, "text", [], {"a": "text"}]


@pytest.fixture
def out(model_dir: Path) -> str:
    """Work in a folder with an output of two runs."""
    for name in ("one", "two"):
        log = logs.random_log(rows=40, streams=3, seed=len(name))
        logs.write(log.slice(0, 40 if name == "one" else 25), Path(f"in/{name}.parquet"))
        pipeline().run()
    export_state("out", "s.arrow")
    shutil.copytree("out", "good")
    return "out"


def pipeline() -> Pipeline:
    """Make a pipeline with a commit for each record batch."""
    tables: dict[str, dict[str, Any]] = {
        "source": {"batch_rows": 10, "late": "apply", "bad": "reject"},
        "window": {"kind": "independent", "steps": 4, "stride": 2},
        "checkpoint": {"every": 1},
    }
    return Pipeline.from_dict(logs.config("in", "m.safetensors", "out", **tables))


def leaves(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the places of all values, those with others inside too."""
    if place:
        yield place
    if isinstance(value, list):
        value = dict(list(enumerate(value))[-1:])  # the entries are alike
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))


def edit(manifest: dict[str, Any], place: Place, value: Any) -> None:
    """Write a manifest with another value at one place."""
    found = copy.deepcopy(manifest)
    inner: Any = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    rest = json.dumps(found)[1:].encode()
    digest = hashlib.sha256(rest).hexdigest()
    MANIFEST.write_bytes(b'{\n "sha256": "%s",\n' % digest.encode() + rest)


def restore() -> None:
    """Restore the output."""
    shutil.rmtree("out", ignore_errors=True)
    shutil.copytree("good", "out", copy_function=os.link)


@slow
def test_any_value_of_another_type_is_one_error(out: str) -> None:
    """Whatever reads the manifest raises a StreamRNNError, or succeeds. Slow: every value of the
    manifest; the quick tests have some."""
    calls: list[Callable[[], object]] = [
        lambda: history("out"),
        lambda: read_states("out"),
        lambda: rewind("out", before="2020-01-01"),
        lambda: pipeline().explain(),
        lambda: reset_streams("out", ["s0"]),
        lambda: import_state("s.arrow", "out"),
        lambda: pipeline().run(),
        lambda: verify("out"),
    ]
    good = json.loads(MANIFEST.read_bytes())
    del good["sha256"]
    places = list(leaves(good))
    assert len(places) > 100
    for place in places:
        for value in OTHERS:
            restore()
            for call in calls:
                edit(good, place, value)
                try:
                    call()
                except StreamRNNError as error:
                    if "was edited" in str(error):
                        break  # all others read it, too


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (("commit",), "two", "commit of Manifest: expected int, received 'two' (str)"),
        (("outputs", "rows", "parts"), 5, "outputs.rows.parts: expected a list, received 5 (int)"),
        (("sources", 0), None, "sources[0]: expected an object, received null"),
        (("shards", 0, "files"), {}, "shards[0].files: expected a list, received {} (dict)"),
        (("kept", 0, "time"), "noon", "time: expected a time in ISO format, received 'noon' (str)"),
        (("counters",), {"rejected": "1"}, "counters rejected: expected int, received '1' (str)"),
        (("schema",), "text", "schema: expected an Arrow schema in base64, received 'text' (str)"),
        (("schema",), "text!", "schema: expected an Arrow schema in base64"),
        (
            ("config", "source.schema"),
            None,
            "config source.schema: expected a table, received nothing",
        ),
        (
            ("config", "source.schema", "id"),
            [1],
            "config source.schema: column 'id': expected the name of a type, received the list [1]",
        ),
        (
            ("config", "source.types"),
            None,
            "config source.types: expected a table of column = type, received nothing",
        ),
        (
            ("config", "window.kind"),
            ["carry"],
            'config window.kind: expected "carry", "independent" or "whole", received the list',
        ),
        (("outputs", "rows", "parts", 0, "rows"), -1, f"{ROWS}, received -1."),
        (("outputs", "rows", "parts", 0, "rows"), 10**30, f"{ROWS}, received 1{'0' * 30}."),
        (("shards",), [], "shards of commit "),
        (("kept", 0, "shards"), [], "shards of commit "),
        (
            ("config", "checkpoint.keep"),
            "7",
            "config checkpoint.keep: expected an integer from 0 to 2147483647, received the string",
        ),
        (
            ("config", "serve.log"),
            5,
            "config serve.log: expected a non-empty string, received the integer 5",
        ),
    ],
)
def test_the_message_names_key_expected_and_received(
    out: str, place: Place, value: Any, text: str
) -> None:
    good = json.loads(MANIFEST.read_bytes())
    del good["sha256"]
    edit(good, place, value)
    with pytest.raises(CheckpointError) as caught:
        history("out")
    assert f"out/_streamrnn/_manifest.json was edited: its checksum is valid, but {text}" in str(
        caught.value
    )
    assert "Restore it from a backup, or start over with --full-refresh" in str(caught.value)


@pytest.mark.parametrize("field", ["name", "staged"])
def test_a_part_given_twice_is_refused(out: str, field: str) -> None:
    good = json.loads(MANIFEST.read_bytes())
    del good["sha256"]
    first, second = good["outputs"]["rows"]["parts"][:2]
    edit(good, ("outputs", "rows", "parts", 1), {**second, field: first[field]})
    for call in (lambda: verify("out"), lambda: pipeline().run()):
        with pytest.raises(CheckpointError, match=f"{field} of rows: '{first[field]}' is given"):
            call()


def test_a_wrong_number_of_rows_is_found_by_verify(out: str) -> None:
    good = json.loads(MANIFEST.read_bytes())
    del good["sha256"]
    part = good["outputs"]["rows"]["parts"][0]
    edit(good, ("outputs", "rows", "parts", 0, "rows"), part["rows"] + 1)
    with pytest.raises(CheckpointError) as caught:
        verify("out")
    assert str(caught.value) == (
        f"{os.path.abspath('out')}/{part['name']} has {count(part['rows'], 'row')}, expected "
        f"{count(part['rows'] + 1, 'row')} as in the manifest, which was edited. Restore the "
        "manifest from a backup, or start over with --full-refresh."
    )
