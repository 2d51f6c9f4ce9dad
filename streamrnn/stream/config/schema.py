"""The schema of the pipeline file: every key, its type, its default and its line of help.

The JSON Schema, the sample of `streamrnn init` and many messages are generated from these classes.
"""

from datetime import timedelta
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, WithJsonSchema

from streamrnn.stream.config.paths import side_folder
from streamrnn.stream.config.training import TargetSection, TrainSection
from streamrnn.stream.config.values import (
    SOURCE_FORMAT_NAMES,
    STRING,
    Columns,
    ColumnTypes,
    Count,
    Delimiter,
    Duration,
    DurationOrNone,
    EngineType,
    FilePath,
    Idle,
    Kind,
    LayerTables,
    Levels,
    ModelInputs,
    Names,
    Natural,
    Nulls,
    NullValues,
    OnChange,
    Oov,
    PartitionBy,
    Range,
    Renames,
    ReplayRange,
    Section,
    Shards,
    SourceFormat,
    TableName,
    Text,
    TimeFeatures,
    TimeText,
    Version,
    VocabularyValue,
    any_of,
    array_of,
    feature_tables,
    setting,
)

PIPE = "-"
"""The path that means stdin or stdout."""


def is_pipe(path: str) -> bool:
    """Return whether a path stands for stdin or stdout."""
    return path == PIPE


class FeatureSection(Section):
    """One feature: a column and its valid values."""

    name: Text = setting("the column", ...)
    from_: Names = setting("old names that files may have for the column", (), alias="from")
    valid: Range | None = setting("values outside [low, high] (inclusive) are treated as null")
    clip: Range | None = setting("values are limited to [low, high]")
    nulls: Nulls | None = setting("as source.nulls, for this feature only")
    nan: Literal["error", "null"] | None = setting("as source.nan, for this feature only")
    vocabulary: VocabularyValue | None = setting(
        "the model reads ids of these values: a list, or a text file with one value per line (id = "
        "position + oov); a table, or a .csv or .parquet file, of values and ids"
    )
    oov: Oov = setting("a value outside the vocabulary: 0 (it is an error) | 1 (it has id 0)", 0)
    embed: Natural = setting(
        "how many numbers a fit learns for each id, joined to the other features in front of "
        "the layers; 0: none, the model reads the ids",
        0,
        example=8,
    )


Features = Annotated[
    tuple[FeatureSection, ...],
    BeforeValidator(feature_tables),
    WithJsonSchema(array_of(any_of(STRING, FeatureSection.model_json_schema()))),
]


class AfterSection(Section):
    """Where the files to read begin."""

    path: FilePath | None = setting("after this file")
    partition: Text | None = setting(
        "after this partition: date=2013-01-05, or the value alone; with several levels, from "
        "the first one on: year=2013/month=1"
    )
    time: TimeText | None = setting("files that begin at this time or later")


