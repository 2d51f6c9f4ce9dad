"""Engines that score the shards of a run. Local: all in this process."""

from streamrnn.engines.local import LocalEngine
from streamrnn.engines.targets import FolderTarget, StreamTarget

__all__ = ["FolderTarget", "LocalEngine", "StreamTarget"]
