"""Live answers over HTTP from the state of an output, which runs and requests share.

- `command`    `streamrnn serve`
- `server`     the process: it owns the output, listens, commits, and ends
- `connections`   the limits of connections: how slow, how long, how many
- `web`        the paths, requests and responses; HTTP itself comes from starlette and uvicorn
- `tensors`    the Open Inference Protocol
- `service`    the queue: waiting requests are scored in one call
- `scoring`    scores requests in a session, and logs accepted rows before their answers
- `log`       the log of accepted rows, and the last answer to each producer
- `values`     values of JSON as columns, and answers as JSON
"""
