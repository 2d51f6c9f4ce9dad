"""A pipeline drafted from data and a model runs as it is, or says what is left to fill in."""

import re
import tomllib
from pathlib import Path

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from selection import with_plugins

from streamrnn import Input, Model, Pipeline, Sequential, layers
from streamrnn.cli import main
from streamrnn.errors import ConfigError, DataError, MissingFileError
from streamrnn.jobs.guesses.columns import guess_streams
from streamrnn.pipeline import draft_pipeline
from streamrnn.stream.config.schema import Sections

ROOT = Path(__file__).parents[3]
WEATHER = ROOT / "data" / "weather.parquet"
WEATHER_FEATURES = ["temp", "dewp", "humid", "wind_speed", "pressure", "precip"]


def loaded(draft, folder):
    """The draft as a pipeline whose output is in the folder, and its tables."""
    file = folder / "p.toml"
    file.write_text(draft.text)
    return Pipeline.from_toml(file), tomllib.loads(draft.text)


def flights(folder, ids=False, days=4):
    """Flights by day: tail numbers (some null) in the air several times a day, text and numbers."""
    rng = np.random.default_rng(2)
    for day in range(days):
        rows = 300
        tails = rng.integers(0, 25, rows)
        minutes = np.sort(rng.choice(24 * 60, rows, replace=False)) + day * 24 * 60
        carriers = np.array(["AA", "UA", "DL"])[tails % 3]
        columns = {
            "year": np.full(rows, 2013),
            "month": np.full(rows, 1),
            "carrier": pa.array(carriers),
            "flight": rng.integers(1, 40, rows),
            "tailnum": pa.array([f"N{t}" for t in tails], mask=rng.random(rows) < 0.01),
            "origin": pa.array(np.array(["EWR", "JFK"])[rng.integers(0, 2, rows)]),
            "sched": pa.array(minutes * 60_000_000, pa.timestamp("us", "UTC")),
            "dep_delay": rng.normal(10, 30, rows),
            "distance": rng.normal(1000, 200, rows),
            "air_time": pa.array(rng.normal(150, 40, rows), mask=rng.random(rows) < 0.05),
        }
        if ids:
            columns["carrier_id"] = tails % 3
        target = folder / f"date=2013-01-0{day + 1}"
        target.mkdir(parents=True)
        pq.write_table(pa.table(columns), target / "part-0.parquet")
    return folder


def delay_model(kind, path):
    """Three numbers and a carrier, as text or as an id."""
    numbers = Input((None, 3), name="num")
    if kind == "text":
        carrier = Input((None,), name="carrier", dtype="string")
        ids = layers.StringLookup(vocabulary=["AA", "DL", "UA"])(carrier)
    else:
        carrier = ids = Input((None,), name="carrier", dtype="int64")
    embedded = layers.Embedding(4, 2)(ids)
    scaled = layers.Normalization(mean=[10.0, 1000.0, 150.0], variance=[900.0, 4e4, 1600.0])(
        numbers
    )
    h = layers.GRU(4, return_sequences=True)(layers.Concatenate()([scaled, embedded]))
    Model([numbers, carrier], layers.Dense(1, name="delay")(h)).save(path)
    return path


@pytest.mark.parametrize("file", ["pipelines/weather/model.safetensors", "weather.keras"])
def test_the_weather_pipeline_is_found(file, tmp_path):
    """Key, time and the features in the model's order, from its Normalization."""
    model = ROOT / file if "/" in file else ROOT / "pipelines" / "origins" / file
    draft = draft_pipeline(WEATHER, model, str(tmp_path / "scores"))
    assert draft.todos == []
    pipeline, tables = loaded(draft, tmp_path)
    source = tables["source"]
    assert (source["key"], source["time"]) == ("origin", "time_hour")
    assert source["features"] == WEATHER_FEATURES
    assert (source["time_features"], source["nulls"]) == (["hour"], "previous")
    pipeline.validate()
    assert pipeline.run().rows_out == pq.read_metadata(WEATHER).num_rows


