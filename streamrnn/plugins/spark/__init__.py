"""Score Spark DataFrames: rows in, rows and state out, with the bits of a local run."""

from streamrnn.plugins.spark.failures import worker_errors
from streamrnn.plugins.spark.result import ScoredFrames
from streamrnn.plugins.spark.scored import score
from streamrnn.plugins.spark.state_frames import state_from_arrow, state_to_arrow

__all__ = ["ScoredFrames", "score", "state_from_arrow", "state_to_arrow", "worker_errors"]
