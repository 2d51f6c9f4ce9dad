"""The schema of the pipeline file: every key, its type, its default and its line of help.

The JSON Schema, the sample of `streamrnn init` and many messages are generated from these classes.
"""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from streamrnn.stream.config.durations import format_duration
from streamrnn.stream.config.paths import side_folder
from streamrnn.stream.config.section import Section
from streamrnn.stream.config.training import TrainSection
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
    Horizons,
    Idle,
    Key,
    Kind,
    LayerTables,
    Levels,
    ModelInputs,
    Names,
    Natural,
    Nulls,
    OnChange,
    Oov,
    PartitionBy,
    Range,
    Renames,
    ReplayRange,
    Shards,
    SourceFormat,
    TableName,
    Text,
    TimeFeatures,
    TimeText,
    Version,
    VocabularyValue,
    feature_tables,
)

PIPE = "-"
"""The path that means stdin or stdout."""


def is_pipe(path: str) -> bool:
    """Return whether a path stands for stdin or stdout."""
    return path == PIPE


class FeatureSection(Section):
    """One feature: a column and its valid values."""

    name: Text = Field(description="the column")
    from_: Names = Field(
        default=(), alias="from", description="old names that files may have for the column"
    )
    valid: Range | None = Field(
        default=None, description="values outside [low, high] (inclusive) are treated as null"
    )
    clip: Range | None = Field(default=None, description="values are limited to [low, high]")
    nulls: Nulls | None = Field(default=None, description="as source.nulls, for this feature only")
    nan: Literal["error", "null"] | None = Field(
        default=None, description="as source.nan, for this feature only"
    )
    vocabulary: VocabularyValue | None = Field(
        default=None,
        description="the model reads ids of these values: a list or a text file with one per line "
        "(id = position + oov), a table, or a .csv or .parquet file of values and ids",
    )
    oov: Oov = Field(
        default=0,
        description="a value outside the vocabulary: 0 (it is an error) | 1 (it has id 0)",
    )
    embed: Natural = Field(
        default=0,
        description="how many numbers a fit learns for each id, joined to the other features in "
        "front of the layers; 0: none, the model reads the ids",
        examples=[8],
    )


Features = Annotated[
    tuple[FeatureSection, ...],
    BeforeValidator(feature_tables),
    WithJsonSchema(
        {"type": "array", "items": {"anyOf": [STRING, FeatureSection.model_json_schema()]}},
    ),
]


class AfterSection(Section):
    """Where the files to read begin."""

    path: FilePath | None = Field(default=None, description="after this file")
    partition: Text | None = Field(
        default=None,
        description="after this partition: date=2013-01-05, or the value alone; with several "
        "levels, from the first one on: year=2013/month=1",
    )
    time: TimeText | None = Field(
        default=None, description="files that begin at this time or later"
    )


