"""Score Spark DataFrames: rows in, rows and state out, bit for bit as in a local run."""

from typing import TYPE_CHECKING

from streamrnn.base.display import show_in as _show_in
from streamrnn.base.plugin import load_plugin

if TYPE_CHECKING:
    from streamrnn.plugins.spark import (
        ScoredFrames,
        score,
        state_from_arrow,
        state_to_arrow,
        worker_errors,
    )

__all__ = ["ScoredFrames", "score", "state_from_arrow", "state_to_arrow", "worker_errors"]

_show_in(
    __name__,
    globals(),
    dict.fromkeys(__all__, lambda name: getattr(load_plugin("module", "spark"), name)),
)
