"""Rows of a caller, from call to call: through `process`, or into an output that a session owns.

- `stateful`    the part of `Pipeline` with `process`, its state, and checkpoints
- `calls`       the data of each call through one scorer; `data` makes record batches of it
- `session`     calls into an output, in the commits of a run
- `checkpoint`  the state of `process` in a file, for another process
- `starting`    the state that the first call starts from
"""

from streamrnn.jobs.session.session import Session
from streamrnn.jobs.session.stateful import StatefulPipeline