@with_plugins
def test_onnx(tmp_path):
    """The order of its features cannot be seen: all columns if they are as many, else a TODO."""
    model = ROOT / "pipelines" / "origins" / "weather.onnx"
    draft = draft_pipeline(WEATHER, model)
    assert len(draft.todos) == 1
    assert draft.todos[0].startswith("source.features: input 'x' reads 8 features, in the order")
    assert "wind_dir, wind_speed" in draft.todos[0]
    log = logs.random_log()
    for i in range(8):
        log = log.append_column(f"f{i}", log["a"])
    logs.write(log.drop_columns(["a", "b", "new"]), tmp_path / "in" / "one.parquet")
    draft = draft_pipeline(tmp_path / "in", model, str(tmp_path / "out"))
    assert draft.todos == []
    pipeline, tables = loaded(draft, tmp_path)
    assert tables["source"]["features"] == [f"f{i}" for i in range(8)]
    assert tables["source"]["key"] == "id"
    assert pipeline.run().rows == log.num_rows


def test_flights_with_text_ids(tmp_path):
    """Several inputs are filled in; rows with a null key are moved aside, and it is said."""
    data = flights(tmp_path / "in")
    model = delay_model("text", tmp_path / "m.safetensors")
    draft = draft_pipeline(data, model, str(tmp_path / "out"))
    assert draft.todos == []
    pipeline, tables = loaded(draft, tmp_path)
    assert tables["source"]["key"] == "tailnum"
    assert tables["source"]["time"] == "sched"
    assert tables["model"]["inputs"] == {
        "num": ["dep_delay", "distance", "air_time"],
        "carrier": "carrier",
    }
    assert (tables["source"]["bad"], tables["source"]["nulls"]) == ("reject", "previous")
    summary = pipeline.run()
    assert summary.rows == 1200
    assert 0 < summary.rejected < 50
    assert any("key is null in" in guess for guess in draft.guesses)


def test_flights_with_numbers_for_ids(tmp_path):
    data = flights(tmp_path / "in", ids=True)
    model = delay_model("id", tmp_path / "m.safetensors")
    draft = draft_pipeline(data, model, str(tmp_path / "out"))
    pipeline, tables = loaded(draft, tmp_path)
    assert tables["model"]["inputs"]["carrier"] == "carrier_id"
    assert pipeline.run().rows == 1200


def test_text_for_an_input_of_ids_needs_its_vocabulary(tmp_path):
    """The column is found by name; once the vocabulary is filled in, the pipeline runs."""
    data = flights(tmp_path / "in")
    model = delay_model("id", tmp_path / "m.safetensors")
    draft = draft_pipeline(data, model, str(tmp_path / "out"))
    assert len(draft.todos) == 1
    assert (
        "input 'carrier' reads ids of the text in 'carrier': name its vocabulary" in draft.todos[0]
    )
    with pytest.raises(ConfigError, match=r'source\.features\[3\]: still "TODO"'):
        loaded(draft, tmp_path)
    assert draft.text.count('"TODO"') == 1
    text = draft.text.replace('"TODO"', '["AA", "DL", "UA"]')
    (tmp_path / "p.toml").write_text(text)
    assert Pipeline.from_toml(tmp_path / "p.toml").run().rows == 1200


def test_nan_counts_as_null_if_there_is_any(tmp_path):
    log = logs.random_log()
    a = log["a"].to_numpy().copy()
    a[7] = np.nan
    logs.write(log.set_column(2, "a", pa.array(a)), tmp_path / "in" / "one.parquet")
    logs.small_model().save(tmp_path / "m.safetensors")
    draft = draft_pipeline(tmp_path / "in", tmp_path / "m.safetensors", str(tmp_path / "out"))
    pipeline, tables = loaded(draft, tmp_path)
    assert (tables["source"]["nan"], tables["source"]["nulls"]) == ("null", "previous")
    assert any("NaN in the rows that were read: a (1)" in guess for guess in draft.guesses)
    assert pipeline.run().rows == log.num_rows


def test_what_cannot_be_guessed_is_named_by_validate(tmp_path):
    """All at once, each with its line; the comment above has the columns to choose from."""
    table = pa.table({"x": [1.5, 2.5], "on": [True, False], "more": [2.0, 3.0]})
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    model = delay_model("id", tmp_path / "m.safetensors")
    draft = draft_pipeline(tmp_path / "in", model)
    keys = [todo.partition(":")[0] for todo in draft.todos]
    assert keys == ["source.key", "source.features", "source.features"]
    assert "none has ids from 0 to 3; left are x (double), on (bool)" in draft.todos[2]
    file = tmp_path / "p.toml"
    file.write_text(draft.text)
    with pytest.raises(ConfigError) as caught:
        Pipeline.from_toml(file)
    lines = draft.text.splitlines()
    places = re.findall(r'p\.toml:(\d+): ([\w.\[\]]+): still "TODO"', str(caught.value))
    assert [key for _, key in places][:2] == ["source.key", "source.features[0]"]
    assert {"model.inputs.num", "model.inputs.carrier"} <= {key for _, key in places}
    for number, _ in places[:2]:
        assert lines[int(number) - 1].startswith(("key = ", "features = "))
        assert any(line.startswith("# TODO: ") for line in lines[int(number) - 6 : int(number) - 1])


