"""The numbers of `streamrnn report`: aggregates of committed parts, states and sources."""

from streamrnn.plugins.report.numbers.columns import MOST_OUTPUTS, OutputColumns
from streamrnn.plugins.report.numbers.forecast_errors import Errors, ForecastErrors
from streamrnn.plugins.report.numbers.histogram import even_histogram, log_histogram
from streamrnn.plugins.report.numbers.rejected import rejected_by_time
from streamrnn.plugins.report.numbers.scan import (
    Extent,
    OutputStreams,
    Scanned,
    StreamMeans,
    extent_of,
    scan,
    stream_means,
    texts_of_keys,
)
from streamrnn.plugins.report.numbers.source_values import SourceColumn, SourceValues
from streamrnn.plugins.report.numbers.state_norms import (
    SATURATED,
    LayerNorms,
    layer_norms,
    norm_quantiles,
)
from streamrnn.plugins.report.numbers.timeline import Timeline, text_of

__all__ = [
    "MOST_OUTPUTS",
    "SATURATED",
    "Errors",
    "Extent",
    "ForecastErrors",
    "LayerNorms",
    "OutputColumns",
    "OutputStreams",
    "Scanned",
    "SourceColumn",
    "SourceValues",
    "StreamMeans",
    "Timeline",
    "even_histogram",
    "extent_of",
    "layer_norms",
    "log_histogram",
    "norm_quantiles",
    "rejected_by_time",
    "scan",
    "stream_means",
    "text_of",
    "texts_of_keys",
]
