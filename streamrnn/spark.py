"""Score Spark DataFrames: rows in, rows and state out, with the bits of a local run."""

from typing import TYPE_CHECKING, Any

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


if not TYPE_CHECKING:  # so that a type checker reports misspelled names

    def __getattr__(name: str) -> Any:
        if name in __all__:
            return getattr(load_plugin("module", "spark"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


_show_in(__name__, globals())