def test_the_draft_keeps_every_key_and_its_comment(tmp_path):
    draft = draft_pipeline(WEATHER, ROOT / "pipelines" / "weather" / "model.safetensors")
    assert max(map(len, draft.text.splitlines())) <= 100
    shown = tomllib.loads(re.sub(r"^#(?! |$)", "", draft.text, flags=re.MULTILINE))
    for table, field in Sections.model_fields.items():
        assert set(shown[table]) == set(field.annotation.by_key())
    for spec in Sections.model_fields["source"].annotation.model_fields.values():
        assert f"# {spec.description}\n" in draft.text
    guesses = [line for line in draft.text.splitlines() if line.startswith("# Guessed: ")]
    assert len(guesses) == len(draft.guesses)


def test_key_and_time_of_logs():
    """Whatever the names and the order of the columns."""
    log = logs.random_log(rows=500)
    expected = len(set(log["id"].to_pylist()))
    for names in (["id", "t"], ["who", "moment"]):
        table = log.rename_columns([*names, "a", "b", "new"])
        for columns in (table.column_names, table.column_names[::-1]):
            found = guess_streams(table.select(columns))
            assert (found.key, found.time, found.streams) == (*names, expected)
    numbers = log["id"].combine_chunks().dictionary_encode()
    found = guess_streams(log.set_column(0, "sensor", numbers.indices))
    assert (found.key, found.time) == ("sensor", "t")


def busy_flights(rows=4000):
    """Flights of a day, many at the same minute, whose distance is an integer of 151 values."""
    rng = np.random.default_rng(3)
    minutes = np.sort(rng.integers(0, 24 * 60, rows))
    tails = [f"N{t}" for t in rng.integers(0, 400, rows)]
    return pa.table(
        {
            "flight": rng.integers(1, 6000, rows),
            "distance": rng.choice(np.arange(151) * 16 + 80, rows),
            "tailnum": pa.array(tails, mask=rng.random(rows) < 0.12),
            "origin": pa.array(np.array(["EWR", "JFK"])[rng.integers(0, 2, rows)]),
            "sched": pa.array(minutes * 60_000_000, pa.timestamp("us", "UTC")),
            "dep_delay": rng.normal(10, 30, rows),
        }
    )


@pytest.mark.parametrize("name", ["tailnum", "plane"])
def test_text_is_a_key_before_a_measure_is(tmp_path, name):
    """Nulls, which are no stream, have many equal times; those of a distance are few."""
    table = busy_flights()
    names = [name if column == "tailnum" else column for column in table.column_names]
    table = table.rename_columns(names)
    found = guess_streams(table)
    assert (found.key, found.time) == (name, "sched")
    logs.write(table, tmp_path / "in" / "one.parquet")
    scaled = layers.Normalization(mean=[10.0, 1280.0], variance=[900.0, 700.0**2])
    Sequential([Input((None, 2)), scaled, layers.GRU(3)]).save(tmp_path / "m.safetensors")
    _, tables = loaded(draft_pipeline(tmp_path / "in", tmp_path / "m.safetensors"), tmp_path)
    assert tables["source"]["key"] == name
    assert tables["source"]["features"] == ["dep_delay", "distance"]


def test_a_number_is_a_key_where_no_text_is():
    """It separates streams whose times repeat."""
    table = busy_flights().select(["sched", "dep_delay", "tailnum", "origin"])
    numbers = table["tailnum"].combine_chunks().dictionary_encode().indices
    found = guess_streams(table.set_column(2, "plane", numbers).drop_columns(["origin"]))
    assert found.key == "plane"


