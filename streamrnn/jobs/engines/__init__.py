"""Engines that score the shards of a run: in this process, or on workers."""

from streamrnn.jobs.engines.opening import LocalEngine, open_engine
from streamrnn.jobs.engines.sharded import ShardedEngine
from streamrnn.jobs.engines.splitting import epoch_rows
from streamrnn.jobs.engines.targets import FolderTarget, StreamTarget

Engine = LocalEngine | ShardedEngine
"""Scores the rows of a run into a target, and has them committed."""