class SourceSection(Section):
    """The rows to score, and the features of the model."""

    path: FilePath | None = setting(
        'file, glob, directory (hive partitions too), URI, or "-": Arrow IPC on stdin',
        example="data/log.parquet",
    )
    format: SourceFormat = setting(
        " | ".join(SOURCE_FORMAT_NAMES[1:]) + " | auto (by name; a folder: by its files)", "auto"
    )
    version: Version | None = setting(
        "Delta, Iceberg: the version or snapshot to read; default: the latest", example=12
    )
    delimiter: Delimiter = setting(
        "CSV only: the character between values; default: a comma, in .tsv files a tab",
        "",
        example=";",
    )
    null_values: NullValues = setting(
        "CSV only: texts that are null in each column; default: an empty field, not quoted",
        (),
        example=["", "NA", "None", "-"],
    )
    types: ColumnTypes = setting(
        "types of columns; default: as in the first rows; between runs integers may become float64",
        factory=dict,
        example={"device": "string"},
    )
    order: Literal["path", "time"] = setting(
        "order of files: path (natural: 2 before 10) | time (by their statistics)", "path"
    )
    after: AfterSection | None = setting(
        "read only new files that come after { path = … }, { partition = … } or { time = … }",
        example={"partition": "date=2013-01-05"},
    )
    sort: Literal["none", "file"] = setting(
        "file: sort the rows of each file by time, in memory", "none"
    )
    key: Names = setting(
        "column or columns that identify a stream, of any type but floats, lists and structs",
        ...,
        example=["device"],
    )
    time: Text | None = setting(
        "timestamp, date or integer column; without it, file order counts", example="time"
    )
    features: Features = setting(
        "inputs of the model: a column, or { name, from, valid, clip, nulls, nan, vocabulary, "
        "oov, embed }",
        ...,
        example=["temperature", {"name": "pressure", "valid": [0, 1100], "clip": [900, 1100]}],
    )
    rename: Renames = setting(
        "new name = old name that a column has in some of the files, or a list of old names",
        factory=dict,
        example={"temperature": "temp_c"},
    )
    time_zone: str = setting(
        "zone of time_features, calendar folders, reports (else the column's), months and "
        "limits (else UTC)",
        "",
        example="America/New_York",
    )
    time_features: TimeFeatures = setting(
        "hour, day_of_week, day_of_year: sin and cos of 2 pi n / 24, / 7 (Monday 0), / 366 "
        "(from 1)",
        (),
    )
    nulls: Nulls = setting(
        "null in a feature: error | previous (value of the stream) | skip (the row) | a number",
        "error",
    )
    nan: Literal["error", "null"] = setting(
        "NaN in a feature: error | null (it is treated as null)", "error"
    )
    reset: Text | None = setting(
        "boolean column: true resets the stream before that row", example="new_session"
    )
    max_gap: Duration | None = setting(
        "a longer gap between two rows resets the stream; needs time", example="6h"
    )
    late: Literal["error", "drop", "reject", "apply"] = setting(
        "a row earlier than its stream's last time: error | drop | reject | apply", "error"
    )
    repeated: Literal["score", "skip", "reject", "error"] = setting(
        "a row at its stream's last time, always counted: score | skip (in no output) | reject "
        "| error",
        "score",
    )
    bad: Literal["error", "reject"] = setting(
        "an invalid row, such as one with NaN, a null key or an overflow: error | reject", "error"
    )
    max_rejects: Natural = setting("a run stops if it rejects more rows than this", 1000)
    batch_rows: Count = setting("rows per record batch", 131072)

    @property
    def piped(self) -> bool:
        """Whether rows are read from stdin."""
        return self.path == PIPE

    @property
    def time_feature_names(self) -> tuple[str, ...]:
        """Names of the features that time_features appends: hour_sin, hour_cos and so on."""
        return tuple(f"{name}_{wave}" for name in self.time_features for wave in ("sin", "cos"))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all features, in order."""
        return (*(feature.name for feature in self.features), *self.time_feature_names)

    @property
    def embedded(self) -> tuple[FeatureSection, ...]:
        """The features whose ids are embedded in front of the layers."""
        return tuple(feature for feature in self.features if feature.embed)

    @property
    def renames(self) -> dict[str, tuple[str, ...]]:
        """The old names of each column, including features: new name -> old names."""
        old_names = dict(self.rename)
        for feature in self.features:
            if feature.from_:
                old_names[feature.name] = (*old_names.get(feature.name, ()), *feature.from_)
        return old_names

    def nulls_of(self, feature: FeatureSection) -> Literal["error", "previous", "skip"] | float:
        """Return the null policy of a feature, by default the source's."""
        return self.nulls if feature.nulls is None else feature.nulls

    def nan_of(self, feature: FeatureSection) -> Literal["error", "null"]:
        """Return how a NaN in a feature is treated, by default as in the source."""
        return self.nan if feature.nan is None else feature.nan


class WindowSection(Section):
    """How streams are cut into windows."""

    kind: Kind = setting(
        "carry (keep the state) | independent (from zero) | whole (a stream); set it for "
        "fixed-step models",
        "carry",
    )
    lanes: Count = setting(
        "streams computed side by side; changes the weights of a fit, not the output of a run", 64
    )
    steps: Count = setting(
        "rows of a stream per window; changes the weights of a fit, and the output of kind "
        "independent",
        128,
    )
    stride: Count = setting(
        "kind independent only: a window starts every stride rows of a stream; default steps",
        factory=lambda data: data.get("steps", 128),
        example=128,
    )


