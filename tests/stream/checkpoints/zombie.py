"""A second writer of a commit, that should be dead."""

import numpy as np
import pyarrow as pa
from stream.checkpoints.small_run import REJECTS, SCHEMA

from streamrnn.stream.checkpoints import Attempt, Snapshot, read_manifest
from streamrnn.stream.checkpoints.versions import delta_since


class Zombie:
    """Writes other rows, rejects and state than the run, for its next commit."""

    def __init__(self, out):
        self.out = out
        manifest = read_manifest(out)
        (shard,) = manifest.shards
        self.last = shard.files
        self.commit = manifest.commit + 1

    def attempt(self):
        return Attempt(
            {"rows": self.out, "rejects": f"{self.out}.rejects"},
            schema=SCHEMA,
            format="parquet",
            commit=self.commit,
            shard=0,
            last=self.last,
        )

    def begin(self):
        """Open all its files."""
        attempt = self.attempt()
        attempt.write(pa.record_batch([[66], [66]], schema=SCHEMA))
        attempt.reject(pa.record_batch([["undead"], [66]], schema=REJECTS))
        return attempt

    def finish(self, attempt):
        """Finish them, with another state."""
        rows = np.arange(4)
        table = pa.table({"stream": rows, "seen": rows * 66})
        attempt.finish(delta_since(Snapshot(4, None, lambda rows: table), (), None))