class SourceSection(Section):
    """The rows to score, and the features of the model."""

    path: FilePath | None = Field(
        default=None,
        description='file, glob, directory (hive partitions too), URI, or "-": Arrow IPC on stdin',
        examples=["data/log.parquet"],
    )
    format: SourceFormat = Field(
        default="auto",
        description=" | ".join(SOURCE_FORMAT_NAMES[1:])
        + " | auto (by name; a folder: by its files)",
    )
    version: Version | None = Field(
        default=None,
        description="Delta, Iceberg: the version or snapshot to read; default: the latest",
        examples=[12],
    )
    delimiter: Delimiter = Field(
        default="",
        description="CSV only: the character between values; default: a comma, in .tsv files a tab",
        examples=[";"],
    )
    types: ColumnTypes = Field(
        default_factory=dict,
        description="types of columns of CSV and NDJSON files; by default as in the first rows",
        examples=[{"device": "string"}],
    )
    order: Literal["path", "time"] = Field(
        default="path",
        description="order of files: path (natural: 2 before 10) | time (by their statistics)",
    )
    after: AfterSection | None = Field(
        default=None,
        description="read only new files that come after { path = … }, { partition = … } or "
        "{ time = … }",
        examples=[{"partition": "date=2013-01-05"}],
    )
    sort: Literal["none", "file"] = Field(
        default="none",
        description="file: sort the rows of each file by time, in memory",
    )
    key: Key = Field(
        description="column or columns that identify a stream, of any type but float",
        examples=[["device"]],
    )
    time: Text | None = Field(
        default=None,
        description="timestamp, date or integer column; without it, file order counts",
        examples=["time"],
    )
    features: Features = Field(
        description="inputs of the model: a column, or { name, from, valid, clip, nulls, nan, "
        "vocabulary, oov, embed }",
        examples=[["temperature", {"name": "pressure", "valid": [0, 1100], "clip": [900, 1100]}]],
    )
    rename: Renames = Field(
        default_factory=dict,
        description="new name = old name of a column, or a list of them, in some of the files",
        examples=[{"temperature": "temp_c"}],
    )
    time_zone: str = Field(
        default="",
        description="zone of time_features, calendar folders, reports (else the column's), months "
        "and limits (else UTC)",
        examples=["America/New_York"],
    )
    time_features: TimeFeatures = Field(
        default=(),
        description="hour, day_of_week, day_of_year: sin and cos of 2 pi n / 24, / 7 (Monday 0), "
        "/ 366 (from 1)",
    )
    nulls: Nulls = Field(
        default="error",
        description="null in a feature: error | previous (value of the stream) | skip (the row) | "
        "a number",
    )
    nan: Literal["error", "null"] = Field(
        default="error", description="NaN in a feature: error | null (it is treated as null)"
    )
    reset: Text | None = Field(
        default=None,
        description="boolean column: true resets the stream before that row",
        examples=["new_session"],
    )
    max_gap: Duration | None = Field(
        default=None,
        description="a longer gap between two rows resets the stream; needs time",
        examples=["6h"],
    )
    late: Literal["error", "drop", "reject", "apply"] = Field(
        default="error",
        description="a row earlier than its stream's last time: error | drop | reject | apply",
    )
    repeated: Literal["score", "skip", "reject", "error"] = Field(
        default="score",
        description="a row at its stream's last time, always counted: score | skip (in no output) "
        "| reject | error",
    )
    bad: Literal["error", "reject"] = Field(
        default="error",
        description="an invalid row, such as one with NaN, a null key or an overflow: error | "
        "reject",
    )
    max_rejects: Natural = Field(
        default=1000, description="a run stops if it rejects more rows than this"
    )
    batch_rows: Count = Field(default=131072, description="rows per record batch")

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
        """Old names of columns, features included."""
        old_names = dict(self.rename)
        for feature in self.features:
            if feature.from_:
                old_names[feature.name] = (*old_names.get(feature.name, ()), *feature.from_)
        return old_names

    def nulls_of(self, feature: FeatureSection) -> Literal["error", "previous", "skip"] | float:
        """Return the null policy of a feature, by default the one of the source."""
        return self.nulls if feature.nulls is None else feature.nulls

    def nan_of(self, feature: FeatureSection) -> Literal["error", "null"]:
        """Return what a NaN in a feature is, by default as for the source."""
        return self.nan if feature.nan is None else feature.nan


class WindowSection(Section):
    """How streams are cut into windows."""

    kind: Kind = Field(
        default="carry",
        description="carry (keep the state) | independent (from zero) | whole (a stream); models "
        "of fixed steps need it",
    )
    lanes: Count = Field(
        default=64,
        description="streams computed side by side; changes the weights of a fit, not the output "
        "of a run",
    )
    steps: Count = Field(
        default=128,
        description="rows of a stream per window; changes the weights of a fit, and the output of "
        "kind independent",
    )
    stride: Count = Field(
        default_factory=lambda data: data.get("steps", 128),
        description="kind independent only: a window starts every stride rows of a stream; "
        "default steps",
        examples=[128],
    )


