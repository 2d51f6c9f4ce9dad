"""A broker in memory, with the names of confluent-kafka that pipelines/etl/kafka_rows.py uses.

And the pipeline file of the tests of that job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

PIPELINE = """
[source]
path = "log.parquet"
key = "id"
time = "t"
features = ["a", "b"]
nulls = "previous"
late = "drop"
[model]
path = "m.safetensors"
[sink]
path = "out"
"""


class TopicPartition(NamedTuple):
    topic: str
    partition: int
    offset: int = 0


@dataclass
class KafkaError:
    _PARTITION_EOF: ClassVar = -191
    _TIMED_OUT: ClassVar = -185
    kind: int
    text: str = ""

    def code(self) -> int:
        return self.kind


class KafkaException(Exception):  # noqa: N818 - its name there
    pass


class Message(NamedTuple):
    at: TopicPartition
    values: tuple[bytes | None, bytes | None, dict[str, str]] | None  # None: the end

    def partition(self) -> int:
        return self.at.partition

    def offset(self) -> int:
        return self.at.offset

    def error(self) -> KafkaError | None:
        return KafkaError(KafkaError._PARTITION_EOF) if self.values is None else None

    def key(self) -> bytes | None:
        assert self.values is not None
        return self.values[0]

    def value(self) -> bytes | None:
        assert self.values is not None
        return self.values[1]

    def headers(self) -> list[tuple[str, bytes]] | None:
        assert self.values is not None
        return [(name, value.encode()) for name, value in self.values[2].items()] or None


@dataclass
class Partition:
    """Messages by offset; `low` and `end` are the watermarks."""

    low: int = 0
    end: int = 0
    messages: dict[int, tuple[bytes | None, bytes | None, dict[str, str]]] = field(
        default_factory=dict
    )

    def add(self, value: bytes | None, key: bytes | None = None, **headers: str) -> None:
        self.messages[self.end] = key, value, headers
        self.end += 1

    def delete(self, *offsets: int) -> None:
        for offset in offsets:
            del self.messages[offset]
        self.low = min(self.messages, default=self.end)


class Broker:
    """Topics by name; `at_produce` is called with the value of each message before it is added."""

    def __init__(self, **partitions: int) -> None:
        self.topics = {name: [Partition() for _ in range(n)] for name, n in partitions.items()}
        self.at_produce: Callable[[bytes], KafkaError | None] = lambda _: None

    def module(self) -> Any:
        """What `import confluent_kafka` finds."""
        broker = self

        class Consumer:
            def __init__(self, config: dict[str, Any]) -> None:
                self.positions: dict[tuple[str, int], int] = {}
                self.told: set[tuple[str, int, int]] = set()

            def list_topics(self, timeout: float) -> Any:
                topics = broker.topics.items()
                return SimpleNamespace(
                    topics={
                        name: SimpleNamespace(partitions=dict(enumerate(partitions)))
                        for name, partitions in topics
                    }
                )

            def get_watermark_offsets(self, at: TopicPartition, timeout: float) -> tuple[int, int]:
                partition = broker.topics[at.topic][at.partition]
                return partition.low, partition.end

            def assign(self, places: list[TopicPartition]) -> None:
                self.positions = {(at.topic, at.partition): at.offset for at in places}
                self.told.clear()

            def poll(self, timeout: float) -> Message | None:
                return next(iter(self.consume(1, timeout)), None)

            def consume(self, most: int, timeout: float) -> list[Message]:
                found: list[Message] = []
                for (topic, number), first in self.positions.items():
                    partition = broker.topics[topic][number]
                    for offset in range(first, partition.end):
                        if len(found) == most:
                            return found
                        self.positions[topic, number] = offset + 1
                        if offset in partition.messages:
                            at = TopicPartition(topic, number, offset)
                            found.append(Message(at, partition.messages[offset]))
                    at = TopicPartition(topic, number, partition.end)
                    if len(found) < most and at not in self.told:
                        self.told.add(at)
                        found.append(Message(at, None))
                return found

        class Producer:
            def __init__(self, config: dict[str, Any]) -> None:
                self.waiting: list[Callable[[], None]] = []

            def produce(
                self,
                topic: str,
                value: str,
                key: bytes | None,
                partition: int,
                delivered: Callable[[KafkaError | None, None], object],
                headers: dict[str, str],
            ) -> None:
                def deliver() -> None:
                    error = broker.at_produce(value.encode())
                    if error is None:
                        broker.topics[topic][partition].add(value.encode(), key, **headers)
                    delivered(error, None)

                self.waiting.append(deliver)

            def flush(self, timeout: float) -> int:
                while self.waiting:
                    self.waiting.pop(0)()
                return 0

        names = (KafkaError, KafkaException, Message, TopicPartition, Consumer, Producer)
        return SimpleNamespace(**{each.__name__: each for each in names})
