"""Score Spark DataFrames: rows in, rows and state out, bit for bit as in a local run."""

from streamrnn.plugins.spark.frames import state_from_arrow, state_to_arrow, worker_errors
from streamrnn.plugins.spark.scored import ScoredFrames, score

__all__ = ["ScoredFrames", "score", "state_from_arrow", "state_to_arrow", "worker_errors"]
