"""Drafts of pipeline files: keys are guessed from the data and the model; comments say how."""

import itertools
import os
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import DataError, ModelMismatchError, StreamRNNError
from streamrnn.jobs.guesses.columns import (
    GuessedFeatures,
    Streams,
    guess_features,
    guess_streams,
    like_a_key,
    named_columns,
    pauses,
)
from streamrnn.nn.formats import load_model
from streamrnn.nn.models import Model, StepRunner
from streamrnn.nn.models.runners import id_limits, input_scaling
from streamrnn.nn.models.steps import notes_on_steps, own_steps
from streamrnn.stream.config import TODO, Filled, sample, value_of, windows_of_predict
from streamrnn.stream.sources import (
    OTHER_DELIMITERS,
    Feature,
    FileSource,
    SourceFile,
    Table,
    is_real,
    list_of_format,
    may_cast,
    note_on_offset,
    open_table,
    suffixes_of,
)

_SINK = "scores"
_ON_STEPS = (
    "the model's inputs have {steps} steps: each row is scored from zero on the {steps} rows that "
    "end with it, as predict does; for a model trained on a carried state see `streamrnn guide "
    "keras-model`"
)
_ON_SEQUENCES = (
    "a layer reads the sequence from its end, or all of it: the rows of a stream are scored when "
    "the input has ended; for a model trained on windows see `streamrnn guide keras-model`"
)
SAMPLE_ROWS = 100_000
MAX_FILES = 8
"""Largest number of files, evenly spread, from which rows are read."""


@dataclass(frozen=True)
class Draft:
    """The text of a pipeline file, what was guessed, and what is left to fill in."""

    text: str
    guesses: list[str]
    todos: list[str]


