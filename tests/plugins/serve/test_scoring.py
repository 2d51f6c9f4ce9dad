"""Requests in a session, and in its log, without a server."""

import asyncio
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import logs
import pyarrow.parquet as pq
import pytest
from starlette.exceptions import HTTPException

from streamrnn import Pipeline
from streamrnn.base.storage import LocalFiles
from streamrnn.base.storage.local import lock_file
from streamrnn.errors import CheckpointError, ConfigError, DataError, SinkError
from streamrnn.outputs import drop_streams, export_state, history, import_state, reset_streams
from streamrnn.plugins.serve.log import Log
from streamrnn.plugins.serve.scoring import Asked, Scoring, Service, log_of

ROWS = [{"id": "x", "t": "2024-05-01", "a": 1.0, "b": 2}]


class Crash(BaseException):
    """Ends a session without a commit."""


def answered(
    pipeline: Pipeline, rows: Any = ROWS, number: int = 7, *, crash: bool = False
) -> list[Any]:
    """The answers to a request of a producer."""
    answers = []
    with suppress(Crash), log_of(pipeline.config), pipeline.session() as session:
        answers = Scoring(session, pipeline.config).answers([Asked(rows, "p", number)])
        if crash:
            raise Crash
    return answers


def live(folder: Path, keep_log: str | None = None, **source: Any) -> Pipeline:
    """A pipeline with files that give types."""
    logs.small_model().save(folder / "m.safetensors")
    logs.write(logs.random_log(20), folder / "in/0.parquet")
    serve = {} if keep_log is None else {"keep_log": keep_log}
    model, out = str(folder / "m.safetensors"), str(folder / "out")
    return Pipeline.from_dict(
        logs.config(str(folder / "in"), model, out, source=source, serve=serve)
    )


