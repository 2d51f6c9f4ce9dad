"""Score a log in an S3 bucket on a Ray cluster, into a folder of a bucket.

    python pipelines/etl/ray_bucket.py PIPELINE SOURCE SINK
    ray job submit --working-dir . -- python pipelines/etl/ray_bucket.py PIPELINE SOURCE SINK

SOURCE and SINK are URIs such as `s3://bucket/log?region=eu-west-3`; credentials come from the
environment of each node. A job on a cluster joins it (Ray sets RAY_ADDRESS); elsewhere Ray starts
on this machine. Submit the job again after any failure: it resumes from the last commit.
"""

import json
import os
import sys

from streamrnn import Pipeline
from streamrnn.errors import StreamRNNError


def main(pipeline: str, source: str, sink: str) -> int:
    """Score the new files of the source, print the summary, and return the exit code."""
    address = os.environ.get("RAY_ADDRESS", "local")
    overrides = [f"source.path={source}", f"sink.path={sink}", f"engine.address={address}"]
    try:
        summary = Pipeline.from_toml(pipeline, overrides).run(engine="ray")
    except StreamRNNError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(summary.as_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
