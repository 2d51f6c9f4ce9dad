"""[source] time_zone: the clock of hours, days and months; Python's zoneinfo is the oracle."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import logs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from command_line import run_command
from jobs.engines.in_process import TasksHere

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, DTypeError
from streamrnn.jobs.engines import opening
from streamrnn.pipeline import draft_pipeline
from streamrnn.stream.sources import Origin

NEW_YORK = "America/New_York"
ZONES = [NEW_YORK, "Asia/Kolkata", "Australia/Lord_Howe", "Europe/London", "Pacific/Apia", "UTC"]
# Around changes of the clock, in both directions and in both hemispheres; Apia skips a day.
CHANGES = ["2011-12-30", "2013-03-10", "2013-03-31", "2013-10-06", "2013-10-27", "2013-11-03"]
PARTS = ["hour", "day_of_week", "day_of_year"]


def _moments(step: int = 23, days: int = 3) -> list[datetime]:
    """Every 23 minutes from the day before each change on."""
    first = [datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(days=1) for day in CHANGES]
    count = days * 24 * 60 // step
    return [day + timedelta(minutes=step * i) for day in first for i in range(count)]


def _log(moments: list[datetime], kind: pa.DataType | None = None) -> pa.Table:
    rng = np.random.default_rng(4)
    times = pa.array(moments, pa.timestamp("us", "UTC"))
    if kind is not None:
        times = times.cast(pa.timestamp(kind.unit, "UTC")).view(kind)
    ids = [f"s{i}" for i in rng.integers(0, 3, len(moments))]
    return pa.table({"id": ids, "t": times, "a": rng.normal(0, 1, len(moments))})


def _text(moment: datetime, zone: str) -> str:
    return moment.astimezone(ZoneInfo(zone)).isoformat()


def _write_csv(log: pa.Table, path: Path, zone: str) -> None:
    """As a Postgres dump writes it: the wall clock of a place with its offset."""
    rows = zip(log["id"].to_pylist(), log["t"].to_pylist(), log["a"].to_pylist(), strict=True)
    path.parent.mkdir(exist_ok=True)
    lines = ["id,t,a", *(f"{key},{_text(time, zone)},{a!r}" for key, time, a in rows)]
    path.write_text("\n".join(lines) + "\n")


def _config(
    base: Path, zone: str = "", parts: list[str] | None = None, **tables: dict[str, Any]
) -> dict[str, Any]:
    parts = PARTS if parts is None else parts
    logs.small_model(features=1 + 2 * len(parts)).save(base / "m.safetensors")
    config = logs.config(str(base / "in"), str(base / "m.safetensors"), str(base / "out"), **tables)
    extra = {"features": ["a"], "time_features": parts, **({"time_zone": zone} if zone else {})}
    return {**config, "source": {**config["source"], **extra}}


def _angles(moment: datetime, zone: str) -> list[float]:
    local = moment.astimezone(ZoneInfo(zone))
    angles = [local.hour / 24, local.weekday() / 7, local.timetuple().tm_yday / 366]
    return [f(2 * np.pi * part) for part in angles for f in (np.sin, np.cos)]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("kind", [
    pa.timestamp("us", "UTC"), pa.timestamp("s"), pa.timestamp("ns"),
    pa.timestamp("ms", "Asia/Tokyo"),
], ids=str)  # fmt: skip
def test_the_angles_are_those_of_the_local_clock(
    tmp_path: Path, zone: str, kind: pa.DataType
) -> None:
    """Of times in UTC, without a zone, or in another; the instants are read as they are."""
    moments = _moments(step=60)
    log = _log(moments, kind)
    loaded = Pipeline.from_dict(_config(tmp_path, zone)).loaded
    (batch,) = log.combine_chunks().to_batches()
    found = loaded.contract.read(batch, Origin.consecutive("f", 0, len(batch))).features
    expected = np.array([_angles(moment, zone) for moment in moments])
    np.testing.assert_allclose(found[:, 1:], expected, rtol=0, atol=1e-7)


def test_text_with_offsets_gives_the_bits_of_a_column_in_the_zone(tmp_path: Path) -> None:
    """The log is cut into days and record batches; without the key the hours are those of UTC."""
    log = _log(_moments(step=57))
    days = pc.floor_temporal(log["t"], unit="day")
    for number, day in enumerate(pc.unique(days)):
        _write_csv(log.filter(pc.equal(days, day)), tmp_path / "in" / f"{number}.csv", NEW_YORK)
    config = _config(tmp_path, NEW_YORK)
    cut = {**config["source"], "batch_rows": 7}
    summary = Pipeline.from_dict({**config, "source": cut}).run()
    assert summary.times_in_utc is None
    whole = tmp_path / "whole"
    kind = pa.timestamp("us", NEW_YORK)
    zoned = log.set_column(1, "t", log["t"].cast(kind))
    logs.write(zoned, whole / "in" / "all.parquet")
    Pipeline.from_dict(_config(whole)).run()
    found, expected = pq.read_table(tmp_path / "out"), pq.read_table(whole / "out")
    assert found["score"].equals(expected["score"])
    assert found.schema.field("t").type == pa.timestamp("us", "UTC")
    assert found["t"].cast(kind).equals(expected["t"])
    unsaid = {**_config(tmp_path), "sink": {"path": str(tmp_path / "utc")}}
    Pipeline.from_dict(unsaid).run()
    other = pq.read_table(tmp_path / "utc")["score"]
    assert not other.equals(expected["score"])


def test_days_of_folders_are_those_of_the_zone(tmp_path: Path) -> None:
    """Of another time column, too, and of one without a zone."""
    moments = _moments(step=90)
    log = _log(moments).append_column(
        "seen", pa.array([m.replace(tzinfo=None) for m in moments], pa.timestamp("ms"))
    )
    logs.write(log, tmp_path / "in" / "a.parquet")
    levels = {"day": "day(t)", "hour": "hour(seen)", "month": "month(t)", "year": "year(seen)"}
    config = _config(tmp_path, NEW_YORK, [], output={"columns": "*"}, sink={"partition_by": levels})
    Pipeline.from_dict(config).run()
    local = [moment.astimezone(ZoneInfo(NEW_YORK)) for moment in moments]
    expected = {(f"{m:%Y-%m-%d}", m.hour, m.month, m.year): 0 for m in local}
    for m in local:
        expected[f"{m:%Y-%m-%d}", m.hour, m.month, m.year] += 1
    rows = pq.read_table(tmp_path / "out")
    names = ("day", "hour", "month", "year")
    values = zip(*(rows[name].cast(pa.string()).to_pylist() for name in names), strict=True)
    found: dict[Any, int] = {}
    for day, *rest in values:
        place = (day, *map(int, rest))
        found[place] = found.get(place, 0) + 1
    assert found == expected


def test_months_and_limits_are_those_of_the_zone(tmp_path: Path) -> None:
    """`--since` at local midnight; a time with an offset is that instant."""
    first = datetime(2013, 1, 31, 0, tzinfo=UTC)
    moments = [first + timedelta(hours=i) for i in range(72)]
    logs.write(_log(moments), tmp_path / "in" / "a.parquet")
    config = _config(tmp_path, NEW_YORK, ["hour"], target={"column": "a", "rows": 0})
    pipeline = Pipeline.from_dict(config)
    pipeline.run()
    local = [moment.astimezone(ZoneInfo(NEW_YORK)) for moment in moments]
    found = pipeline.evaluate("month")
    assert found.zone == NEW_YORK
    by_month = {row["month"]: row["rows"] for row in found.table.to_pylist() if row["month"]}
    expected = {month: [f"{m:%Y-%m}" for m in local].count(month) for month in by_month}
    assert by_month == expected
    assert len(expected) == 2
    midnight = datetime(2013, 2, 1, tzinfo=ZoneInfo(NEW_YORK))
    later = sum(moment >= midnight for moment in moments)
    for since in ("2013-02-01", "2013-02-01T00:00-05:00", "2013-02-01T05:00Z"):
        assert pipeline.evaluate(since=since).rows == later
    with pytest.raises(ConfigError, match=r"since: expected .* received '2013-03-10T02:30'"):
        pipeline.evaluate(since="2013-03-10T02:30")  # the clock never shows it


def test_the_limit_of_a_fit_and_of_new_files_is_in_the_zone(tmp_path: Path) -> None:
    first = datetime(2013, 1, 31, 0, tzinfo=UTC)
    log = _log([first + timedelta(hours=i) for i in range(72)])
    logs.write(log, tmp_path / "in" / "a.parquet")
    recurrent = {"type": "GRU", "units": 2, "return_sequences": True}
    made = {"layers": [recurrent, {"type": "Dense", "units": 1}]}
    config = _config(tmp_path, NEW_YORK, ["hour"], target={"column": "a"})
    config["model"] = {"path": str(tmp_path / "fit.safetensors"), **made}
    config["train"] = {"until": "2013-02-01", "epochs": 1}
    midnight = datetime(2013, 2, 1, tzinfo=ZoneInfo(NEW_YORK))
    summary = Pipeline.from_dict(config).fit()
    assert summary.rows == sum(time < midnight for time in log["t"].to_pylist())
    part = log.filter(pc.greater_equal(log["t"], pa.scalar(midnight, log["t"].type)))
    logs.write(part, tmp_path / "in" / "b.parquet")
    (tmp_path / "in" / "a.parquet").unlink()
    config = _config(tmp_path, NEW_YORK, ["hour"])
    config["source"]["after"] = {"time": "2013-02-01"}
    assert Pipeline.from_dict(config).run().rows == len(part)


@pytest.mark.parametrize("kind", [pa.int64(), pa.date32()], ids=str)
def test_integers_and_dates_are_refused(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"id": ["x"], "t": pa.array([1], pa.int32()).cast(kind), "a": [1.0]})
    logs.write(table, tmp_path / "in" / "a.parquet")
    pipeline = Pipeline.from_dict(_config(tmp_path, NEW_YORK, []))
    with pytest.raises(
        DTypeError, match=rf"time_zone: column 't'.* received {re.escape(str(kind))}"
    ):
        pipeline.run()


@pytest.mark.parametrize("zone", ["New York", "America/Nowhere", "+25"])
def test_a_zone_that_is_none(tmp_path: Path, zone: str) -> None:
    with pytest.raises(ConfigError, match=r"time_zone: expected a name in the time zone database"):
        Pipeline.from_dict(_config(tmp_path, zone)).validate()


def test_it_needs_a_time_and_is_fixed(tmp_path: Path) -> None:
    config = _config(tmp_path, NEW_YORK, [])
    with pytest.raises(ConfigError, match=r"source\.time_zone: needs source\.time"):
        Pipeline.from_dict({**config, "source": {**config["source"], "time": None}})
    logs.write(_log(_moments()), tmp_path / "in" / "a.parquet")
    Pipeline.from_dict(config).run()
    other = {**config["source"], "time_zone": "UTC"}
    with pytest.raises(CheckpointError, match=r'time_zone: was "America/New_York", is now "UTC"'):
        Pipeline.from_dict({**config, "source": other}).run()


@pytest.mark.parametrize(
    ("write", "noted"),
    [
        (lambda log, path: _write_csv(log, path / "a.csv", NEW_YORK), "-05:00"),
        (lambda log, path: _write_csv(log, path / "a.csv", "Europe/London"), "+01:00"),
        (lambda log, path: _write_csv(log, path / "a.csv", "UTC"), None),
        (lambda log, path: logs.write(log, path / "a.parquet"), None),
    ],
    ids=["New York", "London, from March on", "UTC", "Parquet"],
)
def test_times_in_utc_from_text_with_other_offsets_are_noted(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    write: Callable[[pa.Table, Path], object],
    noted: str | None,
) -> None:
    """By init, validate and run; not if the key says which zone is meant."""
    moments = [datetime(2013, 3, 30, tzinfo=UTC) + timedelta(hours=i) for i in range(72)]
    (tmp_path / "in").mkdir()
    write(_log(moments if noted != "-05:00" else _moments()), tmp_path / "in")
    if noted == "-05:00":
        noted = _text(_moments()[0], NEW_YORK)[-6:]
    config = _config(tmp_path)
    said = f"the times in 't' are in UTC, but their texts have other offsets, such as {noted}: "
    notes = Pipeline.from_dict(config).validate()
    assert bool([note for note in notes if note.startswith(said)]) == (noted is not None)
    logs.small_model(features=1).save(tmp_path / "one.safetensors")
    draft = draft_pipeline(tmp_path / "in", tmp_path / "one.safetensors", str(tmp_path / "made"))
    guess = [text for text in draft.guesses if text.startswith(f"source.time_zone: {said}")]
    assert bool(guess) == (noted is not None)
    (tmp_path / "p.toml").write_text(draft.text)
    code, out, _ = run_command(capsys, "run", tmp_path / "p.toml")
    assert code == 0
    assert (f"note     {said}" in out) == (noted is not None)
    zoned = {**config, "source": {**config["source"], "time_zone": NEW_YORK}}
    assert not [note for note in Pipeline.from_dict(zoned).validate() if "offsets" in note]
    assert Pipeline.from_dict(zoned).run().times_in_utc is None


def test_offsets_of_ndjson_and_of_shards_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renamed column, read by tasks of an engine: the bits are those of one process."""
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(1))
    rows = _log(_moments(step=57)).to_pylist()
    lines = [json.dumps({**row, "t": None, "old": _text(row["t"], NEW_YORK)}) for row in rows]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ndjson").write_text("\n".join(lines).replace('"t": null, ', "") + "\n")
    config = _config(tmp_path)
    config["source"] |= {"rename": {"t": "old"}, "format": "ndjson"}
    found = {}
    for kind in ("local", "ray"):
        for zone in ("", NEW_YORK):
            source, out = {**config["source"], "time_zone": zone}, tmp_path / f"{kind}{len(zone)}"
            engine = {"type": kind, **({"shards": 3} if kind == "ray" else {})}
            tables = {"source": source, "sink": {"path": str(out)}, "engine": engine}
            summary = Pipeline.from_dict({**config, **tables}).run()
            assert bool(summary.times_in_utc) == (not zone)
            found[kind, zone] = pq.read_table(out).sort_by(
                [("id", "ascending"), ("t", "ascending")]
            )
    for zone in ("", NEW_YORK):
        assert found["local", zone].equals(found["ray", zone])
    assert not found["local", ""].equals(found["local", NEW_YORK])


def test_parquet_columns_in_another_zone_are_cast_and_counted(tmp_path: Path) -> None:
    """Of the same instants; hours are those of the first file's zone, or of the key's."""
    log = _log(_moments(step=57))
    half = len(log) // 2
    tokyo = log.set_column(1, "t", log["t"].cast(pa.timestamp("us", "Asia/Tokyo")))
    logs.write(log.slice(0, half), tmp_path / "in" / "0.parquet")
    logs.write(tokyo.slice(half), tmp_path / "in" / "1.parquet")
    logs.write(log, tmp_path / "same" / "in" / "0.parquet")
    for zone in ("", NEW_YORK):
        config, same = _config(tmp_path, zone), _config(tmp_path / "same", zone)
        out = {"path": str(tmp_path / f"out{len(zone)}")}
        summary = Pipeline.from_dict({**config, "sink": out}).run()
        assert summary.cast == len(log) - half
        Pipeline.from_dict(same).run(full_refresh=True)
        found, expected = pq.read_table(out["path"]), pq.read_table(tmp_path / "same" / "out")
        assert found.equals(expected)