def test_an_unexpected_error_ends_server_and_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state may have rows that the log has not: neither may be used again."""
    pipeline = live(tmp_path)

    def broken(*_: Any) -> None:
        raise MemoryError("no room")

    async def request(service: Service) -> None:
        with pytest.raises(HTTPException, match="the server ends"):
            await service.score(Asked(ROWS))
        assert service.ended.is_set()

    def serve() -> None:
        with log_of(pipeline.config), pipeline.session() as session:
            service = Service("live", pipeline.config.serve)
            service.scoring = Scoring(session, pipeline.config)
            asyncio.run(request(service))
            with pytest.raises(SinkError, match="this session is over: MemoryError: no room"):
                service.scoring.commit()
            assert isinstance(service.failure, MemoryError)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("streamrnn.plugins.serve.scoring.json_objects", broken)
        with pytest.raises(KeyboardInterrupt):
            serve()
    assert [len(rows) for rows in answered(pipeline)] == [1]
    assert len(pq.read_table(tmp_path / "out")) == 1


def test_after_an_error_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unknown how much of a segment is on disk, so not even its end may be written.

    Nor is a retry answered: its request may not be on disk.
    """
    pipeline = live(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with suppress(Crash), log_of(pipeline.config), pipeline.session() as session:
        scoring = Scoring(session, pipeline.config)
        scoring.answers([Asked(ROWS)])
        with monkeypatch.context() as patch:
            patch.setattr(LocalFiles.disk, "sync", full)
            with pytest.raises(SinkError, match="No space left"):
                scoring.answers([Asked(ROWS, "p", 7)])
        (segment,) = (tmp_path / "out.accepted").glob("0*")
        content = segment.read_bytes()
        for call in (lambda: scoring.answers([Asked(ROWS, "p", 7)]), scoring.commit):
            with pytest.raises(SinkError, match=r"this session is over: .*No space left"):
                call()
        raise Crash
    assert segment.read_bytes() == content


def test_a_request_that_no_segment_has_is_new_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment begins with what producers were told before, and not with what they are next."""
    pipeline = live(tmp_path)
    append = Log.append

    def torn(self: Log, rows: Any, _: Any) -> None:
        append(self, rows.slice(0, 0), {})
        self.sync()
        raise SinkError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Log, "append", torn)
        with pytest.raises(SinkError, match="full"):
            answered(pipeline)
    ((row,),) = answered(pipeline)
    assert row["id"] == "x"
    assert len(pq.read_table(tmp_path / "out")) == 1


def test_a_retry_that_waits_beside_its_request_adds_nothing(tmp_path: Path) -> None:
    pipeline = live(tmp_path)

    async def requests(service: Service) -> list[Any]:
        asked = [Asked(ROWS, "p", 7), Asked(ROWS, "p", 7), Asked(ROWS), Asked(ROWS, "p", 8)]
        return await asyncio.gather(*map(service.score, asked))

    with log_of(pipeline.config), pipeline.session() as session:
        service = Service("live", pipeline.config.serve)
        service.scoring = Scoring(session, pipeline.config)
        first, again, other, following = asyncio.run(requests(service))
    assert first == again != other != following
    assert len(pq.read_table(tmp_path / "out")) == 3


def test_a_retry_does_not_end_a_server_whose_answers_have_other_columns(tmp_path: Path) -> None:
    """As the rows were scored again for an output with other columns; nothing is added."""
    pipeline = live(tmp_path)
    answered(pipeline)
    shutil.rmtree(tmp_path / "out")
    for columns in (["b", "a"], ["id", "t", "a", "b"]):
        config = pipeline.config.model_dump(mode="json", exclude_unset=True)
        config["output"] = {"columns": columns}
        config["sink"]["path"] = str(tmp_path / columns[0])
        config["serve"] = {"log": str(tmp_path / "out.accepted")}
        (refusal,) = answered(Pipeline.from_dict(config))
        assert isinstance(refusal, HTTPException)
        assert "the answer is not kept; expected sequence 8, received 7" in refusal.detail
        assert len(pq.read_table(tmp_path / columns[0])) == 1
        shutil.rmtree(tmp_path / columns[0])


def test_a_retry_of_refused_rows_has_their_answer_after_a_crash(tmp_path: Path) -> None:
    """Also if the log has no row, and the types of the columns came with the request."""
    pipeline = live(tmp_path, bad="reject")
    shutil.rmtree(tmp_path / "in")
    rejected = [{**ROWS[0], "a": None}]
    (first,) = answered(pipeline, rejected, crash=True)
    assert first[0]["reason"].startswith("rejected: column 'a'")
    assert answered(pipeline, rejected) == [first]


def test_a_model_that_was_loaded_is_there_after_a_crash(tmp_path: Path) -> None:
    """And the model before it is refused, even if no row came after the change."""
    pipeline = live(tmp_path)
    model = logs.small_model()
    model.set_weights([weights * 0.5 for weights in model.get_weights()])
    model.save(tmp_path / "other.safetensors")
    with suppress(Crash), log_of(pipeline.config), pipeline.session() as session:
        scoring = Scoring(session, pipeline.config)
        scoring.answers([Asked(ROWS)])
        scoring.load_model(str(tmp_path / "other.safetensors"), "carry")
        raise Crash
    with pytest.raises(CheckpointError, match="was written by another model"):
        answered(pipeline)


def test_another_model_does_not_score_what_was_answered(tmp_path: Path) -> None:
    """Its outputs would be others than the answers; without such rows it takes over."""
    pipeline = live(tmp_path)
    answered(pipeline)
    ((row,),) = answered(pipeline, [{**ROWS[0], "t": "2024-05-02"}], 8, crash=True)
    model = logs.small_model()
    model.set_weights([weights * 0.5 for weights in model.get_weights()])
    model.save(tmp_path / "other.safetensors")
    with_other = Pipeline.from_dict(
        logs.config(
            str(tmp_path / "in"),
            str(tmp_path / "m.safetensors"),
            str(tmp_path / "out"),
            model={"path": str(tmp_path / "other.safetensors"), "on_change": "carry"},
        )
    )
    with pytest.raises(CheckpointError, match=r"were scored by model .* once with that model"):
        answered(with_other, number=9)
    answered(pipeline, [{**ROWS[0], "t": "2024-05-03"}], 9)
    answered(with_other, [{**ROWS[0], "t": "2024-05-04"}], 10)
    scores = pq.read_table(tmp_path / "out")["score"].to_pylist()
    assert (scores[1], len(scores)) == (row["score"], 4)


def test_no_model_is_loaded_before_a_commit_can_name_it(tmp_path: Path) -> None:
    pipeline = live(tmp_path)
    shutil.rmtree(tmp_path / "in")
    with (
        log_of(pipeline.config),
        pipeline.session() as session,
        pytest.raises(ConfigError, match="no row has been scored"),
    ):
        Scoring(session, pipeline.config).load_model(str(tmp_path / "m.safetensors"), "carry")


def test_commits_of_clients_and_the_clock_remove_segments_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one does not find what the other removes, and ends the server."""
    pipeline = live(tmp_path, keep_log="1d")
    inside, most = [0], [0]

    def older(*_: Any) -> list[str]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.1)
        inside[0] -= 1
        return []

    monkeypatch.setattr(Log, "older", older)
    with log_of(pipeline.config), pipeline.session() as session:
        scoring = Scoring(session, pipeline.config)
        scoring.answers([Asked(ROWS)])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: scoring.commit(), range(4)))
    assert most == [1]


