"""The pipeline file: schema, loading, checks, overrides, environment, sample."""

from streamrnn.stream.config.keys import (
    FREE,
    check_recorded,
    check_schema_types,
    may_change,
    side_filters,
    value_of,
)
from streamrnn.stream.config.load import Config, absolute_paths, json_schema
from streamrnn.stream.config.notations import PartitionLevel, parse_duration, partition_levels
from streamrnn.stream.config.paths import (
    SIDE_OUTPUTS,
    SideOutput,
    recorded_place,
    same_place,
    side_folder,
    title,
    to_record,
    without_secrets,
)
from streamrnn.stream.config.problems import did_you_mean
from streamrnn.stream.config.rules import TODO, both_answers, use_of, windows_of_predict
from streamrnn.stream.config.schema import is_pipe
from streamrnn.stream.config.toml_text import Filled, sample
from streamrnn.stream.config.training import whole_schedule