class ModelSection(Section):
    """The model, and how features and states connect to it."""

    path: FilePath = setting(
        "file or URI: .safetensors, .keras, .h5, .hdf5 or .onnx", ..., example="model.safetensors"
    )
    on_change: OnChange = setting(
        "if the state is from another model: error | replay (earlier rows) | carry | reset", "error"
    )
    replay: ReplayRange = setting(
        'the rows that a replay reads: all | "90d" (up to the newest time) | a number per stream',
        "all",
        example="90d",
    )
    precision: Literal["auto", "float32", "int16", "int8"] = setting(
        "auto (the file's: float32 unless converted) | float32 | int16 | int8 (recurrent, wide "
        "layers)",
        "auto",
    )
    threads: Natural = setting("0: all cores; does not change results", 0)
    inputs: ModelInputs = setting(
        "with several inputs: input = a feature, a list, or { features, steps = of the last rows }",
        factory=dict,
        example={"ids": "token", "x": ["temperature", "pressure"]},
    )
    state: dict[str, Text] = setting(
        "for ONNX: state input of the graph = state output of the graph",
        factory=dict,
        example={"h": "hn", "c": "cn"},
    )
    layers: LayerTables = setting(
        "for a fit, or a weights file: type, Keras arguments, inputs, weights (name prefix)",
        (),
        example=[{"type": "LSTM", "units": 32, "weights": "encoder.lstm"}],
    )

    @property
    def input_features(self) -> dict[str, tuple[str, ...]]:
        """The features of each input."""
        each = self.inputs.items()
        return {name: of["features"] if isinstance(of, dict) else of for name, of in each}


class OutputSection(Section):
    """The rows and columns of the output."""

    emit: Literal["every", "last", "final"] = setting(
        "every (row) | last (of each last_of steps of a stream) | final (row of each stream)",
        "every",
    )
    last_of: Count | None = setting('emit = "last": steps per output row', example=24)
    columns: Columns | None = setting(
        'columns to copy from the source; default key and time; "*" means all',
        example=["device", "time"],
    )
    names: Names | None = setting(
        "names of the output columns, one per unit; default the output layer's name",
        example=["forecast"],
    )
    warmup: Natural = setting(
        "output is null for this many steps after a stream starts or is reset", 0
    )
    quantiles: Levels | None = setting(
        "levels of quantiles in place of mean and deviation (a Gaussian, or several seeds in one "
        "model)",
        example=[0.05, 0.5, 0.95],
    )
    sort: bool = setting(
        "true: the quantiles of each row are in ascending order, so that none cross", False
    )
    calibrate: bool = setting(
        "true: a fit shifts each quantile, so that it covers its share of validation labels", False
    )
    model_column: Text | None = setting(
        "a column for the fingerprint of the model that computed the row", example="model"
    )


def _beside(data: dict[str, Any]) -> str | None:
    path = data.get("path")
    return None if path in (None, PIPE) else side_folder(path, "rejects")


class SinkSection(Section):
    """Where the output is written."""

    path: FilePath | None = setting(
        'directory, URI, or "-": Arrow IPC on stdout', example="out/scores"
    )
    format: Literal["parquet", "arrow"] = setting(
        "format of the parts: parquet | arrow (IPC files)", "parquet"
    )
    partition_by: PartitionBy = setting(
        'folders by columns, or by year, month, day, hour: { date = "day(time)" }',
        (),
        example=["device"],
    )
    rejects: FilePath | None = setting(
        'directory of rejected rows; default path + ".rejects"',
        factory=_beside,
        example="out/scores.rejects",
    )

    @property
    def folder(self) -> str | None:
        """The directory or URI of the output; None for stdout, or if not set."""
        return None if self.path == PIPE else self.path


class IcebergTable(Section):
    """A table of an Iceberg catalog."""

    catalog: Text = setting("the catalog, by its name in pyiceberg's configuration", ...)
    table: TableName = setting("namespace.table; created if it does not exist", ...)


class PublishSection(Section):
    """Tables that index the parts of the output after each commit; no row is copied."""

    delta: bool = setting("true: a Delta table whose root is sink.path (Parquet only)", False)
    iceberg: IcebergTable | None = setting(
        "an Iceberg table: a catalog of pyiceberg's configuration, and namespace.table",
        example={"catalog": "default", "table": "lake.scores"},
    )

    @property
    def used(self) -> tuple[str, ...]:
        """The keys that are set, one for each table."""
        return tuple(key for key in type(self).model_fields if getattr(self, key))


