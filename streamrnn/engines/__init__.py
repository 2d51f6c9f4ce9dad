"""Engines that score the shards of a run: in this process, or on workers."""

from streamrnn.engines.base import Engine
from streamrnn.engines.local import LocalEngine
from streamrnn.engines.opening import open_engine
from streamrnn.engines.pieces import epoch_rows
from streamrnn.engines.sharded import ShardedEngine
from streamrnn.engines.targets import FolderTarget, StreamTarget

__all__ = [
    "Engine",
    "FolderTarget",
    "LocalEngine",
    "ShardedEngine",
    "StreamTarget",
    "epoch_rows",
    "open_engine",
]
