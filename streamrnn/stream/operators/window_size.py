"""The size of windows in the pipeline file."""

from typing import NamedTuple


class WindowSize(NamedTuple):
    """The keys of [window] besides the kind."""

    lanes: int
    steps: int
    stride: int
