"""The scripts that make the data, on a few rows made up here; no data package is needed."""

import zipfile
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FLIGHTS = """\
year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour
2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z
2013,1,1,515,515,0,NA,830,NA,AA,1141,N619AA,JFK,MIA,NA,1089,5,15,2013-01-01T10:00:00Z
2013,1,1,NA,600,NA,NA,901,NA,AA,791,NA,LGA,DFW,NA,1389,6,0,2013-01-01T11:00:00Z
"""
WEATHER = """\
origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour
EWR,2013,1,1,1,39.02,26.06,59.37,270,10.357019999999999,NA,0,1012,10,2013-01-01T06:00:00Z
"""


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "data"))
    return import_module(name)


def at(hour: int, minute: int) -> datetime:
    return datetime(2013, 1, 1, hour, minute, tzinfo=UTC)


def test_weather_keeps_values_and_nulls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weather.csv").write_text(WEATHER)
    table = script("make_weather", monkeypatch).read(tmp_path / "weather.csv")
    assert table.to_pylist() == [
        {
            "origin": "EWR",
            "time_hour": at(6, 0),
            "temp": 39.02,
            "dewp": 26.06,
            "humid": 59.37,
            "wind_dir": 270.0,
            "wind_speed": 10.357019999999999,
            "wind_gust": None,
            "precip": 0.0,
            "pressure": 1012.0,
            "visib": 10.0,
        }
    ]


def test_flights_become_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of time, then of flights; nothing is known before it happened."""
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", FLIGHTS)
    module = script("make_flights", monkeypatch)
    events = module.unroll(module.read(tmp_path / "flights.csv.zip"))
    names = ["tailnum", "time", "event", "stage", "dep_delay", "air_time", "arr_delay"]
    assert [tuple(row.values()) for row in events.select(names).to_pylist()] == [
        ("N14228", at(10, 15), "scheduled", 0, None, None, None),
        ("N619AA", at(10, 15), "scheduled", 0, None, None, None),
        ("N619AA", at(10, 15), "departed", 1, 0.0, None, None),
        ("N14228", at(10, 17), "departed", 1, 2.0, None, None),
        (None, at(11, 0), "scheduled", 0, None, None, None),
        ("N14228", at(14, 4), "landed", 2, 2.0, 227.0, 11.0),
    ]

    replayed = module.replay(events, 3)
    assert replayed.schema == events.schema
    assert replayed["tailnum"].to_pylist()[:4] == ["N14228", "N14228#2", "N14228#3", "N619AA"]
    assert replayed["tailnum"].null_count == 3
    assert replayed["time"].to_pylist()[::3] == events["time"].to_pylist()


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="pip install nycflights99"):
        script("package", monkeypatch).package_file("nycflights99", "weather.csv")