def draft_pipeline(
    data: str | os.PathLike[str], model: str | os.PathLike[str], sink: str | None = None
) -> Draft:
    """Draft a pipeline file that scores `data` with `model`, and writes to `sink`.

    By default `sink` is scores, or scores-2 and so on if that name is taken.

    Key, time, features and the policy for nulls are guessed from schema, footers and some rows.
    What was guessed is in the file's comments, and in the result; a column that cannot be guessed
    is "TODO", which `validate` reports. Raises DataError, MissingFileError, ModelFileError.

    >>> from streamrnn.pipeline import draft_pipeline
    >>> draft = draft_pipeline("data/weather.parquet", "pipelines/weather/model.safetensors")
    >>> draft.todos
    []
    >>> [line for line in draft.text.splitlines() if line.startswith(("key", "time ="))]
    ['key = "origin"', 'time = "time_hour"']
    """
    data, model = os.fspath(data), os.fspath(model)
    loaded = load_model(model)
    table = open_table(data, "auto", None)
    files = list_of_format(data, "auto") if table is None else table.files
    if not files:
        if table is not None:
            raise DataError(f"{data}: the table has no rows to guess columns from; append some")
        raise DataError(
            f"{data}: no file to read (expected files that end in "
            f"{' or '.join(suffixes_of('auto'))}, or else files of one other format, such as .csv)"
        )
    source = _opened(files, table)
    sampled = files[:: -(-len(files) // MAX_FILES)]
    source, left = _in_common(source, sampled)
    first = _rows(source, files[:1], SAMPLE_ROWS)
    if not first.num_rows:
        first = _rows(source, files, SAMPLE_ROWS)
    spread = first if len(files) == 1 else _rows(source, sampled, SAMPLE_ROWS // MAX_FILES)
    output = Filled(_SINK if sink is None else sink)
    if sink is None and os.path.lexists(_SINK):
        names = (f"{_SINK}-{number}" for number in itertools.count(2))
        free = next(name for name in names if not os.path.lexists(name))
        output = Filled(free, (f"{_SINK} exists, and may belong to another pipeline",))
    return _draft(data, model, output, loaded, source, sampled, first, spread, left)


def _opened(files: list[SourceFile], table: Table | None) -> FileSource:
    """Return the source; if text files cannot be read with commas, use a delimiter that works."""
    source = FileSource(files, None, SAMPLE_ROWS, table=table)
    try:
        len(source.schema)  # read now
    except DataError:
        for mark in OTHER_DELIMITERS:
            other = FileSource(files, None, SAMPLE_ROWS, delimiter=mark)
            with suppress(StreamRNNError):
                if len(other.schema) > 1 + len(files[0].partitions):
                    return other
        raise
    return source


def _in_common(source: FileSource, files: Sequence[SourceFile]) -> tuple[FileSource, list[str]]:
    """Return the source with the columns that all these files have in compatible types.

    Numbers are read in the type of each file. Also return the columns that are left out.
    """
    schemas = [replace(source, files=[f]).schema for f in files if not source.awaits_rows(f)]
    names, features = [], {}
    for field in source.schema:
        kinds = [schema.field(field.name).type for schema in schemas if field.name in schema.names]
        if len(kinds) < len(schemas):
            continue
        if kinds and all(is_real(kind) or pa.types.is_null(kind) for kind in kinds):
            features[field.name] = Feature(field.name)
        elif not all(may_cast(kind, field.type) for kind in kinds):
            continue
        names.append(field.name)
    left = [name for name in source.schema.names if name not in names]
    return replace(source, columns=names, features=features), left


def _rows(source: FileSource, files: Sequence[SourceFile], rows: int) -> pa.Table:
    """Read the first `rows` rows of each file, until there are SAMPLE_ROWS rows."""
    batches, left = [], SAMPLE_ROWS
    for file in files:
        part = source.subset([file])
        part.rows = rows
        batch = next(part.batches()).batch.slice(0, left)
        batches.append(batch)
        left -= batch.num_rows
        if left <= 0:
            break
    schema = pa.unify_schemas([batch.schema for batch in batches], promote_options="permissive")
    tables = [pa.Table.from_batches([batch]).cast(schema, safe=False) for batch in batches]
    return pa.concat_tables(tables)


def _draft(
    data: str,
    path: str,
    sink: Filled,
    model: Model,
    source: FileSource,
    sampled: Sequence[SourceFile],
    first: pa.Table,
    spread: pa.Table,
    left: list[str],
) -> Draft:
    ids = {name: limit.size for name, limit in id_limits(model).items()}
    specs = [(*spec, ids.get(spec[0])) for spec in model.input_specs]
    partitions = list(dict(sampled[0].partitions))
    dates = [name for name in partitions if not like_a_key(name)]
    streams = guess_streams(first.drop_columns(dates), list(named_columns(specs, first).values()))
    taken = [name for name in (streams.key, streams.time, *partitions) if name is not None]
    clock = None if streams.time is None else first.schema.field(streams.time).type
    times = clock is not None and pa.types.is_timestamp(clock)
    features = guess_features(specs, spread, taken, input_scaling(model), has_times=times)
    rejects, bad, limit = _on_rejects(source, streams, first)
    nulls, nan = _on_missing(features, spread)
    texts = source.subset(sampled)
    texts.time = streams.time
    offset = texts.offset()
    if left:
        features.notes.append(
            "columns left out, as some files lack them or have them in incompatible types: "
            f"{', '.join(left)}"
        )
    steps, why = model.declared_steps, ""
    if steps is not None:
        why = _ON_STEPS.format(steps=steps)
    else:
        try:
            StepRunner(model)
        except ModelMismatchError:
            why = _ON_SEQUENCES
    notes = {
        "source.delimiter": ["the header has it, and no comma"] if source.delimiter else [],
        "source.key": [
            *_of_key(streams),
            *(pauses(first, streams.key, str(streams.time)) if streams.key and times else ()),
        ],
        "source.time": [
            "by type, name and order"
            if streams.time is not None
            else "no column of times without nulls; the order of the rows counts"
        ],
        "source.time_zone": [note_on_offset(str(streams.time), offset)] if offset else [],
        "source.features": features.notes,
        "source.nulls": nulls,
        "source.nan": nan,
        "source.bad": bad,
        "source.max_rejects": limit,
        "window.kind": [why] if why else [],
        "output.names": notes_on_steps(model, own_steps(model, None)),
        "sink.path": list(sink.notes),
    }
    values: dict[str, object] = {
        "source.path": data,
        "source.delimiter": source.delimiter or None,
        "source.key": streams.key or TODO,
        "source.time": streams.time,
        "source.features": [
            {"name": name, "vocabulary": TODO} if name in features.vocabularies else name
            for name in features.columns
        ],
        "source.time_features": list(features.time_features) or None,
        "source.nulls": "previous" if nulls or nan else None,
        "source.nan": "null" if nan else None,
        "source.bad": "reject" if bad else None,
        "source.max_rejects": 2 * rejects if limit else None,
        "model.path": path,
        "sink.path": sink.value,
    }
    if why:
        values |= {f"window.{key}": value for key, value in windows_of_predict(steps).items()}
    if len(specs) > 1:
        values["model.inputs"] = {
            name: columns[0] if len(columns) == 1 else columns
            for name, columns in features.inputs.items()
        }
    return _filled(values, notes)


def _filled(values: Mapping[str, object], notes: Mapping[str, list[str]]) -> Draft:
    """Return a draft with these values of keys and notes on keys; notes with TODO are its todos."""
    filled = {}
    for key in {**values, **notes}:
        comment: list[str] = []
        for note in notes.get(key, []):
            text = note if note.startswith(TODO) else f"Guessed: {note}"
            comment += textwrap.wrap(text, 96, break_long_words=False, break_on_hyphens=False)
        filled[key] = Filled(values.get(key), tuple(comment))
    said = [(key, note) for key, reasons in notes.items() for note in reasons]
    guesses = []
    for key, note in said:
        value = values.get(key)
        if isinstance(value, list):
            value = ", ".join(of["name"] if isinstance(of, dict) else of for of in value)
        if TODO not in note:
            guesses.append(f"{key}: {note}" if value is None else f"{key} = {value}: {note}")
    todos = [f"{key}: {note.removeprefix(f'{TODO}: ')}" for key, note in said if TODO in note]
    return Draft(sample(filled), guesses, todos)


def _of_key(streams: Streams) -> list[str]:
    others = f" (also possible: {', '.join(streams.others)})" if streams.others else ""
    if streams.key is None:
        return [f"{TODO}: name the column or columns that identify a stream{others}"]
    count = f"{streams.streams:,} streams in the first rows"
    if streams.time is None:
        return [f"by its name, {count}{others}"]
    order = "in the order of their times"
    if streams.disorder:
        order = f"with {streams.disorder:.1%} of times that repeat or go back"
    return [f"{count}, {order}{others}"]


def _on_missing(features: GuessedFeatures, rows: pa.Table) -> tuple[list[str], list[str]]:
    """Return notes on nulls and on NaN in the columns of the features."""
    read = [name for name in features.columns if name in rows.schema.names]
    floats = [name for name in read if pa.types.is_floating(rows.schema.field(name).type)]
    nulls = {name: rows[name].null_count for name in read}
    nan = {name: pc.sum(pc.is_nan(rows[name])).as_py() for name in floats}
    return _counted("nulls", nulls), _counted("NaN", nan)


def _counted(what: str, counts: Mapping[str, int]) -> list[str]:
    columns = [f"{name} ({count:,})" for name, count in counts.items() if count]
    return [f"{what} in the rows that were read: {', '.join(columns)}"] if columns else []


def _on_rejects(
    source: FileSource, streams: Streams, first: pa.Table
) -> tuple[int, list[str], list[str]]:
    """Return the number of rows without a key, and notes on [source] bad and max_rejects.

    The rows are counted from footers, or among the first rows if not all footers record nulls.
    """
    if streams.key is None:
        return 0, [], []
    recorded = source.statistics([streams.key]).get(streams.key)
    if whole := recorded is not None and not recorded.unrecorded:
        rows, total = recorded.nulls, recorded.rows
    else:
        rows, total = first[streams.key].null_count, first.num_rows
    if not rows:
        return 0, [], []
    note = f"the key is null in {rows:,} of {'' if whole else 'the first '}{total:,} rows"
    most = value_of("source.max_rejects", {})
    if rows > most:
        more = "" if whole else "; more rows may follow"
        limit = f"twice the number of rows without a key, as these alone would stop a run{more}"
        return rows, [note], [limit]
    if not whole:
        note += f"; a run stops when it rejects more than {most:,}: see max_rejects"
    return rows, [note], []
