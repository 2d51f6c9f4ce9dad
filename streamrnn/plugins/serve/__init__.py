"""Live answers over HTTP from the state of an output, which runs and requests share.

- `command`    `streamrnn serve`
- `server`     the process: it owns the output, listens, commits, and ends
- `connections`   of clients that are slow, or many
- `web`        requests and responses; all that is HTTP comes from starlette and uvicorn
- `tensors`    the Open Inference Protocol
- `service`    requests that are waiting, scored in one call
- `scoring`    requests in a session; accepted rows in the log, before their answers
- `log`, `producers`   the log, and what was last answered to whom
- `values`     values of JSON as columns, and answers as JSON
"""
