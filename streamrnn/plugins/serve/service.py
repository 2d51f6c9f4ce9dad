"""What requests are answered from, and whether it can answer."""

import asyncio
from typing import Any

from starlette.exceptions import HTTPException

from streamrnn.errors import DataError, DTypeError, SinkError, StreamRNNError
from streamrnn.plugins.serve.batching import Batcher
from streamrnn.plugins.serve.scoring import Asked, Scoring
from streamrnn.stream.config.schema import ServeSection


class Service:
    """Answers requests while it is `ready`, from `scoring`; `name` is that of the model.

    `ended` is set after an error that no request has caused: `failure`.
    """

    def __init__(self, name: str, keys: ServeSection) -> None:
        self.name = name
        self.ready = False
        self.scoring: Scoring
        self.batcher = Batcher(
            lambda asked: self.scoring.answers(asked), keys.batch_rows, keys.queue_rows
        )
        self.failure: StreamRNNError | None = None
        self.ended = asyncio.Event()

    async def score(self, asked: Asked) -> Any:
        """Return the answer to a request. Raises DataError, DTypeError and HTTPException."""
        try:
            return await self.batcher.answer(asked, len(asked.rows))
        except (DataError, DTypeError):
            raise
        except StreamRNNError as error:
            self.fail(error)
            raise HTTPException(
                507 if isinstance(error, SinkError) else 500,
                "the server ends, and its log says why; it may have these rows when it is back",
            ) from error

    def fail(self, error: StreamRNNError) -> None:
        """End because of an error."""
        self.failure = self.failure or error
        self.ended.set()

    @property
    def forgotten(self) -> int:
        """Producers that were dropped, as there are too many."""
        return self.scoring.producers.forgotten if self.ready else 0
