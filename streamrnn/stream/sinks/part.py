"""One part of the output: a file of rows, written in staging."""

import re
from dataclasses import dataclass, replace
from urllib.parse import unquote

import pyarrow as pa

from streamrnn.base.storage import Files, sink_errors
from streamrnn.stream.sinks.formats import PART_FORMATS, GroupWriter, PartFormat

NULL = "__HIVE_DEFAULT_PARTITION__"
# Readers skip and parallelize by groups: many tiny ones cost more than holding this many rows.
GROUP_ROWS = 131072
# How many digits part numbers may have. All parts of an output have the same width, the smallest
# that suffices: with mixed widths, names would not sort by number.
WIDTHS = (5, 8)
_NAME = re.compile(rf"part-(\d+)(?:{'|'.join(re.escape(f.suffix) for f in PART_FORMATS.values())})")


def partition_values(name: str) -> dict[str, str | None]:
    """Return the values in the folders of a part's name: column -> text, None for null.

    >>> partition_values("date=2013-01-05/carrier=A%2FB/part-00007.parquet")
    {'date': '2013-01-05', 'carrier': 'A/B'}
    """
    folders = [folder.partition("=") for folder in name.split("/")[:-1]]
    return {key: None if text == NULL else unquote(text) for key, _, text in folders}


def layout_of(name: str) -> tuple[str, ...] | None:
    """Return the columns of the folders in a name; None if a folder is not `column=value`.

    >>> layout_of("date=2013-01-05/part-00007.parquet")
    ('date',)
    """
    folders = name.split("/")[:-1]
    return tuple(f.partition("=")[0] for f in folders) if all("=" in f for f in folders) else None


@dataclass(frozen=True)
class StagedPart:
    """A finished part in staging, under the name `staged`, without a number yet.

    `folder` is the folder of its partition, `date=2013-01-05/origin=JFK`; "" without partitions.
    """

    staged: str
    rows: int
    bytes: int
    sha256: str
    folder: str = ""

    @property
    def format(self) -> PartFormat:
        """The format of the file."""
        return _format_of(self.staged.removesuffix(".tmp"))

    def placed(self, name: str, commit: int, model: str = "") -> "Part":
        """Return the part under the name that commit `commit` gives it, in its folder."""
        name = f"{self.folder}/{name}" if self.folder else name
        return Part(name, self.rows, self.bytes, self.sha256, commit, self.staged, model)


@dataclass(frozen=True, slots=True)
class Part:
    """A committed part. `commit` is the number of the commit that wrote it.

    `name` begins with the folders of its partition: `date=2013-01-05/part-00007.parquet`. Numbers
    run through the whole output, whatever the partition. `staged` is its name in staging, which is
    unique, so that a leftover is never mistaken for a part. `model` is the fingerprint of the model
    that computed its rows ("" for side outputs).
    """

    name: str
    rows: int
    bytes: int
    sha256: str
    commit: int
    staged: str
    model: str = ""

    @property
    def number(self) -> int:
        """The number of the part in its output."""
        return number_of(self._file) or 0

    @property
    def width(self) -> int:
        """How many digits the number in the name has."""
        return len(self._file) - len("part-") - len(self.format.suffix)

    def renamed(self, width: int) -> "Part":
        """Return the part with its number in `width` digits."""
        file = name_of(self.number, self.format.suffix, width)
        return replace(self, name=f"{self.folder}/{file}" if self.folder else file)

    @property
    def folder(self) -> str:
        """The folders of its partition; "" if there are none."""
        return self.name.rpartition("/")[0]

    @property
    def partition(self) -> dict[str, str | None]:
        """The values of its partition: column -> text, None for null, in the order of folders."""
        return partition_values(self.name)

    @property
    def _file(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def format(self) -> PartFormat:
        """The format of the file."""
        return _format_of(self.name)


def _format_of(name: str) -> PartFormat:
    return next(format for format in PART_FORMATS.values() if name.endswith(format.suffix))


def name_of(number: int, suffix: str, width: int) -> str:
    """Return the name of a part, with `width` digits; names of one width sort by number."""
    return f"part-{number:0{width}d}{suffix}"


def width_for(number: int, least: int = 0) -> int | None:
    """Return how many digits a name needs for a number, at least `least`; None if too many."""
    return next((width for width in WIDTHS if width >= max(least, len(str(number)))), None)


def number_of(name: str) -> int | None:
    """Parse the number in the name of a part; None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match and len(match[1]) in WIDTHS else None


class PartWriter:
    """Writes batches of one schema to one file.

    `name` is a new file in `files`, in staging, for a part in `folder`. Batches are gathered
    into groups of at least `GROUP_ROWS` rows, except for the last one. Raises SinkError.
    """

    def __init__(
        self, files: Files, name: str, schema: pa.Schema, format: PartFormat, folder: str = ""
    ) -> None:
        self.schema = schema
        self._folder = folder
        self.rows = 0
        self._format = format
        self._staged = name.rpartition("/")[2]
        self._path = files.show(name)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._output = files.create(name)
        self._writer: GroupWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch, which must have the schema of the part. Raises SinkError."""
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self.rows += batch.num_rows
        if self._waiting_rows >= GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        with sink_errors("write", self._path):
            table = pa.Table.from_batches(self._waiting, self.schema)
            self._waiting, self._waiting_rows = [], 0
            if self._writer is None:
                self._writer = self._format.create(self._output, self.schema, table)
            self._writer.write(table)

    def finish(self) -> StagedPart:
        """Write the buffered rows, sync and close; the part is then complete and durable."""
        output = self._output
        try:
            if self._waiting_rows or not self.rows:
                self._write_group()
            assert self._writer is not None
            with sink_errors("write", self._path):
                self._writer.close()
            output.finish()
        finally:
            self.abandon()
        return StagedPart(self._staged, self.rows, output.bytes, output.sha256, self._folder)

    def abandon(self) -> None:
        """Close; an unfinished file stays in staging until the next start removes it."""
        if self._writer is not None:
            self._writer.abandon()
        self._output.close()
