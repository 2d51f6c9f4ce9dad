"""The last answer to each producer: a retry gets the same answer, and adds no rows."""

import base64
from collections import OrderedDict
from collections.abc import Mapping

import orjson
import pyarrow as pa
from starlette.exceptions import HTTPException

_MOST = 10_000
"""Most producers that are remembered; beyond that, the one silent for longest is forgotten."""


class Producers:
    """The last request of each producer: its number, and the answer to it.

    A note of the log holds them as text: a JSON object of producer -> [sequence, answer], with the
    answer as an Arrow record batch in base64. `forgotten`: how many producers were forgotten.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self.forgotten = 0

    def answer(
        self, producer: str, sequence: int, schema: pa.Schema | None
    ) -> pa.RecordBatch | HTTPException | None:
        """Return the answer to a request that repeats the producer's last one; None for a new one.

        `schema`: the schema of answers. For another `sequence`, an HTTPException with status 409
        and the expected numbers is returned, not raised.
        """
        last, answer = self._last.get(producer, (sequence - 1, ""))
        if sequence == last:
            return pa.ipc.read_record_batch(pa.py_buffer(base64.b64decode(answer)), schema)
        if sequence == last + 1:
            return None
        return HTTPException(
            409,
            f"producer {producer!r}: expected sequence {last} (the last one, again) or "
            f"{last + 1}, received {sequence}",
        )

    def remember(self, note: str) -> None:
        """Add the last requests of some producers, from a note, to those in memory."""
        for producer, last in orjson.loads(note).items():
            self._last[producer] = last
            self._last.move_to_end(producer)
        while len(self._last) > _MOST:
            self._last.popitem(last=False)
            self.forgotten += 1

    def note(self) -> str:
        """Return the last requests of all producers as a note."""
        return orjson.dumps(self._last).decode()


def note_of(answers: Mapping[str, tuple[int, pa.RecordBatch]]) -> str:
    """Return the note of some producers' last requests: producer -> (sequence, answer)."""
    texts = {
        producer: (sequence, base64.b64encode(answer.serialize()).decode())
        for producer, (sequence, answer) in answers.items()
    }
    return orjson.dumps(texts).decode()