class ModelSection(Section):
    """The model, and how features and states connect to it."""

    path: FilePath = Field(
        description="file or URI: .safetensors, .keras, .h5, .hdf5 or .onnx",
        examples=["model.safetensors"],
    )
    on_change: OnChange = Field(
        default="error",
        description="if the state is from another model: error | replay (earlier rows) | carry | "
        "reset",
    )
    replay: ReplayRange = Field(
        default="all",
        description='the rows that a replay reads: all | "90d" (up to the newest time) | a number '
        "per stream",
        examples=["90d"],
    )
    precision: Literal["auto", "float32", "int16", "int8"] = Field(
        default="auto",
        description="auto (the file's: float32 unless converted) | float32 | int16 | int8 "
        "(recurrent, wide layers)",
    )
    threads: Natural = Field(default=0, description="0: all cores; does not change results")
    inputs: ModelInputs = Field(
        default_factory=dict,
        description="for a model with several inputs: input = a feature, or a list of features",
        examples=[{"ids": "token", "x": ["temperature", "pressure"]}],
    )
    state: dict[str, Text] = Field(
        default_factory=dict,
        description="for ONNX: state input of the graph = state output of the graph",
        examples=[{"h": "hn", "c": "cn"}],
    )
    layers: LayerTables = Field(
        default=(),
        description="for a fit, or a file of weights: type, Keras arguments, inputs, "
        "weights (name prefix)",
        examples=[[{"type": "LSTM", "units": 32, "weights": "encoder.lstm"}]],
    )


class OutputSection(Section):
    """The rows and columns of the output."""

    emit: Literal["every", "last", "final"] = Field(
        default="every",
        description="every (row) | last (of each last_of steps of a stream) | final (row of each "
        "stream)",
    )
    last_of: Count | None = Field(
        default=None, description='emit = "last": steps per output row', examples=[24]
    )
    columns: Columns | None = Field(
        default=None,
        description='columns to copy from the source; default key and time; "*" means all',
        examples=[["device", "time"]],
    )
    names: Names | None = Field(
        default=None,
        description="names of the output columns, one per unit; default the output layer's name",
        examples=[["forecast"]],
    )
    warmup: Natural = Field(
        default=0,
        description="output is null for this many steps after a stream starts or is reset",
    )
    quantiles: Levels | None = Field(
        default=None,
        description="levels of quantiles that replace a mean and deviation (Gaussian, several "
        "seeds as one)",
        examples=[[0.05, 0.5, 0.95]],
    )
    calibrate: bool = Field(
        default=False,
        description="true: a fit shifts each quantile, so that it covers its share of validation "
        "labels",
    )
    model_column: Text | None = Field(
        default=None,
        description="a column for the fingerprint of the model that computed the row",
        examples=["model"],
    )


def _beside(data: dict[str, Any]) -> str | None:
    path = data.get("path")
    return None if path in (None, PIPE) else side_folder(path, "rejects")


class SinkSection(Section):
    """Where the output is written."""

    path: FilePath | None = Field(
        default=None, description='directory, URI, or "-": Arrow IPC on stdout',
        examples=["out/scores"],
    )  # fmt: skip
    format: Literal["parquet", "arrow"] = Field(
        default="parquet", description="format of the parts: parquet | arrow (IPC files)"
    )
    partition_by: PartitionBy = Field(
        default=(),
        description='folders by columns, or by year, month, day, hour: { date = "day(time)" }',
        examples=[["device"]],
    )
    rejects: FilePath | None = Field(
        default_factory=_beside,
        description='directory of rejected rows; default path + ".rejects"',
        examples=["out/scores.rejects"],
    )

    @property
    def folder(self) -> str | None:
        """The directory or URI of the output; None for stdout, or if not set."""
        return None if self.path == PIPE else self.path


class IcebergTable(Section):
    """A table of an Iceberg catalog."""

    catalog: Text = Field(description="the catalog, by its name in pyiceberg's configuration")
    table: TableName = Field(description="namespace.table; created if it does not exist")


class PublishSection(Section):
    """Tables that index the parts of the output after each commit; no row is copied."""

    delta: bool = Field(
        default=False, description="true: a Delta table whose root is sink.path (Parquet only)"
    )
    iceberg: IcebergTable | None = Field(
        default=None,
        description="an Iceberg table: a catalog of pyiceberg's configuration, and namespace.table",
        examples=[{"catalog": "default", "table": "lake.scores"}],
    )

    @property
    def used(self) -> tuple[str, ...]:
        """The keys that name a table."""
        return tuple(key for key in type(self).model_fields if getattr(self, key))


PUBLISH_KEYS = tuple(f"publish.{name}" for name in PublishSection.model_fields)
"""The keys that name a table, which are entry points of plug-ins, too."""


class AlertsSection(Section):
    """Rows of the output that are also written to a second directory, in the same commit."""

    where: str = Field(
        default="",
        description="a filter: comparisons of output columns, and, or, not, in, is null",
        examples=["forecast > 0.9"],
    )
    path: FilePath | None = Field(
        default=None,
        description='directory of alerts; default sink.path + ".alerts"',
        examples=["out/scores.alerts"],
    )