def test_a_log_that_was_emptied_goes_on_with_its_numbers(tmp_path: Path) -> None:
    """Else the rows of a new segment would count as those of the first one."""
    pipeline = live(tmp_path)
    answered(pipeline)
    shutil.rmtree(tmp_path / "out.accepted")
    answered(pipeline, [{**ROWS[0], "id": "y"}], crash=True)
    answered(pipeline, [{**ROWS[0], "id": "z"}], 8)
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == ["x", "y", "z"]


def test_a_path_of_two_keys_may_have_slashes_and_percent_signs_in_them(tmp_path: Path) -> None:
    pipeline = live(tmp_path, key=["id", "b"])
    with log_of(pipeline.config), pipeline.session() as session:
        scoring = Scoring(session, pipeline.config)
        scoring.answers([Asked([{**ROWS[0], "id": "a/b %2F"}])])
        (state,) = scoring.state_of("a%2Fb%20%252F/2")
        assert (state["id"], state["b"]) == ("a/b %2F", 2)
        with pytest.raises(DataError, match=r"each key column \(id, b\), received 3"):
            scoring.state_of("a/b/2")


def test_a_row_that_no_part_can_hold_is_not_answered(tmp_path: Path) -> None:
    """Its type comes from the request; in the log it would stop each start."""
    pipeline = live(tmp_path)
    shutil.rmtree(tmp_path / "in")
    config = logs.config(
        str(tmp_path / "in"),
        str(pipeline.config.model.path),
        str(tmp_path / "out"),
        output={"columns": ["id", "t", "note"]},
    )
    (error,) = answered(Pipeline.from_dict(config), [{**ROWS[0], "note": [{}]}])
    assert "column 'note': parquet cannot hold its type, list<item: struct<>>" in str(error)
    ((row,),) = answered(Pipeline.from_dict(config), [{**ROWS[0], "note": [1]}])
    assert row["note"] == [1]


def test_an_output_that_is_moved_with_its_log_scores_no_row_again(tmp_path: Path) -> None:
    """Also if only the log is in another folder, whose segments have new numbers then."""
    pipeline = live(tmp_path)
    answered(pipeline)
    for name in ("out", "out.accepted"):
        shutil.move(tmp_path / name, tmp_path / name.replace("out", "moved"))
    moved = logs.config(str(tmp_path / "in"), pipeline.config.model.path, str(tmp_path / "moved"))
    for number, log in enumerate((None, str(tmp_path / "other")), 8):
        moved["serve"] = {} if log is None else {"log": log}
        answered(Pipeline.from_dict(moved), number=number)
        assert len(pq.read_table(tmp_path / "moved")) == number - 6
    assert [path.name for path in (tmp_path / "other").glob("0*")] == ["0000000003.arrows"]


def test_a_run_waits_until_the_rows_of_the_log_are_in_the_output(tmp_path: Path) -> None:
    """Its later rows would make those of the log late."""
    pipeline = live(tmp_path)
    answered(pipeline, crash=True)
    for own in (pipeline.run, lambda: answered_in_a_session(pipeline)):
        with pytest.raises(CheckpointError, match=r"may be only in its log, .*serve` once"):
            own()
    starting = lock_file(str(tmp_path / "out.accepted/_lock"))
    with starting, pytest.raises(CheckpointError, match="may be only in its log, "):
        pipeline.run()
    with log_of(pipeline.config), pytest.raises(ConfigError, match="in use by another server"):
        answered(pipeline)
    answered(pipeline)
    pipeline.run()
    assert len(pq.read_table(tmp_path / "out")) == 21


