"""Where the shards of a run are scored. Local: all in this process."""

from streamrnn.engines.local import LocalEngine
from streamrnn.engines.targets import FolderTarget, StreamTarget

__all__ = ["FolderTarget", "LocalEngine", "StreamTarget"]
