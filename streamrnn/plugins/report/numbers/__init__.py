"""The numbers of `streamrnn report`: aggregates of committed parts, states and sources."""

from streamrnn.outputs.reporting.columns import MOST_OUTPUTS, OutputColumns
from streamrnn.outputs.reporting.forecast_errors import Errors, ForecastErrors
from streamrnn.outputs.reporting.histogram import even_histogram, log_histogram
from streamrnn.outputs.reporting.rejected import rejected_by_time
from streamrnn.outputs.reporting.scan import (
    Extent,
    OutputStreams,
    Scanned,
    StreamMeans,
    extent_of,
    scan,
    stream_means,
    texts_of_keys,
)
from streamrnn.outputs.reporting.source_values import SourceColumn, SourceValues
from streamrnn.outputs.reporting.state_norms import (
    SATURATED,
    LayerNorms,
    layer_norms,
    norm_quantiles,
)
from streamrnn.outputs.reporting.timeline import Timeline, text_of

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