class TargetSection(Section):
    """What the outputs forecast: the labels of training windows, and of `streamrnn evaluate`."""

    column: Names = Field(
        default=(),
        description="the column that is forecast, or several; null: the row has no label",
        examples=["temperature"],
    )
    horizon: Horizons = Field(
        default=(),
        description="0 (default: the row itself) | how much later the row with the label is, "
        "exactly; or several",
        examples=["3h"],
    )
    rows: Natural = Field(
        default=0,
        description="instead of horizon: how many rows of the stream later the label is",
    )
    weight: Text | None = Field(
        default=None,
        description="column of weights; 0 or null: the step moves the state and counts for nothing",
        examples=["weight"],
    )
    season: DurationOrNone = Field(
        default=timedelta(),
        description='"" | "24h": fit and evaluate also compare with the value a day, or days, '
        "before the label",
        examples=["24h"],
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of labels and weights, each once."""
        return tuple(dict.fromkeys([*self.column, *filter(None, [self.weight])]))

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels: every horizon of the first column, then of the next."""
        if len(self.horizon) < 2:
            return self.column
        ahead = [format_duration(length) for length in self.horizon]
        return tuple(f"{column} {length}" for column in self.column for length in ahead)

    @property
    def ahead(self) -> bool:
        """Whether a label is the value of a later row."""
        return bool(self.horizon or self.rows)


class StateSection(Section):
    """The state that a run starts from and exports, and when streams are dropped from it."""

    init: FilePath | None = Field(
        default=None,
        description="start from this state: an exported table, or the output folder of a run",
        examples=["before.parquet"],
    )
    map: dict[str, Text] = Field(
        default_factory=dict,
        description="layer of this model = layer whose state it takes over, of init or of the "
        "last model",
        examples=[{"decoder": "encoder"}],
    )
    save: FilePath | None = Field(
        default=None,
        description="export the state table to this file at the end of the run",
        examples=["after.parquet"],
    )
    idle: Idle = Field(
        default=None,
        description="a stream starts again after a longer silence; commits drop it after twice as "
        "long; needs time",
        examples=["30d"],
    )


class CheckpointSection(Section):
    """How often a run commits, and how many commits are kept."""

    every: Count = Field(default=16, description="record batches per commit")
    keep: Natural = Field(
        default=7, description="ends of earlier runs to keep, for `streamrnn rewind`"
    )


class EngineSection(Section):
    """Where streams are scored: in this process, or by the workers of a Ray cluster."""

    type: EngineType = Field(default="local", description="where: local (this process) or ray")
    address: Text = Field(
        default="local",
        description="the Ray cluster: host:port or ray://host:port; local: starts one here",
    )
    shards: Shards = Field(
        default=0,
        description="shares of the streams on Ray, scored side by side; 0: as in the last "
        "run, else 2 per CPU",
    )
    epoch_rows: Count = Field(
        default=20_000_000, description="rows per commit on Ray, cut at row groups"
    )


class ServeSection(Section):
    """Live requests that `streamrnn serve` answers from the state of the output."""

    port: Natural = Field(
        default=8080,
        description="port on 127.0.0.1; 0: a free one; other machines connect through a proxy",
    )
    batch_rows: Count = Field(
        default=1024,
        description="most rows of waiting requests scored in one call; a larger request is scored "
        "alone",
    )
    queue_rows: Count = Field(
        default=100_000, description="rows that may wait; a request beyond them is refused (429)"
    )
    durable: Literal["log", "commit"] = Field(
        default="log",
        description="log (rows are on disk before their answer) | commit (a crash loses rows not "
        "yet committed)",
    )
    log: FilePath | None = Field(
        default=None,
        description="directory of accepted rows, which runs can read; default sink.path + "
        '".accepted"',
        examples=["out/scores.accepted"],
    )
    keep_log: DurationOrNone = Field(
        default=timedelta(),
        description='"" (keep all) | "30d": remove older files whose rows each retained commit has',
        examples=["30d"],
    )
    every: Duration = Field(
        default=timedelta(seconds=30),
        description="time between commits of rows and state",
        examples=["30s"],
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