def test_a_measure_is_no_key(tmp_path):
    """Its values separate equal times, but they are no streams: the key is left to fill in."""
    table = busy_flights().drop_columns(["tailnum", "origin"])
    found = guess_streams(table)
    assert (found.key, found.time, found.streams) == (None, "sched", 0)
    assert found.others == ("distance",)
    logs.write(table, tmp_path / "in" / "one.parquet")
    scaled = layers.Normalization(mean=[10.0, 1280.0], variance=[900.0, 700.0**2])
    Sequential([Input((None, 2)), scaled, layers.GRU(3)]).save(tmp_path / "m.safetensors")
    draft = draft_pipeline(tmp_path / "in", tmp_path / "m.safetensors")
    (todo,) = [todo for todo in draft.todos if "source.key" in todo]
    assert "distance" in todo
    empty = table.set_column(1, "distance", pa.array([None] * len(table), pa.int64()))
    assert guess_streams(empty).key is None


@pytest.mark.parametrize("statistics", [True, False])
def test_a_run_passes_the_rejects_that_were_counted(tmp_path, statistics):
    """More rows without a key than max_rejects allows by default; in all files by their footers."""
    rows = 6000
    rng = np.random.default_rng(4)
    table = pa.table(
        {
            "sensor": pa.array([f"s{n % 5}" for n in range(rows)], mask=rng.random(rows) < 0.4),
            "t": pa.array(np.arange(rows) * 60_000_000, pa.timestamp("us")),
            "a": rng.normal(size=rows),
            "b": rng.normal(size=rows),
        }
    )
    nulls = table["sensor"].null_count
    path = tmp_path / "in" / ("a.parquet" if statistics else "a.arrow")
    path.parent.mkdir()
    if statistics:
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    logs.small_model().save(tmp_path / "m.safetensors")
    data = path.parent if statistics else tmp_path / "in" / "*.arrow"
    draft = draft_pipeline(data, tmp_path / "m.safetensors", str(tmp_path / "out"))
    pipeline, tables = loaded(draft, tmp_path)
    assert tables["source"]["bad"] == "reject"
    assert tables["source"]["max_rejects"] == 2 * nulls > 2000
    (guess,) = [guess for guess in draft.guesses if "max_rejects" in guess]
    assert ("more rows may follow" in guess) != statistics
    assert pipeline.run().rejected == nulls


def test_few_rows_without_a_key_leave_the_limit(tmp_path):
    """Where the footers do not count them, it is said when a run stops."""
    table = busy_flights(2000)
    path = tmp_path / "in.arrow"
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    scaled = layers.Normalization(mean=[10.0, 1280.0], variance=[900.0, 700.0**2])
    Sequential([Input((None, 2)), scaled, layers.GRU(3)]).save(tmp_path / "m.safetensors")
    draft = draft_pipeline(path, tmp_path / "m.safetensors", str(tmp_path / "out"))
    (guess,) = [guess for guess in draft.guesses if "source.bad" in guess]
    assert guess.endswith("a run stops when it rejects more than 1,000: see max_rejects")
    assert "max_rejects" not in tomllib.loads(draft.text)["source"]


def test_a_log_without_times_or_keys():
    log = logs.random_log(rows=50)
    found = guess_streams(log.drop_columns(["t"]))
    assert (found.key, found.time) == ("id", None)
    assert guess_streams(log.select(["a"])).key is None
    unique = log.set_column(0, "id", pa.array([f"u{i}" for i in range(50)]))
    assert guess_streams(unique.drop_columns(["b"])).key is None


def test_two_orders_of_one_column_are_no_stream():
    """Rows that come back in time within each candidate: no key is claimed."""
    log = logs.random_log(rows=400).drop_columns(["b"])
    shuffled = log.take(np.random.default_rng(1).permutation(400))
    assert guess_streams(shuffled).key is None


def test_columns_that_change_between_files(tmp_path):
    """A day without nulls has integers where pandas wrote floats; columns come and go."""
    rows = {"k": ["a", "b"] * 3, "t": pa.array(range(6), pa.timestamp("s"))}
    changes = [
        {"x": [0.5, None] * 3, "note": ["n"] * 6, "flag": [0, 1] * 3, "old": [1] * 6},
        {"x": [1, 2] * 3, "note": pa.nulls(6), "flag": [True] * 6, "new": [1] * 6},
    ]
    for day, columns in enumerate(changes):
        pq.write_table(pa.table(rows | columns), tmp_path / f"{day}.parquet")
    Sequential([Input((None, 1)), layers.GRU(2)]).save(tmp_path / "m.safetensors")
    draft = draft_pipeline(tmp_path, tmp_path / "m.safetensors", str(tmp_path / "out"))
    assert not draft.todos
    assert any("left out" in guess and guess.endswith(": flag, old") for guess in draft.guesses)
    pipeline, tables = loaded(draft, tmp_path)
    assert tables["source"]["features"] == ["x"]
    assert pipeline.config.source.time == "t"


