"""Score a Kafka topic into another: each message has one answer there, whatever kills the job.

    python pipelines/etl/kafka_rows.py PIPELINE BOOTSTRAP IN OUT

needs `pip install confluent-kafka`. A message is a row, a JSON object with times as ISO text. Its
answer is a JSON object of the output columns and of `reason`, which says why there is no output,
also for a message that is not a row. It has the message's key and partition, and as headers the
message's topic, partition and offset.

Rows, state and offsets are committed to [sink] path after OUT has acknowledged the answers. So a
restart scores again what is beyond the state, with the same bits, and sends what is beyond the end
of OUT. SIGTERM and SIGINT end the job with a commit.
"""

import json
import signal
import sys
import threading
import time
from datetime import datetime
from typing import Any

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from streamrnn import Pipeline
from streamrnn.errors import ConfigError, DataError, DTypeError, SinkError, StreamRNNError

BATCH_ROWS, COMMIT_SECONDS, TIMEOUT = 1000, 10.0, 10.0
CONSUMER = {"group.id": "none", "enable.partition.eof": True, "auto.offset.reset": "error"}
# The answers of a partition arrive in order, and none after one that is refused.
PRODUCER = {"enable.idempotence": True, "enable.gapless.guarantee": True, "message.timeout.ms": 0}
stopped = threading.Event()


class Job:
    """Answers the messages of IN; `next` and `sent` are offsets in it, by partition."""

    def __init__(self, session: Any, bootstrap: str, source: str, sink: str) -> None:
        common = {"bootstrap.servers": bootstrap, "log_level": 3}
        self.consumer = Consumer({**common, **CONSUMER, "enable.auto.commit": False})
        self.producer = Producer({**common, **PRODUCER})
        self.session, self.source, self.sink = session, source, sink
        self.columns, _ = session.start()
        if unknown := [f.name for f in self.columns if pa.types.is_null(f.type)]:
            raise ConfigError(f"set [source] path to a file that has the types of {unknown}")
        topics = self.consumer.list_topics(timeout=TIMEOUT).topics
        size = {name: len(topic.partitions) for name, topic in topics.items()}
        if not 0 < size.get(source, 0) <= size.get(sink, 0):
            raise ConfigError(f"create topics {source} and {sink}, with as many partitions: {size}")
        last = session.position if isinstance(session.position, dict) else {}
        names = [f"{source}/{partition}" for partition in range(size[source])]
        ends = [self.begin(partition, last.get(name)) for partition, name in enumerate(names)]
        self.next, self.sent = map(list, zip(*ends, strict=True))
        self.consumer.assign([TopicPartition(source, *at) for at in enumerate(self.next)])
        if new := {name: self.next[p] for p, name in enumerate(names) if name not in last}:
            session.process([], position=new, align=True)
            session.commit()  # a restart begins there, too, even if rows are deleted by then

    def begin(self, partition: int, state: int | None) -> tuple[int, int]:
        """Return the offset to read next, and the first one that has no answer."""
        low, end, _ = self.ends(self.source, partition)
        _, answers, last = self.ends(self.sink, partition)
        headers = dict(last.headers() or ()) if last is not None else {}
        start = low if state is None else state
        sent = start if answers and last is None else low  # if all answers were deleted
        if headers.get("topic") == self.source.encode():
            sent = int(headers["offset"]) + 1
        if low <= start <= sent <= end:
            return start, sent
        found = f"state at {start}, rows from {low} to {end}, answers in {self.sink} to {sent}"
        raise DataError(f"{self.source}/{partition}: {found}. Use another OUT and [sink] path")

    def ends(self, topic: str, partition: int) -> tuple[int, int, Message | None]:
        """Return the first offset of a partition, the one after its last, and its last message."""
        at, last = TopicPartition(topic, partition), None
        low, end = self.consumer.get_watermark_offsets(at, timeout=TIMEOUT)
        self.consumer.assign([TopicPartition(topic, partition, max(low, end - 1))])
        while (found := self.consumer.poll(TIMEOUT)) is not None and not is_end(found.error()):
            last = found
        if found is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic}: no answer"))
        return low, found.offset(), last

    def row(self, message: Message) -> dict[str, Any]:
        try:
            values = json.loads(message.value(), parse_constant=int)  # NaN is not JSON: an error
            row = dict.fromkeys(self.columns.names) | values
            times = [f.name for f in self.columns if pa.types.is_timestamp(f.type) and row[f.name]]
            return {**row, **{name: datetime.fromisoformat(row[name]) for name in times}}
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"no JSON object of a row: {error}") from error

    def score(self, messages: list[Message]) -> list[dict[str, Any]]:
        """Return an answer to each message, also to one that is not a row."""
        position = {f"{self.source}/{m.partition()}": m.offset() + 1 for m in messages}
        try:
            rows = [self.row(message) for message in messages]
            return self.session.process(rows, position=position, align=True).to_pylist()
        except (DataError, DTypeError) as error:
            if half := len(messages) // 2:
                return self.score(messages[:half]) + self.score(messages[half:])
            names = self.session.process([], position=position, align=True).column_names
            why = str(error).removeprefix("the batch: ").rpartition("(from 0): ")[2]
            return [{**dict.fromkeys(names), "reason": f"rejected: {why}"}]

    def step(self) -> None:
        """Answer the next messages, and wait until OUT has the answers."""
        found = self.consumer.consume(BATCH_ROWS, 0.1)
        messages = [message for message in found if not is_end(message.error())]
        for message in messages:
            partition, offset = message.partition(), message.offset()
            if offset != self.next[partition]:
                gap = f"expected offset {self.next[partition]}, received {offset}"
                raise DataError(f"{self.source}/{partition}: {gap}: the rows between are gone")
            self.next[partition] += 1
        for message, answer in zip(messages, self.score(messages), strict=True):
            partition, offset, key = message.partition(), message.offset(), message.key()
            if offset >= self.sent[partition]:
                value = json.dumps(answer, default=str)
                at = {"topic": self.source, "partition": str(partition), "offset": str(offset)}
                self.producer.produce(self.sink, value, key, partition, is_end, headers=at)
        while self.producer.flush(1):
            if stopped.is_set():
                raise SinkError(f"{self.sink}: stopped before it acknowledged all answers")


def is_end(error: KafkaError | None, _: Message | None = None) -> bool:
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise KafkaException(error)
    return error is not None


def main(pipeline: str, bootstrap: str, source: str, sink: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with Pipeline.from_toml(pipeline).session() as session:
        job, committed = Job(session, bootstrap, source, sink), time.monotonic()
        while not stopped.is_set():
            job.step()
            if time.monotonic() - committed > COMMIT_SECONDS:
                session.commit()
                committed = time.monotonic()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (StreamRNNError, KafkaException) as error:
        print(error, file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 69))