PUBLISH_KEYS = tuple(f"publish.{name}" for name in PublishSection.model_fields)
"""The keys of [publish], one for each table. Each is also the name of a plug-in's entry point."""


class AlertsSection(Section):
    """Rows of the output that are also written to a second directory, in the same commit."""

    where: str = setting(
        "a filter: comparisons of output columns, and, or, not, in, is null",
        "",
        example="forecast > 0.9",
    )
    path: FilePath | None = setting(
        'directory of alerts; default sink.path + ".alerts"', example="out/scores.alerts"
    )


class StateSection(Section):
    """The state that a run starts from and exports, and when streams are dropped from it."""

    init: FilePath | None = setting(
        "start from this state: an exported table, or the output folder of a run",
        example="before.parquet",
    )
    map: dict[str, Text] = setting(
        "layer of this model = layer of init, or of the last model, whose state it takes over",
        factory=dict,
        example={"decoder": "encoder"},
    )
    save: FilePath | None = setting(
        "export the state table to this file at the end of the run", example="after.parquet"
    )
    idle: Idle = setting(
        "a stream starts again after a longer silence; commits drop it after twice as long; "
        "needs time",
        example="30d",
    )


class CheckpointSection(Section):
    """How often a run commits, and how many commits are kept."""

    every: Count = setting("record batches per commit", 16)
    keep: Natural = setting(
        "how many earlier runs keep their last commit, for `streamrnn rewind`", 7
    )


class EngineSection(Section):
    """Where streams are scored: in this process, or by the workers of a Ray cluster."""

    type: EngineType = setting("where: local (this process) or ray", "local")
    address: Text = setting(
        "the Ray cluster: host:port or ray://host:port; local: starts one here", "local"
    )
    shards: Shards = setting(
        "shares of the streams on Ray, scored side by side; 0: as in the last run, else 2 per CPU",
        0,
    )
    epoch_rows: Count = setting("rows per commit on Ray, cut at row groups", 20_000_000)


class ServeSection(Section):
    """Live requests that `streamrnn serve` answers from the state of the output."""

    port: Natural = setting(
        "port on 127.0.0.1; 0: a free one; other machines connect through a proxy", 8080
    )
    batch_rows: Count = setting(
        "maximum number of rows of waiting requests scored in one call; a larger request is scored "
        "alone",
        1024,
    )
    queue_rows: Count = setting(
        "rows that may wait; a request beyond them is refused (429)", 100_000
    )
    durable: Literal["log", "commit"] = setting(
        "log (rows are on disk before their answer) | commit (a crash loses rows not yet "
        "committed)",
        "log",
    )
    log: FilePath | None = setting(
        'directory of accepted rows, which runs can read; default sink.path + ".accepted"',
        example="out/scores.accepted",
    )
    keep_log: DurationOrNone = setting(
        '"" (keep all) | "30d": remove older files once all retained commits have their rows',
        timedelta(),
        example="30d",
    )
    every: Duration = setting(
        "time between commits of rows and state", timedelta(seconds=30), example="30s"
    )


class Sections(Section):
    """All tables of a pipeline file."""

    source: SourceSection
    window: WindowSection = WindowSection()
    model: ModelSection
    output: OutputSection = OutputSection()
    sink: SinkSection = SinkSection()
    publish: PublishSection = PublishSection()
    alerts: AlertsSection = AlertsSection()
    target: TargetSection = TargetSection()
    train: TrainSection = TrainSection()
    state: StateSection = StateSection()
    checkpoint: CheckpointSection = CheckpointSection()
    engine: EngineSection = EngineSection()
    serve: ServeSection = ServeSection()

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Columns copied to the output, by default key and time; None means all."""
        source, columns = self.source, self.output.columns
        if columns is None:
            return (*source.key, *filter(None, [source.time]))
        return None if columns == ("*",) else columns


TABLES = {
    name: cast("type[Section]", field.annotation) for name, field in Sections.model_fields.items()
}
"""The classes of the tables, by name."""