def test_integers_of_two_widths_are_integers(tmp_path):
    """An input of ids reads a column that has int32 in one file and int64 in the others."""
    data = flights(tmp_path / "in", ids=True)
    file = next(data.rglob("*.parquet"))
    table = pq.ParquetFile(file).read()
    ids = table["carrier_id"].cast(pa.int32())
    pq.write_table(table.set_column(table.num_columns - 1, "carrier_id", ids), file)
    draft = draft_pipeline(data, delay_model("id", tmp_path / "m.safetensors"))
    assert not draft.todos
    assert tomllib.loads(draft.text)["model"]["inputs"]["carrier"] == "carrier_id"


@pytest.mark.parametrize("old", ["only-one-with-rows", "only-one-without-old"])
def test_a_file_that_differs_is_not_among_the_sampled(tmp_path, old):
    """Of nine files, every second one is read."""
    model = Sequential([Input((None, 1)), layers.GRU(2, return_sequences=True)])
    model.save(tmp_path / "model.safetensors")
    (tmp_path / "in").mkdir()
    for day in range(9):
        names, values = "id,t,x,old", ["a", f"2024-01-{day + 1:02}", "1.5", "b"]
        if day == 1 and old == "only-one-without-old":
            names, values = names[:-4], values[:-1]
        rows = [values] if day == 1 or old == "only-one-without-old" else []
        lines = [names, *map(",".join, rows), ""]
        (tmp_path / "in" / f"{day}.csv").write_text("\n".join(lines))
    draft = draft_pipeline(tmp_path / "in", tmp_path / "model.safetensors")
    assert not draft.todos
    source = tomllib.loads(draft.text)["source"]
    assert (source["key"], source["time"], source["features"]) == ("id", "t", ["x"])


def test_a_missing_folder_and_one_without_files(tmp_path):
    model = ROOT / "pipelines" / "weather" / "model.safetensors"
    with pytest.raises(MissingFileError):
        draft_pipeline(tmp_path / "none", model)
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no file to read"):
        draft_pipeline(tmp_path / "in", model)


def test_a_model_of_any_width_reads_all_numbers(tmp_path):
    logs.write(logs.random_log(nulls=0.1), tmp_path / "in" / "one.parquet")
    Sequential([Input((None, 2)), layers.GRU(3, return_sequences=True)]).save(
        tmp_path / "m.safetensors"
    )
    draft = draft_pipeline(tmp_path / "in", tmp_path / "m.safetensors", str(tmp_path / "out"))
    pipeline, tables = loaded(draft, tmp_path)
    assert tables["source"]["features"] == ["a", "b"]
    assert any("in the order of the file; check the order" in guess for guess in draft.guesses)
    assert pipeline.run().rows == 600


@pytest.mark.parametrize("mark", [";", "\t"])
def test_the_delimiter_of_a_header_without_commas(tmp_path, mark):
    model = Sequential([Input((None, 1)), layers.GRU(2, return_sequences=True)])
    model.save(tmp_path / "model.safetensors")
    days = (f"a,2024-01-{day:02},{day}.5" for day in range(1, 20))
    text = "\n".join(["id,t,x", *days, ""]).replace(",", mark)
    (tmp_path / "log.csv").write_text(text)
    draft = draft_pipeline(tmp_path / "log.csv", tmp_path / "model.safetensors")
    assert not draft.todos
    source = tomllib.loads(draft.text)["source"]
    assert (source["delimiter"], source["time"], source["features"]) == (mark, "t", ["x"])
    (tmp_path / "log.csv").write_text(text + "a\n")
    with pytest.raises(DataError, match="one column"):
        draft_pipeline(tmp_path / "log.csv", tmp_path / "model.safetensors")