def test_another_log_does_not_let_a_run_start_over_without_answered_rows(tmp_path: Path) -> None:
    live(tmp_path)
    paths = [str(tmp_path / name) for name in ("in", "m.safetensors", "out")]
    one, other = (
        Pipeline.from_dict(logs.config(*paths, serve={"log": str(tmp_path / name)}))
        for name in ("one", "other")
    )
    answered(one)
    answered(one, number=8, crash=True)
    for full_refresh in (False, True):
        with pytest.raises(CheckpointError, match=r"may be only in its log, .*one"):
            other.run(full_refresh=full_refresh, force=full_refresh)


def test_states_do_not_change_before_answered_rows_are_in_the_output(tmp_path: Path) -> None:
    """Else these rows would be scored again from another state."""
    pipeline, out = live(tmp_path), str(tmp_path / "out")
    answered(pipeline)
    table = str(tmp_path / "s.parquet")
    export_state(out, table)
    answered(pipeline, [{**ROWS[0], "t": "2024-06-01"}], 8, crash=True)
    for change in (
        lambda: reset_streams(out, ["x"]),
        lambda: drop_streams(out, ["x"]),
        lambda: import_state(table, out),
    ):
        with pytest.raises(CheckpointError, match="may be only in its log"):
            change()
    answered(pipeline, [{**ROWS[0], "t": "2024-07-01"}], 9)
    assert reset_streams(out, ["x"]) == 1


def test_a_reload_rewinds_nothing_before_answered_rows_are_in_the_output(tmp_path: Path) -> None:
    """Else these rows would be scored again from another state."""
    pipeline, out = live(tmp_path, late="drop"), str(tmp_path / "out")
    pipeline.run()
    logs.write(logs.random_log(20, seed=8), tmp_path / "in/1.parquet")
    pipeline.run()
    answered(pipeline, crash=True)
    commits = history(out)
    with pytest.raises(CheckpointError, match="may be only in its log"):
        pipeline.run(reload="1.parquet")
    assert history(out) == commits


def test_two_outputs_do_not_share_a_log(tmp_path: Path) -> None:
    """Else each would get the rows that the other has answered; an output that moves keeps it."""
    live(tmp_path)
    paths = str(tmp_path / "in"), str(tmp_path / "m.safetensors")
    one, two, moved = (
        Pipeline.from_dict(
            logs.config(*paths, str(tmp_path / out), serve={"log": str(tmp_path / "log")})
        )
        for out in ("one", "two", "moved")
    )
    answered(one)
    with pytest.raises(ConfigError, match=r"log has the rows of another output, .*one\. Each"):
        answered(two)
    shutil.move(tmp_path / "one", tmp_path / "moved")
    answered(moved, number=8)
    assert len(pq.read_table(tmp_path / "moved")) == 2


def test_a_server_with_another_log_waits_for_the_rows_of_the_last_one(tmp_path: Path) -> None:
    """As one does whose disk is full: the rows that it answered would be in no output."""
    pipeline = live(tmp_path)
    answered(pipeline)
    answered(pipeline, [{**ROWS[0], "id": "y"}], 8, crash=True)
    serve = {"log": str(tmp_path / "other")}
    paths = str(tmp_path / "in"), pipeline.config.model.path, str(tmp_path / "out")
    other = Pipeline.from_dict(logs.config(*paths, serve=serve))
    for own in (lambda: answered(other), other.run):
        with pytest.raises(CheckpointError, match=r'and log = ".*out\.accepted"\) to add them'):
            own()
    answered(pipeline, [{**ROWS[0], "id": "z"}], 9)
    answered(other, [{**ROWS[0], "id": "w"}], 1)
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == ["x", "y", "z", "w"]


def answered_in_a_session(pipeline: Pipeline) -> None:
    with pipeline.session() as session:
        session.process(ROWS)


@pytest.mark.parametrize("late", ["drop", "error"])
def test_an_answered_row_is_not_dropped_at_the_start(tmp_path: Path, late: str) -> None:
    pipeline = live(tmp_path, late=late)
    answered(pipeline, crash=True)
    shutil.move(tmp_path / "out.accepted", tmp_path / "aside")
    answered(pipeline, [{**ROWS[0], "t": "2024-06-01"}])
    shutil.move(
        tmp_path / "aside/0000000001.arrows.open", tmp_path / "out.accepted/0000000002.arrows.open"
    )
    for _ in range(2):
        with pytest.raises(CheckpointError, match="rows of answered requests are refused"):
            answered(pipeline)
