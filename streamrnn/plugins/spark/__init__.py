"""Score Spark DataFrames: rows in, rows and state out, with the bits of a local run."""

from streamrnn.plugins.spark.scored import ScoredFrames, score
from streamrnn.plugins.spark.state_frames import state_from_arrow, state_to_arrow
from streamrnn.plugins.spark.workers import worker_errors

__all__ = ["ScoredFrames", "score", "state_from_arrow", "state_to_arrow", "worker_errors"]
