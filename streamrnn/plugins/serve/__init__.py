"""Live answers over HTTP from the state of an output, which runs and requests share.

- `command`    `streamrnn serve`
- `server`     the process: it owns the output, listens, commits, and ends; its connections
- `web`        the paths, requests and responses; HTTP itself comes from starlette and uvicorn
- `tensors`    the Open Inference Protocol
- `scoring`    the queue of requests, and the session that scores several of them in one call
- `log`        the log of accepted rows, and the last answer to each producer
- `values`     values of JSON as columns, and answers as JSON
"""