def test_a_folder_is_no_column_of_a_header(tmp_path):
    """A delimiter that gives one column beside those of folders is not guessed."""
    model = Sequential([Input((None, 1)), layers.GRU(2, return_sequences=True)])
    model.save(tmp_path / "model.safetensors")
    (tmp_path / "in" / "site=x").mkdir(parents=True)
    file = tmp_path / "in" / "site=x" / "log.csv"
    file.write_text("id|t|x\na|1|2.5\n")
    draft = draft_pipeline(tmp_path / "in", tmp_path / "model.safetensors")
    assert tomllib.loads(draft.text)["source"]["delimiter"] == "|"
    file.write_text("id,t,x\na,1,2.5\nb,2\n")
    with pytest.raises(DataError, match="expected 3 values"):
        draft_pipeline(tmp_path / "in", tmp_path / "model.safetensors")


def command(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return caught.value.code


def test_the_command(workdir, capsys):
    """Guesses go to stderr; the file runs as it is."""
    logs.write(logs.random_log(), Path("in/one.parquet"))
    logs.small_model().save("m.safetensors")
    assert command("init", "p.toml", "--from", "in", "--model", "m.safetensors") == 0
    out, err = capsys.readouterr()
    assert out == "wrote p.toml; edit it, then check it: streamrnn validate p.toml\n"
    assert "guessed: source.key = id: 17 streams in the first rows, in the order of" in err
    assert "guessed: source.features = a, b: input " in err
    assert command("validate", "p.toml") == 0
    assert command("run", "p.toml", "-q") == 0
    assert Path("scores").is_dir()
    capsys.readouterr()
    assert command("init", "p.toml", "--from", "gone", "--model", "gone.keras") == 78
    assert "p.toml already exists" in capsys.readouterr().err
    assert command("init", "q.toml", "--from", "in") == 2
    assert "--from and --model go together" in capsys.readouterr().err
    assert not Path("q.toml").exists()


def test_the_sink_is_no_folder_that_exists(workdir, capsys):
    """It may be the output of another pipeline, in which a run would be refused."""
    logs.write(logs.random_log(), Path("in/one.parquet"))
    logs.small_model().save("m.safetensors")
    for number, sink in enumerate(("scores", "scores-2", "scores-3")):
        file = f"p{number}.toml"
        assert command("init", file, "--from", "in", "--model", "m.safetensors") == 0
        assert tomllib.loads(Path(file).read_text())["sink"]["path"] == sink
        assert ("guessed: sink.path = scores-" in capsys.readouterr().err) == (number > 0)
        assert command("run", file, "-q") == 0


def test_a_state_dict_needs_layers_and_the_message_names_convert(workdir, capsys):
    """What it says works: with the file that convert writes, a pipeline is drafted."""
    logs.write(logs.random_log(), Path("in/one.parquet"))
    weights = {
        "lstm.weight_ih_l0": np.zeros((12, 2), np.float32),
        "lstm.weight_hh_l0": np.zeros((12, 3), np.float32),
        "lstm.bias_ih_l0": np.zeros(12, np.float32),
        "lstm.bias_hh_l0": np.zeros(12, np.float32),
    }
    save_file(weights, "torch.safetensors")
    assert command("init", "p.toml", "--from", "in", "--model", "torch.safetensors") == 65
    message = capsys.readouterr().err
    assert "streamrnn convert IN OUT --layers FILE" in message
    tables = message[message.index("[[model.layers]]\n") :].partition("\nmore: ")[0]
    Path("layers.toml").write_text(tables)
    assert command("convert", "torch.safetensors", "m.safetensors", "--layers", "layers.toml") == 0
    assert command("init", "p.toml", "--from", "in", "--model", "m.safetensors") == 0


def test_the_command_names_what_is_left(workdir, capsys):
    logs.write(logs.random_log().select(["t", "a", "b"]), Path("in/one.parquet"))
    logs.small_model().save("m.safetensors")
    assert command("init", "p.toml", "--from", "in", "--model", "m.safetensors") == 0
    out, err = capsys.readouterr()
    assert out.startswith("wrote p.toml; fill in each TODO, then check it: ")
    assert "TODO: source.key: name the column or columns that identify a stream" in err
    assert command("validate", "p.toml") == 78
    assert 'source.key: still "TODO"; see the comment above the key' in capsys.readouterr().err


def test_a_model_of_fixed_steps_is_drafted_as_predict_reads_it(tmp_path):
    """Its kind, steps and stride stand in the file, which runs as it is."""
    log = logs.write(logs.random_log(200, streams=3), tmp_path / "log.parquet")
    made = Sequential([Input((24, 2)), layers.GRU(3), layers.Dense(1)])
    made.save(tmp_path / "m.safetensors")
    draft = draft_pipeline(log, tmp_path / "m.safetensors", str(tmp_path / "out"))
    pipeline, tables = loaded(draft, tmp_path)
    assert tables["window"] == {"kind": "independent", "steps": 24, "stride": 1}
    (guess,) = [text for text in draft.guesses if text.startswith("window.kind = independent")]
    assert "24 steps" in guess
    assert pipeline.loaded.kind.name == "independent"
    made = Sequential([Input((None, 2)), layers.GRU(3), layers.Dense(1)])
    made.save(tmp_path / "m.safetensors")
    draft = draft_pipeline(log, tmp_path / "m.safetensors", str(tmp_path / "out"))
    assert not loaded(draft, tmp_path)[1]["window"]


def test_a_model_that_reads_from_the_end_is_drafted_as_whole(tmp_path):
    """The draft had the default, carry, which cannot run it."""
    log = logs.write(logs.random_log(200, streams=3), tmp_path / "log.parquet")
    both = layers.Bidirectional(layers.GRU(3, return_sequences=True))
    Sequential([Input((None, 2)), both, layers.Dense(1)]).save(tmp_path / "m.safetensors")
    draft = draft_pipeline(log, tmp_path / "m.safetensors", str(tmp_path / "out"))
    pipeline, tables = loaded(draft, tmp_path)
    assert tables["window"] == {"kind": "whole"}
    assert any(text.startswith("window.kind = whole: a layer") for text in draft.guesses)
    assert pipeline.run().rows_out == 200


@pytest.mark.parametrize(("largest", "fits"), [(3, True), (4, False)])
@pytest.mark.parametrize("name", ["kind", "ids"])
def test_a_column_whose_ids_an_embedding_lacks_is_not_offered(tmp_path, name, largest, fits):
    """With an input of its name, or as the only integers that are left; a run stopped."""
    log = logs.random_log(200, streams=3)
    log = log.select(["id", "t", "a"]).append_column("b", log["a"])
    kinds = np.arange(200) % (largest + 1)
    path = logs.write(log.append_column("kind", pa.array(kinds)), tmp_path / "log.parquet")
    numbers, ids = Input((None, 2), name="numbers"), Input((None,), dtype="int64", name=name)
    joined = layers.Concatenate()([numbers, layers.Embedding(4, 2)(ids)])
    Model([numbers, ids], layers.Dense(1)(joined)).save(tmp_path / "m.safetensors")
    draft = draft_pipeline(path, tmp_path / "m.safetensors", str(tmp_path / "out"))
    inputs = tomllib.loads(draft.text)["model"]["inputs"]
    assert inputs[name] == ("kind" if fits else "TODO")
    if fits:
        assert loaded(draft, tmp_path)[0].run().rows_out == 200
    else:
        message = f"input {name!r} reads one column of ids from 0 to 3: none has ids from 0 to 3"
        assert message in draft.todos[0]
        assert "kind (int64)" in draft.todos[0]


@pytest.mark.parametrize("years", [0, 6])
def test_a_key_whose_streams_pause_for_years_may_be_used_again(tmp_path, years):
    """Storms: each name of a list returns after six years, for another storm."""
    hours = np.arange(40) + np.repeat([0, years * 365 * 24], 20)
    log = pa.table(
        {
            "name": np.array(["Ana", "Bill"])[np.arange(40) % 2],
            "time": pa.array(hours * 3_600_000_000, pa.timestamp("us")),
            "a": np.arange(40.0),
            "b": np.arange(40.0),
        }
    )
    path = logs.write(log, tmp_path / "log.parquet")
    Sequential([Input((None, 2)), layers.Dense(1)]).save(tmp_path / "m.safetensors")
    draft = draft_pipeline(path, tmp_path / "m.safetensors", str(tmp_path / "out"))
    said = [text for text in draft.guesses if "streams with a pause of a year or more: 2" in text]
    assert len(said) == (1 if years else 0)
    if said:
        assert "Ana from 1970-01-01 to 1975-12-31" in said[0]
        assert "max_gap" in said[0]
        assert said[0].split(": ")[2] in " ".join(draft.text.replace("# ", "").split())
